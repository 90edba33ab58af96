"""How offered updates are judged and kept. Each call is inside a transaction, and what it says holds once that ends."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, delete, func, select, update

from fedstep.federation.messages import TrialScore, Update
from fedstep.server.aggregation.inputs import StoredUpdate
from fedstep.server.aggregation.policy import BufferStatus
from fedstep.server.mode import AggregationMode
from fedstep.server.storage.engine import insert_rows
from fedstep.server.storage.tables import bodies, evaluations, receipts, updates
from fedstep.server.storage.trial_repository import TrialRepository


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """How many rows of a project were deleted; zeros where it had none, was forgotten before, or never was."""

    updates: int
    evaluations: int

    def as_json(self) -> dict[str, int]:
        """The members of the answer."""
        return asdict(self)


PROJECT_TABLES = (updates, evaluations)  # each has the columns project and owner


def insert_updates(connection: Connection, rows: Sequence[Mapping[str, object]], sent: Mapping[str, bytes]) -> None:
    """Writes updates, and of each the bytes that were sent under its id."""
    insert_rows(connection, updates, rows)
    insert_rows(connection, bodies, [{"id": number, "body": body} for number, body in sent.items()])


def bodies_of(connection: Connection, ids: Collection[str]) -> Mapping[str, bytes]:
    """The bytes of those that are still there, by id."""
    found = connection.execute(select(bodies).where(bodies.c.id.in_(ids))) if ids else ()
    return {row.id: row.body for row in found}


def delete_updates(connection: Connection, which: ColumnElement[bool]) -> int:
    """How many updates were deleted with their bytes: those that are there now, and not what comes meanwhile."""
    ids = connection.scalars(select(updates.c.id).where(which).with_for_update()).all()
    doomed = [{"doomed": number} for number in ids]
    for table in (bodies, updates) if doomed else ():
        connection.execute(delete(table).where(table.c.id == bindparam("doomed")), doomed)
    return len(ids)


# made once: that takes longer than to run it
KNOWN = select(receipts).where(receipts.c.id.in_(bindparam("ids", expanding=True)))
DECLINED = {
    "budget-spent": (
        "the project has spent its privacy budget",
        "It predicts and contributes no longer.",
        (422, "budget-spent"),
    ),
    "already-contributed": (
        "the project has contributed in this period",
        "It contributes again in the next one.",
        (422, "already-contributed"),
    ),
}


@dataclass(frozen=True, slots=True)
class UpdateOffer:
    """An update that fits: its bytes and what the store must know of it. `update`: what they say, for the next fold."""

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
    """An update learned from a candidate that is too old, or not known, or of a project that may not contribute now."""

    reason: str
    remedy: str
    problem: tuple[int, str] = (422, "stale")  # its status and name


class UpdateRepository:
    """What is offered to one schema, over one connection."""

    def __init__(self, connection: Connection, schema: str, mode: AggregationMode) -> None:
        self._connection, self._schema, self._mode = connection, schema, mode

    def take(
        self, offers: Sequence[UpdateOffer], task: int, staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        """An answer for each offer; `candidate` is the newest version. A repeat gets the old receipt.

        Raises IntegrityError where another replica keeps one of them at the same moment.
        """
        outcomes = self._receipts([offer.id for offer in offers])
        new: dict[str, UpdateOffer] = {}
        for offer in offers:
            if offer.id not in outcomes:
                outcomes[offer.id] = _judged(offer, task, staleness)
                new[offer.id] = offer
        fit = [offer for key, offer in new.items() if isinstance(outcomes[key], StoredReceipt)]
        charged = ((offer.id, offer.project, offer.owner) for offer in fit)
        declined = self._mode.decline(self._connection, charged, now)
        outcomes |= {key: UpdateRejected(*DECLINED[name]) for key, name in declined.items()}
        self._keep([offer for key, offer in new.items() if isinstance(outcomes[key], StoredReceipt)], task, now)
        first = {id(offer) for offer in new.values()}
        return tuple(_as_seen(outcomes[offer.id], id(offer) not in first) for offer in offers)

    def _receipts(self, ids: Sequence[str]) -> dict[str, StoredReceipt | UpdateRejected]:
        found = self._connection.execute(KNOWN, {"ids": ids})
        return {row.id: StoredReceipt(row.receipt, row.version, repeat=True) for row in found}

    def _keep(self, offers: Sequence[UpdateOffer], task: int, now: float) -> None:
        if not offers:
            return
        # in the order of ids: two replicas that store the same ones wait for each other, not both for both
        named = [{"id": key, "receipt": _receipt(key), "version": task} for key in sorted(offer.id for offer in offers)]
        insert_rows(self._connection, receipts, named)
        insert_updates(
            self._connection, [self._row(offer, now) for offer in offers], {offer.id: offer.body for offer in offers}
        )
        cast = ((offer.id, offer.project, offer.owner, offer.scores) for offer in offers)
        TrialRepository(self._connection, self._schema).vote(cast)

    def _row(self, offer: UpdateOffer, now: float) -> Mapping[str, object]:
        return {
            "id": offer.id,
            "schema": self._schema,
            "project": offer.project,
            "owner": offer.owner,
            "base": offer.base,
            "received": now,
        }


def _judged(offer: UpdateOffer, task: int, staleness: int) -> StoredReceipt | UpdateRejected:
    if offer.base > task:
        return UpdateRejected(
            f"it was learned from version {offer.base}, the newest here is {task}", "Run fedstep pull."
        )
    if task - offer.base > staleness:
        return UpdateRejected(
            f"it was learned from version {offer.base}, {task - offer.base} folds ago", "Run fedstep pull."
        )
    return StoredReceipt(_receipt(offer.id), task)


def _receipt(number: str) -> str:
    return f"stored-{number}"


def _as_seen(outcome: StoredReceipt | UpdateRejected, repeat: bool) -> StoredReceipt | UpdateRejected:
    """The same offer twice in one batch: the second is a repeat, too."""
    return replace(outcome, repeat=True) if repeat and isinstance(outcome, StoredReceipt) else outcome


class UpdateBuffer:
    """The updates of one schema that are in no version, over one connection."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def counted(self) -> BufferStatus:
        """How many they are, of how many projects, since when."""
        query = select(func.count(), func.count(func.distinct(updates.c.project)), func.min(updates.c.received))
        count, projects, oldest = self._connection.execute(query.where(self._unfolded)).one()
        return BufferStatus(count, projects, oldest or 0.0)

    def first(self, most: int, known: Mapping[str, Update]) -> Mapping[str, StoredUpdate]:
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
            row.id: StoredUpdate(unread.get(row.id, b""), row.owner, project=row.project, known=read[row.id])
            for row in rows
        }

    def end(self, ids: Collection[str], version: int) -> bool:
        """From now on these are in the version; false where some of them do not wait any longer."""
        marked = update(updates).where(updates.c.id.in_(ids), self._unfolded).values(aggregated_in=version)
        return self._connection.execute(marked).rowcount == len(ids)

    @property
    def _unfolded(self) -> ColumnElement[bool]:
        return (updates.c.aggregated_in.is_(None)) & (updates.c.schema == self._schema)


def delete_project(engine: Engine, project: str, owner: str) -> ErasureResult:
    """Deletes the project's bodies and votes, in one transaction: those that this owner sent, for no other may ask.

    `emptied_log` has to follow. Receipts stay, or an update that is sent again would count anew; their ids are hashes
    with the project's own key.
    """
    with engine.begin() as connection:
        gone = delete_updates(connection, (updates.c.project == project) & (updates.c.owner == owner))
        cast = connection.execute(
            delete(evaluations).where(evaluations.c.project == project, evaluations.c.owner == owner)
        )
        return ErasureResult(gone, cast.rowcount)
