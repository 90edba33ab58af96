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
    require_time,
    select_newest,
)
from fedstep.ingest.cases import parse_seconds
from fedstep.ingest.ci import parse_number
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
    """The project, and which of its builds are imported."""

    client: ApiClient
    project: str
    build_filter: BuildFilter

    def path(self, rest: str) -> str:
        return f"projects/{quote(self.project, safe='')}/pipelines{rest}"


def open_gitlab(client: ApiClient, project: str, build_filter: BuildFilter) -> ImportSource:
    """Return the finished pipelines of a project, a number or `GROUP/NAME`.

    Raise InputError where the API refuses, or returns what its documentation does not say.
    """
    gitlab_project = _GitLabProject(client, project, build_filter)
    try:
        items = [_make_item(gitlab_project, pipeline) for pipeline in _list_pipelines(gitlab_project)]
    except _UNREADABLE as error:
        raise InputError(
            f"the pipelines of {project} are not what GitLab's API says ({error!r})", client.remedy
        ) from error
    chosen = select_newest(items, build_filter)
    return ImportSource(len(chosen), chosen, chosen=True)


def _list_pipelines(gitlab_project: _GitLabProject) -> Iterator[Json]:
    """Yield the finished pipelines, newest first, as far back as the filter goes."""
    listed = 0
    for page in gitlab_project.client.pages(gitlab_project.path("?per_page=100&order_by=id&sort=desc")):
        for pipeline in page:
            if require_time(pipeline["created_at"]) < gitlab_project.build_filter.since:
                return
            if pipeline["status"] in ENDS:
                yield pipeline
                listed += 1
                if listed == gitlab_project.build_filter.limit:
                    return


def _make_item(gitlab_project: _GitLabProject, pipeline: Json) -> ImportItem:
    pipeline_id, changed = str(pipeline["id"]), str(pipeline.get("updated_at", ""))
    key = (
        "gitlab",
        gitlab_project.client.base,
        gitlab_project.project,
        pipeline_id,
        changed,
        gitlab_project.build_filter.job,
    )
    return ImportItem(require_time(pipeline["created_at"]), partial(_read, gitlab_project, pipeline), key)


def _read(gitlab_project: _GitLabProject, pipeline: Json) -> tuple[ReadResult, ...]:
    """Return the builds of one pipeline: its jobs that have reports, or all jobs where none has."""
    pipeline_id = pipeline["id"]
    try:
        pages = gitlab_project.client.pages(gitlab_project.path(f"/{pipeline_id}/jobs?per_page=100"))
        jobs = [
            job
            for page in pages
            for job in page
            if _ran(job) and gitlab_project.build_filter.has_job(_group(job["name"]))
        ]
        if not jobs:
            return ()
        report = gitlab_project.client.page_if_there(gitlab_project.path(f"/{pipeline_id}/test_report"))
        suites = [] if isinstance(report, Unavailable) else report.value["test_suites"]
        return tuple(_builds(pipeline, jobs, suites))
    except ResponseTooLarge as error:
        return (Dropped(f"pipeline {pipeline_id}", str(error)),)
    except _UNREADABLE as error:
        return (Dropped(f"pipeline {pipeline_id}", f"is not what GitLab's API says ({type(error).__name__}: {error})"),)


def _ran(job: Json) -> bool:
    return job["status"] in ENDS and bool(job.get("started_at")) and bool(job.get("finished_at"))


def _group(name: str) -> str:
    """Return a job's name without the suffix of a parallel or matrix job, as CI_JOB_GROUP_NAME has it.

    >>> _group("test 2/5"), _group("test: [linux, 3.12]")
    ('test', 'test')
    """
    return re.sub(r"( \d+[/:]\d+|: \[.*\])$", "", name)


def _builds(pipeline: Json, jobs: Sequence[Json], suites: Sequence[Json]) -> Iterator[FinishedBuild]:
    """Yield a build for each suite, which has the name of its job, or of the group of its parallel jobs."""
    has_reports = False
    for suite in suites:
        own = [job for job in jobs if suite["name"] in (job["name"], _group(job["name"]))]
        reports = _reports(suite)
        if own and reports.tests:
            has_reports = True
            yield _make_build(pipeline, own, reports)
    if not has_reports:
        yield from (_make_build(pipeline, [job], Reports()) for job in jobs)


def _make_build(pipeline: Json, jobs: Sequence[Json], reports: Reports) -> FinishedBuild:
    started = min(require_time(job["started_at"]) for job in jobs)
    ended = max(require_time(job["finished_at"]) for job in jobs)
    failed = any(job["status"] == "failed" for job in jobs)
    duration = Duration(ended - started, "gitlab") if ended > started else Unavailable("the job has no duration")
    situation = BuildContext(_ci(pipeline, jobs), _change(pipeline, jobs[0]), started)
    return FinishedBuild(situation, ended, duration, BuildOutcome.FAILED if failed else BuildOutcome.PASSED, reports)


def _ci(pipeline: Json, jobs: Sequence[Json]) -> CiRun:
    pipeline_id = str(pipeline["id"])
    source = str(pipeline.get("source") or "")
    ref = str(pipeline.get("ref") or "")
    return CiRun(
        vendor="gitlab",
        run=f"{pipeline_id}/{jobs[0]['id']}" if len(jobs) == 1 else pipeline_id,
        job=_group(jobs[0]["name"]),
        branch=ref.removeprefix("refs/heads/"),
        event=EVENTS.get(source.lower(), "other") if source else "",
        number=parse_number(str(pipeline.get("iid"))),
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
