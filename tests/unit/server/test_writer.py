"""Which thread aggregates and which one writes, and with what priority."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager, closing

import pytest

from fedstep.server.mode import BufferPolicy
from fedstep.server.storage.store import Store
from fedstep.server.writer import Writer
from tests.helpers.server_store import make_version, offer

WRITING = ("_accept_batch", "_save", "_transact", "_delete_project")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")


class Noting(Store):
    """A store that notes the thread and the priority of all that writes, and of each aggregation."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.seen: dict[str, tuple[str, int]] = {}
        for name in WRITING:
            setattr(self, name, self._noting(name, getattr(self, name)))

    def aggregate(self, step, *more):
        return super().aggregate(self._noting("step", step), *more)

    def _noting(self, name: str, work: Callable) -> Callable:
        def noted(*given):
            nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            self.seen[name] = (threading.current_thread().name, nice)
            return work(*given)

        return noted


@asynccontextmanager
async def writing(store: Store, folding: BufferPolicy):
    """A writer at work, and what is set when it has made a version."""
    writer, made = Writer(store, folding, make_version, 100), asyncio.Event()
    work = asyncio.create_task(writer.run(store.current(), lambda _: made.set()))
    try:
        yield writer, made
    finally:
        await writer.stop()
        await work
        writer.close()


async def folded(store: Store, *offers) -> None:
    async with writing(store, BufferPolicy(updates=1)) as (writer, made), asyncio.timeout(30):
        for one in offers:
            await writer.offer(one)
        await made.wait()


class TestThreads:
    @on_linux
    @pytest.mark.parametrize("waiting", [True, False])
    def test_an_aggregation_gives_way_and_writing_does_not(self, store, url, ours, update, waiting):
        """An aggregation yields to other threads and a write does not, also where the first write is an
        aggregation at the start.
        """
        if waiting:
            store.accept([offer(update(1))], 0, 10, time.time())
        with closing(Noting(url, ours)) as noting:
            asyncio.run(folded(noting, *([] if waiting else [offer(update(1))])))
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        assert noting.seen.pop("step")[1] == min(19, usual + 5)
        assert {nice for _, nice in noting.seen.values()} == {usual}

    @pytest.mark.usefixtures("store")
    def test_all_that_is_written_is_written_by_one_thread(self, url, ours, update):
        first = update(1)

        async def everything(noting: Store) -> None:
            async with writing(noting, BufferPolicy(updates=1)) as (writer, made), asyncio.timeout(30):
                await writer.forget(first.project, "open")
                await writer.offer(offer(first))
                await made.wait()

        with closing(Noting(url, ours)) as noting:
            asyncio.run(everything(noting))
        threads = {name: thread for name, (thread, _) in noting.seen.items()}
        assert threads.pop("step") not in threads.values()
        assert threads.keys() == set(WRITING)
        assert len(set(threads.values())) == 1

    @on_linux
    @pytest.mark.usefixtures("store")
    def test_without_lower_priority_aggregations_use_the_usual_one(self, url, ours, update, monkeypatch):
        """Where no thread may have a lower priority, aggregations run with the usual one."""

        def forbidden(_more: int) -> int:
            raise PermissionError("Operation not permitted")

        monkeypatch.setattr(os, "nice", forbidden)
        with closing(Noting(url, ours)) as noting:
            asyncio.run(folded(noting, offer(update(1))))
        assert noting.seen["step"][1] == os.getpriority(os.PRIO_PROCESS, 0)
