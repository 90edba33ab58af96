"""Triage the failures of a finished build, and decide whether they fail it.

A failure is flaky, a regression or unsure, with a probability and its reasons. The verdict on the build may forgive
failures that are quarantined, or known to flake.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeVar

from fedstep.errors import InputError
from fedstep.features.test_features import ACTIVE_BUILDS
from fedstep.federation.model_cache import CachedModel, load_word_weights
from fedstep.history.flakiness import is_incident
from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import Summary, load_summary, stream_name, usual_stream
from fedstep.history.test_table import TestStats, TestTable, taken_ids, with_known_ids
from fedstep.ingest.change_impact import NOT_STARTED, group_of, is_stand_in, unloaded_place
from fedstep.ingest.job_failure import classify_job
from fedstep.ingest.junit import ERRORS_OUTSIDE
from fedstep.ingest.mutes import NEW_IS_NOT_MUTED, Mute, Mutes, find_mute
from fedstep.model.predictor import load_predictor
from fedstep.pipeline.context import (
    RunContext,
    change_problems,
    describe_model,
    empty_history_notices,
    fetch_history,
    input_notices,
    local_status,
)
from fedstep.results import (
    BuildVerdict,
    FailureVerdict,
    ForgivenFailure,
    MutedFailure,
    NotRun,
    Problems,
    ReportCounts,
    TrainReport,
    TriageReport,
)
from fedstep.types import Build, BuildContext, CiRun, Origin, Outcome, Reports, TestRun, Unavailable

LATELY_CHANGED = 0.1  # share of the tests: where more of them did not run in the newest build, builds run parts of them
NO_TEST_LEFT = "none of its tests ran, and the report announces errors outside of its tests: it does not compile"
Judged = TypeVar("Judged", TriageReport, TrainReport)


def triage(
    store: ProjectStore,
    context: BuildContext,
    reports: Reports,
    cached: CachedModel,
    problems: Problems = (),
    log: str = "",
    exit_code: int | None = None,
) -> TriageReport:
    """Return a verdict for each failure in `reports`, with the `problems` survived so far. Nothing is written.

    `log` is the end of the job's log and `exit_code` that of the command that ran the tests, where they are known.
    """
    loaded = load_summary(store)
    reports = with_known_ids(reports, loaded.summary.tests)
    is_part = context.ci.vendor == "local"  # where people run what they work on
    reports, not_run = settle_reports(reports, loaded.summary, context.ci, is_part=is_part, is_passed=exit_code == 0)
    job = classify_job(reports, log, exit_code)
    stream = usual_stream(loaded.summary.builds, context.ci)
    build = Build("", context, context.started_at, Unavailable("triage"), reports.outcome(), reports)
    problems = (
        *problems,
        *report_problems(reports),
        *change_problems(context.change),
    )
    return TriageReport(
        status=local_status(cached, problems),
        failures=load_predictor(store, cached.model.production, load_word_weights()).failures(
            loaded.summary, build, stream
        ),
        model=describe_model(cached, context.started_at),
        reading=count_reports(reports),
        incident=is_incident(reports.tests),
        incident_reason=incident_reason(reports),
        warnings=(
            *map(str, problems),
            *empty_history_notices(loaded.summary.count, problems),
            *report_warnings(reports),
            *loaded.warnings,
            *input_notices(context.change, cached),
        ),
        problems=problems,
        taken_ids=taken_ids(loaded.summary.tests),
        not_run=not_run,
        cause=job.cause,
        cause_rule=job.rule,
        is_incomplete=job.is_incomplete,
    )


def find_not_run(reports: Reports, summary: Summary, ci: CiRun, *, is_part: bool) -> NotRun:
    """Return the known tests that the build does not have: of what could not be loaded, else those of the build before.

    Args:
        reports: Those of the build.
        summary: The history before it.
        ci: The build's job.
        is_part: Whether only a part of the tests was to run; then the others are not missed.
    """
    since, last = summary.count - ACTIVE_BUILDS, summary.count - 1
    ran = {run.test for run in reports.tests}
    places = {
        group: run.outcome for run in reports.tests if run.outcome in "fcs" and (group := unloaded_place(run.test))
    }
    known = {
        test: stats for test, stats in summary.tests.items() if stats.last_build >= since and not is_stand_in(test)
    }
    place_of = {test: _place_of(test, places) for test in known if test not in ran}
    unloaded = [test for test, group in place_of.items() if group and places[group] != Outcome.SKIPPED]
    others = [test for test, group in place_of.items() if not group and known[test].last_build == last]
    changed = sum(stats.last_build < last for stats in known.values())
    is_usual = not is_part and changed <= LATELY_CHANGED * len(known) and not summary.selections.builds
    job = stream_name(ci, "", summary.builds)
    if not is_usual or not reports.files or not summary.builds or not summary.builds[-1].stream.startswith(job):
        others, is_usual = [], False  # without a report they may have run
    named = tuple(sorted({place_of[test] for test in unloaded}))
    return NotRun((*unloaded, *others), named, len(known), len(unloaded), is_usual)


def _place_of(test: str, places: Collection[str]) -> str:
    """Return which of the places holds the test, "" for none."""
    group = group_of(test)
    return next((unloaded for unloaded in places if f"{group}.".startswith((f"{unloaded}.", f"{unloaded}/"))), "")


def settle_reports(
    reports: Reports, summary: Summary, ci: CiRun, *, is_part: bool, is_passed: bool
) -> tuple[Reports, NotRun]:
    """Return the reports with what errors mean that gotestsum counts outside of its tests, and what did not run.

    A package of the build before, with its tests or as one that did not compile, that has no test now did not compile.
    Where none is missing, or the tests are known to have passed, the compiler warned.
    """
    not_run = find_not_run(reports, summary, ci, is_part=is_part)
    if all(item.reason != ERRORS_OUTSIDE for item in reports.dropped):
        return reports, not_run
    last = {test: stats for test, stats in summary.tests.items() if stats.last_build == summary.count - 1}
    broken = {group for test, stats in last.items() if stats.streak and (group := unloaded_place(test))}
    ran = {group_of(run.test) for run in reports.tests}
    packages = set() if is_passed else ({group_of(test) for test in not_run.tests} | broken) - ran
    if not (not_run.is_complete or is_passed or packages):
        return reports, not_run
    settled = _with_unloaded(reports, sorted(packages))
    return settled, find_not_run(settled, summary, ci, is_part=is_part)


def _with_unloaded(reports: Reports, packages: Sequence[str]) -> Reports:
    """Return the reports with a failed test for each of these packages, and no error outside of the tests."""
    failed = [
        TestRun(f"{package}#{NOT_STARTED}", Outcome.FAILED, failure_type="build failed", message=NO_TEST_LEFT)
        for package in packages
    ]
    return reports._replace(
        tests=(*reports.tests, *failed),
        origins=(*reports.origins, *(Origin() for _ in failed)) if reports.origins else (),
        dropped=tuple(
            item._replace(kept=True, is_warning=False) if item.reason == ERRORS_OUTSIDE else item
            for item in reports.dropped
        ),
    )


def separate_muted(report: Judged, mutes: Mutes) -> Judged:
    """Move the failures that a mute names from `failures` to `muted`, and warn of each mute that does not count.

    A failure of a new test stays where it is: whoever wrote a pattern did not know the test.
    """
    matched = [(failure, find_mute(failure.test, mutes, report.taken_ids)) for failure in report.failures]
    muting = [(failure, () if failure.is_new else entries) for failure, entries in matched]
    new: list[str] = [failure.test for failure, entries in matched if entries and failure.is_new]
    return report._replace(
        failures=tuple(failure for failure, entries in muting if not entries),
        muted=tuple(
            MutedFailure(failure, mute.owner, mute.reason, mute.until)
            for failure, entries in muting
            for mute in entries
        ),
        warnings=(*report.warnings, *mutes.complaints, *(f"{test} {NEW_IS_NOT_MUTED}" for test in new)),
    )


def count_reports(reports: Reports) -> ReportCounts:
    """Return how many files and tests were read, and what was dropped."""
    skipped = sum(run.outcome == Outcome.SKIPPED for run in reports.tests)
    return ReportCounts(reports.files, len(reports.tests), reports.dropped, skipped)


def incident_reason(reports: Reports) -> str:
    """Return why the whole build is an incident ("61 of 80 tests failed at once"), "" if it is none."""
    if not is_incident(reports.tests):
        return ""
    failed = sum(run.outcome in "fc" for run in reports.tests)
    ran = sum(run.outcome != Outcome.SKIPPED for run in reports.tests)
    return f"{failed} of {ran} tests failed at once"


def report_warnings(reports: Reports) -> tuple[str, ...]:
    """Return what is odd in the reports and may mean that something is missing."""
    return tuple(f"{item.source}: {item.reason}" for item in reports.dropped if item.kept and item.is_warning)


def report_problems(reports: Reports) -> Problems:
    """Return a problem if no report was read, or if files or cases had to be left out."""
    if not reports.files and not reports.dropped:
        return (InputError("no test report was read", "Give one with --junit 'path/**/*.xml'"),)
    lost = [item for item in reports.dropped if not item.kept]
    if not lost:
        return ()
    more = f" ({len(lost) - 1} more in --format json)" if len(lost) > 1 else ""
    return (InputError(f"{lost[0].source}: {lost[0].reason}{more}", "Check --junit and what writes the reports"),)


class VerdictRules(NamedTuple):
    """What is forgiven."""

    forgive_above: float = 1.1  # a failure at least as likely flaky as this is forgiven; above 1: none
    only_new_flakes: bool = False  # the ratchet: known flakes are forgiven, a test that newly flakes is not
    most_quarantined: int = 50  # entries of the mute list; with more the verdict is that there are too many


def decide(report: TriageReport, rules: VerdictRules) -> BuildVerdict:
    """Return the verdict on a triaged build.

    It fails where no report could be read, in an incident, and for each failure that is not forgiven. A test that the
    change adds is never forgiven, whether it is muted or passed when it was run again: it has no past to speak for it.
    """
    counted: list[FailureVerdict] = []
    forgiven = [
        ForgivenFailure(muted.failure, f"quarantined by {muted.owner} until {muted.until}: {muted.reason}")
        for muted in report.muted
    ]
    for failure in report.failures:
        why = "" if report.incident or failure.is_new else _why_forgiven(failure, rules)
        if why:
            forgiven.append(ForgivenFailure(failure, why))
        else:
            counted.append(failure)
    reasons = (*_faults(report, rules), *_counted_reasons(counted, rules))
    return BuildVerdict(not reasons, reasons, tuple(counted), tuple(forgiven))


def _why_forgiven(failure: FailureVerdict, rules: VerdictRules) -> str:
    is_known_flake = failure.kind == "flake"
    if rules.only_new_flakes:
        return "a known flake" if is_known_flake or (failure.passed_on_rerun and failure.kind == "new-way") else ""
    if failure.passed_on_rerun:
        return "it passed when it was run again"
    if failure.flaky_probability >= rules.forgive_above and failure.kind != "new-way":
        return f"{100 * failure.flaky_probability:.0f} % flaky, where {100 * rules.forgive_above:.0f} % are forgiven"
    return ""


def _faults(report: TriageReport, rules: VerdictRules) -> tuple[str, ...]:
    """Return what makes it impossible to say that the build passed."""
    if not report.reading.files:
        return ("no test report was read",)
    if not report.reading.tests:
        return ("the reports have no test",)
    lost = [drop for drop in report.reading.dropped if not drop.kept]
    faults = [f"{lost[0].source}: {lost[0].reason}"] if lost else []
    if report.is_incomplete:
        faults.append(f"{report.cause}: {report.cause_rule}")
    if report.incident:
        faults.append(f"an incident: {report.incident_reason}")
    if report.quarantined > rules.most_quarantined:
        faults.append(f"{report.quarantined} tests are quarantined, at most {rules.most_quarantined} may be")
    return tuple(faults)


def _counted_reasons(counted: list[FailureVerdict], rules: VerdictRules) -> tuple[str, ...]:
    if not counted:
        return ()
    added = sum(failure.is_new for failure in counted)
    subject = "1 failure not forgiven" if len(counted) == 1 else f"{len(counted)} failures not forgiven"
    flakes = "newly flaky or failing" if rules.only_new_flakes else ""
    known = sum(failure.kind == "flake" for failure in counted)
    known_flakes = f"{known} known to be flaky and not quarantined" if known else ""
    more = ", ".join(filter(None, (flakes, known_flakes, f"{added} in tests without history" if added else "")))
    return (f"{subject} ({more})" if more else subject,)


def known_tests(context: RunContext, fetch: bool) -> frozenset[str]:
    """Return the tests that the history knows, none where it is empty; `fetch` what others have published first.

    Raises:
        HistoryError: The history cannot be read.
    """
    if fetch:
        fetch_history(context)
    return frozenset(load_summary(context.store).summary.tests)


FEWEST_FLIPS = 2  # in the last 20 runs, before a test is suggested
QUIET_RUNS = 15  # passes in a row, after which a quarantined test is proposed for release
MOST_SUGGESTED = 20


class Suggestion(NamedTuple):
    """A test to quarantine or to release, with the evidence."""

    action: str  # quarantine, release
    test: str
    evidence: str


def suggest_quarantine(table: TestTable, mutes: Mutes) -> tuple[Suggestion, ...]:
    """Return tests to quarantine, those that flip most first, and quarantined ones to release."""
    tests, taken = table.values(), taken_ids(table)
    flipping = [(test, _flips(test)) for test in tests if _flips(test) >= FEWEST_FLIPS]
    noisy = [(test, flips) for test, flips in flipping if not find_mute(test.test, mutes, taken)]
    noisy.sort(key=lambda pair: -pair[1])
    return (
        *(Suggestion("quarantine", test.test, _evidence(test)) for test, _ in noisy[:MOST_SUGGESTED]),
        *filter(
            None,
            (
                _release(mute, [test for test in tests if find_mute(test.test, Mutes((mute,)), taken)])
                for mute in mutes.entries
            ),
        ),
    )


def _flips(stats: TestStats) -> int:
    return sum(letter != "-" for letter in stats.revealed)


def _evidence(stats: TestStats) -> str:
    failed = sum(letter in "fck" for letter in stats.recent)
    return f"flipped {_flips(stats)} times in its last {len(stats.recent)} runs, of which {failed} failed"


def _release(mute: Mute, tests: list[TestStats]) -> Suggestion | None:
    if not tests:
        return Suggestion("release", mute.test, "no test of this name runs any more")
    quiet = min(len(stats.recent) - len(stats.recent.rstrip("p")) for stats in tests)
    return Suggestion("release", mute.test, f"passed in its last {quiet} runs") if quiet >= QUIET_RUNS else None
