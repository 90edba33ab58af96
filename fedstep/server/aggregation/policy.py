"""Decide when the buffered updates are aggregated. Pure: time is an argument."""

from dataclasses import dataclass

HURRIED = 40  # versions; with one per minute for the time that updates wait, an hour has no more than `staleness`
HOUR = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class BufferPolicy:
    """Aggregate after `updates`, or after `seconds`, and never before the buffer has updates of `projects` projects.

    An aggregation of one project's updates would reveal them to the next client that pulls; among `projects` they are
    mixed. An update learned from a candidate more than `staleness` versions ago is refused. With a `period` (seconds,
    counted from 1970) the updates of one period are aggregated in the next, however many they are: the calendar does
    not depend on which projects contributed.

    Where more than `HURRIED` versions were made within an hour, only time makes the next one due, or one sender that is
    in a hurry would make the updates of all others stale.
    """

    updates: int = 10
    seconds: float = 60.0
    projects: int = 1
    staleness: int = 100
    period: float = 0.0


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The numbers of updates and of distinct projects in the buffer, and when the oldest came (seconds since 1970).

    `calm` is when there were no more than `HURRIED` versions in an hour.
    """

    updates: int
    projects: int
    oldest: float
    calm: float = 0.0


def is_due(pending: BufferStatus, now: float, policy: BufferPolicy) -> bool:
    """Return whether to aggregate now.

    >>> is_due(BufferStatus(updates=3, projects=2, oldest=0.0), 60.0, BufferPolicy(seconds=60.0, projects=2))
    True
    """
    if not pending.updates or pending.projects < policy.projects:
        return False
    if policy.period:
        return now // policy.period > pending.oldest // policy.period
    enough = pending.updates >= policy.updates and now >= pending.calm
    return enough or now - pending.oldest >= policy.seconds


def updates_needed(pending: BufferStatus, policy: BufferPolicy) -> int:
    """Return how many more updates are enough at the earliest; until then only time can make an aggregation due.

    >>> updates_needed(BufferStatus(updates=9, projects=1, oldest=0.0), BufferPolicy(updates=10, projects=3))
    2
    """
    return max(policy.updates - pending.updates, policy.projects - pending.projects, 0)
