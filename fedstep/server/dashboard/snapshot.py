"""What an aggregator shows of itself: the lineage, open trials as they stand, and who takes part, in counts alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, FromClause, Subquery, case, func, select

from fedstep.federation.messages import SchemaShape, hour
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.aggregation.policy import BufferStatus
from fedstep.server.dp.accounting import PrivacyBudget
from fedstep.server.dp.budget import known_noised, spent_by_all
from fedstep.server.gate import ActiveCounts, Gate, Verdict, judge_evaluation_sums, judge_trial
from fedstep.server.secagg.share_store import in_halves, shares, told_of
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import updates
from fedstep.server.storage.trial_repository import ACTIVE_SECONDS
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
    """One look into the store. No name and no pseudonym of a project or owner is in it.

    `standing` is what the votes so far say of each open trial, `spent` the margin gone by task, `volumes` how many
    projects sent as many updates as the entries of VOLUMES say. Where differential privacy is promised, `privacy` has
    the promise and what of it is gone, and what tells of single projects is empty.
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
        """Whether anything was ever sent: folded, or waiting."""
        folded = any(shown.updates or (self.privacy and shown.parent is not None) for shown in self.lineage.versions)
        return bool(self.pending.updates) or folded

    def status(self) -> dict[str, object]:
        """What is served, on trial and waiting, as JSON has it."""
        return {
            "schema": self.lineage.schema,
            "head": self.current.candidate.version,
            "production": self.current.candidate.production,
            "sources": dict(self.current.candidate.sources),
            "trials": {name: trial.version for name, trial in self.current.trials.items()},
            **self._participation(),
        }

    def _participation(self) -> dict[str, object]:
        if self.privacy:
            return {"privacy": dict(self.privacy)}
        return {
            "waiting": {"updates": self.pending.updates, "projects": self.pending.projects},
            "active": {"projects": self.active.projects, "owners": self.active.owners},
        }


class DashboardReader(Store):
    """A second door to the store, which only reads. Not for two threads at a time."""

    def __init__(self, url: str, shape: SchemaShape, gate: Gate | None, budget: PrivacyBudget | None = None) -> None:
        """Raises UsageError when the database cannot be opened."""
        super().__init__(url, shape)
        self._gate, self._budget = gate, budget

    def look(self, now: float) -> DashboardSnapshot:
        """What there is to see at this time. Raises UsageError where nothing of this schema was ever started."""
        pending = self.pending()
        with self._reader.begin() as connection:
            ledger = self._ledger(connection)
            active, spent, votes = ledger.active(now), ledger.spent(), ledger.votes()
            found = list_versions(connection, self._shape.digest, MOST)
            current = self._chronicle(connection).current()
            daily = days(connection, updates, self._shape.digest, now)
            senders = volumes(connection, updates, self._shape.digest, now)
            noised, rho = known_noised(connection, self._shape.digest), spent_by_all(connection)
        standing = {
            task: judge_trial(cast, active, spent.get(task, 0.0), self._gate)
            for task, cast in votes.items()
            if self._gate
        }
        look = DashboardSnapshot(found, current, pending, active, standing, spent, daily, senders)
        if self._budget is None:
            return look
        return replace(
            look,
            pending=BufferStatus(0, 0, 0.0),
            active=ActiveCounts(0, 0),
            standing={
                task: judge_evaluation_sums(told, self._gate, spent.get(task, 0.0))
                for task, told in noised.items()
                if self._gate
            },
            days=(),
            volumes=(0,) * len(VOLUMES),
            privacy=_privacy(self._budget, rho),
        )


def _privacy(budget: PrivacyBudget, rho: float) -> Mapping[str, float]:
    """The promise, the noise in units of a project's bound, and the epsilon of whoever took part in every release."""
    spent = min(rho, budget.most)
    return {**budget.promise._asdict(), "noise": budget.multiplier, "spent_at_most": budget.epsilon(spent)}


def days(connection: Connection, sent: FromClause, schema: str, now: float) -> tuple[Day, ...]:
    """The last days, the newest last; today is not over. `sent` has a row for each update."""
    today = now // DAY * DAY
    query = select(func.count(sent.c.id), func.count(func.distinct(sent.c.project))).where(sent.c.schema == schema)
    found = []
    for start in (today - DAY * ago for ago in reversed(range(DAYS))):
        within = query.where(sent.c.received >= start, sent.c.received < start + DAY)
        found.append(Day(hour(start).partition("T")[0], *connection.execute(within).one()))
    return tuple(found)


def volumes(connection: Connection, sent: FromClause, schema: str, now: float) -> tuple[int, ...]:
    """How many projects sent as many updates in the last days as the entries of VOLUMES say."""
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


class ShareDashboardReader(DashboardReader):
    """As another one, of a store that has halves. A verdict counts sums of scores: single votes nobody knows."""

    def look(self, now: float) -> DashboardSnapshot:
        """What there is to see at this time. Raises UsageError where nothing of this schema was ever started."""
        look, schema = super().look(now), self._shape.digest
        with self._reader.begin() as connection:
            trials = look.current.trials.items()
            told = {name: told_of(connection, schema, name, trial.version) for name, trial in trials}
            return replace(
                look,
                pending=in_halves(connection, schema),
                active=_active(connection, schema, now),
                standing={
                    name: judge_evaluation_sums(found, self._gate, look.spent.get(name, 0.0))
                    for name, found in told.items()
                    if self._gate and found
                },
                days=days(connection, _sent(), schema, now),
                volumes=volumes(connection, _sent(), schema, now),
            )


def _active(connection: Connection, schema: str, now: float) -> ActiveCounts:
    counts = select(func.count(func.distinct(shares.c.project)), func.count(func.distinct(shares.c.owner)))
    recent = (shares.c.schema == schema) & (shares.c.received > now - ACTIVE_SECONDS) & (shares.c.project != "")
    projects, owners = connection.execute(counts.where(recent)).one()
    return ActiveCounts(projects, owners)


def _sent() -> Subquery:
    """One row for each update, as the table of whole ones has; without those of projects that were forgotten."""
    columns = shares.c.id, shares.c.schema, shares.c.project, shares.c.received
    return select(*columns).where(shares.c.project != "").distinct().subquery()
