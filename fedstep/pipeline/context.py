"""Read the environment: repository, CI, history, clock, reports and source; other modules get them as values.

A history that is shared through the repository is fetched before a step and published after it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from fedstep.errors import HistoryError, InputError, UsageError
from fedstep.files import read_bounded
from fedstep.history.project_store import ProjectStore, StartMark
from fedstep.ingest.ci import parse_time, read_ci
from fedstep.ingest.ci_vendors import EVENT_FILE
from fedstep.ingest.git import compile_globs, start_change, start_outgoing
from fedstep.ingest.git_process import common_folder, has_tracked_files, repository_root
from fedstep.results import NO_BUILD_YET, ModelUsed, Problems
from fedstep.types import BuildContext, Change, CiRun, LeftOut, Reports, TestRun, Unavailable

if TYPE_CHECKING:
    from fedstep.federation.model_cache import CachedModel
    from fedstep.ingest.code_host import CodeHost

DEFAULT_HISTORY = ".fedstep"  # folder at the repository root
GIT_HISTORY = "git"  # the history that is shared through a ref of the repository
LARGEST_EVENT = 30 << 20  # bytes; GitHub limits webhook payloads to 25 MB
LONGEST_STEP = 3600.0  # seconds; a step that began earlier belongs to another job
TEKTON_FOLDER = "/tekton/run"  # mounted into each step
LONGEST_PART = 80  # bytes; each may become three letters of a folder name


class RunContext(NamedTuple):
    """One checkout on one machine at one moment."""

    root: str  # of the repository, or `folder` where there is none
    folder: str  # where fedstep was started; relative globs start here
    store: ProjectStore
    ci: CiRun
    now: float  # seconds since the epoch
    history: str = DEFAULT_HISTORY  # as it was asked for: a folder, or "git"
    part: str = ""  # the part of the repository that has a history of its own: "services/api"
    step_started_at: float = 0.0  # seconds since the epoch: when this step began, with its installation

    @property
    def shares_history(self) -> bool:
        """Return whether the history is shared through a ref of this repository."""
        return self.history == GIT_HISTORY and bool(repository_root(self.root))


def find_context(
    folder: str, history: str, part: str, environment: Mapping[str, str], now: float | None = None
) -> RunContext:
    """Return the context around `folder`.

    Args:
        folder: Any folder of the repository.
        history: A folder relative to the repository root, or "git".
        part: A folder of the repository that has a history of its own, "" for the whole repository.
        environment: The variables of the CI.
        now: Seconds since the epoch; by default the clock's time.

    Raises:
        UsageError: `part` is not a folder of the repository.
        HistoryError: A link leads the history out of the repository, or is in its folder.
    """
    folder = os.path.abspath(folder)
    repository, part = repository_root(folder), normalize_part(part)
    root = repository or folder
    history_folder = history or DEFAULT_HISTORY
    if history == GIT_HISTORY:
        history_folder = f"{common_folder(root)}/fedstep" if repository else DEFAULT_HISTORY
    if part:
        from fedstep.history.git_ref import folder_name

        history_folder = f"{history_folder}/parts/{folder_name(part)}"
    ci = read_ci(with_tekton(environment), read_event(environment), sys.platform)
    store = ProjectStore(_confine(root, os.path.join(root, os.path.expanduser(history_folder))))
    store.check_links()
    now = time.time() if now is None else now
    begun = _step_start(environment.get("FEDSTEP_STEP_STARTED_AT", ""), now)
    return RunContext(root, folder, store, ci, now, history or DEFAULT_HISTORY, part, begun)


def _step_start(text: str, now: float) -> float:
    """Return when the step that calls fedstep began, `now` where it does not say so or cannot be right."""
    begun = parse_time(text) if text else now
    return begun if isinstance(begun, float) and 0 <= now - begun <= LONGEST_STEP else now


def _confine(root: str, folder: str) -> str:
    """Return the folder of a history. Raise HistoryError where its path is in the repository, and a link leads it out.

    A change of the repository could make such a link, and `forget` would delete what it leads to.
    """
    inside, real = os.path.normpath(folder), os.path.realpath(folder)
    if not _is_below(inside, os.path.normpath(root)) or _is_below(real, os.path.realpath(root)):
        return folder
    if _is_below(real, os.path.realpath(common_folder(root))):
        return folder
    raise HistoryError(f"{folder} is a link that leads out of the repository", f"Set FEDSTEP_HISTORY to {real} itself")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def exists_within(root: str) -> Callable[[str], bool]:
    """Return a function that tells whether a file is there, and in the repository: a report may name any file."""
    root = os.path.normpath(root)
    return lambda path: os.path.exists(path) and _is_below(os.path.abspath(path), root)


def normalize_part(path: str) -> str:
    """Return the path with "/" between its folders. Raises UsageError if it leads out of the repository.

    >>> normalize_part("./services/api/")
    'services/api'
    """
    path = path.replace("\\", "/")
    folders = [folder for folder in path.split("/") if folder not in ("", ".")]
    if ".." in folders or path.startswith("/") or not path.isprintable() or len(path.encode()) > LONGEST_PART:
        raise UsageError(f"--path {path[:80]!r} is no folder of this repository", "Give it from the root: services/api")
    return "/".join(folders)


def read_event(environment: Mapping[str, str]) -> str:
    """Return the webhook payload of a GitHub run, "" where there is none."""
    path = environment.get(EVENT_FILE, "")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_EVENT)
    except OSError:
        return ""


def with_tekton(environment: Mapping[str, str], folder: str = TEKTON_FOLDER) -> Mapping[str, str]:
    """Return the environment; in a step of Tekton, which sets no variable of its own, also the name of its pod."""
    return {**environment, "TEKTON_POD": environment.get("HOSTNAME", "")} if os.path.isdir(folder) else environment


def in_ci(ci: CiRun) -> bool:
    """Return whether this is a CI job and not a developer's machine."""
    return ci.vendor != "local"


def with_readable_store(context: RunContext) -> tuple[RunContext, Problems]:
    """Return the context itself; if its history cannot be read, one with an empty history, and the error."""
    try:
        context.store.read("key")
        context.store.log.files()
    except HistoryError as error:
        empty = ProjectStore(f"{context.store.folder}.{os.urandom(8).hex()}")
        return context._replace(store=empty), (error,)
    return context, ()


def committed_history_problems(context: RunContext) -> Problems:
    """Return a problem where files of the history are part of the repository: a change could plant what is sent."""
    if context.shares_history or not repository_root(context.root):
        return ()
    if not has_tracked_files(context.root, context.store.folder):
        return ()
    return (
        HistoryError(
            f"files of {context.store.folder} are committed, and a change could plant updates in it: nothing is sent",
            f"Run: git rm -r --cached {os.path.relpath(context.store.folder, context.root)}",
        ),
    )


def mark_start(context: RunContext, now: float) -> Problems:
    """Record that the job starts with this step, if the CI names its run; return the error survived.

    What the step took until `now` is not counted as time of the build.
    """
    try:
        context.store.prepare()
        if context.ci.run:
            begun = context.step_started_at
            context.store.mark_start(_run_name(context), StartMark(begun, max(now - begun, 0.0)), now)
    except HistoryError as error:
        return (error,)
    return ()


def marked_start(context: RunContext) -> StartMark | None:
    """Return what `mark_start` recorded in this job run; None if it was not, or the CI does not name the run."""
    try:
        return context.store.read_mark(_run_name(context)) if context.ci.run else None
    except HistoryError:  # no key yet, or a damaged one: then there is no mark of this run either
        return None


def note_left_out(context: RunContext, tests: tuple[str, ...], shadow: bool) -> Problems:
    """Write down which tests this job run leaves out, for `read_left_out_here`; return the error survived."""
    if context.ci.untrusted:
        return ()
    try:
        context.store.note_left_out(_selection_name(context), LeftOut(tests, shadow=shadow), context.now)
    except HistoryError as error:
        return (error,)
    return ()


def read_left_out_here(context: RunContext) -> LeftOut | None:
    """Return what `note_left_out` wrote in this job run; on a developer's machine, since the last call."""
    try:
        name = _selection_name(context)
        noted = context.store.read_left_out(name)
    except HistoryError:  # no key yet: then nothing was noted either
        return None
    if not context.ci.run:
        context.store.forget_left_out(name)
    return noted


def _selection_name(context: RunContext) -> str:
    return _run_name(context) if context.ci.run else "local"


def missing_run_warning(ci: CiRun) -> str:
    """Return what is lost in a CI that names neither run nor start, and the remedy; "" elsewhere."""
    if ci.run or isinstance(ci.started_at, float) or not in_ci(ci):
        return ""
    return (
        "this CI does not tell which run this is: the build's time is the sum of its tests' times. "
        "Set FEDSTEP_CI_RUN to a number of the run, for all steps"
    )


def start_build_context(
    context: RunContext, reports: Sequence[str] = (), with_words: bool = False
) -> Callable[[], BuildContext]:
    """Start git, and return a function that waits for it and returns the context of the build about to start.

    In CI the change is that of the commit; on a developer's machine it is what would be pushed. Files that match the
    globs `reports` do not count while they are untracked. `with_words` reads the words of the changed lines, too.
    """
    if in_ci(context.ci):
        change = start_change(context.root, context.ci, with_words=with_words)
    else:
        is_report = compile_globs(reports, context.folder, context.root)
        change = start_outgoing(context.root, is_report=is_report, with_words=with_words)
    ci = context.ci if context.ci.branch else context.ci._replace(branch=current_branch(context.root))
    return lambda: BuildContext(ci, change(), context.now)


def built_change(context: RunContext, with_words: bool = False) -> Change | Unavailable:
    """Return the change of the commit that was built, `with_words` those of its lines, too."""
    return start_change(context.root, context.ci, with_words=with_words)()


def change_problems(change: Change | Unavailable) -> Problems:
    """Return a problem if git did not reveal the change."""
    if isinstance(change, Change):
        return ()
    remedy = "" if "run: " in change.reason else "Run fedstep in a git checkout, with git on the PATH"
    return (InputError(f"the change is unknown, {change.reason}", remedy),)


def describe_model(cached: "CachedModel", now: float) -> ModelUsed:
    """Return kind, version and age of the model for a report."""
    if not cached.url:
        return ModelUsed()
    return ModelUsed("production", cached.model.production_version, max(0.0, now - cached.fetched_at), cached.url)


def local_status(cached: "CachedModel", problems: Problems) -> str:
    """Return the status of a step that exchanges nothing: degraded, ok with a pulled model, else local."""
    return "degraded" if problems else "ok" if cached.url else "local"


def empty_history_notices(builds_known: int, problems: Problems) -> tuple[str, ...]:
    """Return a notice if no build is known, unless `problems` say that the history cannot be read. It is no fault."""
    if builds_known or any(isinstance(problem, HistoryError) for problem in problems):
        return ()
    return (
        f"{NO_BUILD_YET}, the starter model alone answers. Run fedstep train after your tests: "
        "it records each build, and from the second on times and risks are predicted. If it ran before, its folder was "
        "not kept from build to build",
    )


def input_notices(change: Change | Unavailable, cached: "CachedModel") -> tuple[str, ...]:
    """Return what a change was read from, such as a shallow clone, and why the starter model replaces a pulled one."""
    notice = change.notice if isinstance(change, Change) else ""
    return tuple(filter(None, (notice, cached.warning)))


def code_host(context: RunContext) -> "CodeHost":
    """Return where the commits of the repository's remote are shown."""
    from fedstep.history.git_ref import find_remote  # a prediction names no commit
    from fedstep.ingest.code_host import find_code_host

    return find_code_host(context.root, find_remote(context.root))


def current_branch(root: str) -> str:
    """Return the branch that is checked out, "" for a detached HEAD or no repository. Does not start git."""
    folder = os.path.join(root, ".git")
    try:
        if os.path.isfile(folder):
            folder = os.path.join(root, read_bounded(folder).decode().removeprefix("gitdir:").strip())
        head = read_bounded(os.path.join(folder, "HEAD")).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""


def read_matching_reports(
    context: RunContext, globs: Sequence[str], is_over: Callable[[], bool], allow_stale: bool = False
) -> Reports:
    """Read the reports that the globs match, relative to `context.folder`.

    Those that are older than this job are dropped, unless they are allowed; so are those for which there is no time.
    """
    from pathlib import Path  # 9 ms that a prediction does not need

    from fedstep.ingest.junit import ReadingLimits, expand, read_reports

    mark = marked_start(context)
    started = context.ci.started_at if isinstance(context.ci.started_at, float) else mark.started_at if mark else 0.0
    limits = ReadingLimits(0.0 if allow_stale else started, is_over)
    return read_reports(expand(globs, Path(context.folder), is_over), context.root, limits)


def words_of_tests(root: str) -> Callable[[tuple[TestRun, ...]], Mapping[str, tuple[str, ...]]]:
    """Return a function from test runs to the words of their own source, by test id.

    Tests whose source is not found are left out.
    """

    def find_words(runs: tuple[TestRun, ...]) -> Mapping[str, tuple[str, ...]]:
        if not runs:
            return {}
        from fedstep.ingest.git import list_files
        from fedstep.ingest.test_source import SourceIndex, read_test_words, walk_files
        from fedstep.schema.schema import sub_words

        tracked = list_files(root)
        index = SourceIndex(walk_files(root) if isinstance(tracked, Unavailable) else tracked)
        identifiers = ((run.test, read_test_words(run, root, index)) for run in runs)
        return {test: sub_words(names) for test, names in identifiers if not isinstance(names, Unavailable)}

    return find_words


def _run_name(context: RunContext) -> str:
    """Return a keyed hash that names the job run."""
    ci = context.ci
    return context.store.keyed_hash("run", ci.vendor, ci.run, str(ci.attempt), ci.job, ci.cell)


def append(path: str, text: str) -> None:
    """Append to a file that the CI reads. Raises InputError if it cannot be written."""
    _write(path, "a", text)


def replace(path: str, text: str) -> None:
    """Replace a file that the CI reads. Raises InputError if it cannot be written."""
    _write(path, "w", text)


def _write(path: str, mode: str, text: str) -> None:
    try:
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


DEVELOPER_SECONDS = 1.0  # a developer waits this long for a fetch
CI_SECONDS = 10.0
FRESH_SECONDS = 4 * 3600.0  # a developer's commands ask the remote again after this time
RETRY_SECONDS = 15 * 60.0  # after a failed attempt


class FetchResult(NamedTuple):
    """The errors that a fetch survived, and what it ignored."""

    problems: Problems = ()
    warnings: tuple[str, ...] = ()


def fetch_history(context: RunContext, seconds: float = 0.0) -> FetchResult:
    """Merge what others have published into the history, if it is shared.

    Ask the remote for at most `seconds`. With 0, ask it in CI, and on a developer's machine only if the last fetch is
    old; else merge what git itself has fetched.
    """
    if context.history != GIT_HISTORY:
        return FetchResult()
    if not context.shares_history:
        remedy = f"Run it inside a clone; the folder {DEFAULT_HISTORY} is used"
        return FetchResult((HistoryError("--history git needs a git repository, and this is none", remedy),))
    try:
        seconds = seconds or _seconds_due(context)
        return FetchResult(warnings=fetch_now(context, seconds) if seconds else _merge_local(context))
    except HistoryError as error:
        warnings: tuple[str, ...] = ()
        with suppress(HistoryError):
            warnings = _merge_local(context)
        return FetchResult((error,), warnings)


def open_history(context: RunContext) -> tuple[RunContext, FetchResult]:
    """Return the context with a history that can be read, as `with_readable_store`, and what others have published."""
    context, problems = with_readable_store(context)
    return context, FetchResult(problems) if problems else fetch_history(context)


def publish_history(context: RunContext, keep: int, seconds: float) -> Problems:
    """Publish new records within `seconds` if the history is shared and the run is trusted; return the error survived.

    `keep` is the number of records that stay in the ref.
    """
    if not context.shares_history or context.ci.untrusted:
        return ()
    try:
        publish_now(context, keep, seconds)
    except HistoryError as error:
        return (error,)
    return ()


def fetch_now(context: RunContext, seconds: float) -> tuple[str, ...]:
    """Fetch and merge within `seconds`; return what was ignored. Raises HistoryError if the remote is not reached."""
    from fedstep.history.git_sync import fetch_and_import, open_channel

    return fetch_and_import(context.store, open_channel(context.root, context.part), seconds, context.now).warnings


def publish_now(context: RunContext, keep: int, seconds: float) -> bool:
    """Publish within `seconds`; return whether anything was new. Raises HistoryError if the remote does not take it."""
    from random import random

    from fedstep.history.git_sync import WAITS, open_channel, publish

    waits = tuple(wait * (0.5 + random()) for wait in WAITS)
    channel = open_channel(context.root, context.part)
    return publish(context.store, channel, keep, context.now, seconds, waits).new


def _seconds_due(context: RunContext) -> float:
    """Return how long to ask the remote now, 0 if that is not due."""
    from fedstep.history.merge import load_sync_state

    if in_ci(context.ci):
        return CI_SECONDS
    seen = load_sync_state(context.store)
    is_fresh = context.now - seen.fetched_at < FRESH_SECONDS or context.now - seen.tried_at < RETRY_SECONDS
    return 0.0 if is_fresh else DEVELOPER_SECONDS


def _merge_local(context: RunContext) -> tuple[str, ...]:
    """Merge the ref of this clone if it has changed since, as after `git fetch`; return what was ignored."""
    from fedstep.history.git_ref import GitChannel, local_commit
    from fedstep.history.merge import import_ref, load_sync_state

    if local_commit(context.root) == load_sync_state(context.store).commit:
        return ()
    return import_ref(context.store, GitChannel(context.root, part=context.part)).warnings
