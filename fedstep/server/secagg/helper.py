"""The helper: it stores the seeds of the masks, and reveals to the leader only sums of masks over many projects."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fedstep.errors import WireError
from fedstep.federation.messages import shape
from fedstep.federation.secagg.shares import SeedShare, derive_task_seeds, hash_seed, unpack_seed_share
from fedstep.schema.schema import Schema
from fedstep.schema.schema import schema as load_schema
from fedstep.server.auth import RequestGuard
from fedstep.server.health import HealthEndpoints
from fedstep.server.http_messages import HttpProblem, as_json, on_crash, on_http_error, on_problem, plain_body
from fedstep.server.identity import TokenBook
from fedstep.server.metrics import Metrics, TimedApp
from fedstep.server.openapi import helper_document
from fedstep.server.secagg.rounds import (
    MaskSum,
    Proposal,
    RoundPart,
    RoundReply,
    check_secret,
    first_per_project,
    pack_proposal,
    pack_reply,
    sign,
    sum_masks,
    task_of,
    unpack_proposal,
)
from fedstep.server.secagg.share_store import (
    ShareEndpoint,
    ShareOffer,
    ShareStore,
    expire_shares,
    is_pending,
    rounds,
    shares,
)
from fedstep.server.settings import Settings
from fedstep.server.storage.engine import truncate_wal
from fedstep.server.update_endpoint import schema_mismatch


def offer_of_seed(share: SeedShare, project: str, owner: str) -> ShareOffer:
    """Return the stored form of a share, without its seed, which would also unmask tasks not yet released."""
    return ShareOffer(share.id, project, owner, hash_seed(share.seed), share.trials, derive_task_seeds(share))


class HelperStore(ShareStore):
    """The seeds of single tasks, and the rounds in which they were released."""

    def answer(self, proposal: Proposal, fewest: int, sizes: Mapping[str, int]) -> bytes:
        """Return the bytes of the reply, on disk when this returns; a repeated proposal gets the same ones.

        A part releases the updates that are here, of one project each, with the pair and the trial that the leader
        names; nothing where they are fewer than `fewest`. A release is final, and its seeds are no longer in any file.
        Raise WireError for a number that another proposal has used, or one below it.
        """
        body = pack_proposal(proposal)
        with self._engine.begin() as connection:
            known = connection.execute(select(rounds).where(rounds.c.number == proposal.round_number)).one_or_none()
            if known and known.proposal == body and known.answer:
                return bytes(known.answer)
            newest = connection.scalar(select(func.max(rounds.c.number))) or 0
            if proposal.round_number <= newest:
                raise WireError(f"round {proposal.round_number} is over", f"The next one is {newest + 1}.")
            parts = (self._release(connection, proposal.round_number, part, fewest, sizes) for part in proposal.parts)
            answer = pack_reply(RoundReply(proposal.round_number, tuple(pads for pads in parts if pads)))
            row = {"number": proposal.round_number, "proposal": body, "answer": answer, "settled": True}
            connection.execute(delete(rounds))  # the newest says what is over
            connection.execute(insert(rounds), row)
        truncate_wal(self._engine)
        return answer

    def newest_round(self) -> int:
        """Return the number of the last round; 0 before the first."""
        with self._reader.begin() as connection:
            return connection.scalar(select(func.max(rounds.c.number))) or 0

    def _release(
        self, connection: Connection, round_number: int, part: RoundPart, fewest: int, sizes: Mapping[str, int]
    ) -> MaskSum | None:
        seeds = self._seeds(connection, part)
        if len(seeds) < fewest:
            return None
        total = sum_masks(seeds.values(), sizes[part.task] + (part.trial >= 0))
        which = shares.c.id.in_(list(seeds)) & (shares.c.task == part.task)
        connection.execute(update(shares).where(which).values(round=round_number, body=None))
        return MaskSum(part.task, tuple(seeds), total)

    def _seeds(self, connection: Connection, part: RoundPart) -> Mapping[str, bytes]:
        """Return the seeds of the proposed updates that may be released, by id; per project the one proposed first."""
        which = shares.c.id.in_(list(part.pairs)) & (shares.c.task == part.task)
        rows: dict[str, Row[Any]] = {
            row.id: row
            for row in connection.execute(select(shares).where(is_pending(self._schema), which))
            if row.pair == part.pairs[row.id] and part.trial in (-1, row.trial)
        }
        projects = {key: row.project for key, row in rows.items()}
        return {
            key: bytes(rows[key].body) for key in first_per_project(filter(rows.__contains__, part.pairs), projects)
        }


SIGNATURE = "Fedstep-Signature"
log = logging.getLogger("fedstep.server")


def create_helper_app(
    settings: Settings,
    secret: str,
    min_projects: int = 5,
    schema: Schema | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Return the ASGI application of the helper with its store open.

    `secret` authenticates it and the leader to each other; it releases no sum of fewer projects than `min_projects`.
    Raise UsageError for settings that cannot work.
    """
    check_secret("helper", secret)
    helper = Helper(settings, secret, min_projects, schema or load_schema(), clock)
    app = Starlette(
        routes=[
            Route("/v1/shares", helper.share, methods=["POST"]),
            Route("/v1/rounds", helper.round, methods=["POST"]),
            Route("/v1/forget", helper.shares.forget, methods=["POST"]),
            Route("/healthz", helper.health, methods=["GET"]),
            Route("/readyz", helper.ready, methods=["GET"]),
            Route("/metrics", helper.figures, methods=["GET"]),
            Route("/openapi.json", helper.describe, methods=["GET"]),
        ],
        middleware=[Middleware(TimedApp, metrics=helper.metrics)],
        exception_handlers={HttpProblem: on_problem, HTTPException: on_http_error, Exception: on_crash},
        lifespan=helper.lifespan,
    )
    app.router.redirect_slashes = False  # it would lead to whatever host a request names
    app.state.stopping = helper.stopping
    return app


class Helper:
    """The endpoints of the helper."""

    def __init__(
        self, settings: Settings, secret: str, min_projects: int, schema: Schema, clock: Callable[[], float]
    ) -> None:
        self._limits, self._shape, self._clock = settings.limits, shape(schema), clock
        self._secret, self._min_projects = secret, min_projects
        self.metrics, self._tokens = Metrics(), TokenBook(settings.store)
        self._guard = RequestGuard(settings, self._tokens)
        self._store = HelperStore(settings.store, self._shape.digest)
        self.shares = ShareEndpoint(self._guard, settings.limits, self._shape, self._store, self.metrics, clock)
        self._health = HealthEndpoints(self._tokens, self.metrics, lambda: not self._expiring.done(), settings.store)
        self.stopping = self._health.stop

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Delete expired shares while the application runs."""
        self._expiring = asyncio.create_task(expire_shares(self._store, self._clock))
        watching = asyncio.create_task(self._guard.watch())
        try:
            yield
        finally:
            self.stopping()
            watching.cancel()
            self._expiring.cancel()
            self._store.close()
            self._tokens.close()

    async def share(self, request: Request) -> Response:
        """POST /v1/shares: 202 with a receipt once the seed is on disk."""
        return await self.shares.take(request, unpack_seed_share, offer_of_seed, 0)

    async def round(self, request: Request) -> Response:
        """POST /v1/rounds: the sums of the masks of the proposed updates, signed."""
        proposal, body = await self._read_proposal(request)
        fewest, sizes = self._min_projects, self._shape.sizes
        try:
            answer = await asyncio.to_thread(self._store.answer, proposal, fewest, sizes)
        except WireError as error:
            newest = await asyncio.to_thread(self._store.newest_round)
            raise HttpProblem(409, "round", str(error), {"newest": str(newest)}) from error
        released = {task_of(part): len(part["ids"]) for part in json.loads(answer)["parts"]}
        log.info(
            "round %d: %d tasks proposed, released %s",
            proposal.round_number,
            len(proposal.parts),
            released or "nothing",
        )
        headers = {SIGNATURE: sign(self._secret, body, answer)}
        return Response(answer, 200, headers, "application/json")

    async def health(self, _request: Request) -> Response:
        """GET /healthz: 200 unless the process should be restarted."""
        return self._health.health(0)

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: 200 where requests should be sent here."""
        return await self._health.ready(0)

    async def figures(self, request: Request) -> Response:
        """GET /metrics: the metrics in Prometheus' text format."""
        await self._guard.reader(request)
        self.metrics.set_pending_shares(await asyncio.to_thread(self._store.count_waiting))
        return self._health.metrics()

    async def describe(self, _request: Request) -> Response:
        """GET /openapi.json: the description of the routes."""
        return as_json(helper_document(self._shape))

    async def _read_proposal(self, request: Request) -> tuple[Proposal, bytes]:
        """Return the leader's proposal and its bytes. Raise HttpProblem for any other, or one that does not fit."""
        secret, headers = self._secret, request.headers
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {secret}".encode()):
            raise HttpProblem(
                401, "unknown-sender", "The sender is not the leader of this helper.", reason="not the leader"
            )
        body = await plain_body(request, self._limits)
        if not hmac.compare_digest(headers.get(SIGNATURE, "").encode(), sign(secret, body).encode()):
            raise HttpProblem(401, "unknown-sender", "The proposal is not signed by the leader.", reason="no signature")
        try:
            proposal = unpack_proposal(body)
        except WireError as error:
            raise HttpProblem(400, "not-an-update", str(error)) from error
        if proposal.schema != self._shape.digest:
            raise schema_mismatch(self._shape.digest, proposal.schema)
        if not self._shape.sizes.keys() >= {part.task for part in proposal.parts}:
            raise HttpProblem(422, "does-not-fit", "The proposal names a task that is not known here.")
        return proposal, body
