"""`fedstep server token`: static tokens of an aggregator."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fedstep.cli.options import STORE
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import MissingExtra

if TYPE_CHECKING:
    from fedstep.server.tokens import TokenBook


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@STORE
def export(file: str, **given: Any) -> int:
    """Write the whole store to FILE, as it is at one moment; the aggregator may be running.

    \b
    Example: fedstep server export backup.jsonl.gz
    """
    try:
        from fedstep.server.storage.archive import export_store
        from fedstep.server.storage.engine import require_store
    except ImportError as error:
        raise _missing(error) from error
    echo_result(f"{export_store(require_store(given['store']), file)} rows\n")
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
        from fedstep.server.storage.archive import import_store
    except ImportError as error:
        raise _missing(error) from error
    echo_result(f"{import_store(given['store'], file)} rows\n")
    return 0


def _missing(error: ImportError) -> MissingExtra:
    return MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'")


@click.group()
def token() -> None:
    """Make, list and revoke tokens; a running aggregator follows in two seconds."""


@token.command()
@click.argument("name")
@STORE
def create(name: str, **given: Any) -> int:
    """Make a token for OWNER or OWNER/PROJECT and print it, this once.

    \b
    Example: fedstep server token create acme/web
    """
    with _book(given["store"]) as book:
        made = book.create(name, time.time())
    echo_result(f"{made}\n")
    echo_warnings(
        f"a token for {name}: it is not shown again, and only its hash is kept. Clients have it in FEDSTEP_TOKEN"
    )
    return 0


@token.command("list")
@STORE
def list_(**given: Any) -> int:
    """List the tokens by id and name; the tokens themselves are not known.

    \b
    Example: fedstep server token list
    """
    with _book(given["store"], needed=True) as book:
        kept = book.listed()
    lines = (f"{one.id} {one.name} made {_moment(one.created)}{_until(one.revoked)}\n" for one in kept)
    echo_result("".join(lines) or "no tokens\n")
    return 0


@token.command()
@click.argument("name")
@STORE
def revoke(name: str, **given: Any) -> int:
    """Accept the tokens of NAME no longer; or the one token with the id NAME.

    \b
    Example: fedstep server token revoke acme/web
    """
    with _book(given["store"], needed=True) as book:
        count = book.revoke(name, time.time())
    echo_result(f"{count} revoked\n")
    return 0


@contextmanager
def _book(store: str, needed: bool = False) -> "Iterator[TokenBook]":
    """The tokens of a store, which has to be there where it is `needed`. Raises UsageError."""
    try:
        from fedstep.server.storage.engine import require_store as checked_store
        from fedstep.server.tokens import TokenBook
    except ImportError as error:
        raise MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'") from error
    book = TokenBook(checked_store(store) if needed else store)
    try:
        yield book
    finally:
        book.close()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(seconds))


def _until(revoked: float | None) -> str:
    return "" if revoked is None else f", revoked {_moment(revoked)}"
