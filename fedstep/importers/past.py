"""Past builds that are still to be read: where they are, in which order they are learned, which of them are wanted."""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from fedstep.build.record import Dropped, Evidence

__all__ = ["Found", "Past", "Pending", "Read", "Wanted", "in_order", "newest"]

Found = Evidence | Dropped
MOST_HELD = 64  # builds read that wait for one that ended earlier: some runs wait days for an approval


class Pending(NamedTuple):
    """One thing to be read: what it gives, none of which ended before `after` (seconds since the epoch)."""

    after: float
    read: Callable[[], tuple[Found, ...]]
    key: tuple[
        str, ...
    ] = ()  # names the thing at its source where it never changes: what was learned is not read again


class Past(NamedTuple):
    """What a source has, oldest first.

    `apart`: things can be read in any process, in any order. `chosen`: the source has left out what is not wanted.
    """

    total: int
    pending: Iterable[Pending]
    apart: bool = False
    chosen: bool = False
    dropped: tuple[Dropped, ...] = ()  # seen while listing


class Wanted(NamedTuple):
    """Which builds are learned: those that started at `since` or later, of jobs that match, the newest `limit`."""

    since: float = 0.0
    limit: int = 0  # 0: all
    job: str = ""  # a name, or a pattern with * and ?

    def limited(self) -> bool:
        """Whether some builds of a source may not be wanted."""
        return self != Wanted()

    def has_job(self, job: str) -> bool:
        """Whether builds of this job are wanted."""
        return not self.job or job == self.job or fnmatchcase(job, self.job)

    def has(self, found: Found) -> bool:
        """Whether this build is wanted; what cannot be read is, so that it is named."""
        if isinstance(found, Dropped):
            return True
        return found.situation.started_at >= self.since and self.has_job(found.situation.ci.job)


class Read(NamedTuple):
    """A build, or why there is none. The last of a thing that gave `builds` and nothing else names it with `key`."""

    found: Found
    key: tuple[str, ...] = ()
    builds: int = 0


def newest(pending: Iterable[Pending], wanted: Wanted) -> tuple[Pending, ...]:
    """The newest `wanted.limit` of them, all where there is no limit; oldest first."""
    ordered = sorted(pending, key=lambda one: one.after)
    return tuple(ordered[-wanted.limit :] if wanted.limit else ordered)


def in_order(reads: Iterable[tuple[Pending, tuple[Found, ...]]]) -> Iterator[Read]:
    """All that is read, in the order in which the builds ended.

    A build is held back until nothing that comes later can have ended before it; at most MOST_HELD are.
    """
    held: list[tuple[float, int, Read]] = []
    number = count()
    for pending, found in reads:
        while held and (held[0][0] <= pending.after or len(held) > MOST_HELD):
            yield heappop(held)[2]
        for ended, read in _marked(pending, found):
            heappush(held, (ended, next(number), read))
    while held:
        yield heappop(held)[2]


def _marked(pending: Pending, found: tuple[Found, ...]) -> list[tuple[float, Read]]:
    """What was read with the time at which it ended, in that order."""
    timed = sorted(
        ((one.finished_at if isinstance(one, Evidence) else pending.after, Read(one)) for one in found),
        key=lambda pair: pair[0],
    )
    if timed and pending.key and not any(isinstance(one, Dropped) for one in found):
        ended, last = timed[-1]
        timed[-1] = (ended, last._replace(key=pending.key, builds=len(timed)))
    return timed
