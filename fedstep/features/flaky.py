"""The features of tests: their past, their class-mates, their time and their words.

Values are rounded to three significant digits: then few are distinct, and no row is a fingerprint.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp

from fedstep.history.flakiness import FAST, MIDDLE, SLOW, SLOWEST
from fedstep.history.test_table import NEVER, UNTIMED, TestTable, decayed_rate
from fedstep.ingest.change_impact import group_of
from fedstep.schema.encoders import Columns, Raw, Value

ACTIVE_BUILDS = 20  # a test that did not run in the last so many builds is not predicted


def typical_seconds(table: TestTable, number: int) -> float | None:
    """The decayed geometric mean of the test's time in seconds, None where no report gave one."""
    return None if table.log_seconds[number] == UNTIMED else exp(table.log_seconds[number])


def flaky_values(table: TestTable) -> list[Raw]:
    """Return, for each test of the table, the raw values of the flaky task by part name."""
    columns = flaky_columns(table)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def row_of(columns: Columns, number: int) -> Raw:
    """Return the raw values by part name of the test in row `number`."""
    return {name: column[number] for name, column in columns.items()}


def flaky_columns(table: TestTable) -> Columns:
    """Return the raw values of the flaky task by part name, each for all tests of the table."""
    spreads = zip(table.log_spread, table.runs, strict=True)
    return {
        "bias": [1.0] * len(table.ids),
        **history_columns(table),
        "time-rank": _time_ranks(table.log_seconds),
        "seconds-variation": [round(value, 1) if runs > 1 else None for value, runs in spreads],
        "source-words": [None if words is None else len(words) for words in table.source_words],
        "name": table.name_words,
        "source": table.source_words,
    }


def history_columns(table: TestTable) -> Columns:
    """Return the raw values of the parts that the flaky and the triage head share, each for all tests of the table."""
    failed_50, flipped_100 = _rates(table.failed_50, table.runs, SLOW), _rates(table.flipped_100, table.runs, SLOWEST)
    groups = [group_of(test) for test in table.ids]
    project = rounded(sum(flipped_100) / len(groups)) if groups else 0.0
    return {
        "runs": table.runs,
        "failure-rate-5": _rounded(_rates(table.failed_5, table.runs, FAST)),
        "failure-rate-50": _rounded(failed_50),
        "flip-rate-20": _rounded(_rates(table.flipped_20, table.runs, MIDDLE)),
        "flip-rate-100": _rounded(flipped_100),
        "gold-rate-100": _rounded(_rates(table.gold_100, table.runs, SLOWEST)),
        "runs-since-failure": _since(table.last_failure, table.runs),
        "runs-since-flip": _since(table.last_flip, table.runs),
        "classmates-flip-rate": _classmates(groups, flipped_100),
        "classmates-failure-rate": _classmates(groups, failed_50),
        "project-flip-rate": [project] * len(groups),
    }


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
