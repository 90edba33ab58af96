"""Accept shares: authenticate the sender, check the share, and write those that arrive together in one commit."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from fedstep.errors import WireError
from fedstep.federation.messages import SchemaShape
from fedstep.federation.secagg.share_messages import MaskedShare, SeedShare, check_share
from fedstep.server.auth import RequestGuard
from fedstep.server.http_messages import HttpProblem, as_json, asks_only, note, plain_body
from fedstep.server.metrics import Metrics
from fedstep.server.secagg.share_store import KEPT_SECONDS, ShareOffer, ShareStore
from fedstep.server.settings import Limits
from fedstep.server.update_endpoint import check_fit

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
        """Return whether the share was known before, once it is on disk. Raise HttpProblem: 503."""
        if len(self._pending) >= self._max_pending:
            raise HttpProblem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2)
        is_repeat: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((offer, is_repeat))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        try:
            return await is_repeat
        except Exception as error:
            text = "The store does not take updates now. Send it again later."
            raise HttpProblem(503, "store", text, retry_after=10) from error

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
    """POST /v1/shares of one kind of share."""

    def __init__(
        self, guard: RequestGuard, limits: Limits, shape: SchemaShape, batches: ShareBatcher, metrics: Metrics
    ) -> None:
        self._guard, self._limits, self._shape, self._batches, self._metrics = guard, limits, shape, batches, metrics

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
        return share, await self._batches.keep(offer_of(share, sender.pseudonym(share.project), sender.owner))


async def expire_shares(store: ShareStore, clock: Callable[[], float]) -> None:
    """Expire shares that waited too long, once an hour, until this task is cancelled."""
    while True:
        try:
            expired = await asyncio.to_thread(store.let_go, clock() - KEPT_SECONDS)
            if expired:
                log.info("%d deltas of shares expired: they waited too long", expired)
        except Exception:
            log.exception("old shares cannot be deleted")
        await asyncio.sleep(HOUR)
