"""`fedstep server export` and `import`: a whole store as one file."""

from typing import Any

import click

from fedstep.commands.options import STORE
from fedstep.commands.sinks import show
from fedstep.errors import MissingExtra

__all__ = ["export", "import_"]


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@STORE
def export(file: str, **given: Any) -> int:
    """Write the whole store to FILE, as it is at one moment; the aggregator may be running.

    \b
    Example: fedstep server export backup.jsonl.gz
    """
    try:
        from fedstep.server.archive import export_store
        from fedstep.server.database import needed
    except ImportError as error:
        raise _missing(error) from error
    show(f"{export_store(needed(given['store']), file)} rows\n")
    return 0


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@STORE
def import_(file: str, **given: Any) -> int:
    """Fill an empty store from FILE, all of it or nothing; start the aggregator afterwards.

    \b
    Example: fedstep server import backup.jsonl.gz --store sqlite:///restored.db
    """
    try:
        from fedstep.server.archive import import_store
    except ImportError as error:
        raise _missing(error) from error
    show(f"{import_store(given['store'], file)} rows\n")
    return 0


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'")
