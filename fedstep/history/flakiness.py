"""What builds reveal of their tests: whether a failure was a flake or a regression, and the tests' decayed rates.

A spell is a run of failures between two passes. A flip is a failure judged a flake: gold when one commit or one
build shows both outcomes, silver when, by the run after it, the evidence for a flake outweighs that for a regression
(`FlakeEvidence`; Harman and O'Hearn, "From Start-ups to Scale-ups", SCAM 2018, on
why flips are the evidence there is). `flake_log_odds` makes one figure of a test's flips.

Rates are exponentially decayed sums; `test_table.decayed_rate` turns them into rates.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from math import exp, isnan, log, prod
from typing import NamedTuple
from zlib import crc32

from fedstep.history.records import BuildRecord
from fedstep.history.test_table import (
    NEVER,
    RECENT,
    SHORTEST,
    UNTIMED,
    SpellState,
    TestStats,
    TestTable,
    capacity,
    index_tests,
    match_origins,
    new_test,
    with_time,
    write_coordinates,
)
from fedstep.ingest.change_impact import ChangeImpact, analyze_change, group_of, package_of
from fedstep.schema.schema import schema
from fedstep.types import FileChange, Outcome, TestRun

# Paces of the decayed sums: the share of the sum that a run takes away.
FAST, MIDDLE, SLOW, SLOWEST = 1 / 5, 1 / 20, 1 / 50, 1 / 100


MOST_SIGNATURES = 5  # of one test; a flake that fails in more ways than these fails in any


class Flip(StrEnum):
    """What is revealed of one run: the letter beside its outcome in `TestStats.revealed`."""

    NONE = "-"
    SILVER = "s"
    GOLD = "g"


class EvidenceWeights(NamedTuple):
    """The constants of the evidence. Weights and bounds are nats, rates are per run."""

    past_offset: float = 1.1
    past_weight: float = 0.7  # of the log of the test's flip rate over the project's rate of regressions
    past_low: float = -2.5  # bounds of that log
    past_high: float = 5.0
    first_run: float = -0.6  # it failed when it first ran: nothing says that it ever passed
    past_unseen: float = 2.0  # bound of the whole evidence for a test that never flipped: its class may be unlike it
    own_runs: float = 10.0  # how many runs the rate of the class counts in the rate of the test
    class_runs: float = 10.0  # ... and the rate of the project in that of the class
    least_flips: float = 0.0002  # flip rate of a project in which no flip is known
    breaks: float = 0.0005  # regressions per run before any run is known ...
    breaks_runs: float = 20_000.0  # ... and how many runs that counts
    unsure: float = 0.3  # how much of a flip a spell counts that was not judged one

    repeat_weight: float = 0.64
    repeat_low: float = -3.2  # flakes cluster, so that less than this ...
    repeat_beyond: float = 0.25  # ... counts a quarter; but a test that fails on and on is broken, whatever its past
    stays_broken: float = 0.7  # chance that a broken test fails in the next build too
    first_failures: float = 0.3  # failures and runs that every test starts with
    first_runs: float = 5.0

    itself: float = 0.9  # by the relation of the change to the test
    near: float = 0.7
    elsewhere: float = 0.6
    build_file: float = -1.0

    companion: float = 0.85
    most_companions: int = 4
    class_mate: float = 0.25  # a test of the same class: flakes of one class come together, too
    most_class_mates: int = 8
    new_companion: float = 1.7  # the same in the build of the failure, which no later run has judged yet
    new_most_companions: int = 2
    new_class_mates: float = 1.0  # any number of them
    first_failure: float = 0.4  # of a test that ran before: more of them are flakes than the other evidence says
    new_past_unseen: float = 1.0  # bound of both for a failure of this build: fewer are flakes than the past says

    alike: int = 5  # so many tests that fail for the first time in one build with one message are one coincidence ...
    coincidence: float = -3.4  # ... as much as companions can say

    environment: float = 2.0  # its message names the network or the machine; of a test that never flipped
    words: float = 1.0  # a standard score of its words among the project's tests, where it never flipped ...
    most_of_words: float = 3.0
    slow: float = 1.0  # by the rank of its time, -1 to 1, where the test never flipped: slow ones flake more
    passed_on_commit: float = 5.0  # the test passed on the very commit that it fails on
    other_branch: float = -0.6  # it passed on another branch, where what broke it may never have been
    surest: float = 0.95  # of a flip without proof
    doubt: float = -0.85  # 30 %: a failure below is called a regression, and says nothing of flakes

    again: float = 6.0  # it fails anew after a spell: the same test seldom breaks twice
    again_counts: float = 0.15  # of a flip: enough to list the test, and to say next to nothing in triage

    type_usual: float = 0.15  # how often a regression fails with a given type
    type_flips: float = 5.0  # flips at that rate, before the test's own are counted
    type_low: float = -1.0  # bounds of the evidence of the type
    type_high: float = 0.8


WEIGHTS = EvidenceWeights()


class FlakeEvidence(NamedTuple):
    """What speaks for a flake and against a regression, each in nats of the odds; negative speaks for a regression.

    Without `end_change` the fields are the schema's EVIDENCE, of which the model for triage starts.
    """

    past: float  # how often the test, its class and the project flipped
    repeats: float  # failures in a row, <= 0
    change: float  # the change with which the spell began
    companions: float  # other tests that began to fail with it, <= 0
    commit: float = 0.0  # a pass on the commit that fails
    kind: float = 0.0  # whether it failed as its flips did
    time: float = 0.0  # how long a test that never flipped takes
    environment: float = 0.0  # whether the message of a test that never flipped names the network or the machine
    words: float = 0.0  # whether the words of a test that never flipped are like those of flaky tests
    end_change: float = 0.0  # the change with which the spell ended

    def score(self) -> float:
        """Return the log-odds that the failure is a flake."""
        return (
            self.past
            + self.repeats
            + (self.change + self.companions)
            + self.kind
            + self.time
            + self.environment
            + self.words
            + self.end_change
            + self.commit
        )


class ProjectBaseline(NamedTuple):
    """What is usual in a project: flips and runs of each class, and how often a test flips or breaks per run."""

    class_flips: Mapping[str, float]  # decayed sums
    class_runs: Mapping[str, float]
    flip_rate: float
    break_rate: float


class ChangeShares(NamedTuple):
    """Of all classes of the project, the share that a change names, and the share that it names or is near."""

    itself: float
    near: float


def project_baseline(
    ids: Iterable[str], flips: Sequence[float], spells: Sequence[float], runs: Sequence[float]
) -> ProjectBaseline:
    """Return the baseline of a project from its tests' flips, spells and runs, decayed sums of one pace."""
    class_flips: dict[str, float] = {}
    class_runs: dict[str, float] = {}
    for test, flipped, ran in zip(ids, flips, runs, strict=True):
        group = group_of(test)
        class_flips[group] = class_flips.get(group, 0.0) + flipped
        class_runs[group] = class_runs.get(group, 0.0) + ran
    breaks = sum(spell - flip for spell, flip in zip(spells, flips, strict=True) if spell > flip)
    total = sum(runs)
    break_rate = (breaks + WEIGHTS.breaks * WEIGHTS.breaks_runs) / (total + WEIGHTS.breaks_runs)
    return ProjectBaseline(class_flips, class_runs, sum(flips) / max(total, 1.0), break_rate)


def past_evidence(base: ProjectBaseline, test: str, flips: float, spells: float, runs: float) -> float:
    """Return the evidence of how often the test flipped against how often tests of the project break.

    The rate of the test is shrunk to that of its class-mates, and theirs to that of the project.
    """
    group, usual = group_of(test), base.flip_rate + WEIGHTS.least_flips
    mates_flips = max(0.0, base.class_flips[group] - flips)
    mates_runs = max(0.0, base.class_runs[group] - runs)
    class_rate = (mates_flips + WEIGHTS.class_runs * usual) / (mates_runs + WEIGHTS.class_runs)
    flipped = flips + WEIGHTS.unsure * max(0.0, spells - flips)
    rate = (flipped + WEIGHTS.own_runs * class_rate) / (runs + WEIGHTS.own_runs)
    log_ratio = max(WEIGHTS.past_low, min(WEIGHTS.past_high, log(rate / base.break_rate)))
    evidence = WEIGHTS.past_offset + WEIGHTS.past_weight * log_ratio
    return evidence if flips else min(evidence, WEIGHTS.past_unseen)


def repeat_evidence(repeats: int, failures: int, runs: int) -> float:
    """Return the evidence of so many failures after the first: a broken test stays broken, a flake fails as seldom.

    `failures` and `runs` are those outside the failures in a row.
    """
    chance = min(WEIGHTS.stays_broken, (failures + WEIGHTS.first_failures) / (runs + WEIGHTS.first_runs))
    evidence, low = WEIGHTS.repeat_weight * repeats * log(chance / WEIGHTS.stays_broken), WEIGHTS.repeat_low
    return evidence if evidence > low else low + WEIGHTS.repeat_beyond * (evidence - low)


def streak_evidence(stats: TestStats, repeats: int) -> float:
    """Return the evidence of so many failures of a test after the first, by how often it failed before them."""
    return repeat_evidence(repeats, stats.failures - stats.streak, stats.runs - stats.streak)


def change_shares(impact: ChangeImpact, groups: Iterable[str]) -> ChangeShares:
    """Return how much of the project a change names: one class of a hundred says more than one of two."""
    relations = Counter(impact.relation(group) for group in groups)
    total = relations.total() + 1.0
    return ChangeShares((relations["itself"] + 0.5) / total, (relations["itself"] + relations["near"] + 0.5) / total)


def change_evidence(relation: str | None, shares: ChangeShares) -> float:
    """Return the evidence of a change in this relation to the test; 0 where the change is not known.

    Half of all regressions come from a change that names the test; a flake meets such a change by chance.
    """
    if relation in ("itself", "near"):
        share, weight = (shares.itself, WEIGHTS.itself) if relation == "itself" else (shares.near, WEIGHTS.near)
        return -weight * log((0.5 + 0.5 * share) / share)
    return {None: 0.0, "build-file": WEIGHTS.build_file}.get(relation, WEIGHTS.elsewhere)


def count_companions(tests: Iterable[str]) -> Counter[tuple[str, str]]:
    """Count the tests of each package, by (package, ""), and of each class, by (package, "class#")."""
    counts: Counter[tuple[str, str]] = Counter()
    for test in tests:  # the class of a test without one is "", too
        counts.update(((package_of(test), ""), (package_of(test), f"{group_of(test)}#")))
    return counts


def companion_evidence(others: int, class_mates: int = 0) -> float:
    """Return the evidence of other tests that fail for the first time in the same build.

    `others` are of other classes in the package. Flakes of one class come together, so `class_mates` say less.
    """
    mates = WEIGHTS.class_mate * min(class_mates, WEIGHTS.most_class_mates)
    return -WEIGHTS.companion * min(others, WEIGHTS.most_companions) - mates


def new_companion_evidence(others: int, class_mates: int = 0) -> float:
    """Return the same for a failure of this build: nothing but the build itself tells what it is."""
    mates = WEIGHTS.new_class_mates * bool(class_mates)
    return -WEIGHTS.new_companion * min(others, WEIGHTS.new_most_companions) - mates


TYPES = 10  # newest flips of a test whose failure type is kept


def type_fingerprint(failure_type: str) -> str:
    """Return three letters that stand for a failure type, "" where there is none.

    >>> len(type_fingerprint("java.net.ConnectException")), type_fingerprint("")
    (3, '')
    """
    return f"{crc32(failure_type.encode()) & 0xFFF:03x}" if failure_type else ""


def type_evidence(flip_types: str, fingerprint: str) -> float:
    """Return the evidence of how a test failed, from the fingerprints of its flips and of this failure.

    A flake fails as the test's flips did (a Dirichlet prior), a regression in any way: a type that no flip had speaks
    for a regression.
    """
    if not flip_types or not fingerprint:
        return 0.0
    seen = [flip_types[start : start + 3] for start in range(0, len(flip_types), 3)]
    usual, flips = WEIGHTS.type_usual, WEIGHTS.type_flips
    ratio = (seen.count(fingerprint) + flips * usual) / ((len(seen) + flips) * usual)
    return max(WEIGHTS.type_low, min(WEIGHTS.type_high, log(ratio)))


class FailureContext(NamedTuple):
    """What the failures of one build have in common: the project's baseline, the change, and what else began to fail.

    Labels and the features of triage use the same context. It is made once per build, from the table before it.
    """

    base: ProjectBaseline
    shares: ChangeShares
    impact: ChangeImpact | None  # None: the change is not known
    fresh: Counter[tuple[str, str]]  # `count_companions` of the tests that fail for the first time
    unflipped: Counter[tuple[str, str]]  # ... of those that begin to fail and never flipped, for the first time or not
    alike: Counter[str]  # how many tests fail for the first time with each signature

    def relation(self, test: str) -> str | None:
        """Return how the change relates to the test; None where the change, or the place of the test, is not known."""
        relation = self.impact.relation(test) if self.impact else None
        return relation if relation != "elsewhere" or group_of(test) else None

    def change(self, test: str) -> float:
        """Return the evidence of the change for this test."""
        return change_evidence(self.relation(test), self.shares)

    def companions(self, test: str, signature: str = "") -> float:
        """Return the evidence of the tests that fail for the first time with this one, for what a later run judges.

        Many that fail with one message, in whatever package, have one cause: a server that was down.
        """
        evidence = companion_evidence(*_count_others(self.fresh, test))
        return min(evidence, WEIGHTS.coincidence) if self.alike[signature] >= WEIGHTS.alike else evidence

    def new_companions(self, stats: TestStats, test: str) -> float:
        """Return the same for a failure of this build, before a later run judges it.

        A test that failed before and never flipped is counted with all that never flipped, as for `companions_anew`.
        `test` is the id in the build, as for `evidence`.
        """
        others = self.unflipped if stats.failures and not stats.flips else self.fresh
        return new_companion_evidence(*_count_others(others, test))

    def companions_anew(self, test: str) -> float:
        """Return the same of all tests without a flip, as a group that fails together twice is one coincidence."""
        return companion_evidence(*_count_others(self.unflipped, test))

    def evidence(self, stats: TestStats, test: str, repeats: int, fingerprint: str) -> FlakeEvidence:
        """Return the evidence for a failure of the test, `repeats` failures after the first of its spell.

        A spell that goes on keeps the change and the companions with which it began. `test` is the id in the build,
        which may be a former one; `fingerprint` is that of the failure's type.
        """
        spells, runs = stats.spells_100, capacity(stats.runs, SLOWEST)
        past = past_evidence(self.base, stats.test, stats.flaked_100, spells, runs)
        return FlakeEvidence(
            past=past if stats.runs else past + WEIGHTS.first_run,
            repeats=streak_evidence(stats, repeats),
            change=stats.change if stats.streak else self.change(test),
            companions=stats.companions if stats.streak else self.companions(test),
            kind=type_evidence(stats.flip_types, fingerprint),
        )


def _count_others(counts: Counter[tuple[str, str]], test: str) -> tuple[int, int]:
    """Return how many tests of other classes in the package, and how many other tests of the class, are counted."""
    package = package_of(test)
    of_class = counts[package, f"{group_of(test)}#"]
    return counts[package, ""] - of_class, max(0, of_class - 1)


def failure_context(tests: TestTable, failing: Sequence[TestRun], files: Sequence[FileChange] | None) -> FailureContext:
    """Return the context of a build with these failures of tests of the table. `files` None: change not known."""
    by_id = index_tests(tests)
    first = [run for run in failing if not by_id[run.test].failures]
    begins = [run.test for run in failing if not by_id[run.test].streak]
    fresh = count_companions(run.test for run in first)
    alike = Counter(run.signature for run in first if run.signature)
    unflipped = count_companions(test for test in begins if not by_id[test].flips)
    stats = tests.values()
    capacities = {runs: capacity(runs, SLOWEST) for runs in {test.runs for test in stats}}
    base = project_baseline(
        tests,
        [test.flaked_100 for test in stats],
        [test.spells_100 for test in stats],
        [capacities[test.runs] for test in stats],
    )
    impact = None if files is None else analyze_change(files)
    shares = change_shares(impact or analyze_change(()), base.class_runs)
    return FailureContext(base, shares, impact, fresh, unflipped, alike)


PROVEN_FLIPS = 3  # gold flips among the recent runs: no prior and no correction speaks against so many ...
QUIET_RUNS = 12  # ... until the test has been quiet for so many runs
PROVEN_ODDS, ODDS_PER_QUIET_RUN = 2.7, 0.065  # 94 %, and 87 % after QUIET_RUNS: a correction leaves 80 %
HORIZON = 20  # runs that a probability of flaking is about, as in the schema
FLIPS_BEFORE, RUNS_BEFORE = 0.02, 5.0  # the Beta prior of a test's flake rate: one flip in 250 runs
SUREST_ODDS = 4.0  # 98 %: more has never been seen to hold


def flake_log_odds(stats: TestStats) -> float:
    """Return the log-odds that a test flakes within its next 20 runs, by nothing but what was seen of it.

    The flake rate has a Beta posterior of the flips, weighted by their certainty, and of the runs, both decayed with a
    horizon of 100 runs. The probability of no flake in h runs is the product of (b + i) / (a + b + i) for i below h.
    A test with PROVEN_FLIPS gold flips among its recent runs is at 80 % or more until it was quiet for QUIET_RUNS.
    """
    odds = _posterior_odds(stats.flaked_100, min(stats.runs, 2000))
    if stats.proven == NEVER:
        return odds
    return max(odds, PROVEN_ODDS - ODDS_PER_QUIET_RUN * (stats.runs - 1 - stats.proven))


@lru_cache(maxsize=4096)
def _posterior_odds(flaked: float, runs: int) -> float:
    flips = FLIPS_BEFORE + flaked
    clean = RUNS_BEFORE + max(0.0, capacity(runs, SLOWEST) - flaked)
    none = prod((clean + run) / (flips + clean + run) for run in range(HORIZON))
    return min(SUREST_ODDS, log((1.0 - none) / none)) if none else SUREST_ODDS


TOGETHER = 3  # tests that failed in the same builds, each time, from which on one cause is likely


def group_by_cause(tests: Sequence[TestStats]) -> list[list[TestStats]]:
    """Return groups of tests that likely have one cause, in the given order; most tests are alone in theirs.

    Tests of one class, or with one message, that failed in the same builds whenever they failed.
    """
    keys = {stats.test: tuple(_cause_keys(stats)) for stats in tests}
    counts = Counter(key for some in keys.values() for key in some)
    groups: dict[tuple[object, ...], list[TestStats]] = {}
    for stats in tests:
        key = next((key for key in keys[stats.test] if counts[key] >= TOGETHER), (stats.test,))
        groups.setdefault(key, []).append(stats)
    return list(groups.values())


def _cause_keys(stats: TestStats) -> Iterator[tuple[object, ...]]:
    """Yield what tests with one cause have in common: where they failed, and the newest message or the class."""
    since = (stats.runs - stats.last_failure, stats.runs - stats.last_flip)
    key = (stats.last_build, stats.recent, stats.revealed, stats.failures, stats.flips, *since)
    if stats.signatures:
        yield ("message", stats.signatures.split()[-1], *key)
    if group_of(stats.test):
        yield ("class", group_of(stats.test), *key)


def is_incident(tests: Sequence[TestRun]) -> bool:
    """Return whether so many tests failed at once (10 and 30 %) that no failure says much about its test."""
    ran = sum(run.outcome != Outcome.SKIPPED for run in tests)
    failed = sum(run.outcome in "fc" for run in tests)
    return failed >= 10 and failed >= 0.3 * ran


def informative_runs(tests: Sequence[TestRun]) -> list[TestRun]:
    """Return the runs that say something about their tests: not the skipped ones, nor failures in an incident."""
    ignored = "sfc" if is_incident(tests) else "s"
    return [run for run in tests if run.outcome not in ignored]


class PreviousBuilds(NamedTuple):
    """The previous builds of the same stream, by their index in the project; NEVER where there is none."""

    repeated: int = NEVER  # the previous one, if it built the same commit in another run
    same_run: int = NEVER  # the first one of the same run of the job: each is of another cell, and no attempt


MIXED_BUILDS = 100  # for so long a test is one whose cells are not told apart


def apply_test_runs(
    before: TestTable, record: BuildRecord, previous: PreviousBuilds, build_index: int
) -> dict[str, TestStats]:
    """Return the table after one more build; `before` and its stats stay as they are.

    Args:
        before: The table of all tests.
        record: The build.
        previous: The builds before in the stream.
        build_index: The index of this build in the project.
    """
    runs = informative_runs(record.tests)
    tests: dict[str, TestStats] = dict(before)
    origins = dict(zip((run.test for run in record.tests), record.origins, strict=False))
    ids = dict(match_origins(tests, origins).ids)  # in the table, of the ids in this build that are others there
    if unknown := [run.test for run in record.tests if run.test not in tests and run.test not in ids]:
        from fedstep.history.renames import follow_renames  # predictions read the history and do not need it

        tests, former = follow_renames(tests, record, unknown, ids)
        ids |= former
    for run in runs:
        test = ids.get(run.test, run.test)
        tests[test] = tests[test].copy() if test in tests else new_test(test)
    context = _context_if_judged(tests, [tests[ids.get(run.test, run.test)] for run in runs], runs, record)
    for run in runs:
        stats = tests[ids.get(run.test, run.test)]
        # A test that did not run in the repeated build has no outcome on this commit.
        same_commit = previous.repeated != NEVER and stats.last_build >= previous.repeated
        if stats.runs and previous.same_run != NEVER and stats.last_build >= previous.same_run:
            stats.mixed = build_index
        _apply_run(stats, run, record, same_commit, context)
        stats.last_build, stats.origin = build_index, origins.get(run.test, stats.origin)
        if not stats.streak:
            stats.failing_since = NEVER
        elif stats.failing_since == NEVER:
            stats.failing_since = build_index
        if run.signature and run.outcome in "fck":
            stats.signatures = _with_signature(stats.signatures, run.signature)
    for test, words in record.source_words.items():
        test = ids.get(test, test)
        if test in tests:
            tests[test] = stats = tests[test].copy()
            stats.source_words = write_coordinates(schema().words("source").listed(words))
    return tests


def _with_signature(signatures: str, signature: str) -> str:
    """Return the last distinct signatures with this one as the newest."""
    others = [known for known in signatures.split() if known != signature]
    return " ".join((*others, signature)[-MOST_SIGNATURES:])


def _context_if_judged(
    tests: TestTable, ran: Iterable[TestStats], runs: Sequence[TestRun], record: BuildRecord
) -> FailureContext | None:
    """Return the context of the build; None where no test that ran fails or failed before: no failure is judged."""
    failing = [run for run in runs if run.outcome in "fck"]
    if not failing and not any(stats.streak for stats in ran):
        return None
    return failure_context(tests, failing, record.files if record.change_known else None)


def _apply_run(
    stats: TestStats, run: TestRun, record: BuildRecord, same_commit: bool, context: FailureContext | None
) -> None:
    stats.recent = (stats.recent + run.outcome)[-RECENT:]
    stats.revealed = (stats.revealed + Flip.NONE)[-RECENT:]
    _decay_sums(stats)
    if context:
        _judge_run(stats, run, record, same_commit, context)
    if run.outcome in "fck":
        stats.failed_5, stats.failed_50 = stats.failed_5 + 1, stats.failed_50 + 1
        stats.failures += 1
    stats.runs += 1
    if not isnan(run.seconds):
        _apply_seconds(stats, run.seconds)


def _decay_sums(stats: TestStats) -> None:
    """Let one run pass for every decayed sum; most tests never failed, and have none."""
    if stats.failed_50:
        stats.failed_5 = _decay(stats.failed_5, FAST)
        stats.failed_50 = _decay(stats.failed_50, SLOW)
    if stats.flipped_100 or stats.spells_100:
        stats.doubted_100 = _decay(stats.doubted_100, SLOWEST)
        stats.flipped_20 = _decay(stats.flipped_20, MIDDLE)
        stats.flipped_100 = _decay(stats.flipped_100, SLOWEST)
        stats.gold_100 = _decay(stats.gold_100, SLOWEST)
        stats.flaked_100 = _decay(stats.flaked_100, SLOWEST)
        stats.spells_100 = _decay(stats.spells_100, SLOWEST)


def _decay(total: float, pace: float) -> float:
    return round(total * (1.0 - pace), 6)


def _judge_run(stats: TestStats, run: TestRun, record: BuildRecord, same_commit: bool, context: FailureContext) -> None:
    """Update the spell by this run and record the flips that it reveals."""
    if run.outcome == Outcome.PASSED:
        _judge_pass(stats, record, same_commit, context)
    elif run.outcome == Outcome.FLAKED:
        _judge_pass(stats, record, same_commit, context)
        _judge_again(stats, run, True, context)
        stats.last_failure, stats.failed_as = stats.runs, type_fingerprint(run.failure_type)
        stats.spells_100 += 1
        _record_flip(stats, Flip.GOLD, 1.0)
    else:
        _judge_failure(stats, run, record, same_commit, context)


def _judge_failure(
    stats: TestStats, run: TestRun, record: BuildRecord, same_commit: bool, context: FailureContext
) -> None:
    """Begin a spell or continue it; gold where the test passed on the same commit before."""
    is_first = stats.streak == 0
    if is_first:
        _judge_again(stats, run, same_commit, context)
        stats.change, stats.companions = context.change(run.test), context.companions(run.test, run.signature)
        stats.spell = SpellState.OPEN if len(stats.recent) > 1 else SpellState.EXPLAINED
    elif stats.spell == SpellState.OPEN and stats.failures > stats.streak:  # in its first spell only a pass tells
        score = context.evidence(stats, run.test, stats.streak, stats.failed_as).score()
        if score > 0.0 and not is_mixed(stats):  # it fails so often that another failure says nothing
            _record_flip(stats, Flip.SILVER, _certainty(score))
    stats.streak += 1
    stats.failed_in, stats.failed_on, stats.last_failure = record.stream, record.branch, stats.runs
    stats.failed_as = type_fingerprint(run.failure_type)
    if run.outcome == Outcome.CONFIRMED:
        stats.spell = SpellState.EXPLAINED
    elif is_first and same_commit and stats.spell == SpellState.OPEN and not is_mixed(stats):
        stats.spell = SpellState.SETTLED
        _record_flip(stats, Flip.GOLD, 1.0)


def is_mixed(stats: TestStats) -> bool:
    """Return whether cells of a matrix run the test and the CI does not tell which: no pass follows its failure."""
    return stats.mixed != NEVER and stats.last_build - stats.mixed < MIXED_BUILDS


def _judge_pass(stats: TestStats, record: BuildRecord, same_commit: bool, context: FailureContext) -> None:
    """End the spell and judge its last failure: gold on the same commit, else by the evidence.

    Of the streams of a matrix only the one that failed ends it: a test may be broken on one system alone. A pass on
    another branch ends it, but no change there has mended anything.
    """
    if not stats.streak or stats.failed_in != record.stream:
        return
    stats.dismissed = 0.0
    if is_mixed(stats):
        pass  # the pass may be of another cell
    elif same_commit and stats.spell != SpellState.SETTLED:
        _record_flip(stats, Flip.GOLD, 1.0)
    elif stats.spell != SpellState.SETTLED:
        _judge_by_evidence(stats, record, context)
    stats.streak, stats.spell, stats.failed_in, stats.failed_on = 0, SpellState.SETTLED, "", ""
    stats.spells_100 += not is_mixed(stats)


def _judge_by_evidence(stats: TestStats, record: BuildRecord, context: FailureContext) -> None:
    """Judge the last failure of a spell that ends; what makes it no flake is kept for `_judge_again`."""
    moved = bool(stats.failed_on and record.branch) and stats.failed_on != record.branch
    ended = WEIGHTS.other_branch if moved else context.change(stats.test)
    evidence = context.evidence(stats, stats.test, stats.streak - 1, stats.failed_as)
    score = evidence._replace(end_change=ended).score()
    if stats.spell == SpellState.OPEN and score > 0.0:
        _record_flip(stats, Flip.SILVER, _certainty(score))
    elif stats.spell == SpellState.OPEN:
        stats.dismissed = round(score - evidence.past, 2) or 0.01  # 0 would mean that there was none
        if score > WEIGHTS.doubt:
            stats.doubted_100 = round(stats.doubted_100 + _certainty(score), 6)
    elif Outcome.CONFIRMED not in stats.recent[-stats.streak - 1 :]:
        stats.dismissed = round(score - evidence.past + WEIGHTS.first_run, 2)


def _judge_again(stats: TestStats, run: TestRun, same_commit: bool, context: FailureContext) -> None:
    """Judge the last spell, which was dismissed, by both spells together, now that the test fails anew.

    Only where the new failure may be a flake by itself: one that triage calls real proves nothing, nor do tests that
    break together twice.
    """
    dismissed, stats.dismissed = stats.dismissed, 0.0
    if not dismissed or run.outcome == Outcome.CONFIRMED or is_mixed(stats):
        return
    evidence = context.evidence(stats, run.test, 0, type_fingerprint(run.failure_type))
    evidence = evidence._replace(companions=context.companions_anew(run.test))
    if same_commit:
        evidence = evidence._replace(commit=WEIGHTS.passed_on_commit)
    score = dismissed + WEIGHTS.again + evidence.score()
    if score > 0.0 and evidence.score() > WEIGHTS.doubt and evidence.companions >= 0.0:
        _record_flip(stats, Flip.SILVER, WEIGHTS.again_counts)


def _certainty(score: float) -> float:
    """Return the probability that a failure was a flake, from its log-odds above 0: what a silver flip counts."""
    return round(min(WEIGHTS.surest, 1.0 / (1.0 + exp(-score))), 6)


def _record_flip(stats: TestStats, flip: Flip, certainty: float) -> None:
    """Record that the newest failure was a flip: a letter beside its outcome, where that is among the recent ones."""
    stats.last_flip = stats.last_failure
    index = len(stats.revealed) - 1 - (stats.runs - stats.last_failure)
    if index >= 0:
        stats.revealed = stats.revealed[:index] + flip + stats.revealed[index + 1 :]
    stats.flips += 1
    stats.flipped_20, stats.flipped_100 = stats.flipped_20 + 1, stats.flipped_100 + 1
    stats.flaked_100 = round(stats.flaked_100 + certainty, 6)
    if flip == Flip.GOLD:
        stats.gold_100 += 1
        stats.proven = stats.runs if stats.revealed.count(Flip.GOLD) >= PROVEN_FLIPS else stats.proven
    stats.flip_types = (stats.flip_types + stats.failed_as)[-3 * TYPES :]


def _apply_seconds(stats: TestStats, seconds: float) -> None:
    """Add a time to the recent ones, and to the decayed mean and spread of their logarithms."""
    stats.times = with_time(stats.times, seconds)
    log_seconds = log(max(seconds, SHORTEST))
    pace = max(MIDDLE, 1.0 / stats.runs)
    mean = stats.log_seconds if stats.log_seconds != UNTIMED else log_seconds
    stats.log_spread = round(stats.log_spread + pace * (abs(log_seconds - mean) - stats.log_spread), 4)
    stats.log_seconds = round(mean + pace * (log_seconds - mean), 4)
