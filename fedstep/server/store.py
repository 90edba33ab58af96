"""What outlives the process: updates, their receipts, every version of head with its parent, and the trials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, update

from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Score, Shape
from fedstep.server.buffer import Pending
from fedstep.server.chronicle import Chronicle
from fedstep.server.gate import Active
from fedstep.server.ledger import Ledger
from fedstep.server.listing import Lineage, lineage
from fedstep.server.records import Current, Made, Moment, Stored, Version
from fedstep.server.tables import open_engine, receipts, updates

__all__ = ["Accepted", "Offer", "Refused", "Store", "Version"]

Step = Callable[[Moment], Made]

MOST_FOLDED = 1000  # updates in memory at once; what the buffer has beyond it is folded next
PRUNED_EVERY = 100  # versions


@dataclass(frozen=True, slots=True)
class Offer:
    """An update that fits: its bytes and what the store must know of it."""

    id: str
    project: str
    owner: str
    base: int
    body: bytes
    scores: Mapping[str, Score] = field(default_factory=dict)


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
            chronicle = self._chronicle(connection)
            known, first = chronicle.newest(), chronicle.unused()
            made = Version(first, first, now, vectors, dict.fromkeys(vectors, first))
            return known or chronicle.add(made, parent=None, folded=0)

    def current(self) -> Current:
        """What is to be served. Raises UsageError where nothing of this schema was ever started."""
        with self._engine.begin() as connection:
            return self._chronicle(connection).current()

    def newest(self) -> int:
        """The number of the newest version."""
        with self._engine.begin() as connection:
            return self._chronicle(connection).number()

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """The head of any version ever made."""
        with self._engine.begin() as connection:
            return self._chronicle(connection).vectors(version)

    def accept(self, offers: Sequence[Offer], head: int, staleness: int, now: float) -> tuple[Accepted | Refused, ...]:
        """An answer for each offer, in one transaction: on disk when this returns. A repeat gets the old receipt.

        `head` is the newest version that this process knows of; another one may have made a newer one.
        """
        with self._engine.begin() as connection:
            head = max(head, self._chronicle(connection).number())
            outcomes = self._receipts(connection, [offer.id for offer in offers])
            new: dict[str, Offer] = {}
            for offer in offers:
                if offer.id not in outcomes:
                    outcomes[offer.id] = _judged(offer, head, staleness)
                    new[offer.id] = offer
            taken = {key: offer for key, offer in new.items() if isinstance(outcomes[key], Accepted)}
            self._keep(connection, tuple(taken.values()), head, now)
        first = {id(offer) for offer in new.values()}
        return tuple(_as_seen(outcomes[offer.id], id(offer) not in first) for offer in offers)

    def pending(self) -> Pending:
        """What is in the buffer."""
        query = select(func.count(), func.count(func.distinct(updates.c.project)), func.min(updates.c.received))
        with self._engine.begin() as connection:
            count, projects, oldest = connection.execute(query.where(self._buffered)).one()
        return Pending(count, projects, oldest or 0.0)

    def active(self, now: float) -> Active:
        """Who sent an update lately."""
        with self._engine.begin() as connection:
            return self._ledger(connection).active(now)

    def fold(self, step: Step, now: float) -> Version:
        """The version that `step` makes of the newest one and the buffer, in one transaction with what it decides."""
        with self._engine.begin() as connection:
            chronicle, ledger = self._chronicle(connection), self._ledger(connection)
            rows = connection.execute(
                select(updates.c.id, updates.c.body, updates.c.owner, updates.c.project)
                .where(self._buffered)
                .order_by(updates.c.received, updates.c.id)
                .limit(MOST_FOLDED)
            ).all()
            moment = Moment(
                current=chronicle.current(),
                buffered=tuple(Stored(row.body, row.owner, project=row.project) for row in rows),
                votes=ledger.votes(),
                active=ledger.active(now),
                spent=ledger.spent(),
                refolded=ledger.refolded(),
                since=chronicle.since,
                now=now,
            )
            made = step(moment)
            number = made.version.version
            connection.execute(update(updates).where(updates.c.id.in_([row.id for row in rows])).values(folded=number))
            chronicle.add(made.version, parent=moment.current.head.version, folded=len(rows))
            ledger.begin(made.trials)
            ledger.end(made.decisions, made.version)
            if number % PRUNED_EVERY == 0:
                chronicle.prune(min(made.version.sources.values()), now)
            return made.version

    def roll_back(self, version: int, now: float) -> Version:
        """A new version whose head and production are what production was at `version`. Raises UsageError."""
        with self._engine.begin() as connection:
            chronicle = self._chronicle(connection)
            vectors, number = chronicle.production(version), chronicle.unused()
            # its own source: whoever goes back wants to be rid of what came since, nothing of it is folded again
            made = Version(number, number, now, vectors, dict.fromkeys(vectors, number))
            chronicle.add(made, parent=version, folded=0)
            self._ledger(connection).roll_back(made, version)
            return made

    def lineage(self, most: int) -> Lineage:
        """The newest versions, verdicts and open trials, at most so many of each."""
        with self._engine.begin() as connection:
            return lineage(connection, self._shape.digest, most)

    @property
    def _buffered(self) -> ColumnElement[bool]:
        return (updates.c.folded.is_(None)) & (updates.c.schema == self._shape.digest)

    def _chronicle(self, connection: Connection) -> Chronicle:
        return Chronicle(connection, self._shape.digest)

    def _ledger(self, connection: Connection) -> Ledger:
        return Ledger(connection, self._shape.digest)

    def _receipts(self, connection: Connection, ids: Sequence[str]) -> dict[str, Accepted | Refused]:
        found = connection.execute(select(receipts).where(receipts.c.id.in_(ids)))
        return {row.id: Accepted(row.receipt, row.version, repeat=True) for row in found}

    def _keep(self, connection: Connection, offers: Sequence[Offer], head: int, now: float) -> None:
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
            cast = ((offer.id, offer.project, offer.owner, offer.scores) for offer in offers)
            self._ledger(connection).vote(cast)


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
