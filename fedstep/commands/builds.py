"""What a build asks for: predict before it, train and triage after it."""

import os
from typing import Any, TypeVar

import click

from fedstep.build.record import BuildOutcome, Evidence, Reports, Situation
from fedstep.commands.options import (
    FORMAT,
    HELPER,
    HISTORY,
    JUNIT,
    NETWORK,
    OUTCOME,
    PART,
    REPORTS,
    STRICT,
    Given,
    option,
)
from fedstep.commands.place import (
    aggregator_of,
    mark_start,
    marked_start,
    nameless,
    place_of,
    readable,
    travels,
)
from fedstep.commands.sinks import exit_code, finish, say, show, tell_ci, unsaid
from fedstep.commands.travel import fetched, published, worse
from fedstep.errors import FedstepError, HistoryError
from fedstep.report.findings import Training, Triage
from fedstep.workplace import Workplace, built_change, in_ci, read_junit, start_situation, words_of_tests

__all__ = ["predict", "train", "triage"]

F = TypeVar("F", Training, Triage)
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
    from fedstep.report.text import training_text
    from fedstep.training import train as train_step

    place = place_of(given)
    problems = fetched(given, place, given["budget"] / 3)
    try:
        place.home.prepare()
        evidence = _evidence(given, place)
        words, aggregator = words_of_tests(place.root), aggregator_of(given, place)
        withheld = _withheld(given, place)
        trained = train_step(place.home, evidence, words, aggregator, place.now, given["keep"], withheld)
    except HistoryError as error:
        return _without_history(given, place, error)
    problems = problems or published(given, place)  # after a fetch that failed nothing is tried again
    training = _noticed(worse(trained.training, problems), nameless(place.ci))
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
    from fedstep.federation.kept import kept_model
    from fedstep.report.text import prediction_text
    from fedstep.steps import foresee

    place = place_of(given)
    situation = start_situation(place, given["junit"])
    place, problems = readable(place)
    if not problems:
        problems = fetched(given, place)
        if in_ci(place.ci) and not place.ci.untrusted:
            problems = (*problems, *mark_start(place))
    prediction, problems = foresee(place.home, situation, kept_model(place.home), problems)
    return finish(given, place, prediction, prediction_text, problems)


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
    from fedstep.federation.kept import kept_model
    from fedstep.report.text import triage_text
    from fedstep.steps import judge

    place, problems = readable(place_of(given))
    problems = problems or fetched(given, place)
    reports = read_junit(place, given["junit"])
    situation = Situation(place.ci, built_change(place), place.now)
    judged, problems = judge(place.home, situation, reports, kept_model(place.home), problems)
    judged, problems = _muted(judged, place, problems)
    if given["rerun_list"]:
        return _rerun_list(given, judged, reports, problems)
    return finish(given, place, judged, triage_text, problems)


def _withheld(given: Given, place: Workplace) -> str:
    """Why this build adds nothing to what is sent, "" where it does.

    A CI's cache gives every pull request a copy of its target's history, with the same rows waiting: each would send
    them again.
    """
    copied = place.ci.event == "pull_request" and not travels(given)
    return "a pull request's rows stay with it" if copied else ""


def _noticed(training: Training, notice: str) -> Training:
    """The finding with one more warning, if there is one."""
    return training._replace(warnings=(*training.warnings, notice)) if notice else training


def _muted(finding: F, place: Workplace, problems: Problems) -> tuple[F, Problems]:
    """The finding with its muted failures apart, and what is wrong with the mute list among the problems."""
    from datetime import date  # 2 ms that a prediction need not pay

    from fedstep.build.mutes import Listed, read_mutes
    from fedstep.report.muting import set_apart

    today = date.fromtimestamp(place.now).isoformat()
    listed: Listed = read_mutes(place.root, today)  # mypy does not infer it where F has constraints
    return set_apart(worse(finding, listed.problems), listed.mutes), (*problems, *listed.problems)


def _rerun_list(given: Given, judged: Triage, reports: Reports, problems: Problems) -> int:
    """Print the arguments for a test runner, and say it where there are none; the exit code.

    Failures that a rerun inside the build has settled, and muted ones, need none; an incident says nothing about tests.
    """
    from fedstep.report.rerun import selection

    settled = {run.test for run in reports.tests if run.outcome not in "fc"}
    flaky = [failure for failure in judged.failures if failure.verdict == "flaky" and failure.test not in settled]
    chosen = selection(given["rerun_list"], () if judged.incident else flaky, os.path.isfile)
    say(*judged.warnings, *(f"{test} cannot be named to {given['rerun_list']}" for test in chosen.left_out))
    if judged.incident:
        say(f"nothing to run again: an incident, {judged.incident_reason}")
    elif not chosen.line:
        say("nothing to run again: no failure is judged flaky")
    show(f"{chosen.line}\n" if chosen.line else "")
    return exit_code(given, problems)


def _evidence(given: Given, place: Workplace) -> Evidence:
    """What is read of the build that just ran."""
    from fedstep.steps import measure, outcome_of, situated

    reports, change = read_junit(place, given["junit"]), built_change(place)
    duration = measure(place.ci, marked_start(place), reports, place.now)
    situation = situated(place.ci, change, duration, place.now)
    outcome = BuildOutcome(given["outcome"]) if given["outcome"] else outcome_of(place.ci, reports)
    return Evidence(situation, place.now, duration, outcome, reports)


def _without_history(given: Given, place: Workplace, error: HistoryError) -> int:
    """The build cannot be kept: say so once, tell the CI that the step is degraded, and let the build go on."""
    from fedstep.report.outputs import KEYS

    failed = tell_ci(place, {**dict.fromkeys(KEYS, ""), "status": "degraded"}, "", "")
    say(str(error), *unsaid(failed, (error,)))
    return exit_code(given, (error,))
