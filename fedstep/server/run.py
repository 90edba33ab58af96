"""The three things that an aggregator can be: alone, or one of two that share secrets, leader or helper."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from starlette.applications import Starlette

from fedstep.errors import UsageError
from fedstep.federation.messages import NO_PROMISE
from fedstep.federation.transport import Transport
from fedstep.schema.schema import Schema, schema
from fedstep.server import app
from fedstep.server.identity import SHORTEST_TOKEN, is_loopback
from fedstep.server.secagg.helper import make_helper_app
from fedstep.server.secagg.leader import Leader
from fedstep.server.settings import Settings


def serve(settings: Settings, ready: Callable[[str], None] = print) -> None:
    """Runs the aggregator in its role until SIGTERM or Ctrl+C, as `app.serve` does."""
    app.serve(settings, ready, make_role_app)


def make_role_app(settings: Settings) -> Starlette:
    """The application of the role. Raises UsageError for settings that cannot work."""
    if settings.role == "alone":
        return app.make_app(settings)
    _check(settings)
    return make_helper_app(settings) if settings.role == "helper" else make_leader_app(settings)


def make_leader_app(
    settings: Settings,
    ours: Schema | None = None,
    clock: Callable[[], float] = time.time,
    ask: Transport | None = None,
) -> Starlette:
    """A plain aggregator's application that takes shares instead of updates. `ask` reaches the helper."""
    known = ours or schema()
    aggregator = app.AggregatorApp(settings, known, clock)
    leader = Leader(settings, known, clock, aggregator.metrics, ask)

    @asynccontextmanager
    async def lifespan(given: Starlette) -> AsyncIterator[None]:
        async with aggregator.lifespan(given), leader.lifespan():
            yield

    instead = {
        ("POST", "/v1/updates"): leader.plain,
        ("POST", "/v1/shares"): leader.share,
        ("POST", "/v1/forget"): leader.forget,
        ("GET", "/metrics"): leader.figures,
        ("GET", "/openapi.json"): leader.described,
    }
    return app.application(aggregator, {**aggregator.routes(), **instead}, lifespan)


def _check(settings: Settings) -> None:
    """Raises UsageError where leader and helper could not know each other, or others could listen."""
    if len(settings.peer_token) < SHORTEST_TOKEN:
        raise UsageError(
            f"--role {settings.role} needs FEDSTEP_PEER_TOKEN with {SHORTEST_TOKEN} characters or more",
            "Give leader and helper the same: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if settings.promise != NO_PROMISE:
        raise UsageError(
            f"of --role {settings.role} no noise is accounted for, and --privacy-epsilon promises that",
            "Choose one of the two.",
        )
    if settings.role == "helper":
        return
    try:
        parts = urlsplit(settings.peer)
        usable = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            "--role leader needs as --peer the https:// URL of its helper", "http:// is for a helper on this machine."
        )
