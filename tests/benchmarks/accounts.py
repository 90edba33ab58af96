"""The books of a store after a storm: every receipt, every update, every version, every evaluation accounted for."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, Row, create_engine, select

from fedstep.federation.client import FetchedModel, pull
from fedstep.federation.messages import Model, shape, unpack_update
from fedstep.federation.transport import requests_transport
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.inputs import StoredUpdate
from fedstep.server.aggregation.step import aggregate_updates, compare_sources
from fedstep.server.storage.store import MAX_RECENT, Store
from fedstep.server.storage.tables import bodies, evaluations, receipts, updates, verdicts, versions
from fedstep.server.storage.version_repository import VersionRepository, read_version

READINGS = 50  # of a version that is about to be served


@dataclass(frozen=True)
class Books:
    """How many versions there are, and a line for everything that does not add up."""

    versions: int
    wrong: tuple[str, ...]


def accounts(store: str, sent: Mapping[str, bytes], acknowledged: Mapping[str, str]) -> Books:
    """What a store that nobody writes to has kept, against what was sent and what was promised."""
    engine = create_engine(store)
    try:
        with engine.begin() as connection:
            chain = connection.execute(select(versions).order_by(versions.c.version)).all()
            wrong = (
                *_receipts(connection, sent, acknowledged),
                *_lineage(connection, chain),
                *_folds(connection, chain),
                *_votes(connection),
            )
    finally:
        engine.dispose()
    return Books(len(chain), wrong)


def served_as_stored(store: str, url: str) -> Iterator[str]:
    """A line where the model served is not the newest one of the store.

    The aggregator still works: what has waited becomes a version between the two readings, and is then served, too.
    """
    with closing(Store(store, shape(schema()))) as reader:
        for _ in range(READINGS):
            served, stored = _pull(url), reader.current()
            if served.candidate_version >= stored.candidate.version:
                break
            time.sleep(0.1)
    if (served.candidate_version, served.candidate) != (stored.candidate.version, stored.candidate.vectors):
        yield f"the head served as version {served.candidate_version} is not the one stored"
    if served.production != stored.production:
        yield f"production served with version {served.candidate_version} is not the one stored"


def _pull(url: str) -> Model:
    found = pull(url, "", requests_transport(url), shape(schema()))
    assert isinstance(found, FetchedModel)
    return found.model


def _receipts(connection: Connection, sent: Mapping[str, bytes], acknowledged: Mapping[str, str]) -> Iterator[str]:
    """Nothing acknowledged is missing or changed, nothing is there that nobody sent."""
    promised = {row.id: row.receipt for row in connection.execute(select(receipts))}
    kept = _bodies(connection)
    for number, receipt in acknowledged.items():
        if promised.get(number) != receipt:
            yield f"{number} was acknowledged with {receipt}, the store has {promised.get(number)}"
        if kept.get(number) != sent.get(number):
            yield f"{number} was acknowledged, and its body is not in the store"
    for number in kept.keys() ^ set(connection.scalars(select(updates.c.id))):
        yield f"{number} has a row or a body, and not both"
    for number in promised.keys() ^ kept.keys():
        yield f"{number} has a receipt or a body, and not both"
    for number in kept.keys() - sent.keys():
        yield f"{number} was never sent"


def _lineage(connection: Connection, chain: Sequence[Row[tuple[object, ...]]]) -> Iterator[str]:
    """Versions follow each other without a gap, each after its parent, and each update went into one that is there."""
    if [row.version for row in chain] != list(range(len(chain))):
        yield "the versions have a gap"
    for before, row in itertools.pairwise(chain):
        if row.parent != before.version or row.created < before.created:
            yield f"version {row.version} does not follow version {before.version}"
    folded = Counter(connection.scalars(select(updates.c.aggregated_in)))
    for row in chain:
        if folded.pop(row.version, 0) != row.updates:
            yield f"version {row.version} says that {row.updates} updates went into it, the updates say otherwise"
    folded.pop(None, 0)
    if folded:
        yield f"updates went into versions that are not there: {sorted(folded)}"


def _folds(connection: Connection, chain: Sequence[Row[tuple[object, ...]]]) -> Iterator[str]:
    """Each task is what aggregating the updates of its version makes of the task before, to the bit."""
    rules = default_rules(schema())
    again = set(connection.scalars(select(verdicts.c.version).where(verdicts.c.replayed)))
    query = select(updates.c.owner, updates.c.project, bodies.c.body).where(updates.c.id == bodies.c.id)
    for before, row in itertools.pairwise(chain):
        rows = connection.execute(query.where(updates.c.aggregated_in == row.version)).all()
        stored = tuple(StoredUpdate(one.body, one.owner, project=one.project) for one in rows)
        start = read_version(before)
        recent = VersionRepository(connection, row.schema).recent_updates(MAX_RECENT, {}, before=row.version)
        compared = compare_sources([*recent.values(), *stored], rules)
        if row.version not in again and aggregate_updates(start, stored, rules, compared) != read_version(row).vectors:
            yield f"version {row.version} is not what its updates make of version {before.version}"


def _votes(connection: Connection) -> Iterator[str]:
    """An open trial has one evaluation of each update that carried one, and none of any other."""
    cast = connection.execute(select(evaluations.c.update_id, evaluations.c.task, evaluations.c.trial)).all()
    kept = _bodies(connection)
    for (number, task, trial), count in Counter(map(tuple, cast)).items():
        if count > 1:
            yield f"{number} has {count} votes on {task} {trial}"
        scores = unpack_update(kept[number]).scores if number in kept else {}
        if task not in scores or scores[task].trial != trial:
            yield f"{number} has a vote on {task} {trial} that it does not carry"


def _bodies(connection: Connection) -> Mapping[str, bytes]:
    return {row.id: row.body for row in connection.execute(select(bodies))}
