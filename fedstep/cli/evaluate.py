"""The commands `demo` and `simulate`, which show and measure how well the predictions work."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from fedstep.cli.options import option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import InputError, MissingExtra, UsageError

T = TypeVar("T")
TASKS = ("build-duration", "build-failure", "test-duration", "flaky", "triage")
MODES = ("federated", "local", "pooled", "global-only")


@click.command()
@option("output", metavar="FILE", default="demo-report.html", show_default=True, help="Page to write.")
def demo(**given: Any) -> int:
    """Let recorded builds of real projects train and predict against an aggregator on this machine.

    \b
    Example: fedstep demo
    """
    from fedstep.evaluation.demo import run

    return run(given["output"], echo_warnings)


@click.command()
@click.argument("corpus", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True, metavar="CORPUS...")
@option("task", type=click.Choice(TASKS), help="What is predicted.")
@option("mode", type=click.Choice(MODES), default="federated", show_default=True, help="Who learns from whom.")
@option("hold-out", metavar="PROJECT", multiple=True, help="Gives nothing to the others. Can be repeated.")
@option("seed", type=int, default=1, show_default=True, help="Of the second interleaving and of what is drawn.")
@option("jobs", type=click.IntRange(0), default=1, show_default=True, help="Processes; 0: one a core.")
@option("backend", type=click.Choice(["local", "dask"]), default="local", show_default=True, help="Whose they are.")
@option("cold-start", is_flag=True, help="Score the first ten builds of a project too.")
@option("figures", "--json", metavar="FILE", default="", help="Write the figures to this file, as JSON.")
@option("html", metavar="FILE", default="", help="Write a page to look at.")
def simulate(**given: Any) -> int:
    """Replay recorded histories as a federation, and score every prediction beside simple ones.

    \b
    Example: fedstep simulate --task build-duration recorded-builds/
    """
    try:
        from fedstep.evaluation.study import StudyPlan, run_study
        from fedstep.evaluation.study_report import study_json, study_page, study_text
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train,server]'"
        raise MissingExtra(f"{error.name} is not installed", remedy) from error
    if not given["task"]:
        raise UsageError("--task is missing", f"Give one of {', '.join(TASKS)}.")
    plan = StudyPlan(
        given["task"],
        given["mode"],
        given["hold_out"],
        given["seed"],
        given["jobs"],
        given["backend"],
        given["cold_start"],
    )
    study = run_study(given["corpus"], plan, show_progress)
    echo_result(study_text(study))
    write_file(given["figures"], study_json(study))
    if given["html"]:
        alone = (
            run_study(given["corpus"], replace(plan, mode="local"), show_progress) if plan.mode == "federated" else None
        )
        write_file(given["html"], study_page(study, alone))
    return 0


def show_progress(parts: Iterable[T], label: str, count: int) -> Iterable[T]:
    """Yield the parts and draw a progress bar on standard error."""
    with click.progressbar(parts, length=count, label=f"{label:<12}", file=sys.stderr, update_min_steps=100) as bar:
        yield from bar


def write_file(path: str, text: str) -> None:
    """Write the text to the file, or nothing where `path` is empty. Raises InputError."""
    if not path:
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}", "Name a file in a folder that exists"
        ) from error
