"""What is counted and timed, for Prometheus. No label names a project or an owner."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedstep.federation.messages import SchemaShape
from fedstep.server.aggregation.inputs import CurrentModels, ModelVersion
from fedstep.server.aggregation.policy import BufferStatus
from fedstep.server.mode import PLAIN, AggregationMode
from fedstep.server.storage.store import Step, Store
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer, UpdateRejected

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FOLDS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
ROUTES = (
    "/",
    "/openapi.json",
    "/v1/updates",
    "/v1/shares",
    "/v1/rounds",
    "/v1/forget",
    "/v1/model",
    "/v1/versions",
    "/v1/status",
    "/healthz",
    "/readyz",
    "/metrics",
)
DISCREET = frozenset({"/v1/updates", "/v1/forget"})


class Metrics:
    """The figures of one application."""

    def __init__(self, discreet: bool = False) -> None:
        """`discreet`: what depends on who takes part is counted by nobody."""
        self._registry = own = CollectorRegistry()
        told = None if discreet else own
        self._silent = DISCREET if discreet else frozenset()
        self._updates = Counter(
            "fedstep_updates",
            "Updates by what became of them: accepted, repeat, or the name of the problem.",
            ["outcome"],
            registry=told,
        )
        self._shares, self._halves, self._sharing = _of_shares(own)
        self._deltas = Counter("fedstep_deltas", "Deltas of one head in accepted updates.", ["head"], registry=told)
        self._clipped = Counter(
            "fedstep_deltas_at_bound",
            "Those as long as their bound: clipped, most likely.",
            ["head"],
            registry=told,
        )
        self._staleness = Histogram(
            "fedstep_staleness_folds",
            "Folds since the head that an update was learned from.",
            buckets=FOLDS,
            registry=told,
        )
        self._buffer = Gauge("fedstep_buffer_updates", "Updates that wait to be folded.", registry=told)
        self._projects = Gauge("fedstep_buffer_projects", "Distinct projects among them.", registry=told)
        self._version = Gauge("fedstep_version", "Newest version of head and of production.", ["track"], registry=own)
        self._trial = Gauge("fedstep_trial_version", "Version of the snapshot on trial.", ["head"], registry=own)
        self._folds = Counter(
            "fedstep_folds", "Folds that made a version, and those that failed.", ["outcome"], registry=own
        )
        self._requests = Histogram(
            "fedstep_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ["route", "status"],
            buckets=SECONDS,
            registry=own,
        )
        self._commits = Histogram(
            "fedstep_commit_seconds", "Seconds to write a batch of updates durably.", buckets=SECONDS, registry=told
        )
        self._fold_seconds = Histogram(
            "fedstep_fold_seconds", "Seconds to fold and write a version.", buckets=SECONDS, registry=own
        )

        # their children by label, looked up in a tenth of the time that `labels` takes; the labels are few
        self._became, self._request = cache(self._updates.labels), cache(self._requests.labels)
        self._delta, self._clip = cache(self._deltas.labels), cache(self._clipped.labels)
        self._tasks: dict[tuple[str, bool], int] = {}  # deltas since the last look: a lock and a float for each add up

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        told, self._tasks = self._tasks, {}
        for (task, clipped), count in told.items():
            self._delta(task).inc(count)
            if clipped:
                self._clip(task).inc(count)
        return generate_latest(self._registry)

    def became(self, outcome: str) -> None:
        """An update became this."""
        self._became(outcome).inc()

    def shared(self, outcome: str) -> None:
        """A half became this."""
        self._shares.labels(outcome).inc()

    def in_halves(self, pending: BufferStatus) -> None:
        """This waits in halves."""
        self._halves.set(pending.updates)
        self._sharing.set(pending.projects)

    def accepted(self, staleness: int, at_bound: Mapping[str, bool]) -> None:
        """What an accepted update was like; `at_bound` by task."""
        self._staleness.observe(max(0, staleness))
        for task in at_bound.items():
            self._tasks[task] = self._tasks.get(task, 0) + 1

    def waiting(self, pending: BufferStatus) -> None:
        """This waits in the buffer."""
        self._buffer.set(pending.updates)
        self._projects.set(pending.projects)

    def serving(self, current: CurrentModels) -> None:
        """This is served from now on."""
        self._version.labels("head").set(current.candidate.version)
        self._version.labels("production").set(current.candidate.production)
        self._trial.clear()
        for name, trial in current.trials.items():
            self._trial.labels(name).set(trial.version)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered; paths that are not offered count as one, for strangers choose them."""
        if path not in self._silent:
            self._request(path if path in ROUTES else "other", str(status)).observe(seconds)

    def committed(self, seconds: float) -> None:
        """A batch was written."""
        self._commits.observe(seconds)

    def folded(self, seconds: float, made: bool) -> None:
        """A fold made a version, or failed."""
        self._folds.labels("made" if made else "failed").inc()
        self._fold_seconds.observe(seconds)


def _of_shares(registry: CollectorRegistry) -> tuple[Counter, Gauge, Gauge]:
    """What became of halves, how many updates wait in halves, and of how many projects."""
    about = "Halves of updates by what became of them: accepted, repeat, or the name of the problem."
    return (
        Counter("fedstep_shares", about, ["outcome"], registry=registry),
        Gauge("fedstep_shares_waiting", "Updates that wait in halves for a round.", registry=registry),
        Gauge("fedstep_shares_projects", "Distinct projects among them.", registry=registry),
    )


class TimedApp:
    """An application around another one, which times its answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.answered(scope["path"], status, time.perf_counter() - began)


class ObservedStore(Store):
    """A store that tells the metrics what it does."""

    def __init__(self, url: str, shape: SchemaShape, metrics: Metrics, mode: AggregationMode = PLAIN) -> None:
        super().__init__(url, shape, mode)
        self._metrics = metrics

    def accept(
        self, offers: Sequence[UpdateOffer], task: int, staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        """As the store does."""
        began = time.perf_counter()
        outcomes = super().accept(offers, task, staleness, now)
        self._metrics.committed(time.perf_counter() - began)
        return outcomes

    def pending(self) -> BufferStatus:
        """As the store does."""
        found = super().pending()
        self._metrics.waiting(found)
        return found

    def fold(
        self, step: Step, now: float, ripe: Callable[[BufferStatus], bool] = lambda _: True
    ) -> ModelVersion | None:
        """As the store does. What was left to another replica is not counted."""
        began, failed = time.perf_counter(), True
        try:
            made = super().fold(step, now, ripe)
            failed = False
            return made
        finally:
            if failed or made:
                self._metrics.folded(time.perf_counter() - began, not failed)
