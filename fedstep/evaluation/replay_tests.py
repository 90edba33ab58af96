"""Replay recorded reports through the production code in memory, for the two tasks about tests."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import isnan, log, nan
from types import MappingProxyType
from typing import NamedTuple
from zlib import crc32

from fedstep.evaluation.corpus import BuildStep, Case, KnownLabel, RerunTest
from fedstep.features.build_features import median
from fedstep.features.test_duration import expected_seconds
from fedstep.features.test_features import flaky_examples, flaky_values, private_test_features, triage_examples
from fedstep.history.flakiness import informative_runs
from fedstep.history.records import Example, make_record
from fedstep.history.summary import PlannedBuild, Summary, apply_record, plan_build, stream_name
from fedstep.history.test_table import (
    NEVER,
    WINDOW,
    TestStats,
    TestTable,
    index_tests,
    read_times,
    with_tests,
    with_time,
    write_coordinates,
)
from fedstep.ingest.change_impact import group_of
from fedstep.model.labels import LabelledExample, follows_proof, is_due, renumber_runs, resolve_labels
from fedstep.schema.schema import schema, sub_words
from fedstep.types import Build, Duration, FinishedBuild, Outcome, TestRun, Unavailable


class Truth(NamedTuple):
    """The truth for scoring: whether a failure was a flake, by build and test; whether a test ever flaked."""

    kinds: Mapping[tuple[str, str], bool] | None = None
    tests: Mapping[str, bool] | None = None


class KnownWords(NamedTuple):
    """What triage is told of words: their weights, learned from other projects, and those of each test's own source."""

    weights: Sequence[float] = ()
    sources: Mapping[str, tuple[str, ...]] = MappingProxyType({})


NO_WORDS = KnownWords()


@dataclass(slots=True)
class _Replay:
    """The project at one moment."""

    task: str
    truth: Truth
    words: KnownWords
    summary: Summary = field(default_factory=Summary)
    pending: list[Example] = field(default_factory=list)
    keys: dict[tuple[str, int], int] = field(default_factory=dict)  # of the cases whose rows are pending
    asked_at: dict[int, int] = field(default_factory=dict)  # by key, the number of the case's build
    builds: list[str] = field(default_factory=list)  # that ended, by the name that the recorder gave
    running: list[tuple[float, int, "_Started"]] = field(default_factory=list)
    cases: int = 0


class _Started(NamedTuple):
    build: Build
    planned: PlannedBuild
    rows: tuple[Example, ...]
    first_key: int


def test_steps(builds: Iterable[FinishedBuild], task: str, truth: Truth, words: KnownWords) -> Iterator[BuildStep]:
    """Yield a step for each build, given in the order of starts.

    Tests are predicted when their reports exist: known are the builds that ended before this one did.
    With a truth by test, only the last step is scored: the prediction for every test after the whole history.
    """
    replay = _Replay(task, truth, words)
    build_index = -1
    for build_index, finished in enumerate(builds):
        known = _finish(replay, finished.finished_at)
        yield BuildStep(build_index, known, _start(replay, build_index, finished))
    known = _finish(replay, float("inf"))
    yield BuildStep(build_index + 1, known, tuple(_last_words(replay)) if truth.tests is not None else ())


test_steps.__test__ = False  # type: ignore[attr-defined]  # pytest: no test


def _start(replay: _Replay, build_index: int, evidence: FinishedBuild) -> tuple[Case, ...]:
    """Return the cases of a build that starts now and becomes a running one."""
    ci = evidence.situation.ci
    build = Build(f"{build_index:032x}", *evidence)
    source = build.duration.source if isinstance(build.duration, Duration) else ""
    planned = plan_build(build.situation, stream_name(ci, source), "")
    if replay.task == "flaky":
        rows = flaky_examples(replay.summary, build, _due)
    else:
        rows = triage_examples(replay.summary, build, planned, replay.words.weights)
    guesses = _guesses(replay, rows)
    first = replay.cases
    cases = tuple(
        Case(
            first + n, planned.stream, row, _kind(replay, ci.run, row.subject), guess, scored=replay.truth.tests is None
        )
        for n, (row, guess) in enumerate(zip(rows, guesses, strict=True))
    )
    replay.cases += len(rows)
    replay.asked_at |= {case.key: build_index for case in cases}
    heappush(replay.running, (evidence.finished_at, build_index, _Started(build, planned, rows, first)))
    return cases


def _finish(replay: _Replay, now: float) -> tuple[KnownLabel, ...]:
    """Apply the builds that have ended by now, and return the labels that this reveals."""
    known: list[KnownLabel] = []
    while replay.running and replay.running[0][0] <= now:
        _, _, (build, planned, rows, first) = heappop(replay.running)
        record = make_record(build, planned.stream, "")._replace(source_words=_new_sources(replay, build))
        replay.summary = apply_record(replay.summary, build.name, record)
        replay.builds.append(build.situation.ci.run)
        fresh = renumber_runs(rows, replay.summary.tests)
        replay.keys |= {(row.subject, row.run): first + n for n, row in enumerate(fresh)}
        ripe, replay.pending = resolve_labels(replay.task, (*replay.pending, *fresh), replay.summary.tests)
        by_id = index_tests(replay.summary.tests)
        known += [_make_known_label(replay, labelled, by_id[labelled.example.subject]) for labelled in ripe]
        waiting = {(row.subject, row.run) for row in replay.pending}
        replay.keys = {row: key for row, key in replay.keys.items() if row in waiting}
    return tuple(known)


def _new_sources(replay: _Replay, build: Build) -> Mapping[str, tuple[str, ...]]:
    """Return the words of the source of the tests that the build ran first; `train` reads them from the checkout."""
    sources, known = replay.words.sources, replay.summary.tests
    return {run.test: sources[run.test] for run in build.reports.tests if run.test in sources and run.test not in known}


def _make_known_label(replay: _Replay, ripe: LabelledExample, stats: TestStats) -> KnownLabel:
    key = replay.keys[ripe.example.subject, ripe.example.run]
    flaked = _has_flaked(replay, ripe.example.subject, replay.asked_at[key])
    is_judged = replay.task != "triage" or not follows_proof(ripe.example, stats)
    return KnownLabel(key, ripe.label, ripe.weight, flaked, is_judged)


def _kind(replay: _Replay, build: str, test: str) -> float:
    """Return whether this failure was a flake, where the task predicts that and the truth is known."""
    kinds = replay.truth.kinds
    return float(kinds.get((build, test), nan)) if replay.task == "triage" and kinds is not None else nan


def _has_flaked(replay: _Replay, test: str, since: int) -> float:
    """Return whether the test flaked in a build since then, where the task predicts that and the truth is known."""
    kinds = replay.truth.kinds
    if replay.task != "flaky" or kinds is None:
        return nan
    return float(any(kinds.get((build, test), False) for build in replay.builds[since:]))


def _guesses(replay: _Replay, rows: Sequence[Example]) -> Sequence[Mapping[str, float]]:
    if not rows:
        return ()
    tests = [row.subject for row in rows]
    return chances_of_flaking(with_tests(replay.summary.tests, tests), tests)


def _last_words(replay: _Replay) -> Iterator[Case]:
    """Yield a case for every test, scored by whether it is known to be flaky."""
    table, task = replay.summary.tests, schema().tasks["flaky"]
    guesses = chances_of_flaking(table, tuple(table))
    for index, (stats, values) in enumerate(zip(table.values(), flaky_values(table), strict=True)):
        test = stats.test
        row = Example(test, stats.runs, *task.encode(values), private_test_features(test))
        truth = float((replay.truth.tests or {}).get(test, nan))
        yield Case(replay.cases + index, "", row, truth, guesses[index])


def _due(test: str, runs: int) -> bool:
    return is_due(crc32(test.encode()), runs, schema().tasks["flaky"].horizon)


PROJECT, FLAKY_SHARE, ENOUGH, MOST = 1000.0, 0.05, 10, 5.0  # a plateau: half or twice as much changes little


def rerun_steps(tests: Sequence[RerunTest]) -> Iterator[BuildStep]:
    """Two steps: a case for each test, then what it turned out to be, which is whether it ever flipped in its reruns.

    The chance that it flips within the task's horizon would be the exact label; with it words are ranked worse (mean
    AUC 0.69 against 0.75 on left-out projects), for half of all flaky tests fail less than once in a hundred runs.
    """
    table = _with_times(with_tests({}, [test.test for test in tests]), tests)
    encode = schema().tasks["flaky"].encode
    rows = [Example(test.test, 0, *encode(values), ()) for test, values in zip(tests, flaky_values(table), strict=True)]
    truths, weights = [float(test.flaky) for test in tests], fair_weights([test.flaky for test in tests])
    guesses = [{"flip-rate": 0.0, "seconds": 0.0 if isnan(test.seconds) else test.seconds} for test in tests]
    yield BuildStep(
        0,
        (),
        tuple(Case(key, "", row, truths[key], guesses[key]) for key, row in enumerate(rows)),
    )
    yield BuildStep(1, tuple(map(KnownLabel, range(len(truths)), truths, weights)), ())


def fair_weights(flaky: Sequence[bool]) -> list[float]:
    """Return the weight of each test of one project, so that no project dominates by size or by flaky tests.

    All tests count PROJECT together, the flaky ones FLAKY_SHARE of it; none counts more than MOST. A project with few
    flaky tests counts less: it gives little evidence.

    >>> fair_weights([True, False])
    [5.0, 5.0]
    """
    positives = sum(flaky)
    total = PROJECT * min(1.0, positives / ENOUGH)
    of_flaky = min(MOST, total * FLAKY_SHARE / max(1, positives))
    of_steady = min(MOST, total * (1.0 - FLAKY_SHARE) / max(1, len(flaky) - positives))
    return [of_flaky if is_flaky else of_steady for is_flaky in flaky]


def _with_times(table: TestTable, tests: Sequence[RerunTest]) -> TestTable:
    """Return the table with each test's time and the words of its source, but without a run."""
    listed = schema().words("source").listed
    for test in tests:
        stats = table[test.test]
        if not isnan(test.seconds):
            stats.log_seconds = log(max(test.seconds, 0.001))
        stats.source_words = write_coordinates(listed(sub_words(test.identifiers)))
    return table


FIRST_BUILDS = 10  # not scored
FEWEST_TIMES = 3  # known of a test before it is scored
FINEST = 0.01  # seconds; below it, times in milliseconds are mostly rounding


class TimedRun(NamedTuple):
    """One run of a test, and what was expected of it before its build started. Times are seconds."""

    test: str
    build: int  # its number in the stream, from 0
    seconds: float  # > 0
    expected: float
    median_20: float  # may be 0, where reports round to it


@dataclass(frozen=True, slots=True)
class _Known:
    """The recent times by test: as stored in the history, and as reported."""

    kept: dict[str, str] = field(default_factory=dict)
    reported: dict[str, deque[float]] = field(default_factory=dict)

    def learn(self, tests: tuple[TestRun, ...]) -> None:
        """Take in the times of a finished build; failures in an incident tell nothing, as everywhere."""
        for run in informative_runs(tests):
            if run.seconds >= 0:
                self.kept[run.test] = with_time(self.kept.get(run.test, ""), run.seconds)
                self.reported.setdefault(run.test, deque(maxlen=WINDOW)).append(run.seconds)


def predict_test_times(builds: Iterable[FinishedBuild]) -> Iterator[TimedRun]:
    """Yield the timed runs of chronological builds but the first 10, of tests with three known times.

    Known are the builds that had finished when a build started; skipped runs and times of 0 are not scored. Memory
    grows with the tests, 20 times each, and the builds that overlap, not with the number of builds.
    """
    known = _Known()
    running: list[tuple[float, int, tuple[TestRun, ...]]] = []
    for build_index, build in enumerate(builds):
        while running and running[0][0] <= build.situation.started_at:
            known.learn(heappop(running)[2])
        if build_index >= FIRST_BUILDS:
            yield from _timed_runs(known, build_index, build.reports.tests)
        heappush(running, (build.finished_at, build_index, build.reports.tests))


def _timed_runs(known: _Known, build_index: int, tests: tuple[TestRun, ...]) -> Iterator[TimedRun]:
    for run in tests:
        times = known.reported.get(run.test, ())
        if run.outcome == Outcome.SKIPPED or not run.seconds > 0 or len(times) < FEWEST_TIMES:
            continue
        expected = expected_seconds(read_times(known.kept[run.test]))
        if not isinstance(expected, Unavailable):
            yield TimedRun(run.test, build_index, run.seconds, expected, median(tuple(times)))


KNOWN_RUNS, KNOWN_FAILURES = "known-runs", "known-failures"  # facts beside the simple predictors, none themselves


def _chances(stats: TestStats, sums: Sequence[int]) -> Mapping[str, float]:
    runs, flips, failures = sums
    return {
        "flip-rate": stats.flips / max(stats.runs, 1),
        "classmates": (flips - stats.flips) / max(runs - stats.runs, 1),
        "last-verdict": float(stats.last_flip == stats.last_failure != NEVER),
        "class-rate": failures / max(runs, 1),
        KNOWN_RUNS: float(stats.runs),
        KNOWN_FAILURES: float(stats.failures),
    }


def chances_of_flaking(table: TestTable, tests: Sequence[str]) -> Sequence[Mapping[str, float]]:
    """Return chances by name for each of the tests, which must be in the table.

    `flip-rate` of the test; `classmates`: flips of the others in its class; `last-verdict`: whether its newest failure
    was a flip; `class-rate`: failures in its class, itself included.
    """
    classes: dict[str, list[int]] = {}
    for test, stats in table.items():
        sums = classes.setdefault(group_of(test), [0, 0, 0])
        sums[:] = sums[0] + stats.runs, sums[1] + stats.flips, sums[2] + stats.failures
    return [_chances(table[test], classes[group_of(test)]) for test in tests]
