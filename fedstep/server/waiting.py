"""The buffer in the database: what waits to be folded. Each call is inside a transaction."""

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, func, select, update

from fedstep.federation.wire import Update
from fedstep.server.bodies import bodies_of
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

    def first(self, most: int, known: Mapping[str, Update]) -> Mapping[str, Stored]:
        """What is folded next, by id: each project's oldest, then each one's second; many of one hold up nobody.

        Of those in `known` the bytes are not read.
        """
        turn = func.row_number().over(partition_by=updates.c.project, order_by=(updates.c.received, updates.c.id))
        queue = select(updates.c.id, updates.c.received, turn.label("turn")).where(self._unfolded).subquery()
        chosen = select(queue.c.id).order_by(queue.c.turn, queue.c.received, queue.c.id).limit(most)
        found = select(updates.c.id, updates.c.owner, updates.c.project).where(updates.c.id.in_(chosen))
        rows = self._connection.execute(found.order_by(updates.c.received, updates.c.id)).all()
        read = {row.id: known.get(row.id) for row in rows}
        unread = bodies_of(self._connection, [number for number, update in read.items() if update is None])
        return {
            row.id: Stored(unread.get(row.id, b""), row.owner, project=row.project, known=read[row.id]) for row in rows
        }

    def end(self, ids: Collection[str], version: int) -> bool:
        """From now on these are in the version; false where some of them do not wait any longer."""
        marked = update(updates).where(updates.c.id.in_(ids), self._unfolded).values(folded=version)
        return self._connection.execute(marked).rowcount == len(ids)

    @property
    def _unfolded(self) -> ColumnElement[bool]:
        return (updates.c.folded.is_(None)) & (updates.c.schema == self._schema)
