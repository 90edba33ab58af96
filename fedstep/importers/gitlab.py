"""Past builds on GitLab: a project's pipelines, their jobs, and the test reports that GitLab has read itself."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

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
from fedstep.ingest.cases import parse_seconds
from fedstep.ingest.ci import parse_time
from fedstep.ingest.ci_vendors import EVENTS
from fedstep.types import (
    BuildContext,
    BuildOutcome,
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

OUTCOMES = {
    "success": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "error": Outcome.FAILED,
    "skipped": Outcome.SKIPPED,
}
ENDS = {"success": BuildOutcome.PASSED, "failed": BuildOutcome.FAILED}
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
Json = Mapping[str, Any]


class _GitLabProject(NamedTuple):
    """The project, and what is wanted of it."""

    client: ApiClient
    project: str
    build_filter: BuildFilter

    def path(self, rest: str) -> str:
        return f"projects/{quote(self.project, safe='')}/pipelines{rest}"


def open_gitlab(client: ApiClient, project: str, build_filter: BuildFilter) -> ImportSource:
    """The finished pipelines of a project, a number or `GROUP/NAME`.

    Raises InputError where the API refuses, or answers something else than it says.
    """
    service = _GitLabProject(client, project, build_filter)
    try:
        items = [_pending(service, pipeline) for pipeline in _pipelines(service)]
    except _UNREADABLE as error:
        raise InputError(
            f"the pipelines of {project} are not what GitLab's API says ({error!r})", client.remedy
        ) from error
    chosen = select_newest(items, build_filter)
    return ImportSource(len(chosen), chosen, chosen=True)


def _pipelines(service: _GitLabProject) -> Iterator[Json]:
    """The finished pipelines, newest first, as far back as wanted."""
    found = 0
    for page in service.client.pages(service.path("?per_page=100&order_by=id&sort=desc")):
        for pipeline in page:
            if _time(pipeline["created_at"]) < service.build_filter.since:
                return
            if pipeline["status"] in ENDS:
                yield pipeline
                found += 1
                if found == service.build_filter.limit:
                    return


def _pending(service: _GitLabProject, pipeline: Json) -> ImportItem:
    number, changed = str(pipeline["id"]), str(pipeline.get("updated_at", ""))
    key = ("gitlab", service.client.base, service.project, number, changed, service.build_filter.job)
    return ImportItem(_time(pipeline["created_at"]), partial(_read, service, pipeline), key)


def _time(text: object) -> float:
    found = parse_time(str(text))
    if isinstance(found, Unavailable):
        raise ValueError(found.reason)
    return found


def _read(service: _GitLabProject, pipeline: Json) -> tuple[ReadResult, ...]:
    """The builds of one pipeline: its jobs that have reports; all that ran where none has."""
    number = pipeline["id"]
    try:
        pages = service.client.pages(service.path(f"/{number}/jobs?per_page=100"))
        jobs = [
            job for page in pages for job in page if _ran(job) and service.build_filter.has_job(_group(job["name"]))
        ]
        if not jobs:
            return ()
        found = service.client.page_if_there(service.path(f"/{number}/test_report"))
        suites = [] if isinstance(found, Unavailable) else found.value["test_suites"]
        return tuple(_builds(pipeline, jobs, suites))
    except ResponseTooLarge as error:
        return (Dropped(f"pipeline {number}", str(error)),)
    except _UNREADABLE as error:
        return (Dropped(f"pipeline {number}", f"is not what GitLab's API says ({type(error).__name__}: {error})"),)


def _ran(job: Json) -> bool:
    return job["status"] in ENDS and bool(job.get("started_at")) and bool(job.get("finished_at"))


def _group(name: str) -> str:
    """A job's name without the part that a parallel or matrix job adds: what CI_JOB_GROUP_NAME is.

    >>> _group("test 2/5"), _group("test: [linux, 3.12]")
    ('test', 'test')
    """
    return re.sub(r"( \d+[/:]\d+|: \[.*\])$", "", name)


def _builds(pipeline: Json, jobs: Sequence[Json], suites: Sequence[Json]) -> Iterator[FinishedBuild]:
    """A build for each suite, which is named as its job, or as the group of its parallel jobs."""
    told = 0
    for suite in suites:
        own = [job for job in jobs if suite["name"] in (job["name"], _group(job["name"]))]
        reports = _reports(suite)
        if own and reports.tests:
            told += 1
            yield _evidence(pipeline, own, reports)
    if not told:
        yield from (_evidence(pipeline, [job], Reports()) for job in jobs)


def _evidence(pipeline: Json, jobs: Sequence[Json], reports: Reports) -> FinishedBuild:
    started = min(_time(job["started_at"]) for job in jobs)
    ended = max(_time(job["finished_at"]) for job in jobs)
    failed = any(job["status"] == "failed" for job in jobs)
    duration = Duration(ended - started, "gitlab") if ended > started else Unavailable("the job has no duration")
    situation = BuildContext(_ci(pipeline, jobs), _change(pipeline, jobs[0]), started)
    return FinishedBuild(situation, ended, duration, BuildOutcome.FAILED if failed else BuildOutcome.PASSED, reports)


def _ci(pipeline: Json, jobs: Sequence[Json]) -> CiRun:
    number = str(pipeline["id"])
    source = str(pipeline.get("source") or "")
    ref = str(pipeline.get("ref") or "")
    return CiRun(
        vendor="gitlab",
        run=f"{number}/{jobs[0]['id']}" if len(jobs) == 1 else number,
        job=_group(jobs[0]["name"]),
        branch=ref.removeprefix("refs/heads/"),
        event=EVENTS.get(source.lower(), "other") if source else "",
    )


def _change(pipeline: Json, job: Json) -> Change | Unavailable:
    commit = str(pipeline.get("sha") or "")
    author = str((job.get("commit") or {}).get("author_email") or "")
    return Change(commit, "", author) if commit else Unavailable("the pipeline does not tell the commit")


def _reports(suite: Json) -> Reports:
    return Reports(merge_repeated(_run(case, str(suite["name"])) for case in suite["test_cases"]), 1)


def _run(case: Json, suite: str) -> TestRun:
    test = f"{case.get('classname') or suite}#{case.get('name') or ''}"
    output = case.get("system_output") or case.get("stack_trace")
    text = output if isinstance(output, str) else str((output or {}).get("message", "")) if output else ""
    outcome = OUTCOMES[case["status"]]
    kind = failure_kind(text) if outcome == Outcome.FAILED else ""
    return TestRun(
        clean_test_name(test),
        outcome,
        parse_seconds(str(case.get("execution_time"))),
        kind,
        str(case.get("file") or ""),
    )
