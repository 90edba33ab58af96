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
from fedstep.history.identity import renames
from fedstep.history.times import SHORTEST, with_time

__all__ = [
    "GOLD",
    "NEVER",
    "NOTHING",
    "RECENT",
    "SILVER",
    "UNTIMED",
    "TestTable",
    "decayed_rate",
    "evidence",
    "fold_tests",
    "is_incident",
    "name_words",
    "numbers",
    "with_tests",
]

NEVER = -1  # a run number: it has not happened
UNTIMED = -99.0  # a log time: no report gave one
RECENT = 20  # outcomes kept as letters
FAST, MIDDLE, SLOW, SLOWEST = 1 / 5, 1 / 20, 1 / 50, 1 / 100
RELATED = frozenset(("itself", "near", "build-file"))

# States of a test's open failure, which the next pass may turn into a silver flip.
CLOSED, OPEN, EXPLAINED = 0, 1, 2
# What is revealed of one run: a letter, kept beside its outcome.
NOTHING, SILVER, GOLD = "-", "s", "g"


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
    last_failure: list[int] = field(default_factory=list)
    last_flip: list[int] = field(default_factory=list)
    revealed: list[str] = field(default_factory=list)  # NOTHING, SILVER or GOLD beside each letter of `recent`
    streak: list[int] = field(default_factory=list)  # failures in a row
    open: list[int] = field(default_factory=list)
    failed_in: list[str] = field(
        default_factory=list
    )  # the stream of the newest failure in the streak: only it can pass
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
    return min(1.0, total / _capacity(runs, pace)) if runs else 0.0


@lru_cache(maxsize=4096)
def _capacity(runs: int, pace: float) -> float:
    return (1.0 - (1.0 - pace) ** min(runs, 2000)) / pace


def is_incident(tests: Sequence[TestRun]) -> bool:
    """Whether so many tests failed at once (10 or more, and three in ten) that no failure says much about its test."""
    ran = sum(run.outcome != Outcome.SKIPPED for run in tests)
    failed = sum(run.outcome in "fc" for run in tests)
    return failed >= 10 and failed >= 0.3 * ran


def evidence(tests: Sequence[TestRun]) -> list[TestRun]:
    """The runs that say something about their tests: skipped ones do not, nor failures in an incident."""
    mute = "sfc" if is_incident(tests) else "s"
    return [run for run in tests if run.outcome not in mute]


def fold_tests(table: TestTable, entry: Entry, repeated: int, build_number: int) -> TestTable:
    """The table after one more build. `repeated`: the build before in the stream, if of the same commit, else NEVER."""
    after = table.copy()
    rows = {test: number for number, test in enumerate(after.ids)}
    if new := [run.test for run in entry.tests if run.test not in rows]:
        _follow(after, rows, entry, new)
    for run in evidence(entry.tests):
        number = rows.get(run.test)
        if number is None:
            number = rows[run.test] = _add_test(after, run.test)
        # A test that was left out of the repeated build has only outcomes on other commits.
        same_commit = repeated != NEVER and after.seen[number] >= repeated
        _fold_run(after, number, run, entry, same_commit)
        after.seen[number] = build_number
    _set_source_words(after, rows, entry)
    return after


def numbers(table: TestTable) -> dict[str, int]:
    """The row of each test, by its id and by the one it had before."""
    return {former: number for number, former in enumerate(table.former) if former} | {
        test: number for number, test in enumerate(table.ids)
    }


def _follow(table: TestTable, rows: dict[str, int], entry: Entry, new: Sequence[str]) -> None:
    """Give the rows of tests that were renamed to their new ids; an id that was left stands for its row."""
    ran = {run.test for run in entry.tests}
    # Gone is what ran together with these, and not what only another job runs.
    latest = {table.seen[rows[test]] for test in ran if test in rows} or {max(table.seen, default=NEVER)}
    gone = [test for test, last in zip(table.ids, table.seen, strict=True) if last in latest and test not in ran]
    if not gone:
        return
    left = {former: number for number, former in enumerate(table.former) if former}
    returning = {test: table.ids[left[test]] for test in new if test in left and table.ids[left[test]] not in ran}
    for old, test in renames(table.ids, ran, gone, entry.files, returning).items():
        number = rows[test] = rows.pop(old)
        table.ids[number], table.former[number] = test, old
        table.name_words[number] = name_words(test)
    rows |= {test: rows[now] for test, now in returning.items() if now in rows}


def with_tests(table: TestTable, tests: Iterable[str]) -> TestTable:
    """The table with a blank row for each of `tests` that it does not know."""
    after = table.copy()
    known = set(table.ids)
    for test in dict.fromkeys(tests):
        if test not in known:
            _add_test(after, test)
    return after


def _add_test(table: TestTable, test: str) -> int:
    texts: dict[str, object] = {"ids": test, "former": "", "recent": "", "revealed": "", "failed_in": "", "times": ""}
    blank = {**texts, "last_failure": NEVER, "last_flip": NEVER, "log_seconds": UNTIMED, "source_words": None}
    blank["name_words"] = name_words(test)
    for name in _COLUMNS:
        getattr(table, name).append(blank.get(name, 0))
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
    table.recent[number] = (table.recent[number] + run.outcome)[-RECENT:]
    table.revealed[number] = (table.revealed[number] + NOTHING)[-RECENT:]
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
    table.runs[number] += 1
    if not isnan(run.seconds):
        _fold_seconds(table, number, run.seconds)


def _judge(table: TestTable, number: int, run: TestRun, entry: Entry, same_commit: bool) -> str:
    """Note this run's failure or flip; returns what it revealed: NOTHING, a SILVER or a GOLD flip."""
    if run.outcome == Outcome.PASSED:
        return _judge_pass(table, number, entry, same_commit)
    if run.outcome == Outcome.FLAKED:
        _judge_pass(table, number, entry, same_commit)
        table.last_failure[number] = table.runs[number]
        return _note_flip(table, number, GOLD)
    first = table.streak[number] == 0 and len(table.recent[number]) > 1
    table.streak[number] += 1
    table.failed_in[number], table.last_failure[number] = entry.stream, table.runs[number]
    if first and same_commit and run.outcome == Outcome.FAILED:
        table.open[number] = CLOSED
        return _note_flip(table, number, GOLD)
    explained = run.outcome == Outcome.CONFIRMED or relation(run.test, entry.files) in RELATED
    table.open[number] = OPEN if first and not explained else EXPLAINED
    return NOTHING


def _judge_pass(table: TestTable, number: int, entry: Entry, same_commit: bool) -> str:
    """A pass after one unexplained failure reveals it as a silver flip; on the same commit as gold.

    Of the streams of a matrix only the one that failed can tell: a test may be broken on one system alone.
    """
    if not table.streak[number] or table.failed_in[number] != entry.stream:
        return NOTHING
    was = table.open[number]
    table.streak[number], table.open[number], table.failed_in[number] = 0, CLOSED, ""
    if was != CLOSED and same_commit:
        return _note_flip(table, number, GOLD)
    if was == OPEN and relation(table.ids[number], entry.files) not in RELATED:
        return _note_flip(table, number, SILVER)
    return NOTHING


def _note_flip(table: TestTable, number: int, metal: str) -> str:
    """The newest failure was a flip."""
    failure = table.last_flip[number] = table.last_failure[number]
    letters = table.revealed[number]
    place = len(letters) - 1 - (table.runs[number] - failure)
    if place >= 0:
        table.revealed[number] = letters[:place] + metal + letters[place + 1 :]
    return metal


def _fold_seconds(table: TestTable, number: int, seconds: float) -> None:
    """The recent times, and decayed mean and spread of their logarithms."""
    table.times[number] = with_time(table.times[number], seconds)
    now = log(max(seconds, SHORTEST))
    pace = max(MIDDLE, 1.0 / table.runs[number])
    mean = table.log_seconds[number] if table.log_seconds[number] != UNTIMED else now
    spread = table.log_spread[number]
    table.log_spread[number] = round(spread + pace * (abs(now - mean) - spread), 4)
    table.log_seconds[number] = round(mean + pace * (now - mean), 4)
