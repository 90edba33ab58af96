"""What shows that it works: the demonstration, and the study of recorded histories."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import click

from fedstep.cli.options import Options, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import InputError, MissingExtra, UsageError

T = TypeVar("T")
TASKS = ("build-duration", "build-failure", "test-duration", "flaky", "triage")
MODES = ("federated", "local", "pooled", "global-only")
ATTACKS = (
    *("reconstruct", "words", "strangers", "membership", "identify"),
    *("difference", "probe", "liar", "leader", "helper", "build-membership"),
)


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
@option("privacy", metavar="EPSILON", type=click.FloatRange(0), help="What differential privacy costs, of flaky tests.")
@option("participants", type=click.IntRange(1), default=100, show_default=True, help="Drawn projects, of --privacy.")
@option("releases", type=click.IntRange(1), default=5, show_default=True, help="Times each contributes, of --privacy.")
@option("attack", type=click.Choice([*ATTACKS, "all"]), help="What an attacker learns, or breaks; without --task.")
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
    if given["attack"]:
        return _attack(given)
    if not given["task"]:
        raise UsageError("--task is missing", f"Give one of {', '.join(TASKS)}, or an --attack.")
    if given["privacy"]:
        return _privacy(given)
    plan = StudyPlan(
        given["task"],
        given["mode"],
        given["hold_out"],
        given["seed"],
        given["jobs"],
        given["backend"],
        given["cold_start"],
    )
    study = run_study(given["corpus"], plan, _progress)
    echo_result(study_text(study))
    _write(given["figures"], study_json(study))
    if given["html"]:
        alone = run_study(given["corpus"], replace(plan, mode="local"), _progress) if plan.mode == "federated" else None
        _write(given["html"], study_page(study, alone))
    return 0


def _privacy(given: Options) -> int:
    """Learn without differential privacy, with its bounds, and with its noise."""
    from tests.studies.private import PrivatePlan, run_private
    from tests.studies.private_text import private_json, private_text

    if given["task"] != "flaky":
        raise UsageError(f"--privacy cannot be studied with --task {given['task']}", "Give --task flaky.")
    plans = [
        PrivatePlan(epsilon, given["participants"], given["releases"], seed=given["seed"])
        for epsilon in (0.0, inf, given["privacy"])
    ]
    studies = tuple(_progress(run_private(given["corpus"], plans), "learning", len(plans)))
    echo_result(private_text(studies))
    _write(given["figures"], private_json(studies))
    return 0


def _attack(given: Options) -> int:
    """Attack what leaves a project, with every protection off, by default and on."""
    from tests.studies.attacks.study import attacks_json, attacks_on, attacks_text, run_attacks

    names = attacks_on(given["corpus"]) if given["attack"] == "all" else (given["attack"],)
    found = _progress(run_attacks(given["corpus"], names, given["seed"]), "attacking", len(names))
    findings = tuple(finding for one in found for finding in one)
    echo_result(attacks_text(findings))
    _write(given["figures"], attacks_json(findings))
    return 0


def _progress(parts: Iterable[T], label: str, count: int) -> Iterable[T]:
    """The parts, with a bar on standard error while they are taken."""
    with click.progressbar(parts, length=count, label=f"{label:<12}", file=sys.stderr, update_min_steps=100) as bar:
        yield from bar


def _write(path: str, text: str) -> None:
    if not path:
        return
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}", "Name a file in a folder that exists"
        ) from error
