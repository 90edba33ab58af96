"""The features of tests: their past, their class-mates, their time and their words.

Values are rounded to three significant digits: then few are distinct, and no row is a fingerprint.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp

from fedstep.build.relation import group_of
from fedstep.features.parts import Value
from fedstep.history.tests import FAST, MIDDLE, NEVER, SLOW, SLOWEST, UNTIMED, TestTable, decayed_rate

__all__ = ["flaky_columns", "flaky_values", "group_of", "history_values", "typical_seconds"]

ACTIVE_BUILDS = 20  # a test that did not run in the last so many builds is not predicted


def typical_seconds(table: TestTable, number: int) -> float | None:
    """The decayed geometric mean of the test's time in seconds, None where no report gave one."""
    return None if table.log_seconds[number] == UNTIMED else exp(table.log_seconds[number])


def flaky_values(table: TestTable) -> list[tuple[Value, ...]]:
    """For each test of the table the raw values of the flaky head's parts, in their order."""
    return list(zip(*flaky_columns(table), strict=True))


def flaky_columns(table: TestTable) -> tuple[Sequence[Value], ...]:
    """The raw values of each of the flaky head's parts, in their order, for all tests of the table."""
    spreads = zip(table.log_spread, table.runs, strict=True)
    return (
        [1.0] * len(table.ids),
        *_history_columns(table),
        _time_ranks(table.log_seconds),
        [round(value, 1) if runs > 1 else None for value, runs in spreads],
        [None if words is None else len(words) for words in table.source_words],
        table.name_words,
        table.source_words,
    )


def history_values(table: TestTable) -> list[tuple[Value, ...]]:
    """For each test the raw values of the parts that the flaky and the triage head share, in their order."""
    return list(zip(*_history_columns(table), strict=True))


def _history_columns(table: TestTable) -> tuple[Sequence[Value], ...]:
    failed_50, flipped_100 = _rates(table.failed_50, table.runs, SLOW), _rates(table.flipped_100, table.runs, SLOWEST)
    groups = [group_of(test) for test in table.ids]
    project = rounded(sum(flipped_100) / len(groups)) if groups else 0.0
    return (
        table.runs,
        _rounded(_rates(table.failed_5, table.runs, FAST)),
        _rounded(failed_50),
        _rounded(_rates(table.flipped_20, table.runs, MIDDLE)),
        _rounded(flipped_100),
        _rounded(_rates(table.gold_100, table.runs, SLOWEST)),
        _since(table.last_failure, table.runs),
        _since(table.last_flip, table.runs),
        _classmates(groups, flipped_100),
        _classmates(groups, failed_50),
        [project] * len(groups),
    )


def _time_ranks(log_seconds: Sequence[float]) -> list[Value]:
    """Where each time lies among the project's: -1 for the shortest to 1, in hundredths; None without a time.

    Equal times, to a hundredth of the logarithm, share the middle of their places.
    """
    hundredths = [round(value, 2) for value in log_seconds]
    counts = Counter(value for value in hundredths if value > UNTIMED)
    ranks: dict[float, Value] = {UNTIMED: None}
    below, total = 0, counts.total()
    for value in sorted(counts):
        ranks[value] = round((2 * below + counts[value]) / total - 1.0, 2)
        below += counts[value]
    return list(map(ranks.__getitem__, hundredths))


def _rounded(values: Sequence[float]) -> list[float]:
    return [rounded(value) if value else 0.0 for value in values]


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
    sizes: Mapping[str, int] = Counter(groups)
    totals: dict[str, float] = {}
    for name, rate in zip(groups, rates, strict=True):
        if rate:
            totals[name] = totals.get(name, 0.0) + rate
    quiet: dict[str, Value] = {name: None if size == 1 else 0.0 for name, size in sizes.items()}
    return [
        _mean_of_others(totals[name] - rate, sizes[name] - 1) if name in totals and sizes[name] > 1 else quiet[name]
        for name, rate in zip(groups, rates, strict=True)
    ]


def _mean_of_others(rest: float, others: int) -> float:
    return rounded(rest / others) if rest > 1e-9 else 0.0
