"""A history in memory while past builds are learned into it, in the order in which they ended. Needs scikit-learn."""

import gc
import os
import re
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import count, takewhile
from pathlib import Path

from fedstep.errors import HistoryError, MissingExtra
from fedstep.features.rows import build_examples, plan_build, stream_name
from fedstep.federation.messages import pack_update
from fedstep.federation.model_cache import CachedModel, load_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.sync import may_contribute, record_contribution
from fedstep.federation.update_builder import make_update
from fedstep.history.project_store import IMPORTED, ProjectStore, RecordLog, build_name, exclusive
from fedstep.history.records import BuildRecord, Example, make_record
from fedstep.history.summary import apply_record, forget_pruned
from fedstep.importers.base import BuildFilter, ImportedBuild, ImportItem, ImportSource, order_by_end
from fedstep.importers.parallel import WorkerPool, read_all
from fedstep.model.labels import LabelledExample
from fedstep.model.state import ExampleQueue
from fedstep.model.training import (
    LearnedState,
    is_learned_state_lost,
    learn_record,
    load_state,
    load_unsent,
    save_state,
)
from fedstep.pipeline.predict import author_key, load_predictor
from fedstep.pipeline.prediction_cache import save_prediction
from fedstep.pipeline.train import identify_build, sampling_rule
from fedstep.schema.schema import schema
from fedstep.types import Dropped, Duration, FinishedBuild, Unavailable

STORE_EVERY = 30.0  # seconds: what is learned again after a kill, from the records, which are written at once
COLLECT_EVERY = 100_000  # test results: the collector is off in commands, and parsers are cycles
MAX_WARNINGS = 20  # warnings; the others are counted

ALL_BUILDS, SINGLE_PROCESS = BuildFilter(), WorkerPool(jobs=1)

Progress = Callable[[int, int], None]  # things of the source done, test results so far


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """What went in: builds recorded now, builds known before, test results read, rows learned; and what did not."""

    recorded: int = 0
    known: int = 0
    tests: int = 0
    rows: int = 0
    dropped: int = 0  # builds that could not be read
    warnings: tuple[str, ...] = ()


def backfill(
    home: ProjectStore,
    source: ImportSource,
    build_filter: BuildFilter = ALL_BUILDS,
    keep: int = 500,
    pool: WorkerPool = SINGLE_PROCESS,
    progress: Progress = lambda _done, _results: None,
    clock: Callable[[], float] = time.monotonic,
) -> BackfillResult:
    """Record and learn every wanted build of the source, in the order in which they ended; a build counts once.

    Whatever stops it (Ctrl-C, a source that fails), what was learned until then is stored, and the next run goes on.
    Raises MissingExtra without scikit-learn, HistoryError, and what the source raises.
    """
    with exclusive(home):
        work = _BackfillRun(home, ALL_BUILDS if source.chosen else build_filter, keep, progress, clock)
        try:
            for dropped in source.dropped:
                work.drop(dropped)
            for read in order_by_end(read_all(source._replace(items=work.unknown(source.items)), pool)):
                work.take(read)
            work.lessons.finish()
        finally:
            work.lessons.finish_again()
            work.lessons.store(keep)
    save_prediction(home, work.kept, load_predictor(home, work.kept))
    return work.result()


class _BackfillRun:
    """One backfill on its way."""

    def __init__(
        self, home: ProjectStore, build_filter: BuildFilter, keep: int, progress: Progress, clock: Callable[[], float]
    ) -> None:
        self.kept = load_model(home)
        self.lessons = _lessons(home, self.kept)
        self.build_filter, self.keep, self.progress, self.clock = build_filter, keep, progress, clock
        self.total, self.done, self.tidied, self.stored_at = BackfillResult(), 0, 0, clock()

    def unknown(self, items: Iterable[ImportItem]) -> Iterator[ImportItem]:
        """Those that have to be read; the others count as known."""
        for one in items:
            self.done += 1
            if known := self.lessons.known_under(one.key):
                self.total = replace(self.total, known=self.total.known + known)
                self.progress(self.done, self.total.tests)
            else:
                yield one

    def take(self, read: ImportedBuild) -> None:
        """Learn a build that was read, and store everything now and then."""
        if isinstance(read.found, Dropped):
            self.drop(read.found)
        elif self.build_filter.has(read.found):
            self._learn(read.found)
        self.lessons.note(read.key, read.builds)
        self.progress(self.done, self.total.tests)
        if self.total.tests - self.tidied >= COLLECT_EVERY:
            self.tidied = self.total.tests
            gc.collect()
        if self.clock() - self.stored_at >= STORE_EVERY:
            self.lessons.store(self.keep)
            self.stored_at = self.clock()

    def drop(self, dropped: Dropped) -> None:
        """Name a build that cannot be used."""
        self._warn(f"{dropped.source} {dropped.reason}")
        self.total = replace(self.total, dropped=self.total.dropped + 1)

    def result(self) -> BackfillResult:
        """The counts; warnings of one kind are named a few times and then counted."""
        warnings = (*self.total.warnings, *self.lessons.warnings)
        more = len(warnings) - MAX_WARNINGS
        shown = warnings[:MAX_WARNINGS] + ((f"{more} more like these are not shown",) if more > 0 else ())
        return replace(self.total, rows=self.lessons.rows, warnings=shown)

    def _learn(self, evidence: FinishedBuild) -> None:
        reports, total = evidence.reports, self.total
        lost = [item for item in reports.dropped if not item.kept]
        if self.lessons.learn(evidence):
            self.total = replace(total, recorded=total.recorded + 1, tests=total.tests + len(reports.tests))
            if lost:
                more = f" ({len(lost) - 1} more in this build)" if len(lost) > 1 else ""
                self._warn(f"{evidence.situation.ci.run}: {lost[0].source} {lost[0].reason}{more}")
        else:
            self.total = replace(total, known=total.known + 1, tests=total.tests + len(reports.tests))

    def _warn(self, text: str) -> None:
        self.total = replace(self.total, warnings=(*self.total.warnings, text))


def _lessons(home: ProjectStore, kept: CachedModel) -> "BackfillTrainer":
    try:
        pass
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    return BackfillTrainer(home, kept)


class ImportedBuilds:
    """Keyed hashes of builds, and of what they were read from; one a line in a file that only grows."""

    def __init__(self, home: ProjectStore) -> None:
        self.path = home.path(IMPORTED)
        lines = home.read(IMPORTED).decode("ascii", "replace").split("\n")
        self.names = {line for line in lines if len(line) == 32}
        self.whole = not lines[-1]  # else the last line was cut off by a full disk or a kill

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def add(self, names: Iterable[str]) -> None:
        """Remember these. HistoryError where the file cannot be written."""
        fresh = [name for name in names if name not in self.names]
        if not fresh:
            return
        self.names.update(fresh)
        text = ("" if self.whole else "\n") + "".join(f"{name}\n" for name in fresh)
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode())
        except OSError as error:
            remedy = "Free space or point --history at a folder that can be written"
            raise HistoryError(f"cannot write {os.path.basename(self.path)}: {error.strerror}", remedy) from error
        self.whole = True


VENDORS = ("github", "gitlab", "jenkins")
CLOCK_TOLERANCE = 60.0  # seconds by which the clocks of a runner and of its server may differ


class DuplicateFilter:
    """The records of a log that no import made. A name holds a digest of the reports, which a server may not have."""

    def __init__(self, log: RecordLog, files: list[str]) -> None:
        self.files = files
        self.read = lru_cache(maxsize=32)(log.read)

    def has(self, evidence: FinishedBuild) -> bool:
        """Whether a step of the same job, matrix cell and branch was recorded while this build ran."""
        ci = evidence.situation.ci
        if not self.files or ci.vendor not in VENDORS:
            return False
        first = bisect_left(self.files, _place(evidence.situation.started_at - CLOCK_TOLERANCE))
        last = bisect_right(self.files, _place(evidence.finished_at + CLOCK_TOLERANCE))
        records = (self.read(file) for file in self.files[first:last])
        return any(not isinstance(one, Dropped) and _is_twin(one, evidence) for one in records)


def _place(seconds: float) -> str:
    return f"{max(0, round(seconds * 1000)):014d}"


def _is_twin(entry: BuildRecord, evidence: FinishedBuild) -> bool:
    ci = evidence.situation.ci
    job, cell, _ = [*entry.stream.rsplit("|", 2), "", ""][:3]
    # A cell is what the workflow's author calls it: compared by its words, {"os": "linux"} is linux.
    return job == ci.job and entry.branch == ci.branch and _words(ci.cell) <= _words(cell)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", text.lower()))


class BackfillTrainer:
    """What has been learned so far. Records are written at once, the caches made from them by `store`."""

    def __init__(self, home: ProjectStore, kept: CachedModel) -> None:
        self.home, self.kept = home, kept
        state, files = load_state(home), home.log.files()
        self.state = replace(state, summary=forget_pruned(home, state.summary))
        self.ledger = ImportedBuilds(home)
        self.names = {build_name(file) for file in files}
        self.twins = DuplicateFilter(home.log, [file for file in files if build_name(file) not in self.ledger])
        self.unlearned = deque(file for file in files if file not in self.state.summary.seen)
        self.newest = max(self.state.summary.seen, default="")  # learned before this import
        self.due = sampling_rule(home)
        self.rows = 0
        self.warnings: list[str] = []
        self._again: set[bytes] | None = None  # rows of records that are learned a second time, and were sent
        self._waited: set[bytes] = set()  # rows that waited to be sent before that
        if is_learned_state_lost(home):
            self._start_again(load_unsent(home))

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

    def learn(self, evidence: FinishedBuild) -> bool:
        """Record and learn a build; False for one that the history has, or had before it was pruned."""
        build = identify_build(self.home, evidence)
        if build.name in self.names or build.name in self.ledger or self.twins.has(evidence):
            return False
        self._catch_up(f"{max(0, round(evidence.finished_at * 1000)):014d}")
        summary = self.state.summary
        source = evidence.duration.source if isinstance(evidence.duration, Duration) else ""
        author = author_key(self.home, evidence.situation)
        planned = plan_build(evidence.situation, stream_name(evidence.situation.ci, source), author)
        rows = build_examples(summary, build, planned, self.due)
        entry = make_record(build, planned.stream, author)._replace(schema=schema().digest, rows=rows)
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
        save_state(self.home, self.state)
        self.home.log.prune(keep)

    def _catch_up(self, ended: str) -> None:
        """Learn the records of the log that ended before this; from the first again if later ones are learned."""
        if ended < self.newest:
            self._start_again(self.state.backlog.waiting)
        while self.unlearned and self.unlearned[0] < ended:
            self._take(self.unlearned.popleft())

    def _start_again(self, waiting: Mapping[str, Sequence[LabelledExample]]) -> None:
        """Learn all records once more; of their rows only those that waited until now are sent."""
        self.newest = ""
        self._waited = {_mark(task, ripe.row) for task, rows in waiting.items() for ripe in rows}
        self._again = set()
        self.unlearned = deque(self.home.log.files())
        self.state, self.rows = LearnedState(), 0

    def _take(self, file: str, fresh: bool = False) -> None:
        """Fold in and learn one record, as it stands in the log."""
        entry = self.home.log.read(file)
        if isinstance(entry, Dropped):
            self.warnings.append(f"{entry.source} is skipped: {entry.reason}")
            self.state = replace(self.state, summary=replace(self.state.summary, seen=self.state.summary.seen | {file}))
            return
        self._learn(file, entry, fresh)

    def _learn(self, file: str, entry: BuildRecord, fresh: bool) -> None:
        state = self.state
        summary = apply_record(state.summary, file, entry)
        learned = learn_record(state.correction, state.backlog, entry, summary.tests, self.kept.model.production)
        backlog = learned.backlog
        if self.kept.url:
            backlog = self._sent(self._without_second_turn(backlog, entry, fresh))
        self.rows += learned.ripened
        self.state = LearnedState(summary, learned.correction, backlog)

    def _sent(self, backlog: ExampleQueue) -> ExampleQueue:
        """The backlog without the rows of full batches, which are in the outbox now, where it is our turn."""
        if not may_contribute(self.home, self.kept):
            return backlog
        update, backlog = make_update(backlog, self.kept.model, self.home.keyed)
        if not isinstance(update, Unavailable):
            Outbox(Path(self.home.outbox)).add(pack_update(update))
            record_contribution(self.home, self.kept)
        return backlog

    def _without_second_turn(self, backlog: ExampleQueue, entry: BuildRecord, fresh: bool) -> ExampleQueue:
        """The backlog without rows that were sent before: of records that are learned again only what waited still."""
        if self._again is None:
            return backlog
        if not fresh:
            rows = ((task, row) for task, rows in entry.rows.items() for row in rows)
            self._again |= {_mark(task, row) for task, row in rows} - self._waited
        first_time = {
            task: tuple(ripe for ripe in rows if _mark(task, ripe.row) not in self._again)
            for task, rows in backlog.waiting.items()
        }
        return backlog._replace(waiting=first_time)


def _mark(task: str, row: Example) -> bytes:
    """A row by what it says; its run number changes when the table is made again."""
    text = f"{task}\0{row.subject}\0{row.indices}\0{row.values}"
    return blake2b(text.encode(errors="replace"), digest_size=8).digest()
