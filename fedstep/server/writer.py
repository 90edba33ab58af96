"""The one task that writes: many updates a commit, then a fold when it is due."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fedstep.server.buffer import Folding, due
from fedstep.server.store import Accepted, Fold, Offer, Refused, Store, Version

__all__ = ["QueueFull", "Writer"]

LARGEST_BATCH = 256
LONGEST_TICK = 1.0  # seconds between looks at the clock
log = logging.getLogger("fedstep.server")
T = TypeVar("T")


class QueueFull(Exception):
    """More updates wait for the disk than the aggregator keeps in memory."""


class Writer:
    """Owns the store. An offer is answered when it is on disk; all that waited meanwhile share the next commit."""

    def __init__(
        self, store: Store, folding: Folding, fold: Fold, queue: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._folding, self._fold, self._clock = store, folding, fold, clock
        self._queue: asyncio.Queue[tuple[Offer, asyncio.Future[Accepted | Refused]] | None] = asyncio.Queue(queue)
        self._thread = ThreadPoolExecutor(1, "fedstep-store")
        self._pending = store.pending()

    async def offer(self, offer: Offer) -> Accepted | Refused:
        """What became of the update, once that is on disk. Raises QueueFull, and what the database raises."""
        answer: asyncio.Future[Accepted | Refused] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((offer, answer))
        except asyncio.QueueFull:
            raise QueueFull from None
        return await answer

    async def run(self, head: Version, publish: Callable[[Version], None]) -> None:
        """Writes until `stop`; every new head is published. A failing disk fails the offers, not the task."""
        running = True
        while running:
            batch, running = await self._batch()
            if batch:
                await self._commit(batch, head)
            if due(self._pending, self._clock(), self._folding):
                folded = await self._next(head)
                if folded.version > head.version:
                    head = folded
                    publish(head)

    async def stop(self) -> None:
        """Ends `run` once everything offered before is answered."""
        await self._queue.put(None)

    def close(self) -> None:
        """Ends the thread and the store."""
        self._thread.shutdown()
        self._store.close()

    async def _batch(self) -> tuple[list[tuple[Offer, asyncio.Future[Accepted | Refused]]], bool]:
        """Everything that waits, and whether to go on; after a tick, nothing."""
        try:
            async with asyncio.timeout(min(LONGEST_TICK, self._folding.seconds)):
                item = await self._queue.get()
        except TimeoutError:
            return [], True
        batch = []
        while item is not None:
            batch.append(item)
            if self._queue.empty() or len(batch) == LARGEST_BATCH:
                return batch, True
            item = self._queue.get_nowait()
        return batch, False

    async def _commit(self, batch: list[tuple[Offer, asyncio.Future[Accepted | Refused]]], head: Version) -> None:
        offers = [offer for offer, _ in batch]
        try:
            outcomes = await self._in_thread(
                lambda: self._store.accept(offers, head.version, self._folding.staleness, self._clock())
            )
            self._pending = await self._in_thread(self._store.pending)
        except Exception as error:  # noqa: BLE001  whatever it was, each sender must hear that nothing was promised
            log.error("%d updates could not be stored: %s", len(batch), type(error).__name__)
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)

    async def _next(self, head: Version) -> Version:
        """The new head, or the old one when the fold failed: the buffer is on disk and the next tick tries again."""
        try:
            folded = await self._in_thread(lambda: self._store.fold(self._fold, self._clock()))
            log.info(
                "version %d: %d updates of %d projects", folded.version, self._pending.updates, self._pending.projects
            )
            self._pending = await self._in_thread(self._store.pending)
        except Exception:
            log.exception("the fold failed")
            await asyncio.sleep(min(LONGEST_TICK, self._folding.seconds))
            return head
        return folded

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
