"""The aggregator as an ASGI application, and as a process that serves it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedstep.federation.messages import shape as schema_shape
from fedstep.schema.schema import Schema
from fedstep.schema.schema import schema as load_schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.aggregation.step import coordinate_names, initial_vectors
from fedstep.server.auth import RequestGuard, read_project
from fedstep.server.dashboard import DashboardPage, DashboardReader
from fedstep.server.health import HealthEndpoints
from fedstep.server.http_messages import HttpProblem, as_json, on_crash, on_http_error
from fedstep.server.identity import TokenBook
from fedstep.server.listener import check_tls, listener, run, start_logging
from fedstep.server.metrics import Metrics, TimedApp
from fedstep.server.models import ModelEndpoint
from fedstep.server.openapi import document
from fedstep.server.settings import ModeContext, Routes, ServiceMode, Settings
from fedstep.server.storage.engine import explain_errors, warn_of_others
from fedstep.server.storage.store import Store
from fedstep.server.update_endpoint import PATH, FastRoute, UpdateEndpoint, on_disk, refuse
from fedstep.server.writer import Writer

MOST_LISTED = 200  # versions and verdicts
LISTED_SECONDS = 1.0  # that a listing of versions is served
log = logging.getLogger("fedstep.server")
AppFactory: TypeAlias = Callable[[Settings], Starlette]


def create_app(settings: Settings, schema: Schema | None = None, clock: Callable[[], float] = time.time) -> Starlette:
    """Return the ASGI application of an aggregator with its store open. Raise UsageError for settings that cannot work.

    `schema` is the one of this version of fedstep unless it is given; `clock` returns seconds since 1970.
    """
    schema = schema or load_schema()
    shape, mode, rules = schema_shape(schema), settings.mode, {**default_rules(schema), **settings.rules}
    metrics, tokens = Metrics(discreet=mode.discreet), TokenBook(settings.store)
    guard = RequestGuard(settings, tokens)

    opening = time.process_time()
    store = Store(settings.store, shape, mode, metrics)
    store.start(initial_vectors(settings.starter, shape), clock(), coordinate_names(schema))
    current = store.current()
    opened_in = time.process_time() - opening
    aggregate = partial(mode.aggregate, rules=rules, gate=settings.gate)
    writer = Writer(store, mode.buffer_policy(settings.buffer), aggregate, settings.limits.queue, clock)

    models = ModelEndpoint(settings.store, shape.digest, mode.terms)
    reader = DashboardReader(settings.store, shape, settings.gate, mode)
    page = DashboardPage(reader, metrics.text, schema, settings.gate, clock)
    aggregator = AggregatorEndpoints(
        guard, tokens, metrics, writer, models, page, current, as_json(document(shape)), settings.store
    )

    bounds = {name: task.clip for name, task in rules.items()}
    update = UpdateEndpoint(guard, settings.limits, shape, bounds, writer, metrics, keep_scores=not mode.discreet)
    routes: dict[tuple[str, str], Callable[..., Any]] = {**aggregator.routes(), ("POST", PATH): update}
    context = ModeContext(settings, schema, rules, metrics, clock)
    service = mode.create_service(context) if isinstance(mode, ServiceMode) else None
    routes |= service.routes() if service else {}

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(aggregator.lifespan())
            if service:
                await stack.enter_async_context(service.lifespan())
            metrics.set_start(time.process_time(), opened_in)
            log.info("started in %.2f s of CPU, %.2f s of it to open the store", time.process_time(), opened_in)
            yield

    fast = [Middleware(FastRoute, path=PATH, to=update)] if routes["POST", PATH] is update else []
    app = Starlette(
        routes=[Route(path, endpoint, methods=[method]) for (method, path), endpoint in routes.items()],
        middleware=[Middleware(TimedApp, metrics=metrics), *fast],
        exception_handlers={
            HttpProblem: partial(refuse, metrics),
            HTTPException: on_http_error,
            Exception: on_crash,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would lead to whatever host a request names
    app.state.stopping = aggregator.health_endpoints.stop
    return app


def serve(
    settings: Settings,
    ready: Callable[[str], None] = print,
    create: AppFactory = create_app,
) -> None:
    """Run the application that `create` makes until SIGTERM or Ctrl+C.

    `ready` gets its URL as soon as connections are accepted (port 0: any). Raise UsageError for settings that cannot
    work, before anything listens.
    """
    start_logging(settings.log_format, settings.log_level)
    scheme = "https" if settings.tls and check_tls(settings.tls) else "http"
    with explain_errors(settings.store):
        app = create(settings)
        warn_of_others(settings.store)
    socket = listener(settings.host, settings.port)
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    ready(f"{scheme}://{host}:{socket.getsockname()[1]}")
    run(app, socket, settings, app.state.stopping)


@dataclass
class AggregatorEndpoints:
    """The parts of an aggregator, and the endpoints that need more than one of them."""

    guard: RequestGuard
    tokens: TokenBook
    metrics: Metrics
    writer: Writer
    models: ModelEndpoint
    dashboard: DashboardPage
    current: CurrentModels
    document: Response
    store: str
    listing: tuple[float, Response] | None = None  # of the versions, and when it was made

    def __post_init__(self) -> None:
        self.health_endpoints = HealthEndpoints(self.tokens, self.metrics, lambda: not self._writing.done(), self.store)
        self._publish(self.current)

    def routes(self) -> Routes:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/v1/forget"): self.forget,
            ("GET", "/v1/model"): self.model,
            ("GET", "/v1/versions"): self.versions,
            ("GET", "/healthz"): self.health,
            ("GET", "/readyz"): self.ready,
            ("GET", "/metrics"): self.figures,
            ("GET", "/"): self.page,
            ("GET", "/v1/status"): self.status,
            ("GET", "/openapi.json"): self.openapi,
        }

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run the writer; when this ends, whatever was acknowledged or offered is on disk and everything is closed."""
        self._writing = asyncio.create_task(self.writer.run(self.current, self._publish))
        watching = asyncio.create_task(self.guard.watch())
        try:
            yield
        finally:
            self.health_endpoints.stop()
            watching.cancel()
            await self.writer.stop()
            with suppress(asyncio.CancelledError):
                await self._writing
            for part in (self.writer, self.tokens, self.dashboard, self.models):
                part.close()

    async def model(self, request: Request) -> Response:
        """GET /v1/model: candidate, production and trials of the schema asked for, by default of the current one."""
        await self.guard.reader(request)
        return await self.models.respond(request)

    async def forget(self, request: Request) -> Response:
        """POST /v1/forget: 200 with how much was deleted of the sender's project, whether it was known or not."""
        sender = await self.guard.writer(request)
        project = read_project(request, sender)
        erased = await on_disk(self.writer.forget(project, sender.owner))
        if erased.updates:
            self.guard.note_forgotten(sender, project)
        log.info("a project was forgotten: %d updates, %d evaluations", erased.updates, erased.evaluations)
        return as_json(erased.as_json())

    async def versions(self, request: Request) -> Response:
        """GET /v1/versions: the newest versions, the open trials, and every figure of the newest verdicts."""
        await self.guard.reader(request)
        made, now = self.listing, time.monotonic()
        if made is None or now - made[0] >= LISTED_SECONDS:
            # one listing for everyone: it reads the store in the thread that updates wait for
            self.listing = made = (now, as_json((await self.writer.lineage(MOST_LISTED)).as_json()))
        return made[1]

    async def health(self, _request: Request) -> Response:
        """GET /healthz: 200 unless the process should be restarted."""
        return self.health_endpoints.health(self.models.version)

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: 200 where requests should be sent here."""
        return await self.health_endpoints.ready(self.models.version)

    async def figures(self, request: Request) -> Response:
        """GET /metrics: the metrics in Prometheus' text format."""
        await self.guard.reader(request)
        return self.health_endpoints.metrics()

    async def page(self, request: Request) -> Response:
        """GET /: the dashboard."""
        await self.guard.reader(request)
        return await self.dashboard.html()

    async def status(self, request: Request) -> Response:
        """GET /v1/status: what is served, on trial and waiting."""
        await self.guard.reader(request)
        return as_json(await self.dashboard.status())

    async def openapi(self, _request: Request) -> Response:
        """GET /openapi.json: the description of the routes."""
        return self.document

    def _publish(self, current: CurrentModels) -> None:
        self.models.publish(current)
        self.listing = None
        self.metrics.set_models(current)
