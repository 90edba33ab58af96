"""Define the parts that all sources of past builds share: items, filter, order of learning, progress.

A source is a function that returns an `ImportSource` (see `cli.backfill`); reading an item gives finished builds.
"""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple, TextIO

from fedstep.ingest.cases import MAX_TEXT, failure_word
from fedstep.ingest.ci import parse_time
from fedstep.ingest.test_identity import MAX_NAME, ReportTests, combine_reports, make_identity
from fedstep.types import Dropped, FinishedBuild, TestRun, Unavailable


def merge_repeated(runs: Iterable[TestRun]) -> tuple[TestRun, ...]:
    """Return one run per test, as the report reader would: cases of one name in two suites are two tests."""
    return combine_reports([ReportTests("", tuple(runs))]).tests


def clean_test_name(test: str) -> str:
    """Return a test's name `class#name` as the report reader would: printable, of at most MAX_NAME characters."""
    return test if len(test) <= MAX_NAME and test.isprintable() else make_identity(test)


def failure_kind(text: str) -> str:
    """Return the exception, else the first word, at the beginning of a message or stack trace."""
    return failure_word(text[:MAX_TEXT])


ReadResult = FinishedBuild | Dropped
MAX_HELD = 64  # builds that wait for one that ended earlier; some runs wait days for an approval


class ImportItem(NamedTuple):
    """One thing to be read, as a run or a folder, and the function that reads its builds."""

    after: float  # seconds since the epoch; none of its builds ended earlier
    read: Callable[[], tuple[ReadResult, ...]]
    key: tuple[str, ...] = ()  # identifies an item that never changes: once learned, it is not read again


class ImportSource(NamedTuple):
    """The items of a source, oldest first."""

    total: int
    items: Iterable[ImportItem]
    apart: bool = False  # the items can be read in any process, in any order
    chosen: bool = False  # the source has applied the filter already
    dropped: tuple[Dropped, ...] = ()  # found while listing


class BuildFilter(NamedTuple):
    """Which builds are learned."""

    since: float = 0.0  # seconds since the epoch; builds that started earlier are left out
    limit: int = 0  # the newest ones; 0: all
    job: str = ""  # a name, or a pattern with * and ?

    def is_limited(self) -> bool:
        """Tell whether the filter can leave builds out."""
        return self != BuildFilter()

    def has_job(self, job: str) -> bool:
        """Tell whether builds of this job pass."""
        return not self.job or job == self.job or fnmatchcase(job, self.job)

    def has(self, result: ReadResult) -> bool:
        """Tell whether this build passes; what cannot be read does, so that it is reported."""
        if isinstance(result, Dropped):
            return True
        return result.situation.started_at >= self.since and self.has_job(result.situation.ci.job)


class ImportedBuild(NamedTuple):
    """A build, or why there is none."""

    result: ReadResult
    key: tuple[str, ...] = ()  # of its item, where this is the item's last build and all were readable
    builds: int = 0  # of that item


def select_newest(items: Iterable[ImportItem], build_filter: BuildFilter) -> tuple[ImportItem, ...]:
    """Return the newest `build_filter.limit` items, all where there is no limit; oldest first."""
    ordered = sorted(items, key=lambda item: item.after)
    return tuple(ordered[-build_filter.limit :] if build_filter.limit else ordered)


def order_by_end(reads: Iterable[tuple[ImportItem, tuple[ReadResult, ...]]]) -> Iterator[ImportedBuild]:
    """Yield everything that is read, in the order in which the builds ended.

    A build is held back until no later item can have a build that ended before it; at most MAX_HELD are held.
    """
    held: list[tuple[float, int, ImportedBuild]] = []
    order = count()
    for item, results in reads:
        while held and (held[0][0] <= item.after or len(held) > MAX_HELD):
            yield heappop(held)[2]
        for ended, build in _sort_item(item, results):
            heappush(held, (ended, next(order), build))
    while held:
        yield heappop(held)[2]


def _sort_item(item: ImportItem, results: tuple[ReadResult, ...]) -> list[tuple[float, ImportedBuild]]:
    """Return the builds of an item with the times at which they ended, in that order; the last one has the key."""
    timed = [
        (result.finished_at if isinstance(result, FinishedBuild) else item.after, ImportedBuild(result))
        for result in results
    ]
    timed.sort(key=lambda pair: pair[0])
    if timed and item.key and not any(isinstance(result, Dropped) for result in results):
        ended, last = timed[-1]
        timed[-1] = (ended, last._replace(key=item.key, builds=len(timed)))
    return timed


WIDTH = 24
BETWEEN_BARS, BETWEEN_LINES = 0.1, 30.0  # seconds


class ProgressBar:
    """Write the number of builds done and the test results per second, as a bar on a terminal, else as lines."""

    def __init__(self, stream: TextIO, total: int, clock: Callable[[], float]) -> None:
        self.stream, self.total, self.clock = stream, total, clock
        self.is_terminal = stream.isatty()
        self.started_at = self.written_at = clock()

    def __call__(self, done: int, results: int) -> None:
        """Write the progress, unless it was written a moment ago."""
        now = self.clock()
        if now - self.written_at >= (BETWEEN_BARS if self.is_terminal else BETWEEN_LINES):
            self.written_at = now
            text = self.text(done, results, now - self.started_at)
            self._write(f"\r{text}\x1b[K" if self.is_terminal else f"fedstep: {text}\n")

    def text(self, done: int, results: int, seconds: float) -> str:
        """Return the progress as text, with a bar on a terminal.

        >>> import io
        >>> ProgressBar(io.StringIO(), 40, lambda: 0.0).text(10, 5000, 2.0)
        '10 of 40 builds, 5,000 test results, 2,500/s'
        """
        counts = f"{done:,} of {self.total:,} builds, {results:,} test results, {results / max(seconds, 0.001):,.0f}/s"
        if not self.is_terminal:
            return counts
        filled = WIDTH * done // max(1, self.total)
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {counts}"

    def close(self) -> None:
        """Clear the bar."""
        if self.is_terminal:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # the terminal is closed; the import goes on
            self.is_terminal, self.written_at = False, float("inf")


def require_time(text: object) -> float:
    """Return the seconds since 1970 of a time in ISO 8601. Raise ValueError where it is none."""
    seconds = parse_time(str(text))
    if isinstance(seconds, Unavailable):
        raise ValueError(seconds.reason)
    return seconds
