"""The results of the steps as values, which `fedstep.report` renders as text.

NamedTuples: a frozen dataclass costs each start four times as much.
"""

from collections.abc import Sequence
from typing import NamedTuple

from fedstep.errors import FedstepError
from fedstep.types import BuildOutcome, Dropped, Duration, LeftOut, SelectionTally, TimeChange, Unavailable

Problems = tuple[FedstepError, ...]
"""Errors that a step survived; the message of each is also among its warnings."""


class FeatureContribution(NamedTuple):
    """What one feature adds to the margin of a prediction against what is usual.

    The base of a prediction, which is the margin of a usual one, and all contributions add up to its margin: for a
    linear model these are its Shapley values (Lundberg and Lee, "A unified approach to interpreting model
    predictions", 2017). A feature of contribution 0 is a fact that a phrase uses.
    """

    feature: str  # with its value: "flip-rate-20=0.13", "source=sleep"
    contribution: float


OK, WARNING, PROBLEM = "ok", "warning", "problem"


class DiagnosticCheck(NamedTuple):
    """One check: its state, and the command or setting that fixes it, "" where none is needed."""

    name: str
    state: str  # ok, warning, problem
    says: str
    fix: str = ""


class Diagnosis(NamedTuple):
    """All checks, in the order of a build."""

    checks: tuple[DiagnosticCheck, ...]

    def count_in(self, state: str) -> int:
        """Return the number of checks in this state."""
        return sum(check.state == state for check in self.checks)


class Interval(NamedTuple):
    """An expected build time in seconds with the bounds of its 90 % interval."""

    seconds: float
    low: float
    high: float
    source: str = ""  # the kind of duration it is of: jenkins, gitlab, mark, given, tests
    jenkins_seconds: float | Unavailable = Unavailable("no passed build yet")  # Jenkins' own estimate, beside it
    reasons: tuple[FeatureContribution, ...] = ()  # contributions to log(seconds)
    shows_jenkins: bool = False  # the estimate was asked for; where Jenkins times the builds it is always shown


class Risk(NamedTuple):
    """The probability that the build fails, in [0, 1], and the features that raise or lower it."""

    probability: float
    reasons: tuple[FeatureContribution, ...] = ()
    base: float = 0.0  # margin of a usual build


class TestRisk(NamedTuple):
    """The probability that a test flakes within its next runs, in [0, 1], and its past."""

    test: str
    probability: float
    reasons: tuple[FeatureContribution, ...] = ()
    runs: int = 0
    failures: int = 0
    flips: int = 0
    last_outcomes: str = ""  # letters of `Outcome`, oldest first
    file: str = ""
    line: int = 0  # 1-based, 0 where unknown
    base: float = 0.0  # margin of a usual test
    also: tuple[str, ...] = ()  # tests that failed in the same builds as this one, each time: likely by one cause


TestRisk.__test__ = False  # type: ignore[attr-defined]  # pytest: a value, not a test class


class FailingSince(NamedTuple):
    """Since when a test fails in every build."""

    builds: int  # that it failed in before this one
    commit: str = ""  # of the first of them, "" where not known
    commit_before: str = ""  # of the build before in its job: what broke it lies between the two


class FailureVerdict(NamedTuple):
    """One failed test with the probability that the failure is flaky, in [0, 1], and the reasons."""

    test: str
    flaky_probability: float
    reasons: tuple[FeatureContribution, ...] = ()
    verdict: str = "unsure"  # flaky, regression, unsure
    failure_type: str = ""
    file: str = ""
    line: int = 0  # 1-based, 0 where unknown
    passed_on_rerun: bool = False  # in the same build
    base: float = 0.0  # margin of a usual failure
    message: str = ""  # at most two lines
    signature: str = ""  # failures with one cause have the same
    kind: str = "new"  # one of FAILURE_KINDS
    since: FailingSince | Unavailable = Unavailable("it did not fail in the build before")
    runs: int = 0  # of the test, known before this one
    is_new: bool = False  # the history knows tests, but not this one: the change adds it, or it was not recorded yet
    last_touched: str = ""  # who changed its file last, from git: "Ada, 3 days ago (1a2b3c4)"
    if_rerun_passes: float = 1.0  # the probability that it is flaky once it passes when it is run again as it is ...
    if_rerun_fails: float = 0.0  # ... and once it fails again


NO_BUILD_YET = "no build of this project is known yet"  # begins the notice of a first run, which is no fault

FAILURE_KINDS = ("new", "new-way", "failing", "flake")
"""New in this build; a known flake that fails in a way not seen before; failing since earlier builds; a known flake."""


class FailureGroup(NamedTuple):
    """Failures with one cause: their messages and stacks agree, apart from numbers, paths and the like."""

    kind: str  # one of FAILURE_KINDS, or "incident"
    failures: tuple[FailureVerdict, ...]  # at least one, the least likely flaky first

    @property
    def first(self) -> FailureVerdict:
        """Return the failure that stands for all."""
        return self.failures[0]


def group_failures(failures: Sequence[FailureVerdict], *, incident: bool) -> tuple[FailureGroup, ...]:
    """Return the groups, most urgent first: what is new before what was failing and what is known to flake.

    Failures with one signature are one group, whatever is known of their tests; a failure without one stands alone. In
    an incident every group is of that kind.
    """
    by_cause: dict[str, list[FailureVerdict]] = {}
    for index, failure in enumerate(sorted(failures, key=_urgency)):
        by_cause.setdefault(failure.signature or f"#{index}", []).append(failure)
    groups = (FailureGroup("incident" if incident else own[0].kind, tuple(own)) for own in by_cause.values())
    return tuple(sorted(groups, key=lambda group: (*_urgency(group.first), -len(group.failures))))


def _urgency(failure: FailureVerdict) -> tuple[int, int, float]:
    verdicts = ("regression", "unsure", "flaky")
    verdict = verdicts.index(failure.verdict) if failure.verdict in verdicts else 1
    kind = FAILURE_KINDS.index(failure.kind) if failure.kind in FAILURE_KINDS else 0
    return verdict, kind, failure.flaky_probability


class MutedFailure(NamedTuple):
    """A failure on the mute list: estimated, and neither counted nor annotated."""

    failure: FailureVerdict
    owner: str
    reason: str
    until: str  # ISO date, the last day


class ModelUsed(NamedTuple):
    """The model used: the one pulled from an aggregator, or the starter model of the package."""

    kind: str = "starter"  # production, starter
    version: int = 0
    age_seconds: float | Unavailable = Unavailable("shipped with fedstep")  # since it was pulled
    url: str = ""  # of the aggregator


class ReportCounts(NamedTuple):
    """Counts of what was read from the reports, and of what was dropped or repaired."""

    files: int = 0
    tests: int = 0
    dropped: tuple[Dropped, ...] = ()
    skipped: int = 0  # of the tests

    @property
    def is_whole(self) -> bool:
        """Return whether nothing was lost; what was repaired is whole."""
        return all(item.kept for item in self.dropped)


class Prediction(NamedTuple):
    """The result of `fedstep predict`."""

    status: str  # ok, local, degraded
    duration: Interval | Unavailable
    risk: Risk | Unavailable
    flaky: tuple[TestRisk, ...]  # seen to flip, most likely first
    model: ModelUsed
    base: str = ""  # what the change was measured against: "3 files changed against origin/main"
    warnings: tuple[str, ...] = ()
    builds_known: int = 0
    tests_known: int = 0
    problems: Problems = ()
    suspects: tuple[TestRisk, ...] = ()  # never seen to flip, suspected by their words, time and neighbours


class ForgivenFailure(NamedTuple):
    """A failure that does not fail the build, and why."""

    failure: FailureVerdict
    why: str


class BuildVerdict(NamedTuple):
    """Whether the failures of a build are to fail it. What was forgiven is counted everywhere."""

    passed: bool
    reasons: tuple[str, ...]  # why it failed; empty if it passed
    counted: tuple[FailureVerdict, ...] = ()
    forgiven: tuple[ForgivenFailure, ...] = ()


class NotRun(NamedTuple):
    """The known tests that a build does not have, though nothing was said to leave them out."""

    tests: tuple[str, ...] = ()
    places: tuple[str, ...] = ()  # modules, classes or packages of theirs that could not be loaded; () if none is known
    known: int = 0  # tests that the history has of the last builds
    unloaded: int = 0  # how many of `tests`, the first, are of these places
    is_complete: bool = False  # whether the others are told, too: builds of this job usually run the same tests


class SlowerTest(NamedTuple):
    """A test that made its build slower than expected. Times are seconds."""

    test: str
    seconds: float
    usual_seconds: float | Unavailable


class TriageReport(NamedTuple):
    """The result of `fedstep triage`."""

    status: str  # ok, local, degraded
    failures: tuple[FailureVerdict, ...]
    model: ModelUsed
    reading: ReportCounts
    incident: bool = False
    incident_reason: str = ""  # "61 of 80 tests failed at once"
    warnings: tuple[str, ...] = ()
    muted: tuple[MutedFailure, ...] = ()  # not among `failures`
    problems: Problems = ()
    quarantined: int = 0  # entries of the mute list that are valid today
    cause: str = ""  # why the job failed: infrastructure, code, tests, unknown or none
    cause_rule: str = ""  # the rule that decided
    is_incomplete: bool = False  # the job was stopped, or failed without a failed test
    ruling: BuildVerdict | None = None  # of `fedstep verdict` alone
    taken_ids: frozenset[str] = frozenset()  # ids of other tests that a failure would have without its suite or variant
    not_run: NotRun = NotRun()

    @property
    def groups(self) -> tuple[FailureGroup, ...]:
        """Return the failures by their causes, the most urgent first."""
        return group_failures(self.failures, incident=self.incident)


class ExampleCounts(NamedTuple):
    """Training examples of the history: how many were learned in this step, and how many wait to be sent.

    An example is scored and learned in the step in which its label becomes known, so one number counts all three.
    """

    learned: int = 0
    waiting: int = 0


class SentUpdate(NamedTuple):
    """One update that was sent: its size in bytes and, per task, the rounded number of examples it states."""

    size: int  # bytes
    rows: tuple[tuple[str, int], ...]  # ("flaky", 32): task and bucket


class Exchange(NamedTuple):
    """The updates sent to the aggregator and the model pulled from it."""

    url: str
    sent: tuple[SentUpdate, ...] = ()
    unsent: int = 0  # updates that wait in the outbox
    candidate_before: int = 0
    candidate_after: int = 0
    production_before: int = 0
    production_after: int = 0
    withheld: str = ""  # why this build adds nothing to what is sent


class SelectionReport(NamedTuple):
    """What the tests' selection left out of a build, and what selections have done so far."""

    left_out: LeftOut | None  # None: in this build all tests ran, and nothing was chosen
    tally: SelectionTally


class TrainReport(NamedTuple):
    """The result of `fedstep train`."""

    status: str  # ok, local, degraded
    build: str  # its name, hex
    outcome: BuildOutcome
    duration: Duration | Unavailable
    expected: Interval | Unavailable  # of this build, predicted before it was learned
    failures: tuple[FailureVerdict, ...]
    flakiest: tuple[TestRisk, ...]  # seen to flip, most likely first
    model: ModelUsed
    reading: ReportCounts
    examples: ExampleCounts
    exchange: Exchange | Unavailable
    incident: bool = False
    incident_reason: str = ""
    warnings: tuple[str, ...] = ()
    muted: tuple[MutedFailure, ...] = ()  # not among `failures`
    problems: Problems = ()
    changes: tuple[TimeChange, ...] = ()  # tests and jobs that became slower or faster for good, found by this step
    selection: SelectionReport | None = None  # None: tests of this project were never selected
    taken_ids: frozenset[str] = frozenset()  # as in TriageReport
    not_run: NotRun = NotRun()
    slower: tuple[SlowerTest, ...] = ()  # of a build slower than expected: what took longest beyond its usual time

    @property
    def groups(self) -> tuple[FailureGroup, ...]:
        """Return the failures by their causes, the most urgent first."""
        return group_failures(self.failures, incident=self.incident)
