"""The state of an aggregator for its dashboard: versions, trials, and counts of participants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sqlalchemy import Connection, FromClause, case, func, select

from fedstep.federation.messages import SchemaShape, hour
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.gate import ActiveCounts, Evidence, Gate, Verdict
from fedstep.server.mode import PLAIN, AggregationMode, BufferStatus
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import updates
from fedstep.server.storage.version_repository import VersionListing, list_versions

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
