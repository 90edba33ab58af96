"""Builds of the past."""

from typing import Any

import click

from fedstep.commands.options import HISTORY, STRICT
from fedstep.commands.place import place_of
from fedstep.commands.sinks import exit_code, say, show
from fedstep.errors import HistoryError, InputError, MissingExtra

__all__ = ["backfill"]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), metavar="FOLDER")
@HISTORY
@STRICT
def backfill(**given: Any) -> int:
    """Learn from recorded builds: folders with a build.json and JUnit reports, oldest first.

    \b
    Example: fedstep backfill recorded-builds/
    """
    from fedstep.importers.backfill import backfill_folder

    place = place_of(given)
    try:
        place.home.prepare()
        done = backfill_folder(place.home, given["folder"])
    except (HistoryError, MissingExtra) as error:
        say(str(error))
        return exit_code(given, (error,))
    say(*done.warnings)
    counts = f"{done.recorded} builds recorded, {done.known} known already"
    show(f"{counts}; {done.tests} test results, {done.rows} rows learned\n")
    return exit_code(given, tuple(map(InputError, done.warnings)))
