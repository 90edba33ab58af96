"""Where fedstep runs: environment, clock, disk and repository, read here and handed on as values."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fedstep.errors import InputError
from fedstep.history.project_store import ProjectStore
from fedstep.ingest.ci import read_ci
from fedstep.ingest.git import start_change, start_outgoing
from fedstep.ingest.git_process import repository_root
from fedstep.ingest.globs import compile_globs
from fedstep.types import BuildContext, Change, CiRun, Reports, TestRun, Unavailable

LARGEST_EVENT = 30 << 20  # bytes; GitHub cuts webhook payloads at 25 MB


class RunContext(NamedTuple):
    """One checkout on one machine at one moment."""

    root: str  # of the repository, or the current folder where there is none
    home: ProjectStore
    ci: CiRun
    now: float  # seconds since the epoch


def find_context(history: str, env: Mapping[str, str]) -> RunContext:
    """The workplace around the current folder; `history` is relative to the repository root."""
    here = os.getcwd()
    root = repository_root(here) or here
    ci = read_ci(env, read_event(env), sys.platform)
    folder = os.path.join(root, os.path.expanduser(history or ".fedstep"))
    return RunContext(root, ProjectStore(folder), ci, time.time())


def read_event(env: Mapping[str, str]) -> str:
    """The webhook payload of a GitHub run, "" where there is none."""
    path = env.get("GITHUB_EVENT_PATH", "")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_EVENT)
    except OSError:
        return ""


def in_ci(ci: CiRun) -> bool:
    """Whether this is a CI job and not a developer's machine."""
    return ci.vendor != "local"


def start_situation(place: RunContext, reports: Sequence[str] = ()) -> Callable[[], BuildContext]:
    """The situation of a build that is about to start: in CI of the commit, by hand of what would be pushed.

    What the globs `reports` name, from the current folder, is not pushed while it is untracked.
    """
    if in_ci(place.ci):
        change = start_change(place.root, place.ci)
    else:
        change = start_outgoing(place.root, is_report=compile_globs(reports, os.getcwd(), place.root))
    return lambda: BuildContext(_on_branch(place), change(), place.now)


def built_change(place: RunContext) -> Change | Unavailable:
    """The change of the commit that was built."""
    return start_change(place.root, place.ci)()


def _on_branch(place: RunContext) -> CiRun:
    return place.ci if place.ci.branch else place.ci._replace(branch=current_branch(place.root))


def current_branch(root: str) -> str:
    """The branch that is checked out, "" for a detached HEAD or no repository; read without starting git."""
    folder = os.path.join(root, ".git")
    try:
        if os.path.isfile(folder):
            with open(folder, encoding="utf-8") as file:
                folder = os.path.join(root, file.read().removeprefix("gitdir:").strip())
        with open(os.path.join(folder, "HEAD"), encoding="utf-8") as file:
            head = file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""


def read_junit(place: RunContext, globs: Sequence[str]) -> Reports:
    """The reports that the globs name, from the current folder."""
    from pathlib import Path

    from fedstep.ingest.junit import expand, read_reports

    return read_reports(expand(globs, Path.cwd()), place.root)


def words_of_tests(root: str) -> Callable[[tuple[TestRun, ...]], Mapping[str, tuple[str, ...]]]:
    """A function from tests to the listed words of their own source, for those whose source can be found."""

    def words(runs: tuple[TestRun, ...]) -> Mapping[str, tuple[str, ...]]:
        if not runs:
            return {}
        from fedstep.ingest.git import list_files
        from fedstep.ingest.test_source import SourceIndex, read_test_words, walk_files
        from fedstep.schema.encoders import sub_words
        from fedstep.schema.schema import schema

        tracked = list_files(root)
        index = SourceIndex(walk_files(root) if isinstance(tracked, Unavailable) else tracked)
        listed = schema().words("source").index
        found = ((run.test, read_test_words(run, root, index)) for run in runs)
        return {
            test: tuple(word for word in sub_words(identifiers) if word in listed)
            for test, identifiers in found
            if not isinstance(identifiers, Unavailable)
        }

    return words


def append(path: str, text: str) -> None:
    """Append to a file that the CI reads. InputError where it cannot be written."""
    _write(path, "a", text)


def replace(path: str, text: str) -> None:
    """Write a file that the CI reads anew. InputError where it cannot be written."""
    _write(path, "w", text)


def _write(path: str, mode: str, text: str) -> None:
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
