"""What a build tells of its tests: the table of tests, folded forward one build at a time.

Rates are exponentially decayed sums; `decayed_rate` turns them into rates. A spell is a run of failures between two
passes. A flip is a failure judged flaky: gold when one commit or one build shows both outcomes, silver when, by the run
after it, more speaks for a flake than for a regression (`history.evidence`; Harman and O'Hearn, "From Start-ups to
Scale-ups", SCAM 2018, on why flips are the evidence there is).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, log
from typing import NamedTuple

from fedstep.history.records import BuildRecord
from fedstep.history.test_table import (
    NEVER,
    RECENT,
    SHORTEST,
    UNTIMED,
    TestTable,
    add_test,
    capacity,
    numbers,
    with_time,
)
from fedstep.ingest.change_impact import ChangeImpact, analyze_change, group_of, package_of
from fedstep.schema.schema import schema
from fedstep.types import FileChange, Outcome, TestRun

PASSED_ON_COMMIT = 5.0  # the test passed on the very commit that it fails on

START, PAST_WEIGHT = 1.1, 0.7
PAST_LOW, PAST_HIGH = -2.5, 5.0
OWN_RUNS, CLASS_RUNS = 10.0, 10.0  # how many runs the rate of the class, and of the project, is worth
LEAST_FLIPS = 0.0002  # a run: nobody's tests are quite free of flakes
BREAKS, BREAKS_RUNS = 0.0005, 20_000.0  # spells of a test that were no flips, a run, before any run is known
UNSURE = 0.3  # a spell that was not judged a flip still counts so much of one

REPEAT_WEIGHT, REPEAT_LOW = 0.64, -3.2
STAYS_BROKEN = 0.7  # a broken test fails in the next build too
FIRST_FAILURES, FIRST_RUNS = 0.3, 5.0

ITSELF, NEAR, ELSEWHERE, BUILD_FILE = 0.9, 0.7, 0.6, -1.0
COMPANION, MOST_COMPANIONS = 0.85, 4


class ProjectBaseline(NamedTuple):
    """What is usual in a project: flips and runs of each class, and how often a test flips or breaks, a run."""

    class_flips: Mapping[str, float]  # decayed sums
    class_runs: Mapping[str, float]
    flip_rate: float
    break_rate: float


class ChangeShares(NamedTuple):
    """Of all classes of the project, the share that a change names, and the share that it names or is near."""

    itself: float
    near: float


def project_baseline(
    ids: Sequence[str], flips: Sequence[float], spells: Sequence[float], runs: Sequence[float]
) -> ProjectBaseline:
    """The base of a project from its tests' flips, spells of failure and runs: decayed sums of one pace."""
    class_flips: dict[str, float] = {}
    class_runs: dict[str, float] = {}
    for test, flipped, ran in zip(ids, flips, runs, strict=True):
        group = group_of(test)
        class_flips[group] = class_flips.get(group, 0.0) + flipped
        class_runs[group] = class_runs.get(group, 0.0) + ran
    breaks = sum(spell - flip for spell, flip in zip(spells, flips, strict=True) if spell > flip)
    total = sum(runs)
    break_rate = (breaks + BREAKS * BREAKS_RUNS) / (total + BREAKS_RUNS)
    return ProjectBaseline(class_flips, class_runs, sum(flips) / max(total, 1.0), break_rate)


def past_evidence(base: ProjectBaseline, test: str, flips: float, spells: float, runs: float) -> float:
    """How often the test flipped, shrunk to its class-mates and to the project, against how often tests break."""
    group, usual = group_of(test), base.flip_rate + LEAST_FLIPS
    others = max(0.0, base.class_flips[group] - flips), max(0.0, base.class_runs[group] - runs)
    class_rate = (others[0] + CLASS_RUNS * usual) / (others[1] + CLASS_RUNS)
    rate = (flips + UNSURE * max(0.0, spells - flips) + OWN_RUNS * class_rate) / (runs + OWN_RUNS)
    return START + PAST_WEIGHT * max(PAST_LOW, min(PAST_HIGH, log(rate / base.break_rate)))


def repeat_evidence(repeats: int, failures: int, runs: int) -> float:
    """A test that goes on failing: what is broken stays so, a flake fails again as seldom as it does.

    `failures` and `runs` are those outside the failures in a row.
    """
    chance = min(STAYS_BROKEN, (failures + FIRST_FAILURES) / (runs + FIRST_RUNS))
    return max(REPEAT_LOW, REPEAT_WEIGHT * repeats * log(chance / STAYS_BROKEN))


def change_shares(touched: ChangeImpact, groups: Iterable[str]) -> ChangeShares:
    """How much of the project a change names: naming one class of a hundred says more than one of two."""
    found = Counter(touched.relation(group) for group in groups)
    of = found.total() + 1.0
    return ChangeShares((found["itself"] + 0.5) / of, (found["itself"] + found["near"] + 0.5) / of)


def change_evidence(relation: str | None, shares: ChangeShares) -> float:
    """Half of all regressions come from a change that names the test; a flake meets such a change by chance.

    0 where the change is not known.
    """
    if relation in ("itself", "near"):
        share, weight = (shares.itself, ITSELF) if relation == "itself" else (shares.near, NEAR)
        return -weight * log((0.5 + 0.5 * share) / share)
    return {None: 0.0, "build-file": BUILD_FILE}.get(relation, ELSEWHERE)


def count_companions(tests: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many of the tests are of each package, by (package, ""), and of each class, by (package, class)."""
    counts: Counter[tuple[str, str]] = Counter()
    for test in tests:
        counts.update(((package_of(test), ""), (package_of(test), group_of(test))))
    return counts


def companion_evidence(count: int) -> float:
    """Tests of other classes in the package that never failed before and began to fail in the same build."""
    return -COMPANION * min(count, MOST_COMPANIONS)


PACE = 1 / 100  # of the decayed sums of flips and spells


class FailureContext(NamedTuple):
    """A build, seen from the table before it: what is usual, what the change touches, what else began to fail."""

    base: ProjectBaseline
    shares: ChangeShares
    touched: ChangeImpact | None  # None: the change is not known
    fresh: Counter[tuple[str, str]]  # tests that begin to fail and never failed before

    def relation(self, test: str) -> str | None:
        """The relation of the change to the test, None where the change is not known."""
        return self.touched.relation(test) if self.touched else None

    def past(self, table: TestTable, number: int) -> float:
        """The evidence of how often the test flipped."""
        spells, runs = table.spells_100[number], capacity(table.runs[number], PACE)
        return past_evidence(self.base, table.ids[number], table.flipped_100[number], spells, runs)

    def repeats(self, table: TestTable, number: int, repeats: int) -> float:
        """The evidence of so many failures after the first of the test's open spell."""
        streak = table.streak[number]
        return repeat_evidence(repeats, table.failures[number] - streak, table.runs[number] - streak)

    def change(self, test: str) -> float:
        """The evidence of the change."""
        return change_evidence(self.relation(test), self.shares)

    def companions(self, test: str) -> float:
        """The evidence of the tests of other classes that begin to fail."""
        package = package_of(test)
        return companion_evidence(self.fresh[package, ""] - self.fresh[package, group_of(test)])


def failure_context(table: TestTable, failing: Iterable[str], files: Sequence[FileChange] | None) -> FailureContext:
    """The scene of a build in which these tests fail; the table has a row for each. `files` None: change not known."""
    rows = numbers(table)
    fresh = [test for test in failing if not table.streak[rows[test]] and not table.failures[rows[test]]]
    capacities = {runs: capacity(runs, PACE) for runs in set(table.runs)}
    base = project_baseline(table.ids, table.flipped_100, table.spells_100, [capacities[runs] for runs in table.runs])
    known = None if files is None else analyze_change(files)
    return FailureContext(
        base, change_shares(known or analyze_change(()), base.class_runs), known, count_companions(fresh)
    )


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


def informative_runs(tests: Sequence[TestRun]) -> list[TestRun]:
    """The runs that say something about their tests: skipped ones do not, nor failures in an incident."""
    mute = "sfc" if is_incident(tests) else "s"
    return [run for run in tests if run.outcome not in mute]


def apply_test_runs(table: TestTable, entry: BuildRecord, repeated: int, build_number: int) -> TestTable:
    """The table after one more build. `repeated`: the build before in the stream, if of the same commit, else NEVER."""
    runs, after = informative_runs(entry.tests), table.copy()
    rows = {test: number for number, test in enumerate(after.ids)}
    if new := [run.test for run in entry.tests if run.test not in rows]:
        from fedstep.history.renames import follow_renames  # a prediction reads the history without ever needing it

        follow_renames(after, rows, entry, new)
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


def _scene(table: TestTable, runs: Sequence[TestRun], entry: BuildRecord) -> FailureContext | None:
    """The scene of the build; None where no test fails or goes on from a failure, for then nothing is judged."""
    failing = [run.test for run in runs if run.outcome in "fck"]
    files = entry.files if entry.change_known else None
    return failure_context(table, failing, files) if failing or any(table.streak) else None


def _set_source_words(table: TestTable, rows: dict[str, int], entry: BuildRecord) -> None:
    for test, words in entry.source_words.items():
        if test in rows:
            table.source_words[rows[test]] = schema().words("source").listed(words)


def _fold_run(
    table: TestTable, number: int, run: TestRun, entry: BuildRecord, same_commit: bool, scene: FailureContext | None
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


def _judge(
    table: TestTable, number: int, run: TestRun, entry: BuildRecord, same_commit: bool, scene: FailureContext
) -> str:
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


def _judge_pass(table: TestTable, number: int, entry: BuildRecord, same_commit: bool, scene: FailureContext) -> str:
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


def _is_flake(table: TestTable, number: int, scene: FailureContext, repeats: int, last_change: float = 0.0) -> bool:
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
