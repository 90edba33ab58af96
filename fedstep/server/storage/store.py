"""The store of an aggregator: the transactions over updates, versions and trials, for one feature schema."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError

from fedstep.federation.messages import SchemaShape, Vector
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    AggregationResult,
    CurrentModels,
    ModelVersion,
    StoredUpdate,
)
from fedstep.server.aggregation.step import Names, inherit_weights, log_decisions
from fedstep.server.gate import ActiveCounts
from fedstep.server.mode import PLAIN, AggregationMode, BufferStatus
from fedstep.server.storage.engine import (
    advisory_lock,
    check_store_file,
    open_engine,
    read_only,
    truncate_wal,
    try_advisory_lock,
)
from fedstep.server.storage.trial_repository import TrialRepository
from fedstep.server.storage.update_repository import (
    ErasureResult,
    StoredReceipt,
    UpdateBuffer,
    UpdateCache,
    UpdateOffer,
    UpdateRejected,
    UpdateRepository,
    delete_project,
)
from fedstep.server.storage.version_repository import (
    DAY,
    MAX_KEPT_DAYS,
    VersionListing,
    VersionRepository,
    list_versions,
)

MAX_AGGREGATED = 1000  # updates in memory at once; what the buffer has beyond it is aggregated next
MAX_RECENT = 1000  # aggregated updates that show which sources go against the others
MAX_TRIES = 3  # to store a batch of which another replica stores a part at the same moment
NOT_STORABLE = UpdateRejected("the database refuses it", "Nothing of it was stored.", (422, "not-storable"))
AGGREGATION_LOCK = "aggregation"  # one replica at a time makes a version

FEW_UPDATES = 10_000  # are counted in 30 ms: fewer are counted every time
MANY_ACTIVE = 100  # projects, and owners: what the gate asks of them is whether there are one, or five
COUNT_AGAIN_AT = 4  # one part in so many of the updates that were counted has to be new
NONE_ACTIVE = ActiveCounts(0, 0)
MAX_COUNT_AGE = 600.0  # seconds; other processes accept, too

Step = Callable[[AggregationInput], AggregationResult]
NO_NAMES: Names = MappingProxyType({})
T = TypeVar("T")
log = logging.getLogger("fedstep.server")


class StoreObserver(Protocol):
    """Receives the events of a store for metrics."""

    def observe_commit(self, seconds: float) -> None:
        """Record how long a batch of updates took to write."""

    def set_buffer(self, pending: BufferStatus) -> None:
        """Record the counts of the buffer."""

    def observe_aggregation(self, seconds: float, succeeded: bool) -> None:
        """Note that an aggregation made a version in this time, or failed."""


@dataclass(slots=True)
class ActivityCounter:
    """Remembers how many projects and owners are active, because counting reads every recent update.

    With few of them every newcomer matters, and they are counted every time; with many a quarter more does not.
    """

    _active: ActiveCounts = NONE_ACTIVE
    _counted_updates: int = 0
    _new_updates: int = 0  # since then
    _counted_at: float = float("-inf")

    def add_updates(self, count: int) -> None:
        """Note that so many more updates were accepted."""
        self._new_updates += count

    def reset(self) -> None:
        """Count again next time: a project was deleted."""
        self._counted_at = float("-inf")

    def active(self, now: float, count: Callable[[], tuple[ActiveCounts, int]]) -> ActiveCounts:
        """Return who is active. `count` is called where its result may matter; it returns how many updates, too."""
        expired = not 0.0 <= now - self._counted_at < MAX_COUNT_AGE
        few = self._counted_updates < FEW_UPDATES or min(self._active.projects, self._active.owners) < MANY_ACTIVE
        if expired or few or self._new_updates * COUNT_AGAIN_AT > self._counted_updates:
            self._active, self._counted_updates = count()
            self._new_updates, self._counted_at = 0, now
        return self._active


class Session:
    """One transaction: its connection, and the repositories of one feature schema over it."""

    __slots__ = ("buffer", "connection", "trials", "updates", "versions")

    def __init__(self, connection: Connection, schema: str, mode: AggregationMode) -> None:
        self.connection = connection
        self.versions = VersionRepository(connection, schema)
        self.trials = TrialRepository(connection, schema)
        self.updates = UpdateRepository(connection, schema, mode)
        self.buffer = UpdateBuffer(connection, schema)


class Store:
    """One database for one feature schema.

    All that is written beside accepted updates is written by the one thread of `executor`, and whoever accepts
    updates while others write calls `accept` in it, too: two threads that write would wait for each other, and SQLite
    lets the second one wait for long, and in no order.
    """

    def __init__(
        self,
        url: str,
        shape: SchemaShape,
        mode: AggregationMode = PLAIN,
        observer: StoreObserver | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Open the database. Raise UsageError when it cannot be opened.

        Args:
            url: Of SQLAlchemy: a SQLite file, or PostgreSQL.
            shape: The schema's digest and the lengths of its vectors.
            mode: How updates are aggregated, and what of them may be published.
            observer: Is told of commits, of the buffer and of aggregations.
            executor: With one thread, which writes; the store shuts it down when it is closed. One is made where none
                is given.
        """
        self._mode, self._observer = mode, observer
        self._engine: Engine = open_engine(url)
        check_store_file(self._engine, url)
        self._reader = read_only(self._engine)
        self._shape = shape
        self._pruned_at = float("-inf")  # in seconds since 1970
        self._cache = UpdateCache(MAX_AGGREGATED + MAX_RECENT)
        self._activity = ActivityCounter()
        self.executor = executor or ThreadPoolExecutor(1, "fedstep-store")

    def close(self) -> None:
        """End the thread that writes, and the connections."""
        self.executor.shutdown()
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Return a session that sees one snapshot of the database and blocks no other."""
        with self._reader.begin() as connection:
            yield self._session(connection)

    def write(self, work: Callable[[Session], T]) -> T:
        """Return what `work` returns, done in one transaction in the thread that writes, once it is on disk.

        Do not call it in that thread, which would deadlock.
        """
        return self.executor.submit(self._transact, work).result()

    def start(self, vectors: Mapping[str, Vector], now: float, names: Names = NO_NAMES) -> ModelVersion:
        """Return the newest version of the schema; where there is none, make the first one from `vectors`.

        Coordinates whose `names` were in the schema before this one start with what its production had for them.
        Raise UsageError where projects were promised differential privacy and the policy has no noise.
        """

        def begin(session: Session) -> ModelVersion:
            advisory_lock(session.connection, AGGREGATION_LOCK)
            self._mode.check_store(session.connection)
            session.versions.save_names(names)
            if others := session.buffer.count_others():
                message = (
                    "%d updates of another feature schema wait: they are not aggregated, and deleted after %d days"
                )
                log.warning(message, others, MAX_KEPT_DAYS)
            latest, first = session.versions.latest(), session.versions.next_version()
            if latest:
                self._prune_updates(session, latest, now)
                return latest
            initial = _inherit_vectors(session.versions, vectors, names)
            version = ModelVersion(first, first, now, initial, dict.fromkeys(initial, first))
            session.versions.add(version, parent=None, update_count=0)
            return version

        return self.write(begin)

    def tidy(self, now: float) -> None:
        """Delete updates that are too old, at most once a day, from the files too."""
        if 0.0 <= now - self._pruned_at < DAY:  # a clock that went back since prunes again
            return

        def prune(session: Session) -> None:
            latest = session.versions.latest()
            if latest:
                self._prune_updates(session, latest, now)

        self.write(prune)
        truncate_wal(self._engine)

    def current(self) -> CurrentModels:
        """Return the models to serve. Raise UsageError where the schema has no version."""
        with self.read() as session:
            return session.versions.current()

    def latest_version(self) -> int:
        """Return the newest version."""
        with self.read() as session:
            return session.versions.latest_version()

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """Return by task the vector of a version of any schema that goes on trial: its mean where it has one."""
        with self.read() as session:
            return session.versions.vectors(version)

    def pending(self) -> BufferStatus:
        """Return the counts of the buffer."""
        with self.read() as session:
            pending = session.buffer.count()
        if self._observer:
            self._observer.set_buffer(pending)
        return pending

    def active(self, now: float) -> ActiveCounts:
        """Return how many projects and owners sent an update in the last seven days."""
        with self.read() as session:
            return session.trials.count_active(now)

    def earlier_schema(self) -> str:
        """Return the digest of the schema that was served last, if nothing was served with this one yet; else ""."""
        with self.read() as session:
            previous = None if session.versions.latest_version() else session.versions.previous_schema()
        return previous.digest if previous else ""

    def lineage(self, limit: int) -> VersionListing:
        """Return the newest versions, verdicts and open trials, at most `limit` versions and verdicts."""
        with self.read() as session:
            return list_versions(session.connection, self._shape.digest, limit)

    def accept(
        self, offers: Sequence[UpdateOffer], candidate: int, max_staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        """Return an outcome for each offer, all written in one transaction, once it is on disk.

        A repeat gets its first receipt. `candidate` is the newest version that this process knows of; another one may
        have made a newer one. Runs in the thread that calls it.
        """
        began = time.perf_counter()
        outcomes = self._accept_refusing(offers, candidate, max_staleness, now)
        self._cache.add_accepted(offers, outcomes)
        self._activity.add_updates(len(offers))
        if self._observer:
            self._observer.observe_commit(time.perf_counter() - began)
        return outcomes

    def aggregate(
        self, step: Step, now: float, is_due: Callable[[BufferStatus], bool] = lambda _: True
    ) -> ModelVersion | None:
        """Return the version that `step` makes of the newest one and the buffer, once all it decides is on disk.

        Updates are accepted meanwhile. Return None while another replica aggregates, where `is_due` is false of what
        would be aggregated, and where that changed meanwhile: another replica was faster, rolled back, or deleted a
        project.
        """
        began = time.perf_counter()
        try:
            version = self._aggregate(step, now, is_due)
        except BaseException:
            self._observe_aggregation(began, made=False)
            raise
        if version:
            self._observe_aggregation(began, made=True)
        return version

    def roll_back(self, target: int, now: float) -> ModelVersion:
        """Return a new version whose candidate and production are the production of `target`. Raise UsageError."""

        def restore(session: Session) -> ModelVersion:
            advisory_lock(session.connection, AGGREGATION_LOCK)
            vectors, next_version = session.versions.production(target), session.versions.next_version()
            # production comes from the new version itself, so that what was learned before it is not production's
            version = ModelVersion(next_version, next_version, now, vectors, dict.fromkeys(vectors, next_version))
            session.versions.add(version, parent=target, update_count=0)
            session.trials.record_rollback(version, target)
            return version

        return self.write(restore)

    def forget(self, project: str, owner: str) -> ErasureResult:
        """Delete what an owner sent for a project, from the files too, and return how much that was."""
        deleted = self.executor.submit(self._delete_project, project, owner).result()
        truncate_wal(self._engine)  # waits for readers
        return deleted

    def _session(self, connection: Connection) -> Session:
        return Session(connection, self._shape.digest, self._mode)

    def _transact(self, work: Callable[[Session], T]) -> T:
        with self._engine.begin() as connection:
            return work(self._session(connection))

    def _accept_refusing(
        self, offers: Sequence[UpdateOffer], candidate: int, max_staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        """Accept the offers in one transaction; where the database refuses one of them, each in a transaction."""
        for _ in range(MAX_TRIES):
            try:
                return self._accept_batch(offers, candidate, max_staleness, now)
            except IntegrityError:  # another replica stored one of them meanwhile: its receipt is there next time
                continue
            except DataError:
                break
        if len(offers) == 1:
            return (NOT_STORABLE,)
        alone = (self._accept_refusing([offer], candidate, max_staleness, now) for offer in offers)
        return tuple(outcome for outcomes in alone for outcome in outcomes)

    def _accept_batch(
        self, offers: Sequence[UpdateOffer], candidate: int, max_staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        with self._engine.begin() as connection:
            session = self._session(connection)
            candidate = max(candidate, session.versions.latest_version())
            return session.updates.accept(offers, candidate, max_staleness, now)

    def _aggregate(self, step: Step, now: float, is_due: Callable[[BufferStatus], bool]) -> ModelVersion | None:
        with try_advisory_lock(self._engine, AGGREGATION_LOCK) as check_lock:
            if check_lock is None:
                return None
            # the transaction is over before the aggregation is made: SQLite's log grows as long as one is open
            with self.read() as session:
                buffered = session.buffer.select_next(MAX_AGGREGATED, self._cache.updates)
                aggregation_input = self._read_input(session, buffered, now, is_due)
            if aggregation_input is None:
                return None
            result = step(aggregation_input)
            check_lock()
            if not self.executor.submit(self._save, result, aggregation_input, buffered).result():
                return None
        log_decisions(result.decisions)
        for task, count in result.opposed.items():
            log.info("%s: the updates of %d sources go against all others, and are left out", task, count)
        return result.version

    def _read_input(
        self,
        session: Session,
        buffered: Mapping[str, StoredUpdate],
        now: float,
        is_due: Callable[[BufferStatus], bool],
    ) -> AggregationInput | None:
        """Return all that the next version is made of; None where that is not due."""
        projects = len({stored.project for stored in buffered.values()})
        if not is_due(replace(session.buffer.count(), projects=projects)):
            return None
        self._mode.check_store(session.connection)  # another replica may have another mode, and have accepted these
        active = self._activity.active(now, lambda: session.trials.count_recent(now))
        known = session.trials.count_known(now, active)
        return AggregationInput(
            current=session.versions.current(),
            version=session.versions.next_version(),
            spent=session.trials.spent_margins(),
            restarted=session.trials.last_restarts(),
            promoted=session.trials.promoted_tasks(),
            now=now,
            earlier=session.versions.earlier(),
            buffered=tuple(buffered.values()),
            evidence=self._mode.evidence(session.connection, self._shape.digest, known),
            recent=self._recent_updates,
        )

    def _recent_updates(self) -> Collection[StoredUpdate]:
        """Return the newest updates that were aggregated; the next aggregation finds them in the cache."""
        with self.read() as session:
            recent = session.versions.recent_updates(MAX_RECENT, self._cache.updates)
        self._cache.add({update_id: stored.update() for update_id, stored in recent.items()})
        return recent.values()

    def _save(
        self, result: AggregationResult, made_from: AggregationInput, buffered: Mapping[str, StoredUpdate]
    ) -> bool:
        """Write the result. Return False, and write nothing, where what it was made from has changed."""
        with self._engine.connect() as connection, connection.begin() as transaction:
            session, parent = self._session(connection), made_from.current.candidate.version
            is_unchanged = (
                session.versions.latest_version() == parent and session.versions.next_version() == made_from.version
            )
            if not is_unchanged or not session.buffer.mark_aggregated(buffered, result.version.version):
                transaction.rollback()
                return False
            self._mode.record(connection, self._shape.digest, result, made_from.now)
            # of a discreet mode the number of updates would reveal who took part
            update_count = 0 if self._mode.discreet else len(buffered)
            session.versions.add(result.version, parent=parent, update_count=update_count)
            session.trials.replace_open(result.trials)
            session.trials.close(result.decisions, result.version)
        return True

    def _delete_project(self, project: str, owner: str) -> ErasureResult:
        self._cache.clear()
        self._activity.reset()
        return delete_project(self._engine, project, owner)

    def _prune_updates(self, session: Session, latest: ModelVersion, now: float) -> None:
        session.versions.prune_updates(min(latest.sources.values()), now)
        session.versions.prune_versions()
        session.versions.prune_receipts()
        self._pruned_at = now

    def _observe_aggregation(self, began: float, made: bool) -> None:
        if self._observer:
            self._observer.observe_aggregation(time.perf_counter() - began, made)


def _inherit_vectors(versions: VersionRepository, vectors: Mapping[str, Vector], names: Names) -> Mapping[str, Vector]:
    previous = versions.previous_schema() if names else None
    if previous is None:
        return vectors
    count = sum(len(set(given) & set(previous.names.get(task, ()))) for task, given in names.items())
    log.info("a new schema: %d of its coefficients start as those of schema %s ended", count, previous.digest)
    return inherit_weights(names, vectors, previous.names, previous.production)
