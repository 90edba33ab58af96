"""Past builds on GitHub: a repository's workflow runs, their jobs, and the JUnit reports in their artifacts.

Artifacts are zip files of unknown origin: `iter_zip_reports` bounds what is unpacked.
"""

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
from fedstep.importers.base import BuildFilter, ImportItem, ImportSource, ReadResult, require_time, select_newest
from fedstep.ingest.ci import name_workflow, parse_number, parse_outcome, parse_time
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
MAX_RATIO = 200  # of size to compressed size: 10 to 30 for a report, 1,000 for a zip bomb
MAX_ZIP_DEPTH = 2  # a zip in a zip
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, UnicodeError)


def iter_zip_reports(stream: BinaryIO, name: str, depth: int = MAX_ZIP_DEPTH) -> Iterator[ReportFile | Dropped]:
    """Yield the XML files of a zip, nested zips included, by name; Dropped for what is too large or unreadable.

    The files are opened from the zip, which has to stay open.
    """
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
        if kind not in ("xml", "zip"):  # a folder ends with a slash; `is_dir` raises for a name that is empty
            continue
        total += member.file_size
        if reason := _find_problem(member, kind, total, depth):
            yield Dropped(title, reason)
        elif kind == "xml":
            yield title, partial(_open_member, archive, member)
        else:
            yield from _iter_nested(archive, member, title, depth)
    if len(members) > MAX_MEMBERS:
        yield Dropped(name, f"has {len(members):,} files, {MAX_MEMBERS:,} were looked at")


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, _ZipMember(lambda: archive.open(member)))


def _find_problem(member: zipfile.ZipInfo, kind: str, total: int, depth: int) -> str:
    """Return why a member is not unpacked; "" where it is. `total` is the size of all members so far."""
    if member.flag_bits & 1:
        return "is encrypted"
    if kind == "zip" and depth <= 1:
        return "is a zip inside a zip inside a zip"
    if member.file_size > (MAX_REPORT_BYTES if kind == "xml" else MAX_NESTED_BYTES) or total > MAX_UNPACKED_BYTES:
        return f"is too large unpacked ({member.file_size >> 20} MB)"
    if member.file_size > 1 << 20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        return "unpacks to hundreds of times its size"
    return ""


def _iter_nested(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, title: str, depth: int
) -> Iterator[ReportFile | Dropped]:
    inner = tempfile.SpooledTemporaryFile(8 << 20)  # noqa: SIM115  it has to stay open until its last reader is closed
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
    """A file of a zip that can be read from its start again; any error of the zip becomes an OSError."""

    def __init__(self, opener: Callable[[], IO[bytes]]) -> None:
        self.opener = opener
        self.stream = self._translate_errors(opener)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, unpacked."""
        return self._translate_errors(lambda: self.stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Return to the start."""
        if offset or whence:
            raise OSError("only the start can be sought")
        self.stream.close()
        self.stream = self._translate_errors(self.opener)
        return 0

    def close(self) -> None:
        """Close the file, not the zip."""
        self.stream.close()
        super().close()

    @staticmethod
    def _translate_errors(work: Callable[[], T]) -> T:
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
    workflow: str = ""  # its name, as GITHUB_WORKFLOW has it


def read_jobs(client: ApiClient, path: str) -> tuple[WorkflowJob, ...]:
    """Return the jobs that passed or failed, of all attempts of a run.

    Raise KeyError, TypeError or ValueError for JSON of another form.
    """
    listed = (job for page in client.pages(path) for job in page["jobs"] if job["conclusion"] in RAN)
    timed = ((job, parse_time(str(job["started_at"])), parse_time(str(job["completed_at"]))) for job in listed)
    return tuple(
        WorkflowJob(
            str(job["name"])[:500],
            str(job["conclusion"]),
            started,
            ended,
            int(job.get("run_attempt") or 1),
            name_workflow([str(job.get("workflow_name") or "")[:500]]),
        )
        for job, started, ended in timed
        if isinstance(started, float) and isinstance(ended, float)
    )


def workflow_key(job: WorkflowJob) -> str:
    """Return the job's name without its matrix cell: GITHUB_JOB, unless the workflow gives the job another name.

    >>> workflow_key(WorkflowJob("test (ubuntu, 3.12)", "success", 0.0, 1.0, 1))
    'test'
    """
    return _parts(job)[0]


def matrix_cell(job: WorkflowJob) -> str:
    """Return the values of the job's matrix cell as GitHub shows them; "" where it has none.

    >>> matrix_cell(WorkflowJob("test (ubuntu, 3.12)", "success", 0.0, 1.0, 1))
    'ubuntu, 3.12'
    """
    return _parts(job)[1]


def find_owner(artifact: str, created_at: float, jobs: tuple[WorkflowJob, ...]) -> WorkflowJob | None:
    """Return the job that made an artifact: the one that ran then, of several the one with its name; None in doubt."""
    candidates = [
        job for job in jobs if job.started - CLOCK_TOLERANCE <= created_at <= job.ended + CLOCK_TOLERANCE
    ] or list(jobs)
    if len(candidates) == 1:
        return candidates[0]
    artifact_words = _words(artifact)
    scores = [(len(_words(job.name) & artifact_words), job) for job in candidates]
    best = max(score for score, _ in scores)
    winners = [job for score, job in scores if score == best]
    return winners[0] if best and len(winners) == 1 else None


def _parts(job: WorkflowJob) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?) \((.+)\)", job.name)
    return (match[1], match[2]) if match else (job.name, "")


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9.]+", name.lower()))


def read_artifacts(client: ApiClient, artifacts: Sequence[Mapping[str, Any]]) -> Reports:
    """Return the reports of these artifacts together, without files that are not reports. Raise ResponseTooLarge."""
    files: list[ReportFile | Dropped] = []
    with ExitStack() as stack:
        for artifact in artifacts:
            name = f"artifact {artifact['name']}"
            archive = client.file(str(artifact["archive_download_url"]), MAX_ZIP_BYTES)
            if isinstance(archive, Unavailable):
                files.append(Dropped(name, archive.reason))
            else:
                files += iter_zip_reports(stack.enter_context(archive), name)
        reports = read_reports(files)
    return reports._replace(dropped=tuple(item for item in reports.dropped if "its root element is" not in item.reason))


def note_expired(artifacts: Sequence[Mapping[str, Any]]) -> Reports:
    """Return reports without tests, with a note for each artifact that has expired."""
    expired = [str(artifact["name"]) for artifact in artifacts if artifact.get("expired")]
    return Reports(dropped=tuple(Dropped(f"artifact {name}", "has expired", True) for name in expired))


ARTIFACTS = ("*test*", "*junit*", "*report*", "*surefire*", "*results*")  # case is ignored
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


class _GitHubRepository(NamedTuple):
    """The repository, and which of its builds are imported."""

    client: ApiClient
    project: str
    build_filter: BuildFilter
    artifacts: tuple[str, ...]

    def path(self, rest: str) -> str:
        return f"repos/{self.project}/actions/{rest}"


def open_github(client: ApiClient, project: str, build_filter: BuildFilter, artifacts: tuple[str, ...]) -> ImportSource:
    """Return the finished runs of a repository, `OWNER/REPO`, without those of forks and of Dependabot.

    Raise InputError where the API refuses, or returns what its documentation does not say.
    """
    repository = _GitHubRepository(client, project, build_filter, artifacts or ARTIFACTS)
    try:
        items = [_make_item(repository, run) for run in _list_runs(repository)]
    except _UNREADABLE as error:
        raise InputError(f"the runs of {project} are not what GitHub's API says ({error!r})", client.remedy) from error
    chosen = select_newest(items, build_filter)
    return ImportSource(len(chosen), chosen, chosen=True)


def _list_runs(repository: _GitHubRepository) -> Iterator[Mapping[str, Any]]:
    """Yield the finished runs, newest first, as far back as the filter goes.

    The API does not filter them: with `status` or `created` it returns at most 1,000 runs.
    """
    listed = 0
    for page in repository.client.pages(repository.path("runs?per_page=100")):
        for run in page["workflow_runs"]:
            if require_time(run["created_at"]) < repository.build_filter.since:
                return
            if run["status"] == "completed" and not _is_foreign(run):
                yield run
                listed += 1
                if listed == repository.build_filter.limit:
                    return


def _is_foreign(run: Mapping[str, Any]) -> bool:
    """Tell whether a run is of a fork or of Dependabot; `train` learns nothing from those either."""
    if (run.get("actor") or {}).get("login") == "dependabot[bot]":
        return True
    source = (run.get("head_repository") or {}).get("full_name")
    return str(run["event"]).startswith("pull_request") and source != run["repository"]["full_name"]


def _make_item(repository: _GitHubRepository, run: Mapping[str, Any]) -> ImportItem:
    names = ("id", "name", "event", "head_branch", "head_sha", "created_at", "run_number")
    fields = {name: run.get(name) for name in names}
    fields["base"] = (((run.get("pull_requests") or [{}])[0]).get("base") or {}).get("ref", "")
    fields["author"] = ((run.get("head_commit") or {}).get("author") or {}).get("email", "")
    key = ("github", repository.client.base, repository.project, str(run["id"]), str(run.get("run_attempt", 1)))
    filters = (repository.build_filter.job, *repository.artifacts)
    return ImportItem(require_time(run["created_at"]), partial(_read, repository, fields), (*key, *filters))


def _read(repository: _GitHubRepository, run: Mapping[str, Any]) -> tuple[ReadResult, ...]:
    """Return the builds of one run: its jobs that have reports, or all jobs where none has."""
    source = f"run {run['id']}"
    try:
        jobs = read_jobs(repository.client, repository.path(f"runs/{run['id']}/jobs?filter=all&per_page=100"))
        jobs = tuple(
            job
            for job in jobs
            if repository.build_filter.has_job(workflow_key(job)) or repository.build_filter.has_job(job.name)
        )
        return tuple(_builds(repository, run, jobs)) if jobs else ()
    except ResponseTooLarge as error:
        return (Dropped(source, str(error)),)
    except _UNREADABLE as error:
        return (Dropped(source, f"is not what GitHub's API says ({type(error).__name__}: {error})"),)


def _builds(
    repository: _GitHubRepository, run: Mapping[str, Any], jobs: tuple[WorkflowJob, ...]
) -> Iterator[ReadResult]:
    listed = repository.client.pages(repository.path(f"runs/{run['id']}/artifacts?per_page=100"))
    artifacts = [artifact for page in listed for artifact in page["artifacts"] if _is_wanted(repository, artifact)]
    owned: dict[WorkflowJob | None, list[Mapping[str, Any]]] = {}
    for artifact in artifacts:
        if not artifact.get("expired"):
            owner = find_owner(str(artifact["name"]), require_time(artifact["created_at"]), jobs)
            owned.setdefault(owner, []).append(artifact)
    reports = {owner: read_artifacts(repository.client, ones) for owner, ones in owned.items()}
    with_tests = {owner: own_reports for owner, own_reports in reports.items() if own_reports.tests}
    for owner, own_reports in (with_tests or dict.fromkeys(jobs, note_expired(artifacts))).items():
        yield _make_build(run, owner, own_reports) if owner else _make_joint_build(run, jobs, own_reports)


def _is_wanted(repository: _GitHubRepository, artifact: Mapping[str, Any]) -> bool:
    name = str(artifact["name"]).lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in repository.artifacts)


def _make_build(run: Mapping[str, Any], job: WorkflowJob, reports: Reports) -> FinishedBuild:
    seconds = job.ended - job.started
    outcome = parse_outcome(job.conclusion)
    return FinishedBuild(
        situation=BuildContext(_ci(run, job), _change(run), job.started),
        finished_at=job.ended,
        duration=Duration(seconds, "github") if seconds > 0 else Unavailable("the job has no duration"),
        outcome=outcome if isinstance(outcome, BuildOutcome) else BuildOutcome.FAILED,
        reports=reports,
    )


def _make_joint_build(run: Mapping[str, Any], jobs: tuple[WorkflowJob, ...], reports: Reports) -> FinishedBuild:
    """Return a build of all these jobs together, for reports that cannot be assigned to one of them."""
    names = {workflow_key(job) for job in jobs}
    failed = any(job.conclusion != "success" for job in jobs)
    joint_job = WorkflowJob(
        names.pop() if len(names) == 1 else str(run["name"] or ""),
        "failure" if failed else "success",
        min(job.started for job in jobs),
        max(job.ended for job in jobs),
        max(job.attempt for job in jobs),
        jobs[0].workflow,
    )
    return _make_build(run, joint_job, reports)


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
        number=parse_number(str(run["run_number"])),
        workflow=job.workflow,
    )


def _change(run: Mapping[str, Any]) -> Change | Unavailable:
    commit = str(run["head_sha"] or "")
    return Change(commit, "", str(run["author"] or "")) if commit else Unavailable("the run does not tell the commit")
