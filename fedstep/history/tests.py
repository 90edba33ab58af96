"""What is known of each test: a table of columns, folded forward one build at a time.

Rates are exponentially decayed sums; `decayed_rate` turns them into rates. A flip is a failure judged flaky: gold when
one commit or one build shows both outcomes, silver when the test passed, failed once and passed again while nothing
related changed (Harry and O'Hearn, "From Start-ups to Scale-ups", SCAM 2018, on why flips are the evidence there is).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from math import isnan, log

from fedstep.build.record import Outcome, TestRun
from fedstep.build.relation import relation
from fedstep.features.schema import schema
from fedstep.features.words import sub_words
from fedstep.history.entry import Entry

__all__ = ["NEVER", "RECENT", "UNTIMED", "TestTable", "decayed_rate", "fold_tests", "is_incident", "name_words", "with_tests"]

NEVER = -1  # a run number: it has not happened
UNTIMED = -99.0  # a log time: no report gave one
RECENT = 20  # outcomes kept as letters
FAST, MIDDLE, SLOW, SLOWEST = 1 / 5, 1 / 20, 1 / 50, 1 / 100
RELATED = frozenset(("itself", "near", "build-file"))

# States of a test's open failure, which the next pass may turn into a silver flip.
CLOSED, OPEN, EXPLAINED = 0, 1, 2
# What one run reveals about flakiness.
NOTHING, SILVER, GOLD = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TestTable:
    """One row a test, all columns of equal length. Run numbers count the runs of that test, from 0."""

    __test__ = False  # pytest: a value, not a test class

    ids: list[str] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    recent: list[str] = field(default_factory=list)  # letters of Outcome, oldest first, skips left out
    failures: list[int] = field(default_factory=list)
    flips: list[int] = field(default_factory=list)
    failed_5: list[float] = field(default_factory=list)  # decayed sums, a horizon of 5 runs
    failed_50: list[float] = field(default_factory=list)
    flipped_20: list[float] = field(default_factory=list)
    flipped_100: list[float] = field(default_factory=list)
    gold_100: list[float] = field(default_factory=list)
    last_failure: list[int] = field(default_factory=list)
    last_flip: list[int] = field(default_factory=list)
    last_gold: list[int] = field(default_factory=list)
    streak: list[int] = field(default_factory=list)  # failures in a row
    open: list[int] = field(default_factory=list)
    log_seconds: list[float] = field(default_factory=list)  # decayed mean of log(seconds)
    log_spread: list[float] = field(default_factory=list)  # decayed mean of |log(seconds) - mean|
    seen: list[int] = field(default_factory=list)  # number of the last build, of the whole project, that ran it
    name_words: list[list[int]] = field(default_factory=list)  # coordinates of Words("name"), ascending
    source_words: list[list[int] | None] = field(default_factory=list)  # None: source not found

    def copy(self) -> "TestTable":
        """A table with columns of its own."""
        return TestTable(*(list(getattr(self, column.name)) for column in fields(self)))


def decayed_rate(total: float, runs: int, pace: float) -> float:
    """The decayed sum over its largest possible value: a weighted mean in [0, 1], 0 without runs."""
    return min(1.0, total / _capacity(runs, pace)) if runs else 0.0


@lru_cache(maxsize=4096)
def _capacity(runs: int, pace: float) -> float:
    return (1.0 - (1.0 - pace) ** min(runs, 2000)) / pace


def is_incident(tests: Sequence[TestRun]) -> bool:
    """Whether so many tests failed at once (10 or more, and three in ten) that no failure says much about its test."""
    ran = sum(run.outcome != Outcome.SKIPPED for run in tests)
    failed = sum(run.outcome in "fc" for run in tests)
    return failed >= 10 and failed >= 0.3 * ran


def fold_tests(table: TestTable, entry: Entry, previous_commit: str, build_number: int) -> TestTable:
    """The table after one more build. `previous_commit` is that of the build before in the same stream.

    In an incident failures are left out: they are no evidence about the tests.
    """
    after = table.copy()
    rows = {test: number for number, test in enumerate(after.ids)}
    incident = is_incident(entry.tests)
    same_commit = bool(entry.commit) and entry.commit == previous_commit
    for run in entry.tests:
        if run.outcome == Outcome.SKIPPED or (incident and run.outcome in "fc"):
            continue
        number = rows.get(run.test)
        if number is None:
            number = rows[run.test] = _add_test(after, run.test)
        _fold_run(after, number, run, entry, same_commit)
        after.seen[number] = build_number
    _set_source_words(after, rows, entry)
    return after


def with_tests(table: TestTable, tests: Iterable[str]) -> TestTable:
    """The table with a blank row for each of `tests` that it does not know."""
    after = table.copy()
    known = set(table.ids)
    for test in dict.fromkeys(tests):
        if test not in known:
            _add_test(after, test)
    return after


def _add_test(table: TestTable, test: str) -> int:
    blank: dict[str, object] = {"ids": test, "recent": "", "name_words": name_words(test), "source_words": None}
    never = dict.fromkeys(("last_failure", "last_flip", "last_gold"), NEVER)
    for column in fields(table):
        getattr(table, column.name).append({**blank, **never}.get(column.name, 0))
    table.log_seconds[-1] = UNTIMED
    return len(table.ids) - 1


def name_words(test: str) -> list[int]:
    """The coordinates, within the head's name words, of the listed words in a test's class and name."""
    group, _, name = test.partition("#")
    simple = group.replace("/", ".").rsplit(".", 2)[-2:]
    return schema().words("name").listed(sub_words((*simple, name)))


def _set_source_words(table: TestTable, rows: dict[str, int], entry: Entry) -> None:
    for test, words in entry.source_words.items():
        if test in rows:
            table.source_words[rows[test]] = schema().words("source").listed(words)


def _fold_run(table: TestTable, number: int, run: TestRun, entry: Entry, same_commit: bool) -> None:
    revealed = _judge(table, number, run, entry, same_commit)
    failed, flipped, gold = run.outcome in "fck", revealed != NOTHING, revealed == GOLD
    for column, pace, hit in (
        (table.failed_5, FAST, failed),
        (table.failed_50, SLOW, failed),
        (table.flipped_20, MIDDLE, flipped),
        (table.flipped_100, SLOWEST, flipped),
        (table.gold_100, SLOWEST, gold),
    ):
        if hit or column[number]:
            column[number] = round(column[number] * (1.0 - pace) + hit, 6)
    table.failures[number] += failed
    table.flips[number] += flipped
    table.recent[number] = (table.recent[number] + run.outcome)[-RECENT:]
    table.runs[number] += 1
    if not isnan(run.seconds):
        _fold_seconds(table, number, run.seconds)


def _judge(table: TestTable, number: int, run: TestRun, entry: Entry, same_commit: bool) -> int:
    """Note this run's failure or flip; returns what it revealed: NOTHING, a SILVER or a GOLD flip."""
    if run.outcome == Outcome.PASSED:
        return _judge_pass(table, number, entry, same_commit) if table.streak[number] else NOTHING
    this = table.last_failure[number] = table.runs[number]
    before = table.recent[number][-1:]
    if run.outcome == Outcome.FLAKED or (same_commit and before == Outcome.PASSED and run.outcome == Outcome.FAILED):
        return _note_flip(table, number, this, GOLD, streak=run.outcome == Outcome.FAILED)
    table.streak[number] += 1
    explained = run.outcome == Outcome.CONFIRMED or relation(run.test, entry.files) in RELATED
    table.open[number] = OPEN if table.streak[number] == 1 and before and not explained else EXPLAINED
    return NOTHING


def _judge_pass(table: TestTable, number: int, entry: Entry, same_commit: bool) -> int:
    """A pass after one unexplained failure reveals it as a silver flip; on the same commit as gold."""
    was, failure = table.open[number], table.runs[number] - 1
    table.streak[number], table.open[number] = 0, CLOSED
    if was != CLOSED and same_commit:
        return _note_flip(table, number, failure, GOLD)
    if was == OPEN and relation(table.ids[number], entry.files) not in RELATED:
        return _note_flip(table, number, failure, SILVER)
    return NOTHING


def _note_flip(table: TestTable, number: int, run: int, metal: int, streak: bool = False) -> int:
    table.streak[number], table.open[number] = int(streak), CLOSED
    table.last_flip[number] = run
    if metal == GOLD:
        table.last_gold[number] = run
    return metal


def _fold_seconds(table: TestTable, number: int, seconds: float) -> None:
    """Decayed mean and spread of log seconds; reports round to milliseconds, so shorter times count as 1 ms."""
    now = log(max(seconds, 0.001))
    pace = max(MIDDLE, 1.0 / table.runs[number])
    mean = table.log_seconds[number] if table.log_seconds[number] != UNTIMED else now
    spread = table.log_spread[number]
    table.log_spread[number] = round(spread + pace * (abs(now - mean) - spread), 4)
    table.log_seconds[number] = round(mean + pace * (now - mean), 4)
