"""Online detection of lasting changes of a time: a test or a job that became slower or faster for good.

A Bernoulli CUSUM (Reynolds and Stoumbos, "A CUSUM chart for monitoring a proportion when inspecting continuously",
1999): each run counts only as beyond a bound or not, so that one outlier says no more than a slow run. How much a run
beyond the bound says depends on how often the settled runs were there: for a test with two modes, more runs are needed.
Decision 0052 compares it with other rules on recorded times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import log
from operator import attrgetter
from statistics import median
from typing import NamedTuple

from fedstep.history.test_table import read_times, with_time

SETTLED = 40  # runs from which the usual time is taken
FEWEST = 12  # of them before a change can be found
RECENT = 6  # runs that are looked at together ...
BEYOND = 5  # ... so many of them must be beyond the bound
EVIDENCE = 8.0  # log-likelihood ratio that makes a finding
CHANGED = 0.9  # share of runs beyond the bound after a change
RAREST, MOST = 0.02, 0.6  # bounds of the share of settled runs beyond the bound
_LETTERS_PER_TIME = 2


class Direction(IntEnum):
    """Whether a time rose or fell."""

    FASTER = -1
    SLOWER = 1


class LevelShift(NamedTuple):
    """A change that was found. Times are what the detector was given; builds are numbers of builds."""

    direction: Direction
    before: float  # median time of the settled runs
    after: float  # median time of the runs beyond the bound
    last_before: int  # the last build before the first that speaks for the change
    first: int  # the first build that speaks for the change


@dataclass(slots=True)
class TimeLevel:
    """The usual time of one test or job, and the evidence that it has changed. Mutable: `observe` changes it."""

    settled: str = ""  # times as `read_times` reads them, oldest first
    recent: str = ""  # times that are not settled yet
    last_build: int = -1  # number of the last build that was observed
    rising: float = 0.0  # evidence for slower, in nats
    rising_after: int = -1  # the build before the evidence began, and the build with which it did
    rising_from: int = -1
    falling: float = 0.0
    falling_after: int = -1
    falling_from: int = -1
    usual: float = 0.0  # median of the settled times, in seconds; 0 while there are too few
    above: float = 0.0  # share of the settled times above and below the bounds
    below: float = 0.0

    def copy(self) -> "TimeLevel":
        """Return a copy."""
        return TimeLevel(*_get_values(self))

    def observe(self, seconds: float, build: int, step: float) -> LevelShift | None:
        """Add one time; return the change that it completes, else None.

        `step` is the least factor between two levels, such as 1.5: a time beyond it counts as evidence.
        """
        before, self.last_build = self.last_build, build
        if not self.usual:
            self.settled = with_time(self.settled, seconds, SETTLED)
            if len(self.settled) >= FEWEST * _LETTERS_PER_TIME:
                self._settle(step)
            return None
        self.recent += with_time("", seconds)
        if seconds > self.usual * step or self.rising:
            self._weigh_rise(seconds > self.usual * step, before, build)
        if seconds * step < self.usual or self.falling:
            self._weigh_fall(seconds * step < self.usual, before, build)
        if self.rising >= EVIDENCE and (shift := self._shift(Direction.SLOWER, step)):
            return shift
        if self.falling >= EVIDENCE and (shift := self._shift(Direction.FASTER, step)):
            return shift
        if len(self.recent) >= 2 * RECENT * _LETTERS_PER_TIME:  # in blocks: the median of 40 takes 10 us
            kept = RECENT * _LETTERS_PER_TIME
            self.settled = (self.settled + self.recent[:-kept])[-SETTLED * _LETTERS_PER_TIME :]
            self.recent = self.recent[-kept:]
            self._settle(step)
        return None

    def _settle(self, step: float) -> None:
        times = read_times(self.settled)
        self.usual = median(times)
        share = 1.0 / (len(times) + 1)
        above = (sum(seconds > self.usual * step for seconds in times) + 0.5) * share
        below = (sum(seconds * step < self.usual for seconds in times) + 0.5) * share
        self.above, self.below = min(max(above, RAREST), MOST), min(max(below, RAREST), MOST)

    def _weigh_rise(self, hit: bool, before: int, build: int) -> None:
        if not self.rising:
            self.rising_after, self.rising_from = before, build
        self.rising = max(0.0, round(self.rising + _evidence(hit, self.above), 3))

    def _weigh_fall(self, hit: bool, before: int, build: int) -> None:
        if not self.falling:
            self.falling_after, self.falling_from = before, build
        self.falling = max(0.0, round(self.falling + _evidence(hit, self.below), 3))

    def _shift(self, direction: Direction, step: float) -> LevelShift | None:
        """Return the change if enough of the recent times are beyond the bound, and settle at the new level."""
        times = read_times(self.recent[-RECENT * _LETTERS_PER_TIME :])
        slower = direction is Direction.SLOWER
        beyond = [t for t in times if (t > self.usual * step if slower else t * step < self.usual)]
        if len(beyond) < BEYOND:
            return None
        place = (self.rising_after, self.rising_from) if slower else (self.falling_after, self.falling_from)
        shift = LevelShift(direction, self.usual, median(beyond), *place)
        settled = ""
        for seconds in beyond:
            settled = with_time(settled, seconds, SETTLED)
        self.settled, self.recent = settled, ""
        self.rising = self.falling = 0.0
        self._settle(step)
        return shift


def _evidence(hit: bool, usual: float) -> float:
    """Return what a run beyond the bound, or one that is not, says for a change."""
    return log(CHANGED / usual) if hit else log((1.0 - CHANGED) / (1.0 - usual))


_FIELDS = tuple(TimeLevel.__slots__)
_get_values = attrgetter(*_FIELDS)


def pack_levels(levels: Sequence[TimeLevel]) -> dict[str, list[object]]:
    """Return the levels as JSON values by column."""
    return {name: [getattr(level, name) for level in levels] for name in _FIELDS}


def unpack_levels(columns: dict[str, list[object]]) -> list[TimeLevel]:
    """Return the levels of `pack_levels`' columns. Raise ValueError or KeyError for others."""
    rows = zip(*(columns[name] for name in _FIELDS), strict=True)
    return [TimeLevel(*row) for row in rows]
