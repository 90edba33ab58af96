"""How leader and helper take their halves: who sends, what fits, and many halves a commit."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.halves import Masked, Seeded, check_half
from fedstep.federation.wire import Shape, Update
from fedstep.server.body import plain_body
from fedstep.server.door import Door
from fedstep.server.metrics import Metrics
from fedstep.server.problems import Problem, as_json, note
from fedstep.server.settings import Limits
from fedstep.server.share_book import KEPT_SECONDS, HalfOffer, ShareBook

__all__ = ["Batches", "Taking", "check_fit", "mismatch", "tidy"]

LARGEST_BATCH = 256
HOUR = 3600.0  # seconds
log = logging.getLogger("fedstep.server")
H = TypeVar("H", Masked, Seeded)
M = TypeVar("M", Masked, Seeded, Update)
Keep = Callable[[Sequence[HalfOffer], float], tuple[bool, ...]]


class Batches:
    """Keeps offers in a thread: those that come while one batch is written share the next commit."""

    def __init__(self, keep: Keep, most: int, clock: Callable[[], float] = time.time) -> None:
        self._keep, self._most, self._clock = keep, most, clock
        self._waiting: list[tuple[HalfOffer, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def kept(self, offer: HalfOffer) -> bool:
        """Whether it was known before, once it is on disk. Raises Problem: 503."""
        if len(self._waiting) >= self._most:
            raise Problem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((offer, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        try:
            return await answer
        except Exception as error:
            text = "The store does not take updates now. Send it again later."
            raise Problem(503, "store", text, retry_after=10) from error

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
            try:
                known = await asyncio.to_thread(self._keep, [offer for offer, _ in batch], self._clock())
            except Exception as error:  # noqa: BLE001  whatever it was, each sender must hear that nothing was promised
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), repeat in zip(batch, known, strict=True):
                if not answer.done():
                    answer.set_result(repeat)


class Taking:
    """POST /v1/shares of one kind of half."""

    def __init__(self, door: Door, limits: Limits, shape: Shape, batches: Batches, metrics: Metrics) -> None:
        self._door, self._limits, self._shape, self._batches, self._metrics = door, limits, shape, batches, metrics

    async def take(
        self,
        request: Request,
        unpack: Callable[[bytes], H],
        offer_of: Callable[[H, str, str], HalfOffer],
        version: int,
    ) -> Response:
        """202 with a receipt once the half is on disk. `offer_of` gets the half, its project and its owner."""
        try:
            half, repeat = await self._kept(request, unpack, offer_of)
        except Problem as problem:
            self._metrics.shared(problem.name)
            raise
        self._metrics.shared("repeat" if repeat else "accepted")
        note(request, "%s %s", "repeat of half" if repeat else "half", half.id[:8])
        return as_json({"receipt": f"stored-{half.id}", "version": version}, 202)

    async def _kept(
        self, request: Request, unpack: Callable[[bytes], H], offer_of: Callable[[H, str, str], HalfOffer]
    ) -> tuple[H, bool]:
        """The half, once it is on disk, and whether it was known before. Raises Problem."""
        sender = await self._door.writer(request)
        half = self._checked(request, await plain_body(request, self._limits), unpack)
        request.state.update = half.id[:8]
        return half, await self._batches.kept(offer_of(half, sender.pseudonym(half.project), sender.owner))

    def _checked(self, request: Request, body: bytes, unpack: Callable[[bytes], H]) -> H:
        """The half that fits. Raises Problem."""
        try:
            half = unpack(body)
        except WireError as error:
            raise Problem(400, "not-an-update", str(error), reason=str(error.args[0])) from error
        check_fit(half, request.headers.get("idempotency-key", ""), check_half, self._shape)
        return half


def check_fit(message: M, key: str, check: Callable[[M, Shape], None], shape: Shape) -> None:
    """Nothing. Raises Problem for a message that came under another key than its id, or that does not fit."""
    if key != message.id:
        raise Problem(400, "key", "Idempotency-Key must be the id of the update.")
    try:
        check(message, shape)
    except SchemaMismatch as error:
        raise mismatch(shape.digest, message.schema) from error
    except WireError as error:
        raise Problem(422, "does-not-fit", str(error)) from error


def mismatch(ours: str, got: str) -> Problem:
    """The Problem with a message in another schema."""
    text = f"The feature schema here is {ours}. Use the version of fedstep that has it."
    return Problem(409, "schema-mismatch", text, {"expected": ours, "got": got[:64]})


async def tidy(book: ShareBook, clock: Callable[[], float]) -> None:
    """Lets go of what waited too long, once an hour, until it is cancelled."""
    while True:
        try:
            gone = await asyncio.to_thread(book.let_go, clock() - KEPT_SECONDS)
            if gone:
                log.info("%d heads of halves were let go: they waited too long", gone)
        except Exception:
            log.exception("old halves cannot be let go")
        await asyncio.sleep(HOUR)
