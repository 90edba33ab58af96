"""Export a store to one file and import it: for backups, and to move it to another database.

The file has gzipped JSON lines: the columns of each table, one line per row, and last the number of rows.
"""

import gzip
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, Any

from sqlalchemy import Column, Connection, LargeBinary, Table, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from fedstep.errors import UsageError
from fedstep.server.storage.engine import open_engine, read_only
from fedstep.server.storage.migrations import RENAMED_COLUMNS, RENAMED_TABLES
from fedstep.server.storage.tables import (
    bodies,
    heartbeats,
    layouts,
    lineages,
    metadata,
    noisy_evaluations,
    privacy_spending,
    schemas,
    tokens,
    updates,
    versions,
)

FORMAT = "fedstep-store-1"
LONGEST_LINE = 1 << 24  # bytes; a version of 2^18 coefficients has 1.4 million
BATCH = 200  # rows
LATER = (
    schemas.name,
    noisy_evaluations.name,
    privacy_spending.name,
    bodies.name,
    lineages.name,
)  # tables that files of an earlier fedstep lack
REMEDY = "Give a file that `fedstep server export` of this version wrote."

Row = dict[str, Any]  # column values by name
Columns = Mapping[str, list[Column[Any]]]  # by table, in the order of a row


def export_store(url: str, path: str) -> int:
    """Write one snapshot of the store to a file and return the number of rows; the aggregator may be running.

    The file appears once it is complete. Raise UsageError when the file or the store cannot be used.
    """
    engine, part = open_engine(url), f"{path}.part"
    try:
        with read_only(engine).begin() as connection, gzip.open(part, "wt", encoding="utf-8") as file:
            count = _write(connection, file)
        os.replace(part, path)
    except (OSError, SQLAlchemyError) as error:
        raise UsageError(f"the store cannot be exported to {path} ({_cause(error)})", "Is the disk full?") from error
    finally:
        engine.dispose()
    return count


def import_store(url: str, path: str) -> int:
    """Import all rows of a file into an empty store, or none, and return their number. Raise UsageError."""
    try:
        with gzip.open(path, "rb") as file:
            return _fill(url, file)
    except (OSError, EOFError, ValueError, RecursionError, SQLAlchemyError) as error:
        raise UsageError(f"{path} cannot be imported ({_cause(error)})", REMEDY) from error


def _fill(url: str, file: gzip.GzipFile) -> int:
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            count = _read(connection, file)
            _count_on(connection)
            return count
    finally:
        engine.dispose()


def _tables() -> Mapping[str, Table]:
    return {table.name: table for table in metadata.sorted_tables if table not in (layouts, heartbeats)}


def _count_on(connection: Connection) -> None:
    """Set PostgreSQL's sequences to the highest imported id: inserts with an explicit id do not advance them."""
    if connection.dialect.name == "postgresql":
        for column in (table.autoincrement_column for table in _tables().values()):
            if column is not None:
                counter = func.pg_get_serial_sequence(column.table.name, column.name)
                last = select(func.max(column)).scalar_subquery()
                connection.execute(select(func.setval(counter, func.coalesce(last, 1), last.is_not(None))))


def _write(connection: Connection, file: IO[str]) -> int:
    known, count = _tables(), 0
    columns = {name: [column.name for column in table.columns] for name, table in known.items()}
    file.write(json.dumps({"format": FORMAT, "tables": columns}) + "\n")
    for name, table in known.items():
        query = select(table).order_by(*table.primary_key).execution_options(yield_per=BATCH)
        for row in connection.execute(query):
            count += 1
            file.write(json.dumps([name, *map(_plain, row)]) + "\n")
    file.write(json.dumps({"rows": count}) + "\n")
    return count


def _read(connection: Connection, file: gzip.GzipFile) -> int:
    known = _tables()
    columns = _columns(_line(file))
    if not columns:
        raise UsageError("the file has other tables than this version of fedstep", REMEDY)
    if any(connection.scalar(select(func.count()).select_from(table)) for table in (versions, tokens)):
        raise UsageError("the store is not empty", "Import into a new one.")
    rows, count, total = _rows(file, columns), 0, -1
    while batch := list(islice(rows, BATCH)):
        for name, values in batch:
            if name == "":
                total = values["rows"]
            else:
                _insert(connection, known[name], values)
                count += 1
    if total != count:
        raise UsageError(f"the file has {count} rows of {max(0, total)}", "It was cut off; export again.")
    return count


def _insert(connection: Connection, table: Table, values: Row) -> None:
    if table is updates and "body" in values:  # written by an earlier fedstep, with the body in the same row
        connection.execute(insert(bodies), {"id": values["id"], "body": values.pop("body")})
    if table is lineages:  # the one that was drawn for the new store
        connection.execute(delete(lineages))
    connection.execute(insert(table), values)


def _columns(header: object) -> Columns:
    """Return the columns of the file's rows by table; empty where its tables differ from the current ones.

    Tables that were added after the format may be missing.
    """
    tables = _tables_of(header)
    columns = {name: list(table.columns) for name, table in _tables().items()}
    if bodies.name not in tables:
        columns[updates.name].append(bodies.c.body)
    expected = {name: [column.name for column in table_columns] for name, table_columns in columns.items()}
    return columns if expected == {name: expected[name] for name in LATER} | tables else {}


def _tables_of(header: object) -> dict[str, list[str]]:
    """Return the columns of each table in the file by their current names; empty for an invalid header."""
    tables = header.get("tables") if isinstance(header, dict) and header.get("format") == FORMAT else None
    if not isinstance(tables, dict) or not all(isinstance(columns, list) for columns in tables.values()):
        return {}
    named = {RENAMED_TABLES.get(name, name): columns for name, columns in tables.items()}
    return {
        name: [RENAMED_COLUMNS.get(name, {}).get(str(column), str(column)) for column in columns]
        for name, columns in named.items()
    }


def _rows(file: gzip.GzipFile, columns: Columns) -> Iterator[tuple[str, Row]]:
    """Yield each row with the name of its table, and last the number of rows under the name ""."""
    while (line := _line(file)) is not None:
        if isinstance(line, dict):
            yield "", {"rows": line.get("rows")}
            if file.read(1):  # reading to the end verifies the checksum of gzip
                raise ValueError("something follows the last row")
            return
        table = RENAMED_TABLES.get(str(line[0]), str(line[0])) if isinstance(line, list) and line else ""
        if not isinstance(line, list) or table not in columns:
            raise ValueError("a row of no table")
        yield table, {c.name: _to_stored(c.type, v) for c, v in zip(columns[table], line[1:], strict=True)}


def _line(file: gzip.GzipFile) -> object:
    """Return the next line parsed as JSON; None at the end."""
    line = file.readline(LONGEST_LINE)
    if line and not line.endswith(b"\n"):
        raise ValueError("a line that does not end")
    return json.loads(line) if line else None


def _plain(value: object) -> object:
    return b64encode(value).decode() if isinstance(value, bytes | memoryview) else value


def _to_stored(kind: object, value: Any) -> object:
    return b64decode(value, validate=True) if isinstance(kind, LargeBinary) and value is not None else value


def _cause(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
