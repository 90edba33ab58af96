"""Reads `results.csv`, one row a test and build, as the builds that ran: one at a time, however long the table is."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fedstep.build.ci import parse_time
from fedstep.build.record import (
    NO_SECONDS,
    Absent,
    BuildOutcome,
    CiRun,
    Dropped,
    Duration,
    Evidence,
    Outcome,
    Reports,
    Situation,
    TestRun,
)
from fedstep.ingest.junit import combine_runs

__all__ = ["read_results"]

OUTCOMES = {"passed": Outcome.PASSED, "failed": Outcome.FAILED, "skipped": Outcome.SKIPPED}
LONGEST = 1e8  # seconds of one test
UNKNOWN_CHANGE = Absent("a table of results does not tell the change")
_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)


class Result(NamedTuple):
    """One row of the table."""

    build: str
    started_at: float  # seconds since the epoch
    run: TestRun


def read_results(path: Path) -> Iterator[Evidence | Dropped]:
    """The builds in the order of the table, which is that of time, and between them what cannot be used.

    Neighbouring rows of one `build` are one build; a test that it has several times was attempted several times. A
    build that comes again further below ran again. One that started before the build above it is dropped, for what had
    been known before it cannot be told.
    """
    newest = 0.0
    for results in _builds(_results(path)):
        if isinstance(results, Dropped):
            yield results
        elif results[0].started_at < newest:
            yield Dropped(f"{path.name}: build {results[0].build[:40]}", "started before the build above it")
        else:
            newest = results[0].started_at
            yield _evidence(results)


def _builds(items: Iterable[Result | Dropped]) -> Iterator[list[Result] | Dropped]:
    """Neighbouring rows of one build as a list, dropped rows as they come."""
    results: list[Result] = []
    for item in items:
        if isinstance(item, Dropped):
            yield item
        elif results and results[0].build != item.build:
            yield results
            results = [item]
        else:
            results.append(item)
    if results:
        yield results


def _results(path: Path) -> Iterator[Result | Dropped]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 1
    try:
        with opener(path, "rt", newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                yield _result(row, f"{path.name}:{number}")
    except _UNREADABLE as error:
        yield Dropped(f"{path.name}:{number + 1}", f"cannot be read from here on ({type(error).__name__}: {error})")


def _result(row: Mapping[str, str | None], source: str) -> Result | Dropped:
    try:
        build, test = row["build"], row["test"]
        if not build or not test:
            raise ValueError("no build" if test else "no test")
        started = parse_time(row["started_at"] or "")
        if isinstance(started, Absent):
            raise ValueError(f"started_at {started.reason}")
        return Result(build, started, TestRun(test, OUTCOMES[row["outcome"] or ""], _seconds(row["seconds"] or "")))
    except (ValueError, KeyError) as error:
        return Dropped(source, f"{type(error).__name__}: {error}")


def _seconds(text: str) -> float:
    """The time in seconds, NO_SECONDS for an empty cell. ValueError for what is no time."""
    if not text:
        return NO_SECONDS
    seconds = float(text)
    if not 0 <= seconds < LONGEST:
        raise ValueError(f"seconds {text[:40]}")
    return seconds


def _evidence(results: Sequence[Result]) -> Evidence:
    """The build of these rows; without a time of its own it ends as if its tests had run one after another."""
    runs: dict[str, TestRun] = {}
    for _, _, run in results:
        runs[run.test] = combine_runs(runs[run.test], run) if run.test in runs else run
    total = sum(run.seconds for run in runs.values() if run.seconds > 0)
    return Evidence(
        situation=Situation(CiRun(vendor="recorded", run=results[0].build), UNKNOWN_CHANGE, results[0].started_at),
        finished_at=max(result.started_at for result in results) + total,
        duration=Duration(total, "tests") if total > 0 else Absent("the table has no times of this build"),
        outcome=_outcome(runs.values()),
        reports=Reports(tuple(runs.values()), files=1),
    )


def _outcome(runs: Iterable[TestRun]) -> BuildOutcome:
    return BuildOutcome.FAILED if any(run.outcome in "fc" for run in runs) else BuildOutcome.PASSED
