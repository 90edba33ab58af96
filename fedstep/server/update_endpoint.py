"""Accept updates: authenticate the sender, check that the update fits, and answer once it is on disk."""

from collections.abc import Awaitable, Callable, Mapping
from math import sqrt
from typing import Protocol, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.messages import SchemaShape, Update, Vector, check_update, unpack_update
from fedstep.server.auth import RequestGuard
from fedstep.server.http_messages import HttpProblem, asks_only, header, note, on_problem, plain_body
from fedstep.server.metrics import Metrics
from fedstep.server.settings import Limits
from fedstep.server.storage.update_repository import UpdateOffer, UpdateRejected
from fedstep.server.writer import QueueFull, Writer

PATH = "/v1/updates"
AT_BOUND = 0.999  # of the bound: a client that clips ends there, up to the rounding of float32
TOO_LONG = 1.0001  # of the bound: what is measured in float32 is right to less than that
JSON = (b"content-type", b"application/json")


class Message(Protocol):
    """What `check_fit` checks: an update, or a share of one."""

    @property
    def id(self) -> str:
        """Return the id, which is the idempotency key too."""

    @property
    def schema(self) -> str:
        """Return the digest of the feature schema."""


M = TypeVar("M", bound=Message)
T = TypeVar("T")


class FastRoute:
    """ASGI middleware that answers POST requests of one path before the router and its middleware see them.

    It stays only as long as its benchmark shows the need (`python -m tests.benchmarks.cost`, docs/decisions/0025):
    Starlette's router, request and response objects take as long as all checks of an update together. With the
    ordinary route of the same endpoint everything works the same, only slower.
    """

    def __init__(self, app: ASGIApp, path: str, to: ASGIApp) -> None:
        self._app, self._path, self._to = app, path, to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        matches = scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        await (self._to if matches else self._app)(scope, receive, send)


async def on_disk(work: Awaitable[T]) -> T:
    """Return what the writer did. Raise HttpProblem, status 503, where it cannot now."""
    try:
        return await work
    except QueueFull as error:
        raise HttpProblem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2) from error
    except Exception as error:
        raise HttpProblem(
            503, "store", "The store does not take updates now. Send it again later.", retry_after=10
        ) from error


class UpdateEndpoint:
    """POST /v1/updates, as an ASGI application."""

    def __init__(
        self,
        guard: RequestGuard,
        limits: Limits,
        shape: SchemaShape,
        bounds: Mapping[str, float],
        writer: Writer,
        metrics: Metrics,
        *,
        keep_scores: bool,
    ) -> None:
        """Configure the endpoint.

        Args:
            guard: Identifies senders and limits their rates.
            limits: Of the body's size and time.
            shape: The tasks of the schema, with the lengths of their vectors.
            bounds: By task, the largest L2 norm of a delta.
            writer: Puts updates on disk.
            metrics: Counts outcomes, staleness and clipped deltas.
            keep_scores: Whether trial scores are kept beside the update, as evaluations.
        """
        self._guard, self._limits, self._shape, self._bounds = guard, limits, shape, bounds
        self._writer, self._metrics, self._keep_scores = writer, metrics, keep_scores

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await self.take(request)
        except HttpProblem as problem:
            await refuse(self._metrics, request, problem)(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(body)), JSON]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def take(self, request: Request) -> bytes:
        """Return the receipt as JSON, once the update is on disk. Raise HttpProblem."""
        sender = await self._guard.writer(request)
        body = await plain_body(request, self._limits)
        update = _parse(body)
        request.scope.setdefault("state", {})["update"] = update.id[:8]
        at_bound = self._check(update, header(request, b"idempotency-key"))
        scores = update.scores if self._keep_scores else {}
        project = sender.pseudonym(update.project)
        self._guard.check_projects(sender, project)
        stored_id = sender.receipt_id(update.id, project)
        offer = UpdateOffer(stored_id, project, sender.owner, update.base, body, scores, update)
        outcome = await on_disk(self._writer.offer(offer))
        if isinstance(outcome, UpdateRejected):
            text = f"The update is refused: {outcome.reason}. {outcome.remedy}"
            raise HttpProblem(*outcome.problem, text, reason=outcome.reason)
        if outcome.repeat:
            self._metrics.count_update("repeat")
        else:
            self._metrics.count_update("accepted")
            self._metrics.observe_update(outcome.version - update.base, at_bound)
        action = "repeat of" if outcome.repeat else "update"
        note(request, "%s %s from version %d", action, update.id[:8], update.base, base=update.base)
        return b'{"receipt": "%b", "version": %d}' % (outcome.receipt.encode(), outcome.version)  # needs no escapes

    def _check(self, update: Update, key: str) -> Mapping[str, bool]:
        """Return by task whether the delta is as long as its bound. Raise HttpProblem where the update does not fit."""
        check_fit(update, key, check_update, self._shape)
        with np.errstate(over="ignore"):  # a delta whose squares overflow is longer than its bound, too
            lengths = {task: _l2_norm(delta) / self._bounds[task] for task, delta in update.deltas.items()}
        for task, length in lengths.items():
            if length > TOO_LONG:
                text = (
                    f"The delta of {task} is longer than its bound {self._bounds[task]:g}. Clip it before it is sent."
                )
                raise HttpProblem(422, "too-long", text, reason=task)
        return {task: length > AT_BOUND for task, length in lengths.items()}


def refuse(metrics: Metrics, request: Request, problem: Exception) -> Response:
    """Return the document of a problem, logged; count that of an update by its name."""
    if request.url.path == PATH and isinstance(problem, HttpProblem) and not asks_only(request):
        metrics.count_update(problem.name)
    return on_problem(request, problem)


def check_fit(message: M, key: str, check: Callable[[M, SchemaShape], None], shape: SchemaShape) -> None:
    """Raise HttpProblem for a message whose idempotency key is not its id, or that does not fit the schema."""
    if key != message.id:
        raise HttpProblem(400, "key", "Idempotency-Key must be the id of the update.")
    try:
        check(message, shape)
    except SchemaMismatch as error:
        raise schema_mismatch(shape.digest, message.schema) from error
    except WireError as error:
        raise HttpProblem(422, "does-not-fit", str(error)) from error


def schema_mismatch(expected: str, received: str) -> HttpProblem:
    """Return the problem with a message in another schema."""
    text = f"The feature schema here is {expected}. Use the version of fedstep that has it."
    return HttpProblem(409, "schema-mismatch", text, {"expected": expected, "got": received[:64]})


def _l2_norm(delta: Vector) -> float:
    values = np.frombuffer(delta, np.float32)
    return sqrt(np.vecdot(values, values))  # `dot` would release the GIL, and an aggregation take it meanwhile


def _parse(body: bytes) -> Update:
    try:
        return unpack_update(body)
    except WireError as error:
        raise HttpProblem(400, "not-an-update", str(error), reason=str(error.args[0])) from error
