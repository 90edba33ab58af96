"""The commands around known failures: the verdict on a build, and the list of quarantined tests."""

import os
import time
from datetime import date, timedelta
from typing import Unpack

import click

import fedstep
from fedstep.cli.options import FORMAT, HISTORY, JSON, JUNIT, LOG, MOST, PART, RULES, STRICT, option
from fedstep.cli.output import RulingOptions, echo_result, echo_warnings, finish_with_ruling
from fedstep.errors import UsageError
from fedstep.ingest.mutes import MUTES_FILE, Mute, Mutes, add_mute, find_mute, read_mutes, remove_mute
from fedstep.report.units import visible


@click.command()
@JUNIT
@HISTORY
@PART
@RULES
@LOG
@FORMAT
@STRICT
def verdict(**given: Unpack[RulingOptions]) -> int:
    """Exit with 0 if only quarantined tests failed, and with 1 otherwise.

    For pipelines whose tests run with `|| true` before it. No report, an unreadable one and an incident exit with 1,
    too. What is forgiven is counted in the summary and the outputs.

    \b
    Example: fedstep verdict --junit 'build/**/TEST-*.xml'
    """
    project = fedstep.Project.discover(history=given["history"], part=given["part"])
    report = project.triage(given["junit"], log=given["log"], exit_code=given["exit_code"])
    return finish_with_ruling(report, project, given)


@click.group()
def quarantine() -> None:
    """List, add, remove and suggest tests whose failures are forgiven until a date."""


@quarantine.command("list")
@JSON
def list_(as_json: bool) -> int:
    """List the quarantined tests with owner, reason and last day.

    \b
    Example: fedstep quarantine list
    """
    listed = read_mutes(_root(), _today().isoformat())
    echo_warnings(*listed.mutes.complaints, *map(str, listed.problems))
    _echo_mutes(listed.mutes.entries, as_json)
    return 0


@quarantine.command()
@click.argument("test")
@option("owner", required=True, help="Person or team that takes care of it.")
@option("reason", required=True, help="Why it is quarantined, such as a ticket.")
@option("days", type=click.IntRange(1, 366), default=14, help="Days until it counts again.")
@MOST
def add(test: str, owner: str, reason: str, days: int, max_quarantined: int) -> int:
    """Add a test to the list. It counts again after 14 days by default, about the median of PyTorch's disabled tests.

    \b
    Example: fedstep quarantine add 'shop.CartTest#pays' --owner ada --reason '#123'
    """
    root, until = _root(), _today() + timedelta(days=days)
    others = [mute for mute in read_mutes(root, _today().isoformat()).mutes.entries if mute.test != test]
    if len(others) >= max_quarantined:
        subject = "1 test is" if len(others) == 1 else f"{len(others)} tests are"
        raise UsageError(f"{subject} quarantined already", "Repair one and remove it from the list")
    remove_mute(root, test)  # an entry of it is renewed, not doubled
    entry = Mute(test, owner, reason, until.isoformat())
    add_mute(root, entry)
    _warn_if_unknown(entry)
    echo_result(f"{visible(test, 1000)} is quarantined until {until} in {MUTES_FILE}; commit that file\n")
    return 0


def _warn_if_unknown(entry: Mute) -> None:
    """Warn where the history knows tests, and none that the entry means."""
    from fedstep.diagnostics.explain import matches, nearest
    from fedstep.history.summary import load_summary

    known = tuple(each.test for each in load_summary(fedstep.Project.discover().context().store).summary.tests.values())
    if known and not any(find_mute(test, Mutes((entry,))) for test in known):
        meant = (matches(entry.test, known) or nearest(entry.test, known))[:3]
        hint = f". Did you mean: {', '.join(meant)}" if meant else ""
        echo_warnings(f"no known test is called {entry.test}, so nothing is forgiven by this entry yet{hint}")


@quarantine.command()
@click.argument("test")
def remove(test: str) -> int:
    """Remove a test from the list.

    \b
    Example: fedstep quarantine remove 'shop.CartTest#pays'
    """
    if not remove_mute(_root(), test):
        raise UsageError(f"{test} is not quarantined", "See fedstep quarantine list")
    echo_result(f"{visible(test, 1000)} is no longer quarantined; commit {MUTES_FILE}\n")
    return 0


@quarantine.command()
@HISTORY
@PART
@JSON
def suggest(history: str, part: str, as_json: bool) -> int:
    """Suggest tests to quarantine, with the evidence, and quarantined tests to release because they were quiet.

    \b
    Example: fedstep quarantine suggest
    """
    from fedstep.history.summary import load_summary
    from fedstep.pipeline.triage import suggest_quarantine
    from fedstep.report.json import suggestions_json
    from fedstep.report.text import suggestions_text

    project = fedstep.Project.discover(history=history, part=part)
    context = project.context()
    table = load_summary(context.store).summary.tests
    suggestions = suggest_quarantine(table, read_mutes(context.root, _today().isoformat()).mutes)
    echo_result(suggestions_json(suggestions) if as_json else suggestions_text(suggestions))
    return 0


def _root() -> str:
    from fedstep.ingest.git_process import repository_root

    return repository_root(os.getcwd()) or os.getcwd()


def _today() -> date:
    return date.fromtimestamp(time.time())


def _echo_mutes(entries: tuple[Mute, ...], as_json: bool) -> None:
    if as_json:
        import json

        echo_result(json.dumps({"quarantined": [entry._asdict() for entry in entries]}, indent=2) + "\n")
        return
    lines = (f"{entry.until}  {visible(entry.owner, 30):<20}  {visible(entry.test, 1000)}\n" for entry in entries)
    text = "".join(f"{line}{'':12}{visible(entry.reason)}\n" for line, entry in zip(lines, entries, strict=True))
    echo_result(text or "no test is quarantined\n")
