"""Order the tests of a build, or choose some of them, by their chance to show a failure and their time.

How much must run follows from the project's own past builds: for each one in which tests began to fail it is recorded
which share of the test time would have shown the first of them. A share that would have shown enough of these failures
keeps its promise for the next one as well, whatever their distribution is, as long as it does not change
(Angelopoulos et al., "Conformal risk control", 2024).
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, compress
from math import exp, floor, log
from random import Random
from typing import NamedTuple

from fedstep.errors import UsageError
from fedstep.features.test_duration import usual_test_seconds
from fedstep.features.test_failure import NEW, always_run, failure_scores, priority, source_overlap, usual_seconds
from fedstep.features.test_features import ACTIVE_BUILDS
from fedstep.history.summary import Summary
from fedstep.history.test_table import SHORTEST, TestTable, with_tests
from fedstep.history.word_index import NO_WORDS, WordIndex
from fedstep.ingest.change_impact import file_of, group_of, is_stand_in, split_node
from fedstep.types import Change, Unavailable

ROUNDING = 1e-9  # sums of the same times in another order differ by less
FEWEST_RED_BUILDS = 20  # known failing builds before a confidence is promised


class NamedTest(NamedTuple):
    """One line of a list of tests: a test, or a class, module or file with all its tests."""

    name: str  # as it was given
    identity: str  # as the history writes it: `class#name`, or the class, module or file alone
    tests: tuple[str, ...] = ()  # the known tests that it stands for


class RankedTest(NamedTuple):
    """A named test with its predictions."""

    named: NamedTest
    score: float  # the logarithm of its chance to show a failure, up to a constant of the build
    seconds: float
    always: str = ""  # why a selection always contains it; "" if it need not


class Choice(NamedTuple):
    """How much to run: exactly one is set."""

    seconds: float | None = None
    share: float | None = None  # of the test time
    confidence: float | None = None  # of the failing builds that still show a failure


class Selection(NamedTuple):
    """The tests to run, in their order, and what is known of the others."""

    chosen: tuple[RankedTest, ...]
    skipped: tuple[RankedTest, ...]
    reason: str = ""  # why all run, "" where the choice was followed
    red_builds: int = 0  # past builds that a selection of this size is judged by
    caught: int = 0  # those in which it would have shown a failure
    share: float = 1.0  # of the test time that runs, in [0, 1]
    saved_seconds: float = 0.0  # the predicted time of the tests that do not run


def rank_tests(
    summary: Summary, named: Sequence[NamedTest], change: Change | Unavailable, index: WordIndex = NO_WORDS
) -> tuple[RankedTest, ...]:
    """Return the tests, those first that show most failures per second; equal ones stay as they were given.

    Args:
        summary: The history.
        named: The tests.
        change: The change. Where it is not known, only how lately and how often a test failed counts.
        index: The words of the tests' own source.
    """
    files = change.files if isinstance(change, Change) else None
    unknown = [named_test.identity for named_test in named if not named_test.tests]
    tests = with_tests(summary.tests, unknown) if unknown else summary.tests
    scores = failure_scores(summary.cofailures, tests, files, source_overlap(index, change))
    times = [_seconds_of(named_test, summary.tests) for named_test in named]
    known_times = [time for time in times if isinstance(time, float)]
    usual = usual_seconds(known_times) if len(known_times) < len(times) else SHORTEST  # not needed
    reasons = always_run(tests.values(), files)
    ranked = []
    for named_test, time in zip(named, times, strict=True):
        if len(named_test.tests) == 1:  # nearly all
            test = named_test.tests[0]
            score, always = scores[test], reasons.get(test, "")
        else:
            members = named_test.tests or (named_test.identity,)
            score = log(sum(exp(scores.get(test, 0.0)) for test in members))
            always = next(filter(None, (reasons.get(test, "") if test in tests else NEW for test in members)), "")
        ranked.append(RankedTest(named_test, score, time if isinstance(time, float) else usual, always))
    ranked.sort(key=lambda ranked_test: priority(ranked_test.score, ranked_test.seconds), reverse=True)
    return tuple(ranked)


def select_tests(
    ranked: Sequence[RankedTest], choice: Choice, first_failures: Sequence[float], explore: float, draw: Random
) -> Selection:
    """Return the tests to run.

    New and changed tests and those that failed lately are always among them, and of the others a share `explore`, drawn
    at random, so that it stays known how they do. Without enough past failing builds for a confidence, all run.

    Args:
        ranked: All tests, in their order.
        choice: How much to run.
        first_failures: For each past failing build the share of the test time that would have shown its first failure.
        explore: Share of the other tests that run nevertheless, in [0, 1].
        draw: Draws them.
    """
    seconds, runs = [test.seconds for test in ranked], [test.always != "" for test in ranked]
    total = sum(seconds)
    if choice.confidence is not None:
        share = promised_share(first_failures, choice.confidence)
        if isinstance(share, Unavailable):
            return Selection(tuple(ranked), (), share.reason)
        rows: Sequence[int] = _first_rows(seconds, share * total)
    else:
        budget = choice.seconds if choice.seconds is not None else (choice.share or 0.0) * total
        share = min(1.0, budget / total) if total else 1.0
        rows = _fitting_rows(seconds, runs, budget)
    for row in rows:
        runs[row] = True
    left_out = [row for row, is_run in enumerate(runs) if not is_run]
    for row in draw.sample(left_out, round(explore * len(left_out))):
        runs[row] = True
    if not any(runs) and runs:
        runs[0] = True  # of an empty list most runners run all tests
    skips = [not is_run for is_run in runs]
    saved = sum(compress(seconds, skips))
    return Selection(
        tuple(compress(ranked, runs)),
        tuple(compress(ranked, skips)),
        red_builds=len(first_failures),
        caught=sum(needed <= share for needed in first_failures) if any(skips) else len(first_failures),
        share=1.0 - saved / total if total else 1.0,
        saved_seconds=saved,
    )


def _first_rows(seconds: Sequence[float], limit: float) -> range:
    """Return the rows up to the one that reaches the time, as past builds were judged."""
    return range(min(len(seconds), bisect_left(list(accumulate(seconds)), limit) + 1))


def _fitting_rows(seconds: Sequence[float], always: Sequence[bool], limit: float) -> list[int]:
    """Return the rows of the first tests that fit into the time which those that always run leave."""
    rows, spent, most = [], sum(compress(seconds, always)), limit * (1.0 + ROUNDING)
    for row, time in enumerate(seconds):
        if not always[row] and spent + time <= most:
            rows.append(row)
            spent += time
    return rows


def promised_share(first_failures: Sequence[float], confidence: float) -> float | Unavailable:
    """Return the smallest share of the test time in which failing builds show a failure with this confidence.

    Of n past failing builds at most floor((1 - confidence) (n + 1) - 1) may have needed more.

    >>> promised_share([0.01] * 38 + [0.9], 0.95)
    0.01
    """
    known = sorted(first_failures)
    misses = floor((1.0 - confidence) * (len(known) + 1) - 1.0 + 1e-9)
    if len(known) < FEWEST_RED_BUILDS or misses < 0:
        needed = max(FEWEST_RED_BUILDS, round(1.0 / max(1.0 - confidence, 1e-6)) - 1)
        builds = "build with a new failure is" if len(known) == 1 else "builds with a new failure are"
        return Unavailable(f"{len(known)} {builds} known, {needed} are needed for this confidence")
    return known[len(known) - 1 - misses]


def read_names(lines: Iterable[str], tests: TestTable) -> tuple[NamedTest, ...]:
    """Return the named tests of a list, one per line, each once. Raise UsageError if the list is empty.

    A name is a test id, a node id of pytest, a file, a class or module, or a test's own name where only one has it.
    """
    names = dict.fromkeys(name for line in lines if (name := line.strip()))
    if not names:
        raise UsageError("the list of tests is empty", "Give one test per line; check what collected them")
    members = _index_members(tests)
    return tuple(NamedTest(name, *_identify(name, members)) for name in names)


def active_tests(summary: Summary) -> list[str]:
    """Return the tests that ran in one of the last 20 builds or were left out since they ran, in the table's order.

    What stands for a module that could not be loaded, or for a hook, is none: no test runner knows it by this name.
    """
    since, left_out = summary.count - ACTIVE_BUILDS, set(summary.selections.left_out)
    tests = (test for test, stats in summary.tests.items() if stats.last_build >= since or test in left_out)
    return [test for test in tests if not is_stand_in(test)]


def predict_seconds(named: Sequence[NamedTest], tests: TestTable) -> Mapping[str, float | Unavailable]:
    """Return the predicted seconds of each named test by its identity: the sum over the tests that it stands for."""
    return {named_test.identity: _seconds_of(named_test, tests) for named_test in named}


def _seconds_of(named_test: NamedTest, tests: TestTable) -> float | Unavailable:
    if len(named_test.tests) == 1:  # nearly all
        return usual_test_seconds(tests[named_test.tests[0]])
    times = [usual_test_seconds(tests[test]) for test in named_test.tests]
    known = [time for time in times if isinstance(time, float)]
    return sum(known) if known else Unavailable("the history knows no time of it")


def _index_members(tests: TestTable) -> Mapping[str, tuple[str, ...]]:
    """Return the known tests by everything that may name them: their id, class, file, and own name."""
    members: dict[str, list[str]] = {}
    for test in tests:
        group, _, name = test.partition("#")
        for key in dict.fromkeys((test, group, file_of(test), name)):
            members.setdefault(key, []).append(test)
    return {key: tuple(named) for key, named in members.items()}


def _identify(name: str, members: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    if name in members:
        named = members[name]
        is_own_name = all(group_of(test) != name and file_of(test) != name and test != name for test in named)
        if not is_own_name:
            return name, named
        return (named[0], named) if len(named) == 1 else (name, ())
    if "::" in name:
        identity = "#".join(split_node(name))
        if identity in members:
            return identity, members[identity]
        group = identity.replace("#", ".")  # a class: tests/test_cart.py::TestCart
        return (group, members[group]) if group in members else (identity, ())
    bare = name.removeprefix("./").removesuffix(".py")
    return (bare, members[bare]) if bare in members else (name, ())
