"""Write accepted updates in batches, and aggregate the buffer when it is due."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeAlias, TypeVar

from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.mode import BufferPolicy, BufferStatus, is_due, updates_needed
from fedstep.server.storage.engine import StoreReplaced
from fedstep.server.storage.store import Step, Store
from fedstep.server.storage.update_repository import ErasureResult, StoredReceipt, UpdateOffer, UpdateRejected
from fedstep.server.storage.version_repository import VersionListing

MAX_BATCH = 256  # updates per commit
LOOP_TURNS = 3  # of the event loop, from bytes on a socket to an offer
NICE = 5  # of the aggregating thread: of a core that another thread wants, too, it gets a quarter
MAX_TICK = 1.0  # seconds between looks at the clock
log = logging.getLogger("fedstep.server")
T = TypeVar("T")
Outcome: TypeAlias = StoredReceipt | UpdateRejected
QueuedOffer: TypeAlias = tuple[UpdateOffer, asyncio.Future[Outcome]]


class QueueFull(Exception):
    """The queue of updates that wait to be written is full."""


class Writer:
    """Owns the store: writes offers in the store's thread, and aggregates in a thread of lower priority.

    An offer is answered when it is on disk. All offers that arrive during a commit share the next one.
    """

    def __init__(
        self,
        store: Store,
        buffer_policy: BufferPolicy,
        step: Step,
        max_queue: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._buffer_policy, self._step, self._clock = store, buffer_policy, step, clock
        self._queue: list[QueuedOffer] = []
        self._max_queue, self._stopping, self._offered = max_queue, False, asyncio.Event()
        self._aggregator = ThreadPoolExecutor(1, "fedstep-aggregation", _lower_priority)
        # in the store's thread: it starts here, since a thread inherits the priority of the one that starts it
        self._pending = store.executor.submit(store.pending).result()
        self._new_updates = 0  # stored since `_pending` was counted
        self._next_look = 0.0
        self._tick = min(MAX_TICK, buffer_policy.seconds)

    async def offer(self, offer: UpdateOffer) -> Outcome:
        """Return the outcome once it is on disk. Raise QueueFull, and what the database raises."""
        if len(self._queue) >= self._max_queue:
            raise QueueFull
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append((offer, outcome))
        self._offered.set()
        return await outcome

    async def run(self, current: CurrentModels, publish: Callable[[CurrentModels], None]) -> None:
        """Write until `stop`, and publish every new version, also of another process, such as a rollback.

        A failing disk fails the offers, and not this task.
        """
        self._published = current.candidate.version
        look: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        look.set_result(None)
        while self._queue or not self._stopping:
            batch = await self._next_batch()
            if batch:
                await self._commit(batch, self._published)
            aggregation_is_due = is_due(self._pending, self._clock(), self._buffer_policy)
            if look.done() and (aggregation_is_due or time.monotonic() >= self._next_look):
                look = asyncio.create_task(self._look(publish))
        await look

    async def lineage(self, limit: int) -> VersionListing:
        """Return the newest versions, verdicts and open trials, at most `limit` versions and verdicts."""
        return await _run_in(self._store.executor, lambda: self._store.lineage(limit))

    async def forget(self, project: str, owner: str) -> ErasureResult:
        """Return what was deleted of a project, once that is on disk. Raise what the database raises."""
        # in the aggregating thread: an aggregation has read what is to be deleted, and may not write it afterwards
        deleted = await _run_in(self._aggregator, lambda: self._store.forget(project, owner))
        await _run_in(self._store.executor, self._count)
        return deleted

    async def stop(self) -> None:
        """End `run` once everything offered before is answered."""
        self._stopping = True
        self._offered.set()

    def close(self) -> None:
        """End the threads and close the store."""
        self._aggregator.shutdown()
        self._store.close()

    async def _next_batch(self) -> list[QueuedOffer]:
        """Return what is queued, as much as one commit takes; nothing after a tick, or when `run` is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._tick):
                await self._offered.wait()
        await self._wait_for_offers()
        batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        if not self._queue:
            self._offered.clear()
        return batch

    async def _wait_for_offers(self) -> None:
        """Return when no more offers arrive at once: a commit takes as long as ten updates, whatever is in it."""
        queued = 0
        while queued < len(self._queue) < MAX_BATCH:
            queued = len(self._queue)
            for _ in range(LOOP_TURNS):
                await asyncio.sleep(0)

    async def _commit(self, batch: list[QueuedOffer], candidate: int) -> None:
        offers = [offer for offer, _ in batch]
        try:
            outcomes = await _run_in(self._store.executor, lambda: self._accept(offers, candidate))
        except Exception as error:  # noqa: BLE001  whatever it was, each sender must hear that nothing was promised
            reason = str(error) if isinstance(error, StoreReplaced) else type(error).__name__
            log.error("%d updates could not be stored: %s", len(batch), reason)
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    def _accept(self, offers: Sequence[UpdateOffer], candidate: int) -> Sequence[Outcome]:
        """Store the offers. The buffer is counted again when there may be enough, or an eighth more."""
        outcomes = self._store.accept(offers, candidate, self._buffer_policy.staleness, self._clock())
        self._new_updates += sum(isinstance(outcome, StoredReceipt) and not outcome.repeat for outcome in outcomes)
        eighth = 1 + self._pending.updates // 8
        if self._new_updates >= min(updates_needed(self._pending, self._buffer_policy) or eighth, eighth):
            self._count()
        return outcomes

    async def _look(self, publish: Callable[[CurrentModels], None]) -> None:
        """Aggregate the buffer where it is due, and publish what is newer than the version published last.

        Updates are accepted meanwhile. What other processes write is noticed here, within a tick.
        """
        self._next_look = time.monotonic() + self._tick
        try:
            current = await _run_in(self._aggregator, lambda: self._aggregate(self._published))
            if current:
                self._published = current.candidate.version
                publish(current)
        except Exception:
            log.exception("the aggregation failed, or the store cannot be read")  # the buffer is on disk: later, again
            await asyncio.sleep(self._tick)

    def _aggregate(self, published: int) -> CurrentModels | None:
        """Aggregate where it is due. Return what to serve where it is newer than the published version."""
        self._store.tidy(self._clock())
        pending = self._count()
        if is_due(pending, self._clock(), self._buffer_policy):
            version = self._store.aggregate(
                self._step, self._clock(), lambda status: is_due(status, self._clock(), self._buffer_policy)
            )
            self._count()
            if version:
                log.info(
                    "version %d: %d updates of %d projects; production %d",
                    version.version,
                    pending.updates,
                    pending.projects,
                    version.production,
                )
        return self._store.current() if self._store.latest_version() > published else None

    def _count(self) -> BufferStatus:
        """Count the buffer. Both threads do: where they count at once, the next tick corrects the number."""
        self._pending, self._new_updates = self._store.pending(), 0
        return self._pending


async def _run_in(executor: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work)


def _lower_priority() -> None:
    """Lower the priority of aggregation, because senders wait for receipts and not for an aggregation.

    Only on Linux does a thread have a priority of its own (docs/decisions/0024).
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it, and a thread whose start fails would never aggregate
            os.nice(NICE)
