"""What a build asks for: predict before it, train and triage after it."""

import os
from typing import Any, TypeVar

import click

from fedstep.cli.options import (
    FORMAT,
    HELPER,
    HISTORY,
    JUNIT,
    NETWORK,
    OUTCOME,
    PART,
    REPORTS,
    STRICT,
    Options,
    option,
)
from fedstep.cli.output import echo_result, echo_warnings, exit_code, finish, new_warnings, write_ci_outputs
from fedstep.cli.session import (
    aggregator_of,
    context_from,
    fetch_history,
    mark_degraded,
    mark_start,
    marked_start,
    missing_run_warning,
    needed_aggregator,
    publish_history,
    uses_git_history,
    with_readable_store,
)
from fedstep.errors import AggregatorError, FedstepError, HistoryError
from fedstep.pipeline.context import RunContext, built_change, in_ci, read_junit, start_build_context, words_of_tests
from fedstep.results import TrainReport, TriageReport
from fedstep.types import BuildContext, BuildOutcome, FinishedBuild, Reports

F = TypeVar("F", TrainReport, TriageReport)
Problems = tuple[FedstepError, ...]


@click.command()
@JUNIT
@NETWORK
@HELPER
@HISTORY
@PART
@option("keep", type=click.IntRange(1), default=500, show_default=True, help="Builds kept in the history.")
@OUTCOME
@FORMAT
@STRICT
def train(**given: Any) -> int:
    """Learn from the build that just ran, and exchange what was learned.

    \b
    Example: fedstep train --junit 'build/**/TEST-*.xml' --aggregator https://fedstep.example.org
    """
    from fedstep.pipeline.train import train as train_step
    from fedstep.report.text import training_text

    place = context_from(given)
    problems = fetch_history(given, place, given["budget"] / 3)
    try:
        place.store.prepare()
        evidence = _evidence(given, place)
        words, aggregator = words_of_tests(place.root), aggregator_of(given, place)
        withheld = _withheld(given, place)
        trained = train_step(place.store, evidence, words, aggregator, place.now, given["keep"], withheld)
    except HistoryError as error:
        return _without_history(given, place, error)
    problems = problems or publish_history(given, place)  # after a fetch that failed nothing is tried again
    training = _noticed(mark_degraded(trained, problems), missing_run_warning(place.ci))
    training, problems = _muted(training, place, (*problems, *trained.problems))
    return finish(given, place, training, training_text, problems)


@click.command()
@REPORTS
@HISTORY
@PART
@FORMAT
@STRICT
def predict(**given: Any) -> int:
    """Say what to expect of the next build: its time, its risk, the tests most likely to flake.

    \b
    Example: fedstep predict --format json
    """
    from fedstep.federation.model_cache import load_model
    from fedstep.pipeline.predict import predict
    from fedstep.report.text import prediction_text

    place = context_from(given)
    situation = start_build_context(place, given["junit"])
    place, problems = with_readable_store(place)
    if not problems:
        problems = fetch_history(given, place)
        if in_ci(place.ci) and not place.ci.untrusted:
            problems = (*problems, *mark_start(place))
    prediction = predict(place.store, situation, load_model(place.store), problems)
    return finish(given, place, prediction, prediction_text, prediction.problems)


@click.command()
@JUNIT
@HISTORY
@PART
@option(
    "rerun-list",
    type=click.Choice(["", "pytest", "maven", "gradle", "jest", "go"]),
    default="",
    help="Print instead the arguments that run the flaky failures again.",
)
@FORMAT
@STRICT
def triage(**given: Any) -> int:
    """Say of each failure in a report how likely it is flaky, and why.

    \b
    Example: fedstep triage --junit 'build/**/TEST-*.xml'
    """
    from fedstep.federation.model_cache import load_model
    from fedstep.pipeline.triage import triage
    from fedstep.report.text import triage_text

    place, problems = with_readable_store(context_from(given))
    problems = problems or fetch_history(given, place)
    reports = read_junit(place, given["junit"])
    situation = BuildContext(place.ci, built_change(place), place.now)
    judged = triage(place.store, situation, reports, load_model(place.store), problems)
    judged, problems = _muted(judged, place, judged.problems)
    if given["rerun_list"]:
        return _rerun_list(given, judged, reports, problems)
    return finish(given, place, judged, triage_text, problems)


def _withheld(given: Options, place: RunContext) -> str:
    """Why this build adds nothing to what is sent, "" where it does.

    A CI's cache gives every pull request a copy of its target's history, with the same rows waiting: each would send
    them again.
    """
    copied = place.ci.event == "pull_request" and not uses_git_history(given)
    return "a pull request's rows stay with it" if copied else ""


def _noticed(training: TrainReport, notice: str) -> TrainReport:
    """The finding with one more warning, if there is one."""
    return training._replace(warnings=(*training.warnings, notice)) if notice else training


def _muted(finding: F, place: RunContext, problems: Problems) -> tuple[F, Problems]:
    """The finding with its muted failures apart, and what is wrong with the mute list among the problems."""
    from datetime import date  # 2 ms that a prediction need not pay

    from fedstep.ingest.mutes import MuteList, read_mutes
    from fedstep.pipeline.triage import separate_muted

    today = date.fromtimestamp(place.now).isoformat()
    listed: MuteList = read_mutes(place.root, today)  # mypy does not infer it where F has constraints
    return separate_muted(mark_degraded(finding, listed.problems), listed.mutes), (*problems, *listed.problems)


def _rerun_list(given: Options, judged: TriageReport, reports: Reports, problems: Problems) -> int:
    """Print the arguments for a test runner, and say it where there are none; the exit code.

    Failures that a rerun inside the build has settled, and muted ones, need none; an incident says nothing about tests.
    """
    from fedstep.report.rerun import selection

    settled = {run.test for run in reports.tests if run.outcome not in "fc"}
    flaky = [failure for failure in judged.failures if failure.verdict == "flaky" and failure.test not in settled]
    chosen = selection(given["rerun_list"], () if judged.incident else flaky, os.path.isfile)
    echo_warnings(*judged.warnings, *(f"{test} cannot be named to {given['rerun_list']}" for test in chosen.left_out))
    if judged.incident:
        echo_warnings(f"nothing to run again: an incident, {judged.incident_reason}")
    elif not chosen.line:
        echo_warnings("nothing to run again: no failure is judged flaky")
    echo_result(f"{chosen.line}\n" if chosen.line else "")
    return exit_code(given, problems)


def _evidence(given: Options, place: RunContext) -> FinishedBuild:
    """What is read of the build that just ran."""
    from fedstep.pipeline.train import build_outcome, context_at, measure_duration

    reports, change = read_junit(place, given["junit"]), built_change(place)
    duration = measure_duration(place.ci, marked_start(place), reports, place.now)
    situation = context_at(place.ci, change, duration, place.now)
    outcome = BuildOutcome(given["outcome"]) if given["outcome"] else build_outcome(place.ci, reports)
    return FinishedBuild(situation, place.now, duration, outcome, reports)


def _without_history(given: Options, place: RunContext, error: HistoryError) -> int:
    """The build cannot be kept: say so once, tell the CI that the step is degraded, and let the build go on."""
    from fedstep.report.ci_outputs import KEYS

    failed = write_ci_outputs(place, {**dict.fromkeys(KEYS, ""), "status": "degraded"}, "", "")
    echo_warnings(str(error), *new_warnings(failed, (error,)))
    return exit_code(given, (error,))


@click.command()
@NETWORK
@HELPER
@PART
@HISTORY
@STRICT
def push(**given: Any) -> int:
    """Send the updates that wait in the outbox.

    \b
    Example: fedstep push --aggregator https://fedstep.example.org
    """
    from fedstep.federation.sync import push_pending

    place = context_from(given)
    flushed = push_pending(place.store, needed_aggregator(given, place))
    problems = (*flushed.failures, *flushed.refused, *map(HistoryError, flushed.warnings))
    echo_warnings(*map(str, problems))
    echo_result(f"{len(flushed.sent)} sent, {len(flushed.refused)} refused, {flushed.waiting} waiting\n")
    return exit_code(given, problems)


@click.command()
@NETWORK
@PART
@HISTORY
@STRICT
def pull(**given: Any) -> int:
    """Fetch the newest model, if there is a newer one.

    \b
    Example: fedstep pull --aggregator https://fedstep.example.org
    """
    from fedstep.federation.sync import pull_model
    from fedstep.pipeline.predict import load_predictor
    from fedstep.pipeline.prediction_cache import save_prediction

    place = context_from(given)
    aggregator = needed_aggregator(given, place)
    try:
        place.store.prepare()
        kept = pull_model(place.store, aggregator, place.now)
        save_prediction(place.store, kept, load_predictor(place.store, kept))
    except (AggregatorError, HistoryError) as error:
        echo_warnings(str(error))
        return exit_code(given, (error,))
    echo_result(f"production {kept.model.production_version}, head {kept.model.candidate_version}\n")
    return 0


@click.command()
@option("json", is_flag=True, help="JSON instead of text.")
@HISTORY
@PART
def status(**given: Any) -> int:
    """Say how this checkout stands: history, model and its age, what waits to be sent, privacy budget.

    \b
    Example: fedstep status
    """
    from fedstep.diagnostics.checks import standing
    from fedstep.report.json import diagnosis_json
    from fedstep.report.text_tables import diagnosis_text

    place = context_from(given)
    found = standing(place.store, place.now)
    echo_result(diagnosis_json(found) if given["json"] else diagnosis_text(found))
    return 0
