"""The aggregator as a web application: three routes, and `serve`, which runs it."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedstep.errors import SchemaMismatch, WireError
from fedstep.features.schema import Schema, schema
from fedstep.federation.wire import Update, check_update, shape, unpack_update
from fedstep.server.aggregate import norm, rules_for
from fedstep.server.body import plain_body
from fedstep.server.identity import Denied, Sender, doorkeeper
from fedstep.server.lineage import next_head, starting_vectors, wide
from fedstep.server.listen import listener, run
from fedstep.server.problems import Problem, on_crash, on_http_error, on_problem
from fedstep.server.served import Served, served
from fedstep.server.settings import Settings
from fedstep.server.store import Accepted, Offer, Refused, Store, Version
from fedstep.server.writer import QueueFull, Writer

__all__ = ["make_app", "serve"]

log = logging.getLogger("fedstep.server")


def serve(settings: Settings, ready: Callable[[str], None] = print) -> None:
    """Runs the aggregator until SIGTERM or Ctrl+C. `ready` gets its URL as soon as connections are taken (port 0: any).

    Raises UsageError for settings that cannot work, before anything listens.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = make_app(settings)
    door = listener(settings.host, settings.port)
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    ready(f"http://{host}:{door.getsockname()[1]}")
    run(app, door, settings.limits)


def make_app(settings: Settings, ours: Schema | None = None, clock: Callable[[], float] = time.time) -> Starlette:
    """The application with its store open. Raises UsageError for settings that cannot work."""
    aggregator = Aggregator(settings, ours or schema(), clock)
    return Starlette(
        routes=[
            Route("/v1/model", aggregator.model, methods=["GET"]),
            Route("/v1/updates", aggregator.update, methods=["POST"]),
            Route("/healthz", aggregator.health, methods=["GET"]),
        ],
        exception_handlers={Problem: on_problem, HTTPException: on_http_error, Exception: on_crash},
        lifespan=aggregator.lifespan,
    )


class Aggregator:
    """The routes, and the writer behind them."""

    def __init__(self, settings: Settings, ours: Schema, clock: Callable[[], float]) -> None:
        self._limits, self._shape = settings.limits, shape(ours)
        self._rules = {**rules_for(ours), **settings.rules}
        self._doorkeeper = doorkeeper(settings.host, settings.tokens)
        store = Store(settings.store, self._shape)
        self._head = store.start(starting_vectors(settings.starter, self._shape), clock())
        self._writer = Writer(
            store, settings.folding, partial(next_head, rules=self._rules), settings.limits.queue, clock
        )
        self._publish(self._head)

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """The writer runs while the application does; what was acknowledged or offered is on disk when it ends."""
        self._writing = asyncio.create_task(self._writer.run(self._head, self._publish))
        try:
            yield
        finally:
            await self._writer.stop()
            with suppress(asyncio.CancelledError):
                await self._writing
            self._writer.close()

    async def model(self, request: Request) -> Response:
        """GET /v1/model: head and production of the schema asked for, ours where none is."""
        asked = request.query_params.get("schema", self._shape.digest)
        if asked != self._shape.digest:
            raise self._mismatch(asked)
        return self._served.respond(
            request.headers.get("if-none-match", ""), request.headers.get("accept-encoding", "")
        )

    async def update(self, request: Request) -> Response:
        """POST /v1/updates: 202 with a receipt once the update is on disk."""
        sender = self._sender(request)
        update, body = await self._received(request)
        self._check(update, request.headers.get("idempotency-key", ""))
        outcome = await self._stored(Offer(update.id, update.project, sender.owner, update.base, body))
        if isinstance(outcome, Refused):
            raise self._refused(
                update, Problem(422, "stale", f"The update is refused: {outcome.reason}. {outcome.remedy}")
            )
        log.info("%s %s from version %d", "repeat of" if outcome.repeat else "update", update.id[:8], update.base)
        return _json({"receipt": outcome.receipt, "version": outcome.version}, 202)

    async def health(self, _request: Request) -> Response:
        """GET /healthz: 200 while the process answers and can write."""
        if self._writing.done():
            raise Problem(503, "writer", "The aggregator no longer writes. Restart it; its log says why.")
        return _json({"status": "ok", "version": self._served.version}, 200)

    def _publish(self, head: Version) -> None:
        self._served: Served = served(
            self._shape.digest, head, head.vectors
        )  # production is head until there is a gate

    def _sender(self, request: Request) -> Sender:
        known = self._doorkeeper.identify(request.headers.get("authorization", ""))
        if isinstance(known, Denied):
            log.warning("refused a sender: %s", known.reason)
            raise Problem(401, "unknown-sender", f"The sender is refused: {known.reason}. {known.remedy}")
        return known

    async def _received(self, request: Request) -> tuple[Update, bytes]:
        try:
            body = await plain_body(request, self._limits)
            return unpack_update(body), body
        except WireError as error:
            log.warning("refused bytes: %s", error.args[0])
            raise Problem(400, "not-an-update", str(error)) from error

    def _check(self, update: Update, key: str) -> None:
        if key != update.id:
            raise self._refused(update, Problem(400, "key", "Idempotency-Key must be the id of the update."))
        try:
            check_update(update, self._shape)
        except SchemaMismatch as error:
            raise self._refused(update, self._mismatch(update.schema)) from error
        except WireError as error:
            raise self._refused(update, Problem(422, "does-not-fit", str(error))) from error
        for name, delta in update.deltas.items():
            bound = self._rules[name].clip
            if norm(wide(delta)) > bound * 1.0001:
                text = f"The delta of {name} is longer than its bound {bound:g}. Clip it before it is sent."
                raise self._refused(update, Problem(422, "too-long", text))

    async def _stored(self, offer: Offer) -> Accepted | Refused:
        try:
            return await self._writer.offer(offer)
        except QueueFull as error:
            raise Problem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2) from error
        except Exception as error:
            log.warning("update %s could not be stored", offer.id[:8])
            raise Problem(
                503, "store", "The store does not take updates now. Send it again later.", retry_after=10
            ) from error

    def _mismatch(self, got: str) -> Problem:
        text = f"The feature schema here is {self._shape.digest}. Use the version of fedstep that has it."
        return Problem(409, "schema-mismatch", text, {"expected": self._shape.digest, "got": got[:64]})

    def _refused(self, update: Update, problem: Problem) -> Problem:
        log.warning("refused update %s: %d %s", update.id[:8], problem.status, problem.name)
        return problem


def _json(members: dict[str, object], status: int) -> Response:
    return Response(json.dumps(members), status, media_type="application/json")
