"""Open and lock the database of a store: SQLite in one file, or PostgreSQL for any number of replicas."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b
from math import inf
from pathlib import Path
from threading import Event, Lock, Timer
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fedstep.errors import MissingExtra, UsageError
from fedstep.server.storage.migrations import LAYOUT, migrate, read_layout
from fedstep.server.storage.tables import metadata, versions

SQLITE, POSTGRESQL = ("sqlite", "sqlite+pysqlite"), ("postgresql", "postgres", "postgresql+psycopg")
# A lost connection is noticed in seconds; with its defaults libpq waits for minutes.
PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "10000", "application_name": "fedstep"}
LONG, BRIEFLY = 5000, 50  # milliseconds that SQLite waits for a lock
CHECK_SECONDS = 5.0  # that the check of a file may take at the start
TRIES = 20  # to truncate the write-ahead log, with a pause after each
REMEDY = "Give one like sqlite:///fedstep.db or postgresql://USER:PASSWORD@HOST/DATABASE."
T = TypeVar("T")
log = logging.getLogger("fedstep.server")


class StoreReplaced(Exception):
    """The file of a SQLite database was removed or replaced while it was open."""


def require_store(store: str) -> str:
    """Return the URL. Raise UsageError if the store does not exist, because opening it would create it."""
    url = _url(store)
    if not (_has_tables(store) if _is_postgresql(url) else Path(str(url.database)).is_file()):
        raise UsageError(
            f"the store {_without_password(url)} is not there", "Give the --store that the aggregator has."
        )
    return store


def create_store_engine(store: str) -> Engine:
    """Return an engine without creating tables. Raise UsageError for an invalid URL, MissingExtra without a driver."""
    url = _url(store)
    if not _is_postgresql(url):
        engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        _OpenFiles(engine)
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
    """Return the engine for read-only transactions: each sees one snapshot and blocks no writer."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(only_reads=True)
    # not postgresql_readonly: the driver would begin the next transaction of that connection with READ WRITE, also
    # where the operator, or a host whose disk is full, made the database read-only
    return engine.execution_options(isolation_level="REPEATABLE READ")


def advisory_lock(connection: Connection, work: str) -> None:
    """Wait until no other transaction holds the lock `work`. SQLite has one write transaction at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_key(work))))


@contextmanager
def try_advisory_lock(engine: Engine, work: str) -> Iterator[Callable[[], object] | None]:
    """Yield a function that raises if the lock `work` was lost; None where another process holds the lock.

    The lock is lost with the connection. SQLite needs no lock, because only one process uses the file.
    """
    if engine.dialect.name != "postgresql":
        yield lambda: None
        return
    with engine.begin() as connection:
        free = connection.scalar(select(func.pg_try_advisory_xact_lock(_key(work))))
        yield (lambda: connection.execute(select(1))) if free else None


def truncate_wal(engine: Engine) -> None:
    """Truncate SQLite's write-ahead log, which may still contain deleted data.

    Call it outside a transaction. While a reader is active for seconds, the log stays until the next call. PostgreSQL
    keeps its log until later checkpoints.
    """
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={BRIEFLY}")  # a longer wait would delay other writers
        for _ in range(TRIES):
            busy, *_pages = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
            time.sleep(BRIEFLY / 1000)
    finally:
        cursor.execute(f"PRAGMA busy_timeout={LONG}")
        connection.close()


@contextmanager
def explain_errors(store: str) -> Iterator[None]:
    """Raise UsageError for what the database raises: where a command starts, nobody sees a traceback."""
    try:
        yield
    except SQLAlchemyError as error:
        raise store_error(store, error) from error


def store_error(store: str, error: Exception) -> UsageError:
    """Return the error for a database that cannot be used, without passwords."""
    url = _url(store)
    cause = str(getattr(error, "orig", None) or type(error).__name__).strip().partition("\n")[0]
    for secret in (url.password, *(str(value) for name, value in url.query.items() if "password" in name)):
        cause = cause.replace(str(secret), "***") if secret else cause
    return UsageError(f"the store {_without_password(url)} cannot be opened ({cause})", _remedy(url))


def _has_tables(store: str) -> bool:
    engine = create_store_engine(store)
    try:
        return inspect(engine).has_table(versions.name)
    except SQLAlchemyError as error:
        raise store_error(store, error) from error
    finally:
        engine.dispose()


def _key(work: str) -> int:
    """Return the number of a lock, a signed 64-bit integer."""
    return int.from_bytes(blake2b(f"fedstep {work}".encode(), digest_size=8).digest(), signed=True)


def _url(store: str) -> URL:
    try:
        url = make_url(store)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the store is not a database URL", REMEDY) from error
    if url.drivername in POSTGRESQL:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in SQLITE or not url.database or url.database == ":memory:":
        raise UsageError(f"the store {_without_password(url)} is neither a SQLite file nor in PostgreSQL", REMEDY)
    return url


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def _without_password(url: URL) -> str:
    """Return the URL without its password, which may also be in the query."""
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def _remedy(url: URL) -> str:
    if _is_postgresql(url):
        return "Does the server run, and may this user make tables in that database?"
    folder = Path(str(url.database)).absolute().parent
    return f"Is {folder} a folder that can be written, and the file one of fedstep's?"


def _prepare_sqlite(connection: Any, _record: object) -> None:  # Any: the driver's own, by SQLAlchemy's hook
    """Make commits durable, allow readers beside the writer, and leave the start of transactions to `_begin`.

    With secure_delete, deleted data is overwritten; otherwise its bytes stay in free pages of the file.
    """
    connection.isolation_level = None
    # busy_timeout before what may have to wait, and schema_version last: SQLite then has opened its log
    settings = f"busy_timeout={LONG}", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "schema_version"
    for pragma in settings:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Make commits durable even where the server disables synchronous_commit, and keep the lock of an aggregation.

    Its transaction waits for the sums to be made: limits on idle transactions would end every aggregation.
    """
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.execute(
        "SELECT set_config(name, '0', false) FROM pg_settings"
        " WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout') AND setting <> '0'"
    )
    connection.commit()


def _begin(connection: Connection) -> None:
    """Take the write lock at once unless read-only: a read lock cannot be upgraded while another writer is active."""
    only_reads = connection.get_execution_options().get("only_reads")
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


class _OpenFiles:
    """The SQLite file that an engine has open, and its write-ahead log, which stays as long as a connection is open.

    Where one of them is removed or replaced, SQLite goes on to write into a file that nobody finds again, or beside
    another process.
    """

    def __init__(self, engine: Engine) -> None:
        self._path, self._connections, self._lock = "", 0, Lock()
        self._files: tuple[tuple[int, int], ...] = ()
        event.listen(engine, "connect", self._opened)
        event.listen(engine, "close", self._closed)
        event.listen(engine, "begin", self._check)

    def _opened(self, connection: Any, _record: object) -> None:
        with self._lock:
            if not self._connections:
                self._path = connection.execute("PRAGMA database_list").fetchone()[2]
                self._files = self._identify()
            self._connections += 1

    def _closed(self, _connection: object, _record: object) -> None:
        with self._lock:
            self._connections -= 1

    def _check(self, connection: Connection) -> None:
        """Raise StoreReplaced before a transaction that writes."""
        if not connection.get_execution_options().get("only_reads") and self._identify() != self._files:
            raise StoreReplaced("the file of the store, or its log, was removed or replaced: restart the aggregator")

    def _identify(self) -> tuple[tuple[int, int], ...]:
        with suppress(OSError):
            return tuple((about.st_dev, about.st_ino) for about in (os.stat(self._path), os.stat(f"{self._path}-wal")))
        return ()


MOST = 999  # parameters that every SQLite accepts in a statement
PLACES = {"sqlite": "?", "postgresql": "%s"}  # the driver's placeholder for a value


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows with the same columns in few statements, each for a power of two of rows.

    Python's sqlite3 releases the GIL for each statement and has to wait for it again: inserted row by row, a batch
    would take as long as a concurrent aggregation. Powers of two keep the statements few enough for the driver's cache.
    """
    done, names = 0, tuple(rows[0]) if rows else ()
    while done < len(rows):
        most = min(len(rows) - done, MOST // len(names))
        some = rows[done : done + (1 << most.bit_length() - 1)]
        text = _statement(table, names, len(some), PLACES[connection.dialect.name])
        connection.exec_driver_sql(text, tuple(row[name] for row in some for name in names))
        done += len(some)


@lru_cache(maxsize=256)
def _statement(table: Table, names: tuple[str, ...], rows: int, placeholder: str) -> str:
    values = f"({', '.join([placeholder] * len(names))})"
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([values] * rows)}"


def check_store_file(engine: Engine, store: str, seconds: float = CHECK_SECONDS) -> None:
    """Raise UsageError where SQLite finds the file damaged; a damaged page would fail later, in some request.

    The check reads the whole file, 2 GB in a second; it ends after so many seconds, or a large store would start late.
    """
    if engine.dialect.name != "sqlite":
        return
    over = Event()
    try:
        with read_only(engine).begin() as connection, _interrupt_late(connection, seconds, over):
            answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except SQLAlchemyError as error:
        if over.is_set():
            log.warning("the store is so large that only a part of it was checked, within %g s", seconds)
            return
        raise store_error(store, error) from error
    if answer != "ok":
        remedy = "Restore a backup with `fedstep server import`, or start with another --store."
        raise UsageError(
            f"the store {_without_password(_url(store))} is damaged ({str(answer).splitlines()[0][:100]})", remedy
        )


@contextmanager
def _interrupt_late(connection: Connection, seconds: float, over: Event) -> Iterator[None]:
    """Interrupt what the connection does once the time is over, and set the event."""

    def interrupt() -> None:
        over.set()
        if driver := connection.connection.driver_connection:
            driver.interrupt()

    timer = Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def free_bytes(store: str) -> float:
    """Return the space that is free where a SQLite file is; infinity for PostgreSQL, whose disk is elsewhere."""
    url = _url(store)
    if _is_postgresql(url):
        return inf
    try:
        return float(shutil.disk_usage(Path(str(url.database)).absolute().parent).free)
    except OSError:
        return 0.0


def _create_private(store: str) -> None:
    """Make an SQLite file that only its owner reads, unless it is there; SQLite gives its log the same rights."""
    url = _url(store)
    if not _is_postgresql(url):
        with suppress(OSError):
            os.close(os.open(str(url.database), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _make_private(store: str) -> None:
    """Let only its owner read an SQLite file and its log; call it once the file is known to be a store.

    The file is not opened: closing it would end the locks that this process has on it (POSIX), so that
    another process takes itself for the last one and deletes the log that this one goes on to write.
    """
    url = _url(store)
    # SQLite names the log after the file that a link leads to
    path = "" if _is_postgresql(url) else os.path.realpath(str(url.database))
    for suffix in ("", "-wal", "-shm") if path else ():
        with suppress(OSError):
            os.chmod(f"{path}{suffix}", 0o600)


# The tables as this user finds them by their names, and the schemas in which their functions are looked up.
_OTHERS = """
WITH others AS (
    SELECT oid, rolname FROM pg_roles
    WHERE NOT rolsuper AND NOT pg_has_role(oid, 'USAGE') AND rolname <> 'pg_database_owner'
)
SELECT 'table ' || relname, rolname FROM pg_class JOIN others ON others.oid = relowner
WHERE pg_class.oid IN (SELECT to_regclass(name) FROM unnest(%(names)s::text[]) name)
UNION ALL
SELECT 'schema ' || nspname, rolname FROM pg_namespace JOIN others ON others.oid = nspowner
WHERE nspname = ANY(current_schemas(false))
UNION ALL
SELECT 'schema ' || nspname, 'everyone' FROM pg_namespace, aclexplode(nspacl)
WHERE nspname = ANY(current_schemas(false)) AND grantee = 0 AND privilege_type = 'CREATE'
"""


def warn_of_others(store: str) -> None:
    """Log who else can write the store or read it, beside the administrator of its machine or server."""
    url = _url(store)
    for what, who in _others_in_database(store) if _is_postgresql(url) else _others_at_file(str(url.database)):
        log.warning("the store is not for this user alone: %s is open to %s, who could send as any project", what, who)


def _others_in_database(store: str) -> list[tuple[str, str]]:
    engine = create_store_engine(store)
    try:
        with read_only(engine).begin() as connection:
            rows = connection.exec_driver_sql(_OTHERS, {"names": list(metadata.tables)})
            return [(ascii(what), ascii(who)) for what, who in rows]
    finally:
        engine.dispose()


def _others_at_file(path: str) -> list[tuple[str, str]]:
    """Return those that can write the folder of an SQLite file, or read the file."""
    if not hasattr(os, "geteuid"):
        return []
    path, others = os.path.realpath(path), []
    for name, rights in (path, 0o077), (os.path.dirname(path), 0o002):
        about = os.stat(name)
        if about.st_uid not in (0, os.geteuid()):
            others.append((name, f"the user {about.st_uid}"))
        elif about.st_mode & rights:
            others.append((name, "other users of this machine"))
    return others


def open_engine(store: str) -> Engine:
    """Return an engine with all tables in the current layout. Raise UsageError when the database cannot be opened."""
    _create_private(store)
    engine = create_store_engine(store)
    try:
        with read_only(engine).begin() as connection:
            is_current = read_layout(connection) == LAYOUT
        if not is_current:
            with engine.begin() as connection:
                advisory_lock(connection, "layout")  # replicas start together
                migrate(connection)
        _make_private(store)
    except SQLAlchemyError as error:
        engine.dispose()
        raise store_error(store, error) from error
    except UsageError:
        engine.dispose()
        raise
    return engine
