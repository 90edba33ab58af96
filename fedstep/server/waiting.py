"""The buffer in the database: what waits to be folded. Each call is inside a transaction."""

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, func, select, update

from fedstep.server.buffer import Pending
from fedstep.server.records import Stored
from fedstep.server.tables import updates

__all__ = ["Waiting"]


class Waiting:
    """The updates of one schema that are in no version, over one connection."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def counted(self) -> Pending:
        """How many they are, of how many projects, since when."""
        query = select(func.count(), func.count(func.distinct(updates.c.project)), func.min(updates.c.received))
        count, projects, oldest = self._connection.execute(query.where(self._unfolded)).one()
        return Pending(count, projects, oldest or 0.0)

    def first(self, most: int) -> Mapping[str, Stored]:
        """What is folded next, by id: each project's oldest, then each one's second; many of one hold up nobody."""
        turn = func.row_number().over(partition_by=updates.c.project, order_by=(updates.c.received, updates.c.id))
        queue = select(updates.c.id, updates.c.received, turn.label("turn")).where(self._unfolded).subquery()
        chosen = select(queue.c.id).order_by(queue.c.turn, queue.c.received, queue.c.id).limit(most)
        found = select(updates.c.id, updates.c.body, updates.c.owner, updates.c.project).where(updates.c.id.in_(chosen))
        rows = self._connection.execute(found.order_by(updates.c.received, updates.c.id))
        return {row.id: Stored(row.body, row.owner, project=row.project) for row in rows}

    def end(self, ids: Collection[str], version: int) -> None:
        """From now on these are in the version."""
        self._connection.execute(update(updates).where(updates.c.id.in_(ids)).values(folded=version))

    @property
    def _unfolded(self) -> ColumnElement[bool]:
        return (updates.c.folded.is_(None)) & (updates.c.schema == self._schema)
