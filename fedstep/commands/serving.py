"""The aggregator's side."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from fedstep.commands.archive import export, import_
from fedstep.commands.guarding import GUARDS, guards
from fedstep.commands.options import STORE, option
from fedstep.commands.promising import PROMISING, promising
from fedstep.commands.sharing import SHARING, sharing
from fedstep.commands.sinks import say, show
from fedstep.commands.tokens import token
from fedstep.errors import MissingExtra

if TYPE_CHECKING:
    from fedstep.server.store import Store

__all__ = ["serve", "server"]


@click.command()
@option("host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 takes any free one.")
@STORE
@option("tokens", metavar="LIST", default="", help="Accepted tokens, comma-separated; keep them in FEDSTEP_TOKENS.")
@option("buffer", type=click.IntRange(1), default=10, show_default=True, help="Updates folded at once.")
@option("wait", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds before fewer are folded.")
@option("projects", type=click.IntRange(1), default=1, show_default=True, help="Distinct projects that needs.")
@option("from-zero", is_flag=True, help="Begin with an empty model instead of the starter model.")
@option("ungated", is_flag=True, help="Predict with every new head at once, untested: for demonstrations.")
@SHARING
@PROMISING
@GUARDS
def serve(**given: Any) -> int:
    """Run the aggregator.

    \b
    Example: fedstep serve --store sqlite:///fedstep.db
    """
    try:
        from fedstep.server.buffer import Folding
        from fedstep.server.gate import Gate
        from fedstep.server.roles import serve as run_server
        from fedstep.server.settings import Settings
    except ImportError as error:
        raise _missing(error) from error
    from fedstep.federation.kept import starter_bytes

    tokens = tuple(token for token in (word.strip() for word in given["tokens"].split(",")) if token)
    folding = Folding(updates=given["buffer"], seconds=given["wait"], projects=given["projects"])
    gc.enable()  # the one command that stays
    starter = b"" if given["from_zero"] else starter_bytes()
    gate = None if given["ungated"] else Gate()
    settings = Settings(given["host"], given["port"], given["store"], tokens, starter, folding=folding, gate=gate)
    settings = replace(settings, **guards(given), **sharing(given), **promising(given))
    run_server(settings, lambda url: say(f"aggregator on {url}, Ctrl-C stops it"))
    return 0


@click.group()
def server() -> None:
    """Look after an aggregator's store; it may be running."""


for command in (token, export, import_):
    server.add_command(command)


@server.command()
@STORE
def status(**given: Any) -> int:
    """Say what is served, what is on trial and what waits.

    \b
    Example: fedstep server status --store sqlite:///fedstep.db
    """
    with _opened(given["store"]) as store:
        from fedstep.server.told import told_status

        show(told_status(store.lineage(1), store.pending(), store.active(time.time())))
    return 0


@server.command()
@STORE
@option("most", type=click.IntRange(1), default=20, show_default=True, help="Versions and verdicts shown.")
def versions(**given: Any) -> int:
    """List the newest versions, and every verdict with the figures that led to it.

    \b
    Example: fedstep server versions --store sqlite:///fedstep.db
    """
    with _opened(given["store"]) as store:
        from fedstep.server.told import told_versions

        show(told_versions(store.lineage(given["most"])))
    return 0


@server.command()
@click.argument("version", type=click.IntRange(0))
@STORE
def rollback(version: int, **given: Any) -> int:
    """Make what production was at VERSION production and head again; a running aggregator follows in a second.

    \b
    Example: fedstep server rollback 41 --store sqlite:///fedstep.db
    """
    with _opened(given["store"]) as store:
        made = store.roll_back(version, time.time())
    show(f"version {made.version}: production and head are what production was at version {version}\n")
    return 0


@contextmanager
def _opened(url: str) -> "Iterator[Store]":
    """The store of an aggregator, which has to be there. Raises UsageError."""
    try:
        from fedstep.server.database import needed
        from fedstep.server.store import Store
    except ImportError as error:
        raise _missing(error) from error
    from fedstep.features.schema import schema
    from fedstep.federation.wire import shape

    store = Store(needed(url), shape(schema()))
    try:
        yield store
    finally:
        store.close()


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'")
