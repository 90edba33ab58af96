"""Past builds in a Jenkins home on disk: every job's builds, in folders, branches and matrix configurations."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from fedstep.errors import InputError
from fedstep.importers.api_client import ApiClient, ResponseTooLarge
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
from fedstep.importers.jenkins_xml import ElementTexts, JunitResultHandler, find_event, parse
from fedstep.ingest.cases import parse_seconds
from fedstep.ingest.ci import parse_outcome
from fedstep.types import (
    BuildContext,
    Change,
    CiRun,
    Dropped,
    Duration,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

HOME_BUILD = frozenset({"timestamp", "startTime", "duration", "result", "*/hash", "*/pullHash"})
DEEPEST = 30  # folders inside folders
_UNREADABLE_FILES = (OSError, ValueError, KeyError, OverflowError)


class JenkinsJob(NamedTuple):
    """A job as its own builds know it: JOB_NAME without the branch, and the branch."""

    folder: str
    name: str  # full name, "/" between folders: what Jenkins calls JOB_NAME
    job: str
    branch: str = ""
    base_branch: str = ""
    is_pr: bool = False


def open_jenkins_home(home: Path, build_filter: BuildFilter) -> ImportSource:
    """The finished builds of all jobs below a Jenkins home, or of one job's folder; oldest first."""
    jobs = [job for job in _home_jobs(str(home)) if build_filter.has_job(job.job)]
    items = (one for job in jobs for one in _home_builds(job))
    chosen = select_newest((one for one in items if one.after >= build_filter.since), build_filter)
    return ImportSource(len(chosen), chosen, apart=True)


def _home_jobs(home: str) -> Iterator[JenkinsJob]:
    if os.path.isdir(os.path.join(home, "builds")):  # the folder of one job
        name = os.path.basename(os.path.abspath(home))
        yield from _home_job(home, name, DEEPEST)
    else:
        yield from _below(home, "", DEEPEST)


def _below(folder: str, name: str, depth: int) -> Iterator[JenkinsJob]:
    """The jobs in the `jobs` folder of a Jenkins home or of a folder."""
    for entry in _folders(os.path.join(folder, "jobs")) if depth else ():
        yield from _home_job(entry.path, f"{name}/{entry.name}" if name else entry.name, depth - 1)


def _home_job(folder: str, name: str, depth: int) -> Iterator[JenkinsJob]:
    configurations = os.path.join(folder, "configurations")
    if os.path.isdir(configurations):  # the parent of a matrix only starts its cells
        yield from _cells(configurations, name, ())
    elif os.path.isdir(os.path.join(folder, "builds")):
        yield JenkinsJob(folder, name, name)
    for entry in _folders(os.path.join(folder, "branches")):
        yield _branch(entry.path, name)
    yield from _below(folder, name, depth)


def _cells(folder: str, name: str, axes: tuple[tuple[str, str], ...]) -> Iterator[JenkinsJob]:
    """The configurations of a matrix job: axis-NAME/VALUE, one inside the other."""
    for axis in _folders(folder):
        if not axis.name.startswith("axis-") or len(axes) >= DEEPEST:
            continue
        for value in _folders(axis.path):
            cell = (*axes, (axis.name.removeprefix("axis-"), value.name))
            if os.path.isdir(os.path.join(value.path, "builds")):
                text = ",".join(f"{one}={other}" for one, other in sorted(cell))
                yield JenkinsJob(value.path, f"{name}/{text}", f"{name}/{text}")
            yield from _cells(value.path, name, cell)


def _branch(folder: str, parent: str) -> JenkinsJob:
    """A branch of a multibranch job. Its folder is named by a shortened name: the real one is in files inside."""
    encoded = _text(os.path.join(folder, "name-utf8.txt")) or os.path.basename(folder)
    head = _head(os.path.join(folder, "config.xml"))
    branch = head.get("sourceBranch") or head.get("name") or unquote(encoded)
    is_pr = "sourceBranch" in head
    return JenkinsJob(folder, f"{parent}/{encoded}", parent, branch, head.get("target", "") if is_pr else "", is_pr)


def _head(path: str) -> dict[str, str]:
    """What config.xml says of the branch: its name, and of a pull request where it comes from and goes to."""
    try:
        return dict(parse(_Head, path).texts)
    except (OSError, ValueError):
        return {}


class _Head:
    """The name, sourceBranch and target of the <head> of a branch."""

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
    """The folders in a folder, links left out: Jenkins keeps lastSuccessfulBuild as one."""
    try:
        with os.scandir(path) as entries:
            return sorted((one for one in entries if one.is_dir(follow_symlinks=False)), key=lambda one: one.name)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1000).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _home_builds(job: JenkinsJob) -> Iterator[ImportItem]:
    for entry in _folders(os.path.join(job.folder, "builds")):
        if entry.name.isdecimal() and os.path.isfile(os.path.join(entry.path, "build.xml")):
            yield ImportItem(_ended(entry.path), partial(_read_home_build, job, entry.path))


def _facts(folder: str) -> ElementTexts:
    facts: ElementTexts = parse(partial(ElementTexts, HOME_BUILD), os.path.join(folder, "build.xml"))
    return facts


def _times(facts: ElementTexts) -> tuple[float, float]:
    """Start and duration in seconds. ValueError and KeyError where build.xml has none."""
    started = int(facts.texts.get("startTime") or 0) or int(facts.texts["timestamp"])
    return started / 1000, int(facts.texts.get("duration") or 0) / 1000


def _ended(folder: str) -> float:
    """When the build ended, in seconds since the epoch; 0 where that cannot be read."""
    try:
        return sum(_times(_facts(folder)))
    except _UNREADABLE_FILES:
        return 0.0


def _read_home_build(job: JenkinsJob, folder: str) -> tuple[ReadResult, ...]:
    """The evidence of one build; nothing for one that was aborted or still runs."""
    try:
        facts = _facts(folder)
        started, seconds = _times(facts)
        outcome = parse_outcome(facts.texts.get("result", "null"))
        if isinstance(outcome, Unavailable):
            return ()
        reports = _home_reports(folder)
    except _UNREADABLE_FILES as error:
        return (Dropped(os.path.join(folder, "build.xml"), f"cannot be read ({type(error).__name__}: {error})"),)
    number = os.path.basename(folder)
    ci = CiRun(
        vendor="jenkins",
        run=f"{job.name}/{number}",
        job=job.job,
        branch=job.branch,
        base_branch=job.base_branch,
        event="pull_request" if job.is_pr else find_event(facts.names),
    )
    texts = facts.texts
    commit = texts.get("pullHash") or texts.get("hash") or facts.commits.get(number, "")
    change = Change(commit, "", "") if commit else Unavailable("build.xml does not tell the commit")
    duration = Duration(seconds, "jenkins") if seconds > 0 else Unavailable("build.xml has no duration")
    return (FinishedBuild(BuildContext(ci, change, started), started + seconds, duration, outcome, reports),)


def _home_reports(folder: str) -> Reports:
    path = os.path.join(folder, "junitResult.xml")
    if not os.path.isfile(path):
        return Reports()
    return Reports(merge_repeated(parse(JunitResultHandler, path).runs), 1)


Json = Mapping[str, Any]
PAGE = 100  # builds asked for at once
DEEPEST = 30  # folders inside folders
ITEM = "_class,name,fullName,jobs[name],activeConfigurations[name],builds[number]{0,1}"
CHANGES = "items[commitId,authorEmail,affectedPaths]"
BUILD_FIELDS = (
    "number,result,timestamp,duration,building,actions[_class,causes[_class],lastBuiltRevision[SHA1]],"
    f"changeSet[{CHANGES}],changeSets[{CHANGES}]"
)
REPORT = "suites[name,cases[className,name,duration,status,errorDetails]]"
OUTCOMES = {
    "PASSED": Outcome.PASSED,
    "FIXED": Outcome.PASSED,
    "FAILED": Outcome.FAILED,
    "REGRESSION": Outcome.FAILED,
    "SKIPPED": Outcome.SKIPPED,
}
_UNREADABLE_ANSWER = (KeyError, TypeError, ValueError, AttributeError)


class _ServerJob(NamedTuple):
    """A job as its own builds know it: JOB_NAME, without the branch, the branch; and its URL."""

    url: str
    name: str
    job: str
    branch: str = ""


def open_jenkins_server(client: ApiClient, build_filter: BuildFilter) -> ImportSource:
    """The finished builds of all jobs below the URL of a server, of a folder or of a job; oldest first.

    Raises InputError where the server refuses, or answers something else than Jenkins would.
    """
    try:
        jobs = [job for job in _server_jobs(client, f"{client.base}/", None, DEEPEST) if build_filter.has_job(job.job)]
        items = [one for job in jobs for one in _server_builds(client, job, build_filter)]
    except _UNREADABLE_ANSWER as error:
        raise InputError(f"{client.base} does not answer as Jenkins does ({error!r})", client.remedy) from error
    chosen = select_newest(items, build_filter)
    return ImportSource(len(chosen), chosen, chosen=True)


def _server_jobs(client: ApiClient, url: str, parent: Json | None, depth: int) -> Iterator[_ServerJob]:
    """The jobs at and below a URL. Addresses are built, not taken: a proxy may show the server elsewhere."""
    item = client.page(f"{url}api/json?tree={ITEM}").value
    if item.get("activeConfigurations"):  # the parent of a matrix only starts its cells
        for cell in item["activeConfigurations"]:
            name = f"{item['fullName']}/{cell['name']}"
            yield _ServerJob(f"{url}{quote(cell['name'])}/", name, name)
    elif item.get("builds"):
        yield _server_job(url, item, parent)
    for child in item.get("jobs") or () if depth else ():
        yield from _server_jobs(client, f"{url}job/{quote(child['name'])}/", item, depth - 1)


def _server_job(url: str, item: Json, parent: Json | None) -> _ServerJob:
    name = str(item.get("fullName") or item["name"])
    if parent and "MultiBranch" in str(parent.get("_class")):
        return _ServerJob(url, name, name.rpartition("/")[0], unquote(str(item["name"])))
    return _ServerJob(url, name, name)


def _server_builds(client: ApiClient, job: _ServerJob, build_filter: BuildFilter) -> Iterator[ImportItem]:
    """The finished builds of a job, newest first, a page at a time."""
    start = found = 0
    while True:
        tree = f"allBuilds[{BUILD_FIELDS}]{{{start},{start + PAGE}}}"
        builds = client.page(f"{job.url}api/json?tree={tree}").value["allBuilds"]
        for build in builds:
            ended = (build["timestamp"] + build["duration"]) / 1000
            if build["timestamp"] / 1000 < build_filter.since or (build_filter.limit and found >= build_filter.limit):
                return
            if not build.get("building") and not isinstance(parse_outcome(str(build["result"])), Unavailable):
                found += 1
                yield ImportItem(
                    ended, partial(_read_server_build, client, job, build), ("jenkins", job.url, str(build["number"]))
                )
        if len(builds) < PAGE:
            return
        start += PAGE


def _read_server_build(client: ApiClient, job: _ServerJob, build: Json) -> tuple[ReadResult, ...]:
    """The evidence of one build; without tests where the server has no test report of it."""
    source = f"{job.name} #{build['number']}"
    try:
        found = client.page_if_there(f"{job.url}{build['number']}/testReport/api/json?tree={REPORT}")
        reports = Reports() if isinstance(found, Unavailable) else _server_reports(found.value)
        return (_evidence(job, build, reports),)
    except ResponseTooLarge as error:
        return (Dropped(source, str(error)),)
    except _UNREADABLE_ANSWER as error:
        return (Dropped(source, f"is not what Jenkins says of a build ({type(error).__name__}: {error})"),)


def _evidence(job: _ServerJob, build: Json, reports: Reports) -> FinishedBuild:
    started, seconds = build["timestamp"] / 1000, build["duration"] / 1000
    outcome = parse_outcome(build["result"])
    if isinstance(outcome, Unavailable):
        raise ValueError(outcome.reason)
    is_pr = bool(re.fullmatch(r"(PR|MR)-\d+", job.branch))
    causes = {str(cause.get("_class")) for action in build["actions"] for cause in action.get("causes") or ()}
    ci = CiRun(
        vendor="jenkins",
        run=f"{job.name}/{build['number']}",
        job=job.job,
        branch=job.branch,
        event="pull_request" if is_pr else find_event(causes),
    )
    duration = Duration(seconds, "jenkins") if seconds > 0 else Unavailable("the build has no duration")
    return FinishedBuild(BuildContext(ci, _change(build), started), started + seconds, duration, outcome, reports)


def _change(build: Json) -> Change | Unavailable:
    """The commit that was built, and the files of the commits that were new in this build."""
    commits = [(action.get("lastBuiltRevision") or {}).get("SHA1") for action in build["actions"]]
    commit = next((one for one in commits if one), "")
    sets = [*(build.get("changeSets") or ()), *filter(None, [build.get("changeSet")])]
    items = [item for one in sets for item in one.get("items") or ()]
    if not commit and not items:
        return Unavailable("the build does not tell the commit")
    paths = dict.fromkeys(str(path) for item in items for path in item.get("affectedPaths") or ())
    author = str(items[-1].get("authorEmail") or "") if items else ""
    return Change(str(commit), "", author, tuple(map(FileChange, paths)), base="the build before")


def _server_reports(report: Json) -> Reports:
    cases = [_run(case, str(suite.get("name") or "")) for suite in report["suites"] for case in suite["cases"]]
    return Reports(merge_repeated(cases), 1)


def _run(case: Json, suite: str) -> TestRun:
    test = f"{case.get('className') or suite}#{case.get('name') or ''}"
    outcome = OUTCOMES[case["status"]]
    words = failure_kind(str(case.get("errorDetails") or "")) if outcome == Outcome.FAILED else ""
    return TestRun(clean_test_name(test), outcome, parse_seconds(str(case.get("duration"))), words)
