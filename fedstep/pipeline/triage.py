"""Triage the failures of a finished build: flaky, regression or unsure, each with a probability and its reasons."""

from typing import TypeVar

from fedstep.errors import InputError
from fedstep.federation.model_cache import CachedModel
from fedstep.history.flakiness import is_incident
from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import load_summary, usual_stream
from fedstep.history.test_table import taken_ids, with_known_ids
from fedstep.ingest.mutes import NEW_IS_NOT_MUTED, Mutes, find_mute
from fedstep.pipeline.context import change_problems
from fedstep.pipeline.predict import (
    change_notices,
    describe_model,
    empty_history_notices,
    load_predictor,
    local_status,
    model_warnings,
)
from fedstep.results import MutedFailure, Problems, ReportCounts, TrainReport, TriageReport
from fedstep.types import Build, BuildContext, Outcome, Reports, Unavailable

Judged = TypeVar("Judged", TriageReport, TrainReport)


def triage(
    store: ProjectStore, context: BuildContext, reports: Reports, cached: CachedModel, problems: Problems = ()
) -> TriageReport:
    """Return a verdict for each failure in `reports`, with the `problems` survived so far. Nothing is written."""
    loaded = load_summary(store)
    reports = with_known_ids(reports, loaded.summary.tests)
    stream = usual_stream(loaded.summary.builds, context.ci)
    build = Build("", context, context.started_at, Unavailable("triage"), reports.outcome(), reports)
    problems = (
        *problems,
        *report_problems(reports),
        *change_problems(context.change),
    )
    return TriageReport(
        status=local_status(cached, problems),
        failures=load_predictor(store, cached).failures(loaded.summary, build, stream),
        model=describe_model(cached, context.started_at),
        reading=count_reports(reports),
        incident=is_incident(reports.tests),
        incident_reason=incident_reason(reports),
        warnings=(
            *map(str, problems),
            *empty_history_notices(loaded.summary, problems),
            *report_warnings(reports),
            *loaded.warnings,
            *change_notices(context.change),
            *model_warnings(cached),
        ),
        problems=problems,
        taken_ids=taken_ids(loaded.summary.tests),
    )


def separate_muted(report: Judged, mutes: Mutes) -> Judged:
    """Move the failures that a mute names from `failures` to `muted`, and warn of each mute that does not count.

    A failure of a new test stays where it is: whoever wrote a pattern did not know the test.
    """
    found = [(failure, find_mute(failure.test, mutes, report.taken_ids)) for failure in report.failures]
    muting = [(failure, () if failure.is_new else entries) for failure, entries in found]
    new: list[str] = [failure.test for failure, entries in found if entries and failure.is_new]
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
    return ReportCounts(reports.files, len(reports.tests), reports.dropped)


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
