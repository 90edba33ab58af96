"""Rows that are written often, many in one statement."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from sqlalchemy import Connection, Table

__all__ = ["insert_rows"]

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
