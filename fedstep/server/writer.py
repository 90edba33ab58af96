"""The one task that writes: many updates a commit, then a fold when it is due."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fedstep.server.buffer import Folding, Pending, due, lacking
from fedstep.server.forgetting import Forgotten
from fedstep.server.listing import Lineage
from fedstep.server.records import Current
from fedstep.server.store import Accepted, Offer, Refused, Step, Store

__all__ = ["QueueFull", "Writer"]

LARGEST_BATCH = 256
TURNS = 3  # of the event loop, from bytes on a socket to an offer
LONGEST_TICK = 1.0  # seconds between looks at the clock
log = logging.getLogger("fedstep.server")
T = TypeVar("T")


class QueueFull(Exception):
    """More updates wait for the disk than the aggregator keeps in memory."""


class Writer:
    """Owns the store. An offer is answered when it is on disk; all that waited meanwhile share the next commit."""

    def __init__(
        self, store: Store, folding: Folding, step: Step, queue: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._folding, self._step, self._clock = store, folding, step, clock
        self._queue: asyncio.Queue[tuple[Offer, asyncio.Future[Accepted | Refused]] | None] = asyncio.Queue(queue)
        self._thread = ThreadPoolExecutor(1, "fedstep-store")
        self._pending, self._added = store.pending(), 0  # and how many were stored since
        self._next_look = 0.0
        self._tick = min(LONGEST_TICK, folding.seconds)

    async def offer(self, offer: Offer) -> Accepted | Refused:
        """What became of the update, once that is on disk. Raises QueueFull, and what the database raises."""
        answer: asyncio.Future[Accepted | Refused] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((offer, answer))
        except asyncio.QueueFull:
            raise QueueFull from None
        return await answer

    async def run(self, current: Current, publish: Callable[[Current], None]) -> None:
        """Writes until `stop`; every new head is published, also one that another process made, such as a rollback.

        A failing disk fails the offers, not the task.
        """
        newest, running = current.head.version, True
        while running:
            batch, running = await self._batch()
            if batch:
                await self._commit(batch, newest)
            if due(self._pending, self._clock(), self._folding) or time.monotonic() >= self._next_look:
                found = await self._look(newest)
                if found:
                    newest = found.head.version
                    publish(found)

    async def lineage(self, most: int) -> Lineage:
        """The newest of the lineage, at most so many versions and verdicts."""
        return await self._in_thread(lambda: self._store.lineage(most))

    async def forget(self, project: str, owner: str) -> Forgotten:
        """What was deleted of a project, once that is on disk. Raises what the database raises."""
        gone = await self._in_thread(lambda: self._store.forget(project, owner))
        await self._in_thread(self._count)
        return gone

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
            async with asyncio.timeout(self._tick):
                item = await self._queue.get()
        except TimeoutError:
            return [], True
        await self._gathered()
        batch = []
        while item is not None:
            batch.append(item)
            if self._queue.empty() or len(batch) == LARGEST_BATCH:
                return batch, True
            item = self._queue.get_nowait()
        return batch, False

    async def _gathered(self) -> None:
        """Returns when nothing more comes without waiting: a commit costs ten updates' time, however many are in it."""
        before = -1
        while before < self._queue.qsize() < LARGEST_BATCH:
            before = self._queue.qsize()
            for _ in range(TURNS):
                await asyncio.sleep(0)

    async def _commit(self, batch: list[tuple[Offer, asyncio.Future[Accepted | Refused]]], head: int) -> None:
        offers = [offer for offer, _ in batch]
        try:
            outcomes = await self._in_thread(lambda: self._kept(offers, head))
        except Exception as error:  # noqa: BLE001  whatever it was, each sender must hear that nothing was promised
            log.error("%d updates could not be stored: %s", len(batch), type(error).__name__)
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)

    def _kept(self, offers: Sequence[Offer], head: int) -> Sequence[Accepted | Refused]:
        """What became of the offers. The buffer is counted anew when there may be enough, or an eighth more."""
        outcomes = self._store.accept(offers, head, self._folding.staleness, self._clock())
        self._added += sum(isinstance(outcome, Accepted) and not outcome.repeat for outcome in outcomes)
        if self._added >= min(lacking(self._pending, self._folding), 1 + self._pending.updates // 8):
            self._count()
        return outcomes

    async def _look(self, newest: int) -> Current | None:
        """Folds the buffer where it is due; what is to be served now, when the store has a version newer than this one.

        Other processes write, too: what they did is seen here, at least once a tick.
        """
        self._next_look = time.monotonic() + self._tick
        try:
            return await self._in_thread(lambda: self._looked(newest))
        except Exception:
            log.exception("the fold failed, or the store cannot be read")  # the buffer is on disk: later, again
            await asyncio.sleep(self._tick)
        return None

    def _looked(self, newest: int) -> Current | None:
        before = self._count()
        if due(before, self._clock(), self._folding):
            made = self._store.fold(self._step, self._clock(), lambda now: due(now, self._clock(), self._folding))
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

    def _count(self) -> Pending:
        self._pending, self._added = self._store.pending(), 0
        return self._pending

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
