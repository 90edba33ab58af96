"""Commands that show what fedstep does: what is sent, why a test is named, what this machine needs."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

import fedstep
from fedstep.cli.options import (
    FORMAT,
    HELPER,
    HISTORY,
    JSON,
    JUNIT,
    PART,
    STRICT,
    NetworkOptions,
    aggregator_from,
    link_to,
    option,
    option_variables,
)
from fedstep.cli.output import echo_diagnosis, echo_result, echo_warnings, exit_code
from fedstep.errors import HistoryError, InputError, UsageError
from fedstep.types import Unavailable

if TYPE_CHECKING:
    from fedstep.federation.sync import AggregatorLink
    from fedstep.pipeline.context import RunContext

NETWORK_SECONDS = 1.0  # for all requests of `doctor`, which ends within two seconds
LEAK_FOUND = 3  # exit code if a string of a report occurs in an update, or the report cannot be read


@click.command()
@click.argument("reports", nargs=-1, metavar="[GLOB]...")
@option("last", is_flag=True, help="Show the last update sent instead of the next one.")
@option("against", metavar="GLOB", multiple=True, help="Prove that no string of these test reports is in the update.")
@option("audit", is_flag=True, help="List all updates ever sent instead.")
@option("all", parameter="every_coefficient", is_flag=True, help="Show every coefficient, however many there are.")
@option("aggregator", metavar="URL", default="", help="Aggregator for which GitHub issues the token that is shown.")
@option("token", metavar="TOKEN", default="", help="Token whose claims are shown. Prefer FEDSTEP_TOKEN.")
@JSON
@HISTORY
@PART
def inspect(
    reports: tuple[str, ...],
    last: bool,
    against: tuple[str, ...],
    audit: bool,
    every_coefficient: bool,
    as_json: bool,
    history: str,
    part: str,
    **network: Unpack[NetworkOptions],
) -> int:
    """Show the next or last update as it is sent, in words.

    \b
    Example: fedstep inspect --against 'build/**/TEST-*.xml'
    """
    from fedstep.diagnostics.aggregator import find_token
    from fedstep.diagnostics.inspect import inspection_of, past_updates
    from fedstep.report.inspection import inspection_text, record_text
    from fedstep.report.json import inspection_json, record_json

    store = fedstep.Project.discover(history=history, part=part).context().store
    if audit:
        record = past_updates(store)
        echo_result(record_json(record) if as_json else record_text(record))
        return 0
    receiver = aggregator_from(network)
    may_ask = receiver is None or receiver.confirmed
    inspected_token = find_token(network["token"], network["aggregator"], os.environ if may_ask else {})
    inspection = inspection_of(store, last, inspected_token, (*against, *reports))
    echo_warnings(*inspection.warnings)
    echo_result(inspection_json(inspection) if as_json else inspection_text(inspection, every_coefficient))
    return 0 if isinstance(inspection.proof, Unavailable) or inspection.proof.holds else LEAK_FOUND


@click.command()
@click.argument("test", metavar="TEST")
@option("html", metavar="PATH", default="", help="Write an HTML page with the test's outcomes and times to this file.")
@JSON
@HISTORY
@PART
def explain(test: str, html: str, as_json: bool, history: str, part: str) -> int:
    """Explain why a test is, or is not, likely to flake: its past, its features, and what would change that.

    \b
    Example: fedstep explain CartTest#totals
    """
    from fedstep.report.explanation import explanation_text
    from fedstep.report.json import explanation_json

    project = fedstep.Project.discover(history=history, part=part)
    explanation = project.explain(test)
    echo_warnings(*explanation.warnings)
    echo_result(explanation_json(explanation) if as_json else explanation_text(explanation))
    if html:
        from fedstep.pipeline.context import code_host
        from fedstep.report.html import explanation_html

        host = code_host(project.context())
        try:
            Path(html).write_text(explanation_html(explanation, host), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(f"cannot write {html}: {error.strerror}", "Give --html another file") from error
        echo_warnings(f"wrote {html}")
    return 0


@click.command()
@JUNIT
@option("aggregator", metavar="URL", default="", help="Aggregator to check: whether it answers and accepts updates.")
@option("token", metavar="TOKEN", default="", help="Token for the aggregator. Prefer FEDSTEP_TOKEN.")
@HELPER
@JSON
@HISTORY
@PART
def doctor(junit: tuple[str, ...], as_json: bool, history: str, part: str, **network: Unpack[NetworkOptions]) -> int:
    """Check CI, git, test reports, history, aggregator, token, versions and clock; show a remedy for each problem.

    \b
    Example: fedstep doctor --junit 'build/**/TEST-*.xml' --aggregator https://fedstep.example.org
    """
    from fedstep.diagnostics.doctor import diagnose
    from fedstep.results import PROBLEM

    project = fedstep.Project.discover(history=history, part=part)
    context = project.context()
    link: AggregatorLink | Unavailable = Unavailable("no aggregator is configured")
    checked = aggregator_from(network, NETWORK_SECONDS)
    if context.ci.untrusted:
        link = Unavailable("it is not asked: this run comes from a fork or Dependabot")
    elif checked:
        link = link_to(checked, time.time(), NETWORK_SECONDS)  # from now on, however long the start took
        link = replace(link, retry=replace(link.retry, waits=()))
    variables = option_variables(click.get_current_context().find_root().command)
    token = checked.token if checked else network["token"]
    diagnosis = diagnose(context, junit, link, token, _marked_start(context), os.environ, variables)
    echo_diagnosis(diagnosis, as_json)
    return int(bool(diagnosis.count_in(PROBLEM)))


def _marked_start(context: "RunContext") -> float | None:
    """Return when `fedstep predict` recorded the start of this job; None if it did not or the history is unreadable."""
    from fedstep.pipeline.context import marked_start

    try:
        mark = marked_start(context) if context.store.read("key") else None
        return mark.started_at if mark else None
    except HistoryError:
        return None


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@JUNIT
@FORMAT
@STRICT
def reports(files: tuple[str, ...], junit: tuple[str, ...], output_format: str, strict: bool) -> int:
    """Show what is read from test reports: dialect, counts, and what is repaired or rejected.

    \b
    Example: fedstep reports 'build/**/TEST-*.xml'
    """
    from fedstep.ingest.git_process import repository_root
    from fedstep.ingest.junit import combine_files, expand, summarize
    from fedstep.report.survey import ReportSurvey, survey_json, survey_markdown, survey_text

    globs = files or junit
    if not globs:
        raise UsageError("no report is given", "Name files, or set --junit")
    folder = os.getcwd()
    readings = tuple(summarize(expand(globs, Path(folder)), repository_root(folder) or folder))
    as_format = {"text": survey_text, "json": survey_json, "markdown": survey_markdown}[output_format]
    echo_result(as_format(ReportSurvey(readings, combine_files(readings))))
    rejected = [drop for reading in readings for drop in reading.dropped if not drop.kept]
    problems = tuple(InputError(f"{drop.source}: {drop.reason}") for drop in rejected)
    if problems:
        echo_warnings(f"{problems[0]}" + (f" ({len(problems) - 1} more)" if len(problems) > 1 else ""))
    return exit_code(strict, problems)
