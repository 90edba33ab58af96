"""Who takes part in a fold, as numbers: they are worked out once, and serve every head. Pure."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedstep.server.sums import Figures, Places

__all__ = ["Crowd", "Groups", "Sender", "numbered", "staleness_weight"]

Kind = TypeVar("Kind", bound=np.generic)


class Sender(NamedTuple):
    """Whose update it is, and how many folds ago the head that it was learned from was made; they sort in this order.

    `owner` is who answers for the project; "" where that is not known, and then it counts for itself.
    """

    staleness: int
    owner: str
    project: str
    id: str


class Groups(NamedTuple):
    """Which of a sequence are whose: their places group by group, and where in these each group begins."""

    places: Places
    starts: Places

    @classmethod
    def of(cls, numbers: Places) -> "Groups":
        """Those of the same number are a group. There must be one."""
        places = np.argsort(numbers, kind="stable")
        return cls(places, np.append(0, 1 + np.flatnonzero(np.diff(numbers[places]))))

    def largest(self, values: NDArray[Kind]) -> NDArray[Kind]:
        """The largest value of each group, in each column if there are several, in whatever order."""
        if len(self.starts) == len(self.places):
            return values
        return np.maximum.reduceat(values[self.places], self.starts, axis=0)

    def above(self, values: Figures, most: float) -> Iterator[Places]:
        """The places of each group whose values have a sum above `most`."""
        sums = np.add.reduceat(values[self.places], self.starts)
        ends = np.append(self.starts[1:], len(self.places))
        for group in np.flatnonzero(sums > most):
            yield self.places[self.starts[group] : ends[group]]


class Crowd(NamedTuple):
    """Of each who takes part: how often its delta is taken, and the numbers of its project and of its owner.

    `shares` numbers what an owner sends for a project. Who has no owner is its project's only one.
    """

    stale: Figures
    projects: Places
    shares: Places
    owners: Places

    @classmethod
    def of(cls, senders: Sequence[Sender]) -> "Crowd":
        """These, in their order."""
        return cls(
            np.array([staleness_weight(sender.staleness) for sender in senders]),
            numbered(sender.project for sender in senders),
            numbered((sender.owner, sender.project) for sender in senders),
            numbered(sender.owner or (sender.project,) for sender in senders),
        )

    def some(self, places: Sequence[int]) -> "Crowd":
        """Those at these places, which ascend: as many as there are, are all."""
        if len(places) == len(self.stale):
            return self
        chosen = np.array(places)
        return Crowd(*(column[chosen] for column in self))


def numbered(names: Iterable[Hashable]) -> Places:
    """A number for each: the same for the same names, from 0 in the order in which they come first."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)


def staleness_weight(staleness: int) -> float:
    """1 for a delta learned from the newest head, falling as 1 / sqrt(1 + staleness).

    >>> staleness_weight(3)
    0.5
    """
    return float((1.0 + max(0, staleness)) ** -0.5)
