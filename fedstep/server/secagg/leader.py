"""The mode in which no aggregator sees the update of a single project, and its leader.

The leader stores masked updates, asks the helper for sums of their masks, and makes versions of the sums.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

from sqlalchemy import Connection, Subquery, delete, func, insert, select, update
from starlette.requests import Request
from starlette.responses import Response

from fedstep.errors import MALFORMED, AggregatorError, WireError
from fedstep.federation.messages import NOISE, little_endian_bytes, shape
from fedstep.federation.secagg.shares import (
    LEVELS,
    MAX_WEIGHT,
    MaskedShare,
    noise_deviation,
    scale_deviations,
    unpack_masked_share,
)
from fedstep.federation.transport import HttpResponse as Heard
from fedstep.federation.transport import Transport, requests_transport
from fedstep.server.aggregation.inputs import AggregationResult, CurrentModels, ModelState, ModelVersion
from fedstep.server.aggregation.step import TaskSum, advance_by_sums, log_decisions
from fedstep.server.auth import RequestGuard
from fedstep.server.dashboard import DashboardSnapshot, days, decide_all, volumes
from fedstep.server.gate import ActiveCounts, EvaluationSum, EvaluationSums, Evidence, Gate
from fedstep.server.http_messages import HttpProblem, as_json
from fedstep.server.identity import TokenBook
from fedstep.server.metrics import CONTENT_TYPE
from fedstep.server.mode import AggregationMode, ContributionTerms
from fedstep.server.openapi import leader_document
from fedstep.server.secagg.helper import SIGNATURE
from fedstep.server.secagg.rounds import (
    LATEST_HEARD,
    MaskSum,
    PendingShare,
    Proposal,
    RoundPart,
    RoundReply,
    check_helper_url,
    check_secret,
    choose_parts,
    pack_proposal,
    sign,
    sum_vectors,
    unmask_sum,
    unpack_proposal,
    unpack_reply,
    weight,
)
from fedstep.server.secagg.share_store import (
    ShareEndpoint,
    ShareOffer,
    ShareStore,
    count_pending,
    expire_shares,
    is_pending,
    load_releases,
    releases,
    rounds,
    shares,
)
from fedstep.server.settings import ModeContext, Routes
from fedstep.server.storage.engine import advisory_lock
from fedstep.server.storage.store import AGGREGATION_LOCK
from fedstep.server.storage.trial_repository import ACTIVE_SECONDS, TrialRepository
from fedstep.server.storage.update_repository import delete_project
from fedstep.server.storage.version_repository import VersionRepository

NONE: Mapping[str, int] = MappingProxyType({})
Choose = Callable[[tuple[PendingShare, ...], CurrentModels], tuple[RoundPart, ...]]
Step = Callable[[ModelState, Mapping[str, TaskSum], Mapping[str, Evidence]], AggregationResult]


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The result of a round: a version, where anything was released; and why some sums were discarded."""

    version: ModelVersion | None = None
    updates: int = 0
    spoiled: tuple[str, ...] = ()


class LeaderStore(ShareStore):
    """The masked updates, and the rounds in which they are summed."""

    def newest(self) -> int:
        """Return the number of the newest version."""
        with self._reader.begin() as connection:
            return VersionRepository(connection, self._schema).latest_version()

    def forget(self, project: str, owner: str) -> int:
        """Delete the shares of a project, and its whole updates of earlier times; return how many waited."""
        plain = delete_project(self._engine, project, owner)
        return plain.updates + super().forget(project, owner)

    def plan(self, choose: Choose, staleness: int, least: int = 0) -> bytes:
        """Return the open proposal, else a new one; b"" where there is nothing to propose.

        A new one is of updates with at most this staleness, and has a number above `least`: what the helper says that
        it has heard already. It takes the place of one of another schema: no helper answers that any more. One process
        at a time.
        """
        with self._reader.begin() as connection:
            waits = connection.scalar(select(rounds.c.proposal).where(~rounds.c.settled))
            if waits and unpack_proposal(waits).schema == self._schema:
                return bytes(waits)
            current = VersionRepository(connection, self._schema).current()
            parts = choose(self._waiting(connection, current.candidate.version - staleness), current)
        if not parts:
            return b""
        with self._engine.begin() as connection:
            round_number = max(least, connection.scalar(select(func.max(rounds.c.number))) or 0) + 1
            body = pack_proposal(Proposal(round_number, self._schema, parts))
            connection.execute(delete(rounds))  # the newest number is all that is needed of them
            connection.execute(insert(rounds), {"number": round_number, "proposal": body, "settled": False})
        return body

    def give_up(self, round_number: int) -> None:
        """End a round that the helper will never answer; its updates wait for another round."""
        with self._engine.begin() as connection:
            connection.execute(update(rounds).where(rounds.c.number == round_number).values(settled=True))

    def settle(
        self,
        proposal: Proposal,
        answer: RoundReply,
        step: Step,
        fewest: int,
        now: float,
        deviations: Mapping[str, int] = NONE,
    ) -> RoundResult:
        """Sum what the helper released and write the version that `step` makes of it, all in one transaction.

        `deviations` are by task those of each update's noise, in steps of the grid.
        """
        with self._engine.begin() as connection:
            advisory_lock(connection, AGGREGATION_LOCK)
            mine = rounds.c.number == proposal.round_number
            if not connection.execute(update(rounds).where(mine, ~rounds.c.settled).values(settled=True)).rowcount:
                return RoundResult()
            chronicle = VersionRepository(connection, self._schema)
            current = chronicle.current()
            trials = {part.task: part.trial for part in proposal.parts}
            sums, scores, spoiled = {}, {}, []
            for pads in answer.parts:
                task, noise = pads.task, deviations.get(pads.task, 0)
                try:
                    sums[task], scores[task] = self._sum(connection, pads, trials[task], current, fewest, noise)
                except WireError as error:
                    spoiled.append(f"{task}: {error}")
                self._mark(connection, pads, proposal.round_number)
            self._miss(connection, proposal, answer)
            if not sums:
                return RoundResult(spoiled=tuple(spoiled))
            self._note(connection, proposal.round_number, scores, trials)
            ledger = TrialRepository(connection, self._schema)
            state = ModelState(
                current,
                chronicle.next_version(),
                ledger.spent_margins(),
                ledger.last_restarts(),
                now,
                earlier=chronicle.earlier(),
            )
            made = step(state, sums, released_scores(connection, self._schema, current))
            update_count = len({update_id for pads in answer.parts for update_id in pads.ids})
            chronicle.add(made.version, parent=current.candidate.version, update_count=update_count)
            self._end(connection, made)
        log_decisions(made.decisions)
        return RoundResult(made.version, update_count, tuple(spoiled))

    def _sum(
        self, connection: Connection, pads: MaskSum, trial: int, current: CurrentModels, fewest: int, deviation: int
    ) -> tuple[TaskSum, EvaluationSum]:
        """Return the sums of deltas and scores. Raise WireError for too few projects, or an impossible sum."""
        which = is_pending(self._schema) & shares.c.id.in_(pads.ids) & (shares.c.task == pads.task)
        rows = connection.execute(
            select(shares.c.owner, shares.c.project, shares.c.base, shares.c.body).where(which)
        ).all()
        if len(rows) < len(pads.ids) or len({row.project for row in rows}) < max(fewest, len(rows)):
            raise WireError("the helper released the updates of too few projects", "Nothing of it is used.")
        size = len(current.candidate.vectors[pads.task])
        steps = unmask_sum(
            sum_vectors((row.body for row in rows), len(pads.total)), pads.total, len(rows), size, deviation
        )
        scored = trial >= 0 and pads.task in current.trials and current.trials[pads.task].version == trial
        release = EvaluationSum(len(rows), float(steps[size]) / LEVELS) if scored else EvaluationSum(0, 0.0)
        weights = (weight(row.base, current.candidate.version) for row in rows)
        senders = [(row.owner, row.project) for row in rows]
        return TaskSum(steps[:size], min(weights) / MAX_WEIGHT / LEVELS, senders), release

    def _mark(self, connection: Connection, pads: MaskSum, round_number: int) -> None:
        which = shares.c.id.in_(pads.ids) & (shares.c.task == pads.task)
        connection.execute(update(shares).where(which).values(round=round_number, body=None))

    def _miss(self, connection: Connection, proposal: Proposal, answer: RoundReply) -> None:
        released = {pads.task: set(pads.ids) for pads in answer.parts}
        for part in proposal.parts:
            left = part.pairs.keys() - released.get(part.task, set())
            which = shares.c.id.in_(left) & (shares.c.task == part.task)
            connection.execute(update(shares).where(which).values(missed=shares.c.missed + 1))

    def _note(
        self, connection: Connection, round_number: int, scores: Mapping[str, EvaluationSum], trials: Mapping[str, int]
    ) -> None:
        for task, release in scores.items():
            if release.count:
                row = {"round": round_number, "task": task, "schema": self._schema, "trial": trials[task]}
                figures = {"evaluations": release.count, "total": release.total}
                connection.execute(insert(releases), row | figures)

    def _end(self, connection: Connection, made: AggregationResult) -> None:
        ledger = TrialRepository(connection, self._schema)
        ledger.replace_open(made.trials)
        ledger.close(made.decisions, made.version)
        for decision in made.decisions:
            which = (releases.c.task == decision.trial.task) & (releases.c.trial == decision.trial.version)
            connection.execute(delete(releases).where(which))


def released_scores(connection: Connection, schema: str, current: CurrentModels) -> Mapping[str, EvaluationSums]:
    """Return the sums of scores that rounds released of each open trial, by task."""
    trials = current.trials.items()
    return {name: EvaluationSums(load_releases(connection, schema, name, trial.version)) for name, trial in trials}


PATIENCE = 10.0  # seconds for the helper's answer; a leader that stops waits for it
LONGEST_PAUSE = 60.0  # seconds after a round that released nothing, or that the helper did not hear
log = logging.getLogger("fedstep.server")


@dataclass(frozen=True, slots=True)
class SumPolicy:
    """How the leader reaches its helper, how many projects a sum needs, and the noise in it in units of the bound."""

    transport: Transport
    secret: str
    min_projects: int
    noise: float


class Leader:
    """The routes that a leader has instead of a plain aggregator's, and the task that asks the helper."""

    def __init__(self, context: ModeContext, policy: SumPolicy) -> None:
        """Raise UsageError for settings that cannot work."""
        settings, schema = context.settings, context.schema
        self._policy, self._buffer = policy, settings.buffer
        self._metrics, self._clock = context.metrics, context.clock
        self._shape = shape(schema)
        self._tokens = TokenBook(settings.store)
        self._guard = RequestGuard(settings, self._tokens)
        self._store = LeaderStore(settings.store, self._shape.digest)
        self.shares = ShareEndpoint(
            self._guard, settings.limits, self._shape, self._store, context.metrics, context.clock
        )
        self._step: Step = lambda state, sums, scores: advance_by_sums(
            state, sums, scores, context.rules, settings.gate
        )
        self._deviations = scale_deviations(noise_deviation(policy.noise, policy.min_projects), schema)
        self._newest, self._least = self._store.newest(), 0

    def routes(self) -> Routes:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/v1/updates"): self.plain,
            ("POST", "/v1/shares"): self.share,
            ("POST", "/v1/forget"): self.shares.forget,
            ("GET", "/metrics"): self.figures,
            ("GET", "/openapi.json"): self.describe,
        }

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Run rounds while the application does. A round that was begun is on disk and continues after a restart."""
        works = (self._run(), self._guard.watch(), expire_shares(self._store, self._clock))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self._store.close()
            self._tokens.close()

    async def share(self, request: Request) -> Response:
        """POST /v1/shares: 202 with a receipt once the masked update is on disk."""
        return await self.shares.take(request, unpack_masked_share, self._offer, self._newest)

    async def plain(self, request: Request) -> Response:
        """POST /v1/updates: refused. Raise HttpProblem."""
        await self._guard.writer(request)
        text = "This aggregator takes shares alone. Give --helper the URL of its helper, so that updates are split."
        raise HttpProblem(422, "shares-only", text)

    async def figures(self, request: Request) -> Response:
        """GET /metrics: the metrics in Prometheus' text format."""
        await self._guard.reader(request)
        self._metrics.set_pending_shares(await asyncio.to_thread(self._store.count_waiting))
        return Response(self._metrics.text(), 200, {"Content-Type": CONTENT_TYPE})

    async def describe(self, _request: Request) -> Response:
        """GET /openapi.json: the description of the routes."""
        return as_json(leader_document(self._shape))

    def round(self) -> RoundResult | None:
        """Run one round, from its proposal to its version; return None where there is nothing to sum.

        Raise AggregatorError where the helper did not answer: the round stays open, and is asked for again.
        """
        body = self._store.plan(self._choose, self._buffer.staleness, self._least)
        if not body:
            return None
        proposal, secret = unpack_proposal(body), self._policy.secret
        headers = {"Content-Type": "application/json", SIGNATURE: sign(secret, body)}
        heard = self._policy.transport("POST", "/v1/rounds", headers, body, PATIENCE)
        if heard.status == 409 and (newest := _newest_round(heard)) >= 0:
            self._least = newest
            self._store.give_up(proposal.round_number)
            return RoundResult()
        answer = self._read_reply(heard, body, proposal)
        fewest, noise = self._policy.min_projects, self._deviations
        settled = self._store.settle(proposal, answer, self._step, fewest, self._clock(), noise)
        if settled.version:
            self._newest = settled.version.version
        return settled

    def _choose(self, waiting: tuple[PendingShare, ...], current: CurrentModels) -> tuple[RoundPart, ...]:
        policy, candidate = self._buffer, current.candidate.version
        trials = {name: trial.version for name, trial in current.trials.items()}
        return choose_parts(waiting, candidate, trials, self._clock(), policy, self._policy.min_projects)

    def _read_reply(self, heard: Heard, body: bytes, proposal: Proposal) -> RoundReply:
        """Parse the helper's reply. Raise AggregatorError for one that it did not sign, or that does not fit."""
        if heard.status != 200:
            raise AggregatorError(f"the helper answered {heard.status}", "Its log says why.")
        wanted = sign(self._policy.secret, body, heard.body)
        if not hmac.compare_digest(heard.headers.get(SIGNATURE.lower(), "").encode(), wanted.encode()):
            raise AggregatorError("the answer is not signed by the helper", "Do both have one FEDSTEP_PEER_TOKEN?")
        try:
            return unpack_reply(heard.body, proposal, self._shape.sizes)
        except WireError as error:
            raise AggregatorError(str(error.args[0]), error.remedy) from error

    def _offer(self, half: MaskedShare, project: str, owner: str) -> ShareOffer:
        """Return what is stored of a share. Raise HttpProblem where its candidate is too old or not known."""
        if not 0 <= self._newest - half.base <= self._buffer.staleness:
            text = f"it was learned from version {half.base}, the newest here is {self._newest}"
            raise HttpProblem(422, "stale", f"The update is refused: {text}. Run fedstep pull.", reason=text)
        bodies = {task: little_endian_bytes(vector) for task, vector in half.vectors.items()}
        return ShareOffer(half.id, project, owner, half.pair, half.trials, bodies, half.base)

    async def _run(self) -> None:
        tick = min(1.0, self._buffer.seconds)
        pause = min(LONGEST_PAUSE, self._buffer.seconds)
        while True:
            idle = tick
            try:
                settled = await asyncio.to_thread(self.round)
                self._newest = max(self._newest, await asyncio.to_thread(self._store.newest))
                idle = pause if settled and not settled.version else tick
                _log(settled)
            except AggregatorError as error:
                log.warning("a round waits for the helper: %s", error)
                idle = pause
            except Exception:
                log.exception("a round failed")
                idle = pause
            await asyncio.sleep(idle)


def _log(settled: RoundResult | None) -> None:
    if settled and settled.version:
        made = settled.version
        log.info("version %d: %d updates; production %d", made.version, settled.updates, made.production)
    elif settled and not settled.spoiled:
        log.info("a round released nothing: the helper has too few of the projects")
    for reason in settled.spoiled if settled else ():
        log.warning("a sum was thrown away: %s", reason)


def _newest_round(heard: Heard) -> int:
    """Return the helper's last round in its refusal; -1 without one. Raise AggregatorError for an impossible one."""
    try:
        newest = int(str(json.loads(heard.body)["newest"])[:18])
    except MALFORMED:
        return -1
    if newest > LATEST_HEARD:
        text = f"the helper named {newest} as its last round, which is impossible: the limit is {LATEST_HEARD}"
        raise AggregatorError(text, "Its database may be corrupt; restart it with an empty one.")
    return max(-1, newest)


class SecureAggregation(AggregationMode):
    """Shares instead of whole updates: this aggregator and its helper learn nothing but sums over many projects."""

    def __init__(
        self,
        helper: str,
        secret: str,
        min_projects: int = 5,
        noise: float = NOISE,
        transport: Transport | None = None,
    ) -> None:
        """Sum shares of at least `min_projects` projects with the help of the aggregator at the URL `helper`.

        `noise` is the standard deviation of noise in such a sum, in units of each task's bound; `transport` reaches the
        helper. Raise UsageError for a secret or URL that cannot be used.
        """
        check_secret("leader", secret)
        check_helper_url(helper)
        self.policy = SumPolicy(transport or requests_transport(helper, secret), secret, min_projects, noise)
        self.terms = ContributionTerms(shares=min_projects, noise=noise)

    def create_service(self, context: ModeContext) -> Leader:
        """Return the routes that take shares, and the rounds."""
        return Leader(context, self.policy)

    def adjust_dashboard(
        self, snapshot: DashboardSnapshot, connection: Connection, schema: str, gate: Gate | None, now: float
    ) -> DashboardSnapshot:
        """Show the shares that wait and who sent them; a verdict counts sums of scores, for single ones are unknown."""
        scores = released_scores(connection, schema, snapshot.current)
        released = {task: evidence for task, evidence in scores.items() if evidence.sums}
        return replace(
            snapshot,
            pending=count_pending(connection, schema),
            active=_active(connection, schema, now),
            standing=decide_all(gate, released, snapshot.spent),
            days=days(connection, _select_sent(), schema, now),
            volumes=volumes(connection, _select_sent(), schema, now),
        )


def _active(connection: Connection, schema: str, now: float) -> ActiveCounts:
    counts = select(func.count(func.distinct(shares.c.project)), func.count(func.distinct(shares.c.owner)))
    recent = (shares.c.schema == schema) & (shares.c.received > now - ACTIVE_SECONDS) & (shares.c.project != "")
    projects, owners = connection.execute(counts.where(recent)).one()
    return ActiveCounts(projects, owners)


def _select_sent() -> Subquery:
    """Return one row per update, as the table of whole updates has; without those of projects that were erased."""
    columns = shares.c.id, shares.c.schema, shares.c.project, shares.c.received
    return select(*columns).where(shares.c.project != "").distinct().subquery()
