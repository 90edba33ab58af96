"""How the database of a store is opened and shared: SQLite in one file, or PostgreSQL for any number of replicas."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fedstep.errors import MissingExtra, UsageError
from fedstep.server.storage.migrations import LAYOUT, migrate, read_layout
from fedstep.server.storage.tables import versions

SQLITE, POSTGRESQL = ("sqlite", "sqlite+pysqlite"), ("postgresql", "postgres", "postgresql+psycopg")
# A database that is gone is noticed in seconds; libpq alone would wait for minutes.
PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "10000", "application_name": "fedstep"}
LONG, BRIEFLY = 5000, 50  # milliseconds that SQLite waits for others
TRIES = 20  # to empty its log, each after a pause
REMEDY = "Give one like sqlite:///fedstep.db or postgresql://USER:PASSWORD@HOST/DATABASE."
T = TypeVar("T")


class Write(Protocol):
    """Calls what writes to the database, in whatever thread does that."""

    def __call__(self, work: Callable[[], T]) -> T:
        """What the work gives."""


def at_once(work: Callable[[], T]) -> T:
    """As `Write`, in the thread that calls it."""
    return work()


def require_store(store: str) -> str:
    """The URL itself. Raises UsageError for a store that is not there: to look at it must not make it."""
    url = _url(store)
    if not (_has_tables(store) if _is_postgresql(url) else Path(str(url.database)).is_file()):
        raise UsageError(f"the store {_shown(url)} is not there", "Give the --store that the aggregator has.")
    return store


def create_store_engine(store: str) -> Engine:
    """The database at a URL, as it is. Raises UsageError for a URL that is none, MissingExtra without its driver."""
    url = _url(store)
    if not _is_postgresql(url):
        engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin)
        return engine
    given = {name: value for name, value in PATIENCE.items() if name not in url.query}
    try:
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=given)
    except ImportError as error:
        raise MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'") from error
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def read_only(engine: Engine) -> Engine:
    """The same database for transactions that only read: each sees one moment and holds nobody up."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(only_reads=True)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def advisory_lock(connection: Connection, work: str) -> None:
    """Waits until no other transaction does this work. Of SQLite's there is one at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_key(work))))


@contextmanager
def try_advisory_lock(engine: Engine, work: str) -> Iterator[Callable[[], object] | None]:
    """None where another process does this work; else none will while this lasts, and what is given raises if it could.

    It could where the connection was lost, and the lock with it. Of SQLite's there is one process.
    """
    if engine.dialect.name != "postgresql":
        yield lambda: None
        return
    with engine.begin() as connection:
        free = connection.scalar(select(func.pg_try_advisory_xact_lock(_key(work))))
        yield (lambda: connection.execute(select(1))) if free else None


def truncate_wal(engine: Engine) -> None:
    """After what must be gone from the files too: SQLite's write-ahead log may still have pages as they were.

    Not within a transaction. Where somebody reads for seconds it stays, and the next one empties it. PostgreSQL keeps
    its own until its next checkpoints.
    """
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={BRIEFLY}")  # whoever reads now may wait to write, which this one holds up
        for _ in range(TRIES):
            busy, *_pages = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
            time.sleep(BRIEFLY / 1000)
    finally:
        cursor.execute(f"PRAGMA busy_timeout={LONG}")
        connection.close()


def store_error(store: str, error: Exception) -> UsageError:
    """The error to raise where the database cannot be used. No password is in it."""
    url = _url(store)
    cause = str(getattr(error, "orig", None) or type(error).__name__).strip().partition("\n")[0]
    for secret in (url.password, *(str(value) for name, value in url.query.items() if "password" in name)):
        cause = cause.replace(str(secret), "***") if secret else cause
    return UsageError(f"the store {_shown(url)} cannot be opened ({cause})", _remedy(url))


def _has_tables(store: str) -> bool:
    engine = create_store_engine(store)
    try:
        return inspect(engine).has_table(versions.name)
    except SQLAlchemyError as error:
        raise store_error(store, error) from error
    finally:
        engine.dispose()


def _key(work: str) -> int:
    """The number of a lock: a signed integer of 64 bits."""
    return int.from_bytes(blake2b(f"fedstep {work}".encode(), digest_size=8).digest(), signed=True)


def _url(store: str) -> URL:
    try:
        url = make_url(store)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the store is not a database URL", REMEDY) from error
    if url.drivername in POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in SQLITE or not url.database or url.database == ":memory:":
        raise UsageError(f"the store {_shown(url)} is neither a SQLite file nor in PostgreSQL", REMEDY)
    return url


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def _shown(url: URL) -> str:
    """Without its password, wherever in the URL it is."""
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def _remedy(url: URL) -> str:
    if _is_postgresql(url):
        return "Does the server run, and may this user make tables in that database?"
    folder = Path(str(url.database)).absolute().parent
    return f"Is {folder} a folder that can be written, and the file one of fedstep's?"


def _prepare_sqlite(connection: Any, _record: object) -> None:  # Any: the driver's own, by SQLAlchemy's hook
    """Durable when COMMIT returns, readers beside the writer; transactions begin where `_begin` says.

    What is deleted is overwritten, else its bytes stay in free pages of the file.
    """
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={LONG}", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Durable when COMMIT returns, also where the server's own setting is not."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _begin(connection: Connection) -> None:
    """The write lock at once, but for readers: one that reads first could not be upgraded beside another writer."""
    only_reads = connection.get_execution_options().get("only_reads")
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


MOST = 999  # values of a statement that any SQLite takes
PLACES = {"sqlite": "?", "postgresql": "%s"}  # for a value, in the driver's own words


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows, which have the same columns, in few statements, each of a power of two of them.

    Python's SQLite lets other threads run before each statement, and has to wait for its turn after it: row by row a
    batch would take as long as a fold that is made at the same time. So few texts are remembered by the driver.
    """
    done, names = 0, tuple(rows[0]) if rows else ()
    while done < len(rows):
        most = min(len(rows) - done, MOST // len(names))
        some = rows[done : done + (1 << most.bit_length() - 1)]
        text = _statement(table, names, len(some), PLACES[connection.dialect.name])
        connection.exec_driver_sql(text, tuple(row[name] for row in some for name in names))
        done += len(some)


@lru_cache(maxsize=256)
def _statement(table: Table, names: tuple[str, ...], rows: int, place: str) -> str:
    values = f"({', '.join([place] * len(names))})"
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([values] * rows)}"


def open_engine(store: str) -> Engine:
    """Return the database at a URL, with its tables in today's layout. Raise UsageError when it cannot be opened."""
    engine = create_store_engine(store)
    try:
        with read_only(engine).begin() as connection:
            is_current = read_layout(connection) == LAYOUT
        if not is_current:
            with engine.begin() as connection:
                advisory_lock(connection, "layout")  # replicas start together
                migrate(connection)
    except SQLAlchemyError as error:
        engine.dispose()
        raise store_error(store, error) from error
    except UsageError:
        engine.dispose()
        raise
    return engine
