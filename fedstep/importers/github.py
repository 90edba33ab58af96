"""Past builds on GitHub: a repository's workflow runs, their jobs, and the JUnit reports among their artifacts."""

import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast

from fedstep.errors import InputError
from fedstep.importers.api_client import ApiClient, ResponseTooLarge
from fedstep.importers.base import BuildFilter, ImportItem, ImportSource, ReadResult, select_newest
from fedstep.ingest.ci import parse_outcome, parse_time
from fedstep.ingest.ci_vendors import EVENTS
from fedstep.ingest.junit import ReportFile, read_reports
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Dropped,
    Duration,
    FinishedBuild,
    Reports,
    Unavailable,
)

T = TypeVar("T")


MAX_ZIP_BYTES = 512 << 20  # bytes of an artifact
MAX_REPORT_BYTES = 1 << 30  # bytes of one report, unpacked; it is parsed as a stream
MAX_NESTED_BYTES = 64 << 20  # bytes of a zip inside a zip
MAX_UNPACKED_BYTES = 4 << 30  # bytes of everything in an artifact, unpacked
MAX_MEMBERS = 100_000
MAX_RATIO = 200  # times: a report shrinks 10 to 30 times, a bomb 1,000
MAX_ZIP_DEPTH = 2  # a zip in a zip
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, UnicodeError)


def iter_zip_reports(stream: BinaryIO, name: str, depth: int = MAX_ZIP_DEPTH) -> Iterator[ReportFile | Dropped]:
    """The XML files of a zip, by name; each opens from the zip, which has to stay open. What is unfit is Dropped."""
    try:
        archive = zipfile.ZipFile(stream)
        members = archive.infolist()
    except (*_BROKEN, OSError) as error:
        yield Dropped(name, f"is no whole zip ({type(error).__name__})")
        return
    total = 0
    for member in members[:MAX_MEMBERS]:
        title = f"{name}/{member.filename}"
        kind = member.filename.lower().rpartition(".")[2]
        if member.is_dir() or kind not in ("xml", "zip"):
            continue
        total += member.file_size
        if reason := _unfit(member, kind, total, depth):
            yield Dropped(title, reason)
        elif kind == "xml":
            yield title, partial(_opened, archive, member)
        else:
            yield from _nested(archive, member, title, depth)
    if len(members) > MAX_MEMBERS:
        yield Dropped(name, f"has {len(members):,} files, {MAX_MEMBERS:,} were looked at")


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, _ZipMember(lambda: archive.open(member)))


def _unfit(member: zipfile.ZipInfo, kind: str, total: int, depth: int) -> str:
    if member.flag_bits & 1:
        return "is encrypted"
    if kind == "zip" and depth <= 1:
        return "is a zip inside a zip inside a zip"
    if member.file_size > (MAX_REPORT_BYTES if kind == "xml" else MAX_NESTED_BYTES) or total > MAX_UNPACKED_BYTES:
        return f"is too large unpacked ({member.file_size >> 20} MB)"
    if member.file_size > 1 << 20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        return "unpacks to hundreds of times its size"
    return ""


def _nested(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, title: str, depth: int
) -> Iterator[ReportFile | Dropped]:
    inner = tempfile.SpooledTemporaryFile(8 << 20)  # noqa: SIM115  it has to stay open; it goes with its last reader
    try:
        with archive.open(member) as packed:
            while block := packed.read(1 << 16):
                inner.write(block)
    except (*_BROKEN, OSError) as error:
        yield Dropped(title, f"cannot be unpacked ({type(error).__name__})")
        return
    inner.seek(0)
    yield from iter_zip_reports(cast(BinaryIO, inner), title, depth - 1)


class _ZipMember(io.RawIOBase):
    """A file of a zip that can be read from its start again; whatever is wrong with the zip is an OSError."""

    def __init__(self, opener: Callable[[], IO[bytes]]) -> None:
        self.opener = opener
        self.stream = self._guarded(opener)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, unpacked."""
        return self._guarded(lambda: self.stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Return to the start."""
        if offset or whence:
            raise OSError("only the start can be returned to")
        self.stream.close()
        self.stream = self._guarded(self.opener)
        return 0

    def close(self) -> None:
        """Close the file, not the zip."""
        self.stream.close()
        super().close()

    @staticmethod
    def _guarded(work: Callable[[], T]) -> T:
        try:
            return work()
        except _BROKEN as error:
            raise OSError(0, f"the zip is damaged ({type(error).__name__})") from error


RAN = ("success", "failure")
CLOCK_TOLERANCE = 60.0  # seconds between the clock of a runner and that of the API


class WorkflowJob(NamedTuple):
    """One job that ran to its end. Times are seconds since the epoch."""

    name: str  # as shown: the key in the workflow, and in a matrix "key (value, value)"
    conclusion: str  # success or failure
    started: float
    ended: float
    attempt: int


def read_jobs(client: ApiClient, path: str) -> tuple[WorkflowJob, ...]:
    """The jobs that passed or failed, of all attempts of a run. KeyError and the like for what is no list of jobs."""
    listed = (job for page in client.pages(path) for job in page["jobs"] if job["conclusion"] in RAN)
    timed = ((job, parse_time(str(job["started_at"])), parse_time(str(job["completed_at"]))) for job in listed)
    return tuple(
        WorkflowJob(str(job["name"])[:500], str(job["conclusion"]), started, ended, int(job.get("run_attempt") or 1))
        for job, started, ended in timed
        if isinstance(started, float) and isinstance(ended, float)
    )


def workflow_key(job: WorkflowJob) -> str:
    """The job's name without its matrix cell: what GITHUB_JOB is, unless the workflow names the job otherwise.

    >>> workflow_key(WorkflowJob("test (ubuntu, 3.12)", "success", 0.0, 1.0, 1))
    'test'
    """
    return _parts(job)[0]


def matrix_cell(job: WorkflowJob) -> str:
    """The values of the job's matrix cell as GitHub shows them; "" where it has none.

    >>> matrix_cell(WorkflowJob("test (ubuntu, 3.12)", "success", 0.0, 1.0, 1))
    'ubuntu, 3.12'
    """
    return _parts(job)[1]


def find_owner(artifact: str, created_at: float, jobs: tuple[WorkflowJob, ...]) -> WorkflowJob | None:
    """The job that made an artifact: the one that ran then, of several the one whose name it has; None in doubt."""
    then = [job for job in jobs if job.started - CLOCK_TOLERANCE <= created_at <= job.ended + CLOCK_TOLERANCE] or list(
        jobs
    )
    if len(then) == 1:
        return then[0]
    there = _words(artifact)
    scores = [(len(_words(job.name) & there), job) for job in then]
    best = max(score for score, _ in scores)
    winners = [job for score, job in scores if score == best]
    return winners[0] if best and len(winners) == 1 else None


def _parts(job: WorkflowJob) -> tuple[str, str]:
    found = re.fullmatch(r"(.+?) \((.+)\)", job.name)
    return (found[1], found[2]) if found else (job.name, "")


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9.]+", name.lower()))


def read_artifacts(client: ApiClient, artifacts: Sequence[Mapping[str, Any]]) -> Reports:
    """The reports of these artifacts together; files that are no reports are left out. Raises TooLarge."""
    files: list[ReportFile | Dropped] = []
    with ExitStack() as stack:
        for artifact in artifacts:
            name = f"artifact {artifact['name']}"
            found = client.file(str(artifact["archive_download_url"]), MAX_ZIP_BYTES)
            if isinstance(found, Unavailable):
                files.append(Dropped(name, found.reason))
            else:
                files += iter_zip_reports(stack.enter_context(found), name)
        reports = read_reports(files)
    return reports._replace(dropped=tuple(one for one in reports.dropped if "its root element is" not in one.reason))


def note_expired(artifacts: Sequence[Mapping[str, Any]]) -> Reports:
    """No reports, and the word that they have expired where they have."""
    expired = [str(artifact["name"]) for artifact in artifacts if artifact.get("expired")]
    return Reports(dropped=tuple(Dropped(f"artifact {name}", "has expired", True) for name in expired))


ARTIFACTS = ("*test*", "*junit*", "*report*", "*surefire*", "*results*")  # without case
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


class _GitHubRepository(NamedTuple):
    """The repository, and what is wanted of it."""

    client: ApiClient
    project: str
    build_filter: BuildFilter
    artifacts: tuple[str, ...]

    def path(self, rest: str) -> str:
        return f"repos/{self.project}/actions/{rest}"


def open_github(client: ApiClient, project: str, build_filter: BuildFilter, artifacts: tuple[str, ...]) -> ImportSource:
    """The finished runs of a repository, `OWNER/REPO`. Runs of forks and of Dependabot are left out.

    Raises InputError where the API refuses, or answers something else than it says.
    """
    service = _GitHubRepository(client, project, build_filter, artifacts or ARTIFACTS)
    try:
        items = [_pending(service, run) for run in _runs(service)]
    except _UNREADABLE as error:
        raise InputError(f"the runs of {project} are not what GitHub's API says ({error!r})", client.remedy) from error
    chosen = select_newest(items, build_filter)
    return ImportSource(len(chosen), chosen, chosen=True)


def _runs(service: _GitHubRepository) -> Iterator[Mapping[str, Any]]:
    """The finished runs, newest first, as far back as wanted.

    Not filtered by the API: with `status` or `created` it gives 1,000 runs at most.
    """
    found = 0
    for page in service.client.pages(service.path("runs?per_page=100")):
        for run in page["workflow_runs"]:
            if _time(run["created_at"]) < service.build_filter.since:
                return
            if run["status"] == "completed" and not _is_foreign(run):
                yield run
                found += 1
                if found == service.build_filter.limit:
                    return


def _is_foreign(run: Mapping[str, Any]) -> bool:
    """Whether a run is of a fork or of Dependabot: `train` learns nothing from those either."""
    if (run.get("actor") or {}).get("login") == "dependabot[bot]":
        return True
    source = (run.get("head_repository") or {}).get("full_name")
    return str(run["event"]).startswith("pull_request") and source != run["repository"]["full_name"]


def _pending(service: _GitHubRepository, run: Mapping[str, Any]) -> ImportItem:
    kept = {name: run.get(name) for name in ("id", "name", "event", "head_branch", "head_sha", "created_at")}
    kept["base"] = (((run.get("pull_requests") or [{}])[0]).get("base") or {}).get("ref", "")
    kept["author"] = ((run.get("head_commit") or {}).get("author") or {}).get("email", "")
    key = ("github", service.client.base, service.project, str(run["id"]), str(run.get("run_attempt", 1)))
    filters = (service.build_filter.job, *service.artifacts)
    return ImportItem(_time(run["created_at"]), partial(_read, service, kept), (*key, *filters))


def _time(text: object) -> float:
    found = parse_time(str(text))
    if isinstance(found, Unavailable):
        raise ValueError(found.reason)
    return found


def _read(service: _GitHubRepository, run: Mapping[str, Any]) -> tuple[ReadResult, ...]:
    """The builds of one run: its jobs that have reports; all that ran where none has."""
    source = f"run {run['id']}"
    try:
        jobs = read_jobs(service.client, service.path(f"runs/{run['id']}/jobs?filter=all&per_page=100"))
        jobs = tuple(
            job
            for job in jobs
            if service.build_filter.has_job(workflow_key(job)) or service.build_filter.has_job(job.name)
        )
        return tuple(_builds(service, run, jobs)) if jobs else ()
    except ResponseTooLarge as error:
        return (Dropped(source, str(error)),)
    except _UNREADABLE as error:
        return (Dropped(source, f"is not what GitHub's API says ({type(error).__name__}: {error})"),)


def _builds(service: _GitHubRepository, run: Mapping[str, Any], jobs: tuple[WorkflowJob, ...]) -> Iterator[ReadResult]:
    listed = service.client.pages(service.path(f"runs/{run['id']}/artifacts?per_page=100"))
    artifacts = [one for page in listed for one in page["artifacts"] if _is_wanted(service, one)]
    owned: dict[WorkflowJob | None, list[Mapping[str, Any]]] = {}
    for artifact in artifacts:
        if not artifact.get("expired"):
            owner = find_owner(str(artifact["name"]), _time(artifact["created_at"]), jobs)
            owned.setdefault(owner, []).append(artifact)
    reports = {owner: read_artifacts(service.client, ones) for owner, ones in owned.items()}
    with_reports = {owner: found for owner, found in reports.items() if found.tests}
    for owner, found in (with_reports or dict.fromkeys(jobs, note_expired(artifacts))).items():
        yield _evidence(run, owner, found) if owner else _whole(run, jobs, found)


def _is_wanted(service: _GitHubRepository, artifact: Mapping[str, Any]) -> bool:
    name = str(artifact["name"]).lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in service.artifacts)


def _evidence(run: Mapping[str, Any], job: WorkflowJob, reports: Reports) -> FinishedBuild:
    seconds = job.ended - job.started
    outcome = parse_outcome(job.conclusion)
    return FinishedBuild(
        situation=BuildContext(_ci(run, job), _change(run), job.started),
        finished_at=job.ended,
        duration=Duration(seconds, "github") if seconds > 0 else Unavailable("the job has no duration"),
        outcome=outcome if isinstance(outcome, BuildOutcome) else BuildOutcome.FAILED,
        reports=reports,
    )


def _whole(run: Mapping[str, Any], jobs: tuple[WorkflowJob, ...], reports: Reports) -> FinishedBuild:
    """Reports that no single job can be told to own: a build of all these jobs together."""
    names = {workflow_key(job) for job in jobs}
    failed = any(job.conclusion != "success" for job in jobs)
    together = WorkflowJob(
        names.pop() if len(names) == 1 else str(run["name"] or ""),
        "failure" if failed else "success",
        min(job.started for job in jobs),
        max(job.ended for job in jobs),
        max(job.attempt for job in jobs),
    )
    return _evidence(run, together, reports)


def _ci(run: Mapping[str, Any], job: WorkflowJob) -> CiRun:
    return CiRun(
        vendor="github",
        run=str(run["id"]),
        attempt=job.attempt,
        job=workflow_key(job),
        cell=matrix_cell(job),
        branch=str(run["head_branch"] or ""),
        base_branch=str(run["base"] or ""),
        event=EVENTS.get(str(run["event"]).lower(), "other"),
    )


def _change(run: Mapping[str, Any]) -> Change | Unavailable:
    commit = str(run["head_sha"] or "")
    return Change(commit, "", str(run["author"] or "")) if commit else Unavailable("the run does not tell the commit")
