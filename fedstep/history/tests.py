"""What a build tells of its tests: the table of tests, folded forward one build at a time.

Rates are exponentially decayed sums; `decayed_rate` turns them into rates. A spell is a run of failures between two
passes. A flip is a failure judged flaky: gold when one commit or one build shows both outcomes, silver when, by the run
after it, more speaks for a flake than for a regression (`history.evidence`; Harman and O'Hearn, "From Start-ups to
Scale-ups", SCAM 2018, on why flips are the evidence there is).
"""

from collections.abc import Sequence
from math import isnan, log

from fedstep.build.record import Outcome, TestRun
from fedstep.features.schema import schema
from fedstep.history.entry import Entry
from fedstep.history.scene import PACE, Scene, scene_of
from fedstep.history.table import (
    NEVER,
    RECENT,
    UNTIMED,
    TestTable,
    add_test,
    decayed_rate,
    name_words,
    numbers,
    with_tests,
)
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

FAST, MIDDLE, SLOW, SLOWEST = 1 / 5, 1 / 20, 1 / 50, PACE

# States of a test's spell of failures: CLOSED where none is open or it is judged, OPEN, EXPLAINED where it is no flake.
CLOSED, OPEN, EXPLAINED = 0, 1, 2
# What is revealed of one run: a letter, kept beside its outcome.
NOTHING, SILVER, GOLD = "-", "s", "g"


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
    runs, after = evidence(entry.tests), table.copy()
    rows = {test: number for number, test in enumerate(after.ids)}
    if new := [run.test for run in entry.tests if run.test not in rows]:
        from fedstep.history.renaming import follow  # a prediction reads the history without ever needing it

        follow(after, rows, entry, new)
    for run in runs:
        if run.test not in rows:
            rows[run.test] = add_test(after, run.test)
    scene = _scene(after, runs, entry)
    for run in runs:
        number = rows[run.test]
        # A test that was left out of the repeated build has only outcomes on other commits.
        same_commit = repeated != NEVER and after.seen[number] >= repeated
        _fold_run(after, number, run, entry, same_commit, scene)
        after.seen[number] = build_number
    _set_source_words(after, rows, entry)
    return after


def _scene(table: TestTable, runs: Sequence[TestRun], entry: Entry) -> Scene | None:
    """The scene of the build; None where no test fails or goes on from a failure, for then nothing is judged."""
    failing = [run.test for run in runs if run.outcome in "fck"]
    files = entry.files if entry.change_known else None
    return scene_of(table, failing, files) if failing or any(table.streak) else None


def _set_source_words(table: TestTable, rows: dict[str, int], entry: Entry) -> None:
    for test, words in entry.source_words.items():
        if test in rows:
            table.source_words[rows[test]] = schema().words("source").listed(words)


def _fold_run(
    table: TestTable, number: int, run: TestRun, entry: Entry, same_commit: bool, scene: Scene | None
) -> None:
    table.recent[number] = (table.recent[number] + run.outcome)[-RECENT:]
    table.revealed[number] = (table.revealed[number] + NOTHING)[-RECENT:]
    streak = table.streak[number]
    revealed = _judge(table, number, run, entry, same_commit, scene) if scene else NOTHING
    failed, flipped, gold = run.outcome in "fck", revealed != NOTHING, revealed == GOLD
    ended = streak > table.streak[number] or run.outcome == Outcome.FLAKED
    for column, pace, hit in (
        (table.failed_5, FAST, failed),
        (table.failed_50, SLOW, failed),
        (table.flipped_20, MIDDLE, flipped),
        (table.flipped_100, SLOWEST, flipped),
        (table.gold_100, SLOWEST, gold),
        (table.spells_100, SLOWEST, ended),
    ):
        if hit or column[number]:
            column[number] = round(column[number] * (1.0 - pace) + hit, 6)
    table.failures[number] += failed
    table.flips[number] += flipped
    table.runs[number] += 1
    if not isnan(run.seconds):
        _fold_seconds(table, number, run.seconds)


def _judge(table: TestTable, number: int, run: TestRun, entry: Entry, same_commit: bool, scene: Scene) -> str:
    """Note this run's failure or flip; returns what it revealed: NOTHING, a SILVER or a GOLD flip."""
    if run.outcome == Outcome.PASSED:
        return _judge_pass(table, number, entry, same_commit, scene)
    if run.outcome == Outcome.FLAKED:
        _judge_pass(table, number, entry, same_commit, scene)
        table.last_failure[number] = table.runs[number]
        return _note_flip(table, number, GOLD)
    first = table.streak[number] == 0
    if first:
        table.change[number], table.companions[number] = scene.change(run.test), scene.companions(run.test)
        table.open[number] = OPEN if len(table.recent[number]) > 1 else EXPLAINED
    elif _is_flake(table, number, scene, table.streak[number]):
        _mark(table, number, SILVER)  # not yet a flip: the spell goes on
    table.streak[number] += 1
    table.failed_in[number], table.last_failure[number] = entry.stream, table.runs[number]
    if run.outcome == Outcome.CONFIRMED:
        table.open[number] = EXPLAINED
    elif first and same_commit and table.open[number] == OPEN:
        table.open[number] = CLOSED
        return _note_flip(table, number, GOLD)
    return NOTHING


def _judge_pass(table: TestTable, number: int, entry: Entry, same_commit: bool, scene: Scene) -> str:
    """A pass ends a spell and reveals whether its last failure was a flip; on the same commit a gold one.

    Of the streams of a matrix only the one that failed can tell: a test may be broken on one system alone.
    """
    if not table.streak[number] or table.failed_in[number] != entry.stream:
        return NOTHING
    gold = same_commit and table.open[number] != CLOSED
    silver = _is_flake(table, number, scene, table.streak[number] - 1, scene.change(table.ids[number]))
    table.streak[number], table.open[number], table.failed_in[number] = 0, CLOSED, ""
    if gold or silver:
        return _note_flip(table, number, GOLD if gold else SILVER)
    return NOTHING


def _is_flake(table: TestTable, number: int, scene: Scene, repeats: int, last_change: float = 0.0) -> bool:
    """Whether more speaks for a flake than for a regression, of a spell that nothing else has explained."""
    began = table.change[number] + table.companions[number]
    score = scene.past(table, number) + scene.repeats(table, number, repeats) + began + last_change
    return table.open[number] == OPEN and score > 0.0


def _note_flip(table: TestTable, number: int, metal: str) -> str:
    """The newest failure was a flip."""
    table.last_flip[number] = table.last_failure[number]
    _mark(table, number, metal)
    return metal


def _mark(table: TestTable, number: int, metal: str) -> None:
    """Write what is revealed of the newest failure beside its outcome."""
    letters = table.revealed[number]
    place = len(letters) - 1 - (table.runs[number] - table.last_failure[number])
    if place >= 0:
        table.revealed[number] = letters[:place] + metal + letters[place + 1 :]


def _fold_seconds(table: TestTable, number: int, seconds: float) -> None:
    """The recent times, and decayed mean and spread of their logarithms."""
    table.times[number] = with_time(table.times[number], seconds)
    now = log(max(seconds, SHORTEST))
    pace = max(MIDDLE, 1.0 / table.runs[number])
    mean = table.log_seconds[number] if table.log_seconds[number] != UNTIMED else now
    spread = table.log_spread[number]
    table.log_spread[number] = round(spread + pace * (abs(now - mean) - spread), 4)
    table.log_seconds[number] = round(mean + pace * (now - mean), 4)
