"""Metrics for Prometheus. No label names a project or an owner."""

import time
from collections.abc import Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.mode import BufferStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STALENESS_BUCKETS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
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
REVEALING_ROUTES = frozenset({"/v1/updates", "/v1/forget"})


class Metrics:
    """The metrics of one application.

    With `discreet`, what depends on which projects participate is not exported: differential privacy must not be
    weakened by counts of updates, or by the times they take.
    """

    def __init__(self, discreet: bool = False) -> None:
        self._registry = exported = CollectorRegistry()
        revealing = None if discreet else exported  # the registry of metrics that depend on who participates
        self._hidden_routes = REVEALING_ROUTES if discreet else frozenset()
        self._updates = Counter(
            "fedstep_updates",
            "Updates by outcome: accepted, repeat, or the name of the problem.",
            ["outcome"],
            registry=revealing,
        )
        self._shares = Counter(
            "fedstep_shares",
            "Shares of updates by outcome: accepted, repeat, or the name of the problem.",
            ["outcome"],
            registry=exported,
        )
        self._pending_shares = Gauge(
            "fedstep_pending_shares", "Updates whose shares wait for a round.", registry=exported
        )
        self._pending_projects = Gauge(
            "fedstep_pending_share_projects", "Distinct projects of the pending shares.", registry=exported
        )
        self._deltas = Counter("fedstep_deltas", "Deltas in accepted updates by task.", ["task"], registry=revealing)
        self._clipped = Counter(
            "fedstep_deltas_at_bound",
            "Deltas as long as their bound by task; most of them were clipped.",
            ["task"],
            registry=revealing,
        )
        self._staleness = Histogram(
            "fedstep_staleness_versions",
            "Versions that the candidate has moved since the base version of an update.",
            buckets=STALENESS_BUCKETS,
            registry=revealing,
        )
        self._buffer = Gauge("fedstep_buffer_updates", "Updates in the buffer.", registry=revealing)
        self._projects = Gauge(
            "fedstep_buffer_projects", "Distinct projects with updates in the buffer.", registry=revealing
        )
        self._version = Gauge(
            "fedstep_model_version", "Version of the candidate and of production.", ["track"], registry=exported
        )
        self._trial = Gauge("fedstep_trial_version", "Version on trial by task.", ["task"], registry=exported)
        self._aggregations = Counter(
            "fedstep_aggregations", "Aggregations by outcome: succeeded or failed.", ["outcome"], registry=exported
        )
        self._requests = Histogram(
            "fedstep_request_seconds",
            "Seconds from the header section of a request to the end of its response.",
            ["route", "status"],
            buckets=SECONDS_BUCKETS,
            registry=exported,
        )
        self._commits = Histogram(
            "fedstep_commit_seconds",
            "Seconds to write a batch of updates durably.",
            buckets=SECONDS_BUCKETS,
            registry=revealing,
        )
        self._aggregation_seconds = Histogram(
            "fedstep_aggregation_seconds",
            "Seconds to aggregate the buffer and write a version.",
            buckets=SECONDS_BUCKETS,
            registry=exported,
        )
        self._start = Gauge(
            "fedstep_start_cpu_seconds",
            "CPU seconds of this process until it accepted requests, and those of them that opened the store.",
            ["part"],
            registry=exported,
        )

        # A cached child is looked up in a tenth of the time that `labels` takes; there are few combinations of labels.
        self._updates_child, self._requests_child = cache(self._updates.labels), cache(self._requests.labels)
        self._deltas_child, self._clipped_child = cache(self._deltas.labels), cache(self._clipped.labels)
        # Deltas since the last export, by task and whether they are at the bound: `inc` takes a lock each time.
        self._uncounted: dict[tuple[str, bool], int] = {}

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        uncounted, self._uncounted = self._uncounted, {}
        for (task, at_bound), count in uncounted.items():
            self._deltas_child(task).inc(count)
            if at_bound:
                self._clipped_child(task).inc(count)
        return generate_latest(self._registry)

    def count_update(self, outcome: str) -> None:
        """Count an update by its outcome."""
        self._updates_child(outcome).inc()

    def count_share(self, outcome: str) -> None:
        """Count a share of an update by its outcome."""
        self._shares.labels(outcome).inc()

    def set_pending_shares(self, pending: BufferStatus) -> None:
        """Export how many updates wait in shares."""
        self._pending_shares.set(pending.updates)
        self._pending_projects.set(pending.projects)

    def observe_update(self, staleness: int, at_bound: Mapping[str, bool]) -> None:
        """Record the staleness of an accepted update, and by task whether its delta is as long as the bound."""
        self._staleness.observe(max(0, staleness))
        for key in at_bound.items():
            self._uncounted[key] = self._uncounted.get(key, 0) + 1

    def set_start(self, whole: float, store: float) -> None:
        """Export the CPU seconds that the start took, and those of them that opened the store."""
        self._start.labels("whole").set(whole)
        self._start.labels("store").set(store)

    def set_buffer(self, pending: BufferStatus) -> None:
        """Export what is in the buffer."""
        self._buffer.set(pending.updates)
        self._projects.set(pending.projects)

    def set_models(self, current: CurrentModels) -> None:
        """Export the versions that are served from now on."""
        self._version.labels("candidate").set(current.candidate.version)
        self._version.labels("production").set(current.candidate.production)
        self._trial.clear()
        for name, trial in current.trials.items():
            self._trial.labels(name).set(trial.version)

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Record the time of a request. Unknown paths share one label, because clients choose them."""
        if path not in self._hidden_routes:
            self._requests_child(path if path in ROUTES else "other", str(status)).observe(seconds)

    def observe_commit(self, seconds: float) -> None:
        """Record the time in which a batch of updates was written."""
        self._commits.observe(seconds)

    def observe_aggregation(self, seconds: float, succeeded: bool) -> None:
        """Count an aggregation and record its time."""
        self._aggregations.labels("succeeded" if succeeded else "failed").inc()
        self._aggregation_seconds.observe(seconds)


class TimedApp:
    """Middleware that records the time of each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record its time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            self._metrics.observe_request(scope["path"], status, time.perf_counter() - started)
