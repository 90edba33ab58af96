"""A history in memory while past builds are learned into it, in the order in which they ended. Needs scikit-learn."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import count, takewhile
from pathlib import Path

from fedstep.build.record import Absent, Dropped, Duration, Evidence
from fedstep.features.plan import plan, stream_of
from fedstep.features.rows import rows_of_build
from fedstep.features.schema import schema
from fedstep.federation.batch import make_update
from fedstep.federation.kept import Kept
from fedstep.federation.outbox import Outbox
from fedstep.federation.turn import is_turn, took_turn
from fedstep.federation.wire import pack_update
from fedstep.history.entry import Entry, Row, entry_of
from fedstep.history.home import Home
from fedstep.history.log import build_of
from fedstep.history.memory import forget_pruned
from fedstep.history.summary import fold
from fedstep.importers.ledger import Ledger
from fedstep.importers.twins import Twins
from fedstep.model.catch_up import State, load_state, lost, store_state, waiting_rows
from fedstep.model.labels import Ripe
from fedstep.model.learner import absorb
from fedstep.model.state import Backlog
from fedstep.steps import author_of, named, turn_of

__all__ = ["Lessons"]


class Lessons:
    """What has been learned so far. Records are written at once, the caches made from them by `store`."""

    def __init__(self, home: Home, kept: Kept) -> None:
        self.home, self.kept = home, kept
        state, files = load_state(home), home.log.files()
        self.state = replace(state, summary=forget_pruned(home, state.summary))
        self.ledger = Ledger(home)
        self.names = {build_of(file) for file in files}
        self.twins = Twins(home.log, [file for file in files if build_of(file) not in self.ledger])
        self.unlearned = deque(file for file in files if file not in self.state.summary.seen)
        self.newest = max(self.state.summary.seen, default="")  # learned before this import
        self.due = turn_of(home)
        self.rows = 0
        self.warnings: list[str] = []
        self._again: set[bytes] | None = None  # rows of records that are learned a second time, and were sent
        self._waited: set[bytes] = set()  # rows that waited to be sent before that
        if lost(home):
            self._start_again(waiting_rows(home))

    def known_under(self, key: tuple[str, ...]) -> int:
        """How many builds imports have learned from this thing of a source; 0 where it has to be read."""
        if not key:
            return 0
        names = (self.home.keyed("import", *key, str(number)) for number in count())
        return sum(1 for _ in takewhile(self.ledger.__contains__, names))

    def note(self, key: tuple[str, ...], builds: int) -> None:
        """Remember that all builds of this thing are in the history."""
        if key:
            self.ledger.add([self.home.keyed("import", *key, str(number)) for number in range(builds)])

    def learn(self, evidence: Evidence) -> bool:
        """Record and learn a build; False for one that the history has, or had before it was pruned."""
        build = named(self.home, evidence)
        if build.name in self.names or build.name in self.ledger or self.twins.has(evidence):
            return False
        self._catch_up(f"{max(0, round(evidence.finished_at * 1000)):014d}")
        summary = self.state.summary
        source = evidence.duration.source if isinstance(evidence.duration, Duration) else ""
        author = author_of(self.home, evidence.situation)
        planned = plan(evidence.situation, stream_of(evidence.situation.ci, source), author)
        rows = rows_of_build(summary, build, planned, self.due)
        entry = entry_of(build, planned.stream, author)._replace(schema=schema().digest, rows=rows)
        file = self.home.log.append(entry)
        self.names.add(build.name)
        self.ledger.add([build.name])
        self._take(file, fresh=True)
        return True

    def finish(self) -> None:
        """Learn the records that ended after the last build imported, and store everything."""
        while self.unlearned:
            self._take(self.unlearned.popleft())

    def finish_again(self) -> None:
        """`finish`, if records are being learned once more: left for later, their rows would be sent once more."""
        if self._again is not None:
            self.finish()

    def store(self, keep: int) -> None:
        """Write the caches, then leave the `keep` newest records in the log."""
        summary = forget_pruned(self.home, self.state.summary)
        self.state = replace(self.state, summary=summary)
        store_state(self.home, self.state)
        self.home.log.prune(keep)

    def _catch_up(self, ended: str) -> None:
        """Learn the records of the log that ended before this; from the first again if later ones are learned."""
        if ended < self.newest:
            self._start_again(self.state.backlog.waiting)
        while self.unlearned and self.unlearned[0] < ended:
            self._take(self.unlearned.popleft())

    def _start_again(self, waiting: Mapping[str, Sequence[Ripe]]) -> None:
        """Learn all records once more; of their rows only those that waited until now are sent."""
        self.newest = ""
        self._waited = {_mark(head, ripe.row) for head, rows in waiting.items() for ripe in rows}
        self._again = set()
        self.unlearned = deque(self.home.log.files())
        self.state, self.rows = State(), 0

    def _take(self, file: str, fresh: bool = False) -> None:
        """Fold in and learn one record, as it stands in the log."""
        entry = self.home.log.read(file)
        if isinstance(entry, Dropped):
            self.warnings.append(f"{entry.source} is skipped: {entry.reason}")
            self.state = replace(self.state, summary=replace(self.state.summary, seen=self.state.summary.seen | {file}))
            return
        self._learn(file, entry, fresh)

    def _learn(self, file: str, entry: Entry, fresh: bool) -> None:
        state = self.state
        summary = fold(state.summary, file, entry)
        learned = absorb(state.correction, state.backlog, entry, summary.tests, self.kept.model.production)
        backlog = learned.backlog
        if self.kept.url:
            backlog = self._sent(self._without_second_turn(backlog, entry, fresh))
        self.rows += learned.ripened
        self.state = State(summary, learned.correction, backlog)

    def _sent(self, backlog: Backlog) -> Backlog:
        """The backlog without the rows of full batches, which are in the outbox now, where it is our turn."""
        if not is_turn(self.home, self.kept):
            return backlog
        update, backlog = make_update(backlog, self.kept.model, self.home.keyed)
        if not isinstance(update, Absent):
            Outbox(Path(self.home.outbox)).keep(pack_update(update))
            took_turn(self.home, self.kept)
        return backlog

    def _without_second_turn(self, backlog: Backlog, entry: Entry, fresh: bool) -> Backlog:
        """The backlog without rows that were sent before: of records that are learned again only what waited still."""
        if self._again is None:
            return backlog
        if not fresh:
            rows = ((head, row) for head, rows in entry.rows.items() for row in rows)
            self._again |= {_mark(head, row) for head, row in rows} - self._waited
        first_time = {
            head: tuple(ripe for ripe in rows if _mark(head, ripe.row) not in self._again)
            for head, rows in backlog.waiting.items()
        }
        return backlog._replace(waiting=first_time)


def _mark(head: str, row: Row) -> bytes:
    """A row by what it says; its run number changes when the table is made again."""
    text = f"{head}\0{row.subject}\0{row.indices}\0{row.values}"
    return blake2b(text.encode(errors="replace"), digest_size=8).digest()
