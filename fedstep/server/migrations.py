"""The layout of the tables: a store of an earlier fedstep is brought to ours, one of a later is left alone.

A table that is new is made by itself. A table that changes needs a step at the end of `STEPS`, which makes the layout
one higher; it finds the tables as the layout before it had them, but for those that are new.
"""

from collections.abc import Callable

from sqlalchemy import Connection, Engine, delete, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from fedstep.errors import UsageError
from fedstep.server.database import alone, connected, failing, reading
from fedstep.server.tables import layouts, tables, updates, versions

__all__ = ["LAYOUT", "open_engine"]


def open_engine(store: str) -> Engine:
    """The database at a URL, with its tables in our layout. Raises UsageError when it cannot be opened."""
    engine = connected(store)
    try:
        with reading(engine).begin() as connection:
            ready = _layout(connection) == LAYOUT
        if not ready:
            with engine.begin() as connection:
                _migrate(connection)
    except SQLAlchemyError as error:
        engine.dispose()
        raise failing(store, error) from error
    except UsageError:
        engine.dispose()
        raise
    return engine


def _migrate(connection: Connection) -> None:
    """All in one transaction, and no two processes at once: replicas start together."""
    alone(connection, "layout")
    found = _layout(connection)
    if found > LAYOUT:
        raise UsageError(
            f"the store is of a later fedstep (layout {found}, this one knows {LAYOUT})", "Install that version here."
        )
    tables.create_all(connection)
    for step in STEPS[found - 1 :] if found else ():
        step(connection)
    connection.execute(delete(layouts))
    connection.execute(insert(layouts).values(layout=LAYOUT))


def _layout(connection: Connection) -> int:
    """0: nothing is there; 1: a store from before layouts were numbered."""
    if inspect(connection).has_table(layouts.name):
        return connection.scalar(select(layouts.c.layout)) or 0
    return int(inspect(connection).has_table(versions.name))


def _index_the_buffer(connection: Connection) -> None:
    connection.exec_driver_sql("DROP INDEX IF EXISTS updates_in_buffer")
    for index in updates.indexes:
        index.create(connection, checkfirst=True)


def _part_the_bodies(connection: Connection) -> None:
    """Without DROP COLUMN: SQLite before 3.35 has none, and PostgreSQL would keep the bytes beside the new ones."""
    kept = ", ".join(column.name for column in updates.columns)
    connection.exec_driver_sql("INSERT INTO bodies (id, body) SELECT id, body FROM updates")
    connection.exec_driver_sql(f"CREATE TABLE updates_kept AS SELECT {kept} FROM updates")
    connection.exec_driver_sql("DROP TABLE updates")
    updates.create(connection)
    connection.exec_driver_sql(f"INSERT INTO updates ({kept}) SELECT {kept} FROM updates_kept")
    connection.exec_driver_sql("DROP TABLE updates_kept")


STEPS: tuple[Callable[[Connection], None], ...] = (_index_the_buffer, _part_the_bodies)
LAYOUT = 1 + len(STEPS)
