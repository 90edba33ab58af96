"""The tables of the store, and how its database is opened."""

from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fedstep.errors import UsageError

__all__ = ["needed", "open_engine", "receipts", "trials", "updates", "verdicts", "versions", "votes"]

tables = MetaData()

versions = Table(
    "versions",
    tables,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),  # NULL: the start of a schema
    Column("schema", String(16), nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("updates", Integer, nullable=False),  # how many were folded into it
    Column("production", Integer, nullable=False),  # the version that production changed with last
    Column("sources", Text, nullable=False),  # JSON: the version that each head of production is from
    Column("vectors", LargeBinary, nullable=False),  # head, as safetensors
)

updates = Table(
    "updates",
    tables,
    Column("id", String(32), primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("base", Integer, nullable=False),
    Column("received", Float, nullable=False),  # seconds since 1970
    Column("folded", Integer),  # the version it went into; NULL: in the buffer
    Column("body", LargeBinary, nullable=False),
)
Index("updates_in_buffer", updates.c.folded, updates.c.schema)
Index("updates_by_time", updates.c.received)

receipts = Table(
    "receipts",
    tables,
    Column("id", String(32), primary_key=True),
    Column("receipt", String(64), nullable=False),
    Column("version", Integer, nullable=False),
)

trials = Table(
    "trials",  # those that are open
    tables,
    Column("schema", String(16), primary_key=True),
    Column("head", String(32), primary_key=True),
    Column("version", Integer, nullable=False),  # of the snapshot
    Column("against", Integer, nullable=False),  # the version that production's head is from
    Column("began", Float, nullable=False),  # seconds since 1970
)

votes = Table(
    "votes",
    tables,
    Column("number", Integer, primary_key=True),  # in the order of arrival
    Column("schema", String(16), nullable=False),
    Column("head", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version of the snapshot
    Column("update_id", String(32), nullable=False),  # of the update that carried it
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("difference", Float, nullable=False),  # of losses, trial less production, in units of the bound
)
Index("votes_by_trial", votes.c.trial, votes.c.head)

verdicts = Table(
    "verdicts",  # how trials ended, and rollbacks
    tables,
    Column("number", Integer, primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("version", Integer, nullable=False),  # the one made with it
    Column("head", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version of the snapshot
    Column("against", Integer, nullable=False),
    Column("began", Float, nullable=False),
    Column("decided", Float, nullable=False),
    Column("outcome", String(16), nullable=False),  # promoted, rejected, undecided, rollback
    Column("refolded", Boolean, nullable=False),
    Column("left_out", Integer, nullable=False),  # projects or owners
    Column("spent", Float, nullable=False),  # of the margin, after it
    Column("figures", Text, nullable=False),  # JSON
)


def needed(store: str) -> str:
    """The URL itself. Raises UsageError for a SQLite file that is not there: to look at it must not make it."""
    url = _url(store)
    if not Path(str(url.database)).is_file():
        raise UsageError(f"the store {store} is not there", "Give the --store that the aggregator was started with.")
    return store


def open_engine(store: str) -> Engine:
    """The database at a SQLAlchemy URL, with its tables. Raises UsageError when it cannot be opened."""
    url = _url(store)
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        tables.create_all(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        cause = getattr(error, "orig", None) or type(error).__name__
        raise UsageError(f"the store {store} cannot be opened ({cause})", _remedy(url)) from error
    return engine


def _url(store: str) -> URL:
    remedy = "Give one like sqlite:///fedstep.db."
    try:
        url = make_url(store)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the store is not a database URL", remedy) from error
    if url.drivername not in ("sqlite", "sqlite+pysqlite") or not url.database or url.database == ":memory:":
        raise UsageError(f"the store {url.render_as_string(hide_password=True)} is not a SQLite file", remedy)
    return url


def _remedy(url: URL) -> str:
    folder = Path(str(url.database)).absolute().parent
    return f"Is {folder} a folder that can be written, and the file one of fedstep's?"


def _prepare(connection: Any, _record: object) -> None:  # Any: the driver's own, by SQLAlchemy's hook
    """Durable when COMMIT returns, readers beside the writer; transactions begin where `_begin` says."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    """The write lock at once: a transaction that reads first could not be upgraded beside another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
