"""Rows without a history, from tests that were rerun thousands of times on one version."""

from collections.abc import Iterator, Sequence
from math import isnan, log

from fedstep.features.flaky import flaky_values
from fedstep.features.schema import schema
from fedstep.features.words import sub_words
from fedstep.history.entry import Row
from fedstep.history.tests import TestTable, with_tests
from fedstep.simulate.cases import Case, Known, Step
from fedstep.simulate.tables import RerunTest

__all__ = ["fair_weights", "rerun_steps"]

PROJECT, FLAKY_SHARE, ENOUGH, MOST = 1000.0, 0.05, 10, 5.0  # a plateau: half or twice as much changes little


def rerun_steps(tests: Sequence[RerunTest]) -> Iterator[Step]:
    """Two steps: a case for each test, then what it turned out to be, which is whether it ever flipped in its reruns.

    The chance that it flips within the head's horizon would be the exact label; with it words are ranked worse (mean
    AUC 0.69 against 0.75 on left-out projects), for half of all flaky tests fail less than once in a hundred runs.
    """
    table = _timed(with_tests(TestTable(), [test.test for test in tests]), tests)
    encode = schema().heads["flaky"].encode
    rows = [Row(test.test, 0, *encode(values), ()) for test, values in zip(tests, flaky_values(table), strict=True)]
    truths, weights = [float(test.flaky) for test in tests], fair_weights([test.flaky for test in tests])
    guesses = [{"flip-rate": 0.0, "seconds": 0.0 if isnan(test.seconds) else test.seconds} for test in tests]
    yield Step(
        0,
        (),
        tuple(Case(key, "", row, truths[key], guesses[key]) for key, row in enumerate(rows)),
    )
    yield Step(1, tuple(map(Known, range(len(truths)), truths, weights)), ())


def fair_weights(flaky: Sequence[bool]) -> list[float]:
    """What each test of one project counts, so that neither large projects nor those with many flaky tests rule.

    All tests count PROJECT together, the flaky ones FLAKY_SHARE of it; none counts more than MOST. A project with few
    flaky tests counts less: it has little to say.

    >>> fair_weights([True, False])
    [5.0, 5.0]
    """
    positives = sum(flaky)
    total = PROJECT * min(1.0, positives / ENOUGH)
    of_flaky = min(MOST, total * FLAKY_SHARE / max(1, positives))
    of_steady = min(MOST, total * (1.0 - FLAKY_SHARE) / max(1, len(flaky) - positives))
    return [of_flaky if one else of_steady for one in flaky]


def _timed(table: TestTable, tests: Sequence[RerunTest]) -> TestTable:
    """The table with each test's time and the words of its source, still without a run."""
    listed = schema().words("source").listed
    for number, test in enumerate(tests):
        if not isnan(test.seconds):
            table.log_seconds[number] = log(max(test.seconds, 0.001))
        table.source_words[number] = listed(sub_words(test.identifiers))
    return table
