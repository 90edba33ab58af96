"""Past builds in a Jenkins home on disk: every job's builds, in folders, branches and matrix configurations."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from fedstep.build.ci import parse_outcome
from fedstep.build.record import Absent, Change, CiRun, Dropped, Duration, Evidence, Reports, Situation
from fedstep.importers.cases import settled
from fedstep.importers.jenkins_xml import Cases, Facts, event_of, parse
from fedstep.importers.past import Found, Past, Pending, Wanted, newest

__all__ = ["jenkins_home_past"]

BUILD = frozenset({"timestamp", "startTime", "duration", "result", "*/hash", "*/pullHash"})
DEEPEST = 30  # folders inside folders
_UNREADABLE = (OSError, ValueError, KeyError, OverflowError)


class Job(NamedTuple):
    """A job as its own builds know it: JOB_NAME without the branch, and the branch."""

    folder: str
    name: str  # full name, "/" between folders: what Jenkins calls JOB_NAME
    job: str
    branch: str = ""
    base_branch: str = ""
    is_pr: bool = False


def jenkins_home_past(home: Path, wanted: Wanted) -> Past:
    """The finished builds of all jobs below a Jenkins home, or of one job's folder; oldest first."""
    jobs = [job for job in _jobs(str(home)) if wanted.has_job(job.job)]
    pending = (one for job in jobs for one in _builds(job))
    chosen = newest((one for one in pending if one.after >= wanted.since), wanted)
    return Past(len(chosen), chosen, apart=True)


def _jobs(home: str) -> Iterator[Job]:
    if os.path.isdir(os.path.join(home, "builds")):  # the folder of one job
        name = os.path.basename(os.path.abspath(home))
        yield from _job(home, name, DEEPEST)
    else:
        yield from _below(home, "", DEEPEST)


def _below(folder: str, name: str, depth: int) -> Iterator[Job]:
    """The jobs in the `jobs` folder of a Jenkins home or of a folder."""
    for entry in _folders(os.path.join(folder, "jobs")) if depth else ():
        yield from _job(entry.path, f"{name}/{entry.name}" if name else entry.name, depth - 1)


def _job(folder: str, name: str, depth: int) -> Iterator[Job]:
    configurations = os.path.join(folder, "configurations")
    if os.path.isdir(configurations):  # the parent of a matrix only starts its cells
        yield from _cells(configurations, name, ())
    elif os.path.isdir(os.path.join(folder, "builds")):
        yield Job(folder, name, name)
    for entry in _folders(os.path.join(folder, "branches")):
        yield _branch(entry.path, name)
    yield from _below(folder, name, depth)


def _cells(folder: str, name: str, axes: tuple[tuple[str, str], ...]) -> Iterator[Job]:
    """The configurations of a matrix job: axis-NAME/VALUE, one inside the other."""
    for axis in _folders(folder):
        if not axis.name.startswith("axis-") or len(axes) >= DEEPEST:
            continue
        for value in _folders(axis.path):
            cell = (*axes, (axis.name.removeprefix("axis-"), value.name))
            if os.path.isdir(os.path.join(value.path, "builds")):
                text = ",".join(f"{one}={other}" for one, other in sorted(cell))
                yield Job(value.path, f"{name}/{text}", f"{name}/{text}")
            yield from _cells(value.path, name, cell)


def _branch(folder: str, parent: str) -> Job:
    """A branch of a multibranch job. Its folder is named by a shortened name: the real one is in files inside."""
    encoded = _text(os.path.join(folder, "name-utf8.txt")) or os.path.basename(folder)
    head = _head(os.path.join(folder, "config.xml"))
    branch = head.get("sourceBranch") or head.get("name") or unquote(encoded)
    is_pr = "sourceBranch" in head
    return Job(folder, f"{parent}/{encoded}", parent, branch, head.get("target", "") if is_pr else "", is_pr)


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


def _builds(job: Job) -> Iterator[Pending]:
    for entry in _folders(os.path.join(job.folder, "builds")):
        if entry.name.isdecimal() and os.path.isfile(os.path.join(entry.path, "build.xml")):
            yield Pending(_ended(entry.path), partial(_read, job, entry.path))


def _facts(folder: str) -> Facts:
    facts: Facts = parse(partial(Facts, BUILD), os.path.join(folder, "build.xml"))
    return facts


def _times(facts: Facts) -> tuple[float, float]:
    """Start and duration in seconds. ValueError and KeyError where build.xml has none."""
    started = int(facts.texts.get("startTime") or 0) or int(facts.texts["timestamp"])
    return started / 1000, int(facts.texts.get("duration") or 0) / 1000


def _ended(folder: str) -> float:
    """When the build ended, in seconds since the epoch; 0 where that cannot be read."""
    try:
        return sum(_times(_facts(folder)))
    except _UNREADABLE:
        return 0.0


def _read(job: Job, folder: str) -> tuple[Found, ...]:
    """The evidence of one build; nothing for one that was aborted or still runs."""
    try:
        facts = _facts(folder)
        started, seconds = _times(facts)
        outcome = parse_outcome(facts.texts.get("result", "null"))
        if isinstance(outcome, Absent):
            return ()
        reports = _reports(folder)
    except _UNREADABLE as error:
        return (Dropped(os.path.join(folder, "build.xml"), f"cannot be read ({type(error).__name__}: {error})"),)
    number = os.path.basename(folder)
    ci = CiRun(
        vendor="jenkins",
        run=f"{job.name}/{number}",
        job=job.job,
        branch=job.branch,
        base_branch=job.base_branch,
        event="pull_request" if job.is_pr else event_of(facts.names),
    )
    texts = facts.texts
    commit = texts.get("pullHash") or texts.get("hash") or facts.commits.get(number, "")
    change = Change(commit, "", "") if commit else Absent("build.xml does not tell the commit")
    duration = Duration(seconds, "jenkins") if seconds > 0 else Absent("build.xml has no duration")
    return (Evidence(Situation(ci, change, started), started + seconds, duration, outcome, reports),)


def _reports(folder: str) -> Reports:
    path = os.path.join(folder, "junitResult.xml")
    if not os.path.isfile(path):
        return Reports()
    return Reports(settled(parse(Cases, path).runs), 1)
