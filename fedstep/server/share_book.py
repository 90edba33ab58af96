"""The halves that an aggregator holds: each counts once for ever, and waits until its round or its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Engine, insert, select, update

from fedstep.server.choosing import Waiting
from fedstep.server.database import reading
from fedstep.server.share_tables import halves, open_book

__all__ = ["KEPT_SECONDS", "HalfOffer", "ShareBook", "now_waiting"]

KEPT_SECONDS = 7 * 86_400.0  # a half that was not released by then has no twin, or is of no use any more
MOST_LOOKED_AT = 8192  # rows that wait, those that were missed least first


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
        """How many rows were let go: those that came before this time and still wait. They are not taken again."""
        with self._engine.begin() as connection:
            old = now_waiting(self._schema) & (halves.c.received < before)
            return connection.execute(update(halves).where(old).values(round=0, body=None)).rowcount

    def forget(self, project: str, owner: str) -> int:
        """How many halves of this owner's project were deleted; their ids stay, or a repeat would count anew."""
        whose = (halves.c.project == project) & (halves.c.owner == owner)
        blank = {"project": "", "owner": "", "body": None}
        with self._engine.begin() as connection:
            waited = connection.execute(update(halves).where(whose, halves.c.round.is_(None)).values(round=0)).rowcount
            connection.execute(update(halves).where(whose).values(**blank))
        return waited

    def waiting(self) -> tuple[Waiting, ...]:
        """The heads that wait, the oldest ones, without their bytes."""
        with self._reader.begin() as connection:
            return self._waiting(connection)

    def _waiting(self, connection: Connection) -> tuple[Waiting, ...]:
        columns = ("id", "head", "project", "base", "trial", "pair", "received", "missed")
        query = select(*(halves.c[name] for name in columns)).where(now_waiting(self._schema))
        oldest = query.order_by(halves.c.missed, halves.c.received, halves.c.id).limit(MOST_LOOKED_AT)
        return tuple(Waiting(*row) for row in connection.execute(oldest))

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
