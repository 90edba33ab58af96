"""The leader: it holds masked updates, asks the helper for sums of their pads, and makes versions of the sums."""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from fedstep.errors import AggregatorError, WireError
from fedstep.features.schema import Schema
from fedstep.federation.halves import Masked, residue_bytes, unpack_masked
from fedstep.federation.shares import deviation_of, deviations
from fedstep.federation.transport import Answer as Heard
from fedstep.federation.transport import Send, requests_send
from fedstep.federation.wire import shape
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.choosing import Waiting, chosen
from fedstep.server.door import Door
from fedstep.server.forgetting import Forgotten, named_project
from fedstep.server.helper import SIGNATURE
from fedstep.server.leader_book import LeaderBook, Settled
from fedstep.server.metrics import CONTENT_TYPE, Metrics
from fedstep.server.problems import Problem, as_json
from fedstep.server.records import Current
from fedstep.server.rounds import LATEST_HEARD, Answer, Part, Proposal, signature, unpack_answer, unpack_proposal
from fedstep.server.settings import Settings
from fedstep.server.share_book import HalfOffer
from fedstep.server.share_openapi import leader_document
from fedstep.server.shared_sums import next_shared
from fedstep.server.taking import Batches, Taking, tidy
from fedstep.server.tokens import TokenBook

__all__ = ["Leader"]

PATIENCE = 10.0  # seconds for the helper's answer; a leader that stops waits for it
LONGEST_PAUSE = 60.0  # seconds after a round that released nothing, or that the helper did not hear
log = logging.getLogger("fedstep.server")


class Leader:
    """The routes that a leader has instead of a plain aggregator's, and the task that asks the helper."""

    def __init__(
        self,
        settings: Settings,
        ours: Schema,
        clock: Callable[[], float],
        metrics: Metrics,
        ask: Send | None = None,
    ) -> None:
        """Raises UsageError for settings that cannot work."""
        self._metrics = metrics
        self._settings, self._shape, self._clock = settings, shape(ours), clock
        self._ask = ask or requests_send(settings.peer, settings.peer_token)
        self._tokens = TokenBook(settings.store)
        self._door = Door(settings, self._tokens)
        self._book = LeaderBook(settings.store, self._shape.digest)
        batches = Batches(self._book.keep, settings.limits.queue, clock)
        self._taking = Taking(self._door, settings.limits, self._shape, batches, metrics)
        self._step = partial(next_shared, rules={**default_rules(ours), **settings.rules}, gate=settings.gate)
        self._deviations = deviations(deviation_of(settings.noise, settings.fewest), ours)
        self._newest, self._least = self._book.newest(), 0

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Rounds go on while the application runs. What one had begun is on disk and goes on with the next start."""
        works = (self._run(), self._door.watch(), tidy(self._book, self._clock))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._book.close()
            self._tokens.close()

    async def share(self, request: Request) -> Response:
        """POST /v1/shares: 202 with a receipt once the masked update is on disk."""
        return await self._taking.take(request, unpack_masked, self._offer, self._newest)

    async def plain(self, request: Request) -> Response:
        """POST /v1/updates: refused. Raises Problem."""
        await self._door.writer(request)
        text = "This aggregator takes shares alone. Give --helper the URL of its helper, so that updates are split."
        raise Problem(422, "shares-only", text)

    async def forget(self, request: Request) -> Response:
        """POST /v1/forget: 200 with how many masked updates were deleted of the sender's project."""
        sender = await self._door.writer(request)
        gone = await asyncio.to_thread(self._book.forget, named_project(request, sender), sender.owner)
        log.info("a project was forgotten: %d halves", gone)
        return as_json(Forgotten(gone, 0).as_json())

    async def figures(self, request: Request) -> Response:
        """GET /metrics: Prometheus' text format."""
        await self._door.reader(request)
        self._metrics.in_halves(await asyncio.to_thread(self._book.counted))
        return Response(self._metrics.text(), 200, {"Content-Type": CONTENT_TYPE})

    async def described(self, _request: Request) -> Response:
        """GET /openapi.json: the routes, for programs."""
        return as_json(leader_document(self._shape))

    def round(self) -> Settled | None:
        """One round, from its plan to its version; None where there is nothing to sum.

        Raises AggregatorError where the helper did not answer: the round stays open, and is asked for again.
        """
        body = self._book.planned(self._choose, self._settings.folding.staleness, self._least)
        if not body:
            return None
        proposal, secret = unpack_proposal(body), self._settings.peer_token
        headers = {"Content-Type": "application/json", SIGNATURE: signature(secret, body)}
        heard = self._ask("POST", "/v1/rounds", headers, body, PATIENCE)
        if heard.status == 409 and (newest := _newest_round(heard)) >= 0:
            self._least = newest
            self._book.give_up(proposal.number)
            return Settled()
        answer = self._answered(heard, body, proposal)
        fewest, noise = self._settings.fewest, self._deviations
        settled = self._book.settle(proposal, answer, self._step, fewest, self._clock(), noise)
        if settled.version:
            self._newest = settled.version.version
        return settled

    def _choose(self, waiting: tuple[Waiting, ...], current: Current) -> tuple[Part, ...]:
        folding, head = self._settings.folding, current.head.version
        trials = {name: trial.version for name, trial in current.trials.items()}
        return chosen(waiting, head, trials, self._clock(), folding, self._settings.fewest)

    def _answered(self, heard: Heard, body: bytes, proposal: Proposal) -> Answer:
        """Raises AggregatorError for an answer that is not the helper's, or none."""
        if heard.status != 200:
            raise AggregatorError(f"the helper answered {heard.status}", "Its log says why.")
        wanted = signature(self._settings.peer_token, body, heard.body)
        if not hmac.compare_digest(heard.headers.get(SIGNATURE.lower(), "").encode(), wanted.encode()):
            raise AggregatorError("the answer is not signed by the helper", "Do both have one FEDSTEP_PEER_TOKEN?")
        try:
            return unpack_answer(heard.body, proposal, self._shape.sizes)
        except WireError as error:
            raise AggregatorError(str(error.args[0]), error.remedy) from error

    def _offer(self, half: Masked, project: str, owner: str) -> HalfOffer:
        """Raises Problem for a half that was learned from a head that is too old, or not known."""
        if not 0 <= self._newest - half.base <= self._settings.folding.staleness:
            text = f"it was learned from version {half.base}, the newest here is {self._newest}"
            raise Problem(422, "stale", f"The update is refused: {text}. Run fedstep pull.", reason=text)
        bodies = {head: residue_bytes(vector) for head, vector in half.vectors.items()}
        return HalfOffer(half.id, project, owner, half.pair, half.trials, bodies, half.base)

    async def _run(self) -> None:
        tick = min(1.0, self._settings.folding.seconds)
        pause = min(LONGEST_PAUSE, self._settings.folding.seconds)
        while True:
            idle = tick
            try:
                settled = await asyncio.to_thread(self.round)
                self._newest = max(self._newest, await asyncio.to_thread(self._book.newest))
                idle = pause if settled and not settled.version else tick
                _log(settled)
            except AggregatorError as error:
                log.warning("a round waits for the helper: %s", error)
                idle = pause
            except Exception:
                log.exception("a round failed")
                idle = pause
            await asyncio.sleep(idle)


def _log(settled: Settled | None) -> None:
    if settled and settled.version:
        made = settled.version
        log.info("version %d: %d updates; production %d", made.version, settled.updates, made.production)
    elif settled and not settled.spoiled:
        log.info("a round released nothing: the helper has too few of the projects")
    for reason in settled.spoiled if settled else ():
        log.warning("a sum was thrown away: %s", reason)


def _newest_round(heard: Heard) -> int:
    """The helper's last round in its refusal; -1 where it names none. Raises AggregatorError for one that cannot be."""
    try:
        newest = int(str(json.loads(heard.body)["newest"])[:18])
    except (ValueError, TypeError, LookupError, RecursionError):
        return -1
    if newest > LATEST_HEARD:
        told = f"it names {newest} as its last round, and no helper has had more than {LATEST_HEARD}"
        raise AggregatorError(told, "It lies, or its store is damaged: start it with an empty one.")
    return max(-1, newest)
