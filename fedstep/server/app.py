"""The aggregator as a web application: its routes, and `serve`, which runs it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedstep.federation.messages import shape
from fedstep.schema.schema import Schema, schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.aggregation.schema_migration import names_of
from fedstep.server.aggregation.step import starting_vectors
from fedstep.server.auth import RequestGuard, read_project
from fedstep.server.dashboard.page import DashboardPage
from fedstep.server.dashboard.snapshot import DashboardReader, ShareDashboardReader
from fedstep.server.dp.private_step import promised
from fedstep.server.health import HealthEndpoints
from fedstep.server.http_messages import HttpProblem, as_json, on_crash, on_http_error, on_problem
from fedstep.server.listener import checked, listener, run, start_logging
from fedstep.server.metrics import Metrics, ObservedStore, TimedApp
from fedstep.server.models import LegacyModels, ServedModel, served
from fedstep.server.openapi import document
from fedstep.server.settings import Settings
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer, UpdateRejected
from fedstep.server.tokens import TokenBook
from fedstep.server.update_endpoint import PATH, FastRoute, UpdateEndpoint, schema_mismatch
from fedstep.server.writer import QueueFull, Writer

MOST_LISTED = 200  # versions and verdicts
log = logging.getLogger("fedstep.server")
T = TypeVar("T")
Routes: TypeAlias = Mapping[tuple[str, str], Callable[..., object]]  # what answers, by method and path
Lifespan: TypeAlias = Callable[[Starlette], AbstractAsyncContextManager[None]]


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
    aggregator = AggregatorApp(settings, ours or schema(), clock)
    straight = Middleware(FastRoute, path=PATH, to=aggregator.update)
    return application(aggregator, aggregator.routes(), aggregator.lifespan, straight)


def application(aggregator: "AggregatorApp", routes: Routes, lifespan: Lifespan, *straight: Middleware) -> Starlette:
    """The application of an aggregator that answers these routes and works as long as `lifespan` lasts."""
    app = Starlette(
        routes=[Route(path, answer, methods=[method]) for (method, path), answer in routes.items()],
        middleware=[Middleware(TimedApp, metrics=aggregator.metrics), *straight],
        exception_handlers={HttpProblem: aggregator.refuse, HTTPException: on_http_error, Exception: on_crash},
        lifespan=lifespan,
    )
    app.state.stopping = aggregator.stopping
    return app


class AggregatorApp:
    """The routes, and the writer behind them."""

    def __init__(self, settings: Settings, ours: Schema, clock: Callable[[], float]) -> None:
        self._limits, self._shape, self._terms = settings.limits, shape(ours), settings.terms
        self._rules = {**default_rules(ours), **settings.rules}
        self._kept = kept = promised(settings, self._rules)
        self.metrics, self._book = Metrics(discreet=bool(kept.budget)), TokenBook(settings.store)
        self._door = RequestGuard(settings, self._book)
        self._operations = HealthEndpoints(self._book, self.metrics, lambda: not self._writing.done())
        self.stopping = self._operations.stop
        store = ObservedStore(settings.store, self._shape, self.metrics, kept.purse)
        store.start(starting_vectors(settings.starter, self._shape), clock(), names_of(ours))
        self._earlier = LegacyModels(settings.store, *self._terms)
        self._writer = Writer(store, kept.folding, kept.step, settings.limits.queue, clock)
        self._current = store.current()
        self._publish(self._current)
        bounds = {name: rules.clip for name, rules in self._rules.items()}
        # with noise votes are told when they are folded, not one by one
        self.update = UpdateEndpoint(
            self._door, settings.limits, self._shape, bounds, self._offered, self.metrics, self.refuse, not kept.budget
        )
        overview = (ShareDashboardReader if settings.shares else DashboardReader)(
            settings.store, self._shape, settings.gate, kept.budget
        )
        self._page = DashboardPage(overview, self.metrics.text, ours, settings.gate, clock)
        self._document = as_json(document(self._shape))

    def routes(self) -> Routes:
        """What answers where, by method and path."""
        return {
            ("POST", PATH): self.update,
            ("POST", "/v1/forget"): self.forget,
            ("GET", "/v1/model"): self.model,
            ("GET", "/v1/versions"): self.versions,
            ("GET", "/healthz"): self.health,
            ("GET", "/readyz"): self.ready,
            ("GET", "/metrics"): self.figures,
            ("GET", "/"): self.page,
            ("GET", "/v1/status"): self.status,
            ("GET", "/openapi.json"): self.described,
        }

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
        """GET /v1/model: candidate, production and trials of the schema asked for, of ours where none is."""
        await self._door.reader(request)
        asked = request.query_params.get("schema", self._shape.digest)
        ours = asked == self._shape.digest
        found = self._served if ours else await asyncio.to_thread(self._earlier.served, asked)
        if found is None:
            raise schema_mismatch(self._shape.digest, asked)
        return found.respond(request.headers.get("if-none-match", ""), request.headers.get("accept-encoding", ""))

    async def forget(self, request: Request) -> Response:
        """POST /v1/forget: 200 with how much was deleted of the sender's project, whether it was known or not."""
        sender = await self._door.writer(request)
        project = read_project(request, sender)
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
        if request.url.path == PATH and isinstance(problem, HttpProblem):
            self.metrics.became(problem.name)
        return on_problem(request, problem)

    def _publish(self, current: CurrentModels) -> None:
        self._served: ServedModel = served(self._shape.digest, current, *self._terms)
        self.metrics.serving(current)

    async def _offered(self, offer: UpdateOffer) -> StoredReceipt | UpdateRejected:
        return await self._done(self._writer.offer(offer))

    async def _done(self, work: Awaitable[T]) -> T:
        """What the writer did. Raises Problem where it cannot now."""
        try:
            return await work
        except QueueFull as error:
            raise HttpProblem(503, "busy", "Too many updates at once. Send it again later.", retry_after=2) from error
        except Exception as error:
            raise HttpProblem(
                503, "store", "The store does not take updates now. Send it again later.", retry_after=10
            ) from error
