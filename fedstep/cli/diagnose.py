"""To see inside: what is sent, why a test is named, what the step needs."""

import os
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedstep.cli.options import FORMAT, HELPER, HISTORY, JUNIT, PART, STRICT, Options, option, option_variables
from fedstep.cli.output import echo_result, echo_warnings, exit_code
from fedstep.cli.session import aggregator_of, context_from, marked_start
from fedstep.errors import HistoryError, InputError, UsageError
from fedstep.pipeline.context import RunContext
from fedstep.types import Unavailable

if TYPE_CHECKING:
    from fedstep.history.test_table import TestTable
    from fedstep.report.explanation import TestExplanation

TEXTS = {
    "record": "fedstep.report.inspection",
    "inspection": "fedstep.report.inspection",
    "explanation": "fedstep.report.explanation",
    "diagnosis": "fedstep.report.text_tables",
}
JSON = option("json", is_flag=True, help="JSON instead of text.")
NETWORK_SECONDS = 1.0  # for all questions to the aggregator and its helper: with the rest all is over in two
FOUND = 3  # the exit code where a string of the report was found, or the report could not be read


@click.command()
@click.argument("reports", nargs=-1, metavar="[GLOB]...")
@option("last", is_flag=True, help="The last update sent, instead of the next one.")
@option("against", metavar="GLOB", multiple=True, help="Prove that no string of these reports is in it.")
@option("audit", is_flag=True, help="List everything ever sent instead.")
@option("all", is_flag=True, help="Every coefficient, however many.")
@option("aggregator", metavar="URL", default="", help="Show the token that GitHub gives a job for it.")
@option("token", metavar="TOKEN", default="", help="Show what it tells; keep it in FEDSTEP_TOKEN.")
@JSON
@HISTORY
@PART
def inspect(**given: Any) -> int:
    """Show the next or last update exactly as it is sent, in words.

    \b
    Example: fedstep inspect --against 'build/**/TEST-*.xml'
    """
    from fedstep.diagnostics.aggregator import presented
    from fedstep.diagnostics.inspect import inspection_of, past_updates

    place = context_from(given)
    if given["audit"]:
        record = past_updates(place.store)
        _show(given, "record", record)
        return 0
    globs = (*given["against"], *given["reports"])
    told = presented(given["token"], given["aggregator"], os.environ)
    found = inspection_of(place.store, given["last"], told, globs)
    echo_warnings(*found.warnings)
    _show(given, "inspection", found)
    return 0 if isinstance(found.proof, Unavailable) or found.proof.holds else FOUND


@click.command()
@click.argument("test", metavar="TEST")
@option("html", metavar="FILE", default="", help="Write a page with its outcomes and times.")
@JSON
@HISTORY
@PART
def explain(**given: Any) -> int:
    """Say why a test is, or is not, likely to flake: its past, its features, what would change that.

    \b
    Example: fedstep explain CartTest#totals
    """
    from fedstep.diagnostics.explain import explain as explain_test
    from fedstep.history.summary import load_summary

    place = context_from(given)
    remembered = load_summary(place.store)
    echo_warnings(*remembered.warnings)
    found = _one_test(given["test"], remembered.summary.tests)
    if not found:
        return UsageError.exit_code
    explained = explain_test(place.store, remembered.summary, found, place.now, remembered.warnings)
    _show(given, "explanation", explained)
    return _write_page(given["html"], explained) if given["html"] else 0


def _one_test(wanted: str, table: "TestTable") -> str:
    """The one test that is meant, by its id or the one before a rename; "" after having said which it could be."""
    from fedstep.diagnostics.explain import MOST_MATCHES, matches, nearest
    from fedstep.history.test_table import former_ids

    tests, now = table.ids, former_ids(table)
    if not tests:
        raise HistoryError("no test of this project is known yet", "Run fedstep train after your tests")
    found = matches(wanted, tests) or tuple(now[former] for former in matches(wanted, tuple(now)))
    if len(found) == 1:
        return found[0]
    if found:
        echo_warnings(f"{wanted} means {len(found)} tests. Give more of the name:", *found[:MOST_MATCHES])
    else:
        alike = nearest(wanted, tests)
        echo_warnings(
            f"no test of the history is called {wanted}. {'Did you mean:' if alike else 'See fedstep predict'}", *alike
        )
    return ""


def _write_page(path: str, explained: "TestExplanation") -> int:
    from fedstep.report.explanation import explanation_html

    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(explanation_html(explained))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "Give --html another file") from error
    echo_warnings(f"wrote {path}")
    return 0


@click.command()
@JUNIT
@option("aggregator", metavar="URL", default="", help="Look whether it answers, and whether it takes updates.")
@option("token", metavar="TOKEN", default="", help="For the aggregator; keep it in FEDSTEP_TOKEN.")
@HELPER
@JSON
@HISTORY
@PART
def doctor(**given: Any) -> int:
    """Say what fedstep finds here and what to fix: CI, git, reports, history, aggregator, token, versions, clock.

    \b
    Example: fedstep doctor --junit 'build/**/TEST-*.xml' --aggregator https://fedstep.example.org
    """
    from fedstep.diagnostics.doctor import diagnose
    from fedstep.results import PROBLEM

    place = context_from(given)
    aggregator = aggregator_of({**given, "timeout": NETWORK_SECONDS, "budget": NETWORK_SECONDS}, place)
    if not isinstance(aggregator, Unavailable):
        end = time.monotonic() + NETWORK_SECONDS  # whatever the start took
        aggregator = replace(aggregator, retry=replace(aggregator.retry, waits=(), deadline=end))
    variables = option_variables(click.get_current_context().find_root().command)
    diagnosis = diagnose(place, given["junit"], aggregator, given["token"], _mark(place), os.environ, variables)
    _show(given, "diagnosis", diagnosis)
    return int(bool(diagnosis.count(PROBLEM)))


def _mark(place: RunContext) -> float | None:
    """When `fedstep predict` said that this job began; None where it did not, or the history cannot be read."""
    try:
        return marked_start(place) if place.store.read("key") else None
    except HistoryError:
        return None


def _show(given: Options, kind: str, value: object) -> None:
    """The value on standard output, as text or JSON."""
    sink = import_module("fedstep.report.json" if given["json"] else TEXTS[kind])
    more = (given["all"],) if kind == "inspection" and not given["json"] else ()
    echo_result(getattr(sink, f"{kind}_{'json' if given['json'] else 'text'}")(value, *more))


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@JUNIT
@FORMAT
@STRICT
def reports(**given: Any) -> int:
    """Show what is read of test reports: dialect, counts, what is repaired and what is refused.

    \b
    Example: fedstep reports 'build/**/TEST-*.xml'
    """
    from fedstep.ingest.git_process import repository_root
    from fedstep.ingest.junit import combine_files, expand, summarize
    from fedstep.report.text_tables import ReportSurvey, survey_json, survey_markdown, survey_text

    here = os.getcwd()
    globs = given["files"] or given["junit"]
    if not globs:
        raise UsageError("no report is given", "Name files, or set --junit")
    readings = tuple(summarize(expand(globs, Path(here)), repository_root(here) or here))
    found = ReportSurvey(readings, combine_files(readings))
    echo_result({"json": survey_json, "markdown": survey_markdown, "text": survey_text}[given["format"]](found))
    refused = [drop for reading in readings for drop in reading.dropped if not drop.kept]
    problems = tuple(InputError(f"{drop.source}: {drop.reason}") for drop in refused)
    if problems:
        echo_warnings(f"{problems[0]}" + (f" ({len(problems) - 1} more)" if len(problems) > 1 else ""))
    return exit_code(given, problems)
