"""The one task that writes: many updates a commit, then a fold when it is due."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.aggregation.policy import BufferPolicy, BufferStatus, is_due, updates_needed
from fedstep.server.storage.store import Step, Store
from fedstep.server.storage.update_repository import ErasureResult, StoredReceipt, UpdateOffer, UpdateRejected
from fedstep.server.storage.version_repository import VersionListing

LARGEST_BATCH = 256
TURNS = 3  # of the event loop, from bytes on a socket to an offer
NICE = 5  # for the thread that folds: of a processor that another one wants, too, it gets a quarter
LONGEST_TICK = 1.0  # seconds between looks at the clock
log = logging.getLogger("fedstep.server")
T = TypeVar("T")


class QueueFull(Exception):
    """More updates wait for the disk than the aggregator keeps in memory."""


class Writer:
    """Owns the store. An offer is answered when it is on disk; all that waited meanwhile share the next commit."""

    def __init__(
        self, store: Store, folding: BufferPolicy, step: Step, queue: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._folding, self._step, self._clock = store, folding, step, clock
        self._queue: list[tuple[UpdateOffer, asyncio.Future[StoredReceipt | UpdateRejected]]] = []
        self._most, self._stopping, self._offered = queue, False, asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "fedstep-store")
        self._folder = ThreadPoolExecutor(1, "fedstep-fold", _give_way)
        store.write = self._write
        # by the thread that writes: it begins here, and not with the priority of the one that folds
        self._pending, self._added = self._thread.submit(store.pending).result(), 0  # and how many were stored since
        self._next_look = 0.0
        self._tick = min(LONGEST_TICK, folding.seconds)

    async def offer(self, offer: UpdateOffer) -> StoredReceipt | UpdateRejected:
        """What became of the update, once that is on disk. Raises QueueFull, and what the database raises."""
        if len(self._queue) >= self._most:
            raise QueueFull
        answer: asyncio.Future[StoredReceipt | UpdateRejected] = asyncio.get_running_loop().create_future()
        self._queue.append((offer, answer))
        self._offered.set()
        return await answer

    async def run(self, current: CurrentModels, publish: Callable[[CurrentModels], None]) -> None:
        """Write until `stop`; publish every new candidate, also one that another process made, such as a rollback.

        A failing disk fails the offers, not the task.
        """
        self._newest = current.candidate.version
        looking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        looking.set_result(None)
        while self._queue or not self._stopping:
            batch = await self._batch()
            if batch:
                await self._commit(batch, self._newest)
            ripe = is_due(self._pending, self._clock(), self._folding)
            if looking.done() and (ripe or time.monotonic() >= self._next_look):
                looking = asyncio.create_task(self._look(publish))
        await looking

    async def lineage(self, most: int) -> VersionListing:
        """The newest of the lineage, at most so many versions and verdicts."""
        return await self._in_thread(lambda: self._store.lineage(most))

    async def forget(self, project: str, owner: str) -> ErasureResult:
        """What was deleted of a project, once that is on disk. Raises what the database raises."""
        # not beside a fold: that has read what is to be forgotten
        gone = await self._beside(lambda: self._store.forget(project, owner))
        await self._in_thread(self._count)
        return gone

    async def stop(self) -> None:
        """Ends `run` once everything offered before is answered."""
        self._stopping = True
        self._offered.set()

    def close(self) -> None:
        """Ends the threads and the store."""
        self._folder.shutdown()
        self._thread.shutdown()
        self._store.close()

    async def _batch(self) -> list[tuple[UpdateOffer, asyncio.Future[StoredReceipt | UpdateRejected]]]:
        """Everything that waits, as much of it as a commit takes; nothing after a tick, or when it is to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._tick):
                await self._offered.wait()
        await self._gathered()
        batch, self._queue = self._queue[:LARGEST_BATCH], self._queue[LARGEST_BATCH:]
        if not self._queue:
            self._offered.clear()
        return batch

    async def _gathered(self) -> None:
        """Returns when nothing more comes without waiting: a commit costs ten updates' time, however many are in it."""
        before = 0
        while before < len(self._queue) < LARGEST_BATCH:
            before = len(self._queue)
            for _ in range(TURNS):
                await asyncio.sleep(0)

    async def _commit(
        self, batch: list[tuple[UpdateOffer, asyncio.Future[StoredReceipt | UpdateRejected]]], task: int
    ) -> None:
        offers = [offer for offer, _ in batch]
        try:
            outcomes = await self._in_thread(lambda: self._kept(offers, task))
        except Exception as error:  # noqa: BLE001  whatever it was, each sender must hear that nothing was promised
            log.error("%d updates could not be stored: %s", len(batch), type(error).__name__)
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)

    def _kept(self, offers: Sequence[UpdateOffer], task: int) -> Sequence[StoredReceipt | UpdateRejected]:
        """What became of the offers. The buffer is counted anew when there may be enough, or an eighth more."""
        outcomes = self._store.accept(offers, task, self._folding.staleness, self._clock())
        self._added += sum(isinstance(outcome, StoredReceipt) and not outcome.repeat for outcome in outcomes)
        if self._added >= min(updates_needed(self._pending, self._folding), 1 + self._pending.updates // 8):
            self._count()
        return outcomes

    async def _look(self, publish: Callable[[CurrentModels], None]) -> None:
        """Folds the buffer where it is due, while more is accepted; publishes what is newer than what was published.

        Other processes write, too: what they did is seen here, at least once a tick.
        """
        self._next_look = time.monotonic() + self._tick
        try:
            found = await self._beside(lambda: self._looked(self._newest))
            if found:
                self._newest = found.candidate.version
                publish(found)
        except Exception:
            log.exception("the fold failed, or the store cannot be read")  # the buffer is on disk: later, again
            await asyncio.sleep(self._tick)

    def _looked(self, newest: int) -> CurrentModels | None:
        self._store.tidy(self._clock())
        before = self._count()
        if is_due(before, self._clock(), self._folding):
            made = self._store.fold(self._step, self._clock(), lambda now: is_due(now, self._clock(), self._folding))
            self._count()
            if made:
                log.info(
                    "version %d: %d updates of %d projects; production %d",
                    made.version,
                    before.updates,
                    before.projects,
                    made.production,
                )
        return self._store.current() if self._store.newest() > newest else None

    def _count(self) -> BufferStatus:
        """What is in the buffer. Both threads count: where they do it at once, the next tick sets it right."""
        self._pending, self._added = self._store.pending(), 0
        return self._pending

    def _write(self, work: Callable[[], T]) -> T:
        """As `Write`: for the thread that folds."""
        return self._thread.submit(work).result()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _beside(self, work: Callable[[], T]) -> T:
        """As `_in_thread`, while updates are accepted."""
        return await asyncio.get_running_loop().run_in_executor(self._folder, work)


def _give_way() -> None:
    """Who sends waits for an answer, and nobody for a fold. On Linux alone a thread has a priority of its own."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it, and a thread that cannot begin would never fold
            os.nice(NICE)
