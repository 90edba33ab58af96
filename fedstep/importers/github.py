"""Past builds on GitHub: a repository's workflow runs, their jobs, and the JUnit reports among their artifacts."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from fedstep.build.ci import parse_outcome, parse_time
from fedstep.build.record import Absent, BuildOutcome, Change, CiRun, Dropped, Duration, Evidence, Reports, Situation
from fedstep.build.vendors import EVENTS
from fedstep.errors import InputError
from fedstep.importers.asker import Asker
from fedstep.importers.github_jobs import Job, base_of, cell_of, owner_of, read_jobs
from fedstep.importers.github_reports import no_reports, read_artifacts
from fedstep.importers.past import Found, Past, Pending, Wanted, newest
from fedstep.importers.web import TooLarge

__all__ = ["ARTIFACTS", "github_past"]

ARTIFACTS = ("*test*", "*junit*", "*report*", "*surefire*", "*results*")  # without case
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


class _Service(NamedTuple):
    """The repository, and what is wanted of it."""

    asker: Asker
    project: str
    wanted: Wanted
    artifacts: tuple[str, ...]

    def path(self, rest: str) -> str:
        return f"repos/{self.project}/actions/{rest}"


def github_past(asker: Asker, project: str, wanted: Wanted, artifacts: tuple[str, ...]) -> Past:
    """The finished runs of a repository, `OWNER/REPO`. Runs of forks and of Dependabot are left out.

    Raises InputError where the API refuses, or answers something else than it says.
    """
    service = _Service(asker, project, wanted, artifacts or ARTIFACTS)
    try:
        pending = [_pending(service, run) for run in _runs(service)]
    except _UNREADABLE as error:
        raise InputError(f"the runs of {project} are not what GitHub's API says ({error!r})", asker.remedy) from error
    chosen = newest(pending, wanted)
    return Past(len(chosen), chosen, chosen=True)


def _runs(service: _Service) -> Iterator[Mapping[str, Any]]:
    """The finished runs, newest first, as far back as wanted.

    Not filtered by the API: with `status` or `created` it gives 1,000 runs at most.
    """
    found = 0
    for page in service.asker.pages(service.path("runs?per_page=100")):
        for run in page["workflow_runs"]:
            if _time(run["created_at"]) < service.wanted.since:
                return
            if run["status"] == "completed" and not _is_foreign(run):
                yield run
                found += 1
                if found == service.wanted.limit:
                    return


def _is_foreign(run: Mapping[str, Any]) -> bool:
    """Whether a run is of a fork or of Dependabot: `train` learns nothing from those either."""
    if (run.get("actor") or {}).get("login") == "dependabot[bot]":
        return True
    source = (run.get("head_repository") or {}).get("full_name")
    return str(run["event"]).startswith("pull_request") and source != run["repository"]["full_name"]


def _pending(service: _Service, run: Mapping[str, Any]) -> Pending:
    kept = {name: run.get(name) for name in ("id", "name", "event", "head_branch", "head_sha", "created_at")}
    kept["base"] = (((run.get("pull_requests") or [{}])[0]).get("base") or {}).get("ref", "")
    kept["author"] = ((run.get("head_commit") or {}).get("author") or {}).get("email", "")
    key = ("github", service.asker.base, service.project, str(run["id"]), str(run.get("run_attempt", 1)))
    filters = (service.wanted.job, *service.artifacts)
    return Pending(_time(run["created_at"]), partial(_read, service, kept), (*key, *filters))


def _time(text: object) -> float:
    found = parse_time(str(text))
    if isinstance(found, Absent):
        raise ValueError(found.reason)
    return found


def _read(service: _Service, run: Mapping[str, Any]) -> tuple[Found, ...]:
    """The builds of one run: its jobs that have reports; all that ran where none has."""
    source = f"run {run['id']}"
    try:
        jobs = read_jobs(service.asker, service.path(f"runs/{run['id']}/jobs?filter=all&per_page=100"))
        jobs = tuple(job for job in jobs if service.wanted.has_job(base_of(job)) or service.wanted.has_job(job.name))
        return tuple(_builds(service, run, jobs)) if jobs else ()
    except TooLarge as error:
        return (Dropped(source, str(error)),)
    except _UNREADABLE as error:
        return (Dropped(source, f"is not what GitHub's API says ({type(error).__name__}: {error})"),)


def _builds(service: _Service, run: Mapping[str, Any], jobs: tuple[Job, ...]) -> Iterator[Found]:
    listed = service.asker.pages(service.path(f"runs/{run['id']}/artifacts?per_page=100"))
    artifacts = [one for page in listed for one in page["artifacts"] if _is_wanted(service, one)]
    owned: dict[Job | None, list[Mapping[str, Any]]] = {}
    for artifact in artifacts:
        if not artifact.get("expired"):
            owner = owner_of(str(artifact["name"]), _time(artifact["created_at"]), jobs)
            owned.setdefault(owner, []).append(artifact)
    reports = {owner: read_artifacts(service.asker, ones) for owner, ones in owned.items()}
    with_reports = {owner: found for owner, found in reports.items() if found.tests}
    for owner, found in (with_reports or dict.fromkeys(jobs, no_reports(artifacts))).items():
        yield _evidence(run, owner, found) if owner else _whole(run, jobs, found)


def _is_wanted(service: _Service, artifact: Mapping[str, Any]) -> bool:
    name = str(artifact["name"]).lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in service.artifacts)


def _evidence(run: Mapping[str, Any], job: Job, reports: Reports) -> Evidence:
    seconds = job.ended - job.started
    outcome = parse_outcome(job.conclusion)
    return Evidence(
        situation=Situation(_ci(run, job), _change(run), job.started),
        finished_at=job.ended,
        duration=Duration(seconds, "github") if seconds > 0 else Absent("the job has no duration"),
        outcome=outcome if isinstance(outcome, BuildOutcome) else BuildOutcome.FAILED,
        reports=reports,
    )


def _whole(run: Mapping[str, Any], jobs: tuple[Job, ...], reports: Reports) -> Evidence:
    """Reports that no single job can be told to own: a build of all these jobs together."""
    names = {base_of(job) for job in jobs}
    failed = any(job.conclusion != "success" for job in jobs)
    together = Job(
        names.pop() if len(names) == 1 else str(run["name"] or ""),
        "failure" if failed else "success",
        min(job.started for job in jobs),
        max(job.ended for job in jobs),
        max(job.attempt for job in jobs),
    )
    return _evidence(run, together, reports)


def _ci(run: Mapping[str, Any], job: Job) -> CiRun:
    return CiRun(
        vendor="github",
        run=str(run["id"]),
        attempt=job.attempt,
        job=base_of(job),
        cell=cell_of(job),
        branch=str(run["head_branch"] or ""),
        base_branch=str(run["base"] or ""),
        event=EVENTS.get(str(run["event"]).lower(), "other"),
    )


def _change(run: Mapping[str, Any]) -> Change | Absent:
    commit = str(run["head_sha"] or "")
    return Change(commit, "", str(run["author"] or "")) if commit else Absent("the run does not tell the commit")
