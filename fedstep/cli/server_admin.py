"""Commands that show, roll back and back up an aggregator's store, and administer its static tokens."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from fedstep.cli.options import STORE, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import MissingExtra

if TYPE_CHECKING:
    from fedstep.server.gate import ActiveCounts
    from fedstep.server.identity import TokenBook
    from fedstep.server.mode import BufferStatus
    from fedstep.server.storage.store import Store
    from fedstep.server.storage.version_repository import OpenTrial, TrialSummary, VersionListing


def missing_extra(error: ImportError) -> MissingExtra:
    """Return the error that tells how to install what a command of the server needs."""
    return MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'")


@click.group()
def server() -> None:
    """Administer an aggregator's database. The aggregator may be running."""


@server.command()
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


@server.command("import")
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


@server.group()
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
        tokens = book.list_tokens()
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
        from fedstep.server.identity import TokenBook
        from fedstep.server.storage.engine import explain_errors, require_store
    except ImportError as error:
        raise missing_extra(error) from error
    book = TokenBook(require_store(url) if required else url)
    try:
        with explain_errors(url):
            yield book
    finally:
        book.close()


def _format_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(seconds))


def _revocation(revoked: float | None) -> str:
    return "" if revoked is None else f", revoked {_format_time(revoked)}"


@server.command()
@STORE
def status(store: str) -> int:
    """Show the served versions, the open trials and the buffer.

    \b
    Example: fedstep server status --store sqlite:///fedstep.db
    """
    with _open_store(store, or_earlier=True) as opened:
        echo_result(format_status(opened.lineage(1), opened.pending(), opened.active(time.time())))
    return 0


@server.command()
@STORE
@option("most", type=click.IntRange(1), default=20, help="Maximum number of versions and of verdicts.")
def versions(store: str, most: int) -> int:
    """List the newest versions, and the verdicts with their figures.

    \b
    Example: fedstep server versions --store sqlite:///fedstep.db
    """
    with _open_store(store, or_earlier=True) as opened:
        echo_result(format_versions(opened.lineage(most)))
    return 0


@server.command()
@click.argument("version", type=click.IntRange(0))
@STORE
def rollback(version: int, store: str) -> int:
    """Restore the production of VERSION, as production and as candidate. A running aggregator follows in a second.

    \b
    Example: fedstep server rollback 41 --store sqlite:///fedstep.db
    """
    with _open_store(store) as opened:
        made = opened.roll_back(version, time.time())
    echo_result(f"version {made.version}: production and candidate are the production of version {version}\n")
    return 0


@contextmanager
def _open_store(url: str, *, or_earlier: bool = False) -> "Iterator[Store]":
    """Open the store of an aggregator. Raise UsageError if there is none.

    With `or_earlier` it is opened to be shown: for the schema served last, where nothing was served with this one yet.
    """
    try:
        from fedstep.server.storage.engine import explain_errors, require_store
        from fedstep.server.storage.store import Store
    except ImportError as error:
        raise missing_extra(error) from error
    from fedstep.federation.messages import shape
    from fedstep.schema.schema import schema

    own_shape = shape(schema())
    store = Store(require_store(url), own_shape)
    try:
        earlier = store.earlier_schema() if or_earlier else ""
        if earlier:
            echo_warnings(f"nothing was served with feature schema {own_shape.digest} yet: this is schema {earlier}")
            store.close()
            store = Store(url, own_shape._replace(digest=earlier))
        with explain_errors(url):
            yield store
    finally:
        store.close()


def format_status(lineage: "VersionListing", pending: "BufferStatus", active: "ActiveCounts") -> str:
    """Describe what is served, on trial and in the buffer."""
    if not lineage.versions:
        return f"schema {lineage.schema}: nothing was ever served\n"
    newest = lineage.versions[0]
    sources = ", ".join(f"{task} from {version}" for task, version in sorted(newest.sources.items()))
    lines = [
        f"schema {lineage.schema}",
        f"candidate {newest.version} of {newest.created}",
        f"production {newest.production} ({sources})",
        *(_format_trial(trial) for trial in lineage.trials),
        f"buffer: {_count(pending.updates, 'update')} of {_count(pending.projects, 'project')}",
        f"active in the last 7 days: {_count(active.projects, 'project')} of {_count(active.owners, 'owner')}",
    ]
    return _text(lines)


def format_versions(lineage: "VersionListing") -> str:
    """List the versions, the open trials and the verdicts, newest first."""
    lines = [
        f"version {each.version} of {each.created}: {_format_origin(each.parent, each.updates)}, "
        f"production {each.production}"
        for each in lineage.versions
    ]
    return _text([*lines, *map(_format_trial, lineage.trials), *map(_format_verdict, lineage.verdicts)])


def _format_origin(parent: int | None, updates: int) -> str:
    return "start of its schema" if parent is None else f"{_count(updates, 'update')} after {parent}"


def _format_trial(trial: "OpenTrial") -> str:
    count = _count(trial.evaluations, "evaluation")
    return f"on trial: {trial.task} {trial.version} against {trial.against} since {trial.began}, {count}"


def _format_verdict(ended: "TrialSummary") -> str:
    if ended.outcome == "rollback":
        return f"at {ended.version} rollback: {ended.task} back to the production of version {ended.against}"
    figures = ", ".join(f"{name} {_number(value)}" for name, value in ended.figures.items())
    again = "; the candidate went halfway back to production" if ended.restarted else ""
    return f"at {ended.version} {ended.outcome}: {ended.task} {ended.trial} against {ended.against} ({figures}){again}"


def _count(amount: int, noun: str) -> str:
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
