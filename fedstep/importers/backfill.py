"""Records past builds in time order and learns from them as if each had just run."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedstep.build.record import Dropped, Evidence
from fedstep.errors import MissingExtra
from fedstep.federation.kept import Kept, kept_model
from fedstep.history.home import Home
from fedstep.history.lock import alone
from fedstep.importers.parallel import Crew, read_all
from fedstep.importers.past import Past, Pending, Read, Wanted, in_order
from fedstep.outlook import keep_outlook
from fedstep.steps import forecaster_for

if TYPE_CHECKING:  # it loads scikit-learn
    from fedstep.importers.lessons import Lessons

__all__ = ["Backfilled", "Progress", "backfill"]

STORE_EVERY = 30.0  # seconds: what is learned again after a kill, from the records, which are written at once
TIDY_EVERY = 100_000  # test results: the collector is off in commands, and parsers are cycles
MOST_NAMED = 20  # warnings; the others are counted

ALL, ALONE = Wanted(), Crew(jobs=1)

Progress = Callable[[int, int], None]  # things of the source done, test results so far


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What went in: builds recorded now, builds known before, test results read, rows learned; and what did not."""

    recorded: int = 0
    known: int = 0
    tests: int = 0
    rows: int = 0
    dropped: int = 0  # builds that could not be read
    warnings: tuple[str, ...] = ()


def backfill(
    home: Home,
    past: Past,
    wanted: Wanted = ALL,
    keep: int = 500,
    crew: Crew = ALONE,
    progress: Progress = lambda _done, _results: None,
    clock: Callable[[], float] = time.monotonic,
) -> Backfilled:
    """Record and learn every wanted build of the source, in the order in which they ended; a build counts once.

    Whatever stops it (Ctrl-C, a source that fails), what was learned until then is stored, and the next run goes on.
    Raises MissingExtra without scikit-learn, HistoryError, and what the source raises.
    """
    with alone(home):
        work = _Work(home, ALL if past.chosen else wanted, keep, progress, clock)
        try:
            for dropped in past.dropped:
                work.drop(dropped)
            for read in in_order(read_all(past._replace(pending=work.unknown(past.pending)), crew)):
                work.take(read)
            work.lessons.finish()
        finally:
            work.lessons.finish_again()
            work.lessons.store(keep)
    keep_outlook(home, work.kept, forecaster_for(home, work.kept))
    return work.result()


class _Work:
    """One backfill on its way."""

    def __init__(self, home: Home, wanted: Wanted, keep: int, progress: Progress, clock: Callable[[], float]) -> None:
        self.kept = kept_model(home)
        self.lessons = _lessons(home, self.kept)
        self.wanted, self.keep, self.progress, self.clock = wanted, keep, progress, clock
        self.total, self.done, self.tidied, self.stored_at = Backfilled(), 0, 0, clock()

    def unknown(self, pending: Iterable[Pending]) -> Iterator[Pending]:
        """Those that have to be read; the others count as known."""
        for one in pending:
            self.done += 1
            if known := self.lessons.known_under(one.key):
                self.total = replace(self.total, known=self.total.known + known)
                self.progress(self.done, self.total.tests)
            else:
                yield one

    def take(self, read: Read) -> None:
        """Learn a build that was read, and store everything now and then."""
        if isinstance(read.found, Dropped):
            self.drop(read.found)
        elif self.wanted.has(read.found):
            self._learn(read.found)
        self.lessons.note(read.key, read.builds)
        self.progress(self.done, self.total.tests)
        if self.total.tests - self.tidied >= TIDY_EVERY:
            self.tidied = self.total.tests
            gc.collect()
        if self.clock() - self.stored_at >= STORE_EVERY:
            self.lessons.store(self.keep)
            self.stored_at = self.clock()

    def drop(self, dropped: Dropped) -> None:
        """Name a build that cannot be used."""
        self._warn(f"{dropped.source} {dropped.reason}")
        self.total = replace(self.total, dropped=self.total.dropped + 1)

    def result(self) -> Backfilled:
        """The counts; warnings of one kind are named a few times and then counted."""
        warnings = (*self.total.warnings, *self.lessons.warnings)
        more = len(warnings) - MOST_NAMED
        shown = warnings[:MOST_NAMED] + ((f"{more} more like these are not shown",) if more > 0 else ())
        return replace(self.total, rows=self.lessons.rows, warnings=shown)

    def _learn(self, evidence: Evidence) -> None:
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


def _lessons(home: Home, kept: Kept) -> "Lessons":
    try:
        from fedstep.importers.lessons import Lessons
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    return Lessons(home, kept)
