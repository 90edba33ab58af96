"""The versions in the database, and the updates that were aggregated into them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select

from fedstep.errors import UsageError
from fedstep.federation.messages import Update, Vector, hour, pack, unpack, unpack_update
from fedstep.server.aggregation.inputs import CurrentModels, ModelVersion, StoredUpdate
from fedstep.server.aggregation.step import EARLIER, Names
from fedstep.server.storage.tables import (
    bodies,
    evaluations,
    lineages,
    receipts,
    schemas,
    trials,
    updates,
    verdicts,
    versions,
)
from fedstep.server.storage.trial_repository import TrialRepository
from fedstep.server.storage.update_repository import delete_updates

DAY = 86_400.0  # seconds
MAX_KEPT_DAYS = 30  # of any update, of whatever schema, whether it was aggregated or not
MIN_VERSIONS = 1000  # the newest versions stay; an update from an older one is refused long before
MIN_KEPT_DAYS = 7  # of any update: they say who is active
MEAN = "/mean"  # after the name of a task: the mean of its vectors, stored beside them
# asked once per batch of updates, and built once: building a statement takes longer than running it
LATEST_VERSION = select(func.max(versions.c.version)).where(versions.c.schema == bindparam("digest"))


class PreviousSchema(NamedTuple):
    """The schema that an aggregator served before: its digest, the names of its coordinates, and its production."""

    digest: str
    names: Names
    production: Mapping[str, Vector]


def schemas_of(connection: Connection) -> frozenset[str]:
    """Return the digests of all schemas that the store has a version of."""
    return frozenset(connection.scalars(select(versions.c.schema).distinct()))


class VersionRepository:
    """The versions of one schema, over one connection. Each call is part of the connection's transaction."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def latest_version(self) -> int:
        """Return the newest version; 0 where there is none."""
        return self._connection.scalar(LATEST_VERSION, {"digest": self._schema}) or 0

    def next_version(self) -> int:
        """Return the first version that no schema has: all schemas of a store share one sequence."""
        last = self._connection.scalar(select(func.max(versions.c.version)))
        return 0 if last is None else last + 1

    def latest(self) -> ModelVersion | None:
        """Return the newest version with its vectors; None where there is none."""
        newest = self._newest(0, 1)
        return newest[0] if newest else None

    def earlier(self) -> Sequence[ModelVersion]:
        """Return the versions before the newest one that the next trial is made of, too, the newest first."""
        return self._newest(1, EARLIER)

    def _newest(self, skipped: int, limit: int) -> Sequence[ModelVersion]:
        query = select(versions).where(versions.c.schema == self._schema).order_by(versions.c.version.desc())
        return [read_version(row) for row in self._connection.execute(query.offset(skipped).limit(limit))]

    def current(self) -> CurrentModels:
        """Return the newest version, production and the open trials. Raise UsageError where there is none."""
        candidate = self.latest()
        if candidate is None:
            raise UsageError("the store has no model of this feature schema", "Start it with `fedstep serve` first.")
        trial_repository = TrialRepository(self._connection, self._schema)
        vectors = {version: self.vectors(version) for version in set(trial_repository.open_versions().values())}
        production, open_trials = self._combine(candidate.sources), trial_repository.open_trials(vectors)
        lineage = self._connection.scalar(select(lineages.c.id)) or ""
        return CurrentModels(candidate, production, open_trials, lineage)

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """Return by task the vector of a version of any schema that goes on trial: its mean where it has one."""
        query = select(versions.c.vectors).where(versions.c.version == version)
        stored = unpack(self._connection.execute(query).scalar_one()).vectors
        return {name: stored.get(name + MEAN, vector) for name, vector in stored.items() if not name.endswith(MEAN)}

    def production(self, version: int) -> Mapping[str, Vector]:
        """Return by task what production was at a version. Raise UsageError for a version of another schema."""
        query = select(versions.c.sources).where(versions.c.version == version, versions.c.schema == self._schema)
        sources = self._connection.execute(query).scalar_one_or_none()
        if sources is None:
            remedy = "`fedstep server versions` lists those there are."
            raise UsageError(f"there is no version {version} of this feature schema in the store", remedy)
        return self._combine(json.loads(sources))

    def add(self, version: ModelVersion, parent: int | None, update_count: int) -> None:
        """Store a version that this many updates were aggregated into."""
        self._connection.execute(
            insert(versions).values(
                version=version.version,
                parent=parent,
                schema=self._schema,
                created=version.created,
                updates=update_count,
                production=version.production,
                sources=json.dumps(version.sources),
                vectors=pack({}, {**version.vectors, **{name + MEAN: mean for name, mean in version.means.items()}}),
            )
        )

    def recent_updates(
        self, limit: int, cached: Mapping[str, Update], before: int | None = None
    ) -> Mapping[str, StoredUpdate]:
        """Return by id the newest updates in any version, or in those before one; `cached` ones are not read."""
        query = select(updates.c.id, updates.c.owner, updates.c.aggregated_in, updates.c.project)
        query = query.where(updates.c.schema == self._schema, updates.c.aggregated_in.is_not(None))
        if before is not None:
            query = query.where(updates.c.aggregated_in < before)
        rows = self._connection.execute(query.order_by(updates.c.aggregated_in.desc(), updates.c.id).limit(limit)).all()
        known = {row.id: cached.get(row.id) for row in rows}  # once: another thread may drop it from the cache
        absent = [update_id for update_id, update in known.items() if update is None]
        read = self._connection.execute(select(bodies).where(bodies.c.id.in_(absent))).all() if absent else ()
        known |= {row.id: unpack_update(row.body) for row in read}
        return {
            row.id: StoredUpdate(b"", row.owner, row.aggregated_in, row.project, known[row.id])
            for row in rows
            if known[row.id]
        }

    def save_names(self, names: Names) -> None:
        """Store by task the names of the schema's coordinates, unless they are there."""
        rows = [{"schema": self._schema, "task": task, "names": json.dumps(given)} for task, given in names.items()]
        count = select(func.count()).select_from(schemas).where(schemas.c.schema == self._schema)
        if rows and not self._connection.scalar(count):
            self._connection.execute(insert(schemas), rows)

    def previous_schema(self) -> PreviousSchema | None:
        """Return the other schema with the newest version; None where there is none whose names are stored."""
        query = select(versions.c.schema, versions.c.version).where(
            versions.c.schema != self._schema, versions.c.schema.in_(select(schemas.c.schema))
        )
        row = self._connection.execute(query.order_by(versions.c.version.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        rows = self._connection.execute(select(schemas.c.task, schemas.c.names).where(schemas.c.schema == row.schema))
        names = {task: json.loads(text) for task, text in rows}
        production = VersionRepository(self._connection, row.schema).production(row.version)
        return PreviousSchema(row.schema, names, production)

    def prune_updates(self, oldest_source: int, now: float) -> None:
        """Delete updates that production has learned from, once they are a week old, and all that are too old.

        `oldest_source` is the oldest version that production has a task from. Newer ones show for longer which sources
        go against the others. Receipts stay: an update that is sent again is never counted again.
        """
        unneeded = (updates.c.aggregated_in <= oldest_source) & (updates.c.received < now - MIN_KEPT_DAYS * DAY)
        delete_updates(self._connection, unneeded | (updates.c.received < now - MAX_KEPT_DAYS * DAY))

    def prune_versions(self) -> None:
        """Delete all but the newest versions, and those that production changed with or is taken from.

        A rollback returns to a version whose production is whole, so that the sources of each that stays do, too.
        """
        newest = self.latest_version()
        rows = self._connection.execute(
            select(versions.c.version, versions.c.production, versions.c.sources).where(
                versions.c.schema == self._schema
            )
        ).all()
        kept = {row.version for row in rows if row.version > newest - MIN_VERSIONS or row.version == row.production}
        kept |= set(TrialRepository(self._connection, self._schema).open_versions().values())
        kept |= {source for row in rows if row.version in kept for source in json.loads(row.sources).values()}
        doomed = [{"doomed": row.version} for row in rows if row.version not in kept]
        if doomed:
            self._connection.execute(delete(versions).where(versions.c.version == bindparam("doomed")), doomed)

    def prune_receipts(self) -> None:
        """Delete the receipts of updates that would be refused as stale if they were sent again.

        The receipt of an update that is still stored stays: its id, sent with a newer base, is no new one.
        """
        oldest = self.latest_version() - MIN_VERSIONS
        stored = receipts.c.id.in_(select(updates.c.id))
        self._connection.execute(delete(receipts).where(receipts.c.version < oldest, ~stored))

    def _combine(self, sources: Mapping[str, int]) -> Mapping[str, Vector]:
        """Return each task's vector from the version that production has it from."""
        vectors = {version: self.vectors(version) for version in set(sources.values())}
        return {task: vectors[version][task] for task, version in sources.items()}


def read_version(row: Row[Any]) -> ModelVersion:
    """Return the version that a row of `versions` has."""
    stored = unpack(row.vectors).vectors
    vectors = {name: vector for name, vector in stored.items() if not name.endswith(MEAN)}
    means = {name.removesuffix(MEAN): vector for name, vector in stored.items() if name.endswith(MEAN)}
    return ModelVersion(row.version, row.production, row.created, vectors, json.loads(row.sources), means)


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version: its parent, its updates, and the version that production changed with last."""

    version: int
    parent: int | None
    created: str
    updates: int
    production: int
    sources: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OpenTrial:
    """An open trial, and how many evaluations it has."""

    task: str
    version: int
    against: int
    began: str
    evaluations: int


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """How a trial ended, with the figures of its verdict; of a rollback `against` is the version it returned to."""

    version: int
    task: str
    trial: int
    against: int
    began: str
    decided: str
    outcome: str
    restarted: bool
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class VersionListing:
    """The newest versions, open trials and verdicts of a schema, newest first."""

    schema: str
    versions: tuple[VersionSummary, ...]
    trials: tuple[OpenTrial, ...]
    verdicts: tuple[TrialSummary, ...]

    def as_json(self) -> dict[str, object]:
        """Return the listing as values of JSON."""
        return asdict(self)


def list_versions(connection: Connection, schema: str, limit: int) -> VersionListing:
    """Return the newest versions, verdicts and open trials of a schema, at most `limit` versions and verdicts."""
    return VersionListing(
        schema,
        _versions(connection, schema, limit),
        _trials(connection, schema),
        _list_ended(connection, schema, limit),
    )


def _versions(connection: Connection, schema: str, limit: int) -> tuple[VersionSummary, ...]:
    query = select(versions).where(versions.c.schema == schema).order_by(versions.c.version.desc()).limit(limit)
    columns = [column for column in query.selected_columns if column.name != "vectors"]
    return tuple(
        VersionSummary(row.version, row.parent, hour(row.created), row.updates, row.production, json.loads(row.sources))
        for row in connection.execute(query.with_only_columns(*columns))
    )


def _trials(connection: Connection, schema: str) -> tuple[OpenTrial, ...]:
    evaluation_count = (
        select(func.count())
        .where(
            evaluations.c.schema == trials.c.schema,
            evaluations.c.task == trials.c.task,
            evaluations.c.trial == trials.c.version,
        )
        .scalar_subquery()
    )
    query = (
        select(trials, evaluation_count.label("evaluation_count"))
        .where(trials.c.schema == schema)
        .order_by(trials.c.task)
    )
    return tuple(
        OpenTrial(row.task, row.version, row.against, hour(row.began), row.evaluation_count)
        for row in connection.execute(query)
    )


def _list_ended(connection: Connection, schema: str, limit: int) -> tuple[TrialSummary, ...]:
    query = select(verdicts).where(verdicts.c.schema == schema).order_by(verdicts.c.id.desc()).limit(limit)
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
            _read_figures(row.figures),
        )
        for row in connection.execute(query)
    )


def _read_figures(text: str) -> dict[str, float]:
    """Return the figures of a verdict by name; those that earlier versions stored name the evaluations `votes`."""
    figures: dict[str, float] = json.loads(text)
    return {"evaluations" if name == "votes" else name: value for name, value in figures.items()}
