"""The halves that an aggregator holds: each counts once for ever, and waits until its round or its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, update

from fedstep.server.buffer import Pending
from fedstep.server.choosing import Waiting
from fedstep.server.database import emptied_log, reading
from fedstep.server.share_tables import halves, open_book

__all__ = ["KEPT_SECONDS", "HalfOffer", "ShareBook", "in_halves", "now_waiting"]

KEPT_SECONDS = 7 * 86_400.0  # a half that was not released by then has no twin, or is of no use any more
MOST_LOOKED_AT = 8192  # rows that wait


@dataclass(frozen=True, slots=True)
class HalfOffer:
    """A half that fits: what the store must know of it, and the bytes of each of its heads."""

    id: str
    project: str
    owner: str
    pair: str
    trials: Mapping[str, int]
    bodies: Mapping[str, bytes]
    base: int = 0


class ShareBook:
    """The halves of one schema in one database. Every call is a transaction of its own, in whatever thread."""

    def __init__(self, url: str, schema: str) -> None:
        """Raises UsageError when the database cannot be opened."""
        self._engine: Engine = open_book(url)
        self._reader = reading(self._engine)
        self._schema = schema

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()

    def keep(self, offers: Sequence[HalfOffer], now: float) -> tuple[bool, ...]:
        """Whether each was known before; the others are on disk when this returns."""
        repeats, new = [], dict[str, HalfOffer]()
        with self._engine.begin() as connection:
            known = set(connection.scalars(select(halves.c.id).where(halves.c.id.in_([offer.id for offer in offers]))))
            for offer in offers:
                repeats.append(offer.id in known or offer.id in new)
                new.setdefault(offer.id, offer)
            rows = [self._row(new[key], head, now) for key in new.keys() - known for head in new[key].trials]
            if rows:
                connection.execute(insert(halves), rows)
        return tuple(repeats)

    def let_go(self, before: float) -> int:
        """How many rows were let go: those of any schema that wait since before this time. They are not taken again.

        Of those that are older nothing is kept but their ids: nobody asks any more whose they were.
        """
        old = halves.c.received < before
        with self._engine.begin() as connection:
            waits = update(halves).where(old, halves.c.round.is_(None))
            gone = connection.execute(waits.values(round=0, body=None)).rowcount
            connection.execute(update(halves).where(old, halves.c.project != "").values(project="", owner=""))
        emptied_log(self._engine)
        return gone

    def forget(self, project: str, owner: str) -> int:
        """How many halves of this owner's project were deleted; their ids stay, or a repeat would count anew."""
        whose = (halves.c.project == project) & (halves.c.owner == owner)
        blank = {"project": "", "owner": "", "body": None}
        with self._engine.begin() as connection:
            waited = connection.execute(update(halves).where(whose, halves.c.round.is_(None)).values(round=0)).rowcount
            connection.execute(update(halves).where(whose).values(**blank))
        emptied_log(self._engine)
        return waited

    def waiting(self) -> tuple[Waiting, ...]:
        """The heads that wait, without their bytes: as `_waiting` has them, learned from any version."""
        with self._reader.begin() as connection:
            return self._waiting(connection, 0)

    def counted(self) -> Pending:
        """How many updates wait, of how many projects, since when."""
        with self._reader.begin() as connection:
            return in_halves(connection, self._schema)

    def _waiting(self, connection: Connection, base: int) -> tuple[Waiting, ...]:
        """The heads that wait and were learned from this version or a newer one; many of one project hold up nobody.

        Each project's first of each head, then each one's second; first is what was missed least, then the oldest.
        """
        rank = halves.c.missed, halves.c.received, halves.c.id
        turn = func.row_number().over(partition_by=(halves.c.project, halves.c.head), order_by=rank)
        columns = ("id", "head", "project", "base", "trial", "pair", "received", "missed")
        fresh = now_waiting(self._schema) & (halves.c.base >= base)
        query = select(*(halves.c[name] for name in columns)).where(fresh)
        first = query.order_by(turn, *rank).limit(MOST_LOOKED_AT)
        return tuple(Waiting(*row) for row in connection.execute(first))

    def _row(self, offer: HalfOffer, head: str, now: float) -> dict[str, object]:
        return {
            "id": offer.id,
            "head": head,
            "schema": self._schema,
            "project": offer.project,
            "owner": offer.owner,
            "base": offer.base,
            "trial": offer.trials[head],
            "pair": offer.pair,
            "received": now,
            "missed": 0,
            "body": offer.bodies[head],
        }


def now_waiting(schema: str) -> ColumnElement[bool]:
    """The rows that were neither released nor let go."""
    return halves.c.round.is_(None) & (halves.c.schema == schema)


def in_halves(connection: Connection, schema: str) -> Pending:
    """How many updates wait in halves, of how many projects, since when; with any of their heads."""
    ids, projects = (func.count(func.distinct(column)) for column in (halves.c.id, halves.c.project))
    query = select(ids, projects, func.min(halves.c.received)).where(now_waiting(schema))
    waiting, senders, oldest = connection.execute(query).one()
    return Pending(waiting, senders, oldest or 0.0)
