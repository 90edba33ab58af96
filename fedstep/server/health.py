"""Endpoints for operators: liveness, readiness and metrics."""

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.responses import Response

from fedstep.server.http_messages import HttpProblem, as_json
from fedstep.server.identity import TokenBook
from fedstep.server.metrics import CONTENT_TYPE, Metrics
from fedstep.server.storage.engine import free_bytes

PATIENCE = 2.0  # seconds allowed for the test write to the store
BETWEEN = 1.0  # minimum seconds between test writes
LEAST_FREE = 16 << 20  # bytes: what a full queue of updates needs
log = logging.getLogger("fedstep.server")


class HealthEndpoints:
    """The responses of /healthz, /readyz and /metrics."""

    def __init__(self, book: TokenBook, metrics: Metrics, writes: Callable[[], bool], store: str) -> None:
        self._book, self._metrics, self._writes, self._store = book, metrics, writes, store
        self._stopping, self._written = False, -BETWEEN
        self._writing: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """Report the aggregator as not ready from now on."""
        self._stopping = True

    def health(self, version: int) -> Response:
        """Return 200 while the writer runs. Raise HttpProblem, status 503, where a restart is needed."""
        if not self._writes():
            raise HttpProblem(503, "writer", "The aggregator no longer writes. Restart it; its log says why.")
        return as_json({"status": "ok", "version": version})

    async def ready(self, version: int) -> Response:
        """Return 200 while updates are accepted, after a test write; else raise HttpProblem, status 503."""
        if self._stopping:
            raise HttpProblem(
                503, "stopping", "The aggregator is shutting down. Send it again in a while.", retry_after=5
            )
        self.health(version)
        if free_bytes(self._store) < LEAST_FREE:  # a small write may still find room in a file that is there
            raise HttpProblem(503, "full", "The disk of the store is full. Send it again later.", retry_after=60)
        if time.monotonic() - self._written >= BETWEEN:
            await self._write()
        return as_json({"status": "ready", "version": version})

    def metrics(self) -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(self._metrics.text(), 200, {"Content-Type": CONTENT_TYPE})

    async def _write(self) -> None:
        """Write to the store to test it. Concurrent requests wait for the same write."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._book.beat, time.time()))
        done, _ = await asyncio.wait({self._writing}, timeout=PATIENCE)
        if not done or self._writing.exception():
            raise HttpProblem(
                503, "store", "The store cannot be written now. Its disk or its lock is the trouble.", retry_after=10
            )
        self._written = time.monotonic()
