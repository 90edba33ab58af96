"""What outlives the process: updates, their receipts, and every version of head with its parent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, select, update

from fedstep.federation.tensors import Vector, pack, unpack
from fedstep.federation.wire import Shape
from fedstep.server.buffer import Pending
from fedstep.server.tables import open_engine, receipts, updates, versions

__all__ = ["Accepted", "Offer", "Refused", "Store", "Version"]

Fold = Callable[["Version", Iterable[bytes]], Mapping[str, Vector]]


@dataclass(frozen=True, slots=True)
class Version:
    """One head, all its vectors, and the version that `production` was when it was made."""

    version: int
    production: int
    created: float
    vectors: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class Offer:
    """An update that fits: its bytes and what the store must know of it."""

    id: str
    project: str
    owner: str
    base: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receipt of a stored update; `repeat` when it was stored before."""

    receipt: str
    version: int
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An update learned from a head that is too old, or not known."""

    reason: str
    remedy: str


class Store:
    """One database for one schema. Not for two threads at a time: the writer owns it."""

    def __init__(self, url: str, shape: Shape) -> None:
        """Raises UsageError when the database cannot be opened."""
        self._engine: Engine = open_engine(url)
        self._shape = shape

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()

    def start(self, vectors: Mapping[str, Vector], now: float) -> Version:
        """The newest version of the schema; where there is none, one that starts with `vectors`."""
        with self._engine.begin() as connection:
            known = self._newest(connection)
            if known:
                return known
            last = connection.scalar(select(func.max(versions.c.version)))
            first = 0 if last is None else last + 1
            return self._insert(connection, Version(first, first, now, vectors), parent=None, folded=0)

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """The head of any version ever made."""
        with self._engine.begin() as connection:
            body = connection.execute(select(versions.c.vectors).where(versions.c.version == version)).scalar_one()
        return unpack(body).vectors

    def accept(self, offers: Sequence[Offer], head: int, staleness: int, now: float) -> tuple[Accepted | Refused, ...]:
        """An answer for each offer, in one transaction: on disk when this returns. A repeat gets the old receipt."""
        with self._engine.begin() as connection:
            outcomes = self._receipts(connection, [offer.id for offer in offers])
            new: dict[str, Offer] = {}
            for offer in offers:
                if offer.id not in outcomes:
                    outcomes[offer.id] = _judged(offer, head, staleness)
                    new[offer.id] = offer
            taken = {key: offer for key, offer in new.items() if isinstance(outcomes[key], Accepted)}
            self._keep(connection, taken.values(), head, now)
        first = {id(offer) for offer in new.values()}
        return tuple(_as_seen(outcomes[offer.id], id(offer) not in first) for offer in offers)

    def pending(self) -> Pending:
        """What is in the buffer."""
        buffered = (updates.c.folded.is_(None)) & (updates.c.schema == self._shape.digest)
        query = select(func.count(), func.count(func.distinct(updates.c.project)), func.min(updates.c.received)).where(
            buffered
        )
        with self._engine.begin() as connection:
            count, projects, oldest = connection.execute(query).one()
        return Pending(count, projects, oldest or 0.0)

    def fold(self, fold: Fold, now: float) -> Version:
        """The next version, made of the newest one and every update in the buffer, in one transaction."""
        buffered = (updates.c.folded.is_(None)) & (updates.c.schema == self._shape.digest)
        with self._engine.begin() as connection:
            head = self._newest(connection)
            if head is None:
                raise RuntimeError("a store is started before it folds")
            rows = connection.execute(select(updates.c.id, updates.c.body).where(buffered).order_by(updates.c.id)).all()
            number = head.version + 1
            made = Version(number, number, now, fold(head, (row.body for row in rows)))
            connection.execute(update(updates).where(buffered).values(folded=number))
            return self._insert(connection, made, parent=head.version, folded=len(rows))

    def _newest(self, connection: Connection) -> Version | None:
        query = select(versions).where(versions.c.schema == self._shape.digest).order_by(versions.c.version.desc())
        row = connection.execute(query.limit(1)).one_or_none()
        return Version(row.version, row.production, row.created, unpack(row.vectors).vectors) if row else None

    def _insert(self, connection: Connection, made: Version, parent: int | None, folded: int) -> Version:
        connection.execute(
            insert(versions).values(
                version=made.version,
                parent=parent,
                schema=self._shape.digest,
                created=made.created,
                updates=folded,
                production=made.production,
                vectors=pack({}, made.vectors),
            )
        )
        return made

    def _receipts(self, connection: Connection, ids: Sequence[str]) -> dict[str, Accepted | Refused]:
        found = connection.execute(select(receipts).where(receipts.c.id.in_(ids)))
        return {row.id: Accepted(row.receipt, row.version, repeat=True) for row in found}

    def _keep(self, connection: Connection, offers: Iterable[Offer], head: int, now: float) -> None:
        rows = [
            {
                "id": offer.id,
                "schema": self._shape.digest,
                "project": offer.project,
                "owner": offer.owner,
                "base": offer.base,
                "received": now,
                "body": offer.body,
            }
            for offer in offers
        ]
        if rows:
            connection.execute(insert(updates), rows)
            connection.execute(
                insert(receipts),
                [{"id": row["id"], "receipt": _receipt(str(row["id"])), "version": head} for row in rows],
            )


def _judged(offer: Offer, head: int, staleness: int) -> Accepted | Refused:
    if offer.base > head:
        return Refused(f"it was learned from version {offer.base}, the newest here is {head}", "Run fedstep pull.")
    if head - offer.base > staleness:
        return Refused(f"it was learned from version {offer.base}, {head - offer.base} folds ago", "Run fedstep pull.")
    return Accepted(_receipt(offer.id), head)


def _receipt(number: str) -> str:
    return f"stored-{number}"


def _as_seen(outcome: Accepted | Refused, repeat: bool) -> Accepted | Refused:
    """The same offer twice in one batch: the second is a repeat, too."""
    return Accepted(outcome.receipt, outcome.version, repeat) if isinstance(outcome, Accepted) else outcome
