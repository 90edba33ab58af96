"""The story, read aloud: foresee a build, judge its failures, observe it, learn from it, exchange what was learned.

Every function takes values and a `ProjectStore`; environment, clock and network are arguments.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fedstep.errors import FedstepError, HistoryError, InputError
from fedstep.features.rows import plan, rows_of_build, stream_of, usual_stream
from fedstep.federation.model_cache import CachedModel
from fedstep.history.builds import PlannedBuild
from fedstep.history.flakiness import is_incident
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, load_summary
from fedstep.model.predictor import Predictor
from fedstep.model.state import LocalModel, load_correction
from fedstep.pipeline.prediction_cache import load_prediction
from fedstep.results import (
    FailureVerdict,
    Interval,
    ModelUsed,
    Prediction,
    ReportCounts,
    TriageReport,
)
from fedstep.schema.schema import schema
from fedstep.types import (
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

LONGEST_BUILD = 7 * 86_400  # seconds; a start longer ago is a clock that is wrong

Problems = tuple[FedstepError, ...]
Words = Callable[[tuple[TestRun, ...]], Mapping[str, tuple[str, ...]]]  # listed words of tests' own source, by test


class BuildEvaluation(NamedTuple):
    """A finished build beside what was expected of it, before anything is learned from it."""

    build: Build
    planned: PlannedBuild
    author: str
    summary: Summary  # as it stood before the build
    expected: Interval | Unavailable
    failures: tuple[FailureVerdict, ...]
    warnings: tuple[str, ...]


def load_predictor(home: ProjectStore, kept: CachedModel) -> Predictor:
    """The forecaster of this project: the kept model and what the project has added to it."""
    try:
        correction, _ = load_correction(home.read("correction.json"))
    except HistoryError:  # none yet, damaged, or of another version: `train` makes it again
        correction = LocalModel()
    return Predictor(kept.model.production, correction)


def predict(
    home: ProjectStore, situation: Callable[[], BuildContext], kept: CachedModel, problems: Problems = ()
) -> tuple[Prediction, Problems]:
    """What to expect of the build that `situation` (asked for late, git is still at work) describes, and the errors."""
    forecaster = load_predictor(home, kept)
    known = load_prediction(home, kept, forecaster)
    summary = known.summary
    now = situation()
    planned = plan(now, usual_stream(summary.builds, now.ci), author_key(home, now))
    problems = (*problems, *_newcomer(summary, problems), *change_problems(now.change))
    prediction = Prediction(
        status=default_status(kept, problems),
        duration=forecaster.duration(summary, planned),
        risk=forecaster.failure(summary, planned),
        flaky=known.flakiest,
        model=describe_model(kept, now.started_at),
        base=_described(now.change),
        warnings=(*map(str, problems), *known.warnings, *_notices(now.change), *_one(kept.warning)),
        builds_known=summary.count,
        tests_known=known.tests_known,
    )
    return prediction, problems


def triage(
    home: ProjectStore, situation: BuildContext, reports: Reports, kept: CachedModel, problems: Problems = ()
) -> tuple[TriageReport, Problems]:
    """A verdict for each failure of these reports, or the word that all is an incident; and the errors survived."""
    remembered = load_summary(home)
    stream = usual_stream(remembered.summary.builds, situation.ci)
    build = Build("", situation, situation.started_at, Unavailable("triage"), _outcome(reports), reports)
    more = (*_newcomer(remembered.summary, problems), *report_problems(reports), *change_problems(situation.change))
    problems = (*problems, *more)
    triage = TriageReport(
        status=default_status(kept, problems),
        failures=load_predictor(home, kept).failures(remembered.summary, build, stream),
        model=describe_model(kept, situation.started_at),
        reading=count_reports(reports),
        incident=is_incident(reports.tests),
        incident_reason=incident_reason(reports),
        warnings=(*map(str, problems), *remembered.warnings, *_notices(situation.change), *_one(kept.warning)),
    )
    return triage, problems


def evaluate_build(home: ProjectStore, evidence: FinishedBuild, kept: CachedModel) -> BuildEvaluation:
    """The finished build beside what was expected of it. Nothing is written."""
    remembered, forecaster = load_summary(home), load_predictor(home, kept)
    summary, situation = remembered.summary, evidence.situation
    build = identify_build(home, evidence)
    source = evidence.duration.source if isinstance(evidence.duration, Duration) else ""
    author = author_key(home, situation)
    planned = plan(situation, stream_of(situation.ci, source), author)
    return BuildEvaluation(
        build=build,
        planned=planned,
        author=author,
        summary=summary,
        expected=forecaster.duration(summary, planned),
        failures=forecaster.failures(summary, build, planned.stream),
        warnings=(*remembered.warnings, *_notices(situation.change), *_one(kept.warning)),
    )


def record_build(home: ProjectStore, seen: BuildEvaluation, words: Words) -> bool:
    """Append the build to the log with the rows that it is evidence for; False for a build that is there already."""
    if home.log.has(seen.build.name):
        return False
    entry = make_record(seen.build, seen.planned.stream, seen.author)._replace(
        source_words=words(_without_source(seen.summary, seen.build)),
        schema=schema().digest,
        rows=rows_of_build(seen.summary, seen.build, seen.planned, sampling_rule(home)),
    )
    home.log.append(entry)
    return True


def identify_build(home: ProjectStore, evidence: FinishedBuild) -> Build:
    """The build under its name: a keyed hash of the job run, in a CI that names none of the commit, and its reports."""
    ci, change = evidence.situation.ci, evidence.situation.change
    commit = change.commit if isinstance(change, Change) and ci.vendor != "local" else ""
    run = ci.run or commit
    name = home.keyed("build", ci.vendor, run, str(ci.attempt), ci.job, ci.cell, evidence.reports.digest)
    return Build(name, evidence.situation, evidence.finished_at, evidence.duration, evidence.outcome, evidence.reports)


def author_key(home: ProjectStore, situation: BuildContext) -> str:
    """The keyed hash that stands for the change's author, "" where it is not known or there is no usable key."""
    change = situation.change
    if not isinstance(change, Change) or not change.author or not home.read("key"):
        return ""
    try:
        return home.keyed("author", change.author)[:16]
    except HistoryError:  # damaged: whoever writes says so, a prediction does without
        return ""


def sampling_rule(home: ProjectStore) -> Callable[[str, int], bool]:
    """Whether a test gives a flaky row at this run: once a horizon, staggered by a keyed hash of its name."""
    from fedstep.model.labels import is_due

    horizon = schema().tasks["flaky"].horizon
    hashed = home.hasher()
    return lambda test, runs: is_due(int(hashed("turn", test)[:8], 16), runs, horizon)


def measure_duration(ci: CiRun, mark: float | None, reports: Reports, now: float) -> Duration | Unavailable:
    """The job's time from its start to now: the CI's start, else the mark of `fedstep predict`, else the tests' sum."""
    started = ci.started_at if isinstance(ci.started_at, float) else mark
    if started is not None:
        source = ci.vendor if isinstance(ci.started_at, float) else "mark"
        seconds = now - started
        if 0 < seconds < LONGEST_BUILD:
            return Duration(seconds, source)
        return Unavailable(f"the job is said to have started {seconds:.0f} s ago; one of the clocks is wrong")
    total = sum(run.seconds for run in reports.tests if run.seconds > 0)
    return Duration(total, "tests") if total > 0 else Unavailable("no job start is known and the reports have no times")


def context_at(ci: CiRun, change: Change | Unavailable, duration: Duration | Unavailable, now: float) -> BuildContext:
    """The situation of a job that ends now. Test times are no wall time: a job timed by them starts and ends now."""
    wall = duration.seconds if isinstance(duration, Duration) and duration.source != "tests" else 0.0
    return BuildContext(ci, change, now - wall)


def build_outcome(ci: CiRun, reports: Reports) -> BuildOutcome:
    """How the build went: the CI's word, else failed if a test failed for good."""
    return ci.outcome if isinstance(ci.outcome, BuildOutcome) else _outcome(reports)


def describe_model(kept: CachedModel, now: float) -> ModelUsed:
    """The model for a report: which, and how old."""
    if not kept.url:
        return ModelUsed()
    return ModelUsed("production", kept.model.production_version, max(0.0, now - kept.fetched_at), kept.url)


def count_reports(reports: Reports) -> ReportCounts:
    """What was read, for a report."""
    return ReportCounts(reports.files, len(reports.tests), reports.dropped)


def incident_reason(reports: Reports) -> str:
    """Why the whole build is called an incident; "" when it is none."""
    failed = sum(run.outcome in "fc" for run in reports.tests)
    ran = sum(run.outcome != Outcome.SKIPPED for run in reports.tests)
    return f"{failed} of {ran} tests failed at once" if is_incident(reports.tests) else ""


def default_status(kept: CachedModel, problems: Problems) -> str:
    """The status of a step that exchanges nothing itself."""
    return "degraded" if problems else "ok" if kept.url else "local"


def report_problems(reports: Reports) -> Problems:
    """What is wrong with the reports: nothing read at all, or files and cases left out."""
    if not reports.files and not reports.dropped:
        return (InputError("no test report was read", "Give one with --junit 'path/**/*.xml'"),)
    lost = [item for item in reports.dropped if not item.kept]
    if not lost:
        return ()
    more = f" ({len(lost) - 1} more in --format json)" if len(lost) > 1 else ""
    return (InputError(f"{lost[0].source}: {lost[0].reason}{more}", "Check --junit and what writes the reports"),)


def change_problems(change: Change | Unavailable) -> Problems:
    """What is wrong with git, where it does not tell the change."""
    if isinstance(change, Change):
        return ()
    remedy = "" if "run: " in change.reason else "Run fedstep in a git checkout, with git on the PATH"
    return (InputError(f"the change is unknown, {change.reason}", remedy),)


def _outcome(reports: Reports) -> BuildOutcome:
    return BuildOutcome.FAILED if any(run.outcome in "fc" for run in reports.tests) else BuildOutcome.PASSED


def _without_source(summary: Summary, build: Build) -> tuple[TestRun, ...]:
    table = summary.tests
    known = {test for test, words in zip(table.ids, table.source_words, strict=True) if words is not None}
    return tuple(run for run in build.reports.tests if run.test not in known)


def _described(change: Change | Unavailable) -> str:
    if isinstance(change, Unavailable):
        return change.reason
    files = len(change.files)
    return f"{files} {'file' if files == 1 else 'files'} changed against {change.base}" if change.base else ""


def _notices(change: Change | Unavailable) -> tuple[str, ...]:
    return _one(change.notice) if isinstance(change, Change) else ()


def _newcomer(summary: Summary, problems: Problems) -> Problems:
    """That no build is known; said once, and not where the history could not be read at all."""
    if summary.count or any(isinstance(problem, HistoryError) for problem in problems):
        return ()
    remedy = "Run fedstep train after your tests, and keep its folder from build to build"
    return (HistoryError("no build of this project is known yet, the starter model alone answers", remedy),)


def _one(text: str) -> tuple[str, ...]:
    return (text,) if text else ()
