"""What is known of each test: a table of columns."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from math import exp, log

from fedstep.schema.encoders import sub_words
from fedstep.schema.schema import schema

NEVER = -1  # a run number: it has not happened
UNTIMED = -99.0  # a log time: no report gave one
RECENT = 20  # outcomes kept as letters


@dataclass(frozen=True, slots=True)
class TestTable:
    """One row a test, all columns of equal length. Run numbers count the runs of that test, from 0."""

    __test__ = False  # pytest: a value, not a test class

    ids: list[str] = field(default_factory=list)
    former: list[str] = field(default_factory=list)  # the id before a rename, "" without one
    runs: list[int] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)  # letters of Outcome, oldest first, skips left out
    failures: list[int] = field(default_factory=list)
    flips: list[int] = field(default_factory=list)
    failed_5: list[float] = field(default_factory=list)  # decayed sums, a horizon of 5 runs
    failed_50: list[float] = field(default_factory=list)
    flipped_20: list[float] = field(default_factory=list)
    flipped_100: list[float] = field(default_factory=list)
    gold_100: list[float] = field(default_factory=list)
    spells_100: list[float] = field(default_factory=list)
    last_failure: list[int] = field(default_factory=list)
    last_flip: list[int] = field(default_factory=list)
    revealed: list[str] = field(default_factory=list)  # "-", "s" or "g" beside each letter of `recent`
    streak: list[int] = field(default_factory=list)  # failures in a row
    open: list[int] = field(default_factory=list)
    failed_in: list[str] = field(
        default_factory=list
    )  # the stream of the newest failure in the streak: only it can pass
    change: list[float] = field(default_factory=list)  # evidence of the change with which the spell began
    companions: list[float] = field(default_factory=list)  # evidence of what began to fail with it
    log_seconds: list[float] = field(default_factory=list)  # decayed mean of log(seconds)
    log_spread: list[float] = field(default_factory=list)  # decayed mean of |log(seconds) - mean|
    times: list[str] = field(default_factory=list)  # the last 20, oldest first, as `read_times` reads them
    seen: list[int] = field(default_factory=list)  # number of the last build, of the whole project, that ran it
    name_words: list[list[int]] = field(default_factory=list)  # coordinates of Words("name"), ascending
    source_words: list[list[int] | None] = field(default_factory=list)  # None: source not found

    def copy(self) -> "TestTable":
        """A table with columns of its own."""
        return TestTable(*(list(getattr(self, name)) for name in _COLUMNS))


_COLUMNS = tuple(column.name for column in fields(TestTable))


def decayed_rate(total: float, runs: int, pace: float) -> float:
    """The decayed sum over its largest possible value: a weighted mean in [0, 1], 0 without runs."""
    return min(1.0, total / capacity(runs, pace)) if runs else 0.0


def numbers(table: TestTable) -> dict[str, int]:
    """The row of each test, by its id and by the one it had before."""
    return {former: number for number, former in enumerate(table.former) if former} | {
        test: number for number, test in enumerate(table.ids)
    }


def former_ids(table: TestTable) -> dict[str, str]:
    """The id of each renamed test by the one it had before, unless that is another test now."""
    known = set(table.ids)
    return {
        former: test for test, former in zip(table.ids, table.former, strict=True) if former and former not in known
    }


def with_tests(table: TestTable, tests: Iterable[str]) -> TestTable:
    """The table with a blank row for each of `tests` that it does not know."""
    after = table.copy()
    known = numbers(table)
    for test in dict.fromkeys(tests):
        if test not in known:
            add_test(after, test)
    return after


def add_test(table: TestTable, test: str) -> int:
    """Give the table, which is being made, a blank row for a test; the number of the row."""
    texts: dict[str, object] = {"ids": test, "former": "", "recent": "", "revealed": "", "failed_in": "", "times": ""}
    blank = {**texts, "last_failure": NEVER, "last_flip": NEVER, "log_seconds": UNTIMED, "source_words": None}
    blank["name_words"] = name_words(test)
    for name in _COLUMNS:
        getattr(table, name).append(blank.get(name, 0))
    return len(table.ids) - 1


def name_words(test: str) -> list[int]:
    """The coordinates, within the task's name words, of the listed words in a test's class or file and name.

    Words of its package tell a project from others rather than a test: without them unknown projects are ranked better.
    """
    group, _, name = test.partition("#")
    simple = group.rpartition("/" if "/" in group else ".")[2]
    return schema().words("name").listed(sub_words((simple, name)))


WINDOW = 20  # times kept; an older one weighs less than a tenth of the newest
SHORTEST = 0.001  # seconds; reports round to milliseconds, so shorter times count as one
STEPS = 400  # of the logarithm, each a quarter of a percent: from 1 ms to eleven days
# What JSON writes as it is.
_LETTERS = "".join(chr(code) for code in range(ord("#"), ord("~") + 1) if chr(code) != "\\")
_NUMBER = {letter: number for number, letter in enumerate(_LETTERS)}
_MOST_STEPS = len(_LETTERS) ** 2 - 1
_LONGEST = SHORTEST * exp(_MOST_STEPS / STEPS)


def with_time(times: str, seconds: float) -> str:
    """The text after one more time, in seconds, which is not NaN; the oldest of more than WINDOW is forgotten."""
    steps = round(log(min(max(seconds, SHORTEST), _LONGEST) / SHORTEST) * STEPS)
    high, low = divmod(steps, len(_LETTERS))
    return (times + _LETTERS[high] + _LETTERS[low])[-2 * WINDOW :]


def read_times(times: str) -> tuple[float, ...]:
    """The times in seconds, oldest first, exact to an eighth of a percent.

    >>> [round(seconds, 2) for seconds in read_times(with_time(with_time("", 0.25), 60.0))]
    [0.25, 60.02]
    """
    return tuple(_seconds(times[place : place + 2]) for place in range(0, len(times), 2))


@cache
def _seconds(pair: str) -> float:
    steps = _NUMBER[pair[0]] * len(_LETTERS) + _NUMBER[pair[1]]
    return SHORTEST * exp(steps / STEPS)


@lru_cache(maxsize=4096)
def capacity(runs: int, pace: float) -> float:
    """The largest possible decayed sum after so many runs."""
    return (1.0 - (1.0 - pace) ** min(runs, 2000)) / pace
