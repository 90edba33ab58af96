"""The commands that shorten a build: the order of its tests, a selection of them, and the shard of each machine."""

import gc
import json
import os
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

import click

import fedstep
from fedstep.cli.options import HISTORY, LIST_FORMAT, PART, FloatRange, explicit_options, option
from fedstep.cli.output import (
    echo_names,
    echo_result,
    echo_warnings,
    new_warnings,
    read_lines,
    read_plan,
    write_ci_outputs,
)
from fedstep.errors import UsageError

if TYPE_CHECKING:
    from fedstep.history.summary import Summary
    from fedstep.pipeline.context import RunContext
    from fedstep.pipeline.selection import Choice, NamedTest, RankedTest, Selection
    from fedstep.pipeline.shards import Shard, ShardPlan

MOST_PLAN = 100_000  # characters: a variable of a process holds 128 kB
NAMES = option(
    "names",
    metavar="FILE",
    default="",
    help="List of the tests, one per line: test ids, node ids of pytest, files or classes. -: standard input. "
    "Default: the tests of the history.",
)
RUNNER = option(
    "for",
    parameter="runner",
    type=click.Choice(["list", "pytest", "maven", "gradle", "jest", "vitest", "mocha", "playwright", "go"]),
    default="list",
    help="Print the arguments of this test runner, or one name per line.",
)


@click.command()
@RUNNER
@NAMES
@LIST_FORMAT
@HISTORY
@PART
def order(runner: str, names: str, output_format: str, history: str, part: str) -> NoReturn:
    """Print the tests in the order that shows a failure soonest: likely failures per second first.

    \b
    Example: fedstep order --names tests.txt
    """
    context = _read_context(history, part)
    ranked, _, _ = _rank(names, context)
    if output_format == "json":
        echo_result(json.dumps({"tests": list(map(_row, ranked))}) + "\n")
        _end()
    echo_names(_lines(ranked, runner, context.root))
    _end()


TIME = option("time", metavar="TIME", default="", help="Run tests of this predicted time, such as 10m or 90s.")
SHARE = option("share", type=FloatRange(0.0, 1.0), default=None, help="Run this share of the test time.")
CONFIDENCE = option(
    "confidence",
    type=FloatRange(0.5, 0.999),
    default=None,
    help="Run what shows a failure in this share of failing builds, judged by the project's own past ones.",
)
EXPLORE = option(
    "explore", type=FloatRange(0.0, 1.0), default=0.05, help="Share of the other tests that run too, drawn at random."
)
SHADOW = option("shadow", is_flag=True, help="Run all tests, and tell what would have been left out.")


@click.command()
@TIME
@SHARE
@CONFIDENCE
@EXPLORE
@SHADOW
@RUNNER
@NAMES
@LIST_FORMAT
@HISTORY
@PART
def select(
    time: str,
    share: float | None,
    confidence: float | None,
    explore: float,
    shadow: bool,
    runner: str,
    names: str,
    output_format: str,
    history: str,
    part: str,
) -> NoReturn:
    """Print a part of the tests: those most likely to fail, new and changed ones, and those that failed lately.

    \b
    Example: fedstep select --confidence 0.95 --names tests.txt
    """
    from random import Random

    from fedstep.pipeline.selection import select_tests

    choice = _choice(time, share, confidence)
    context = _read_context(history, part)
    ranked, summary, seed = _rank(names, context)
    selection = select_tests(ranked, choice, summary.first_failures, explore, Random(seed))
    if not names:
        echo_warnings("tests that the history does not know are not in this list. Give all with --names")
    echo_warnings(_tell(selection, shadow))
    chosen = tuple(ranked) if shadow else selection.chosen
    lines = _lines(chosen, runner, context.root)
    if lines:
        _note(context, selection, shadow)
    if output_format == "json":
        answer = {
            "tests": list(map(_row, chosen)),
            "skipped": [test.named.name for test in selection.skipped],
            **_selection_json(selection, shadow),
        }
        echo_result(json.dumps(answer) + "\n")
        _end()
    echo_names(lines)
    _end()


def _choice(time: str, share: float | None, confidence: float | None) -> "Choice":
    """Return how much to run. Raise UsageError unless exactly one option tells."""
    from fedstep.pipeline.selection import Choice

    if (bool(time), share is not None, confidence is not None).count(True) != 1:
        raise UsageError("how much to run is not clear", "Give one of --time, --share and --confidence")
    return Choice(_read_seconds(time) if time else None, share, confidence)


def _read_seconds(text: str) -> float:
    """Return the seconds of 90s, 10m, 1.5h or 90. Raise UsageError for other text."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    amount, unit = (text[:-1], text[-1]) if text[-1] in units else (text, "s")
    try:
        seconds = float(amount) * units[unit]
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise UsageError(f"--time {text} is no time", "Give it as 90s, 10m or 1h")
    return seconds


def _note(context: "RunContext", selection: "Selection", shadow: bool) -> None:
    """Write down what does not run, for the train step of this job."""
    from fedstep.pipeline.context import note_left_out

    tests = tuple(chain.from_iterable([test.named.tests for test in selection.skipped]))
    if tests:
        echo_warnings(*map(str, note_left_out(context, tests, shadow)))


def _rank(names: str, context: "RunContext") -> "tuple[tuple[RankedTest, ...], Summary, str]":
    """Return the tests in their order, the history, and what a random draw of this build starts from."""
    from fedstep.pipeline.context import change_problems, start_build_context

    waiting = start_build_context(context, with_words=True)  # git runs while the history is read
    from fedstep.history.word_index import read_word_index
    from fedstep.pipeline.selection import rank_tests
    from fedstep.types import Change

    named, summary = _named_tests(names, context)
    index = read_word_index(context.store)
    change = waiting().change
    echo_warnings(*map(str, change_problems(change)))
    ranked = rank_tests(summary, named, change, index)
    commit = change.commit if isinstance(change, Change) else ""
    return ranked, summary, f"explore {commit or context.ci.run}"


def _lines(tests: "Sequence[RankedTest]", runner: str, root: str) -> Sequence[str]:
    """Return what is printed for a runner: nothing for one that cannot be given all of them, so that it runs all."""
    if runner == "list":
        return [ranked.named.name for ranked in tests]
    from fedstep.pipeline.context import exists_within
    from fedstep.report.rerun import selection
    from fedstep.results import FailureVerdict

    ids = [test for ranked in tests for test in ranked.named.tests or (ranked.named.identity,)]
    chosen = selection(runner, [FailureVerdict(test, 0.0) for test in dict.fromkeys(ids)], exists_within(root))
    if not chosen.left_out:
        return chosen.lines
    count, first = len(chosen.left_out), chosen.left_out[0]
    warning = f"{count} test{'s' * (count > 1)} cannot be named to {runner}, the first is {first}"
    echo_warnings(f"{warning}. No arguments are printed, so that all run")
    return ()


def _end() -> NoReturn:
    """End the program here: to free on the way back all that was read takes a tenth of the time."""
    raise SystemExit(0)


def _row(ranked: "RankedTest") -> dict[str, object]:
    return {
        "test": ranked.named.name,
        "score": round(ranked.score, 4),
        "seconds": round(ranked.seconds, 3),
        "always": ranked.always,
    }


def _tell(selection: "Selection", shadow: bool) -> str:
    """Return one line about a selection: how much runs, and what it would have caught."""
    from fedstep.report.units import span

    if selection.reason:
        return f"all tests run: {selection.reason}"
    verb = "would run" if shadow else "run"
    always = sum(test.always != "" for test in selection.chosen)
    why = f" ({always} always do: new, changed or failed lately)" if always else ""
    sentence = (
        f"{len(selection.chosen)} of {len(selection.chosen) + len(selection.skipped)} tests {verb}{why}, "
        f"{100 * selection.share:.0f} % of the time, saving {span(selection.saved_seconds)}"
    )
    if not selection.red_builds:
        return f"{sentence}; no build with a new failure is known to judge it by"
    if selection.red_builds == 1:
        seen = f"the one build known with a new failure would have shown {'it' if selection.caught else 'nothing'}"
    else:
        seen = f"{selection.caught} of the last {selection.red_builds} builds with a new failure would have shown one"
    missed = selection.red_builds - selection.caught
    return f"{sentence}; {seen} (false green rate {100 * missed / selection.red_builds:.0f} %)"


UNIT = option(
    "unit",
    type=click.Choice(["", "file", "class", "test"]),
    metavar="[file|class|test]",
    default="",
    help="What stays together on one machine. Default: that of the plan, else file.",
)


@click.command()
@option("total", type=click.INT, default=1, help="Number of machines.")
@UNIT
@TIME
@SHARE
@CONFIDENCE
@EXPLORE
@SHADOW
@NAMES
@LIST_FORMAT
@HISTORY
@PART
def plan(
    total: int,
    unit: str,
    time: str,
    share: float | None,
    confidence: float | None,
    explore: float,
    shadow: bool,
    names: str,
    output_format: str,
    history: str,
    part: str,
) -> NoReturn:
    """Choose the tests of a CI run and divide them among its machines, in one plan for all of them.

    Each machine is given the plan: `fedstep shard --index N --plan TEXT --names FILE` prints its tests. Tests that the
    history does not know always run. Without --time, --share and --confidence all tests run.

    \b
    Example: fedstep plan --total 4 --confidence 0.95
    """
    from fedstep.pipeline.selection import predict_seconds
    from fedstep.pipeline.shards import check_shard, fixed_seconds, plan_shards, with_skipped
    from fedstep.report.units import span

    check_shard(1, total)
    choice = _choice(time, share, confidence) if time or share is not None or confidence is not None else None
    context = _read_context(history, part)
    selection, summary, sentence = _choose(names, context, choice, explore, shadow)
    ran = (*selection.chosen, *selection.skipped) if shadow else selection.chosen
    seconds = predict_seconds([test.named for test in ran], summary.tests)
    made, shards = plan_shards(seconds, seconds, total, unit or "file")
    made = with_skipped(made, (test.named.identity for test in selection.skipped), shadow)
    fixed, longest = fixed_seconds(summary.builds), max(load.seconds for load in shards)
    if isinstance(fixed, float):
        sentence += f"; the slowest machine takes about {span(fixed + longest)}, {span(fixed)} of it beside its tests"
    echo_warnings(sentence)
    fields: dict[str, object] = {"plan": made.encode(), "total": total, "unit": made.unit}
    fields["fixed_seconds"] = round(fixed, 3) if isinstance(fixed, float) else None
    fields |= {"shards": [load._asdict() for load in shards], **_selection_json(selection, shadow)}
    fields["headline"] = sentence
    echo_result(f"{json.dumps(fields) if output_format == 'json' else made.encode()}\n")
    _note(context, selection, shadow)
    _write_plan(context, made, shards, selection, fields)
    _end()


def _choose(
    names: str, context: "RunContext", choice: "Choice | None", explore: float, shadow: bool
) -> "tuple[Selection, Summary, str]":
    """Return which tests run, the history, and one line about it. Of a history without tests, all run."""
    from random import Random

    from fedstep.history.summary import load_summary
    from fedstep.pipeline.selection import Selection, active_tests, select_tests

    if not names and not active_tests(summary := load_summary(context.store).summary):
        return Selection((), ()), summary, "no test is known yet: all run, divided by their names"
    ranked, summary, seed = _rank(names, context)
    if not choice:
        return Selection(tuple(ranked), ()), summary, f"{len(ranked):,} known tests run"
    selection = select_tests(ranked, choice, summary.first_failures, explore, Random(seed))
    return selection, summary, _tell(selection, shadow)


def _selection_json(selection: "Selection", shadow: bool) -> dict[str, object]:
    """Return the figures of a selection by the keys of `fedstep select --format json`."""
    return {
        "share": round(selection.share, 4),
        "saved_seconds": round(selection.saved_seconds, 3),
        "reason": selection.reason,
        "red_builds": selection.red_builds,
        "caught": selection.caught,
        "shadow": shadow,
    }


def _write_plan(
    context: "RunContext",
    made: "ShardPlan",
    shards: "Sequence[Shard]",
    selection: "Selection",
    fields: dict[str, object],
) -> None:
    """Write the outputs and the summary that a CI reads."""
    from fedstep.pipeline.context import in_ci
    from fedstep.report.ci_outputs import plan_outputs
    from fedstep.report.markdown import plan_markdown

    if not in_ci(context.ci):
        return
    saved = 0.0 if made.shadow else selection.saved_seconds
    text, ran = made.encode(), sum(load.tests for load in shards)
    if len(text) > MOST_PLAN:
        echo_warnings("the plan is too long for an output: it divides the tests, and all run. Hand on a file instead")
        text, saved, ran = made._replace(skipped=frozenset()).encode(), 0.0, ran + len(selection.skipped)
    rows = [(str(load.number), f"{load.tests:,}", load.seconds) for load in shards]
    summary = plan_markdown(str(fields["headline"]), rows)
    findings = f"{json.dumps(fields, indent=2)}\n" if os.environ.get("FEDSTEP_FINDINGS") else ""
    values = plan_outputs(text, made.total, ran, saved)
    echo_warnings(*new_warnings(write_ci_outputs(context, values, summary, "", findings), ()))


@click.command()
@option("index", type=click.INT, default=None, help="Number of this machine, from 1. Without it the plan is printed.")
@option("total", type=click.INT, default=None, help="Number of machines. Default: that of the plan.")
@UNIT
@option("plan", metavar="TEXT", default="", help="The plan that `fedstep shard --total N` printed; @FILE: a file.")
@NAMES
@LIST_FORMAT
@HISTORY
@PART
def shard(
    index: int | None, total: int | None, unit: str, plan: str, names: str, output_format: str, history: str, part: str
) -> NoReturn:
    """Divide the tests among the machines of one CI run, balanced by predicted time.

    One machine prints the plan; each machine is given it with --plan and prints its own tests. Without a plan the names
    alone decide, the same on every machine, but not balanced.

    \b
    Example: fedstep shard --total 4 > plan.txt
    Example: fedstep shard --index 2 --plan @plan.txt --names tests.txt
    """
    from fedstep.pipeline.shards import check_shard, decode_plan, hash_plan, plan_shards

    text = read_plan(plan).strip()  # empty where the job before could not make one
    known = decode_plan(text) if text else None
    if known and (total not in (None, known.total) or unit not in ("", known.unit)):
        mismatch = f"the plan is for --total {known.total} --unit {known.unit}"
        raise UsageError(mismatch, "Give the same, or leave them out")
    if not known and total is None:
        mismatch = "the plan is empty" if explicit_options("plan") else "there is no plan"
        raise UsageError(f"{mismatch}, so the number of machines is not known", "Give it with --total")
    total, unit = (known.total, known.unit) if known else (total or 0, unit or "file")
    check_shard(1 if index is None else index, total)
    named, summary = _named_tests(names, _read_context(history, part, fetch=index is None))
    identities: dict[str, list[str]] = {}
    for test in named:
        identities.setdefault(test.identity, []).append(test.name)
    if index is not None:
        if not known:
            remedy = "Hand on what `fedstep shard --total N` printed to balance them"
            echo_warnings(f"no plan: the shards are made by the tests' names alone. {remedy}")
        chosen = (known or hash_plan(total, unit)).choose(identities, index)
        if not chosen:
            echo_warnings(f"machine {index} of {total} has no test. Of an empty list most runners run all tests")
        own = [name for identity in chosen for name in identities[identity]]
        if output_format == "json":
            echo_result(json.dumps({"index": index, "total": total, "unit": unit, "tests": own}) + "\n")
        else:
            echo_names(own)
        _end()
    from fedstep.pipeline.selection import predict_seconds

    seconds = predict_seconds(named, summary.tests)
    made, shards = plan_shards(identities, seconds, total, unit)
    if output_format == "json":
        rows = [load._asdict() for load in shards]
        echo_result(json.dumps({"plan": made.encode(), "total": total, "unit": unit, "shards": rows}) + "\n")
    else:
        echo_result(f"{made.encode()}\n")
    _end()


def _read_context(history: str, part: str, fetch: bool = True) -> "RunContext":
    """Return the context, with what others have published in a shared history."""
    gc.disable()  # nothing becomes free before the command ends, and to find that out takes a tenth of its time
    from fedstep.pipeline.context import fetch_history, with_readable_store

    context, problems = with_readable_store(fedstep.Project.discover(history=history, part=part).context())
    warnings: tuple[str, ...] = ()
    if fetch and not problems and "PYTEST_XDIST_WORKER" not in os.environ:  # its workers must agree on one history
        problems, warnings = fetch_history(context)
    echo_warnings(*map(str, problems), *warnings)
    return context


def _named_tests(names: str, context: "RunContext") -> "tuple[Sequence[NamedTest], Summary]":
    """Return the tests to divide or choose from, and the history. Raise UsageError where there is no test."""
    from fedstep.history.summary import load_summary
    from fedstep.pipeline.selection import NamedTest, active_tests, read_names

    loaded = load_summary(context.store)
    echo_warnings(*loaded.warnings)
    if names:
        return read_names(read_lines(names), loaded.summary.tests), loaded.summary
    active = active_tests(loaded.summary)
    if not active:
        raise UsageError("the history knows no tests", "Give their names with --names")
    return [NamedTest(test, test, (test,)) for test in active], loaded.summary
