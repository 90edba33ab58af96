"""How leader and helper take their halves: who sends, what fits, and many halves a commit."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import sqrt
from typing import TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.messages import SchemaShape, Update, check_update, unpack_update
from fedstep.federation.secagg.share_messages import MaskedShare, SeedShare, check_share
from fedstep.federation.tensors import Vector
from fedstep.server.auth import RequestGuard
from fedstep.server.http_messages import HttpProblem, as_json, header, note, plain_body
from fedstep.server.metrics import Metrics
from fedstep.server.secagg.share_store import KEPT_SECONDS, ShareOffer, ShareStore
from fedstep.server.settings import Limits
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer, UpdateRejected

LARGEST_BATCH = 256
HOUR = 3600.0  # seconds
log = logging.getLogger("fedstep.server")
H = TypeVar("H", MaskedShare, SeedShare)
M = TypeVar("M", MaskedShare, SeedShare, Update)
Keep = Callable[[Sequence[ShareOffer], float], tuple[bool, ...]]


class ShareBatcher:
    """Keeps offers in a thread: those that come while one batch is written share the next commit."""

    def __init__(self, keep: Keep, most: int, clock: Callable[[], float] = time.time) -> None:
        self._keep, self._most, self._clock = keep, most, clock
        self._waiting: list[tuple[ShareOffer, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def kept(self, offer: ShareOffer) -> bool:
        """Whether it was known before, once it is on disk. Raises Problem: 503."""
        if len(self._waiting) >= self._most:
            raise HttpProblem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((offer, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        try:
            return await answer
        except Exception as error:
            text = "The store does not take updates now. Send it again later."
            raise HttpProblem(503, "store", text, retry_after=10) from error

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


class ShareEndpoint:
    """POST /v1/shares of one kind of half."""

    def __init__(
        self, door: RequestGuard, limits: Limits, shape: SchemaShape, batches: ShareBatcher, metrics: Metrics
    ) -> None:
        self._door, self._limits, self._shape, self._batches, self._metrics = door, limits, shape, batches, metrics

    async def take(
        self,
        request: Request,
        unpack: Callable[[bytes], H],
        offer_of: Callable[[H, str, str], ShareOffer],
        version: int,
    ) -> Response:
        """202 with a receipt once the half is on disk. `offer_of` gets the half, its project and its owner."""
        try:
            half, repeat = await self._kept(request, unpack, offer_of)
        except HttpProblem as problem:
            self._metrics.shared(problem.name)
            raise
        self._metrics.shared("repeat" if repeat else "accepted")
        note(request, "%s %s", "repeat of half" if repeat else "half", half.id[:8])
        return as_json({"receipt": f"stored-{half.id}", "version": version}, 202)

    async def _kept(
        self, request: Request, unpack: Callable[[bytes], H], offer_of: Callable[[H, str, str], ShareOffer]
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
            raise HttpProblem(400, "not-an-update", str(error), reason=str(error.args[0])) from error
        check_fit(half, request.headers.get("idempotency-key", ""), check_share, self._shape)
        return half


def check_fit(message: M, key: str, check: Callable[[M, SchemaShape], None], shape: SchemaShape) -> None:
    """Nothing. Raises Problem for a message that came under another key than its id, or that does not fit."""
    if key != message.id:
        raise HttpProblem(400, "key", "Idempotency-Key must be the id of the update.")
    try:
        check(message, shape)
    except SchemaMismatch as error:
        raise mismatch(shape.digest, message.schema) from error
    except WireError as error:
        raise HttpProblem(422, "does-not-fit", str(error)) from error


def mismatch(ours: str, got: str) -> HttpProblem:
    """The Problem with a message in another schema."""
    text = f"The feature schema here is {ours}. Use the version of fedstep that has it."
    return HttpProblem(409, "schema-mismatch", text, {"expected": ours, "got": got[:64]})


async def tidy(book: ShareStore, clock: Callable[[], float]) -> None:
    """Lets go of what waited too long, once an hour, until it is cancelled."""
    while True:
        try:
            gone = await asyncio.to_thread(book.let_go, clock() - KEPT_SECONDS)
            if gone:
                log.info("%d heads of halves were let go: they waited too long", gone)
        except Exception:
            log.exception("old halves cannot be let go")
        await asyncio.sleep(HOUR)


PATH = "/v1/updates"
AT_BOUND = 0.999  # of the bound: a client that clips ends there, up to the rounding of C floats
TOO_LONG = 1.0001  # of the bound: what is measured in C floats is right to less than that
JSON = (b"content-type", b"application/json")


class FastRoute:
    """An application in front of another one: one route is answered before the other's routes are looked through.

    Their tables, requests and responses took as long as all checks of an update together.
    """

    def __init__(self, app: ASGIApp, path: str, to: ASGIApp) -> None:
        self._app, self._path, self._to = app, path, to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        mine = scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        await (self._to if mine else self._app)(scope, receive, send)


class UpdateEndpoint:
    """What an update goes through: who sends it, what it says, whether it fits, and the store."""

    def __init__(
        self,
        door: RequestGuard,
        limits: Limits,
        shape: SchemaShape,
        bounds: Mapping[str, float],
        offer: Callable[[UpdateOffer], Awaitable[StoredReceipt | UpdateRejected]],
        metrics: Metrics,
        refused: Callable[[Request, Exception], Response],
        votes: bool,
    ) -> None:
        """`bounds`: the L2 norm that a delta of each task may have. Without `votes` no score is kept beside its update.

        `offer` gives what became of an update, and raises Problem; `refused` makes the answer of one.
        """
        self._door, self._limits, self._shape, self._bounds = door, limits, shape, bounds
        self._offer, self._metrics, self._refused, self._votes = offer, metrics, refused, votes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await self.take(request)
        except HttpProblem as problem:
            await self._refused(request, problem)(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(body)), JSON]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def take(self, request: Request) -> bytes:
        """The receipt as JSON, once the update is on disk. Raises Problem."""
        sender = await self._door.writer(request)
        body = await plain_body(request, self._limits)
        update = _read(body)
        request.scope.setdefault("state", {})["update"] = update.id[:8]
        at_bound = self._check(update, header(request, b"idempotency-key"))
        votes = update.scores if self._votes else {}
        project = sender.pseudonym(update.project)
        outcome = await self._offer(UpdateOffer(update.id, project, sender.owner, update.base, body, votes, update))
        if isinstance(outcome, UpdateRejected):
            text = f"The update is refused: {outcome.reason}. {outcome.remedy}"
            raise HttpProblem(*outcome.problem, text, reason=outcome.reason)
        if outcome.repeat:
            self._metrics.became("repeat")
        else:
            self._metrics.became("accepted")
            self._metrics.accepted(outcome.version - update.base, at_bound)
        said = "repeat of" if outcome.repeat else "update"
        note(request, "%s %s from version %d", said, update.id[:8], update.base, base=update.base)
        return b'{"receipt": "%b", "version": %d}' % (outcome.receipt.encode(), outcome.version)  # needs no escapes

    def _check(self, update: Update, key: str) -> Mapping[str, bool]:
        """Whether each delta is as long as its bound. Raises Problem for an update that does not fit."""
        check_fit(update, key, check_update, self._shape)
        with np.errstate(over="ignore"):  # what has no square among C floats is too long, too
            lengths = {name: _length(delta) / self._bounds[name] for name, delta in update.deltas.items()}
        for name, length in lengths.items():
            if length > TOO_LONG:
                text = (
                    f"The delta of {name} is longer than its bound {self._bounds[name]:g}. Clip it before it is sent."
                )
                raise HttpProblem(422, "too-long", text, reason=name)
        return {name: length > AT_BOUND for name, length in lengths.items()}


def _length(delta: Vector) -> float:
    numbers = np.frombuffer(delta, np.float32)
    return sqrt(np.vecdot(numbers, numbers))  # unlike `dot` it keeps the interpreter: a fold would take it meanwhile


def _read(body: bytes) -> Update:
    try:
        return unpack_update(body)
    except WireError as error:
        raise HttpProblem(400, "not-an-update", str(error), reason=str(error.args[0])) from error
