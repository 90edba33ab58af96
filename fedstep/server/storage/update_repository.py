"""The updates in the database: their receipts, their bytes, and the buffer of those in no version yet."""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, delete, func, select, update

from fedstep.federation.messages import TrialScore, Update
from fedstep.server.aggregation.inputs import StoredUpdate
from fedstep.server.mode import HOUR, HURRIED, AggregationMode, BufferStatus
from fedstep.server.storage.engine import insert_rows
from fedstep.server.storage.tables import bodies, evaluations, receipts, updates, versions
from fedstep.server.storage.trial_repository import TrialRepository

PROJECT_TABLES = (updates, evaluations)  # each has the columns project and owner
# built once: building the statement takes longer than running it
RECEIPTS = select(receipts).where(receipts.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class UpdateOffer:
    """An update that fits the schema: its bytes, and what the store has to know of it.

    `update` is the parsed message, so that the next aggregation need not parse the bytes.
    """

    id: str
    project: str
    owner: str
    base: int
    body: bytes
    scores: Mapping[str, TrialScore] = field(default_factory=dict)
    update: Update | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """The receipt of a stored update; `repeat` when it was stored before."""

    receipt: str
    version: int
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class UpdateRejected:
    """Why an update is not stored: its base is too old or unknown, or its project may not contribute now."""

    reason: str
    remedy: str
    problem: tuple[int, str] = (422, "stale")  # HTTP status, and name of the problem


BUDGET_REJECTIONS: Mapping[str, UpdateRejected] = {  # by what the privacy budget says
    "budget-spent": UpdateRejected(
        "the project has spent its privacy budget",
        "It predicts and contributes no longer.",
        (422, "budget-spent"),
    ),
    "already-contributed": UpdateRejected(
        "the project has contributed in this period",
        "It contributes again in the next one.",
        (422, "already-contributed"),
    ),
}


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """How many rows of a project were deleted; zeros for a project that had none."""

    updates: int
    evaluations: int

    def as_json(self) -> dict[str, int]:
        """Return the members of the response."""
        return asdict(self)


class UpdateRepository:
    """The updates of one schema, over one connection. Each call is part of the connection's transaction."""

    def __init__(self, connection: Connection, schema: str, mode: AggregationMode) -> None:
        self._connection, self._schema, self._mode = connection, schema, mode

    def accept(
        self, offers: Sequence[UpdateOffer], candidate: int, max_staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        """Return an outcome for each offer; a repeat gets its first receipt.

        Args:
            offers: Updates that fit the schema, in the order of their arrival.
            candidate: The newest version.
            max_staleness: The most versions that the candidate may be ahead of an update's base.
            now: Seconds since 1970.

        Raises:
            IntegrityError: Another replica stores one of the offers at the same moment.
        """
        outcomes = self._find_receipts([offer.id for offer in offers])
        new: dict[str, UpdateOffer] = {}
        for offer in offers:
            if offer.id not in outcomes:
                outcomes[offer.id] = _judge_base(offer, candidate, max_staleness)
                new[offer.id] = offer
        fresh = [offer for offer in new.values() if isinstance(outcomes[offer.id], StoredReceipt)]
        charges = ((offer.id, offer.project, offer.owner) for offer in fresh)
        refusals = self._mode.decline(self._connection, charges, now)
        outcomes |= {update_id: BUDGET_REJECTIONS[reason] for update_id, reason in refusals.items()}
        self._insert([offer for offer in fresh if isinstance(outcomes[offer.id], StoredReceipt)], candidate, now)
        first = {id(offer) for offer in new.values()}
        return tuple(_mark_repeat(outcomes[offer.id], id(offer) not in first) for offer in offers)

    def _find_receipts(self, ids: Sequence[str]) -> dict[str, StoredReceipt | UpdateRejected]:
        rows = self._connection.execute(RECEIPTS, {"ids": ids})
        return {row.id: StoredReceipt(row.receipt, row.version, repeat=True) for row in rows}

    def _insert(self, offers: Sequence[UpdateOffer], candidate: int, now: float) -> None:
        if not offers:
            return
        # sorted by id: two replicas that store the same offers wait for each other, and do not block each other
        receipt_rows = [
            {"id": update_id, "receipt": _receipt(update_id), "version": candidate}
            for update_id in sorted(offer.id for offer in offers)
        ]
        insert_rows(self._connection, receipts, receipt_rows)
        insert_updates(
            self._connection, [self._row(offer, now) for offer in offers], {offer.id: offer.body for offer in offers}
        )
        scored_updates = ((offer.id, offer.project, offer.owner, offer.scores) for offer in offers)
        TrialRepository(self._connection, self._schema).add_evaluations(scored_updates)

    def _row(self, offer: UpdateOffer, now: float) -> Mapping[str, object]:
        return {
            "id": offer.id,
            "schema": self._schema,
            "project": offer.project,
            "owner": offer.owner,
            "base": offer.base,
            "received": now,
        }


class UpdateBuffer:
    """The updates of one schema that are not aggregated yet, over one connection."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def count(self) -> BufferStatus:
        """Return how many updates of how many projects are in the buffer, and since when."""
        query = select(func.count(), func.count(func.distinct(updates.c.project)), func.min(updates.c.received))
        count, projects, oldest = self._connection.execute(query.where(self._pending)).one()
        created = select(versions.c.created).where(versions.c.schema == self._schema)
        newest = created.order_by(versions.c.version.desc()).offset(HURRIED - 1).limit(1)
        before = self._connection.scalar(newest)
        return BufferStatus(count, projects, oldest or 0.0, 0.0 if before is None else before + HOUR)

    def count_others(self) -> int:
        """Return how many updates of other schemas are not aggregated: only an aggregator of theirs would do it."""
        others = updates.c.aggregated_in.is_(None) & (updates.c.schema != self._schema)
        return self._connection.scalar(select(func.count()).where(others)) or 0

    def select_next(self, limit: int, cached: Mapping[str, Update]) -> Mapping[str, StoredUpdate]:
        """Return by id the updates to aggregate next, in the order of their arrival.

        Each project's oldest comes first, then each project's second: a project with many updates delays no other.
        The bytes of updates in `cached` are not read.
        """
        turn = func.row_number().over(partition_by=updates.c.project, order_by=(updates.c.received, updates.c.id))
        queue = select(updates.c.id, updates.c.received, turn.label("turn")).where(self._pending).subquery()
        chosen = select(queue.c.id).order_by(queue.c.turn, queue.c.received, queue.c.id).limit(limit)
        query = select(updates.c.id, updates.c.owner, updates.c.project).where(updates.c.id.in_(chosen))
        rows = self._connection.execute(query.order_by(updates.c.received, updates.c.id)).all()
        known = {row.id: cached.get(row.id) for row in rows}  # once: another thread may drop it from the cache
        read = self._read_bodies([update_id for update_id, update in known.items() if update is None])
        return {
            row.id: StoredUpdate(read.get(row.id, b""), row.owner, project=row.project, known=known[row.id])
            for row in rows
        }

    def mark_aggregated(self, ids: Collection[str], version: int) -> bool:
        """Record that these updates are in the version. Return False where some are in the buffer no longer."""
        marked = update(updates).where(updates.c.id.in_(ids), self._pending).values(aggregated_in=version)
        return self._connection.execute(marked).rowcount == len(ids)

    def _read_bodies(self, ids: Collection[str]) -> Mapping[str, bytes]:
        rows = self._connection.execute(select(bodies).where(bodies.c.id.in_(ids))) if ids else ()
        return {row.id: row.body for row in rows}

    @property
    def _pending(self) -> ColumnElement[bool]:
        return (updates.c.aggregated_in.is_(None)) & (updates.c.schema == self._schema)


class UpdateCache:
    """A bounded cache of the newest accepted updates by id, which the next aggregations need not read and parse."""

    def __init__(self, size: int) -> None:
        self._size, self._updates = size, OrderedDict[str, Update]()
        self.updates: Mapping[str, Update] = MappingProxyType(self._updates)

    def add_accepted(self, offers: Sequence[UpdateOffer], outcomes: Sequence[StoredReceipt | UpdateRejected]) -> None:
        """Add the offers that were accepted and are no repeats; the oldest updates are dropped."""
        for offer, outcome in zip(offers, outcomes, strict=True):
            if offer.update and isinstance(outcome, StoredReceipt) and not outcome.repeat:
                self._updates[offer.id] = offer.update
        self._drop_oldest()

    def add(self, updates: Mapping[str, Update]) -> None:
        """Add updates that were read; the oldest ones are dropped."""
        self._updates.update(updates)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self._updates) > self._size:
            self._updates.popitem(last=False)

    def clear(self) -> None:
        """Remove all updates."""
        self._updates.clear()


def insert_updates(connection: Connection, rows: Sequence[Mapping[str, object]], sent: Mapping[str, bytes]) -> None:
    """Insert rows of updates, and the bytes that were sent, by update id."""
    insert_rows(connection, updates, rows)
    insert_rows(connection, bodies, [{"id": update_id, "body": body} for update_id, body in sent.items()])


def delete_updates(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Delete the updates that match a condition and return their number; keep those that arrive meanwhile."""
    ids = connection.scalars(select(updates.c.id).where(condition).with_for_update()).all()
    parameters = [{"update_id": update_id} for update_id in ids]
    for table in (bodies, updates) if parameters else ():
        connection.execute(delete(table).where(table.c.id == bindparam("update_id")), parameters)
    return len(ids)


def delete_project(engine: Engine, project: str, owner: str) -> ErasureResult:
    """Delete in one transaction the updates and evaluations that an owner sent for a project.

    `truncate_wal` has to follow. Receipts stay, or an update that is sent again would count anew; their ids are hashes
    with the project's own key.
    """
    with engine.begin() as connection:
        deleted = delete_updates(connection, (updates.c.project == project) & (updates.c.owner == owner))
        of_project = (evaluations.c.project == project) & (evaluations.c.owner == owner)
        return ErasureResult(deleted, connection.execute(delete(evaluations).where(of_project)).rowcount)


def _judge_base(offer: UpdateOffer, candidate: int, max_staleness: int) -> StoredReceipt | UpdateRejected:
    if offer.base > candidate:
        return UpdateRejected(
            f"it was learned from version {offer.base}, the newest here is {candidate}", "Run fedstep pull."
        )
    staleness = candidate - offer.base
    if staleness > max_staleness:
        return UpdateRejected(
            f"it was learned from version {offer.base}, {staleness} versions ago", "Run fedstep pull."
        )
    return StoredReceipt(_receipt(offer.id), candidate)


def _receipt(update_id: str) -> str:
    return f"stored-{update_id}"


def _mark_repeat(outcome: StoredReceipt | UpdateRejected, repeat: bool) -> StoredReceipt | UpdateRejected:
    """Return the outcome as a repeat where the same offer was in the batch before."""
    return replace(outcome, repeat=True) if repeat and isinstance(outcome, StoredReceipt) else outcome
