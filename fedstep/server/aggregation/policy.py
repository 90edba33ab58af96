"""When the buffered updates become a new task. Pure: time is an argument."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BufferPolicy:
    """Fold after `updates`, or after `seconds`, and never before `projects` distinct projects are in the buffer.

    A fold of one project's updates would show them to whoever pulls next; `projects` is how many must hide each other.
    An update learned from a candidate more than `staleness` folds ago is refused. With a `period`, in seconds since
    1970,
    what came in one is folded in the next, however much it is: the calendar tells nothing of who took part.
    """

    updates: int = 10
    seconds: float = 60.0
    projects: int = 1
    staleness: int = 100
    period: float = 0.0


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """What the buffer holds: updates, distinct projects, and when the oldest came (seconds since 1970)."""

    updates: int
    projects: int
    oldest: float


def is_due(pending: BufferStatus, now: float, folding: BufferPolicy) -> bool:
    """Whether to fold now.

    >>> is_due(BufferStatus(updates=3, projects=2, oldest=0.0), 60.0, BufferPolicy(seconds=60.0, projects=2))
    True
    """
    if not pending.updates or pending.projects < folding.projects:
        return False
    if folding.period:
        return now // folding.period > pending.oldest // folding.period
    return pending.updates >= folding.updates or now - pending.oldest >= folding.seconds


def updates_needed(pending: BufferStatus, folding: BufferPolicy) -> int:
    """How many updates have to come at least before there are enough: until then only time can make it due.

    >>> updates_needed(BufferStatus(updates=9, projects=1, oldest=0.0), BufferPolicy(updates=10, projects=3))
    2
    """
    return max(folding.updates - pending.updates, folding.projects - pending.projects, 0)
