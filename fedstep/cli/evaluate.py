"""The commands `demo` and `simulate`, which show and measure how well the predictions work."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from fedstep.cli.options import option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import InputError, MissingExtra, UsageError

T = TypeVar("T")
TASKS = ("build-duration", "build-failure", "test-duration", "flaky", "triage", "test-failure")
MODES = ("federated", "local", "pooled", "global-only", "starter")


@click.command()
@option("output", metavar="FILE", default="demo-report.html", help="HTML page to write.")
def demo(output: str) -> int:
    """Train and predict on recorded builds of real projects, with an aggregator on this machine.

    \b
    Example: fedstep demo
    """
    from fedstep.evaluation.demo import run

    return run(output, echo_warnings)


@click.command()
@click.argument("corpus", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True, metavar="CORPUS...")
@option("task", type=click.Choice(TASKS), help="Task to study.")
@option("mode", type=click.Choice(MODES), default="federated", help="Who learns from whom.")
@option(
    "hold-out", metavar="PROJECT", multiple=True, help="Project from which the others do not learn. Can be repeated."
)
@option("seed", type=click.INT, default=1, help="Seed of the second interleaving and of samples.")
@option("jobs", type=click.IntRange(0), default=1, help="Number of processes; 0: one per core.")
@option(
    "backend",
    type=click.Choice(["local", "dask"]),
    default="local",
    help="Where worker processes run.",
)
@option("cold-start", is_flag=True, help="Also score the first ten builds of a project.")
@option("figures", "--json", metavar="FILE", default="", help="Write the figures to this file as JSON.")
@option("html", metavar="PATH", default="", help="Write an HTML page to this file.")
def simulate(
    corpus: tuple[Path, ...],
    task: str | None,
    mode: str,
    hold_out: tuple[str, ...],
    seed: int,
    jobs: int,
    backend: str,
    cold_start: bool,
    figures: str,
    html: str,
) -> int:
    """Replay recorded histories as a federation, and score every prediction beside simple baselines.

    \b
    Example: fedstep simulate --task build-duration recorded-builds/
    """
    try:
        from fedstep.evaluation.study import StudyPlan, run_study
        from fedstep.evaluation.study_report import study_json, study_page, study_text
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train,server]'"
        raise MissingExtra(f"{error.name} is not installed", remedy) from error
    if not task:
        raise UsageError("--task is missing", f"Give one of {', '.join(TASKS)}.")
    plan = StudyPlan(task, mode, hold_out, seed, jobs, backend, cold_start)
    study = run_study(corpus, plan, show_progress)
    echo_result(study_text(study))
    write_file(figures, study_json(study))
    if html:
        local = run_study(corpus, replace(plan, mode="local"), show_progress) if plan.mode == "federated" else None
        write_file(html, study_page(study, local))
    return 0


def show_progress(parts: Iterable[T], label: str, count: int) -> Iterable[T]:
    """Yield the parts, with a progress bar on standard error."""
    with click.progressbar(parts, length=count, label=f"{label:<12}", file=sys.stderr, update_min_steps=100) as bar:
        yield from bar


def write_file(path: str, text: str) -> None:
    """Write the text to the file; do nothing if `path` is empty. Raises InputError."""
    if not path:
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        remedy = "Name a file in a folder that exists"
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy) from error
