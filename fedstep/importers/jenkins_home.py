"""Past builds in a Jenkins home on disk: every job's builds, in folders, branches and matrix configurations.

Of Jenkins' own files it reads build.xml, junitResult.xml and a branch's config.xml.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from fedstep.importers.base import (
    BuildFilter,
    ImportItem,
    ImportSource,
    ReadResult,
    clean_test_name,
    failure_kind,
    merge_repeated,
    select_newest,
)
from fedstep.ingest.cases import parse_seconds
from fedstep.ingest.ci import parse_outcome
from fedstep.ingest.test_identity import MAX_NAME
from fedstep.ingest.xml import (
    DamagedDocument,
    RejectedDocument,
    Repairs,
    Tokenizer,
    convert_to_utf8,
    read_blocks,
    repair,
)
from fedstep.types import (
    BuildContext,
    Change,
    CiRun,
    Dropped,
    Duration,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

CAUSES = (("TimerTrigger", "schedule"), ("UserIdCause", "manual"), ("SCMTrigger", "push"), ("Push", "push"))


class ElementHandler(Protocol):
    """Collect what is needed from the elements of a document; `path` has the names of the open ones."""

    def start(self, name: str, path: list[str]) -> bool:
        """Handle the start of an element; return whether its text is needed."""

    def end(self, name: str, path: list[str], text: str) -> None:
        """Handle the end of an element."""


def parse(make: Callable[[], Any], path: str) -> Any:
    """Return the handler after it has read the file, up to the place where the file stops being XML.

    Jenkins writes XML 1.1, which allows control characters: what expat rejects is repaired and read again. Raise
    OSError, and ValueError for a rejected document, which declares a DTD or has no root.
    """
    for is_damaged in (False, True):
        handler = make()
        tokenizer = _tokenizer(handler)
        repairs = Repairs()
        with open(path, "rb") as stream:
            chunks = convert_to_utf8(read_blocks(stream), repairs)
            try:
                for _ in tokenizer.read(repair(chunks, repairs) if is_damaged else chunks, repairs):
                    pass
                return handler
            except DamagedDocument as damage:
                if damage.truncated:
                    return handler
            except RejectedDocument as rejection:
                raise ValueError(str(rejection)) from rejection
    return handler


def _tokenizer(handler: ElementHandler) -> Tokenizer:
    tokenizer = Tokenizer()
    path: list[str] = []
    texts: list[str] = []

    def start(name: str, _attributes: dict[str, str]) -> None:
        if len(path) > 1000:
            raise DamagedDocument(tokenizer.line, "more than 1,000 nested elements", truncated=True)
        path.append(name)
        texts.clear()
        tokenizer.set_text_handler(collect if handler.start(name, path) else None)

    def collect(text: str) -> None:
        if len(texts) < 20:  # the beginning: a stack trace arrives line by line
            texts.append(text[:MAX_NAME])

    def end(name: str) -> None:
        tokenizer.set_text_handler(None)
        handler.end(name, path, "".join(texts))
        texts.clear()
        path.pop()

    tokenizer.set_handlers(start, end)
    return tokenizer


class ElementTexts:
    """Collect the first text of each wanted element, by its path below the root or by its name; and all names."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self.wanted = wanted
        self.texts: dict[str, str] = {}
        self.names: set[str] = set()
        self.commits: dict[str, str] = {}  # by build number: the git plugin writes the last build of every branch
        self._sha1 = ""

    def start(self, name: str, path: list[str]) -> bool:
        """Return whether the text of this element is needed."""
        if len(self.names) < 5000:
            self.names.add(name)
        return name in ("sha1", "hudsonBuildNumber") or bool(self._key(name, path))

    def end(self, name: str, path: list[str], text: str) -> None:
        """Store the text, if it is the first."""
        if name == "sha1":
            self._sha1 = text.strip()
        elif name == "hudsonBuildNumber":
            self.commits.setdefault(text.strip(), self._sha1)
        if key := self._key(name, path):
            self.texts.setdefault(key, text.strip())

    def _key(self, name: str, path: list[str]) -> str:
        below_root = "/".join(path[1:]) if len(path) < 4 else ""
        return below_root if below_root in self.wanted else name if f"*/{name}" in self.wanted else ""


CASE = frozenset({"className", "testName", "duration", "skipped", "errorStackTrace", "errorDetails"})
AGAIN = {"flakyFailures", "flakyErrors", "rerunFailures", "rerunErrors"}


class JunitResultHandler:
    """Collect the test cases of a junitResult.xml."""

    def __init__(self) -> None:
        self.runs: list[TestRun] = []
        self.suite = ""
        self.open: dict[str, str] = {}

    def start(self, name: str, path: list[str]) -> bool:
        """Return whether the text of this element is needed."""
        if name == "case":
            self.open = {}
        if len(path) > 2 and path[-2] in AGAIN:
            self.open["again"] = "yes"
        parent = path[-2] if len(path) > 1 else ""
        return (parent == "case" and name in CASE) or (parent == "suite" and name == "name")

    def end(self, name: str, path: list[str], text: str) -> None:
        """Store the text; at the end of a case, add the case."""
        parent = path[-2] if len(path) > 1 else ""
        if name == "case":
            self._finish()
        elif parent == "case" and name in CASE:
            self.open[name] = text.strip()
        elif parent == "suite" and name == "name":
            self.suite = text.strip()

    def _finish(self) -> None:
        get = self.open.get
        test = f"{get('className') or self.suite}#{get('testName', '')}"
        failed, again = "errorStackTrace" in self.open or "errorDetails" in self.open, "again" in self.open
        outcome = Outcome.FAILED if failed else Outcome.PASSED
        if again:
            outcome = Outcome.CONFIRMED if failed else Outcome.FLAKED
        if get("skipped") == "true":
            outcome = Outcome.SKIPPED
        kind = failure_kind(get("errorStackTrace") or get("errorDetails", "")) if failed else ""
        self.runs.append(
            TestRun(clean_test_name(test), outcome, parse_seconds(get("duration", "x")), kind, suite=self.suite)
        )


def find_event(causes: set[str]) -> str:
    """Return the event that the class names of a build's causes mean; "" where they mean none."""
    return next((event for word, event in CAUSES if any(word in cause for cause in causes)), "")


HOME_BUILD = frozenset({"timestamp", "startTime", "duration", "result", "*/hash", "*/pullHash"})
DEEPEST = 30  # folders inside folders
_UNREADABLE_FILES = (OSError, ValueError, KeyError, OverflowError)


class JenkinsJob(NamedTuple):
    """A job, by the values that its own builds see in their variables."""

    folder: str
    name: str  # full name, "/" between folders: JOB_NAME
    job: str  # `name` without the branch
    branch: str = ""
    base_branch: str = ""
    is_pr: bool = False


def open_jenkins_home(home: Path, build_filter: BuildFilter) -> ImportSource:
    """Return the finished builds of all jobs below a Jenkins home, or of one job's folder; oldest first."""
    jobs = [job for job in _list_jobs(str(home)) if build_filter.has_job(job.job)]
    items = (item for job in jobs for item in _list_builds(job))
    chosen = select_newest((item for item in items if item.after >= build_filter.since), build_filter)
    return ImportSource(len(chosen), chosen, apart=True)


def _list_jobs(home: str) -> Iterator[JenkinsJob]:
    if os.path.isdir(os.path.join(home, "builds")):  # the folder of one job
        name = os.path.basename(os.path.abspath(home))
        yield from _jobs_at(home, name, DEEPEST)
    else:
        yield from _jobs_below(home, "", DEEPEST)


def _jobs_below(folder: str, name: str, depth: int) -> Iterator[JenkinsJob]:
    """Yield the jobs in the `jobs` folder of a Jenkins home or of a folder."""
    for entry in _folders(os.path.join(folder, "jobs")) if depth else ():
        yield from _jobs_at(entry.path, f"{name}/{entry.name}" if name else entry.name, depth - 1)


def _jobs_at(folder: str, name: str, depth: int) -> Iterator[JenkinsJob]:
    configurations = os.path.join(folder, "configurations")
    if os.path.isdir(configurations):  # the parent of a matrix only starts its cells
        yield from _cells(configurations, name, ())
    elif os.path.isdir(os.path.join(folder, "builds")):
        yield JenkinsJob(folder, name, name)
    for entry in _folders(os.path.join(folder, "branches")):
        yield _branch(entry.path, name)
    yield from _jobs_below(folder, name, depth)


def _cells(folder: str, name: str, axes: tuple[tuple[str, str], ...]) -> Iterator[JenkinsJob]:
    """Yield the configurations of a matrix job: folders axis-NAME/VALUE, one inside the other."""
    for axis in _folders(folder):
        if not axis.name.startswith("axis-") or len(axes) >= DEEPEST:
            continue
        for value in _folders(axis.path):
            cell = (*axes, (axis.name.removeprefix("axis-"), value.name))
            if os.path.isdir(os.path.join(value.path, "builds")):
                text = ",".join(f"{axis_name}={axis_value}" for axis_name, axis_value in sorted(cell))
                yield JenkinsJob(value.path, f"{name}/{text}", f"{name}/{text}")
            yield from _cells(value.path, name, cell)


def _branch(folder: str, parent: str) -> JenkinsJob:
    """Return the job of a branch of a multibranch job; its folder has a shortened name, files inside the real one."""
    encoded = _read_text(os.path.join(folder, "name-utf8.txt")) or os.path.basename(folder)
    head = _read_branch_head(os.path.join(folder, "config.xml"))
    branch = head.get("sourceBranch") or head.get("name") or unquote(encoded)
    is_pr = "sourceBranch" in head
    return JenkinsJob(folder, f"{parent}/{encoded}", parent, branch, head.get("target", "") if is_pr else "", is_pr)


def _read_branch_head(path: str) -> dict[str, str]:
    """Return what config.xml says of the branch: its name, and of a pull request its source and target."""
    try:
        return dict(parse(_BranchHead, path).texts)
    except (OSError, ValueError):
        return {}


class _BranchHead:
    """Collect the name, sourceBranch and target of the <head> of a branch."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def start(self, name: str, path: list[str]) -> bool:
        return bool(self._key(name, path))

    def end(self, name: str, path: list[str], text: str) -> None:
        if key := self._key(name, path):
            self.texts.setdefault(key, text.strip())

    def _key(self, name: str, path: list[str]) -> str:
        if path[-2:-1] == ["head"] and name in ("name", "sourceBranch"):
            return name
        return "target" if path[-3:] == ["head", "target", "name"] else ""


def _folders(path: str) -> list["os.DirEntry[str]"]:
    """Return the folders in a folder, without links, such as Jenkins' lastSuccessfulBuild."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                (entry for entry in entries if entry.is_dir(follow_symlinks=False)), key=lambda entry: entry.name
            )
    except OSError:
        return []


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1000).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _list_builds(job: JenkinsJob) -> Iterator[ImportItem]:
    for entry in _folders(os.path.join(job.folder, "builds")):
        if entry.name.isdecimal() and os.path.isfile(os.path.join(entry.path, "build.xml")):
            yield ImportItem(_end_time(entry.path), partial(_read_build, job, entry.path))


def _read_build_xml(folder: str) -> ElementTexts:
    elements: ElementTexts = parse(partial(ElementTexts, HOME_BUILD), os.path.join(folder, "build.xml"))
    return elements


def _times(elements: ElementTexts) -> tuple[float, float]:
    """Return start and duration in seconds. Raise ValueError or KeyError where build.xml has none."""
    started = int(elements.texts.get("startTime") or 0) or int(elements.texts["timestamp"])
    return started / 1000, int(elements.texts.get("duration") or 0) / 1000


def _end_time(folder: str) -> float:
    """Return when the build ended, in seconds since the epoch; 0 where that cannot be read."""
    try:
        return sum(_times(_read_build_xml(folder)))
    except _UNREADABLE_FILES:
        return 0.0


def _read_build(job: JenkinsJob, folder: str) -> tuple[ReadResult, ...]:
    """Return one build; nothing for one that was aborted or still runs."""
    try:
        elements = _read_build_xml(folder)
        started, seconds = _times(elements)
        outcome = parse_outcome(elements.texts.get("result", "null"))
        if isinstance(outcome, Unavailable):
            return ()
        reports = _read_reports(folder)
    except _UNREADABLE_FILES as error:
        return (Dropped(os.path.join(folder, "build.xml"), f"cannot be read ({type(error).__name__}: {error})"),)
    build_number = os.path.basename(folder)
    ci = CiRun(
        vendor="jenkins",
        run=f"{job.name}/{build_number}",
        job=job.job,
        branch=job.branch,
        base_branch=job.base_branch,
        event="pull_request" if job.is_pr else find_event(elements.names),
    )
    texts = elements.texts
    commit = texts.get("pullHash") or texts.get("hash") or elements.commits.get(build_number, "")
    change = Change(commit, "", "") if commit else Unavailable("build.xml does not tell the commit")
    duration = Duration(seconds, "jenkins") if seconds > 0 else Unavailable("build.xml has no duration")
    return (FinishedBuild(BuildContext(ci, change, started), started + seconds, duration, outcome, reports),)


def _read_reports(folder: str) -> Reports:
    path = os.path.join(folder, "junitResult.xml")
    if not os.path.isfile(path):
        return Reports()
    return Reports(merge_repeated(parse(JunitResultHandler, path).runs), 1)
