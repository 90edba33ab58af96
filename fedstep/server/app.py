"""The aggregator as a web application: its routes, and `serve`, which runs it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedstep.errors import SchemaMismatch, WireError
from fedstep.features.schema import Schema, schema
from fedstep.federation.wire import Update, check_update, shape, unpack_update
from fedstep.server.aggregate import norm, rules_for
from fedstep.server.body import plain_body
from fedstep.server.door import Door
from fedstep.server.earlier import Earlier
from fedstep.server.forgetting import named_project
from fedstep.server.inherit import names_of
from fedstep.server.lineage import starting_vectors, wide
from fedstep.server.listen import checked, listener, run
from fedstep.server.logs import start_logging
from fedstep.server.metrics import Metrics, Timed
from fedstep.server.observed import ObservedStore
from fedstep.server.openapi import document
from fedstep.server.operations import Operations
from fedstep.server.overview import Overview
from fedstep.server.page import Page
from fedstep.server.problems import Problem, as_json, note, on_crash, on_http_error, on_problem
from fedstep.server.promised import promised
from fedstep.server.records import Current
from fedstep.server.served import Served, served
from fedstep.server.settings import Settings
from fedstep.server.store import Offer, Refused
from fedstep.server.tokens import TokenBook
from fedstep.server.writer import QueueFull, Writer

__all__ = ["make_app", "serve"]

MOST_LISTED = 200  # versions and verdicts
AT_BOUND = 0.999  # of the bound: a client that clips ends there, up to the rounding of C floats
log = logging.getLogger("fedstep.server")
T = TypeVar("T")


def serve(
    settings: Settings, ready: Callable[[str], None] = print, make: Callable[[Settings], Starlette] | None = None
) -> None:
    """Runs the aggregator until SIGTERM or Ctrl+C. `ready` gets its URL as soon as connections are taken (port 0: any).

    Raises UsageError for settings that cannot work, before anything listens.
    """
    start_logging(settings.log_format, settings.log_level)
    scheme = "https" if settings.tls and checked(settings.tls) else "http"
    app = (make or make_app)(settings)
    door = listener(settings.host, settings.port)
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    ready(f"{scheme}://{host}:{door.getsockname()[1]}")
    run(app, door, settings, app.state.stopping)


def make_app(settings: Settings, ours: Schema | None = None, clock: Callable[[], float] = time.time) -> Starlette:
    """The application with its store open. Raises UsageError for settings that cannot work."""
    aggregator = Aggregator(settings, ours or schema(), clock)
    routes = {
        "/v1/model": aggregator.model,
        "/v1/versions": aggregator.versions,
        "/healthz": aggregator.health,
        "/readyz": aggregator.ready,
        "/metrics": aggregator.figures,
        "/": aggregator.page,
        "/v1/status": aggregator.status,
        "/openapi.json": aggregator.described,
    }
    app = Starlette(
        routes=[
            Route("/v1/updates", aggregator.update, methods=["POST"]),
            Route("/v1/forget", aggregator.forget, methods=["POST"]),
            *(Route(path, answer, methods=["GET"]) for path, answer in routes.items()),
        ],
        middleware=[Middleware(Timed, metrics=aggregator.metrics)],
        exception_handlers={Problem: aggregator.refuse, HTTPException: on_http_error, Exception: on_crash},
        lifespan=aggregator.lifespan,
    )
    app.state.stopping = aggregator.stopping
    return app


class Aggregator:
    """The routes, and the writer behind them."""

    def __init__(self, settings: Settings, ours: Schema, clock: Callable[[], float]) -> None:
        self._limits, self._shape, self._promise = settings.limits, shape(ours), settings.promise
        self._rules = {**rules_for(ours), **settings.rules}
        self._kept = kept = promised(settings, self._rules)
        self.metrics, self._book = Metrics(discreet=bool(kept.budget)), TokenBook(settings.store)
        self._door = Door(settings, self._book)
        self._operations = Operations(self._book, self.metrics, lambda: not self._writing.done())
        self.stopping = self._operations.stop
        store = ObservedStore(settings.store, self._shape, self.metrics, kept.purse)
        store.start(starting_vectors(settings.starter, self._shape), clock(), names_of(ours))
        self._earlier = Earlier(settings.store, settings.promise)
        self._writer = Writer(store, kept.folding, kept.step, settings.limits.queue, clock)
        self._current = store.current()
        self._publish(self._current)
        overview = Overview(settings.store, self._shape, settings.gate, kept.budget)
        self._page = Page(overview, self.metrics.text, ours, settings.gate, clock)
        self._document = as_json(document(self._shape))

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """The writer runs while the application does; what was acknowledged or offered is on disk when it ends."""
        self._writing = asyncio.create_task(self._writer.run(self._current, self._publish))
        watching = asyncio.create_task(self._door.watch())
        try:
            yield
        finally:
            self.stopping()
            watching.cancel()
            await self._writer.stop()
            with suppress(asyncio.CancelledError):
                await self._writing
            self._writer.close()
            self._book.close()
            self._page.close()
            self._earlier.close()

    async def model(self, request: Request) -> Response:
        """GET /v1/model: head, production and trials of the schema asked for, of ours where none is."""
        await self._door.reader(request)
        asked = request.query_params.get("schema", self._shape.digest)
        ours = asked == self._shape.digest
        found = self._served if ours else await asyncio.to_thread(self._earlier.served, asked)
        if found is None:
            raise self._mismatch(asked)
        return found.respond(request.headers.get("if-none-match", ""), request.headers.get("accept-encoding", ""))

    async def update(self, request: Request) -> Response:
        """POST /v1/updates: 202 with a receipt once the update is on disk."""
        sender = await self._door.writer(request)
        update, body = await self._received(request)
        request.state.update = update.id[:8]
        at_bound = self._check(update, request.headers.get("idempotency-key", ""))
        project = sender.pseudonym(update.project)
        votes = {} if self._kept.budget else update.scores  # those are told with noise alone, when they are folded
        offer = Offer(update.id, project, sender.owner, update.base, body, votes)
        outcome = await self._done(self._writer.offer(offer))
        if isinstance(outcome, Refused):
            text = f"The update is refused: {outcome.reason}. {outcome.remedy}"
            raise Problem(*outcome.problem, text, reason=outcome.reason)
        if outcome.repeat:
            self.metrics.became("repeat")
        else:
            self.metrics.became("accepted")
            self.metrics.accepted(outcome.version - update.base, at_bound)
        said = "repeat of" if outcome.repeat else "update"
        note(request, "%s %s from version %d", said, update.id[:8], update.base, base=update.base)
        return as_json({"receipt": outcome.receipt, "version": outcome.version}, 202)

    async def forget(self, request: Request) -> Response:
        """POST /v1/forget: 200 with how much was deleted of the sender's project, whether it was known or not."""
        sender = await self._door.writer(request)
        project = named_project(request, sender)
        gone = await self._done(self._writer.forget(project, sender.owner))
        log.info("a project was forgotten: %d updates, %d votes", gone.updates, gone.votes)
        return as_json(gone.as_json())

    async def versions(self, request: Request) -> Response:
        """GET /v1/versions: the newest versions, the open trials, and every figure of the newest verdicts."""
        await self._door.reader(request)
        return as_json((await self._writer.lineage(MOST_LISTED)).as_json())

    async def health(self, _request: Request) -> Response:
        """GET /healthz: whether to leave the process alone."""
        return self._operations.health(self._served.version)

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: whether to send it requests."""
        return await self._operations.ready(self._served.version)

    async def figures(self, request: Request) -> Response:
        """GET /metrics: Prometheus' text format."""
        await self._door.reader(request)
        return self._operations.metrics()

    async def page(self, request: Request) -> Response:
        """GET /: the page for people."""
        await self._door.reader(request)
        return await self._page.html()

    async def status(self, request: Request) -> Response:
        """GET /v1/status: what is served, on trial and waiting."""
        await self._door.reader(request)
        return as_json(await self._page.status())

    async def described(self, _request: Request) -> Response:
        """GET /openapi.json: the routes, for programs."""
        return self._document

    def refuse(self, request: Request, problem: Exception) -> Response:
        """The document of a Problem, logged; that of an update is counted by its name."""
        if request.url.path == "/v1/updates" and isinstance(problem, Problem):
            self.metrics.became(problem.name)
        return on_problem(request, problem)

    def _publish(self, current: Current) -> None:
        self._served: Served = served(self._shape.digest, current, self._promise)
        self.metrics.serving(current)

    async def _received(self, request: Request) -> tuple[Update, bytes]:
        try:
            body = await plain_body(request, self._limits)
            return unpack_update(body), body
        except WireError as error:
            raise Problem(400, "not-an-update", str(error), reason=str(error.args[0])) from error

    def _check(self, update: Update, key: str) -> dict[str, bool]:
        """Whether each delta is as long as its bound. Raises Problem for an update that does not fit."""
        if key != update.id:
            raise Problem(400, "key", "Idempotency-Key must be the id of the update.")
        try:
            check_update(update, self._shape)
        except SchemaMismatch as error:
            raise self._mismatch(update.schema) from error
        except WireError as error:
            raise Problem(422, "does-not-fit", str(error)) from error
        lengths = {name: norm(wide(delta)) / self._rules[name].clip for name, delta in update.deltas.items()}
        for name, length in lengths.items():
            if length > 1.0001:
                bound = self._rules[name].clip
                text = f"The delta of {name} is longer than its bound {bound:g}. Clip it before it is sent."
                raise Problem(422, "too-long", text, reason=name)
        return {name: length > AT_BOUND for name, length in lengths.items()}

    async def _done(self, work: Awaitable[T]) -> T:
        """What the writer did. Raises Problem where it cannot now."""
        try:
            return await work
        except QueueFull as error:
            raise Problem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2) from error
        except Exception as error:
            raise Problem(
                503, "store", "The store does not take updates now. Send it again later.", retry_after=10
            ) from error

    def _mismatch(self, got: str) -> Problem:
        text = f"The feature schema here is {self._shape.digest}. Use the version of fedstep that has it."
        return Problem(409, "schema-mismatch", text, {"expected": self._shape.digest, "got": got[:64]})
