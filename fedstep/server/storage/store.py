"""Store updates, receipts, every version with its parent, and the trials."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from fedstep.federation.messages import SchemaShape, Update
from fedstep.federation.tensors import Vector
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    AggregationResult,
    CurrentModels,
    ModelVersion,
    StoredUpdate,
)
from fedstep.server.aggregation.policy import BufferStatus
from fedstep.server.aggregation.step import Names, inherit_weights, log_decisions
from fedstep.server.gate import ActiveCounts
from fedstep.server.mode import PLAIN, AggregationMode
from fedstep.server.storage.engine import (
    Write,
    advisory_lock,
    at_once,
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
    UpdateOffer,
    UpdateRejected,
    UpdateRepository,
    delete_project,
)
from fedstep.server.storage.version_repository import DAY, VersionListing, VersionRepository, list_versions

SOON = 10_000  # updates that are read in 30 ms: fewer are counted every time
PART = 4  # of the updates that were counted, one part has to be new
MANY = 100  # projects, and owners: what the gate asks of them is whether there are one, or five
LONGEST = 600.0  # seconds; other processes accept, too
NOBODY = ActiveCounts(0, 0)


@dataclass(slots=True)
class ActivityCounter:
    """Who was counted last. Where there are many of both a quarter more is no matter; few are counted every time."""

    _active: ActiveCounts = NOBODY
    _updates: int = 0  # that it was counted from
    _came: int = 0  # since
    _at: float = float("-inf")

    def came(self, updates: int) -> None:
        """So many more were accepted."""
        self._came += updates

    def forget(self) -> None:
        """Somebody may be gone: the next one counts."""
        self._at = float("-inf")

    def active(self, now: float, count: Callable[[], tuple[ActiveCounts, int]]) -> ActiveCounts:
        """Who is active, counted now where that may say something else; `count` says of how many updates, too."""
        old = not 0.0 <= now - self._at < LONGEST
        few = self._updates < SOON or min(self._active.projects, self._active.owners) < MANY
        if old or few or self._came * PART > self._updates:
            self._active, self._updates = count()
            self._came, self._at = 0, now
        return self._active


class UpdateCache:
    """At most so many updates by id; who came first is let go first."""

    def __init__(self, most: int) -> None:
        self._most, self._updates = most, OrderedDict[str, Update]()
        self.updates: Mapping[str, Update] = MappingProxyType(self._updates)

    def came(self, offers: Sequence[UpdateOffer], outcomes: Sequence[StoredReceipt | UpdateRejected]) -> None:
        """Those of the offers that were accepted, and not before."""
        for offer, outcome in zip(offers, outcomes, strict=True):
            if offer.update and isinstance(outcome, StoredReceipt) and not outcome.repeat:
                self._updates[offer.id] = offer.update
        while len(self._updates) > self._most:
            self._updates.popitem(last=False)

    def went(self, ids: Iterable[str]) -> None:
        """These are needed no longer."""
        for number in ids:
            self._updates.pop(number, None)

    def clear(self) -> None:
        """None is."""
        self._updates.clear()


Step = Callable[[AggregationInput], AggregationResult]

MAX_AGGREGATED = 1000  # updates in memory at once; what the buffer has beyond it is folded next
TRIES = 3  # to store a batch of which another replica stores a part at the same moment
AGGREGATION_LOCK = "fold"  # of one store's replicas one at a time makes a version
NAMELESS: Names = MappingProxyType({})
log = logging.getLogger("fedstep.server")


class Store:
    """One database for one schema. The writer owns it: one thread writes, and another one may fold beside it.

    Two that write would wait for each other: SQLite lets the second one wait for long, and in no order.
    """

    def __init__(self, url: str, shape: SchemaShape, mode: AggregationMode = PLAIN) -> None:
        """Raises UsageError when the database cannot be opened."""
        self.write: Write = at_once  # where a fold, `forget` and `tidy` write: the writer has a thread for it
        self._mode = mode
        self._engine: Engine = open_engine(url)
        self._reader = read_only(self._engine)
        self._shape = shape
        self._pruned = float("-inf")  # when updates were let go last, in seconds since 1970
        self._recent = UpdateCache(MAX_AGGREGATED)
        self._attendance = ActivityCounter()

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()

    def start(self, vectors: Mapping[str, Vector], now: float, names: Names = NAMELESS) -> ModelVersion:
        """The newest version of the schema; where there is none, one that starts with `vectors`.

        Coordinates that by their `names` were in the schema before it start with what its production had for them.
        Raises UsageError where projects were promised noise and nothing is promised now.
        """
        with self._engine.begin() as connection:
            advisory_lock(connection, AGGREGATION_LOCK)
            self._mode.check_store(connection)
            chronicle = self._chronicle(connection)
            chronicle.name(names)
            known, first = chronicle.newest(), chronicle.unused()
            if known:
                self._prune(chronicle, known, now)
                return known
            begun = _begun(chronicle, vectors, names)
            made = ModelVersion(first, first, now, begun, dict.fromkeys(begun, first))
            return chronicle.add(made, parent=None, folded=0)

    def tidy(self, now: float) -> None:
        """Lets go of what is too old, at most once a day, from the files too."""
        if now - self._pruned >= DAY:
            self.write(lambda: self._tidied(now))
            truncate_wal(self._engine)

    def current(self) -> CurrentModels:
        """What is to be served. Raises UsageError where nothing of this schema was ever started."""
        with self._reader.begin() as connection:
            return self._chronicle(connection).current()

    def newest(self) -> int:
        """The number of the newest version."""
        with self._reader.begin() as connection:
            return self._chronicle(connection).number()

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """The task of any version ever made."""
        with self._reader.begin() as connection:
            return self._chronicle(connection).vectors(version)

    def accept(
        self, offers: Sequence[UpdateOffer], task: int, staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        """An answer for each offer, in one transaction: on disk when this returns. A repeat gets the old receipt.

        `candidate` is the newest version that this process knows of; another one may have made a newer one.
        """
        for _ in range(TRIES - 1):
            try:
                return self._accepted(offers, task, staleness, now)
            except IntegrityError:
                continue  # now the other replica's receipts are there
        return self._accepted(offers, task, staleness, now)

    def pending(self) -> BufferStatus:
        """What is in the buffer."""
        with self._reader.begin() as connection:
            return self._waiting(connection).counted()

    def active(self, now: float) -> ActiveCounts:
        """Who sent an update lately."""
        with self._reader.begin() as connection:
            return self._ledger(connection).active(now)

    def fold(
        self, step: Step, now: float, ripe: Callable[[BufferStatus], bool] = lambda _: True
    ) -> ModelVersion | None:
        """The version that `step` makes of the newest one and the buffer, written at once with all that it decides.

        Updates are accepted while it is made. None while another replica folds, where what would be folded is not
        `ripe`, and where it changed meanwhile: another one was faster, went back or forgot a project.
        """
        with try_advisory_lock(self._engine, AGGREGATION_LOCK) as check:
            found = self._found(now, ripe) if check else None
            if check is None or found is None:
                return None
            moment, buffered = found
            made = step(moment)
            check()
            if not self.write(lambda: self._written(made, moment, buffered)):
                return None
        log_decisions(made.decisions)
        return made.version

    def roll_back(self, version: int, now: float) -> ModelVersion:
        """A new version whose candidate and production are what production was at `version`. Raises UsageError."""
        with self._engine.begin() as connection:
            advisory_lock(connection, AGGREGATION_LOCK)
            chronicle = self._chronicle(connection)
            vectors, number = chronicle.production(version), chronicle.unused()
            # its own source: whoever goes back wants to be rid of what came since, nothing of it is folded again
            made = ModelVersion(number, number, now, vectors, dict.fromkeys(vectors, number))
            chronicle.add(made, parent=version, folded=0)
            self._ledger(connection).roll_back(made, version)
            return made

    def forget(self, project: str, owner: str) -> ErasureResult:
        """What was deleted of this owner's project, from the files too."""
        gone = self.write(lambda: self._forgotten(project, owner))
        truncate_wal(self._engine)  # waits for who reads
        return gone

    def lineage(self, most: int) -> VersionListing:
        """The newest versions, verdicts and open trials, at most so many of each."""
        with self._reader.begin() as connection:
            return list_versions(connection, self._shape.digest, most)

    def _accepted(
        self, offers: Sequence[UpdateOffer], task: int, staleness: int, now: float
    ) -> tuple[StoredReceipt | UpdateRejected, ...]:
        with self._engine.begin() as connection:
            task = max(task, self._chronicle(connection).number())
            outcomes = UpdateRepository(connection, self._shape.digest, self._mode).take(offers, task, staleness, now)
        self._recent.came(offers, outcomes)
        self._attendance.came(len(offers))
        return outcomes

    def _tidied(self, now: float) -> None:
        with self._engine.begin() as connection:
            chronicle = self._chronicle(connection)
            newest = chronicle.newest()
            if newest:
                self._prune(chronicle, newest, now)

    def _forgotten(self, project: str, owner: str) -> ErasureResult:
        self._recent.clear()
        self._attendance.forget()
        return delete_project(self._engine, project, owner)

    def _found(
        self, now: float, ripe: Callable[[BufferStatus], bool]
    ) -> tuple[AggregationInput, Mapping[str, StoredUpdate]] | None:
        """As `_moment`, of this moment; it is over before the fold is made, or SQLite's log would grow as long."""
        with self._reader.begin() as connection:
            return self._moment(connection, now, ripe)

    def _moment(
        self, connection: Connection, now: float, ripe: Callable[[BufferStatus], bool]
    ) -> tuple[AggregationInput, Mapping[str, StoredUpdate]] | None:
        """All that the next version is made of, and what of it is in the buffer, by id; None where that is not ripe."""
        chronicle, ledger = self._chronicle(connection), self._ledger(connection)
        waiting = self._waiting(connection)
        buffered = waiting.first(MAX_AGGREGATED, self._recent.updates)
        projects = len({stored.project for stored in buffered.values()})
        if not ripe(replace(waiting.counted(), projects=projects)):
            return None
        self._mode.check_store(connection)  # another replica may have one, and have taken these
        moment = AggregationInput(
            current=chronicle.current(),
            version=chronicle.unused(),
            spent=ledger.spent(),
            replayed=ledger.replayed(),
            now=now,
            buffered=tuple(buffered.values()),
            evidence=self._mode.evidence(
                connection, self._shape.digest, self._attendance.active(now, lambda: ledger.attendance(now))
            ),
            since=self._since,
        )
        return moment, buffered

    def _since(self, version: int) -> Iterator[StoredUpdate]:
        """As the chronicle's, of the moment that it is asked for; who reads it reads all of it."""
        with self._reader.begin() as connection:
            yield from self._chronicle(connection).since(version)

    def _written(self, made: AggregationResult, moment: AggregationInput, buffered: Mapping[str, StoredUpdate]) -> bool:
        """Whether all of it is on disk: nothing where the newest version or the buffer is not what it was made of."""
        with self._engine.connect() as connection, connection.begin() as transaction:
            chronicle, ledger = self._chronicle(connection), self._ledger(connection)
            unchanged = chronicle.number() == moment.current.candidate.version and chronicle.unused() == moment.version
            if not unchanged or not self._waiting(connection).end(buffered, made.version.version):
                transaction.rollback()
                return False
            self._mode.record(connection, self._shape.digest, made, moment.now)
            chronicle.add(made.version, parent=moment.current.candidate.version, folded=self._told(buffered))
            ledger.begin(made.trials)
            ledger.end(made.decisions, made.version)
        self._recent.went(buffered)
        return True

    def _prune(self, chronicle: VersionRepository, newest: ModelVersion, now: float) -> None:
        chronicle.prune(min(newest.sources.values()), now)
        self._pruned = now

    def _told(self, folded: Mapping[str, StoredUpdate]) -> int:
        """How many updates a version is said to be made from: none where that would tell who took part."""
        return 0 if self._mode.discreet else len(folded)

    def _chronicle(self, connection: Connection) -> VersionRepository:
        return VersionRepository(connection, self._shape.digest)

    def _ledger(self, connection: Connection) -> TrialRepository:
        return TrialRepository(connection, self._shape.digest)

    def _waiting(self, connection: Connection) -> UpdateBuffer:
        return UpdateBuffer(connection, self._shape.digest)


def _begun(chronicle: VersionRepository, vectors: Mapping[str, Vector], names: Names) -> Mapping[str, Vector]:
    found = chronicle.forerunner() if names else None
    if found is None:
        return vectors
    schema, old, weights = found
    kept = sum(len(set(named) & set(old.get(task, ()))) for task, named in names.items())
    log.info("a new schema: %d of its coefficients start as those of schema %s ended", kept, schema)
    return inherit_weights(names, vectors, old, weights)
