"""Predicts each test's time before its build, beside the median of its last 20 times, from recorded builds."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from fedstep.build.record import Absent, Evidence, Outcome, TestRun
from fedstep.features.builds import median
from fedstep.features.test_duration import expected_seconds
from fedstep.history.tests import evidence
from fedstep.history.times import WINDOW, read_times, with_time

__all__ = ["TimedRun", "predict_test_times"]

FIRST_BUILDS = 10  # not scored
FEWEST_TIMES = 3  # known of a test before it is scored
FINEST = 0.01  # seconds; below it a report in milliseconds tells little more than its own rounding


class TimedRun(NamedTuple):
    """One run of a test, and what was expected of it before its build started. Times are seconds."""

    test: str
    build: int  # its number in the stream, from 0
    seconds: float  # > 0
    expected: float
    median_20: float  # may be 0, where reports round to it

    def is_resolved(self) -> bool:
        """Whether the test's times can be told from rounding.

        By its past alone: to ask the run itself would select the runs that took longer than usual.
        """
        return self.median_20 >= FINEST


@dataclass(frozen=True, slots=True)
class _Known:
    """The recent times by test: as the history keeps them, and as they were reported."""

    kept: dict[str, str] = field(default_factory=dict)
    reported: dict[str, deque[float]] = field(default_factory=dict)

    def learn(self, tests: tuple[TestRun, ...]) -> None:
        """Take in the times of a finished build; failures in an incident tell nothing, as everywhere."""
        for run in evidence(tests):
            if run.seconds >= 0:
                self.kept[run.test] = with_time(self.kept.get(run.test, ""), run.seconds)
                self.reported.setdefault(run.test, deque(maxlen=WINDOW)).append(run.seconds)


def predict_test_times(builds: Iterable[Evidence]) -> Iterator[TimedRun]:
    """The timed runs of all builds but the first 10, of tests with three known times; the builds are in time order.

    Known are the builds that had finished when a build started; skipped runs and times of 0 are not scored. Memory
    grows with the tests, 20 times each, and the builds that overlap, not with the number of builds.
    """
    known = _Known()
    running: list[tuple[float, int, tuple[TestRun, ...]]] = []
    for number, build in enumerate(builds):
        while running and running[0][0] <= build.situation.started_at:
            known.learn(heappop(running)[2])
        if number >= FIRST_BUILDS:
            yield from _timed_runs(known, number, build.reports.tests)
        heappush(running, (build.finished_at, number, build.reports.tests))


def _timed_runs(known: _Known, number: int, tests: tuple[TestRun, ...]) -> Iterator[TimedRun]:
    for run in tests:
        times = known.reported.get(run.test, ())
        if run.outcome == Outcome.SKIPPED or not run.seconds > 0 or len(times) < FEWEST_TIMES:
            continue
        expected = expected_seconds(read_times(known.kept[run.test]))
        if not isinstance(expected, Absent):
            yield TimedRun(run.test, number, run.seconds, expected, median(tuple(times)))
