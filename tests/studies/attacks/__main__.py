"""Attack what leaves a project: `python -m tests.studies.attacks [--attack NAME] CORPUS...`."""

from pathlib import Path

import click

from fedstep.cli.evaluate import show_progress, write_file
from fedstep.cli.output import echo_result
from tests.studies.attacks.study import ATTACKS, BUILD_ATTACKS, attacks_json, attacks_on, attacks_text, run_attacks
from tests.studies.command import CORPUS, FIGURES, SEED, run_command


@click.command()
@CORPUS
@click.option(
    "--attack",
    type=click.Choice([*ATTACKS, *BUILD_ATTACKS, "all"]),
    default="all",
    show_default=True,
    help="Attack to run; all: every attack for which CORPUS has a table.",
)
@SEED
@FIGURES
def attacks(corpus: tuple[Path, ...], attack: str, seed: int, figures: str) -> None:
    """Attack what leaves a project, with every protection off, by default and on.

    CORPUS is a folder with a `tests.csv` or `builds.csv` for each project.
    """
    names = attacks_on(corpus) if attack == "all" else (attack,)
    runs = show_progress(run_attacks(corpus, names, seed), "attacking", len(names))
    findings = tuple(finding for run in runs for finding in run)
    echo_result(attacks_text(findings))
    write_file(figures, attacks_json(findings))


if __name__ == "__main__":
    run_command(attacks)
