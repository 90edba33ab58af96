"""Replay the order of tests: how early a build's real failures are seen when likely failures run first."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from fedstep.features.test_duration import expected_test_seconds
from fedstep.features.test_failure import (
    always_run,
    began_to_fail,
    cofailure_rates,
    failure_scores,
    order_tests,
    path_overlap,
    priority,
    source_overlap,
)
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record, stream_name
from fedstep.history.test_table import TestStats, index_tests, with_tests
from fedstep.history.word_index import NO_WORDS, WordIndex, index_words
from fedstep.pipeline.selection import Choice, NamedTest, rank_tests, select_tests
from fedstep.types import Build, BuildContext, Change, FinishedBuild, Outcome

FIRST_ORDERED = 3  # builds of a project before the first scored one
COLD_UNTIL = 20  # builds of a project in which little is known of it

Kinds = Mapping[tuple[str, str], bool]  # by build and test, whether a failure was a flake
SourceWordsOf = Callable[[str], Mapping[str, tuple[str, ...]]]


class OrderedTest(NamedTuple):
    """One test of a build with real failures: what it was ordered by, and whether it really failed.

    `others` are its scores in simple orders, its predicted seconds (`seconds`), and whether it never failed before
    (`unfailed`), begins to fail here (`began`) and is in every selection (`always`).
    """

    build: int  # its number in the project, from 0
    score: float
    failed: bool
    others: Mapping[str, float]


def order_recorded_tests(
    builds: Iterable[FinishedBuild], kinds: Kinds | None, sources: SourceWordsOf | None = None
) -> Iterator[OrderedTest]:
    """Yield the tests of each build with real failures, given in the order of starts, but those of the first three.

    Known are the builds that had ended when a build started. Where `kinds` is None every failure counts as real.
    `sources` returns, by its number of the CI run, the words of the tests that are new or changed in a build.
    """
    words: dict[str, tuple[str, ...]] = {}
    for build_index, summary, build, bad in replay_histories(builds, kinds):
        words |= sources(build.situation.ci.run) if sources else {}
        if bad and build_index >= FIRST_ORDERED:
            own = {run.test: words.get(run.test.partition("[")[0], ()) for run in build.reports.tests}
            yield from _order_build(summary, build, bad, build_index, index_words(own) if words else NO_WORDS)


class SelectedBuild(NamedTuple):
    """One build of which a part would have run."""

    build_index: int  # in the project, from 0
    saved_seconds: float  # that the tests left out took
    failed: tuple[str, ...]  # tests that really failed, in the order of their names
    caught: bool  # whether one of them would have run


def select_recorded_tests(
    builds: Iterable[FinishedBuild], kinds: Kinds | None, share: float
) -> Iterator[SelectedBuild]:
    """Yield each build but the first three as `fedstep select --share` would have run it, without exploration."""
    for build_index, summary, build, bad in replay_histories(builds, kinds):
        if build_index < FIRST_ORDERED:
            continue
        runs = {run.test: run for run in build.reports.tests if run.outcome != Outcome.SKIPPED}
        named = [NamedTest(test, test, (test,) if test in summary.tests else ()) for test in runs]
        ranked = rank_tests(summary, named, build.situation.change)
        selection = select_tests(ranked, Choice(share=share), (), 0.0, Random(build_index))
        left_out = [runs[test.named.name] for test in selection.skipped]
        caught = not bad.isdisjoint(test.named.name for test in selection.chosen)
        saved = sum(run.seconds for run in left_out if run.seconds > 0)
        yield SelectedBuild(build_index, saved, tuple(sorted(bad)), caught)


def replay_histories(
    builds: Iterable[FinishedBuild], kinds: Kinds | None
) -> Iterator[tuple[int, Summary, Build, frozenset[str]]]:
    """Yield number, history before it, and real failures of each build."""
    summary = Summary()
    running: list[tuple[float, int, Build]] = []
    for build_index, finished in enumerate(builds):
        while running and running[0][0] <= finished.situation.started_at:
            done = heappop(running)[2]
            summary = apply_record(summary, done.name, make_record(done, stream_name(done.situation.ci, ""), ""))
        build = Build(f"{build_index:032x}", _own_commit(finished, kinds), finished.finished_at, *finished[2:])
        yield build_index, summary, build, _real_failures(build, kinds)
        heappush(running, (build.finished_at, build_index, build))


def _own_commit(finished: FinishedBuild, kinds: Kinds | None) -> BuildContext:
    """Return the context of the build, without the commit where a fix was reverted on top of it.

    The corpora of regressions name the commit below: on one commit a failure after a pass would be a flake.
    """
    situation, change = finished.situation, finished.situation.change
    tests = [run.test for run in finished.reports.tests] if kinds else []
    reverted = any((kinds or {}).get((situation.ci.run, test)) is False for test in tests)
    if not reverted or not isinstance(change, Change):
        return situation
    return situation._replace(change=change._replace(commit="", tree=""), ci=situation.ci._replace(commit=""))


def _real_failures(build: Build, kinds: Kinds | None) -> frozenset[str]:
    failed = (run.test for run in build.reports.tests if run.outcome in "fc")
    if kinds is None:
        return frozenset(failed)
    return frozenset(test for test in failed if kinds.get((build.situation.ci.run, test)) is False)


def _order_build(
    summary: Summary, build: Build, bad: frozenset[str], build_index: int, index: WordIndex
) -> Iterator[OrderedTest]:
    runs = [run for run in build.reports.tests if run.outcome != Outcome.SKIPPED]
    by_id, change = index_tests(with_tests(summary.tests, (run.test for run in runs))), build.situation.change
    tests = {by_id[run.test].test: by_id[run.test] for run in runs}
    files = change.files if isinstance(change, Change) else None
    seconds = dict(order_tests(summary, tests, files))
    scores = failure_scores(summary.cofailures, tests, files, source_overlap(index, change))
    near, together = path_overlap(tests, files or ()), cofailure_rates(summary.cofailures, files or ())
    began, always = set(began_to_fail(summary, build, bad)), always_run(tests.values(), files)
    draw = Random(build_index)
    for position, run in enumerate(runs):
        stats = by_id[run.test]
        expected = expected_test_seconds(stats)
        time = expected if isinstance(expected, float) else seconds[stats.test]
        yield OrderedTest(
            build_index,
            priority(scores[stats.test], seconds[stats.test]),
            run.test in bad,
            {
                "seconds": time,
                "unfailed": float(not stats.failures),
                "began": float(stats.test in began),
                "always": float(stats.test in always),
                "random": draw.random(),
                "report": float(-position),
                **_simple_orders(stats, near[stats.test], together.get(stats.test, 0.0), seconds[stats.test]),
            },
        )


def _simple_orders(stats: TestStats, path: float, together: float, seconds: float) -> Mapping[str, float]:
    """Return the scores of simple orders by name; among equals the fastest runs first."""
    recent = 1.0 / (stats.runs - stats.last_failure) if stats.last_failure >= 0 else 0.0
    quick = -1e-6 * seconds
    return {
        "fastest": -seconds,
        "recent-failure": recent + quick,
        "path": path + quick,
        "co-failure": together + quick,
        "path+co+recent": path + 2.0 * together + recent + quick,
    }
