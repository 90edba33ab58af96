"""The bytes of updates, beside their rows: what is told of an update changes, and its bytes are not written again."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from fedstep.server.inserting import insert_rows
from fedstep.server.tables import bodies, updates

__all__ = ["bodies_of", "keep", "let_go"]


def keep(connection: Connection, rows: Sequence[Mapping[str, object]], sent: Mapping[str, bytes]) -> None:
    """Writes updates, and of each the bytes that were sent under its id."""
    insert_rows(connection, updates, rows)
    insert_rows(connection, bodies, [{"id": number, "body": body} for number, body in sent.items()])


def bodies_of(connection: Connection, ids: Collection[str]) -> Mapping[str, bytes]:
    """The bytes of those that are still there, by id."""
    found = connection.execute(select(bodies).where(bodies.c.id.in_(ids))) if ids else ()
    return {row.id: row.body for row in found}


def let_go(connection: Connection, which: ColumnElement[bool]) -> int:
    """How many updates were deleted with their bytes: those that are there now, and not what comes meanwhile."""
    ids = connection.scalars(select(updates.c.id).where(which).with_for_update()).all()
    doomed = [{"doomed": number} for number in ids]
    for table in (bodies, updates) if doomed else ():
        connection.execute(delete(table).where(table.c.id == bindparam("doomed")), doomed)
    return len(ids)
