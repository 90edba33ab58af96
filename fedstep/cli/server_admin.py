"""Commands that back up an aggregator's store and administer its static tokens."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from fedstep.cli.options import STORE
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import MissingExtra

if TYPE_CHECKING:
    from fedstep.server.tokens import TokenBook


def missing_extra(error: ImportError) -> MissingExtra:
    """Return the error that tells how to install what a command of the server needs."""
    return MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@STORE
def export(file: str, store: str) -> int:
    """Write the whole store to FILE, as of one moment. The aggregator may be running.

    \b
    Example: fedstep server export backup.jsonl.gz
    """
    try:
        from fedstep.server.storage.archive import export_store
        from fedstep.server.storage.engine import require_store
    except ImportError as error:
        raise missing_extra(error) from error
    echo_result(f"{export_store(require_store(store), file)} rows\n")
    return 0


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@STORE
def import_(file: str, store: str) -> int:
    """Fill an empty store from FILE, completely or not at all. Start the aggregator afterwards.

    \b
    Example: fedstep server import backup.jsonl.gz --store sqlite:///restored.db
    """
    try:
        from fedstep.server.storage.archive import import_store
    except ImportError as error:
        raise missing_extra(error) from error
    echo_result(f"{import_store(store, file)} rows\n")
    return 0


@click.group()
def token() -> None:
    """Create, list and revoke tokens. A running aggregator follows in two seconds."""


@token.command()
@click.argument("name")
@STORE
def create(name: str, store: str) -> int:
    """Create a token for OWNER or OWNER/PROJECT and print it. It cannot be shown again.

    \b
    Example: fedstep server token create acme/web
    """
    with _open_tokens(store) as book:
        created = book.create(name, time.time())
    echo_result(f"{created}\n")
    echo_warnings(
        f"a token for {name}: it is not shown again, and only its hash is kept. Clients have it in FEDSTEP_TOKEN"
    )
    return 0


@token.command("list")
@STORE
def list_(store: str) -> int:
    """List the tokens by id and name. The tokens themselves are not stored.

    \b
    Example: fedstep server token list
    """
    with _open_tokens(store, required=True) as book:
        tokens = book.listed()
    lines = (f"{each.id} {each.name} made {_format_time(each.created)}{_revocation(each.revoked)}\n" for each in tokens)
    echo_result("".join(lines) or "no tokens\n")
    return 0


@token.command()
@click.argument("name")
@STORE
def revoke(name: str, store: str) -> int:
    """Revoke all tokens of NAME, or the one token whose id is NAME.

    \b
    Example: fedstep server token revoke acme/web
    """
    with _open_tokens(store, required=True) as book:
        count = book.revoke(name, time.time())
    echo_result(f"{count} revoked\n")
    return 0


@contextmanager
def _open_tokens(url: str, required: bool = False) -> "Iterator[TokenBook]":
    """Open the tokens of a store. With `required`, raise UsageError if there is no store yet."""
    try:
        from fedstep.server.storage.engine import require_store
        from fedstep.server.tokens import TokenBook
    except ImportError as error:
        raise missing_extra(error) from error
    book = TokenBook(require_store(url) if required else url)
    try:
        yield book
    finally:
        book.close()


def _format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(seconds))


def _revocation(revoked: float | None) -> str:
    return "" if revoked is None else f", revoked {_format_time(revoked)}"
