"""Past builds on a Jenkins server, through its REST API: jobs in folders, branches and matrix configurations."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from fedstep.build.ci import parse_outcome
from fedstep.build.record import (
    Absent,
    Change,
    CiRun,
    Dropped,
    Duration,
    Evidence,
    FileChange,
    Outcome,
    Reports,
    Situation,
    TestRun,
)
from fedstep.errors import InputError
from fedstep.importers.asker import Asker
from fedstep.importers.cases import identity, kind_of_failure, settled
from fedstep.importers.jenkins_xml import event_of
from fedstep.importers.past import Found, Past, Pending, Wanted, newest
from fedstep.importers.web import TooLarge
from fedstep.ingest.cases import parse_seconds

__all__ = ["jenkins_url_past"]

Json = Mapping[str, Any]
PAGE = 100  # builds asked for at once
DEEPEST = 30  # folders inside folders
ITEM = "_class,name,fullName,jobs[name],activeConfigurations[name],builds[number]{0,1}"
CHANGES = "items[commitId,authorEmail,affectedPaths]"
BUILD = (
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
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


class _Job(NamedTuple):
    """A job as its own builds know it: JOB_NAME, without the branch, the branch; and its URL."""

    url: str
    name: str
    job: str
    branch: str = ""


def jenkins_url_past(asker: Asker, wanted: Wanted) -> Past:
    """The finished builds of all jobs below the URL of a server, of a folder or of a job; oldest first.

    Raises InputError where the server refuses, or answers something else than Jenkins would.
    """
    try:
        jobs = [job for job in _jobs(asker, f"{asker.base}/", None, DEEPEST) if wanted.has_job(job.job)]
        pending = [one for job in jobs for one in _builds(asker, job, wanted)]
    except _UNREADABLE as error:
        raise InputError(f"{asker.base} does not answer as Jenkins does ({error!r})", asker.remedy) from error
    chosen = newest(pending, wanted)
    return Past(len(chosen), chosen, chosen=True)


def _jobs(asker: Asker, url: str, parent: Json | None, depth: int) -> Iterator[_Job]:
    """The jobs at and below a URL. Addresses are built, not taken: a proxy may show the server elsewhere."""
    item = asker.page(f"{url}api/json?tree={ITEM}").value
    if item.get("activeConfigurations"):  # the parent of a matrix only starts its cells
        for cell in item["activeConfigurations"]:
            name = f"{item['fullName']}/{cell['name']}"
            yield _Job(f"{url}{quote(cell['name'])}/", name, name)
    elif item.get("builds"):
        yield _job(url, item, parent)
    for child in item.get("jobs") or () if depth else ():
        yield from _jobs(asker, f"{url}job/{quote(child['name'])}/", item, depth - 1)


def _job(url: str, item: Json, parent: Json | None) -> _Job:
    name = str(item.get("fullName") or item["name"])
    if parent and "MultiBranch" in str(parent.get("_class")):
        return _Job(url, name, name.rpartition("/")[0], unquote(str(item["name"])))
    return _Job(url, name, name)


def _builds(asker: Asker, job: _Job, wanted: Wanted) -> Iterator[Pending]:
    """The finished builds of a job, newest first, a page at a time."""
    start = found = 0
    while True:
        tree = f"allBuilds[{BUILD}]{{{start},{start + PAGE}}}"
        builds = asker.page(f"{job.url}api/json?tree={tree}").value["allBuilds"]
        for build in builds:
            ended = (build["timestamp"] + build["duration"]) / 1000
            if build["timestamp"] / 1000 < wanted.since or (wanted.limit and found >= wanted.limit):
                return
            if not build.get("building") and not isinstance(parse_outcome(str(build["result"])), Absent):
                found += 1
                yield Pending(ended, partial(_read, asker, job, build), ("jenkins", job.url, str(build["number"])))
        if len(builds) < PAGE:
            return
        start += PAGE


def _read(asker: Asker, job: _Job, build: Json) -> tuple[Found, ...]:
    """The evidence of one build; without tests where the server has no test report of it."""
    source = f"{job.name} #{build['number']}"
    try:
        found = asker.page_if_there(f"{job.url}{build['number']}/testReport/api/json?tree={REPORT}")
        reports = Reports() if isinstance(found, Absent) else _reports(found.value)
        return (_evidence(job, build, reports),)
    except TooLarge as error:
        return (Dropped(source, str(error)),)
    except _UNREADABLE as error:
        return (Dropped(source, f"is not what Jenkins says of a build ({type(error).__name__}: {error})"),)


def _evidence(job: _Job, build: Json, reports: Reports) -> Evidence:
    started, seconds = build["timestamp"] / 1000, build["duration"] / 1000
    outcome = parse_outcome(build["result"])
    if isinstance(outcome, Absent):
        raise ValueError(outcome.reason)
    is_pr = bool(re.fullmatch(r"(PR|MR)-\d+", job.branch))
    causes = {str(cause.get("_class")) for action in build["actions"] for cause in action.get("causes") or ()}
    ci = CiRun(
        vendor="jenkins",
        run=f"{job.name}/{build['number']}",
        job=job.job,
        branch=job.branch,
        event="pull_request" if is_pr else event_of(causes),
    )
    duration = Duration(seconds, "jenkins") if seconds > 0 else Absent("the build has no duration")
    return Evidence(Situation(ci, _change(build), started), started + seconds, duration, outcome, reports)


def _change(build: Json) -> Change | Absent:
    """The commit that was built, and the files of the commits that were new in this build."""
    commits = [(action.get("lastBuiltRevision") or {}).get("SHA1") for action in build["actions"]]
    commit = next((one for one in commits if one), "")
    sets = [*(build.get("changeSets") or ()), *filter(None, [build.get("changeSet")])]
    items = [item for one in sets for item in one.get("items") or ()]
    if not commit and not items:
        return Absent("the build does not tell the commit")
    paths = dict.fromkeys(str(path) for item in items for path in item.get("affectedPaths") or ())
    author = str(items[-1].get("authorEmail") or "") if items else ""
    return Change(str(commit), "", author, tuple(map(FileChange, paths)), base="the build before")


def _reports(report: Json) -> Reports:
    cases = [_run(case, str(suite.get("name") or "")) for suite in report["suites"] for case in suite["cases"]]
    return Reports(settled(cases), 1)


def _run(case: Json, suite: str) -> TestRun:
    test = f"{case.get('className') or suite}#{case.get('name') or ''}"
    outcome = OUTCOMES[case["status"]]
    words = kind_of_failure(str(case.get("errorDetails") or "")) if outcome == Outcome.FAILED else ""
    return TestRun(identity(test), outcome, parse_seconds(str(case.get("duration"))), words)
