"""Past builds recorded in files: one sub-folder per build, or CSV tables.

A folder has a build.json and JUnit reports beside it. `builds.csv` has one row per build, `results.csv` one per test of
a build; either may be compressed by gzip. `results.csv` is streamed: only the rows of one build are in memory.
"""

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, InputError
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
from fedstep.ingest.ci import parse_number, parse_outcome, parse_time
from fedstep.ingest.ci_vendors import EVENTS
from fedstep.ingest.junit import expand, read_reports
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Dropped,
    Duration,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

CsvRow = Mapping[str, str]
SOURCE = "recorded"  # the source of the durations
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


class _BuildRows(NamedTuple):
    """The table of builds: those whose results may be in the other table, by name, the others, and unusable rows."""

    named: dict[str, FinishedBuild]
    single: list[FinishedBuild]
    dropped: list[Dropped]


def open_tables(path: Path, build_filter: BuildFilter) -> ImportSource:
    """Return the builds of a table, or of both tables of a folder: a build's results are joined to its row.

    Raise InputError for unusable tables.
    """
    tables = _find_tables(path)
    rows = _read_build_rows(tables)
    positions = _list_positions(tables.results, rows.named, build_filter) if tables.results else []
    with_results = {position.build for position in positions}
    single = [*rows.single, *(build for name, build in rows.named.items() if name not in with_results)]
    items = (ImportItem(build.finished_at, partial(tuple, (build,))) for build in single if build_filter.has(build))
    newest = select_newest(items, build_filter)
    chosen = {(position.build, position.attempt): position for position in positions[-build_filter.limit :]}
    streamed = _stream_builds(tables.results, rows.named, chosen) if tables.results else iter(())
    merged = merge(newest, streamed, key=lambda item: item.after)
    return ImportSource(len(newest) + len(chosen), merged, dropped=tuple(rows.dropped))


def _read_build_rows(tables: _TableSet) -> _BuildRows:
    rows = _BuildRows({}, [], [])
    for result in _builds(tables.builds) if tables.builds else ():
        if isinstance(result, Dropped):
            rows.dropped.append(result)
        elif tables.results and result.situation.ci.run not in rows.named:
            rows.named[result.situation.ci.run] = result
        else:
            rows.single.append(result)
    return rows


def _find_tables(path: Path) -> _TableSet:
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
    """Yield the rows of a table. Raise InputError where it cannot be read."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8") as file:
            yield csv.DictReader(file, restval="")
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})", "Check that the file is whole") from error


def _builds(path: Path) -> Iterator[ReadResult]:
    """Yield for each row its build, or why there is none.

    Without `started_at`, a build starts after the sum of `seconds_since_previous` so far.
    """
    clock = 0.0
    with _rows(path) as rows:
        for line, row in enumerate(rows, 2):
            try:
                clock += float(row.get("seconds_since_previous") or 0)
                if build := _build(row, clock):
                    yield build
            except MALFORMED as error:
                yield Dropped(f"{path.name}:{line}", f"cannot be read ({type(error).__name__}: {error})")


def _build(row: CsvRow, clock: float) -> FinishedBuild | None:
    """Return the build of a row; None for one that was stopped. Raise ValueError or KeyError for an unusable cell."""
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
    parsed = parse_time(text)
    if isinstance(parsed, Unavailable):
        raise ValueError(f"started_at {parsed.reason}")
    return parsed


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
        number=parse_number(row.get("build", "")),
    )


def _change(row: CsvRow) -> Change | Unavailable:
    if not row.get("commit") and not row.get("author"):
        return Unavailable("the table does not tell the commit")
    return Change(row.get("commit", ""), row.get("commit", ""), row.get("author", ""))


class _TablePosition(NamedTuple):
    """A build in the table of results."""

    build: str
    attempt: int  # from 1; a name that occurs again further down ran again
    started_at: float


def _list_positions(path: Path, rows: Mapping[str, FinishedBuild], build_filter: BuildFilter) -> list[_TablePosition]:
    """Return the builds in the table that pass the filter, in a first reading. Raise InputError for a wrong order."""
    positions: list[_TablePosition] = []
    with _rows(path) as table:
        for build, attempt, group in _attempts(table):
            position = _TablePosition(build, attempt, _start_time(path, next(group), {} if attempt > 1 else rows))
            if positions and position.started_at < positions[-1].started_at:
                raise InputError(f"{path}: build {build[:60]!r} is out of order", SORTED)
            positions.append(position)
    return [
        position
        for position in positions
        if position.started_at >= build_filter.since and build_filter.has_job(_job_of(rows.get(position.build)))
    ]


def _job_of(row: FinishedBuild | None) -> str:
    return row.situation.ci.job if row else ""


def _attempts(table: Iterable[CsvRow]) -> Iterator[tuple[str, int, Iterator[CsvRow]]]:
    """Yield for each build its name, the number of its attempt, and its rows, which follow each other."""
    counts: Counter[str] = Counter()
    for build, group in groupby(table, key=lambda row: row.get("build", "")):
        counts[build] += 1
        yield build, counts[build], group


def _start_time(path: Path, row: CsvRow, rows: Mapping[str, FinishedBuild]) -> float:
    if known := rows.get(row.get("build", "")):
        return known.situation.started_at
    parsed = parse_time(row.get("started_at", ""))
    if isinstance(parsed, Unavailable):
        raise InputError(f"{path}: started_at of build {row.get('build', '')[:60]!r} {parsed.reason}", SORTED)
    return parsed


def _stream_builds(
    path: Path, rows: Mapping[str, FinishedBuild], chosen: Mapping[tuple[str, int], _TablePosition]
) -> Iterator[ImportItem]:
    """Yield the chosen builds, one after the other."""
    with _rows(path) as table:
        for build, attempt, group in _attempts(table):
            if position := chosen.get((build, attempt)):
                reports = _reports(path, group, f"{build} {position.started_at}")
                row = rows.get(build) if attempt == 1 else None
                yield ImportItem(position.started_at, partial(tuple, (_join(position, reports, row),)))


def _join(position: _TablePosition, reports: Reports, row: FinishedBuild | None) -> FinishedBuild:
    """Return the build with its results; one without a row of its own has the total time of its tests as duration."""
    build, attempt, started = position
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


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def find_build_folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders at or below `folder` that have a build.json, in the order in which the builds ended."""
    return tuple(
        sorted((path.parent for path in folder.glob("**/build.json")), key=lambda path: (_end_time(path), path))
    )


def open_folder(folder: Path, build_filter: BuildFilter) -> ImportSource:
    """Return the recorded builds below the folder, oldest first, with the times and jobs of their build.json."""
    items = (ImportItem(_end_time(path), partial(_read, path)) for path in find_build_folders(folder))
    chosen = select_newest((item for item in items if not 0 < item.after < build_filter.since), build_filter)
    return ImportSource(len(chosen), chosen, apart=True)


def _read(folder: Path) -> tuple[ReadResult, ...]:
    return (read_folder(folder),)


def read_folder(folder: Path) -> FinishedBuild | Dropped:
    """Return one recorded build, or why it cannot be used."""
    try:
        fields = json.loads((folder / "build.json").read_bytes())
        started, seconds = _times(fields)
        ci, files = _ci_of_folder(fields), tuple(_file(change) for change in fields.get("changes") or ())
        words = tuple(map(str, fields.get("words") or ()))
    except _UNREADABLE as error:
        return Dropped(str(folder / "build.json"), f"cannot be read ({type(error).__name__}: {error})")
    reports = read_reports(expand(["**/*.xml"], folder), "")
    change = Change(_text(fields, "commit"), "", _text(fields, "author"), files, base="the first parent", words=words)
    situation = BuildContext(ci, change._replace(tree=change.commit), started)
    stated = parse_outcome(_text(fields, "outcome"))
    outcome = stated if isinstance(stated, BuildOutcome) else reports.outcome()
    if outcome == BuildOutcome.UNKNOWN:
        return Dropped(str(folder), "neither build.json nor a report tells how the build went")
    return FinishedBuild(
        situation=situation,
        finished_at=started + seconds,
        duration=Duration(seconds, SOURCE),
        outcome=outcome,
        reports=reports._replace(digest=""),
    )


def _end_time(folder: Path) -> float:
    """Return when the build ended, in seconds since the epoch; 0 where that cannot be read."""
    try:
        return sum(_times(json.loads((folder / "build.json").read_bytes())))
    except _UNREADABLE:
        return 0.0


def _times(fields: Mapping[str, Any]) -> tuple[float, float]:
    """Return start and duration in seconds. Raise ValueError where one of them is unusable."""
    started, seconds = parse_time(str(fields["started_at"])), float(fields["seconds"])
    if isinstance(started, Unavailable):
        raise ValueError(f"started_at {started.reason}")
    if not 0 < seconds < 1e8:
        raise ValueError(f"seconds {seconds:g} is no duration")
    return started, seconds


def _ci_of_folder(fields: Mapping[str, Any]) -> CiRun:
    return CiRun(
        vendor="recorded",
        run=_text(fields, "build"),
        attempt=int(fields.get("attempt", 1)),
        job=_text(fields, "job"),
        branch=_text(fields, "branch"),
        base_branch=_text(fields, "base_branch"),
        event=_text(fields, "event"),
    )


def _file(change: Mapping[str, Any]) -> FileChange:
    return FileChange(str(change["path"]), int(change.get("added", 0)), int(change.get("deleted", 0)))


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name) or "")
