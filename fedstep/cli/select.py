"""The commands that shorten a build: the shard of each machine."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

import fedstep
from fedstep.cli.options import FORMAT, HISTORY, PART, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import InputError, UsageError

if TYPE_CHECKING:
    from fedstep.history.test_table import TestTable
    from fedstep.pipeline.selection import NamedTest

NAMES = option(
    "names",
    metavar="FILE",
    default="",
    help="List of the tests, one per line: test ids, node ids of pytest, files or classes. -: standard input. "
    "Default: the tests of the history.",
)


@click.command()
@click.option("--index", type=int, default=None, help="Number of this machine, from 1. Without it the plan is printed.")
@click.option("--total", type=int, default=0, help="Number of machines. Default: that of the plan.")
@option(
    "unit",
    type=click.Choice(["", "file", "class", "test"]),
    default="",
    help="What stays together on one machine. Default: that of the plan, else file.",
)
@option("plan", metavar="TEXT", default="", help="The plan that `fedstep shard --total N` printed; @FILE: a file.")
@NAMES
@FORMAT
@HISTORY
@PART
def shard(index: int, total: int, unit: str, plan: str, names: str, output_format: str, history: str, part: str) -> int:
    """Divide the tests among the machines of one CI run, balanced by predicted time.

    One machine prints the plan; each machine is given it with --plan and prints its own tests. Without a plan the names
    alone decide, the same on every machine, but not balanced.

    \b
    Example: fedstep shard --total 4 > plan.txt
    Example: fedstep shard --index 2 --plan @plan.txt --names tests.txt
    """
    from fedstep.pipeline.shards import check_shard, decode_plan, hash_plan, plan_shards

    known = decode_plan(_read_plan(plan)) if plan else None
    if known and (total not in (0, known.total) or unit not in ("", known.unit)):
        told = f"the plan is for --total {known.total} --unit {known.unit}"
        raise UsageError(told, "Give the same, or leave them out")
    total, unit = (known.total, known.unit) if known else (total, unit or "file")
    check_shard(1 if index is None else index, total)
    named, table = _named_tests(names, history, part)
    identities = {one.identity: one.name for one in named}
    if index is not None:
        if not known:
            remedy = "Hand on what `fedstep shard --total N` printed to balance them"
            echo_warnings(f"no plan: the shards are made by the tests' names alone. {remedy}")
        chosen = (known or hash_plan(total, unit)).choose(identities, index)
        echo_result("".join(f"{identities[one]}\n" for one in chosen))
        return 0
    from fedstep.pipeline.selection import predict_seconds

    made, shards = plan_shards(identities, predict_seconds(named, table), total, unit)
    if output_format == "json":
        rows = [one._asdict() for one in shards]
        echo_result(json.dumps({"plan": made.encode(), "total": total, "unit": unit, "shards": rows}) + "\n")
    else:
        echo_result(f"{made.encode()}\n")
    return 0


def _named_tests(names: str, history: str, part: str) -> "tuple[Sequence[NamedTest], TestTable]":
    """Return the tests to divide or choose from, and what the history knows. Raise UsageError where there is none."""
    from fedstep.history.summary import load_summary
    from fedstep.pipeline.context import with_readable_store
    from fedstep.pipeline.selection import NamedTest, active_tests, read_names

    context, problems = with_readable_store(fedstep.Project.discover(history=history, part=part).context())
    loaded = load_summary(context.store)
    echo_warnings(*map(str, problems), *loaded.warnings)
    if names:
        return read_names(_read_lines(names), loaded.summary.tests), loaded.summary.tests
    active = active_tests(loaded.summary)
    if not active:
        raise UsageError("the history knows no tests", "Give their names with --names")
    return [NamedTest(test, test, (test,)) for test in active], loaded.summary.tests


def _read_plan(plan: str) -> str:
    if not plan.startswith("@"):
        return plan
    return "".join(_read_lines(plan[1:]))


def _read_lines(path: str) -> list[str]:
    """Return the lines of a file, of standard input for `-`. Raise InputError if it cannot be read."""
    try:
        if path == "-":
            return list(sys.stdin)
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return list(file)
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror}", "Check the path") from error
