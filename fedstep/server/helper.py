"""The helper: it holds the seeds of the pads, and tells the leader nothing but sums of pads of many projects."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedstep.errors import WireError
from fedstep.features.schema import Schema, schema
from fedstep.federation.halves import unpack_seeded
from fedstep.federation.wire import shape
from fedstep.server.body import plain_body
from fedstep.server.door import Door
from fedstep.server.forgetting import Forgotten, named_project
from fedstep.server.helper_book import HelperBook, seed_offer
from fedstep.server.metrics import Metrics, Timed
from fedstep.server.operations import Operations
from fedstep.server.problems import Problem, as_json, on_crash, on_http_error, on_problem
from fedstep.server.rounds import Proposal, signature, unpack_proposal
from fedstep.server.settings import Settings
from fedstep.server.share_openapi import helper_document
from fedstep.server.taking import Batches, Taking, mismatch, tidy
from fedstep.server.tokens import TokenBook

__all__ = ["SIGNATURE", "Helper", "make_helper_app"]

SIGNATURE = "Fedstep-Signature"
log = logging.getLogger("fedstep.server")


def make_helper_app(
    settings: Settings, ours: Schema | None = None, clock: Callable[[], float] = time.time
) -> Starlette:
    """The application of the helper with its store open. Raises UsageError for settings that cannot work."""
    helper = Helper(settings, ours or schema(), clock)
    app = Starlette(
        routes=[
            Route("/v1/shares", helper.share, methods=["POST"]),
            Route("/v1/rounds", helper.round, methods=["POST"]),
            Route("/v1/forget", helper.forget, methods=["POST"]),
            Route("/healthz", helper.health, methods=["GET"]),
            Route("/readyz", helper.ready, methods=["GET"]),
            Route("/metrics", helper.figures, methods=["GET"]),
            Route("/openapi.json", helper.described, methods=["GET"]),
        ],
        middleware=[Middleware(Timed, metrics=helper.metrics)],
        exception_handlers={Problem: on_problem, HTTPException: on_http_error, Exception: on_crash},
        lifespan=helper.lifespan,
    )
    app.state.stopping = helper.stopping
    return app


class Helper:
    """The routes, and the book behind them."""

    def __init__(self, settings: Settings, ours: Schema, clock: Callable[[], float]) -> None:
        self._settings, self._shape, self._clock = settings, shape(ours), clock
        self.metrics, self._tokens = Metrics(), TokenBook(settings.store)
        self._door = Door(settings, self._tokens)
        self._book = HelperBook(settings.store, self._shape.digest)
        batches = Batches(self._book.keep, settings.limits.queue, clock)
        self._taking = Taking(self._door, settings.limits, self._shape, batches, self.metrics)
        self._operations = Operations(self._tokens, self.metrics, lambda: not self._tidying.done())
        self.stopping = self._operations.stop

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """What waits too long is let go while the application runs."""
        self._tidying = asyncio.create_task(tidy(self._book, self._clock))
        watching = asyncio.create_task(self._door.watch())
        try:
            yield
        finally:
            self.stopping()
            watching.cancel()
            self._tidying.cancel()
            self._book.close()
            self._tokens.close()

    async def share(self, request: Request) -> Response:
        """POST /v1/shares: 202 with a receipt once the seed is on disk."""
        return await self._taking.take(request, unpack_seeded, seed_offer, 0)

    async def round(self, request: Request) -> Response:
        """POST /v1/rounds: the sums of the pads of what the leader proposes, signed."""
        proposal, body = await self._proposed(request)
        fewest, sizes = self._settings.fewest, self._shape.sizes
        try:
            answer = await asyncio.to_thread(self._book.answer, proposal, fewest, sizes)
        except WireError as error:
            newest = await asyncio.to_thread(self._book.newest_round)
            raise Problem(409, "round", str(error), {"newest": str(newest)}) from error
        released = {part["head"]: len(part["ids"]) for part in json.loads(answer)["parts"]}
        log.info(
            "round %d: %d heads proposed, released %s", proposal.number, len(proposal.parts), released or "nothing"
        )
        headers = {SIGNATURE: signature(self._settings.peer_token, body, answer)}
        return Response(answer, 200, headers, "application/json")

    async def forget(self, request: Request) -> Response:
        """POST /v1/forget: 200 with how many seeds were deleted of the sender's project."""
        sender = await self._door.writer(request)
        gone = await asyncio.to_thread(self._book.forget, named_project(request, sender), sender.owner)
        log.info("a project was forgotten: %d halves", gone)
        return as_json(Forgotten(gone, 0).as_json())

    async def health(self, _request: Request) -> Response:
        """GET /healthz: whether to leave the process alone."""
        return self._operations.health(0)

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: whether to send it requests."""
        return await self._operations.ready(0)

    async def figures(self, request: Request) -> Response:
        """GET /metrics: Prometheus' text format."""
        await self._door.reader(request)
        self.metrics.in_halves(await asyncio.to_thread(self._book.counted))
        return self._operations.metrics()

    async def described(self, _request: Request) -> Response:
        """GET /openapi.json: the routes, for programs."""
        return as_json(helper_document(self._shape))

    async def _proposed(self, request: Request) -> tuple[Proposal, bytes]:
        """The leader's proposal, and its bytes. Raises Problem for one that is not the leader's, or not for here."""
        secret, headers = self._settings.peer_token, request.headers
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {secret}".encode()):
            raise Problem(
                401, "unknown-sender", "The sender is not the leader of this helper.", reason="not the leader"
            )
        body = await plain_body(request, self._settings.limits)
        if not hmac.compare_digest(headers.get(SIGNATURE, "").encode(), signature(secret, body).encode()):
            raise Problem(401, "unknown-sender", "The proposal is not signed by the leader.", reason="no signature")
        try:
            proposal = unpack_proposal(body)
        except WireError as error:
            raise Problem(400, "not-an-update", str(error)) from error
        if proposal.schema != self._shape.digest:
            raise mismatch(self._shape.digest, proposal.schema)
        if not self._shape.sizes.keys() >= {part.head for part in proposal.parts}:
            raise Problem(422, "does-not-fit", "The proposal names a head that is not known here.")
        return proposal, body
