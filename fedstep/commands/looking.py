"""To see inside: what is sent, why a test is named, what the step needs."""

import os
import time
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from fedstep.build.record import Absent
from fedstep.commands.options import HELPER, HISTORY, JUNIT, PART, Given, option, option_variables
from fedstep.commands.place import aggregator_of, marked_start, place_of
from fedstep.commands.sinks import say, show
from fedstep.errors import HistoryError, UsageError
from fedstep.workplace import Workplace

if TYPE_CHECKING:
    from fedstep.history.table import TestTable
    from fedstep.report.explained import Explained

__all__ = ["doctor", "explain", "inspect"]

TEXTS = {
    "record": "fedstep.report.inspect_text",
    "inspection": "fedstep.report.inspect_text",
    "explanation": "fedstep.report.explain_text",
    "diagnosis": "fedstep.report.doctor_text",
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
    from fedstep.looking.inspection import inspection_of, past_updates
    from fedstep.looking.token import presented

    place = place_of(given)
    if given["audit"]:
        record = past_updates(place.home)
        _show(given, "record", record)
        return 0
    globs = (*given["against"], *given["reports"])
    told = presented(given["token"], given["aggregator"], os.environ)
    found = inspection_of(place.home, given["last"], told, globs)
    say(*found.warnings)
    _show(given, "inspection", found)
    return 0 if isinstance(found.proof, Absent) or found.proof.holds else FOUND


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
    from fedstep.history.memory import recall
    from fedstep.looking.explanation import explain as explain_test

    place = place_of(given)
    remembered = recall(place.home)
    say(*remembered.warnings)
    found = _one_test(given["test"], remembered.summary.tests)
    if not found:
        return UsageError.exit_code
    explained = explain_test(place.home, remembered.summary, found, place.now, remembered.warnings)
    _show(given, "explanation", explained)
    return _write_page(given["html"], explained) if given["html"] else 0


def _one_test(wanted: str, table: "TestTable") -> str:
    """The one test that is meant, by its id or the one before a rename; "" after having said which it could be."""
    from fedstep.history.table import formerly
    from fedstep.looking.matching import MOST_MATCHES, matches, nearest

    tests, now = table.ids, formerly(table)
    if not tests:
        raise HistoryError("no test of this project is known yet", "Run fedstep train after your tests")
    found = matches(wanted, tests) or tuple(now[former] for former in matches(wanted, tuple(now)))
    if len(found) == 1:
        return found[0]
    if found:
        say(f"{wanted} means {len(found)} tests. Give more of the name:", *found[:MOST_MATCHES])
    else:
        alike = nearest(wanted, tests)
        say(f"no test of the history is called {wanted}. {'Did you mean:' if alike else 'See fedstep predict'}", *alike)
    return ""


def _write_page(path: str, explained: "Explained") -> int:
    from fedstep.report.explain_html import explanation_html

    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(explanation_html(explained))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", "Give --html another file") from error
    say(f"wrote {path}")
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
    from fedstep.looking.doctor import diagnose
    from fedstep.report.diagnosis import PROBLEM

    place = place_of(given)
    aggregator = aggregator_of({**given, "timeout": NETWORK_SECONDS, "budget": NETWORK_SECONDS}, place)
    if not isinstance(aggregator, Absent):
        end = time.monotonic() + NETWORK_SECONDS  # whatever the start took
        aggregator = replace(aggregator, patience=replace(aggregator.patience, waits=(), deadline=end))
    variables = option_variables(click.get_current_context().find_root().command)
    diagnosis = diagnose(place, given["junit"], aggregator, given["token"], _mark(place), os.environ, variables)
    _show(given, "diagnosis", diagnosis)
    return int(bool(diagnosis.count(PROBLEM)))


def _mark(place: Workplace) -> float | None:
    """When `fedstep predict` said that this job began; None where it did not, or the history cannot be read."""
    try:
        return marked_start(place) if place.home.read("key") else None
    except HistoryError:
        return None


def _show(given: Given, kind: str, value: object) -> None:
    """The value on standard output, as text or JSON."""
    sink = import_module("fedstep.report.look_json" if given["json"] else TEXTS[kind])
    more = (given["all"],) if kind == "inspection" and not given["json"] else ()
    show(getattr(sink, f"{kind}_{'json' if given['json'] else 'text'}")(value, *more))
