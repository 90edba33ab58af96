"""Past builds in tables: `builds.csv`, one row a build, and `results.csv`, one row a test of a build; gzip or plain."""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fedstep.errors import InputError
from fedstep.importers.base import (
    BuildFilter,
    ImportItem,
    ImportSource,
    ReadResult,
    clean_test_name,
    merge_repeated,
    select_newest,
)
from fedstep.ingest.cases import parse_seconds
from fedstep.ingest.ci import parse_outcome, parse_time
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

CsvRow = Mapping[str, str]
SOURCE = "recorded"
SORTED = "Sort the table by started_at, the rows of a build together"
OUTCOMES = {
    word: outcome
    for outcome, words in {
        Outcome.PASSED: "passed pass success ok",
        Outcome.FAILED: "failed failure fail error broken",
        Outcome.SKIPPED: "skipped ignored disabled",
        Outcome.FLAKED: "flaky flaked",
    }.items()
    for word in words.split()
}


class _TableSet(NamedTuple):
    """The tables that belong together."""

    builds: Path | None
    results: Path | None


def open_tables(path: Path, build_filter: BuildFilter) -> ImportSource:
    """The builds of a table, or of both tables of a folder: a build's results join its row. InputError if unusable."""
    tables = _tables(path)
    rows: dict[str, FinishedBuild] = {}
    alone: list[FinishedBuild] = []
    dropped: list[Dropped] = []
    for found in _builds(tables.builds) if tables.builds else ():
        if isinstance(found, Dropped):
            dropped.append(found)
        elif tables.results and found.situation.ci.run not in rows:
            rows[found.situation.ci.run] = found
        else:
            alone.append(found)
    places = _listed(tables.results, rows, build_filter) if tables.results else []
    alone += [one for run, one in rows.items() if run not in {place.build for place in places}]
    singles = select_newest(
        (ImportItem(one.finished_at, partial(tuple, (one,))) for one in alone if build_filter.has(one)), build_filter
    )
    chosen = {(place.build, place.attempt): place for place in places[-build_filter.limit :]}
    streamed = _streamed(tables.results, rows, chosen) if tables.results else iter(())
    both = merge(singles, streamed, key=lambda one: one.after)
    return ImportSource(len(singles) + len(chosen), both, dropped=tuple(dropped))


def _tables(path: Path) -> _TableSet:
    if path.is_dir():
        return _TableSet(_beside(path, "builds"), _beside(path, "results"))
    return _TableSet(_beside(path.parent, "builds"), path) if _kind(path) == "results" else _TableSet(path, None)


def _beside(folder: Path, kind: str) -> Path | None:
    return next((folder / name for name in (f"{kind}.csv", f"{kind}.csv.gz") if (folder / name).is_file()), None)


def _kind(path: Path) -> str:
    with _rows(path) as rows:
        columns = set(next(iter(rows), {}))
    if {"build", "test", "outcome"} <= columns:
        return "results"
    if {"seconds", "outcome"} <= columns:
        return "builds"
    raise InputError(f"{path} has neither the columns of builds.csv nor of results.csv", "See docs/how-to/import.md")


@contextmanager
def _rows(path: Path) -> Iterator[Iterator[CsvRow]]:
    """The rows of a table. InputError where it cannot be read on."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8") as file:
            yield csv.DictReader(file, restval="")
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})", "Check that the file is whole") from error


def _builds(path: Path) -> Iterator[ReadResult]:
    """Row by row a build or why there is none; without `started_at` the clock is the sum of seconds_since_previous."""
    clock = 0.0
    with _rows(path) as rows:
        for number, row in enumerate(rows, 2):
            try:
                clock += float(row.get("seconds_since_previous") or 0)
                if evidence := _build(row, clock):
                    yield evidence
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                yield Dropped(f"{path.name}:{number}", f"cannot be read ({type(error).__name__}: {error})")


def _build(row: CsvRow, clock: float) -> FinishedBuild | None:
    """The build of a row; None for one that was stopped. ValueError and KeyError where a cell is unusable."""
    seconds, outcome = float(row["seconds"]), parse_outcome(row["outcome"])
    if not 0 < seconds < 1e8:
        raise ValueError(f"seconds {row['seconds']} is no duration")
    if isinstance(outcome, Unavailable):
        if outcome.reason.startswith("the job"):
            return None
        raise ValueError(outcome.reason)
    started = _time(row["started_at"]) if row.get("started_at") else clock
    situation = BuildContext(_ci(row), _change(row), started)
    digest = sha256(f"{started} {seconds} {row.get('commit', '')}".encode()).hexdigest()
    return FinishedBuild(situation, started + seconds, Duration(seconds, SOURCE), outcome, Reports(digest=digest))


def _time(text: str) -> float:
    found = parse_time(text)
    if isinstance(found, Unavailable):
        raise ValueError(f"started_at {found.reason}")
    return found


def _ci(row: CsvRow) -> CiRun:
    event = EVENTS.get(row.get("event", "").lower(), "other") if row.get("event") else ""
    if row.get("is_pr"):
        event = "pull_request" if row["is_pr"] == "1" else event if event not in ("", "other") else "push"
    return CiRun(
        vendor="recorded",
        run=row.get("build", ""),
        job=row.get("job", ""),
        cell=row.get("cell", ""),
        branch=row.get("branch", ""),
        base_branch=row.get("base_branch", ""),
        event=event,
    )


def _change(row: CsvRow) -> Change | Unavailable:
    if not row.get("commit") and not row.get("author"):
        return Unavailable("the table does not tell the commit")
    return Change(row.get("commit", ""), row.get("commit", ""), row.get("author", ""))


class _TablePosition(NamedTuple):
    """A build in the table of results. A name that comes again further below ran again."""

    build: str
    attempt: int  # from 1
    started_at: float


def _listed(path: Path, rows: Mapping[str, FinishedBuild], build_filter: BuildFilter) -> list[_TablePosition]:
    """The wanted builds in the table, from a first reading that keeps nothing else. InputError for a wrong order."""
    places: list[_TablePosition] = []
    with _rows(path) as table:
        for build, attempt, group in _attempts(table):
            place = _TablePosition(build, attempt, _started(path, next(group), {} if attempt > 1 else rows))
            if places and place.started_at < places[-1].started_at:
                raise InputError(f"{path}: build {build[:60]!r} is out of order", SORTED)
            places.append(place)
    found = (rows.get(place.build) for place in places)
    return [
        place
        for place, row in zip(places, found, strict=True)
        if place.started_at >= build_filter.since and build_filter.has_job(row.situation.ci.job if row else "")
    ]


def _attempts(table: Iterable[CsvRow]) -> Iterator[tuple[str, int, Iterator[CsvRow]]]:
    """The neighbouring rows of each build, with its name and how often it has come by then."""
    counts: Counter[str] = Counter()
    for build, group in groupby(table, key=lambda row: row.get("build", "")):
        counts[build] += 1
        yield build, counts[build], group


def _started(path: Path, row: CsvRow, rows: Mapping[str, FinishedBuild]) -> float:
    if known := rows.get(row.get("build", "")):
        return known.situation.started_at
    found = parse_time(row.get("started_at", ""))
    if isinstance(found, Unavailable):
        raise InputError(f"{path}: started_at of build {row.get('build', '')[:60]!r} {found.reason}", SORTED)
    return found


def _streamed(
    path: Path, rows: Mapping[str, FinishedBuild], chosen: Mapping[tuple[str, int], _TablePosition]
) -> Iterator[ImportItem]:
    """The chosen builds one after the other; of the table only the rows of one build are in memory."""
    with _rows(path) as table:
        for build, attempt, group in _attempts(table):
            if place := chosen.get((build, attempt)):
                reports = _reports(path, group, f"{build} {place.started_at}")
                row = rows.get(build) if attempt == 1 else None
                yield ImportItem(place.started_at, partial(tuple, (_joined(place, reports, row),)))


def _joined(place: _TablePosition, reports: Reports, row: FinishedBuild | None) -> FinishedBuild:
    """The build with its results. Without a row of its own it is timed by its tests, which are no wall time."""
    build, attempt, started = place
    if row:
        return row._replace(reports=reports._replace(digest=row.reports.digest))
    total = sum(test.seconds for test in reports.tests if test.seconds > 0)
    failed = any(test.outcome in "fc" for test in reports.tests)
    run = CiRun(vendor="recorded", run=build, attempt=attempt)
    return FinishedBuild(
        BuildContext(run, Unavailable("the table does not tell the change"), started),
        started,
        Duration(total, "tests") if total > 0 else Unavailable("no test has a time"),
        BuildOutcome.FAILED if failed else BuildOutcome.PASSED,
        reports,
    )


def _reports(path: Path, rows: Iterable[CsvRow], name: str) -> Reports:
    runs: list[TestRun] = []
    dropped: list[Dropped] = []
    for row in rows:
        outcome = OUTCOMES.get(row.get("outcome", "").lower())
        if outcome is None or not row.get("test"):
            dropped.append(Dropped(f"{path.name} {name}", f"{row.get('outcome', '')[:40]!r} is no outcome of a test"))
        else:
            runs.append(TestRun(clean_test_name(row["test"]), outcome, parse_seconds(row.get("seconds") or "x")))
    return Reports(merge_repeated(runs), 1, tuple(dropped), sha256(name.encode(errors="replace")).hexdigest())
