"""Record and learn past builds in the order in which they ended (`fedstep backfill`). Needs scikit-learn.

Summary and models stay in memory meanwhile and are stored every 30 seconds: docs/decisions/0006.
"""

import gc
import os
import re
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import count, takewhile
from pathlib import Path

from fedstep.errors import HistoryError
from fedstep.features.build_features import build_examples
from fedstep.features.test_failure import first_failure_share
from fedstep.federation.messages import pack_update
from fedstep.federation.model_cache import CachedModel, load_model, load_word_weights
from fedstep.federation.outbox import Outbox
from fedstep.federation.sync import may_contribute, record_contribution
from fedstep.federation.update_builder import make_update
from fedstep.history.project_store import IMPORTED, ProjectStore, RecordLog, build_name, exclusive
from fedstep.history.records import BuildRecord, Example, Forecast, make_record
from fedstep.history.summary import PlannedBuild, apply_record, forget_pruned, plan_build, stream_name
from fedstep.history.test_table import with_known_ids
from fedstep.history.timeline import apply_to_timeline
from fedstep.importers.base import BuildFilter, ImportedBuild, ImportItem, ImportSource, order_by_end
from fedstep.importers.parallel import WorkerPool, read_all
from fedstep.model.predictor import Predictor, make_forecast, real_failures
from fedstep.model.state import ExampleQueue
from fedstep.model.training import (
    LearnedState,
    is_learned_state_lost,
    learn_record,
    load_queue,
    load_state,
    outdated_examples,
    save_state,
)
from fedstep.pipeline.predict import author_key, save_prediction
from fedstep.pipeline.train import identify_build, sampling_rule
from fedstep.schema.schema import schema
from fedstep.types import Build, Dropped, Duration, FinishedBuild, Unavailable

STORE_EVERY = 30.0  # seconds; after a kill, this much is learned again from the records, which are written at once
COLLECT_EVERY = 100_000  # test results; commands turn the garbage collector off, and parsers are reference cycles
MAX_WARNINGS = 20  # more are counted

ALL_BUILDS, SINGLE_PROCESS = BuildFilter(), WorkerPool(jobs=1)

Progress = Callable[[int, int], None]  # (items of the source done, test results so far)


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """What a backfill recorded and learned, and what it could not."""

    recorded: int = 0  # builds
    known: int = 0  # builds that were in the history before
    tests: int = 0  # test results read
    rows: int = 0  # examples learned
    dropped: int = 0  # builds that could not be read
    warnings: tuple[str, ...] = ()


def backfill(
    store: ProjectStore,
    source: ImportSource,
    build_filter: BuildFilter = ALL_BUILDS,
    keep: int = 500,
    pool: WorkerPool = SINGLE_PROCESS,
    progress: Progress = lambda _done, _results: None,
    clock: Callable[[], float] = time.monotonic,
) -> BackfillResult:
    """Record and learn every build of the source that `build_filter` selects, in the order in which they ended.

    A build counts once. Whatever stops the backfill (Ctrl-C, a source that fails), what was learned until then is
    stored, and the next run continues. Raise HistoryError, and what the source raises.
    """
    with exclusive(store):
        run = _BackfillRun(store, ALL_BUILDS if source.chosen else build_filter, keep, progress, clock)
        try:
            for dropped in source.dropped:
                run.count_dropped(dropped)
            for build in order_by_end(read_all(source._replace(items=run.skip_known(source.items)), pool)):
                run.learn(build)
            run.trainer.finish()
        finally:
            run.trainer.finish_relearning()
            run.trainer.save(keep)
    save_prediction(store, run.cached)
    return run.result()


class _BackfillRun:
    """The progress and the counts of one backfill."""

    def __init__(
        self, store: ProjectStore, build_filter: BuildFilter, keep: int, progress: Progress, clock: Callable[[], float]
    ) -> None:
        self.cached = load_model(store)
        self.trainer = BackfillTrainer(store, self.cached)
        self.build_filter, self.keep, self.progress, self.clock = build_filter, keep, progress, clock
        self.total, self.done, self.collected_at, self.saved_at = BackfillResult(), 0, 0, clock()

    def skip_known(self, items: Iterable[ImportItem]) -> Iterator[ImportItem]:
        """Yield the items that have to be read, and count the builds of the others as known."""
        for item in items:
            self.done += 1
            if known := self.trainer.count_known(item.key):
                self.total = replace(self.total, known=self.total.known + known)
                self.progress(self.done, self.total.tests)
            else:
                yield item

    def learn(self, imported: ImportedBuild) -> None:
        """Record and learn a build that was read, and save everything every STORE_EVERY seconds."""
        if isinstance(imported.result, Dropped):
            self.count_dropped(imported.result)
        elif self.build_filter.has(imported.result):
            self._learn_build(imported.result)
        self.trainer.mark_known(imported.key, imported.builds)
        self.progress(self.done, self.total.tests)
        if self.total.tests - self.collected_at >= COLLECT_EVERY:
            self.collected_at = self.total.tests
            gc.collect()
        if self.clock() - self.saved_at >= STORE_EVERY:
            self.trainer.save(self.keep)
            self.saved_at = self.clock()

    def count_dropped(self, dropped: Dropped) -> None:
        """Count a build that cannot be used, with a warning."""
        self._warn(f"{dropped.source} {dropped.reason}")
        self.total = replace(self.total, dropped=self.total.dropped + 1)

    def result(self) -> BackfillResult:
        """Return the counts and the first MAX_WARNINGS warnings."""
        warnings = (*self.total.warnings, *self.trainer.warnings)
        more = len(warnings) - MAX_WARNINGS
        first = warnings[:MAX_WARNINGS] + ((f"{more} more like these are not shown",) if more > 0 else ())
        return replace(self.total, rows=self.trainer.rows, warnings=first)

    def _learn_build(self, finished: FinishedBuild) -> None:
        reports, total = finished.reports, self.total
        lost = [item for item in reports.dropped if not item.kept]
        if self.trainer.learn(finished):
            self.total = replace(total, recorded=total.recorded + 1, tests=total.tests + len(reports.tests))
            if lost:
                more = f" ({len(lost) - 1} more in this build)" if len(lost) > 1 else ""
                self._warn(f"{finished.situation.ci.run}: {lost[0].source} {lost[0].reason}{more}")
        else:
            self.total = replace(total, known=total.known + 1, tests=total.tests + len(reports.tests))

    def _warn(self, text: str) -> None:
        self.total = replace(self.total, warnings=(*self.total.warnings, text))


class ImportedBuilds:
    """The file of what was imported: keyed hashes of builds and of the items they were read from, one per line."""

    def __init__(self, store: ProjectStore) -> None:
        self.path = store.path(IMPORTED)
        lines = store.read(IMPORTED).decode("ascii", "replace").split("\n")
        self.names = {line for line in lines if len(line) == 32}
        self.ends_with_newline = not lines[-1]  # else a full disk or a kill cut the last line off

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def add(self, names: Iterable[str]) -> None:
        """Append the names that are not in the file yet. Raise HistoryError where it cannot be written."""
        new_names = [name for name in names if name not in self.names]
        if not new_names:
            return
        self.names.update(new_names)
        text = ("" if self.ends_with_newline else "\n") + "".join(f"{name}\n" for name in new_names)
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode())
        except OSError as error:
            remedy = "Free space or point --history at a folder that can be written"
            raise HistoryError(f"cannot write {os.path.basename(self.path)}: {error.strerror}", remedy) from error
        self.ends_with_newline = True


VENDORS = ("github", "gitlab", "jenkins")
CLOCK_TOLERANCE = 60.0  # seconds by which the clocks of a runner and of its server may differ


class DuplicateFilter:
    """Recognise builds that a step of fedstep recorded itself: the log's records that no import made.

    Their names do not match those of an import, because a name depends on the digest of the reports, and a CI server
    does not always have the same reports.
    """

    def __init__(self, log: RecordLog, files: list[str]) -> None:
        self.files = files
        self.read = lru_cache(maxsize=32)(log.read)

    def has(self, finished: FinishedBuild) -> bool:
        """Tell whether a step of the same job, matrix cell and branch was recorded while this build ran."""
        ci = finished.situation.ci
        if not self.files or ci.vendor not in VENDORS:
            return False
        first = bisect_left(self.files, _file_prefix(finished.situation.started_at - CLOCK_TOLERANCE))
        last = bisect_right(self.files, _file_prefix(finished.finished_at + CLOCK_TOLERANCE))
        records = (self.read(file) for file in self.files[first:last])
        return any(not isinstance(record, Dropped) and _is_duplicate(record, finished) for record in records)


def _file_prefix(seconds: float) -> str:
    """Return how the files of records that ended at this time begin; they sort by time."""
    return f"{max(0, round(seconds * 1000)):014d}"


def _is_duplicate(entry: BuildRecord, finished: FinishedBuild) -> bool:
    ci = finished.situation.ci
    job, cell, _ = [*entry.stream.rsplit("|", 2), "", ""][:3]
    is_job = job.removeprefix(f"{entry.workflow}/") == ci.job
    is_workflow = not entry.workflow or not ci.workflow or entry.workflow == ci.workflow
    # Compared by its words, because its form varies: {"os": "linux"} and linux are the same cell.
    return is_job and is_workflow and entry.branch == ci.branch and _words(ci.cell) <= _words(cell)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", text.lower()))


class BackfillTrainer:
    """Learn builds into the state in memory. Records are written at once, the caches made from them by `save`."""

    def __init__(self, store: ProjectStore, cached: CachedModel) -> None:
        self.store, self.cached, self.words = store, cached, load_word_weights()
        state, files = load_state(store), store.log.files()
        self.state = replace(state, summary=forget_pruned(store, state.summary))
        self.imported = ImportedBuilds(store)
        self.names = {build_name(file) for file in files}
        self.duplicates = DuplicateFilter(store.log, [file for file in files if build_name(file) not in self.imported])
        self.unlearned = deque(file for file in files if file not in self.state.summary.seen)
        self.newest = max(self.state.summary.seen, default="")  # learned before this import
        self.due = sampling_rule(store)
        self.rows = 0
        self.warnings: list[str] = []
        # While all records are learned a second time: digests of the examples that must not be sent again.
        self._sent_before: set[bytes] | None = None
        self._unsent: set[bytes] = set()  # digests of the examples that waited to be sent before that
        if is_learned_state_lost(store):
            self.warnings += outdated_examples(store)
            self._start_again(load_queue(store))

    def count_known(self, key: tuple[str, ...]) -> int:
        """Return how many builds were imported from the item with this key; 0 where it has to be read."""
        if not key:
            return 0
        names = (self.store.keyed_hash("import", *key, str(index)) for index in count())
        return sum(1 for _ in takewhile(self.imported.__contains__, names))

    def mark_known(self, key: tuple[str, ...], builds: int) -> None:
        """Record that all builds of the item with this key are in the history."""
        if key:
            self.imported.add([self.store.keyed_hash("import", *key, str(index)) for index in range(builds)])

    def learn(self, finished: FinishedBuild) -> bool:
        """Record and learn a build; return False for one that the history has, or had before it was pruned."""
        build = identify_build(self.store, finished)
        if build.name in self.names or build.name in self.imported or self.duplicates.has(finished):
            return False
        self._catch_up(_file_prefix(finished.finished_at))
        summary = self.state.summary
        build = build._replace(reports=with_known_ids(build.reports, summary.tests))
        source = finished.duration.source if isinstance(finished.duration, Duration) else ""
        author = author_key(self.store, finished.situation)
        planned = plan_build(finished.situation, stream_name(finished.situation.ci, source, summary.builds), author)
        entry = make_record(build, planned.stream, author)._replace(
            schema=schema().digest,
            **build_examples(summary, build, planned, self.due, self.words)._asdict(),
            forecast=self._forecast(build, planned),
        )
        file = self.store.log.append(entry)
        self.names.add(build.name)
        self.imported.add([build.name])
        self._learn_file(file, is_new=True)
        return True

    def _forecast(self, build: Build, planned: PlannedBuild) -> Forecast:
        """Return what would have been predicted for the build with today's shared model and the builds before it."""
        predictor = Predictor(self.cached.model.production, self.state.correction, self.words)
        summary = self.state.summary
        expected, risk = predictor.duration(summary, planned), predictor.failure(summary, planned)
        version = self.cached.model.production_version if self.cached.url else 0
        failures = predictor.failures(summary, build, planned.stream)
        first_failure = first_failure_share(summary, build, real_failures(failures))
        return make_forecast(expected, risk, failures, version)._replace(first_failure=first_failure)

    def finish(self) -> None:
        """Learn the records that ended after the last imported build."""
        while self.unlearned:
            self._learn_file(self.unlearned.popleft())

    def finish_relearning(self) -> None:
        """Call `finish` if records are being learned again; learned later, their examples would be sent again."""
        if self._sent_before is not None:
            self.finish()

    def save(self, keep: int) -> None:
        """Write the caches, then leave the `keep` newest records in the log."""
        summary = forget_pruned(self.store, self.state.summary)
        self.state = replace(self.state, summary=summary)
        save_state(self.store, self.state)
        self.store.log.prune(keep)

    def _catch_up(self, ended: str) -> None:
        """Learn the log's records that ended before; start from the first again if later ones are learned already."""
        if ended < self.newest:
            self._start_again(self.state.backlog)
        while self.unlearned and self.unlearned[0] < ended:
            self._learn_file(self.unlearned.popleft())

    def _start_again(self, before: ExampleQueue) -> None:
        """Learn all records again; of their examples only those are sent that waited before."""
        self.newest = ""
        self._unsent = {_digest(task, example.example) for task, rows in before.waiting.items() for example in rows}
        self._sent_before = set()
        self.unlearned = deque(self.store.log.files())
        self.state, self.rows = LearnedState(backlog=ExampleQueue(sent=before.sent)), 0

    def _learn_file(self, file: str, is_new: bool = False) -> None:
        """Learn one record as it was written to the log."""
        entry = self.store.log.read(file)
        if isinstance(entry, Dropped):
            self.warnings.append(f"{entry.source} is skipped: {entry.reason}")
            self.state = replace(self.state, summary=replace(self.state.summary, seen=self.state.summary.seen | {file}))
            return
        self._learn_record(file, entry, is_new)

    def _learn_record(self, file: str, entry: BuildRecord, is_new: bool) -> None:
        state = self.state
        summary = apply_record(state.summary, file, entry)
        learned = learn_record(state.correction, state.backlog, entry, summary.tests, self.cached.model.production)
        backlog = learned.backlog
        if self.cached.url:
            backlog = self._make_update(self._remove_sent(backlog, entry, is_new))
        self.rows += learned.labels_known
        timeline = apply_to_timeline(state.timeline, entry, summary.tests, learned.flakes)
        self.state = LearnedState(summary, learned.correction, backlog, timeline)

    def _make_update(self, backlog: ExampleQueue) -> ExampleQueue:
        """Add an update of the full batches to the outbox, if one may be made, and return the rest of the queue."""
        if not may_contribute(self.store, self.cached):
            return backlog
        update, backlog = make_update(backlog, self.cached.model, self.store.keyed_hash)
        if not isinstance(update, Unavailable):
            Outbox(Path(self.store.outbox)).add(pack_update(update))
            record_contribution(self.store, self.cached)
        return backlog

    def _remove_sent(self, backlog: ExampleQueue, entry: BuildRecord, is_new: bool) -> ExampleQueue:
        """Return the queue without examples that were sent before: of relearned records, all but the unsent ones."""
        if self._sent_before is None:
            return backlog
        if not is_new:
            examples = ((task, example) for task, rows in entry.rows.items() for example in rows)
            self._sent_before |= {_digest(task, example) for task, example in examples} - self._unsent
        unsent = {
            task: tuple(example for example in rows if _digest(task, example.example) not in self._sent_before)
            for task, rows in backlog.waiting.items()
        }
        return backlog._replace(waiting=unsent)


def _digest(task: str, example: Example) -> bytes:
    """Return a hash of an example's content; its run number changes when the table is made again."""
    text = f"{task}\0{example.subject}\0{example.indices}\0{example.values}"
    return blake2b(text.encode(errors="replace"), digest_size=8).digest()
