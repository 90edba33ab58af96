"""The features of tests: their past, their class-mates, their time and their words.

Values are rounded to three significant digits: a scorer then meets few distinct ones, and no row is a fingerprint.
"""

from collections import Counter
from collections.abc import Sequence
from math import exp

from fedstep.features.parts import Value
from fedstep.history.tests import FAST, MIDDLE, NEVER, SLOW, SLOWEST, UNTIMED, TestTable, decayed_rate

__all__ = ["flaky_values", "group_of", "history_values", "typical_seconds"]

ACTIVE_BUILDS = 20  # a test that did not run in the last so many builds is not predicted


def group_of(test: str) -> str:
    """The class, module or suite of a test id `class#name`.

    >>> group_of("org.foo.BarTest#works")
    'org.foo.BarTest'
    """
    return test.partition("#")[0]


def typical_seconds(table: TestTable, number: int) -> float | None:
    """The decayed geometric mean of the test's time in seconds, None where no report gave one."""
    return None if table.log_seconds[number] == UNTIMED else exp(table.log_seconds[number])


def flaky_values(table: TestTable) -> list[tuple[Value, ...]]:
    """For each test of the table the raw values of the flaky head's parts, in their order."""
    history = history_values(table)
    seconds = [None if value == UNTIMED else rounded(exp(value)) for value in table.log_seconds]
    variation = [
        round(value, 1) if runs > 1 else None for value, runs in zip(table.log_spread, table.runs, strict=True)
    ]
    sizes = [None if words is None else len(words) for words in table.source_words]
    sources = [None if words is None else tuple(words) for words in table.source_words]
    columns = zip(history, seconds, variation, sizes, map(tuple, table.name_words), sources, strict=True)
    return [(1.0, *past, *others) for past, *others in columns]


def history_values(table: TestTable) -> list[tuple[Value, ...]]:
    """For each test the raw values of the parts that the flaky and the triage head share, in their order."""
    rates = [
        _rates(sums, table.runs, pace)
        for sums, pace in (
            (table.failed_5, FAST),
            (table.failed_50, SLOW),
            (table.flipped_20, MIDDLE),
            (table.flipped_100, SLOWEST),
            (table.gold_100, SLOWEST),
        )
    ]
    groups = [group_of(test) for test in table.ids]
    since_failure = _since(table.last_failure, table.runs)
    since_flip = _since(table.last_flip, table.runs)
    project = rounded(sum(rates[3]) / len(rates[3])) if rates[3] else 0.0
    return list(
        zip(
            table.runs,
            *([rounded(rate) for rate in column] for column in rates),
            since_failure,
            since_flip,
            _classmates(groups, rates[3]),
            _classmates(groups, rates[1]),
            [project] * len(groups),
            strict=True,
        )
    )


def rounded(value: float) -> float:
    """The value to three significant digits.

    >>> rounded(0.0123456)
    0.0123
    """
    return float(f"{value:.3g}") if value else 0.0


def _rates(sums: Sequence[float], runs: Sequence[int], pace: float) -> list[float]:
    return [decayed_rate(total, count, pace) if total else 0.0 for total, count in zip(sums, runs, strict=True)]


def _since(last: Sequence[int], runs: Sequence[int]) -> list[Value]:
    return [None if run == NEVER else count - run for run, count in zip(last, runs, strict=True)]


def _classmates(groups: Sequence[str], rates: Sequence[float]) -> list[Value]:
    """The mean rate of the other tests of each test's group; None for a test that is alone in it."""
    sizes, totals = Counter(groups), dict.fromkeys(groups, 0.0)
    for name, rate in zip(groups, rates, strict=True):
        totals[name] += rate
    return [
        None if sizes[name] == 1 else _mean_of_others(totals[name] - rate, sizes[name] - 1) if totals[name] else 0.0
        for name, rate in zip(groups, rates, strict=True)
    ]


def _mean_of_others(rest: float, others: int) -> float:
    return rounded(rest / others) if rest > 1e-9 else 0.0
