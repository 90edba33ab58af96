"""Online detection of lasting changes of a time: a test or a job that became slower or faster for good.

A Bernoulli CUSUM (Reynolds and Stoumbos, "A CUSUM chart for monitoring a proportion when inspecting continuously",
1999): each run counts only as beyond a bound or not, so that one outlier says no more than a slow run. How much a run
beyond the bound says depends on how often the settled runs were there: for a test with two modes, more runs are needed.
A level that holds for a few runs only is taken back. Decision 0052 compares it with other rules on recorded times.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import IntEnum
from math import log, sqrt
from operator import attrgetter
from statistics import median
from typing import NamedTuple

from fedstep.history.test_table import read_times, with_time

SETTLED = 30  # runs before the recent ones: how often were they beyond the bounds?
USUAL = 20  # the newest of them, of which the usual time is the median
FEWEST = 12  # of them before a change can be found
RECENT = 6  # runs that are looked at together ...
BEYOND = 4  # ... so many of them must be beyond the bound ...
NEARLY = 5  # ... and so many at least half the way to it, in logarithms
EVIDENCE = 7.0  # log-likelihood ratio that makes a finding ...
SURER = 10.0  # ... and where the test has more modes than one:
OFTEN = 0.25  # where more than this share of the settled runs was beyond the bound
CHANGED = 0.9  # share of runs beyond the bound after a change
RAREST, MOST = 0.02, 0.6  # bounds of the share of settled runs beyond the bound
SHORT_LIVED = 10  # runs within which a new level is taken back ...
BACK, LATEST = 4, 5  # ... when so many of the latest runs are at the level before ...
NEAR = 1.2  # ... that is, within this factor of it
_SETTLE_EVERY = 9  # runs
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
    is_return: bool = False  # to the level before, which the change found last had left for a few runs only


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
    former: float = 0.0  # the usual time before the change found last, 0 once the level is not short-lived any more
    runs: int = 0  # since that change

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
        if self.former and (shift := self._return(step)):
            return shift
        if self.rising >= _needed_evidence(self.above) and (shift := self._shift(Direction.SLOWER, step)):
            return shift
        if self.falling >= _needed_evidence(self.below) and (shift := self._shift(Direction.FASTER, step)):
            return shift
        if len(self.recent) >= _SETTLE_EVERY * _LETTERS_PER_TIME:  # in blocks: the median takes 10 us
            kept = RECENT * _LETTERS_PER_TIME
            self.settled = (self.settled + self.recent[:-kept])[-SETTLED * _LETTERS_PER_TIME :]
            self.recent = self.recent[-kept:]
            self._settle(step)
        return None

    def _settle(self, step: float) -> None:
        times = read_times(self.settled)
        self.usual = median(times[-USUAL:])
        share = 1.0 / (len(times) + 1)
        above = (sum(seconds > self.usual * step for seconds in times) + 0.5) * share
        below = (sum(seconds * step < self.usual for seconds in times) + 0.5) * share
        if len(times) < FEWEST:  # just after a change: the level is taken to vary as much as the one before
            above, below = max(above, self.above), max(below, self.below)
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
        slower = direction is Direction.SLOWER
        ratios = [(t, t / self.usual if slower else self.usual / t) for t in self._recent(RECENT)]
        beyond = [seconds for seconds, ratio in ratios if ratio > step]
        if len(beyond) < BEYOND or sum(ratio > sqrt(step) for _, ratio in ratios) < NEARLY:
            return None
        shift = LevelShift(direction, self.usual, median(beyond), *self._find_begin(slower))
        self._settle_at(beyond, step, former=self.usual)
        return shift

    def _return(self, step: float) -> LevelShift | None:
        """Return the change back to the level that was left a few runs ago; forget that level once it is too late."""
        self.runs += 1
        if self.runs > SHORT_LIVED:
            self.former = 0.0
            return None
        slower, middle = self.former > self.usual, sqrt(self.former * self.usual)
        low = max(middle, self.former / NEAR) if slower else 0.0
        high = self.former * NEAR if slower else min(middle, self.former * NEAR)
        back = [seconds for seconds in self._recent(LATEST) if low < seconds < high]
        if len(back) < BACK:
            return None
        direction = Direction.SLOWER if slower else Direction.FASTER
        shift = LevelShift(direction, self.usual, median(back), *self._find_begin(slower), is_return=True)
        self._settle_at(back, step, former=0.0)
        return shift

    def _recent(self, most: int) -> tuple[float, ...]:
        return read_times(self.recent[-most * _LETTERS_PER_TIME :])

    def _find_begin(self, slower: bool) -> tuple[int, int]:
        """Return the build before the evidence began, and the build with which it did."""
        if slower:
            return (self.rising_after, self.rising_from) if self.rising else (self.last_build, self.last_build)
        return (self.falling_after, self.falling_from) if self.falling else (self.last_build, self.last_build)

    def _settle_at(self, times: Sequence[float], step: float, former: float) -> None:
        """Take these times for the usual ones, and forget all others."""
        self.settled, self.recent = "".join(with_time("", seconds) for seconds in times), ""
        self.rising = self.falling = 0.0
        self.former, self.runs = former, 0
        self._settle(step)


def count_beginnings(levels: Iterable[TimeLevel], direction: Direction) -> Counter[int]:
    """Return how many levels have half of the evidence for a change, by the build with which that evidence began."""
    if direction is Direction.SLOWER:
        return Counter(level.rising_from for level in levels if level.rising > EVIDENCE / 2)
    return Counter(level.falling_from for level in levels if level.falling > EVIDENCE / 2)


def _needed_evidence(usual: float) -> float:
    """Return the evidence that makes a finding, where this share of the settled runs was beyond the bound."""
    return SURER if usual > OFTEN else EVIDENCE


def _evidence(hit: bool, usual: float) -> float:
    """Return what a run beyond the bound, or one that is not, says for a change."""
    return log(CHANGED / usual) if hit else log((1.0 - CHANGED) / (1.0 - usual))


_FIELDS = tuple(TimeLevel.__slots__)
_DEFAULTS = {field.name: field.default for field in fields(TimeLevel) if field.default is not MISSING}
_get_values = attrgetter(*_FIELDS)


def pack_levels(levels: Sequence[TimeLevel]) -> dict[str, list[object]]:
    """Return the levels as JSON values by column."""
    return {name: [getattr(level, name) for level in levels] for name in _FIELDS}


def unpack_levels(columns: dict[str, list[object]]) -> list[TimeLevel]:
    """Return the levels of `pack_levels`' columns. Raise ValueError or KeyError for others.

    A column that an earlier fedstep did not write has its default.
    """
    count = len(columns["settled"])
    rows = zip(*(columns.get(name) or [_DEFAULTS[name]] * count for name in _FIELDS), strict=True)
    return [TimeLevel(*row) for row in rows]
