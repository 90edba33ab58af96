"""Reads the tables of recorded CI: `builds.csv`, one row a build, and `tests.csv`, one row a test, rerun often."""

import csv
import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

from fedstep.build.ci import parse_time
from fedstep.build.record import (
    NO_SECONDS,
    BuildOutcome,
    Change,
    CiRun,
    Dropped,
    Duration,
    Reports,
    Situation,
)
from fedstep.features.builds import PastBuild, Planned
from fedstep.steps import Evidence

__all__ = ["RerunTest", "evidence_of", "in_order", "iter_builds", "planned_of", "read_builds", "read_tests"]

Row = Mapping[str, str]
LINES = ("lines_added", "lines_deleted")
FILES = ("files_changed", "files_added", "files_deleted", "files_modified")


@dataclass(frozen=True, slots=True)
class RerunTest:
    """A test that was rerun many times on one version."""

    test: str
    seconds: float
    flaky: bool
    failure_rate: float
    identifiers: tuple[str, ...]  # of its source


def read_builds(path: Path) -> tuple[tuple[PastBuild, ...], tuple[Dropped, ...]]:
    """The builds of one project by start, and the rows that cannot be used."""
    rows = tuple(iter_builds(path))
    builds = sorted((row for row in rows if isinstance(row, PastBuild)), key=lambda build: build.started_at)
    return tuple(builds), tuple(row for row in rows if isinstance(row, Dropped))


def iter_builds(path: Path) -> Iterator[PastBuild | Dropped]:
    """Row by row a build of one project, or why it cannot be used; the table is in the order of starts.

    Without `started_at` the running sum of `seconds_since_previous` stands for it. A column that is known only after a
    build goes into `seconds` and `outcome` alone.
    """
    clock = 0.0
    for number, row in enumerate(_rows(path), 2):
        try:
            clock += _number(row, "seconds_since_previous", 0.0) or 0.0
            yield _build(row, clock)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            yield Dropped(f"{path.name}:{number}", f"{type(error).__name__}: {error}")


def in_order(items: Iterable[PastBuild | Dropped], window: int = 1000) -> Iterator[PastBuild | Dropped]:
    """The builds by their start, as long as none is further from its place than `window` builds; those are dropped.

    What had been known before such a build cannot be told any more, and a table need not fit into memory.
    """
    waiting: list[tuple[float, int, PastBuild]] = []
    newest = float("-inf")
    for number, item in enumerate(items):
        if isinstance(item, Dropped):
            yield item
        elif item.started_at < newest:
            yield Dropped(f"build started at {item.started_at:.0f}", "stands too far below builds that started later")
        else:
            heappush(waiting, (item.started_at, number, item))
        if len(waiting) > window:
            newest, _, build = heappop(waiting)
            yield build
    yield from (heappop(waiting)[2] for _ in range(len(waiting)))


def read_tests(path: Path) -> tuple[RerunTest, ...]:
    """The rerun tests of one project, in the order of the file."""
    return tuple(_test(row) for row in _rows(path))


def planned_of(build: PastBuild) -> Planned:
    """The build as it was known before it started."""
    return Planned(**{name: getattr(build, name) for name in Planned._fields})


def evidence_of(build: PastBuild, number: int) -> Evidence:
    """The build as a train step would have read it: no reports, and of its change the author alone."""
    ci = CiRun(
        vendor="recorded",
        run=str(number),
        job=build.stream.partition("|")[0],
        branch=build.branch,
        base_branch=build.base_branch,
        event=build.event,
    )
    situation = Situation(ci, Change(build.commit, "", build.author), build.started_at)
    duration = Duration(build.seconds, "recorded")
    outcome = BuildOutcome(build.outcome) if build.outcome in ("passed", "unstable") else BuildOutcome.FAILED
    return Evidence(situation, build.finished_at, duration, outcome, Reports())


def _rows(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _build(row: Row, clock: float) -> PastBuild:
    told = parse_time(row["started_at"]) if row.get("started_at") else clock
    started = told if isinstance(told, float) else clock
    seconds = float(row["seconds"])
    if not 0 < seconds < 1e8:
        raise ValueError(f"seconds {row['seconds']}")
    day = started / 86_400
    return PastBuild(
        stream=f"{row.get('job', '')}||recorded",
        started_at=started,
        finished_at=started + seconds,
        seconds=seconds,
        outcome=row["outcome"],
        branch=row.get("branch", ""),
        base_branch=row.get("base_branch", ""),
        event=row.get("event", ""),
        author=row.get("author", ""),
        commit=row.get("commit", ""),
        is_pr=row["is_pr"] == "1" if row.get("is_pr") else None,
        hour=_number(row, "hour", day % 1 * 24 if row.get("started_at") else None),
        weekday=_whole(_number(row, "weekday", (int(day) + 3) % 7 if row.get("started_at") else None)),
        files=_total(row, FILES),
        lines=_total(row, LINES),
    )


def _test(row: Row) -> RerunTest:
    failing, passing = int(row["failing_runs"]), int(row["passing_runs"])
    return RerunTest(
        test=row["test"],
        seconds=float(row["seconds"]) if row["seconds"] else NO_SECONDS,
        flaky=row["flaky"] == "1",
        failure_rate=failing / (failing + passing) if row["flaky"] == "1" else 0.0,
        identifiers=tuple(row["tokens"].split()),
    )


def _number(row: Row, name: str, otherwise: float | None) -> float | None:
    text = row.get(name) or ""
    return float(text) if text else otherwise


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _total(row: Row, names: tuple[str, ...]) -> float | None:
    found = [float(row[name]) for name in names if row.get(name)]
    return sum(found) if found else None
