"""The versions in the database, and the updates that went into them. Each call is inside a transaction."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, bindparam, func, insert, select

from fedstep.errors import UsageError
from fedstep.federation.messages import hour
from fedstep.federation.tensors import Vector, pack, unpack
from fedstep.server.aggregation.inputs import CurrentModels, ModelVersion, StoredUpdate
from fedstep.server.aggregation.step import Names
from fedstep.server.storage.tables import bodies, evaluations, schemas, trials, updates, verdicts, versions
from fedstep.server.storage.trial_repository import TrialRepository
from fedstep.server.storage.update_repository import delete_updates

DAY = 86_400.0
KEPT_DAYS = 30  # of any update, of whatever schema, also where it was never folded
KEPT_AT_LEAST_DAYS = 7  # of any update: they say who is active
# asked once a batch, and made once: that takes longer
NEWEST = select(func.max(versions.c.version)).where(versions.c.schema == bindparam("ours"))


class VersionRepository:
    """The versions of one schema, over one connection."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def number(self) -> int:
        """The number of the newest version; 0 where there is none."""
        return self._connection.scalar(NEWEST, {"ours": self._schema}) or 0

    def unused(self) -> int:
        """The first number that no version of any schema has."""
        last = self._connection.scalar(select(func.max(versions.c.version)))
        return 0 if last is None else last + 1

    def newest(self) -> ModelVersion | None:
        """The newest version, if there is one."""
        query = select(versions).where(versions.c.schema == self._schema).order_by(versions.c.version.desc())
        row = self._connection.execute(query.limit(1)).one_or_none()
        if row is None:
            return None
        return ModelVersion(
            row.version, row.production, row.created, unpack(row.vectors).vectors, json.loads(row.sources)
        )

    def current(self) -> CurrentModels:
        """The newest version with production and what is on trial. Raises UsageError where there is none."""
        task = self.newest()
        if task is None:
            raise UsageError("the store has no model of this feature schema", "Start it with `fedstep serve` first.")
        ledger = TrialRepository(self._connection, self._schema)
        snapshots = {number: self.vectors(number) for number in set(ledger.on_trial().values())}
        return CurrentModels(task, self._together(task.sources), ledger.trials(snapshots))

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """The task of any version ever made."""
        query = select(versions.c.vectors).where(versions.c.version == version)
        return unpack(self._connection.execute(query).scalar_one()).vectors

    def production(self, version: int) -> Mapping[str, Vector]:
        """What everyone predicted with at a version. Raises UsageError for one that is not of this schema."""
        query = select(versions.c.sources).where(versions.c.version == version, versions.c.schema == self._schema)
        sources = self._connection.execute(query).scalar_one_or_none()
        if sources is None:
            remedy = "`fedstep server versions` lists those there are."
            raise UsageError(f"there is no version {version} of this feature schema in the store", remedy)
        return self._together(json.loads(sources))

    def add(self, made: ModelVersion, parent: int | None, folded: int) -> ModelVersion:
        """Writes a version that `folded` updates went into."""
        self._connection.execute(
            insert(versions).values(
                version=made.version,
                parent=parent,
                schema=self._schema,
                created=made.created,
                updates=folded,
                production=made.production,
                sources=json.dumps(made.sources),
                vectors=pack({}, made.vectors),
            )
        )
        return made

    def since(self, version: int) -> Iterator[StoredUpdate]:
        """The updates folded after a version that are still kept, fold by fold, a few in memory."""
        query = select(bodies.c.body, updates.c.owner, updates.c.aggregated_in, updates.c.project)
        query = query.join_from(updates, bodies, updates.c.id == bodies.c.id)
        query = query.where(updates.c.schema == self._schema, updates.c.aggregated_in > version)
        query = query.order_by(updates.c.aggregated_in, updates.c.id).execution_options(yield_per=200)
        rows = self._connection.execute(query)
        return (StoredUpdate(row.body, row.owner, row.aggregated_in, row.project) for row in rows)

    def name(self, names: Names) -> None:
        """Writes what the coordinates of the schema are called, once."""
        rows = [{"schema": self._schema, "task": task, "names": json.dumps(named)} for task, named in names.items()]
        known = select(func.count()).select_from(schemas).where(schemas.c.schema == self._schema)
        if rows and not self._connection.scalar(known):
            self._connection.execute(insert(schemas), rows)

    def forerunner(self) -> tuple[str, Names, Mapping[str, Vector]] | None:
        """The other schema that made a version last, what its coordinates are called, and its production.

        None where there is none whose names are known.
        """
        query = select(versions.c.schema, versions.c.version).where(
            versions.c.schema != self._schema, versions.c.schema.in_(select(schemas.c.schema))
        )
        row = self._connection.execute(query.order_by(versions.c.version.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        named = self._connection.execute(select(schemas.c.task, schemas.c.names).where(schemas.c.schema == row.schema))
        names = {task: json.loads(text) for task, text in named}
        return row.schema, names, VersionRepository(self._connection, row.schema).production(row.version)

    def prune(self, oldest: int, now: float) -> None:
        """Lets go of updates that can no longer be folded again, and of all that are too old.

        Their receipts stay: a repeat counts once for ever.
        """
        settled = (updates.c.aggregated_in <= oldest) & (updates.c.received < now - KEPT_AT_LEAST_DAYS * DAY)
        delete_updates(self._connection, settled | (updates.c.received < now - KEPT_DAYS * DAY))

    def _together(self, sources: Mapping[str, int]) -> Mapping[str, Vector]:
        """Each task from the version that production has it from."""
        tasks = {number: self.vectors(number) for number in set(sources.values())}
        return {name: tasks[number][name] for name, number in sources.items()}


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version: what it was made from, and the version that production changed with last."""

    version: int
    parent: int | None
    created: str
    updates: int
    production: int
    sources: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """A snapshot on trial, and how many have voted."""

    task: str
    version: int
    against: int
    began: str
    evaluations: int


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """How a trial ended, with the figures that led to it; or a rollback, `against` being where it went back to."""

    version: int
    task: str
    trial: int
    against: int
    began: str
    decided: str
    outcome: str
    replayed: bool
    left_out: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class VersionListing:
    """The newest of each, newest first."""

    schema: str
    versions: tuple[VersionSummary, ...]
    trials: tuple[OpenTrial, ...]
    verdicts: tuple[TrialSummary, ...]

    def as_json(self) -> dict[str, object]:
        """All of it as JSON has it."""
        return asdict(self)


def list_versions(connection: Connection, schema: str, most: int) -> VersionListing:
    """The lineage of a schema, at most so many versions and verdicts."""
    return VersionListing(
        schema, _versions(connection, schema, most), _trials(connection, schema), _ended(connection, schema, most)
    )


def _versions(connection: Connection, schema: str, most: int) -> tuple[VersionSummary, ...]:
    query = select(versions).where(versions.c.schema == schema).order_by(versions.c.version.desc()).limit(most)
    columns = [column for column in query.selected_columns if column.name != "vectors"]
    return tuple(
        VersionSummary(row.version, row.parent, hour(row.created), row.updates, row.production, json.loads(row.sources))
        for row in connection.execute(query.with_only_columns(*columns))
    )


def _trials(connection: Connection, schema: str) -> tuple[OpenTrial, ...]:
    cast = (
        select(func.count())
        .where(
            evaluations.c.schema == trials.c.schema,
            evaluations.c.task == trials.c.task,
            evaluations.c.trial == trials.c.version,
        )
        .scalar_subquery()
    )
    query = select(trials, cast.label("cast")).where(trials.c.schema == schema).order_by(trials.c.task)
    return tuple(
        OpenTrial(row.task, row.version, row.against, hour(row.began), row.cast) for row in connection.execute(query)
    )


def _ended(connection: Connection, schema: str, most: int) -> tuple[TrialSummary, ...]:
    query = select(verdicts).where(verdicts.c.schema == schema).order_by(verdicts.c.id.desc()).limit(most)
    return tuple(
        TrialSummary(
            row.version,
            row.task,
            row.trial,
            row.against,
            hour(row.began),
            hour(row.decided),
            row.outcome,
            row.replayed,
            row.left_out,
            _read_figures(row.figures),
        )
        for row in connection.execute(query)
    )


def _read_figures(text: str) -> dict[str, float]:
    """Return the figures of a verdict by name; those that earlier versions stored name the evaluations `votes`."""
    figures: dict[str, float] = json.loads(text)
    return {"evaluations" if name == "votes" else name: value for name, value in figures.items()}
