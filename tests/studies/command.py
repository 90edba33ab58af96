"""Run a study as a command, with errors and exit codes as the command line has them."""

import sys
from pathlib import Path
from typing import NoReturn

import click

from fedstep.errors import FedstepError

CORPUS = click.argument(
    "corpus", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True, metavar="CORPUS..."
)
SEED = click.option("--seed", type=int, default=1, show_default=True, help="Seed of everything that is drawn.")
FIGURES = click.option("--figures", metavar="FILE", default="", help="Write the figures to this file, as JSON.")


def run_command(command: click.Command) -> NoReturn:
    """Run the command with the arguments of this process and leave with its exit code."""
    try:
        command.main(standalone_mode=False)
    except FedstepError as error:
        sys.exit(f"error: {error}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(0)
