"""The page of a project, its values and its HTML: build times, slow and flaky tests, failures, accuracy.

Every value of the page is computed in `diagnostics.insights`. The page works without its script, which sorts, filters
and shows what a point of a chart says; without styles and scripts inside the document it fits Jenkins' policy.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedstep.ingest.code_host import NO_CODE_HOST, CodeHost
from fedstep.report.html import TEMPLATES, render_page
from fedstep.report.units import count, visible
from fedstep.report.wording import (
    describe_change,
    describe_selections,
    describe_times,
    format_model,
    name_job,
    name_subject,
)
from fedstep.results import ModelUsed
from fedstep.types import NO_SELECTIONS, SelectionTally, TimeChange, TimelineBuild, Unavailable

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CHARTS = 4  # jobs with a chart; the others are in the table
MOST_ROWS = 50  # of a table
MOST_FAILING = 5  # named at the top of the page
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.#/:, -]{0,499}")  # of a test in a command that is to be pasted
FEWEST_IN_BIN = 5
TEST_STYLE = "fedstep-test.css"  # the style sheet of the pages of tests
STARTER = ModelUsed()
NOT_REPLAYED = Unavailable("it is replayed only by fedstep report --value")


@dataclass(frozen=True, slots=True)
class FlakyCost:
    """One flaky test and what it cost in the weeks that the page looks at."""

    test: str
    minutes_a_week: float
    red_builds: int  # builds that failed by flakes alone, this one among them
    reruns: int  # times it passed when it was run again in the build
    outcomes: str  # letters of the last `Outcome`s, oldest first
    revealed: str  # a letter beside each: g gold flip, s silver flip
    chance: float  # that it flakes in its next runs
    since: float  # when it was first seen to flake, seconds since the epoch
    last: float  # when it flaked last
    commits: tuple[str, str]  # between which it began, "" where not known
    muted_until: str = ""  # ISO date
    suggested: bool = False  # `fedstep quarantine suggest` names it
    link: str = ""
    mended_at: float = 0.0  # when it had passed 20 times since it flaked last; 0 while it has not
    also: tuple[str, ...] = ()  # tests that failed in the same builds, each time; what they cost is part of this
    together: str = ""  # what the page says of them


@dataclass(frozen=True, slots=True)
class SlowTest:
    """One of the slowest tests."""

    test: str
    seconds: float
    minutes_a_week: float
    link: str = ""


@dataclass(frozen=True, slots=True)
class FoundChange:
    """A change of time, and what it costs or saves: positive minutes are lost."""

    change: TimeChange
    minutes_a_week: float
    acknowledged: bool = False
    link: str = ""

    @property
    def is_open(self) -> bool:
        """Return whether somebody should look at it."""
        return self.change.is_slower and not self.change.resolved_at and not self.acknowledged


@dataclass(frozen=True, slots=True)
class JobTimes:
    """One job: its builds, oldest first, and the errors of three predictors over the builds that all could predict."""

    stream: str
    builds: tuple[TimelineBuild, ...]
    usual: float  # median seconds of its last builds
    builds_a_week: float
    predicted: int = 0  # builds that the errors are of
    error: float = 0.0  # mean absolute, in seconds
    jenkins_error: float = 0.0
    median_error: float = 0.0  # of the median of 20
    inside: float = 0.0  # share of builds inside the 90 % interval
    changes: tuple[FoundChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Failures:
    """How builds ended, and how well the risk was predicted."""

    builds: int = 0
    failed: int = 0
    by_flakes: int = 0  # failed builds in which nothing but flakes failed
    streak: int = 0  # newest builds with one outcome
    streak_passed: bool = True
    longest_red: int = 0
    bins: tuple[tuple[float, float, int], ...] = ()  # mean risk, share that failed, builds


@dataclass(frozen=True, slots=True)
class FailingTest:
    """A test that failed in each of its newest runs, or in nearly all: nobody calls that flaky."""

    test: str
    failures: int  # in its newest runs
    runs: int  # so many
    since: float = 0.0  # when they began where it failed in all, seconds since the epoch; 0 where that is not kept
    link: str = ""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What failures were taken for, by what they turned out to be: `flaky_flaky` was called flaky and was."""

    flaky_flaky: int = 0
    flaky_real: int = 0
    unsure_flaky: int = 0
    unsure_real: int = 0
    real_flaky: int = 0
    real_real: int = 0

    @property
    def known(self) -> int:
        """Return the number of failures whose truth is known."""
        return sum(getattr(self, name) for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class ValueOfSharing:
    """Losses of this project's own builds, predicted from its history alone and with the shared model."""

    task: str
    examples: int
    alone: float
    shared: float


@dataclass(frozen=True, slots=True)
class Insights:
    """Everything that the page of a project shows."""

    project: str
    made_at: float  # seconds since the epoch
    weeks: float  # that costs are averaged over, up to the newest build
    builds: int
    tests: int
    jobs: tuple[JobTimes, ...] = ()  # the most frequent first
    flaky: tuple[FlakyCost, ...] = ()  # the most expensive first
    slowest: tuple[SlowTest, ...] = ()
    changes: tuple[FoundChange, ...] = ()  # of tests and jobs, newest first
    failures: Failures = Failures()
    failing: tuple[FailingTest, ...] = ()  # those that failed for the longest first
    newest: float = 0.0  # when the newest build ended, seconds since the epoch
    verdicts: Verdicts = Verdicts()
    selections: SelectionTally = NO_SELECTIONS
    mute_complaints: tuple[str, ...] = ()
    muted_failures: Mapping[str, int] = field(default_factory=dict)  # of muted tests in these weeks, by test
    releases: tuple[tuple[str, str], ...] = ()  # muted tests that were quiet, each with the evidence
    model: ModelUsed = STARTER
    updates_sent: int = 0
    bytes_sent: int = 0
    value: tuple[ValueOfSharing, ...] | Unavailable = NOT_REPLAYED
    warnings: tuple[str, ...] = ()
    host: CodeHost = NO_CODE_HOST  # where commits are shown

    def open_changes(self) -> tuple[FoundChange, ...]:
        """Return the changes that somebody should look at, the most expensive first."""
        is_open = (change for change in self.changes if change.is_open)
        return tuple(sorted(is_open, key=lambda change: -change.minutes_a_week))


@dataclass(frozen=True, slots=True)
class FixFirst:
    """The one thing that costs most."""

    what: str  # the test or job
    why: str
    how: str  # a command
    minutes_a_week: float
    link: str = ""
    is_test: bool = True  # False: a job
    commits: tuple[str, str] = ("", "")  # between which it began, "" where not known


def fix_first(insights: Insights) -> FixFirst | None:
    """Return what costs most: a flaky test that is not muted, or something that got slower; None if nothing does."""
    return max(_candidates(insights), key=lambda candidate: candidate.minutes_a_week, default=None)


def fix_first_test(insights: Insights) -> FixFirst | None:
    """Return the test that costs most, None if none does."""
    tests = (candidate for candidate in _candidates(insights) if candidate.is_test)
    return max(tests, key=lambda candidate: candidate.minutes_a_week, default=None)


def _candidates(insights: Insights) -> Iterator[FixFirst]:
    for flaky in insights.flaky:
        if not flaky.muted_until and flaky.minutes_a_week > 0:
            why = f"It is flaky since {format_day(flaky.since)} and {_describe_cost(flaky)}."
            how = f"fedstep explain {_argument(flaky.test)}"
            yield FixFirst(flaky.test, why, how, flaky.minutes_a_week, flaky.link, commits=flaky.commits)
    for open_change in insights.open_changes():
        change, is_test = open_change.change, open_change.change.kind == "test"
        what = name_subject(change) if is_test else f"job {name_subject(change)}"
        why = f"It became slower on {format_day(change.since)}: {describe_change(change)}."
        commits = (change.commit_before, change.commit_after)
        yield FixFirst(what, why, _show_commits(change), open_change.minutes_a_week, open_change.link, is_test, commits)


def _argument(test: str) -> str:
    """Return the test, or the last part of a Vitest's, as an argument of a shell command.

    TEST where that is no plain name, which is not to be pasted.
    """
    name = test.rpartition(" > ")[2]
    return next((f"'{argument}'" for argument in (test, name) if _PLAIN.fullmatch(argument)), "TEST")


def _show_commits(change: TimeChange) -> str:
    commits = (change.commit_before[:10], change.commit_after[:10])
    return "git log --stat {}..{}".format(*commits) if all(commit.isalnum() for commit in commits) else "fedstep ack"


def _describe_cost(flaky: FlakyCost) -> str:
    parts = [count(flaky.red_builds, "red build")] * bool(flaky.red_builds)
    parts += [count(flaky.reruns, "rerun")] * bool(flaky.reruns)
    return f"caused {' and '.join(parts) or 'no red build'}"


def project_html(insights: Insights, stylesheet: str = "", script: str = "") -> str:
    """Return the page as a whole HTML document; with the names of files, style and script are not inside it."""
    from fedstep.report.charts import NARROW, WIDE, builds_beyond_axis, draw_build_times, draw_calibration

    def chart(job: JobTimes) -> "tuple[Markup, Markup, tuple[float, ...]]":
        changes = [finding.change for finding in job.changes]
        wide, narrow = (draw_build_times(name_job(job.stream), job.builds, changes, width) for width in (WIDE, NARROW))
        return wide, narrow, builds_beyond_axis(job.builds)

    charted = [job for job in insights.jobs if len(job.builds) > 1][:MOST_CHARTS]
    enough = len(insights.failures.bins) > 1
    return render_page(
        "project.html",
        page=insights,
        first=(first := fix_first(insights)),
        first_test=None if not first or first.is_test else fix_first_test(insights),
        minutes_lost=sum(flaky.minutes_a_week for flaky in insights.flaky),
        open_changes=insights.open_changes(),
        charts=[(job, *chart(job)) for job in charted],
        calibration=[draw_calibration(insights.failures.bins, width) for width in (420, NARROW)] if enough else (),
        flaky=insights.flaky[:MOST_ROWS],
        changes=insights.changes[:MOST_ROWS],
        failing=insights.failing[:MOST_FAILING],
        slowest=insights.slowest[:MOST_ROWS],
        model=format_model(insights.model),
        day=format_day,
        minutes=describe_minutes,
        describe_times=describe_times,
        describe_cost=_describe_cost,
        selections=describe_selections(insights.selections),
        name_job=name_job,
        name_subject=name_subject,
        strip=strip,
        stylesheet=stylesheet,
        script=script,
    )


def project_assets() -> dict[str, str]:
    """Return the style sheets and the script of the pages by file name, for pages that have them not inside."""
    common, page, test = (
        (TEMPLATES / name).read_text(encoding="utf-8") for name in ("pages.css", "project.css", "explanation.css")
    )
    script = (TEMPLATES / "project.js").read_text(encoding="utf-8")
    return {"fedstep.css": f"{common}\n{page}", TEST_STYLE: f"{common}\n{test}", "fedstep.js": script}


STRIP_KINDS = {"p": "passed", "f": "failed", "c": "failed", "k": "flaked"}


def strip(flaky: FlakyCost) -> tuple[tuple[int, str, str], ...]:
    """Return place, kind of bar and kind of flip of the last outcomes of a test."""
    flips = {"g": "gold", "s": "silver"}
    revealed = flaky.revealed.ljust(len(flaky.outcomes), "-")
    pairs = enumerate(zip(flaky.outcomes, revealed, strict=False))
    return tuple((index, STRIP_KINDS.get(letter, "skipped"), flips.get(flip, "")) for index, (letter, flip) in pairs)


def describe_minutes(minutes: float) -> str:
    """Format minutes a week.

    >>> describe_minutes(0.2), describe_minutes(12.4), describe_minutes(150), describe_minutes(0.001)
    ('12 s', '12 min', '2.5 h', 'under 1 s')
    """
    size = abs(minutes)
    sign = "−" if minutes < 0 else ""
    if size < 1:
        return f"{sign}{60 * size:.0f} s" if size >= 1 / 120 else f"{sign}under 1 s" if size else "0"
    return f"{sign}{size:.0f} min" if size < 90 else f"{sign}{size / 60:.1f} h"


def format_day(seconds: float) -> str:
    """Format a time as its day, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d") if seconds else "unknown"


def summarize_page(insights: Insights) -> str:
    """Return one line for the terminal."""
    first = fix_first(insights)
    lost = sum(flaky.minutes_a_week for flaky in insights.flaky)
    parts = [count(len(insights.flaky), "flaky test"), f"{describe_minutes(lost)} a week lost to flakes"]
    parts.append(count(len(insights.open_changes()), "open change of time", "open changes of time"))
    what = insights.failing[0].test if insights.failing else first.what if first else ""
    return "; ".join((*parts, f"fix first: {visible(what)}" if what else "nothing to fix first"))


def most_expensive_tests(insights: Insights) -> tuple[str, ...]:
    """Return the tests that the page names, those that cost most first, each once."""
    slower = (finding.change.subject for finding in insights.open_changes() if finding.change.kind == "test")
    failing = (failing_test.test for failing_test in insights.failing[:MOST_FAILING])
    named = (
        *failing,
        *(flaky.test for flaky in insights.flaky[:MOST_ROWS]),
        *slower,
        *(slow_test.test for slow_test in insights.slowest),
    )
    return tuple(dict.fromkeys(named))


def with_links(insights: Insights, links: Mapping[str, str]) -> Insights:
    """Return the insights with a link beside each test that has one; the paths are relative to the page."""
    return replace(
        insights,
        flaky=tuple(replace(flaky, link=links.get(flaky.test, "")) for flaky in insights.flaky),
        failing=tuple(replace(failing, link=links.get(failing.test, "")) for failing in insights.failing),
        slowest=tuple(replace(slow_test, link=links.get(slow_test.test, "")) for slow_test in insights.slowest),
        changes=tuple(replace(finding, link=links.get(finding.change.subject, "")) for finding in insights.changes),
    )


def value_text(value: tuple[ValueOfSharing, ...] | Unavailable) -> str:
    """Return what sharing gains here, a line for each task."""
    if isinstance(value, Unavailable):
        return f"value of the shared model: not known, {value.reason}\n"
    lines = [f"{'':<20} {'examples':>9} {'alone':>8} {'shared':>8}"]
    lines += [f"{gain.task:<20} {gain.examples:>9,} {gain.alone:>8.3f} {gain.shared:>8.3f}" for gain in value]
    return "".join(f"{line}\n" for line in lines)
