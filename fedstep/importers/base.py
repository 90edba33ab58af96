"""Past builds that are still to be read: where they are, in which order they are learned, which of them are wanted."""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple, TextIO

from fedstep.ingest.cases import MAX_NAME, MAX_TEXT, failure_word, make_identity
from fedstep.ingest.junit import combine_outcomes, merge_attempts
from fedstep.types import Dropped, FinishedBuild, TestRun


def merge_repeated(runs: Iterable[TestRun]) -> tuple[TestRun, ...]:
    """One run a test: cases that share a name are its attempts."""
    tests: dict[str, TestRun] = {}
    attempts: dict[str, str] = {}
    for run in runs:
        tests[run.test] = merge_attempts(tests[run.test], run) if run.test in tests else run
        attempts[run.test] = attempts.get(run.test, "") + run.outcome
    repeated = {test for test, outcomes in attempts.items() if len(outcomes) > 1}
    return tuple(
        run._replace(outcome=combine_outcomes(attempts[test])) if test in repeated else run
        for test, run in tests.items()
    )


def clean_test_name(test: str) -> str:
    """A test's name `class#name` as the reader of reports would write it: printable, and not endless."""
    return test if len(test) <= MAX_NAME and test.isprintable() else make_identity(test)


def failure_kind(text: str) -> str:
    """The exception or the first word at the beginning of a message or stack trace."""
    return failure_word(text[:MAX_TEXT])


ReadResult = FinishedBuild | Dropped
MAX_HELD = 64  # builds read that wait for one that ended earlier: some runs wait days for an approval


class ImportItem(NamedTuple):
    """One thing to be read: what it gives, none of which ended before `after` (seconds since the epoch)."""

    after: float
    read: Callable[[], tuple[ReadResult, ...]]
    key: tuple[
        str, ...
    ] = ()  # names the thing at its source where it never changes: what was learned is not read again


class ImportSource(NamedTuple):
    """What a source has, oldest first.

    `apart`: things can be read in any process, in any order. `chosen`: the source has left out what is not wanted.
    """

    total: int
    items: Iterable[ImportItem]
    apart: bool = False
    chosen: bool = False
    dropped: tuple[Dropped, ...] = ()  # seen while listing


class BuildFilter(NamedTuple):
    """Which builds are learned: those that started at `since` or later, of jobs that match, the newest `limit`."""

    since: float = 0.0
    limit: int = 0  # 0: all
    job: str = ""  # a name, or a pattern with * and ?

    def limited(self) -> bool:
        """Whether some builds of a source may not be wanted."""
        return self != BuildFilter()

    def has_job(self, job: str) -> bool:
        """Whether builds of this job are wanted."""
        return not self.job or job == self.job or fnmatchcase(job, self.job)

    def has(self, found: ReadResult) -> bool:
        """Whether this build is wanted; what cannot be read is, so that it is named."""
        if isinstance(found, Dropped):
            return True
        return found.situation.started_at >= self.since and self.has_job(found.situation.ci.job)


class ImportedBuild(NamedTuple):
    """A build, or why there is none. The last of a thing that gave `builds` and nothing else names it with `key`."""

    found: ReadResult
    key: tuple[str, ...] = ()
    builds: int = 0


def select_newest(items: Iterable[ImportItem], build_filter: BuildFilter) -> tuple[ImportItem, ...]:
    """The newest `wanted.limit` of them, all where there is no limit; oldest first."""
    ordered = sorted(items, key=lambda one: one.after)
    return tuple(ordered[-build_filter.limit :] if build_filter.limit else ordered)


def order_by_end(reads: Iterable[tuple[ImportItem, tuple[ReadResult, ...]]]) -> Iterator[ImportedBuild]:
    """All that is read, in the order in which the builds ended.

    A build is held back until nothing that comes later can have ended before it; at most MOST_HELD are.
    """
    held: list[tuple[float, int, ImportedBuild]] = []
    number = count()
    for items, found in reads:
        while held and (held[0][0] <= items.after or len(held) > MAX_HELD):
            yield heappop(held)[2]
        for ended, read in _marked(items, found):
            heappush(held, (ended, next(number), read))
    while held:
        yield heappop(held)[2]


def _marked(items: ImportItem, found: tuple[ReadResult, ...]) -> list[tuple[float, ImportedBuild]]:
    """What was read with the time at which it ended, in that order."""
    timed = sorted(
        ((one.finished_at if isinstance(one, FinishedBuild) else items.after, ImportedBuild(one)) for one in found),
        key=lambda pair: pair[0],
    )
    if timed and items.key and not any(isinstance(one, Dropped) for one in found):
        ended, last = timed[-1]
        timed[-1] = (ended, last._replace(key=items.key, builds=len(timed)))
    return timed


WIDTH = 24
BETWEEN_BARS, BETWEEN_LINES = 0.1, 30.0  # seconds


class ProgressBar:
    """Writes builds done of all there are, and test results a second since the start."""

    def __init__(self, stream: TextIO, total: int, clock: Callable[[], float]) -> None:
        self.stream, self.total, self.clock = stream, total, clock
        self.watched = stream.isatty()
        self.began = self.shown = clock()

    def __call__(self, done: int, results: int) -> None:
        """Say that so many builds are done, if it was not said a moment ago."""
        now = self.clock()
        if now - self.shown >= (BETWEEN_BARS if self.watched else BETWEEN_LINES):
            self.shown = now
            text = self.text(done, results, now - self.began)
            self._write(f"\r{text}\x1b[K" if self.watched else f"fedstep: {text}\n")

    def text(self, done: int, results: int, seconds: float) -> str:
        """The bar for so many builds in so many seconds.

        >>> import io
        >>> ProgressBar(io.StringIO(), 40, lambda: 0.0).text(10, 5000, 2.0)
        '10 of 40 builds, 5,000 test results, 2,500/s'
        """
        counts = f"{done:,} of {self.total:,} builds, {results:,} test results, {results / max(seconds, 0.001):,.0f}/s"
        if not self.watched:
            return counts
        filled = WIDTH * done // max(1, self.total)
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {counts}"

    def close(self) -> None:
        """Take the bar away."""
        if self.watched:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # whoever watched has left; the import goes on
            self.watched, self.shown = False, float("inf")
