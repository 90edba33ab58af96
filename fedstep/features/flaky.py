"""Features of the flaky task: each test's past, its class-mates, its time and its words.

Values are rounded to three significant digits: then few are distinct, and no row is a fingerprint.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp

from fedstep.history.flakiness import FAST, MIDDLE, SLOW, SLOWEST
from fedstep.history.test_table import NEVER, UNTIMED, TestStats, TestTable, decayed_rate
from fedstep.ingest.change_impact import group_of
from fedstep.schema.encoders import Columns, Raw, Value

ACTIVE_BUILDS = 20  # a test that did not run in the last so many builds is not predicted


def typical_seconds(stats: TestStats) -> float | None:
    """Return the decayed geometric mean of the test's time in seconds, None where no report gave one."""
    return None if stats.log_seconds == UNTIMED else exp(stats.log_seconds)


def flaky_values(tests: TestTable) -> list[Raw]:
    """Return, for each test of the table, the raw values of the flaky task by part name."""
    columns = flaky_columns(tests)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def row_indices(tests: TestTable) -> dict[str, int]:
    """Return the row of each test in the columns, by its id and by the id before a rename."""
    former = {stats.former: row for row, stats in enumerate(tests.values()) if stats.former}
    return former | {test: row for row, test in enumerate(tests)}


def row_of(columns: Columns, row: int) -> Raw:
    """Return the raw values of one row by part name."""
    return {name: column[row] for name, column in columns.items()}


def flaky_columns(tests: TestTable) -> Columns:
    """Return the raw values of the flaky task by part name, each for all tests in the order of the table."""
    stats = list(tests.values())
    return {
        "bias": [1.0] * len(stats),
        **history_columns(tests),
        "time-rank": _time_ranks([one.log_seconds for one in stats]),
        "seconds-variation": [round(one.log_spread, 1) if one.runs > 1 else None for one in stats],
        "source-words": [None if one.source_words is None else len(one.source_words) for one in stats],
        "name": [one.name_words for one in stats],
        "source": [one.source_words for one in stats],
    }


def history_columns(tests: TestTable) -> Columns:
    """Return the raw values of the parts that the flaky and the triage task share, each for all tests of the table."""
    stats = tests.values()
    runs = [one.runs for one in stats]
    failed_50 = _rates([one.failed_50 for one in stats], runs, SLOW)
    flipped_100 = _rates([one.flipped_100 for one in stats], runs, SLOWEST)
    groups = [group_of(test) for test in tests]
    project = rounded(sum(flipped_100) / len(groups)) if groups else 0.0
    return {
        "runs": runs,
        "failure-rate-5": _rounded(_rates([one.failed_5 for one in stats], runs, FAST)),
        "failure-rate-50": _rounded(failed_50),
        "flip-rate-20": _rounded(_rates([one.flipped_20 for one in stats], runs, MIDDLE)),
        "flip-rate-100": _rounded(flipped_100),
        "gold-rate-100": _rounded(_rates([one.gold_100 for one in stats], runs, SLOWEST)),
        "runs-since-failure": _since([one.last_failure for one in stats], runs),
        "runs-since-flip": _since([one.last_flip for one in stats], runs),
        "classmates-flip-rate": _classmates(groups, flipped_100),
        "classmates-failure-rate": _classmates(groups, failed_50),
        "project-flip-rate": [project] * len(groups),
    }


def _time_ranks(log_seconds: Sequence[float]) -> list[Value]:
    """Return where each time lies among the project's: -1 for the shortest to 1, in hundredths; None without a time.

    Equal times, to a hundredth of the logarithm, share their middle rank.
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
    """Return the value to three significant digits.

    >>> rounded(0.0123456)
    0.0123
    """
    return float(f"{value:.3g}") if value else 0.0


def _rates(sums: Sequence[float], runs: Sequence[int], pace: float) -> list[float]:
    return [decayed_rate(total, count, pace) if total else 0.0 for total, count in zip(sums, runs, strict=True)]


def _since(last: Sequence[int], runs: Sequence[int]) -> list[Value]:
    return [None if run == NEVER else count - run for run, count in zip(last, runs, strict=True)]


def _classmates(groups: Sequence[str], rates: Sequence[float]) -> list[Value]:
    """Return the mean rate of the other tests of each test's group; None for a test that is alone in it."""
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
