"""The commands of a build: predict before it, train and triage after it; push, pull and status of the exchange."""

import os
from typing import TYPE_CHECKING, Unpack

import click

import fedstep
from fedstep.cli.options import (
    ALLOW_STALE,
    EXIT_CODE,
    FORMAT,
    HELPER,
    HISTORY,
    JENKINS,
    JSON,
    JUNIT,
    KEEP,
    LOG,
    NETWORK,
    PART,
    REPORTS,
    RULES,
    STRICT,
    NetworkOptions,
    aggregator_from,
    link_to,
    option,
    require_aggregator,
)
from fedstep.cli.output import (
    RulingOptions,
    echo_diagnosis,
    echo_result,
    echo_warnings,
    exit_code,
    finish,
    finish_with_ruling,
    new_warnings,
    read_plan,
    with_estimate,
    write_ci_outputs,
)
from fedstep.errors import AggregatorError, HistoryError
from fedstep.results import TriageReport
from fedstep.types import BuildOutcome

if TYPE_CHECKING:
    from fedstep.pipeline.context import RunContext


@click.command()
@JUNIT
@ALLOW_STALE
@NETWORK
@HELPER
@HISTORY
@PART
@KEEP
@option(
    "outcome",
    type=click.Choice(["", "passed", "unstable", "failed"]),
    default="",
    help="Result of the job, if neither the CI nor its tests tell.",
)
@EXIT_CODE
@option(
    "plan",
    metavar="TEXT",
    default="",
    help="The plan of `fedstep plan` that chose these tests; @FILE: a file. What it left out did not pass.",
)
@option("index", type=click.INT, default=None, help="Number of this machine in the plan. Default: all machines.")
@JENKINS
@FORMAT
@STRICT
def train(
    junit: tuple[str, ...],
    allow_stale: bool,
    history: str,
    part: str,
    keep: int,
    outcome: str,
    exit_code: int | None,
    plan: str,
    index: int | None,
    jenkins_estimate: bool,
    output_format: str,
    strict: bool,
    **network: Unpack[NetworkOptions],
) -> int:
    """Record the build that just ran, learn from it, and exchange coefficients with the aggregator.

    \b
    Example: fedstep train --junit 'build/**/TEST-*.xml' --aggregator https://fedstep.example.org
    """
    project = fedstep.Project.discover(history=history, part=part)
    context = project.context()
    try:
        report = project.train(
            junit,
            aggregator=aggregator_from(network),
            outcome=_outcome(outcome, exit_code),
            keep=keep,
            budget=network["budget"],
            allow_stale=allow_stale,
            plan=read_plan(plan),
            index=index,
        )
    except HistoryError as error:
        return _finish_without_history(context, error, strict)
    estimated = with_estimate(report) if jenkins_estimate else report
    return finish(estimated, context, output_format, strict, network["budget"])


@click.command()
@REPORTS
@HISTORY
@PART
@JENKINS
@FORMAT
@STRICT
def predict(
    junit: tuple[str, ...], history: str, part: str, jenkins_estimate: bool, output_format: str, strict: bool
) -> int:
    """Predict the next build: its duration, its risk to fail, and the tests most likely to flake.

    \b
    Example: fedstep predict --format json
    """
    project = fedstep.Project.discover(history=history, part=part)
    prediction = project.predict(junit)
    estimated = with_estimate(prediction) if jenkins_estimate else prediction
    return finish(estimated, project.context(), output_format, strict)


@click.command()
@JUNIT
@ALLOW_STALE
@HISTORY
@PART
@option(
    "rerun-list",
    type=click.Choice(["", "pytest", "maven", "gradle", "jest", "vitest", "mocha", "playwright", "go"]),
    default="",
    help="Print the arguments with which this test runner reruns the flaky failures, instead of the report.",
)
@option(
    "fail-on",
    type=click.Choice(["", "regressions"]),
    default="",
    help="With 'regressions', exit with 1 unless all failures are forgiven, as fedstep verdict does.",
)
@RULES
@LOG
@FORMAT
@STRICT
def triage(allow_stale: bool, rerun_list: str, fail_on: str, **given: Unpack[RulingOptions]) -> int:
    """Estimate for each failure in the test reports how likely it is flaky, and why.

    \b
    Example: fedstep triage --junit 'build/**/TEST-*.xml'
    """
    project = fedstep.Project.discover(history=given["history"], part=given["part"])
    report = project.triage(given["junit"], log=given["log"], exit_code=given["exit_code"], allow_stale=allow_stale)
    if rerun_list:
        return print_rerun_list(report, rerun_list, project.context().root, given["strict"])
    if fail_on:
        return finish_with_ruling(report, project, given)
    return finish(report, project.context(), given["output_format"], given["strict"])


def print_rerun_list(report: TriageReport, runner: str, root: str, strict: bool) -> int:
    """Print the arguments that rerun the flaky failures, or a warning if there are none; return the exit code.

    A failure that passed when the build reran it needs no rerun; an incident reveals nothing about single tests; a test
    that the change adds has to pass at once.
    """
    from fedstep.pipeline.context import exists_within
    from fedstep.report.rerun import selection

    judged = [failure for failure in report.failures if failure.verdict == "flaky" and not failure.passed_on_rerun]
    flaky = [failure for failure in judged if not failure.is_new]
    chosen = selection(runner, () if report.incident else flaky, exists_within(root))
    echo_warnings(*report.warnings, *(f"{test} cannot be named to {runner}" for test in chosen.left_out))
    echo_warnings(*(f"{failure.test} has no history: it is not run again" for failure in judged if failure.is_new))
    if report.incident:
        echo_warnings(f"nothing to run again: an incident, {report.incident_reason}")
    elif not flaky:
        echo_warnings("nothing to run again: no failure is judged flaky")
    else:
        count = len(flaky) - len(chosen.left_out)
        echo_warnings(f"{count} of {len(report.failures)} failures selected: {runner} must run as many tests")
    echo_result("".join(f"{line}\n" for line in chosen.lines))
    return exit_code(strict, report.problems)


def _outcome(word: str, exit_code: int | None) -> BuildOutcome | None:
    """Return the outcome that the options tell, None where they tell none."""
    if word or exit_code is None:
        return BuildOutcome(word) if word else None
    return BuildOutcome.FAILED if exit_code else BuildOutcome.PASSED


def _finish_without_history(context: "RunContext", error: HistoryError, strict: bool) -> int:
    """Warn that the build could not be recorded, mark the step as degraded for the CI, and return the exit code."""
    from fedstep.report.ci_outputs import KEYS

    failures = write_ci_outputs(context, {**dict.fromkeys(KEYS, ""), "status": "degraded"}, "", "")
    echo_warnings(str(error), *new_warnings(failures, (error,)))
    return exit_code(strict, (error,))


@click.command()
@NETWORK
@HELPER
@PART
@HISTORY
@STRICT
def push(part: str, history: str, strict: bool, **network: Unpack[NetworkOptions]) -> int:
    """Send the updates in the outbox to the aggregator.

    \b
    Example: fedstep push --aggregator https://fedstep.example.org
    """
    from fedstep.federation.sync import push_pending
    from fedstep.pipeline.context import committed_history_problems

    context = fedstep.Project.discover(history=history, part=part).context()
    if _is_untrusted(context):
        return 0
    receiver = require_aggregator(aggregator_from(network))
    planted = committed_history_problems(context)
    if planted:
        echo_warnings(*map(str, planted))
        return exit_code(strict, planted)
    delivery = push_pending(context.store, link_to(receiver, context.now, network["budget"]))
    problems = (*delivery.failures, *delivery.refused, *map(HistoryError, delivery.warnings))
    echo_warnings(*map(str, problems))
    echo_result(f"{len(delivery.sent)} sent, {len(delivery.refused)} refused, {delivery.waiting} waiting\n")
    return exit_code(strict, problems)


@click.command()
@NETWORK
@PART
@HISTORY
@STRICT
def pull(part: str, history: str, strict: bool, **network: Unpack[NetworkOptions]) -> int:
    """Fetch the newest model from the aggregator, if it is newer than the local copy.

    \b
    Example: fedstep pull --aggregator https://fedstep.example.org
    """
    from fedstep.federation.sync import pull_model
    from fedstep.pipeline.predict import save_prediction

    context = fedstep.Project.discover(history=history, part=part).context()
    if _is_untrusted(context):
        return 0
    link = link_to(require_aggregator(aggregator_from(network)), context.now, network["budget"])
    try:
        context.store.prepare()
        cached = pull_model(context.store, link, context.now)
        save_prediction(context.store, cached)
    except (AggregatorError, HistoryError) as error:
        echo_warnings(str(error))
        return exit_code(strict, (error,))
    echo_warnings(*filter(None, (cached.warning,)))
    echo_result(f"production {cached.model.production_version}, candidate {cached.model.candidate_version}\n")
    return 0


def _is_untrusted(context: "RunContext") -> bool:
    """Return whether the run is a fork's, which may have changed configuration and outbox; say so if it is."""
    if context.ci.untrusted:
        echo_warnings("this run comes from a fork or Dependabot: no aggregator is asked, and nothing is sent")
    return context.ci.untrusted


@click.command()
@click.argument("url", metavar="URL")
def trust(url: str) -> int:
    """Record in your own configuration that your tokens may be sent to an aggregator that a repository names.

    \b
    Example: fedstep trust https://fedstep.example.org
    """
    from fedstep.federation.trust import add_trusted, normalize_address

    path = add_trusted(url, os.environ)
    echo_result(f"tokens may be sent to {normalize_address(url)} from now on ({path})\n")
    return 0


@click.command()
@JSON
@HISTORY
@PART
def status(as_json: bool, history: str, part: str) -> int:
    """Show the history, the model and its age, waiting updates and the privacy budget. Does not use the network.

    \b
    Example: fedstep status
    """
    from fedstep.diagnostics.doctor import standing

    context = fedstep.Project.discover(history=history, part=part).context()
    echo_diagnosis(standing(context.store, context.now), as_json)
    return 0
