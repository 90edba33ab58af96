"""Whose updates are proposed for the next sums of shares. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedstep.federation.shares import HEAVIEST, MOST_SUMMED
from fedstep.server.aggregation.vectors import staleness_weight
from fedstep.server.buffer import Folding, Pending, due
from fedstep.server.rounds import Part, one_each

__all__ = ["Waiting", "chosen", "weight"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One head of an update whose half is here and was not released; `missed` counts rounds that lacked its twin."""

    id: str
    head: str
    project: str
    base: int
    trial: int
    pair: str
    received: float
    missed: int = 0


def chosen(
    waiting: Iterable[Waiting], head: int, trials: Mapping[str, int], now: float, folding: Folding, fewest: int
) -> tuple[Part, ...]:
    """The parts of the next proposal: for each head that is due, one update of each project.

    A sum has one weight, or a number that only one project moved would tell by its divisors how stale, and so whose, it
    is. So updates of one class of staleness are summed, fresh ones first; staler classes join where they are too few.
    """
    by_head: dict[str, list[Waiting]] = defaultdict(list)
    for one in sorted(waiting, key=lambda one: (one.missed, one.received, one.id)):
        by_head[one.head].append(one)
    found = (
        _part(name, ours, head, trials.get(name, -1), now, folding, fewest) for name, ours in sorted(by_head.items())
    )
    return tuple(part for part in found if part)


def weight(base: int, head: int) -> int:
    """The public weight of a delta learned from `base` when `head` is newest: 64 / sqrt(1 + staleness), in classes.

    Each class has twice the staleness of the one before: 0, 1 to 2, 3 to 6, and so on.

    >>> [weight(9 - staleness, 9) for staleness in range(5)]
    [64, 45, 45, 32, 32]
    """
    return round(HEAVIEST * staleness_weight((1 << (1 + max(0, head - base)).bit_length() - 1) - 1))


def _part(
    name: str, ours: Sequence[Waiting], newest: int, trial: int, now: float, folding: Folding, fewest: int
) -> Part | None:
    """The updates of one head to be proposed: those that scored the snapshot on trial, else those that did not."""
    voting = [one for one in ours if one.trial == trial >= 0]
    others = [one for one in ours if one.trial != trial or trial < 0]
    for group, scored in ((voting, trial), (others, -1), (ours, -1)):
        pairs = {one.id: one.pair for one in _alike(group, newest, fewest)}
        oldest = min((one.received for one in group), default=now)
        pending = Pending(len(group), len({one.project for one in group}), oldest)
        if pairs and due(pending, now, folding):
            return Part(name, scored, pairs)
    return None


def _alike(group: Sequence[Waiting], newest: int, fewest: int) -> tuple[Waiting, ...]:
    """One update of each project, at least `fewest`, from as few classes of staleness as that takes; else none."""
    by_id = {one.id: one for one in group}
    projects = {one.id: one.project for one in group}
    for least in sorted({weight(one.base, newest) for one in group}, reverse=True):
        ids = one_each((one.id for one in group if weight(one.base, newest) >= least), projects)
        if len(ids) >= fewest:
            return tuple(by_id[number] for number in ids[:MOST_SUMMED])
    return ()
