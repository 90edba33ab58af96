"""A whole store as one file, and back: for backups, and to move from one database to another.

gzipped JSON lines: the tables with their columns, then one row a line, then how many rows there were.
"""

import gzip
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, Any

from sqlalchemy import Connection, Engine, LargeBinary, Table, create_engine, event, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from fedstep.errors import UsageError
from fedstep.server.tables import open_engine, updates, versions
from fedstep.server.tokens import own, tokens

__all__ = ["export_store", "import_store"]

FORMAT = "fedstep-store-1"
LONGEST_LINE = 1 << 24  # bytes; a version of 2^18 coefficients has 1.4 million
BATCH = 200  # rows
REMEDY = "Give a file that `fedstep server export` of this version wrote."

Row = dict[str, Any]  # values of a table's columns by name, as the database has them


def export_store(url: str, path: str) -> int:
    """How many rows were written to the file. A running aggregator goes on; the file has one moment of it.

    The file appears when it is whole. Raises UsageError when it or the store cannot be used.
    """
    engine, part = _reading(url), f"{path}.part"
    try:
        with engine.begin() as connection, gzip.open(part, "wt", encoding="utf-8") as file:
            count = _write(connection, file)
        os.replace(part, path)
    except (OSError, SQLAlchemyError) as error:
        raise UsageError(f"the store cannot be exported to {path} ({_cause(error)})", "Is the disk full?") from error
    finally:
        engine.dispose()
    return count


def import_store(url: str, path: str) -> int:
    """How many rows came from the file into an empty store, all of them or none. Raises UsageError."""
    try:
        with gzip.open(path, "rb") as file:
            return _filled(url, file)
    except (OSError, EOFError, ValueError, RecursionError, SQLAlchemyError) as error:
        raise UsageError(f"{path} cannot be imported ({_cause(error)})", REMEDY) from error


def _filled(url: str, file: gzip.GzipFile) -> int:
    engine = open_engine(url)
    try:
        own.create_all(engine)
        with engine.begin() as connection:
            return _read(connection, file)
    finally:
        engine.dispose()


def _tables() -> Mapping[str, Table]:
    return {table.name: table for table in (*updates.metadata.sorted_tables, tokens)}


def _reading(url: str) -> Engine:
    """A database whose transactions see one moment and hold nobody up."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ")


def _write(connection: Connection, file: IO[str]) -> int:
    known, count = _tables(), 0
    columns = {name: [column.name for column in table.columns] for name, table in known.items()}
    file.write(json.dumps({"format": FORMAT, "tables": columns}) + "\n")
    for name, table in known.items():
        rows = connection.execution_options(yield_per=BATCH).execute(select(table).order_by(*table.primary_key))
        for row in rows:
            count += 1
            file.write(json.dumps([name, *map(_plain, row)]) + "\n")
    file.write(json.dumps({"rows": count}) + "\n")
    return count


def _read(connection: Connection, file: gzip.GzipFile) -> int:
    known = _tables()
    expected = {name: [column.name for column in table.columns] for name, table in known.items()}
    if _line(file) != {"format": FORMAT, "tables": expected}:
        raise UsageError("the file has other tables than this version of fedstep", REMEDY)
    if any(connection.scalar(select(func.count()).select_from(table)) for table in (versions, tokens)):
        raise UsageError("the store is not empty", "Import into a new one.")
    rows, count, told = _rows(file), 0, -1
    while batch := list(islice(rows, BATCH)):
        for name, values in batch:
            if name == "":
                told = values["rows"]
            else:
                connection.execute(insert(known[name]), values)
                count += 1
    if told != count:
        raise UsageError(f"the file has {count} rows of {max(0, told)}", "It was cut off; export again.")
    return count


def _rows(file: gzip.GzipFile) -> Iterator[tuple[str, Row]]:
    """Each row with the name of its table; at last what the file says about itself, under no name."""
    known = _tables()
    while (found := _line(file)) is not None:
        if isinstance(found, dict):
            yield "", {"rows": found.get("rows")}
            if file.read(1):  # to the end of the file, where gzip has its checksum
                raise ValueError("something follows the last row")
            return
        if not isinstance(found, list) or not found or found[0] not in known:
            raise ValueError("a row of no table")
        columns = known[found[0]].columns
        yield found[0], {c.name: _stored(c.type, v) for c, v in zip(columns, found[1:], strict=True)}


def _line(file: gzip.GzipFile) -> object:
    """The next line as JSON; None at the end."""
    line = file.readline(LONGEST_LINE)
    if line and not line.endswith(b"\n"):
        raise ValueError("a line that does not end")
    return json.loads(line) if line else None


def _plain(value: object) -> object:
    return b64encode(value).decode() if isinstance(value, bytes | memoryview) else value


def _stored(kind: object, value: Any) -> object:
    return b64decode(value, validate=True) if isinstance(kind, LargeBinary) and value is not None else value


def _cause(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
