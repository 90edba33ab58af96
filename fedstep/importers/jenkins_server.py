"""Past builds of a Jenkins server, read through its JSON API: every job's builds, in folders, branches and matrices."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
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
from fedstep.importers.jenkins_home import find_event
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
    """A job on the server: its URL, and the values that its own builds see in their variables."""

    url: str
    name: str  # JOB_NAME
    job: str  # `name` without the branch
    branch: str = ""


def open_jenkins_server(client: ApiClient, build_filter: BuildFilter) -> ImportSource:
    """Return the finished builds of all jobs below the URL of a server, of a folder or of a job; oldest first.

    Raise InputError where the server refuses, or does not answer as Jenkins does.
    """
    try:
        jobs = [job for job in _list_jobs(client, f"{client.base}/", None, DEEPEST) if build_filter.has_job(job.job)]
        items = [build for job in jobs for build in _list_builds(client, job, build_filter)]
    except _UNREADABLE_ANSWER as error:
        raise InputError(f"{client.base} does not answer as Jenkins does ({error!r})", client.remedy) from error
    chosen = select_newest(items, build_filter)
    return ImportSource(len(chosen), chosen, chosen=True)


def _list_jobs(client: ApiClient, url: str, parent: Json | None, depth: int) -> Iterator[_ServerJob]:
    """Yield the jobs at and below a URL. URLs are built, not taken from responses: a proxy may serve them elsewhere."""
    item = client.page(f"{url}api/json?tree={ITEM}").value
    if item.get("activeConfigurations"):  # the parent of a matrix only starts its cells
        for cell in item["activeConfigurations"]:
            name = f"{item['fullName']}/{cell['name']}"
            yield _ServerJob(f"{url}{quote(cell['name'])}/", name, name)
    elif item.get("builds"):
        yield _make_job(url, item, parent)
    for child in item.get("jobs") or () if depth else ():
        yield from _list_jobs(client, f"{url}job/{quote(child['name'])}/", item, depth - 1)


def _make_job(url: str, item: Json, parent: Json | None) -> _ServerJob:
    name = str(item.get("fullName") or item["name"])
    if parent and "MultiBranch" in str(parent.get("_class")):
        return _ServerJob(url, name, name.rpartition("/")[0], unquote(str(item["name"])))
    return _ServerJob(url, name, name)


def _list_builds(client: ApiClient, job: _ServerJob, build_filter: BuildFilter) -> Iterator[ImportItem]:
    """Yield the finished builds of a job, newest first, a page at a time."""
    start = listed = 0
    while True:
        tree = f"allBuilds[{BUILD_FIELDS}]{{{start},{start + PAGE}}}"
        builds = client.page(f"{job.url}api/json?tree={tree}").value["allBuilds"]
        for build in builds:
            ended = (build["timestamp"] + build["duration"]) / 1000
            if build["timestamp"] / 1000 < build_filter.since or (build_filter.limit and listed >= build_filter.limit):
                return
            if not build.get("building") and not isinstance(parse_outcome(str(build["result"])), Unavailable):
                listed += 1
                yield ImportItem(
                    ended, partial(_read_build, client, job, build), ("jenkins", job.url, str(build["number"]))
                )
        if len(builds) < PAGE:
            return
        start += PAGE


def _read_build(client: ApiClient, job: _ServerJob, build: Json) -> tuple[ReadResult, ...]:
    """Return one build; without tests where the server has no test report of it."""
    source = f"{job.name} #{build['number']}"
    try:
        page = client.page_if_there(f"{job.url}{build['number']}/testReport/api/json?tree={REPORT}")
        reports = Reports() if isinstance(page, Unavailable) else _parse_reports(page.value)
        return (_make_build(job, build, reports),)
    except ResponseTooLarge as error:
        return (Dropped(source, str(error)),)
    except _UNREADABLE_ANSWER as error:
        return (Dropped(source, f"is not what Jenkins says of a build ({type(error).__name__}: {error})"),)


def _make_build(job: _ServerJob, build: Json, reports: Reports) -> FinishedBuild:
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
    """Return the commit that was built, and the files of the commits that were new in this build."""
    commits = [(action.get("lastBuiltRevision") or {}).get("SHA1") for action in build["actions"]]
    commit = next(filter(None, commits), "")
    sets = [*(build.get("changeSets") or ()), *filter(None, [build.get("changeSet")])]
    items = [item for change_set in sets for item in change_set.get("items") or ()]
    if not commit and not items:
        return Unavailable("the build does not tell the commit")
    paths = dict.fromkeys(str(path) for item in items for path in item.get("affectedPaths") or ())
    author = str(items[-1].get("authorEmail") or "") if items else ""
    return Change(str(commit), "", author, tuple(map(FileChange, paths)), base="the build before")


def _parse_reports(report: Json) -> Reports:
    cases = [_run(case, str(suite.get("name") or "")) for suite in report["suites"] for case in suite["cases"]]
    return Reports(merge_repeated(cases), 1)


def _run(case: Json, suite: str) -> TestRun:
    test = f"{case.get('className') or suite}#{case.get('name') or ''}"
    outcome = OUTCOMES[case["status"]]
    kind = failure_kind(str(case.get("errorDetails") or "")) if outcome == Outcome.FAILED else ""
    return TestRun(clean_test_name(test), outcome, parse_seconds(str(case.get("duration"))), kind, suite=suite)
