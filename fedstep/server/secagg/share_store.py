"""Accept and store shares: each id counts once for ever, and waits until its round or until it expires.

Shares that arrive together are written in one commit.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from fedstep.errors import UsageError, WireError
from fedstep.federation.messages import SchemaShape
from fedstep.federation.secagg.shares import MaskedShare, SeedShare, check_share
from fedstep.server.auth import RequestGuard, read_project
from fedstep.server.gate import EvaluationSum
from fedstep.server.http_messages import HttpProblem, as_json, asks_only, note, plain_body
from fedstep.server.metrics import Metrics
from fedstep.server.mode import BufferStatus
from fedstep.server.secagg.rounds import PendingShare
from fedstep.server.settings import Limits
from fedstep.server.storage.engine import open_engine, read_only, truncate_wal
from fedstep.server.storage.update_repository import ErasureResult
from fedstep.server.update_endpoint import check_fit, on_disk
from fedstep.server.writer import QueueFull

own = MetaData()

shares = Table(
    "shares",  # one row for each task of an update; the rows stay, so that a repeat counts once for ever
    own,
    Column("id", String(32), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("base", Integer, nullable=False),  # of the leader's alone; the helper does not need it
    Column("trial", Integer, nullable=False),  # the version on trial that it scored; -1: none
    Column("pair", String(32), nullable=False),
    Column("received", Float, nullable=False),  # seconds since 1970
    Column("missed", Integer, nullable=False),  # rounds in which the helper did not release it
    Column("round", Integer),  # that it was released in; 0: let go without; NULL: it waits
    Column("body", LargeBinary),  # masked numbers, or the seed; gone with the round
)
Index("shares_pending", shares.c.round, shares.c.schema)

rounds = Table(
    "rounds",  # the newest alone
    own,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("proposal", LargeBinary, nullable=False),
    Column("answer", LargeBinary),  # of the helper
    Column("settled", Boolean, nullable=False),
)

releases = Table(
    "releases",  # the sum of the scores of one trial in one round
    own,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("task", String(32), primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("trial", Integer, nullable=False),
    Column("evaluations", Integer, nullable=False),
    Column("total", Float, nullable=False),  # in units of the gate's reach
)


def open_share_engine(store: str) -> Engine:
    """Open the database at a SQLAlchemy URL and create the tables of shares. Raise UsageError where that fails."""
    engine = open_engine(store)
    try:
        own.create_all(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        cause = type(error).__name__
        raise UsageError(f"cannot create the share tables ({cause})", "Check that the database is writable.") from error
    return engine


def load_releases(connection: Connection, schema: str, task: str, trial: int) -> tuple[EvaluationSum, ...]:
    """Return the sums of scores that rounds released for a version on trial, the newest last."""
    which = (releases.c.task == task) & (releases.c.trial == trial) & (releases.c.schema == schema)
    rows = connection.execute(select(releases).where(which).order_by(releases.c.round))
    return tuple(EvaluationSum(row.evaluations, row.total) for row in rows)


KEPT_SECONDS = 7 * 86_400.0  # a half that was not released by then has no twin, or is of no use any more
MOST_LOOKED_AT = 8192  # rows that wait


@dataclass(frozen=True, slots=True)
class ShareOffer:
    """A share that fits the schema: what the store needs of it, and the bytes of each of its tasks."""

    id: str
    project: str
    owner: str
    pair: str
    trials: Mapping[str, int]
    bodies: Mapping[str, bytes]
    base: int = 0


class ShareStore:
    """The shares of one schema in one database. Every call is a transaction of its own, in any thread."""

    def __init__(self, url: str, schema: str) -> None:
        """Raise UsageError when the database cannot be opened."""
        self._engine: Engine = open_share_engine(url)
        self._reader = read_only(self._engine)
        self._schema = schema

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def keep(self, offers: Sequence[ShareOffer], now: float) -> tuple[bool, ...]:
        """Store shares; return whether each was known before. All are on disk when this returns."""
        repeats, new = [], dict[str, ShareOffer]()
        with self._engine.begin() as connection:
            known = set(connection.scalars(select(shares.c.id).where(shares.c.id.in_([offer.id for offer in offers]))))
            for offer in offers:
                repeats.append(offer.id in known or offer.id in new)
                new.setdefault(offer.id, offer)
            rows = [self._row(new[key], task, now) for key in new.keys() - known for task in new[key].trials]
            if rows:
                connection.execute(insert(shares), rows)
        return tuple(repeats)

    def delete_waiting(self, before: float) -> int:
        """Delete the content of shares of any schema that wait since before this time; return how many rows that were.

        Of those that are older nothing is kept but their ids: nobody asks any more whose they were.
        """
        old = shares.c.received < before
        with self._engine.begin() as connection:
            waits = update(shares).where(old, shares.c.round.is_(None))
            deleted = connection.execute(waits.values(round=0, body=None)).rowcount
            connection.execute(update(shares).where(old, shares.c.project != "").values(project="", owner=""))
        truncate_wal(self._engine)
        return deleted

    def forget(self, project: str, owner: str) -> int:
        """Delete the shares of an owner's project; return how many waited. The ids stay: a repeat must not count."""
        whose = (shares.c.project == project) & (shares.c.owner == owner)
        blank = {"project": "", "owner": "", "body": None}
        with self._engine.begin() as connection:
            waited = connection.execute(update(shares).where(whose, shares.c.round.is_(None)).values(round=0)).rowcount
            connection.execute(update(shares).where(whose).values(**blank))
        truncate_wal(self._engine)
        return waited

    def waiting(self) -> tuple[PendingShare, ...]:
        """Return the pending shares as `_waiting` does, learned from any version."""
        with self._reader.begin() as connection:
            return self._waiting(connection, 0)

    def count_waiting(self) -> BufferStatus:
        """Return how many updates wait, of how many projects, since when."""
        with self._reader.begin() as connection:
            return count_pending(connection, self._schema)

    def _waiting(self, connection: Connection, base: int) -> tuple[PendingShare, ...]:
        """Return the pending shares learned from `base` or a newer version; many of one project delay no other.

        Each project's first of each task, then each one's second; first is what was missed least, then the oldest.
        """
        rank = shares.c.missed, shares.c.received, shares.c.id
        turn = func.row_number().over(partition_by=(shares.c.project, shares.c.task), order_by=rank)
        columns = ("id", "task", "project", "base", "trial", "pair", "received", "missed")
        fresh = is_pending(self._schema) & (shares.c.base >= base)
        query = select(*(shares.c[name] for name in columns)).where(fresh)
        first = query.order_by(turn, *rank).limit(MOST_LOOKED_AT)
        return tuple(PendingShare(*row) for row in connection.execute(first))

    def _row(self, offer: ShareOffer, task: str, now: float) -> dict[str, object]:
        return {
            "id": offer.id,
            "task": task,
            "schema": self._schema,
            "project": offer.project,
            "owner": offer.owner,
            "base": offer.base,
            "trial": offer.trials[task],
            "pair": offer.pair,
            "received": now,
            "missed": 0,
            "body": offer.bodies[task],
        }


def is_pending(schema: str) -> ColumnElement[bool]:
    """Return the condition for rows that were neither released nor expired."""
    return shares.c.round.is_(None) & (shares.c.schema == schema)


def count_pending(connection: Connection, schema: str) -> BufferStatus:
    """Return how many updates have pending shares, of how many projects, since when."""
    ids, projects = (func.count(func.distinct(column)) for column in (shares.c.id, shares.c.project))
    query = select(ids, projects, func.min(shares.c.received)).where(is_pending(schema))
    waiting, senders, oldest = connection.execute(query).one()
    return BufferStatus(waiting, senders, oldest or 0.0)


MAX_BATCH_SHARES = 256
HOUR = 3600.0  # seconds
log = logging.getLogger("fedstep.server")
H = TypeVar("H", MaskedShare, SeedShare)


class ShareBatcher:
    """Writes shares in a thread: those that arrive while one batch is written are in the next commit."""

    def __init__(
        self,
        keep: Callable[[Sequence[ShareOffer], float], tuple[bool, ...]],
        max_pending: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep, self._max_pending, self._clock = keep, max_pending, clock
        self._pending: list[tuple[ShareOffer, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def keep(self, offer: ShareOffer) -> bool:
        """Return whether the share was known before, once it is on disk. Raise QueueFull, or a database error."""
        if len(self._pending) >= self._max_pending:
            raise QueueFull
        is_repeat: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((offer, is_repeat))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        return await is_repeat

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:MAX_BATCH_SHARES], self._pending[MAX_BATCH_SHARES:]
            try:
                repeats = await asyncio.to_thread(self._keep, [offer for offer, _ in batch], self._clock())
            except Exception as error:  # noqa: BLE001  whatever it was, each sender must hear that nothing was promised
                for _, is_repeat in batch:
                    if not is_repeat.done():
                        is_repeat.set_exception(error)
                continue
            for (_, is_repeat), repeat in zip(batch, repeats, strict=True):
                if not is_repeat.done():
                    is_repeat.set_result(repeat)


class ShareEndpoint:
    """POST /v1/shares of one kind of share, and POST /v1/forget."""

    def __init__(
        self,
        guard: RequestGuard,
        limits: Limits,
        shape: SchemaShape,
        store: ShareStore,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._guard, self._limits, self._shape, self._metrics = guard, limits, shape, metrics
        self._store, self._batches = store, ShareBatcher(store.keep, limits.queue, clock)

    async def take(
        self,
        request: Request,
        unpack: Callable[[bytes], H],
        offer_of: Callable[[H, str, str], ShareOffer],
        version: int,
    ) -> Response:
        """Return 202 with a receipt once the share is on disk.

        `offer_of` gets the share, its project and its owner.
        """
        try:
            share, repeat = await self._accept(request, unpack, offer_of)
        except HttpProblem as problem:
            if not asks_only(request):
                self._metrics.count_share(problem.name)
            raise
        self._metrics.count_share("repeat" if repeat else "accepted")
        note(request, "%s %s", "repeat of share" if repeat else "share", share.id[:8])
        return as_json({"receipt": f"stored-{share.id}", "version": version}, 202)

    async def forget(self, request: Request) -> Response:
        """Return 200 with how many shares were deleted of the sender's project."""
        sender = await self._guard.writer(request)
        project = read_project(request, sender)
        deleted = await asyncio.to_thread(self._store.forget, project, sender.owner)
        if deleted:
            self._guard.note_forgotten(sender, project)
        log.info("a project was forgotten: %d shares", deleted)
        return as_json(ErasureResult(deleted, 0).as_json())

    async def _accept(
        self, request: Request, unpack: Callable[[bytes], H], offer_of: Callable[[H, str, str], ShareOffer]
    ) -> tuple[H, bool]:
        """Return the share, once it is on disk, and whether it was known before. Raise HttpProblem."""
        sender = await self._guard.writer(request)
        body = await plain_body(request, self._limits)
        try:
            share = unpack(body)
        except WireError as error:
            raise HttpProblem(400, "not-an-update", str(error), reason=str(error.args[0])) from error
        check_fit(share, request.headers.get("idempotency-key", ""), check_share, self._shape)
        request.state.update = share.id[:8]
        project = sender.pseudonym(share.project)
        self._guard.check_projects(sender, project)
        offer = offer_of(share, project, sender.owner)
        return share, await on_disk(self._batches.keep(offer))


async def expire_shares(store: ShareStore, clock: Callable[[], float]) -> None:
    """Expire shares that waited too long, once an hour, until this task is cancelled."""
    while True:
        try:
            expired = await asyncio.to_thread(store.delete_waiting, clock() - KEPT_SECONDS)
            if expired:
                log.info("%d deltas of shares expired: they waited too long", expired)
        except Exception:
            log.exception("old shares cannot be deleted")
        await asyncio.sleep(HOUR)
