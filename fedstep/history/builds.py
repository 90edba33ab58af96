"""Past builds and the planned build, as stored in the history."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from fedstep.ingest.change_impact import is_build_file
from fedstep.types import NO_SECONDS, BuildContext, Change, CiRun, FileChange


class PlannedBuild(NamedTuple):
    """A build that is about to start. Strings are opaque and only compared; "" and None stand for unknown."""

    stream: str  # job, matrix cell and source of the duration: only times of one stream are comparable
    started_at: float  # seconds since the epoch
    branch: str = ""
    base_branch: str = ""
    event: str = ""  # push, pull_request, schedule, manual, tag or other
    author: str = ""
    commit: str = ""
    is_pr: bool | None = None
    hour: float | None = None  # of the day, UTC
    weekday: int | None = None  # 0: Monday
    files: float | None = None  # changed files
    lines: float | None = None  # lines added and deleted
    build_file_touched: bool | None = None


class PastBuild(NamedTuple):
    """A finished build. It repeats the fields of PlannedBuild because a NamedTuple cannot inherit fields."""

    stream: str
    started_at: float
    finished_at: float
    outcome: str  # passed, unstable, failed; anything else counts as not passed
    seconds: float = NO_SECONDS
    branch: str = ""
    base_branch: str = ""
    event: str = ""
    author: str = ""
    commit: str = ""
    is_pr: bool | None = None
    hour: float | None = None
    weekday: int | None = None
    files: float | None = None
    lines: float | None = None
    build_file_touched: bool | None = None


def plan_build(situation: BuildContext, stream: str, author: str) -> PlannedBuild:
    """Return the planned build; `author` is the keyed hash of the change's author."""
    ci, change = situation.ci, situation.change
    known = change if isinstance(change, Change) else None
    hour, weekday = split_time(situation.started_at)
    files, lines, build_file_touched = measure_change(known.files if known else None)
    return PlannedBuild(
        stream=stream,
        started_at=situation.started_at,
        branch=ci.branch,
        base_branch=ci.base_branch,
        event=ci.event,
        author=author if known else "",
        commit=known.commit if known else "",
        is_pr=ci.event == "pull_request" if ci.event else None,
        hour=hour,
        weekday=weekday,
        files=files,
        lines=lines,
        build_file_touched=build_file_touched,
    )


def split_time(seconds: float) -> tuple[float, int]:
    """Return the hour of the day (UTC, fractional) and the weekday (0 is Monday) of seconds since the epoch."""
    day = seconds / 86_400
    return day % 1 * 24, int(day + 3) % 7


def measure_change(files: Sequence[FileChange] | None) -> tuple[float | None, float | None, bool | None]:
    """Return how many files and lines changed, and whether one is a build file; None thrice for an unknown change."""
    if files is None:
        return None, None, None
    lines = sum(file.added + file.deleted for file in files)
    return float(len(files)), float(lines), any(is_build_file(file.path) for file in files)


def stream_name(ci: CiRun, source: str) -> str:
    """Return the stream of a job run: job, matrix cell and duration source. Only equal streams are compared."""
    return "|".join((ci.job, ci.cell, source))


def usual_stream(builds: Sequence[PastBuild], ci: CiRun) -> str:
    """Return the stream to predict: this job's newest, else (locally) the most frequent of the last 50 builds."""
    own = stream_name(ci, "")
    newest = next((build.stream for build in reversed(builds) if build.stream.startswith(own)), None)
    if newest is not None:
        return newest
    counts = Counter(build.stream for build in builds[-50:]) if ci.vendor == "local" else Counter()
    return counts.most_common(1)[0][0] if counts else own
