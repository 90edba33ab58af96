"""Endpoints for operators: liveness, readiness and metrics."""

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.responses import Response

from fedstep.server.http_messages import HttpProblem, as_json
from fedstep.server.metrics import CONTENT_TYPE, Metrics
from fedstep.server.tokens import TokenBook

PATIENCE = 2.0  # seconds for a write that shows that the store can be written
BETWEEN = 1.0  # seconds between such writes, however often somebody asks
log = logging.getLogger("fedstep.server")


class HealthEndpoints:
    """The answers of /healthz, /readyz and /metrics."""

    def __init__(self, book: TokenBook, metrics: Metrics, writes: Callable[[], bool]) -> None:
        self._book, self._metrics, self._writes = book, metrics, writes
        self._stopping, self._written = False, -BETWEEN
        self._writing: asyncio.Future[None] | None = None

    def stop(self) -> None:
        """From now on nothing new may come."""
        self._stopping = True

    def health(self, version: int) -> Response:
        """200 while the process answers and its writer lives. Raises Problem: 503, a restart would help."""
        if not self._writes():
            raise HttpProblem(503, "writer", "The aggregator no longer writes. Restart it; its log says why.")
        return as_json({"status": "ok", "version": version})

    async def ready(self, version: int) -> Response:
        """200 while updates can be taken: the store was just written. Raises Problem: 503, send them elsewhere."""
        if self._stopping:
            raise HttpProblem(
                503, "stopping", "The aggregator is shutting down. Send it again in a while.", retry_after=5
            )
        self.health(version)
        if time.monotonic() - self._written >= BETWEEN:
            await self._write()
        return as_json({"status": "ready", "version": version})

    def metrics(self) -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(self._metrics.text(), 200, {"Content-Type": CONTENT_TYPE})

    async def _write(self) -> None:
        """One write at a time: where the store hangs, those who ask share the wait for it."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._book.beat, time.time()))
        done, _ = await asyncio.wait({self._writing}, timeout=PATIENCE)
        if not done or self._writing.exception():
            raise HttpProblem(
                503, "store", "The store cannot be written now. Its disk or its lock is the trouble.", retry_after=10
            )
        self._written = time.monotonic()
