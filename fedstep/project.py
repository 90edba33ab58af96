"""The public API: a repository with its configuration and history, and what fedstep does for it.

Import these names from `fedstep`. Nothing here prints or ends the process: what went wrong is in the result.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fedstep.errors import InputError, UsageError
from fedstep.ingest.git import last_changes
from fedstep.ingest.git_process import repository_root
from fedstep.pipeline.context import (
    RunContext,
    built_change,
    committed_history_problems,
    fetch_history,
    find_context,
    in_ci,
    mark_start,
    marked_start,
    missing_run_warning,
    normalize_part,
    open_history,
    publish_history,
    read_left_out_here,
    read_matching_reports,
    start_build_context,
    with_readable_store,
    words_of_tests,
)
from fedstep.results import Prediction, Problems, TrainReport, TriageReport
from fedstep.types import BuildContext, BuildOutcome, FinishedBuild, LeftOut, TestRun, Unavailable

if TYPE_CHECKING:
    from fedstep.federation.sync import Aggregator, AggregatorLink, TransportFactory
    from fedstep.report.explanation import TestExplanation

READING_SECONDS = 120.0  # in which `triage` reads its reports
PULL_REQUEST = "a pull request's rows stay with it"

Report = TypeVar("Report", Prediction, TriageReport, TrainReport)


@dataclass(slots=True, eq=False)
class Project:
    """A repository, its history, and the CI job or developer's machine that it is checked out on: see `discover`.

    Methods return a report even if git, the history or the aggregator fails: `status` is then "degraded", `warnings`
    say what happened, and `problems` are the errors. Errors that are raised are mistakes of the caller.
    """

    folder: str
    history: str
    part: str
    _environment: Mapping[str, str]
    _clock: Callable[[], float]
    _new_transport: "TransportFactory | None"

    @classmethod
    def discover(
        cls,
        path: str | os.PathLike[str] = ".",
        *,
        history: str | None = None,
        part: str | None = None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        new_transport: "TransportFactory | None" = None,
    ) -> "Project":
        """Return the project whose repository contains `path`.

        Args:
            path: A folder; report globs are relative to it.
            history: The folder of the history, relative to the repository root; "git" for a history that is shared
                through a ref of the repository. By default FEDSTEP_HISTORY, then the configuration file, then
                `.fedstep`.
            part: A folder of the repository that has a history of its own. By default FEDSTEP_PATH, then the
                configuration file, then the whole repository.
            environment: The variables of the CI. By default those of the process.
            clock: Returns seconds since the epoch.
            new_transport: Returns a transport for the URL and the token of an aggregator. By default HTTP.

        Raises:
            UsageError: The configuration file or `part` cannot be used.
        """
        folder = os.path.abspath(path)
        environment = os.environ if environment is None else environment
        if history is None or part is None:
            from fedstep.config import read_setting

            root = repository_root(folder) or folder
            history = read_setting("history", root, environment) if history is None else history
            part = read_setting("path", root, environment) if part is None else part
        return cls(folder, history, normalize_part(part), environment, clock, new_transport)

    def __repr__(self) -> str:
        return f"Project.discover({self.folder!r}, history={self.history!r}, part={self.part!r})"

    def predict(self, reports: Sequence[str] = (), *, record_start: bool = True) -> Prediction:
        """Return what to expect of the next build: its duration, its risk, the tests most likely to flake.

        Args:
            reports: Globs of test reports: while such files are untracked, they are not a part of the change.
            record_start: In CI, record that the job starts now, so that `train` can measure the build's duration.
        """
        context = self.context()
        build_context = start_build_context(context, reports)  # first: git works while the modules and the history load
        from fedstep.federation.model_cache import load_model
        from fedstep.pipeline.predict import predict

        context, problems = with_readable_store(context)
        warnings: tuple[str, ...] = ()
        if not problems:
            problems, warnings = fetch_history(context)
            if record_start and in_ci(context.ci) and not context.ci.untrusted:
                problems = (*problems, *mark_start(context, self._clock()))
        prediction = predict(context.store, build_context, load_model(context.store), problems)
        return _with_warnings(prediction, warnings)

    def triage(
        self, reports: Sequence[str], *, log: str = "", exit_code: int | None = None, allow_stale: bool = False
    ) -> TriageReport:
        """Return a verdict for each failure in the test reports that these globs match. Nothing is written.

        Args:
            reports: Globs of test reports, files and folders.
            log: Path of the job's log, whose end tells whether the infrastructure failed. It is read here only.
            exit_code: Of the command that ran the tests.
            allow_stale: Whether to read reports that are older than this job.
        """
        from fedstep.federation.model_cache import load_model
        from fedstep.ingest.job_failure import read_log_tail
        from fedstep.pipeline.triage import triage

        context, (problems, warnings) = open_history(self.context())
        read = read_matching_reports(
            context, reports, lambda: self._clock() - context.now > READING_SECONDS, allow_stale
        )
        build_context = BuildContext(context.ci, built_change(context), context.now)
        tail = ""
        try:
            tail = read_log_tail(os.path.join(context.folder, log)) if log else ""
        except InputError as error:
            problems = (*problems, error)
        report = triage(context.store, build_context, read, load_model(context.store), problems, tail, exit_code)
        return _with_last_changes(_without_muted(_with_warnings(report, warnings), context), context)

    def train(
        self,
        reports: Sequence[str],
        *,
        aggregator: "Aggregator | None" = None,
        outcome: BuildOutcome | None = None,
        keep: int = 500,
        budget: float = 30.0,
        allow_stale: bool = False,
        plan: str = "",
        index: int | None = None,
    ) -> TrainReport:
        """Record the build that just ran, learn from it, and exchange what was learned.

        Args:
            reports: Globs of test reports.
            aggregator: Where to send updates and fetch the shared model. Without one nothing leaves the machine.
            outcome: How the job ended, if neither the CI nor the tests tell.
            keep: Number of builds kept in the history.
            budget: Seconds for reading and all network access together.
            allow_stale: Whether to read reports that are older than this job.
            plan: The text of the plan that chose and divided the tests.
            index: The machine's number in the plan, None where the reports are those of all machines.

        Raises:
            UsageError: The aggregator's address cannot be used.
            HistoryError: The history cannot be written, so that nothing was recorded.
        """
        from fedstep.federation.sync import token_warnings
        from fedstep.pipeline.train import train

        context = self.context()

        def seconds_left() -> float:
            return budget - (self._clock() - context.now)

        problems, warnings = fetch_history(context, budget / 3)
        context.store.prepare()
        finished = _finished_build(context, reports, outcome, lambda: seconds_left() < 0, allow_stale)
        # A CI's cache gives each pull request a copy of its target's history, with the same examples waiting: each
        # pull request would send them again.
        withheld = PULL_REQUEST if context.ci.event == "pull_request" and not context.shares_history else ""
        link, planted = self._link(context, aggregator, seconds_left())
        if aggregator and not planted:
            warnings = (*warnings, *token_warnings(aggregator))
        left_out, unread = _find_left_out(context, plan, index)
        words = words_of_tests(context.root)
        report = train(context.store, finished, words, link, context.now, keep, withheld, left_out)
        if not problems:  # after a failed fetch the remote is not asked again
            problems = publish_history(context, keep, seconds_left())
        report = _degrade(report, (*planted, *unread, *problems))
        report = _with_warnings(report, (*warnings, missing_run_warning(context.ci)))
        return _with_last_changes(_without_muted(report, context), context)

    def _link(
        self, context: RunContext, aggregator: "Aggregator | None", seconds: float
    ) -> "tuple[AggregatorLink | Unavailable, Problems]":
        """Return a link to the aggregator that works for some seconds, or why nothing is exchanged."""
        from fedstep.federation.sync import connect

        if not aggregator:
            return Unavailable("no aggregator is configured"), ()
        if planted := committed_history_problems(context):
            return Unavailable("the history is committed to the repository"), planted
        return connect(aggregator, seconds, self._environment, self._new_transport), ()

    def explain(self, test: str) -> "TestExplanation":
        """Return why a test is, or is not, likely to flake: its past, its features, and what would change that.

        Args:
            test: The id of the test, or a part of it that fits no other test.

        Raises:
            UsageError: No test of the history fits, or several do.
            HistoryError: The history cannot be read, or knows no test.
        """
        from fedstep.diagnostics.explain import explain, find_test
        from fedstep.history.summary import load_summary

        context = self.context()
        loaded = load_summary(context.store)
        full_name = find_test(test, loaded.summary.tests)
        return explain(context.store, loaded.summary, full_name, context.now, loaded.warnings)

    def context(self) -> RunContext:
        """Return the repository, its history and the CI run at this moment."""
        return find_context(self.folder, self.history, self.part, self._environment, self._clock())


def read_junit(path: str | os.PathLike[str]) -> tuple[TestRun, ...]:
    """Return the test runs of one JUnit report, each test once, in any dialect that fedstep reads.

    Raises:
        InputError: The file cannot be read as a test report.
    """
    from glob import escape
    from pathlib import Path

    from fedstep.ingest.junit import expand, read_reports

    file = Path(path).absolute()
    reports = read_reports(expand((escape(file.name),), file.parent))
    refused = [drop for drop in reports.dropped if not drop.kept]
    if not reports.tests and refused:
        raise InputError(f"{os.fspath(path)}: {refused[0].reason}", "Give it a test report")
    return reports.tests


def _finished_build(
    context: RunContext,
    reports: Sequence[str],
    outcome: BuildOutcome | None,
    is_late: Callable[[], bool],
    allow_stale: bool,
) -> FinishedBuild:
    """Return the build that just ran, as its reports, git and the CI tell it."""
    from fedstep.pipeline.train import build_outcome, context_at, measure_duration

    read = read_matching_reports(context, reports, is_late, allow_stale)
    change = built_change(context, with_words=True)
    duration = measure_duration(context.ci, marked_start(context), read, context.step_started_at)
    return FinishedBuild(
        context_at(context.ci, change, duration, context.step_started_at),
        context.step_started_at,
        duration,
        outcome or build_outcome(context.ci, read),
        read,
    )


def _find_left_out(context: RunContext, plan: str, index: int | None) -> tuple[LeftOut | None, Problems]:
    """Return what this build was to leave out: by its plan, else by what `fedstep select` noted.

    A plan that cannot be read is a problem: the build is recorded all the same.
    """
    if not plan:
        return read_left_out_here(context), ()
    from fedstep.history.summary import load_summary
    from fedstep.pipeline.shards import decode_plan

    try:
        return decode_plan(plan).find_left_out(load_summary(context.store).summary.tests, index), ()
    except UsageError as error:
        return None, (error,)


def _with_warnings(report: Report, warnings: Sequence[str]) -> Report:
    return report._replace(warnings=(*report.warnings, *filter(None, warnings)))


def _degrade(report: Report, problems: Problems) -> Report:
    """Return the report with these problems named first."""
    if not problems:
        return report
    return report._replace(
        status="degraded",
        warnings=(*map(str, problems), *report.warnings),
        problems=(*problems, *report.problems),
    )


Judged = TypeVar("Judged", TriageReport, TrainReport)


def _with_last_changes(report: Judged, context: RunContext) -> Judged:
    """Return the report with who changed the file of each failure last."""
    if not report.failures or not repository_root(context.root):
        return report
    touched = last_changes(context.root, (failure.file for failure in report.failures))
    failures = (failure._replace(last_touched=touched.get(failure.file, "")) for failure in report.failures)
    return report._replace(failures=tuple(failures))


def _without_muted(report: Judged, context: RunContext) -> Judged:
    from datetime import date  # 2 ms that a prediction does not need

    from fedstep.ingest.mutes import MuteList, read_mutes
    from fedstep.pipeline.triage import separate_muted

    listed: MuteList = read_mutes(  # mypy does not infer it where `Judged` has constraints
        context.root, date.fromtimestamp(context.now).isoformat()
    )
    problems = (*report.problems, *listed.problems)
    report = separate_muted(_degrade(report, listed.problems)._replace(problems=problems), listed.mutes)
    return report._replace(quarantined=len(listed.mutes.entries)) if isinstance(report, TriageReport) else report
