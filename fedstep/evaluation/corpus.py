"""Read the tables of recorded CI: `builds.csv`, one row per build, and `tests.csv`, one row per rerun test."""

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from math import isnan, nan
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, InputError
from fedstep.history.records import Example
from fedstep.history.summary import PastBuild, PlannedBuild
from fedstep.ingest.ci import parse_time
from fedstep.ingest.test_identity import combine_outcomes, merge_attempts
from fedstep.types import (
    NO_SECONDS,
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


class Case(NamedTuple):
    """One prediction to make. `truth` is only for scoring, NaN where it is known only from the later label."""

    key: int
    stream: str
    row: Example
    truth: float = nan
    guesses: Mapping[str, float] = MappingProxyType({})  # of simple predictors: seconds or a chance
    estimate: tuple[float, float, int, float, float] = (0.0, 0.0, 0, 0.0, 0.0)  # of a duration: an `Estimate`
    scored: bool = True


class KnownLabel(NamedTuple):
    """The label of an earlier case, with `truth` as in `Case`."""

    key: int
    label: float
    weight: float = 1.0
    truth: float = nan
    is_judged: bool = True  # False: the label is no truth to score by


class BuildStep(NamedTuple):
    """The start of one build: the labels known since the last one, and the cases to predict for this one."""

    build_index: int  # of the build in its project, from 0
    known: tuple[KnownLabel, ...]
    cases: tuple[Case, ...]


def write_steps(path: Path, steps: Iterable[BuildStep]) -> int:
    """Write the steps; how many there are."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for step in steps:
            file.write(json.dumps(_pack_step(step), separators=(",", ":")) + "\n")
            count += 1
    return count


def read_steps(path: Path) -> Iterator[BuildStep]:
    """Yield the steps written by `write_steps`, one at a time."""
    with path.open(encoding="utf-8") as file:
        yield from map(_unpack_step, map(json.loads, file))


def _pack_step(step: BuildStep) -> list[object]:
    known = [[label.key, label.label, label.weight, _plain(label.truth), label.is_judged] for label in step.known]
    return [step.build_index, known, [_pack_case(case) for case in step.cases]]


def _pack_case(case: Case) -> list[object]:
    row = case.row
    values = [round(value, 6) for value in row.values]  # as a record keeps them
    features = [row.subject, row.run, row.indices, values, row.private, _plain(row.target)]
    return [case.key, case.stream, features, _plain(case.truth), dict(case.guesses), case.estimate, case.scored]


def _unpack_step(fields: list[Any]) -> BuildStep:
    build_index, known, cases = fields
    return BuildStep(
        build_index,
        tuple(KnownLabel(key, label, weight, _full(truth), judged) for key, label, weight, truth, judged in known),
        tuple(map(_unpack_case, cases)),
    )


def _unpack_case(fields: list[Any]) -> Case:
    key, stream, features, truth, guesses, estimate, scored = fields
    subject, run, indices, values, private, target = features
    row = Example(subject, run, tuple(indices), tuple(values), tuple(private), _full(target))
    return Case(key, stream, row, _full(truth), guesses, tuple(estimate), scored)


def _plain(value: float) -> float | None:
    return None if isnan(value) else value


def _full(value: float | None) -> float:
    return nan if value is None else value


TABLES = {"builds": "builds.csv", "results": "results.csv", "tests": "tests.csv"}


@dataclass(frozen=True, slots=True)
class CorpusProject:
    """One recorded project. `kind` is the content of `path`: a table of this name, or folders of builds."""

    name: str
    kind: str
    path: Path

    def beside(self, name: str) -> Path:
        """Return the path of a file with this name in the project's folder."""
        return (self.path if self.path.is_dir() else self.path.parent) / name


def find_projects(places: Iterable[Path], kinds: Iterable[str]) -> tuple[CorpusProject, ...]:
    """Return the projects of these kinds below the places, by name; a project is named after its folder.

    Raises InputError where there is none, and where two of one kind have the same name.
    """
    places, kinds = tuple(places), tuple(kinds)
    projects = sorted(projects_below(places, kinds), key=lambda project: (project.name, project.kind))
    for project, other in pairwise(projects):
        if (project.name, project.kind) == (other.name, other.kind):
            paths = f"{project.path} and {other.path}"
            raise InputError(f"two projects are called {project.name}: {paths}", "Rename a folder")
    if not projects:
        wanted = " or ".join("build.json" if kind == "folders" else TABLES[kind] for kind in kinds)
        raise InputError(f"no {wanted} below {', '.join(map(str, places))}", "Name the folder of a recorded project")
    return tuple(projects)


def projects_below(places: Iterable[Path], kinds: Iterable[str]) -> tuple[CorpusProject, ...]:
    """Return every project of these kinds below the places, by path, without duplicates."""
    wanted = set(kinds)
    projects = {project for folder in places for project in _below(folder) if project.kind in wanted}
    return tuple(sorted(projects, key=lambda project: project.path))


def _below(path: Path) -> Iterator[CorpusProject]:
    """Yield every project below a folder, without entering a build's own folder."""
    for folder, inner, files in os.walk(path, followlinks=True):
        here = Path(folder).resolve()
        inner.sort()
        for kind, table in TABLES.items():
            yield from (CorpusProject(here.name, kind, here / file) for file in (table, f"{table}.gz") if file in files)
        builds = [name for name in inner if (here / name / "build.json").is_file()]
        if builds:
            yield CorpusProject(here.name, "folders", here)
            inner[:] = [name for name in inner if name not in builds]


OUTCOMES = {"passed": Outcome.PASSED, "failed": Outcome.FAILED, "skipped": Outcome.SKIPPED}
LONGEST = 1e8  # seconds of one test
UNKNOWN_CHANGE = Unavailable("a table of results does not tell the change")
_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error)


class Result(NamedTuple):
    """One row of the table."""

    build: str
    started_at: float  # seconds since the epoch
    run: TestRun


def read_results(path: Path) -> Iterator[FinishedBuild | Dropped]:
    """Yield the builds in the order of the table, which is chronological, and between them the rows left out.

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
    """Yield adjacent rows of one build as a list, and dropped rows as they come."""
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
    line = 1
    try:
        with opener(path, "rt", newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), 2):
                yield _result(row, f"{path.name}:{line}")
    except _UNREADABLE as error:
        yield Dropped(f"{path.name}:{line + 1}", f"cannot be read from here on ({type(error).__name__}: {error})")


def _result(row: Mapping[str, str | None], source: str) -> Result | Dropped:
    try:
        build, test = row["build"], row["test"]
        if not build or not test:
            raise ValueError("no build" if test else "no test")
        started = parse_time(row["started_at"] or "")
        if isinstance(started, Unavailable):
            raise ValueError(f"started_at {started.reason}")
        return Result(build, started, TestRun(test, OUTCOMES[row["outcome"] or ""], _seconds(row["seconds"] or "")))
    except MALFORMED as error:
        return Dropped(source, f"{type(error).__name__}: {error}")


def _seconds(text: str) -> float:
    """Parse a time in seconds, NO_SECONDS for an empty cell. Raises ValueError for an invalid time."""
    if not text:
        return NO_SECONDS
    seconds = float(text)
    if not 0 <= seconds < LONGEST:
        raise ValueError(f"seconds {text[:40]}")
    return seconds


def _evidence(results: Sequence[Result]) -> FinishedBuild:
    """Build a finished build from its rows; without a time of its own, it lasts as long as its tests in sequence."""
    runs: dict[str, TestRun] = {}
    for _, _, run in results:
        runs[run.test] = _combine_attempts(runs[run.test], run) if run.test in runs else run
    total = sum(run.seconds for run in runs.values() if run.seconds > 0)
    return FinishedBuild(
        situation=BuildContext(CiRun(vendor="recorded", run=results[0].build), UNKNOWN_CHANGE, results[0].started_at),
        finished_at=max(result.started_at for result in results) + total,
        duration=Duration(total, "tests") if total > 0 else Unavailable("the table has no times of this build"),
        outcome=_outcome(runs.values()),
        reports=Reports(tuple(runs.values()), files=1),
    )


def _combine_attempts(run: TestRun, other: TestRun) -> TestRun:
    """Return the one run of a test with two rows in a build: attempts, or a copy where outcome and time are equal."""
    is_copy = run.outcome == other.outcome and repr(run.seconds) == repr(other.seconds)
    outcome = run.outcome if is_copy else combine_outcomes(run.outcome + other.outcome)
    return merge_attempts((run, other), outcome)


def _outcome(runs: Iterable[TestRun]) -> BuildOutcome:
    return BuildOutcome.FAILED if any(run.outcome in "fc" for run in runs) else BuildOutcome.PASSED


TableRow = Mapping[str, str]
LINES = ("lines_added", "lines_deleted")
KINDS = {"doc_files": "docs", "other_files": "other", "src_files": "source", "test_churn": "test"}  # by column
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
    """Return the builds of one project by start, and the rows that cannot be used."""
    rows = tuple(iter_builds(path))
    builds = sorted((row for row in rows if isinstance(row, PastBuild)), key=lambda build: build.started_at)
    return tuple(builds), tuple(row for row in rows if isinstance(row, Dropped))


def iter_builds(path: Path) -> Iterator[PastBuild | Dropped]:
    """Row by row a build of one project, or why it cannot be used; the table is in the order of starts.

    Without `started_at` the running sum of `seconds_since_previous` stands for it. A column that is known only after a
    build goes into `seconds` and `outcome` alone.
    """
    clock = 0.0
    for line, row in enumerate(_rows(path), 2):
        try:
            clock += _number(row, "seconds_since_previous", 0.0) or 0.0
            yield _build(row, clock)
        except MALFORMED as error:
            yield Dropped(f"{path.name}:{line}", f"{type(error).__name__}: {error}")


def in_order(items: Iterable[PastBuild | Dropped], window: int = 1000) -> Iterator[PastBuild | Dropped]:
    """Yield the builds by start; drop those that are more than `window` builds out of place.

    What had been known before such a build cannot be told any more, and a table need not fit into memory.
    """
    waiting: list[tuple[float, int, PastBuild]] = []
    newest = float("-inf")
    for position, item in enumerate(items):
        if isinstance(item, Dropped):
            yield item
        elif item.started_at < newest:
            yield Dropped(f"build started at {item.started_at:.0f}", "stands too far below builds that started later")
        else:
            heappush(waiting, (item.started_at, position, item))
        if len(waiting) > window:
            newest, _, build = heappop(waiting)
            yield build
    yield from (heappop(waiting)[2] for _ in range(len(waiting)))


def read_tests(path: Path) -> tuple[RerunTest, ...]:
    """Return the rerun tests of one project, in the order of the file."""
    return tuple(_test(row) for row in _rows(path))


def as_planned(build: PastBuild) -> PlannedBuild:
    """Return the build as it was known before it started."""
    return PlannedBuild(**{name: getattr(build, name) for name in PlannedBuild._fields})


def evidence_of(build: PastBuild, build_index: int) -> FinishedBuild:
    """Return the build as a train step would read it: without reports, and with only the author of its change."""
    ci = CiRun(
        vendor="recorded",
        run=str(build_index),
        job=build.stream.partition("|")[0],
        branch=build.branch,
        base_branch=build.base_branch,
        event=build.event,
    )
    situation = BuildContext(ci, Change(build.commit, "", build.author), build.started_at)
    duration = Duration(build.seconds, "recorded")
    outcome = BuildOutcome(build.outcome) if build.outcome in ("passed", "unstable") else BuildOutcome.FAILED
    return FinishedBuild(situation, build.finished_at, duration, outcome, Reports())


def _rows(path: Path) -> Iterator[TableRow]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _build(row: TableRow, clock: float) -> PastBuild:
    started_at = parse_time(row["started_at"]) if row.get("started_at") else clock
    started = started_at if isinstance(started_at, float) else clock
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
        kinds=" ".join(kind for column, kind in KINDS.items() if _number(row, column, 0.0)),
        number=int(row["build"]) if row.get("build", "").isdecimal() else None,
    )


def _test(row: TableRow) -> RerunTest:
    failing, passing = int(row["failing_runs"]), int(row["passing_runs"])
    return RerunTest(
        test=row["test"],
        seconds=float(row["seconds"]) if row["seconds"] else NO_SECONDS,
        flaky=row["flaky"] == "1",
        failure_rate=failing / (failing + passing) if row["flaky"] == "1" else 0.0,
        identifiers=tuple(row["tokens"].split()),
    )


def _number(row: TableRow, name: str, otherwise: float | None) -> float | None:
    text = row.get(name) or ""
    return float(text) if text else otherwise


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _total(row: TableRow, names: tuple[str, ...]) -> float | None:
    figures = [float(row[name]) for name in names if row.get(name)]
    return sum(figures) if figures else None
