"""The lineage as it is shown: to readers of /v1/versions and to whoever runs the aggregator."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, select

from fedstep.federation.wire import hour
from fedstep.server.tables import trials, verdicts, versions, votes

__all__ = ["Ended", "Lineage", "OpenTrial", "Shown", "lineage"]


@dataclass(frozen=True, slots=True)
class Shown:
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

    head: str
    version: int
    against: int
    began: str
    votes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended, with the figures that led to it; or a rollback, `against` being where it went back to."""

    version: int
    head: str
    trial: int
    against: int
    began: str
    decided: str
    outcome: str
    refolded: bool
    left_out: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The newest of each, newest first."""

    schema: str
    versions: tuple[Shown, ...]
    trials: tuple[OpenTrial, ...]
    verdicts: tuple[Ended, ...]

    def as_json(self) -> dict[str, object]:
        """All of it as JSON has it."""
        return asdict(self)


def lineage(connection: Connection, schema: str, most: int) -> Lineage:
    """The lineage of a schema, at most so many versions and verdicts."""
    return Lineage(
        schema, _versions(connection, schema, most), _trials(connection, schema), _ended(connection, schema, most)
    )


def _versions(connection: Connection, schema: str, most: int) -> tuple[Shown, ...]:
    query = select(versions).where(versions.c.schema == schema).order_by(versions.c.version.desc()).limit(most)
    columns = [column for column in query.selected_columns if column.name != "vectors"]
    return tuple(
        Shown(row.version, row.parent, hour(row.created), row.updates, row.production, json.loads(row.sources))
        for row in connection.execute(query.with_only_columns(*columns))
    )


def _trials(connection: Connection, schema: str) -> tuple[OpenTrial, ...]:
    cast = (
        select(func.count())
        .where(votes.c.schema == trials.c.schema, votes.c.head == trials.c.head, votes.c.trial == trials.c.version)
        .scalar_subquery()
    )
    query = select(trials, cast.label("cast")).where(trials.c.schema == schema).order_by(trials.c.head)
    return tuple(
        OpenTrial(row.head, row.version, row.against, hour(row.began), row.cast) for row in connection.execute(query)
    )


def _ended(connection: Connection, schema: str, most: int) -> tuple[Ended, ...]:
    query = select(verdicts).where(verdicts.c.schema == schema).order_by(verdicts.c.number.desc()).limit(most)
    return tuple(
        Ended(
            row.version,
            row.head,
            row.trial,
            row.against,
            hour(row.began),
            hour(row.decided),
            row.outcome,
            row.refolded,
            row.left_out,
            json.loads(row.figures),
        )
        for row in connection.execute(query)
    )
