"""The values that describe a build, which all other packages use."""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple
from zlib import crc32

NO_SECONDS = math.nan
MAX_SECONDS = 7 * 86_400.0  # of a build or a test: a longer time is a wrong clock or another unit


class Unavailable(NamedTuple):
    """A missing value and the reason: `Unavailable("not a git repository")`."""

    reason: str


class Outcome(StrEnum):
    """The outcome of one test in one build: one letter, so that a build's outcomes are one string."""

    PASSED = "p"
    FAILED = "f"
    CONFIRMED = "c"  # failed, and failed again in every rerun
    FLAKED = "k"  # failed and passed in the same build: a gold flake
    SKIPPED = "s"


class BuildOutcome(StrEnum):
    """The outcome of a build; `unstable` is Jenkins' term for a build with failed tests."""

    PASSED = "passed"
    UNSTABLE = "unstable"
    FAILED = "failed"
    UNKNOWN = "unknown"  # neither the CI nor a whole report tells it: such a build is not recorded


class TestRun(NamedTuple):
    """One test case of one build. A NamedTuple: a report of 100 MB makes a million of these."""

    test: str  # identity inside the project: "class#name", "class#[variant] name", "suite::class#name"; "/" in paths
    outcome: Outcome
    seconds: float = NO_SECONDS  # 0 to MAX_SECONDS, or NO_SECONDS where the report has no such time
    failure_type: str = ""  # exception type or first word of the message; stays home
    file: str = ""  # path relative to the repository root, where the report names it
    line: int = 0  # 1-based, 0 where unknown
    suite: str = ""  # the suite or file that holds the test; in `test` only where two would have one name
    attempt: int = 0  # which attempt at the test this is, from 1, where the report numbers them
    message: str = ""  # of the failure, at most two lines; shown, never stored
    signature: str = ""  # of the failure: a hash that failures with one cause share; stays home


TestRun.__test__ = False  # type: ignore[attr-defined]  # pytest: a value, not a test class


class Dropped(NamedTuple):
    """A file or test case that was dropped, or repaired and kept."""

    source: str  # file, and where inside it
    reason: str
    kept: bool = False  # True: repaired, what stands was kept
    is_warning: bool = False  # kept, and worth a line on stderr


class Origin(NamedTuple):
    """Where a report had a test: what tells it from others of its class and name. Parts are "" where not told."""

    suite: str = ""  # without the versions of browsers
    file: str = ""
    folder: str = ""  # of the report, without the usual ones
    report: str = ""  # its path
    exact: str = ""  # the suite with versions
    short: str = ""  # "class#name", where the id has a part of the above because the build has several of these


PART = 3  # characters of a fingerprint that stand for one part of an origin
FINGERPRINT = 4 * PART  # ... and those before the short id


def fingerprint(origin: Origin) -> str:
    """Return an origin as the history keeps it: three hex digits for each part, and the short id behind them.

    >>> fingerprint(Origin(suite="web", report="junit", short="cart#adds"))
    '851000000bbecart#adds'
    """
    return "".join(f"{crc32(part.encode()) & 0xFFF:03x}" for part in origin[:4]) + origin.short


class Reports(NamedTuple):
    """The content of a build's test reports: one TestRun per test, and what was dropped or repaired."""

    tests: tuple[TestRun, ...] = ()
    files: int = 0
    dropped: tuple[Dropped, ...] = ()
    digest: str = ""  # hex SHA-256 over the bytes of the files, in sorted order of their own digests
    origins: tuple[Origin, ...] = ()  # of `tests`, in their order; () where nothing is known of them

    def outcome(self) -> BuildOutcome:
        """Return failed if a test failed in all its attempts; passed if there are tests and nothing was lost."""
        if any(run.outcome in "fc" for run in self.tests):
            return BuildOutcome.FAILED
        is_whole = bool(self.tests) and all(item.kept for item in self.dropped)
        return BuildOutcome.PASSED if is_whole else BuildOutcome.UNKNOWN


class FileChange(NamedTuple):
    """One line of `git diff --numstat`."""

    path: str  # after the change, relative to the repository root
    added: int = 0  # lines; 0 for a binary file
    deleted: int = 0
    renamed_from: str = ""


class Change(NamedTuple):
    """The change that a build tests, as far as git reveals it."""

    commit: str  # hex; "" for a dirty work tree
    tree: str  # hex of the tree that is built; "" for a dirty work tree
    author: str  # e-mail of the last commit's author; stays home
    files: tuple[FileChange, ...] = ()
    base: str = ""  # what the files were compared with: "merge-base with origin/main", "first parent"
    notice: str = ""  # a degraded reading and its remedy: "shallow clone; set fetch-depth: 0"
    words: tuple[str, ...] = ()  # identifiers of the changed lines, where they were asked for; stay home


class CiRun(NamedTuple):
    """The values of the CI's variables; strings are "" where the CI does not set them."""

    vendor: str = "local"  # the name in ci_vendors.VENDORS; generic: any other, local: none
    run: str = ""
    attempt: int = 1
    job: str = ""
    cell: str = ""  # canonical text of the matrix cell
    branch: str = ""
    base_branch: str = ""  # the target of a pull request
    event: str = ""  # push, pull_request, schedule, manual, tag or other
    commit: str = ""
    commit_before: str = ""  # the push's old tip, where told
    started_at: float | Unavailable = Unavailable("this CI does not tell when the job started")
    outcome: BuildOutcome | Unavailable = Unavailable("this CI does not tell how the job went")
    outcome_so_far: bool = False  # the CI says passed until a step has failed: failing tests tell more
    untrusted: bool = False  # a fork's or Dependabot's run: nothing is sent
    os: str = ""  # linux, windows, macos
    number: int | None = None  # counts the runs of this workflow: the next run has the next number; None if not told
    workflow: str = ""  # what the job is a part of: jobs of several workflows may have one name


class Duration(NamedTuple):
    """A build's wall time and its source; durations of different sources are never mixed."""

    seconds: float
    source: str  # jenkins, gitlab, ... (the CI's own start), mark (of `predict`), given, tests (their sum)


class BuildContext(NamedTuple):
    """Everything known before a build starts: the input of every prediction."""

    ci: CiRun
    change: Change | Unavailable
    started_at: float  # seconds since the epoch, UTC


class FinishedBuild(NamedTuple):
    """The data read from a finished build that has no name yet."""

    situation: BuildContext
    finished_at: float  # seconds since the epoch
    duration: Duration | Unavailable
    outcome: BuildOutcome
    reports: Reports


class Build(NamedTuple):
    """One finished job run."""

    name: str  # hex, a keyed hash: the same job run twice has the same name
    situation: BuildContext
    finished_at: float  # seconds since the epoch: when its outcome and time were known
    duration: Duration | Unavailable
    outcome: BuildOutcome
    reports: Reports

    def failures(self) -> Iterable[TestRun]:
        """Return the tests that failed at least once, flakes included."""
        return (run for run in self.reports.tests if run.outcome in "fck")


class LeftOut(NamedTuple):
    """The tests that a selection left out of one build."""

    tests: tuple[str, ...]  # ids
    seconds: float = 0.0  # their predicted time
    shadow: bool = False  # all tests ran: this is what would have been left out


class SelectionTally(NamedTuple):
    """What selections have left out so far, what that saved, and what it missed."""

    builds: int = 0  # of which a part ran
    saved_seconds: float = 0.0
    caught: int = 0  # of these builds, those that showed a failure
    escaped: int = 0  # builds in which a test began to fail that selections had left out since it ran last
    shadow_builds: int = 0  # in which all tests ran beside a selection
    shadow_seconds: float = 0.0  # that these selections would have saved
    shadow_red: int = 0  # of these builds, those in which tests began to fail
    shadow_green: int = 0  # of the red ones, those in which the selection has none of these tests
    left_out: tuple[str, ...] = ()  # tests that selections have left out since they ran last

    @property
    def escape_rate(self) -> float:
        """Return the share of failures that were seen only later, in [0, 1]; NO_SECONDS without a failure."""
        red = self.caught + self.escaped
        return self.escaped / red if red else NO_SECONDS

    @property
    def false_green_rate(self) -> float:
        """Return the share of red shadow builds that would have looked green; NO_SECONDS without one."""
        return self.shadow_green / self.shadow_red if self.shadow_red else NO_SECONDS


NO_SELECTIONS = SelectionTally()


class TimelineFailure(NamedTuple):
    """One failed test of a build: what it was taken for, and what it turned out to be."""

    test: str
    outcome: str  # a letter of `Outcome`: f, c or k
    flaky: float = NO_SECONDS  # predicted probability of a flake; NO_SECONDS where nothing was predicted
    was_flake: bool | None = None  # None: not known yet


class TimelineBuild(NamedTuple):
    """One build of the timeline."""

    number: int  # of the build in the history, from 0
    name: str
    stream: str
    started_at: float
    finished_at: float
    seconds: float
    outcome: str
    branch: str
    commit: str
    tests: int = 0
    failed: int = 0  # tests that failed, also those beyond MOST_FAILURES
    incident: bool = False
    expected: float = NO_SECONDS
    low: float = NO_SECONDS
    high: float = NO_SECONDS
    jenkins: float = NO_SECONDS
    risk: float = NO_SECONDS
    version: int = 0  # of the shared model
    failures: tuple[TimelineFailure, ...] = ()

    @property
    def is_predicted(self) -> bool:
        """Return whether a duration was predicted before the build was learned."""
        return math.isfinite(self.expected)


class ChangedTest(NamedTuple):
    """One of several tests that became slower or faster in the same build, and its times in seconds."""

    test: str
    before: float
    after: float


class TimeChange(NamedTuple):
    """A test or a job that became slower or faster for good, or many tests that did so in the same build."""

    kind: str  # test or job
    subject: str  # id of the test, of many the one that changed most, or stream of the job
    before: float  # seconds; of many tests their sum
    after: float
    commit_before: str  # the change lies between these commits
    commit_after: str
    since: float  # when the first build with the new time ended, seconds since the epoch
    found_at: float  # when the build that made it certain ended
    found_in: str  # its name
    resolved_at: float = 0.0  # when it was found to have gone back; 0: it has not
    together: int = 0  # tests that changed in the same build, 0 for a single one
    members: tuple[ChangedTest, ...] = ()  # of these those that have not gone back

    @property
    def is_slower(self) -> bool:
        """Return whether the time rose."""
        return self.after > self.before
