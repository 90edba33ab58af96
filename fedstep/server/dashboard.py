"""The dashboard at `/`: what the aggregator serves, tests and received. It has no scripts and loads nothing.

`DashboardReader` takes a snapshot of the store, `DashboardPage` renders it.
"""

import asyncio
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, FromClause, case, func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from fedstep.errors import UsageError
from fedstep.federation.messages import SchemaShape, hour
from fedstep.schema.schema import Schema
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.gate import ActiveCounts, Evidence, Gate, Verdict
from fedstep.server.http_messages import HttpProblem
from fedstep.server.mode import PLAIN, AggregationMode, BufferStatus
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import updates
from fedstep.server.storage.version_repository import TrialSummary, VersionListing, list_versions

DAY = 86_400.0  # seconds
DAYS = 7  # shown; updates are kept at least so long
MOST = 200  # versions and verdicts
VOLUMES = ((1, 1), (2, 5), (6, 20), (21, 100), (101, 0))  # updates of one project in that time; 0: any number


@dataclass(frozen=True, slots=True)
class Day:
    """A day in UTC, its updates and how many projects they came from."""

    date: str
    updates: int
    projects: int


@dataclass(frozen=True, slots=True)
class DashboardSnapshot:
    """The state of the store at one moment, without names and pseudonyms of projects and owners.

    `standing` is the verdict so far on each open trial, `spent` the margin gone by task, `volumes` how many
    projects sent as many updates as the entries of VOLUMES say. Where differential privacy is promised, `privacy` has
    the guarantee and the part of it spent, and the fields about single projects are empty.
    """

    lineage: VersionListing
    current: CurrentModels
    pending: BufferStatus
    active: ActiveCounts
    standing: Mapping[str, Verdict]
    spent: Mapping[str, float]
    days: tuple[Day, ...]
    volumes: tuple[int, ...]
    privacy: Mapping[str, float] = field(default_factory=dict)

    def sent(self) -> bool:
        """Return whether any update was ever received, aggregated or in the buffer."""
        aggregated = any(
            version.updates or (self.privacy and version.parent is not None) for version in self.lineage.versions
        )
        return bool(self.pending.updates) or aggregated

    def status(self) -> dict[str, object]:
        """Return what is served, on trial and in the buffer, for JSON."""
        return {
            "schema": self.lineage.schema,
            "candidate": self.current.candidate.version,
            "production": self.current.candidate.production,
            "sources": dict(self.current.candidate.sources),
            "trials": {name: trial.version for name, trial in self.current.trials.items()},
            **self._participation(),
        }

    def _participation(self) -> dict[str, object]:
        if self.privacy:
            return {"privacy": dict(self.privacy)}
        return {
            "buffer": {"updates": self.pending.updates, "projects": self.pending.projects},
            "active": {"projects": self.active.projects, "owners": self.active.owners},
        }


@runtime_checkable
class DashboardMode(Protocol):
    """A mode in which the dashboard shows other figures than those of whole updates."""

    def adjust_dashboard(
        self, snapshot: DashboardSnapshot, connection: Connection, schema: str, gate: Gate | None, now: float
    ) -> DashboardSnapshot:
        """Return the snapshot that the dashboard shows."""


class DashboardReader(Store):
    """A second, read-only connection to the store, for one thread at a time."""

    def __init__(self, url: str, shape: SchemaShape, gate: Gate | None, mode: AggregationMode = PLAIN) -> None:
        """Raise UsageError when the database cannot be opened."""
        super().__init__(url, shape, mode)
        self._gate = gate

    def read_snapshot(self, now: float) -> DashboardSnapshot:
        """Return the state now. Raise UsageError if nothing of this schema was ever served."""
        pending, schema = self.pending(), self._shape.digest
        with self.read() as session:
            connection = session.connection
            active, spent = session.trials.count_active(now), session.trials.spent_margins()
            evidence = self._mode.evidence(connection, schema, active) if self._gate else {}
            snapshot = DashboardSnapshot(
                list_versions(connection, schema, MOST),
                session.versions.current(),
                pending,
                active,
                decide_all(self._gate, evidence, spent),
                spent,
                days(connection, updates, schema, now),
                volumes(connection, updates, schema, now),
            )
            if isinstance(self._mode, DashboardMode):
                return self._mode.adjust_dashboard(snapshot, connection, schema, self._gate, now)
            return snapshot


def decide_all(
    gate: Gate | None, evidence: Mapping[str, Evidence], spent: Mapping[str, float]
) -> Mapping[str, Verdict]:
    """Return the verdict so far on each open trial by task; empty without a gate."""
    return {task: gate.decide(known, spent.get(task, 0.0)) for task, known in evidence.items()} if gate else {}


def days(connection: Connection, sent: FromClause, schema: str, now: float) -> tuple[Day, ...]:
    """Count the updates of the last days, oldest first, today included. `sent` has a row for each update."""
    today = now // DAY * DAY
    query = select(func.count(sent.c.id), func.count(func.distinct(sent.c.project))).where(sent.c.schema == schema)
    counts = []
    for start in (today - DAY * ago for ago in reversed(range(DAYS))):
        within = query.where(sent.c.received >= start, sent.c.received < start + DAY)
        counts.append(Day(hour(start).partition("T")[0], *connection.execute(within).one()))
    return tuple(counts)


def volumes(connection: Connection, sent: FromClause, schema: str, now: float) -> tuple[int, ...]:
    """Count the projects that sent as many updates in the last days as the entries of VOLUMES say."""
    by_project = (
        select(func.count(sent.c.id).label("number"))
        .where(sent.c.schema == schema, sent.c.received > now - DAYS * DAY)
        .group_by(sent.c.project)
        .subquery()
    )
    within = [
        func.count(case((by_project.c.number.between(least, most or 2**31 - 1), 1))).label(f"from_{least}")
        for least, most in VOLUMES
    ]
    return tuple(connection.execute(select(*within)).one())


ABOVE, TALL, STRIP, GAP = 8.0, 150.0, 32.0, 14.0  # free at the top, the trials, the margin below them, between them
BASE = ABOVE + TALL + GAP + STRIP
EDGE = 2.0  # per cent left free at either side
SHAPES = {
    "promoted": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
    "rejected": "M-5 -5L5 5M-5 5L5 -5",
    "undecided": "M-5 0H5",
    "open": "M0 -6L6 0L0 6L-6 0Z",
    "rollback": "M0 -7L6 5H-6Z",
}


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """A trial's end, or an open one as it stands: how much worse than production the version is, with its bounds.

    `version` is where it is drawn, `spent` the margin gone after it. All in units of the bound.
    """

    version: int
    outcome: str
    mean: float
    low: float
    high: float
    spent: float


def trials_chart(label: str, points: Sequence[TrialPoint], margin: float, top: float) -> Markup:
    """Draw the trials of one task over versions, and below the margin spent; the axis is from -`top` to `top`."""
    first, last = min(point.version for point in points), max(point.version for point in points)
    places = [_place(point.version, first, last) for point in points]
    marks = Markup("").join(_mark(point, x, top) for point, x in zip(points, places, strict=True))
    return Markup(
        '<div class="plot"><svg class="trials" height="{}" role="img" aria-label="{}">{}{}{}{}</svg></div>'
    ).format(f"{BASE + 18:g}", label, _grid(margin, top), marks, _spent(points, places, margin), _axis(first, last))


def bar(share: float, kind: str = "") -> Markup:
    """Draw a horizontal bar that fills this share of its width."""
    return Markup(
        '<svg class="bar {}" height="8" aria-hidden="true"><rect class="all" width="100%" height="8" rx="3"/>'
        '<rect class="part" width="{}%" height="8" rx="3"/></svg>'
    ).format(kind, f"{100 * min(max(share, 0.0), 1.0):.1f}")


def _grid(margin: float, top: float) -> Markup:
    lines = ((top, "grid", "worse"), (margin, "margin", f"{margin:+.2f}"), (0.0, "zero", "0"), (-top, "grid", "better"))
    return Markup("").join(
        Markup('<line class="{}" x1="0" x2="100%" y1="{y}" y2="{y}"/><text x="-8" y="{}">{}</text>').format(
            kind, f"{_y(value, top) + 4:.1f}", text, y=f"{_y(value, top):.1f}"
        )
        for value, kind, text in lines
    )


def _mark(point: TrialPoint, x: float, top: float) -> Markup:
    if point.outcome == "rollback":
        line = Markup('<line class="rollback" x1="{x}%" x2="{x}%" y1="{}" y2="{}"/>').format(
            f"{ABOVE:g}", f"{ABOVE + TALL:g}", x=x
        )
        label, y = f"version {point.version}: rollback", ABOVE + TALL - 8
    else:
        ends = f"{_y(point.high, top):.1f}", f"{_y(point.low, top):.1f}"
        line = Markup('<line class="bounds {}" x1="{x}%" x2="{x}%" y1="{}" y2="{}"/>').format(point.outcome, *ends, x=x)
        label = f"version {point.version} {point.outcome}: {point.mean:+.3f}, {point.low:+.3f} to {point.high:+.3f}"
        y = _y(point.mean, top)
    return line + Markup('<svg x="{}%" y="{}"><path class="mark {}" d="{}"/><title>{}</title></svg>').format(
        x, f"{y:.1f}", point.outcome, SHAPES.get(point.outcome, SHAPES["undecided"]), label
    )


def _spent(points: Sequence[TrialPoint], places: Sequence[float], margin: float) -> Markup:
    """Draw a step for each trial, from it to the next."""
    ends = (*places[1:], 100.0)
    steps = Markup("").join(
        Markup('<rect class="spent" x="{}%" y="{}" width="{}%" height="{}"/>').format(
            x, f"{BASE - tall:.1f}", f"{max(0.0, end - x):.2f}", f"{tall:.1f}"
        )
        for point, x, end in zip(points, places, ends, strict=True)
        if (tall := STRIP * min(1.0, point.spent / margin if margin else 0.0)) > 0
    )
    frame = Markup(
        '<line class="margin" x1="0" x2="100%" y1="{t}" y2="{t}"/>'
        '<line class="zero" x1="0" x2="100%" y1="{b}" y2="{b}"/>'
        '<text x="-8" y="{}">spent</text>'
    )
    return steps + frame.format(f"{BASE - STRIP / 2 + 4:.1f}", t=f"{BASE - STRIP:g}", b=f"{BASE:g}")


def _axis(first: int, last: int) -> Markup:
    y = f"{BASE + 15:g}"
    text = Markup('<text class="{}" x="{}%" y="{}">version {}</text>')
    if first == last:
        return text.format("middle", 50, y, first)
    return text.format("start", 0, y, first) + text.format("end", 100, y, last)


def _place(version: int, first: int, last: int) -> float:
    """Return the distance of a version from the left in per cent."""
    return round(EDGE + (100 - 2 * EDGE) * ((version - first) / (last - first) if last > first else 0.5), 2)


def _y(value: float, top: float) -> float:
    """Return the distance of a value from the top in pixels; better than production is below the middle."""
    return ABOVE + TALL / 2 * (1 - min(max(value / top, -1.0), 1.0))


Samples = Sequence[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class ProcessCounters:
    """Counters since the process began: updates by outcome, the share of deltas at their bound by task, and staleness.

    `refused` has the names of problems; `staleness` pairs words with shares of the accepted updates.
    """

    accepted: int
    repeats: int
    refused: Mapping[str, int]
    clipped: Mapping[str, float]
    staleness: Sequence[tuple[str, float]]


def figures(exposition: bytes) -> ProcessCounters:
    """Read the counters from Prometheus' text format."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(exposition.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    outcomes: Counter[str] = Counter()
    for name in ("fedstep_updates_total", "fedstep_shares_total"):
        outcomes.update({labels["outcome"]: int(value) for labels, value in samples.get(name, ())})
    accepted, repeats = outcomes.pop("accepted", 0), outcomes.pop("repeat", 0)
    refused = dict(sorted(outcomes.items(), key=lambda pair: -pair[1]))
    return ProcessCounters(accepted, repeats, refused, _clipped_shares(samples), _staleness(samples))


def _clipped_shares(samples: Mapping[str, Samples]) -> Mapping[str, float]:
    at_bound = {labels["task"]: value for labels, value in samples.get("fedstep_deltas_at_bound_total", ())}
    deltas = {labels["task"]: value for labels, value in samples.get("fedstep_deltas_total", ())}
    return {task: at_bound.get(task, 0.0) / count for task, count in deltas.items() if count}


def _staleness(samples: Mapping[str, Samples]) -> Sequence[tuple[str, float]]:
    """Return the share of updates in each bucket of the histogram, without empty buckets."""
    buckets = [(labels["le"], value) for labels, value in samples.get("fedstep_staleness_versions_bucket", ())]
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return ()
    steps = pairwise([("-1", 0.0), *buckets])
    return [
        (_format_staleness(above, upto), (value - before) / total)
        for (above, before), (upto, value) in steps
        if value > before
    ]


def _format_staleness(above: str, upto: str) -> str:
    """Describe a bucket of the histogram.

    >>> _format_staleness("2.0", "4.0"), _format_staleness("0.0", "1.0"), _format_staleness("128.0", "+Inf")
    ('3 to 4 versions', '1 version', '129 versions or more')
    """
    least = int(float(above)) + 1
    if upto == "+Inf":
        return f"{least} versions or more"
    most = int(float(upto))
    if least == most:
        return "1 version" if most == 1 else f"{most} versions"
    return f"{least} to {most} versions"


KEPT_SECONDS = 5.0  # how long a snapshot is served, however many ask
RARELY, SELDOM = 20.0, 300.0  # times as long as it took, if that is longer; but not longer than so many seconds
MOST_POINTS, MOST_ROWS, MOST_WORDS = 40, 12, 12
WORDS = ("name=", "source=")  # how the coordinates begin that stand for words
TEMPLATES = Path(__file__).parent / "templates"


class DashboardPage:
    """The page and the status, made from one snapshot of the store for all readers."""

    def __init__(
        self,
        reader: DashboardReader,
        exposition: Callable[[], bytes],
        schema: Schema,
        gate: Gate | None,
        clock: Callable[[], float],
    ) -> None:
        self._reader, self._exposition, self._schema, self._gate = reader, exposition, schema, gate
        self._clock, self._one = clock, asyncio.Lock()
        self._seen: tuple[DashboardSnapshot, str] | None = None
        self._again = 0.0  # when to read again, on the monotonic clock

    async def html(self) -> Response:
        """Return the page. Raise HttpProblem 503 if the store cannot be read."""
        _, text = await self._newest()
        return Response(text, 200, {"Content-Security-Policy": policy(), **_HEADERS}, "text/html")

    async def status(self) -> Mapping[str, object]:
        """Return what is served, on trial and in the buffer. Raise HttpProblem 503 if the store cannot be read."""
        snapshot, _ = await self._newest()
        return snapshot.status()

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()

    async def _newest(self) -> tuple[DashboardSnapshot, str]:
        """Return a snapshot and its page, made in a thread (35 ms for the snapshot, 65 for the page).

        A snapshot reads all updates of a week. It is reused for `RARELY` times as long as it took.
        """
        async with self._one:
            began = time.monotonic()
            if self._seen is None or began >= self._again:
                self._seen = await asyncio.to_thread(self._draw)
                ended = time.monotonic()
                self._again = ended + max(KEPT_SECONDS, min(SELDOM, RARELY * (ended - began)))
            return self._seen

    def _draw(self) -> tuple[DashboardSnapshot, str]:
        try:
            snapshot = self._reader.read_snapshot(self._clock())
        except (SQLAlchemyError, UsageError) as error:
            text = "The store cannot be read now. Try again later."
            raise HttpProblem(503, "store", text, retry_after=10, reason=type(error).__name__) from error
        return snapshot, page_html(snapshot, figures(self._exposition()), self._schema, self._gate)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task in the table, and its chart."""

    name: str
    source: int
    trial: int | None
    evaluations: int
    mean: float
    low: float
    high: float
    spent: float
    chart: str


def page_html(snapshot: DashboardSnapshot, counters: ProcessCounters, schema: Schema, gate: Gate | None) -> str:
    """Return the HTML document."""
    tasks = [_task_row(name, snapshot) for name in schema.tasks]
    busiest = max((day.updates for day in snapshot.days), default=0) or 1
    largest = max(snapshot.volumes, default=0) or 1
    volumes = [
        (_volume_words(least, most), count, bar(count / largest))
        for (least, most), count in zip(VOLUMES, snapshot.volumes, strict=True)
    ]
    up, down = _words(snapshot, schema)
    return _template().render(
        style=_style(),
        snapshot=snapshot,
        gate=gate,
        tasks=tasks,
        versions=snapshot.lineage.versions[:MOST_ROWS],
        verdicts=snapshot.lineage.verdicts[:MOST_ROWS],
        days=[(day, bar(day.updates / busiest)) for day in snapshot.days],
        sent=sum(day.updates for day in snapshot.days),
        volumes=volumes,
        figures=counters,
        clipped=[(name, share, bar(share)) for name, share in counters.clipped.items()],
        staleness=[(age, share, bar(share)) for age, share in counters.staleness],
        up=up,
        down=down,
        empty=not snapshot.sent(),
    )


@cache
def policy() -> str:
    """Return the content security policy: this one style sheet by its hash, and nothing else."""
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _task_row(name: str, snapshot: DashboardSnapshot) -> TaskRow:
    trial = next((trial for trial in snapshot.lineage.trials if trial.task == name), None)
    verdict = snapshot.standing.get(name)
    mean, low, high = (verdict.mean, verdict.low, verdict.high) if verdict else (0.0, 0.0, 0.0)
    spent = snapshot.spent.get(name, 0.0)
    points = [_point(ended) for ended in reversed(snapshot.lineage.verdicts) if ended.task == name]
    if trial and verdict and verdict.counted:
        points.append(TrialPoint(snapshot.current.candidate.version, "open", mean, low, high, spent))
    top = (
        max(0.05, *(abs(end) for point in points[-MOST_POINTS:] for end in (point.low, point.high))) if points else 1.0
    )
    chart = trials_chart(f"trials of {name} over versions", points[-MOST_POINTS:], 0.0, top) if points else ""
    source = snapshot.current.candidate.sources[name]
    counted = verdict.counted if verdict else 0
    return TaskRow(name, source, trial.version if trial else None, counted, mean, low, high, spent, chart)


def _point(ended: TrialSummary) -> TrialPoint:
    mean, low, high, spent = (float(ended.figures.get(key, 0.0)) for key in ("mean", "low", "high", "spent"))
    return TrialPoint(ended.version, ended.outcome, mean, low, high, spent)


def _volume_words(least: int, most: int) -> str:
    """Describe how many updates a project sent.

    >>> _volume_words(2, 5), _volume_words(101, 0)
    ('2 to 5 updates', '101 updates or more')
    """
    if not most:
        return f"{least} updates or more"
    return "1 update" if least == most else f"{least} to {most} updates"


def _words(
    snapshot: DashboardSnapshot, schema: Schema
) -> tuple[Sequence[tuple[str, float, str]], Sequence[tuple[str, float, str]]]:
    """Return the words that raise the chance of a flake most in production, and those that lower it, with bars."""
    task = schema.tasks.get("flaky")
    if task is None:
        return (), ()
    weights = zip(task.names(), snapshot.current.production["flaky"], strict=True)
    known = sorted(((weight, name) for name, weight in weights if weight and name.startswith(WORDS)), reverse=True)
    largest = max((abs(weight) for weight, _ in known), default=1.0)
    rows = [(name, weight, bar(abs(weight) / largest, "up" if weight > 0 else "down")) for weight, name in known]
    up = [row for row in rows if row[1] > 0][:MOST_WORDS]
    return up, [row for row in reversed(rows) if row[1] < 0][:MOST_WORDS]


@cache
def _style() -> str:
    return (TEMPLATES / "page.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(TEMPLATES),
    )
    return environment.get_template("page.html")
