"""POST /v1/updates, the one route that most requests take: from the bytes of an update to its receipt."""

from collections.abc import Awaitable, Callable, Mapping
from math import sqrt

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fedstep.errors import WireError
from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Shape, Update, check_update, unpack_update
from fedstep.server.body import header, plain_body
from fedstep.server.door import Door
from fedstep.server.metrics import Metrics
from fedstep.server.problems import Problem, note
from fedstep.server.settings import Limits
from fedstep.server.store import Accepted, Offer, Refused
from fedstep.server.taking import check_fit

__all__ = ["PATH", "Accepting", "Straight"]

PATH = "/v1/updates"
AT_BOUND = 0.999  # of the bound: a client that clips ends there, up to the rounding of C floats
TOO_LONG = 1.0001  # of the bound: what is measured in C floats is right to less than that
JSON = (b"content-type", b"application/json")


class Straight:
    """An application in front of another one: one route is answered before the other's routes are looked through.

    Their tables, requests and responses took as long as all checks of an update together.
    """

    def __init__(self, app: ASGIApp, path: str, to: ASGIApp) -> None:
        self._app, self._path, self._to = app, path, to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        mine = scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        await (self._to if mine else self._app)(scope, receive, send)


class Accepting:
    """What an update goes through: who sends it, what it says, whether it fits, and the store."""

    def __init__(
        self,
        door: Door,
        limits: Limits,
        shape: Shape,
        bounds: Mapping[str, float],
        offer: Callable[[Offer], Awaitable[Accepted | Refused]],
        metrics: Metrics,
        refused: Callable[[Request, Exception], Response],
        votes: bool,
    ) -> None:
        """`bounds`: the L2 norm that a delta of each head may have. Without `votes` no score is kept beside its update.

        `offer` gives what became of an update, and raises Problem; `refused` makes the answer of one.
        """
        self._door, self._limits, self._shape, self._bounds = door, limits, shape, bounds
        self._offer, self._metrics, self._refused, self._votes = offer, metrics, refused, votes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await self.take(request)
        except Problem as problem:
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
        outcome = await self._offer(Offer(update.id, project, sender.owner, update.base, body, votes, update))
        if isinstance(outcome, Refused):
            text = f"The update is refused: {outcome.reason}. {outcome.remedy}"
            raise Problem(*outcome.problem, text, reason=outcome.reason)
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
                raise Problem(422, "too-long", text, reason=name)
        return {name: length > AT_BOUND for name, length in lengths.items()}


def _length(delta: Vector) -> float:
    numbers = np.frombuffer(delta, np.float32)
    return sqrt(np.vecdot(numbers, numbers))  # unlike `dot` it keeps the interpreter: a fold would take it meanwhile


def _read(body: bytes) -> Update:
    try:
        return unpack_update(body)
    except WireError as error:
        raise Problem(400, "not-an-update", str(error), reason=str(error.args[0])) from error
