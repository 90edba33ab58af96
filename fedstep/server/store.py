"""What outlives the process: updates, their receipts, every version of head with its parent, and the trials."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Shape
from fedstep.server.attendance import Attendance
from fedstep.server.buffer import Pending
from fedstep.server.chronicle import DAY, Chronicle
from fedstep.server.database import Write, alone, alone_now, at_once, emptied_log, reading
from fedstep.server.forgetting import Forgotten, forget
from fedstep.server.gate import Active
from fedstep.server.inherit import Names, inherited
from fedstep.server.intake import Accepted, Intake, Offer, Refused
from fedstep.server.ledger import Ledger
from fedstep.server.listing import Lineage, lineage
from fedstep.server.migrations import open_engine
from fedstep.server.recent import Recent
from fedstep.server.records import Current, Made, Moment, Stored, Version
from fedstep.server.spending import FREE, Purse, check_promise, keep_noised, known_noised
from fedstep.server.verdict_log import log_verdicts
from fedstep.server.waiting import Waiting

__all__ = ["Accepted", "Offer", "Refused", "Store", "Version"]

Step = Callable[[Moment], Made]

MOST_FOLDED = 1000  # updates in memory at once; what the buffer has beyond it is folded next
TRIES = 3  # to store a batch of which another replica stores a part at the same moment
FOLDING = "fold"  # of one store's replicas one at a time makes a version
NAMELESS: Names = MappingProxyType({})
log = logging.getLogger("fedstep.server")


class Store:
    """One database for one schema. The writer owns it: one thread writes, and another one may fold beside it.

    Two that write would wait for each other: SQLite lets the second one wait for long, and in no order.
    """

    def __init__(self, url: str, shape: Shape, purse: Purse = FREE) -> None:
        """Raises UsageError when the database cannot be opened."""
        self.write: Write = at_once  # where a fold, `forget` and `tidy` write: the writer has a thread for it
        self._purse = purse
        self._engine: Engine = open_engine(url)
        self._reader = reading(self._engine)
        self._shape = shape
        self._pruned = float("-inf")  # when updates were let go last, in seconds since 1970
        self._recent = Recent(MOST_FOLDED)
        self._attendance = Attendance()

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()

    def start(self, vectors: Mapping[str, Vector], now: float, names: Names = NAMELESS) -> Version:
        """The newest version of the schema; where there is none, one that starts with `vectors`.

        Coordinates that by their `names` were in the schema before it start with what its production had for them.
        Raises UsageError where projects were promised noise and nothing is promised now.
        """
        with self._engine.begin() as connection:
            alone(connection, FOLDING)
            check_promise(connection, self._purse)
            chronicle = self._chronicle(connection)
            chronicle.name(names)
            known, first = chronicle.newest(), chronicle.unused()
            if known:
                self._prune(chronicle, known, now)
                return known
            begun = _begun(chronicle, vectors, names)
            made = Version(first, first, now, begun, dict.fromkeys(begun, first))
            return chronicle.add(made, parent=None, folded=0)

    def tidy(self, now: float) -> None:
        """Lets go of what is too old, at most once a day, from the files too."""
        if now - self._pruned >= DAY:
            self.write(lambda: self._tidied(now))
            emptied_log(self._engine)

    def current(self) -> Current:
        """What is to be served. Raises UsageError where nothing of this schema was ever started."""
        with self._reader.begin() as connection:
            return self._chronicle(connection).current()

    def newest(self) -> int:
        """The number of the newest version."""
        with self._reader.begin() as connection:
            return self._chronicle(connection).number()

    def vectors(self, version: int) -> Mapping[str, Vector]:
        """The head of any version ever made."""
        with self._reader.begin() as connection:
            return self._chronicle(connection).vectors(version)

    def accept(self, offers: Sequence[Offer], head: int, staleness: int, now: float) -> tuple[Accepted | Refused, ...]:
        """An answer for each offer, in one transaction: on disk when this returns. A repeat gets the old receipt.

        `head` is the newest version that this process knows of; another one may have made a newer one.
        """
        for _ in range(TRIES - 1):
            try:
                return self._accepted(offers, head, staleness, now)
            except IntegrityError:
                continue  # now the other replica's receipts are there
        return self._accepted(offers, head, staleness, now)

    def pending(self) -> Pending:
        """What is in the buffer."""
        with self._reader.begin() as connection:
            return self._waiting(connection).counted()

    def active(self, now: float) -> Active:
        """Who sent an update lately."""
        with self._reader.begin() as connection:
            return self._ledger(connection).active(now)

    def fold(self, step: Step, now: float, ripe: Callable[[Pending], bool] = lambda _: True) -> Version | None:
        """The version that `step` makes of the newest one and the buffer, written at once with all that it decides.

        Updates are accepted while it is made. None while another replica folds, where what would be folded is not
        `ripe`, and where it changed meanwhile: another one was faster, went back or forgot a project.
        """
        with alone_now(self._engine, FOLDING) as check:
            found = self._found(now, ripe) if check else None
            if check is None or found is None:
                return None
            moment, buffered = found
            made = step(moment)
            check()
            if not self.write(lambda: self._written(made, moment, buffered)):
                return None
        log_verdicts(made.decisions)
        return made.version

    def roll_back(self, version: int, now: float) -> Version:
        """A new version whose head and production are what production was at `version`. Raises UsageError."""
        with self._engine.begin() as connection:
            alone(connection, FOLDING)
            chronicle = self._chronicle(connection)
            vectors, number = chronicle.production(version), chronicle.unused()
            # its own source: whoever goes back wants to be rid of what came since, nothing of it is folded again
            made = Version(number, number, now, vectors, dict.fromkeys(vectors, number))
            chronicle.add(made, parent=version, folded=0)
            self._ledger(connection).roll_back(made, version)
            return made

    def forget(self, project: str, owner: str) -> Forgotten:
        """What was deleted of this owner's project, from the files too."""
        gone = self.write(lambda: self._forgotten(project, owner))
        emptied_log(self._engine)  # waits for who reads
        return gone

    def lineage(self, most: int) -> Lineage:
        """The newest versions, verdicts and open trials, at most so many of each."""
        with self._reader.begin() as connection:
            return lineage(connection, self._shape.digest, most)

    def _accepted(
        self, offers: Sequence[Offer], head: int, staleness: int, now: float
    ) -> tuple[Accepted | Refused, ...]:
        with self._engine.begin() as connection:
            head = max(head, self._chronicle(connection).number())
            outcomes = Intake(connection, self._shape.digest, self._purse).take(offers, head, staleness, now)
        self._recent.came(offers, outcomes)
        self._attendance.came(len(offers))
        return outcomes

    def _tidied(self, now: float) -> None:
        with self._engine.begin() as connection:
            chronicle = self._chronicle(connection)
            newest = chronicle.newest()
            if newest:
                self._prune(chronicle, newest, now)

    def _forgotten(self, project: str, owner: str) -> Forgotten:
        self._recent.clear()
        self._attendance.forget()
        return forget(self._engine, project, owner)

    def _found(self, now: float, ripe: Callable[[Pending], bool]) -> tuple[Moment, Mapping[str, Stored]] | None:
        """As `_moment`, of this moment; it is over before the fold is made, or SQLite's log would grow as long."""
        with self._reader.begin() as connection:
            return self._moment(connection, now, ripe)

    def _moment(
        self, connection: Connection, now: float, ripe: Callable[[Pending], bool]
    ) -> tuple[Moment, Mapping[str, Stored]] | None:
        """All that the next version is made of, and what of it is in the buffer, by id; None where that is not ripe."""
        chronicle, ledger = self._chronicle(connection), self._ledger(connection)
        waiting = self._waiting(connection)
        buffered = waiting.first(MOST_FOLDED, self._recent.updates)
        projects = len({stored.project for stored in buffered.values()})
        if not ripe(replace(waiting.counted(), projects=projects)):
            return None
        check_promise(connection, self._purse)  # another replica may have one, and have taken these
        moment = Moment(
            current=chronicle.current(),
            buffered=tuple(buffered.values()),
            votes=ledger.votes(),
            active=self._attendance.active(now, lambda: ledger.attendance(now)),
            spent=ledger.spent(),
            refolded=ledger.refolded(),
            since=self._since,
            now=now,
            noised=known_noised(connection, self._shape.digest),
            unused=chronicle.unused(),
        )
        return moment, buffered

    def _since(self, version: int) -> Iterator[Stored]:
        """As the chronicle's, of the moment that it is asked for; who reads it reads all of it."""
        with self._reader.begin() as connection:
            yield from self._chronicle(connection).since(version)

    def _written(self, made: Made, moment: Moment, buffered: Mapping[str, Stored]) -> bool:
        """Whether all of it is on disk: nothing where the newest version or the buffer is not what it was made of."""
        with self._engine.connect() as connection, connection.begin() as transaction:
            chronicle, ledger, now = self._chronicle(connection), self._ledger(connection), moment.now
            unchanged = chronicle.number() == moment.current.head.version and chronicle.unused() == moment.unused
            if not unchanged or not self._waiting(connection).end(buffered, made.version.version):
                transaction.rollback()
                return False
            keep_noised(connection, self._shape.digest, made.noised, ledger.on_trial(), self._purse.cost, now)
            chronicle.add(made.version, parent=moment.current.head.version, folded=self._told(buffered))
            ledger.begin(made.trials)
            ledger.end(made.decisions, made.version)
        self._recent.went(buffered)
        return True

    def _prune(self, chronicle: Chronicle, newest: Version, now: float) -> None:
        chronicle.prune(min(newest.sources.values()), now)
        self._pruned = now

    def _told(self, folded: Mapping[str, Stored]) -> int:
        """How many updates a version is said to be made from: none where that would tell who took part."""
        return 0 if self._purse.cost else len(folded)

    def _chronicle(self, connection: Connection) -> Chronicle:
        return Chronicle(connection, self._shape.digest)

    def _ledger(self, connection: Connection) -> Ledger:
        return Ledger(connection, self._shape.digest)

    def _waiting(self, connection: Connection) -> Waiting:
        return Waiting(connection, self._shape.digest)


def _begun(chronicle: Chronicle, vectors: Mapping[str, Vector], names: Names) -> Mapping[str, Vector]:
    found = chronicle.forerunner() if names else None
    if found is None:
        return vectors
    schema, old, weights = found
    kept = sum(len(set(named) & set(old.get(head, ()))) for head, named in names.items())
    log.info("a new schema: %d of its coefficients start as those of schema %s ended", kept, schema)
    return inherited(names, vectors, old, weights)
