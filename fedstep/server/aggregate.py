"""The mathematics of the aggregation: deltas in, the next head out. Pure; no order of arrival, no clock, no disk.

Buffered asynchronous aggregation after FedBuff: Nguyen et al., AISTATS 2022.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import itemgetter
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedstep.features.schema import Schema
from fedstep.server.crowd import Crowd, Groups, Sender, numbered
from fedstep.server.measured import measured
from fedstep.server.outliers import evened
from fedstep.server.sums import Figures, Places, Rows, Vector, norm

__all__ = [
    "Contribution",
    "Rules",
    "Vector",
    "aggregate",
    "clipped",
    "fold_bound",
    "folded",
    "moved",
    "norm",
    "paced",
    "rules_for",
]


@dataclass(frozen=True, slots=True)
class Rules:
    """How one head moves: the L2 bound of each project's share, the step of a fold, the part of it forgotten.

    `projects_per_owner`: an owner's projects together add no more to a fold than so many projects would. `longer`: in a
    fold of five projects or more, how much longer than the median project's a delta may be. `single`: how much of the
    bound one coordinate may take, unless it moves in most projects. `together`: however many projects a fold has, it
    goes no further than the mean of their shares, so many times.
    """

    clip: float
    rate: float = 1.0
    decay: float = 0.0005
    projects_per_owner: float = 4.0
    longer: float = 2.0
    single: float = 0.1
    together: float = inf
    start: tuple[float, ...] = ()  # what is forgotten is forgotten towards these weights; empty: towards zero


FEWEST = 5  # projects in a fold for a median to be taken
ROUNDING = 1e-9  # by which a delta that was shrunk to its bound may be longer
RATES = {"build-failure": 0.3, "build-duration": 0.3}  # few rows, mixed projects: faster than this it hurts
TOGETHER = {"flaky": 10.0}  # deltas are long: the sum of two hundred went too far


class Contribution(NamedTuple):  # a fold again makes thousands, and a frozen dataclass takes five times as long
    """One project's delta for one head, and whose it is: as `Sender`."""

    id: str
    project: str
    staleness: int
    delta: Vector
    owner: str = ""

    @property
    def sender(self) -> Sender:
        """Without the delta."""
        return Sender(self.staleness, self.owner, self.project, self.id)


def rules_for(schema: Schema) -> Mapping[str, Rules]:
    """The default rules of each head."""
    return {
        name: Rules(head.clip, RATES.get(name, 1.0), together=TOGETHER.get(name, inf), start=tuple(head.start()))
        for name, head in schema.heads.items()
    }


def aggregate(head: Vector, updates: Sequence[Contribution], rules: Rules) -> Vector:
    """The head after one fold of these, in whatever order they come; without any, the head itself."""
    ordered = sorted(((update.sender, update.delta) for update in updates), key=itemgetter(0))
    crowd = Crowd.of([sender for sender, _ in ordered])
    return folded(head, {place: delta for place, (_, delta) in enumerate(ordered)}, crowd, rules)


def folded(head: Vector, deltas: Mapping[int, Vector], everyone: Crowd, rules: Rules) -> Vector:
    """The head after one fold of the deltas, by ascending place in the crowd; without any, the head itself.

    Each project's weighted, clipped deltas are summed, and the sum is clipped again: many updates of one project move
    the head no further than one. So it is with the projects of one owner, whose bound is wider. C floats come back,
    because that is what clients learn from.
    """
    if not deltas:
        return head
    crowd = everyone.some(list(deltas))
    projects, shares, owners = Groups.of(crowd.projects), Groups.of(crowd.shares), Groups.of(crowd.owners)
    rows = measured(list(deltas.values()), crowd.stale, rules.clip, rules.longer)
    bound = _bound(rows, projects, rules)
    moving = rows.lengths > 0.0  # who says nothing slows nobody
    rows = rows._replace(scales=np.minimum(1.0, bound / np.where(moving, rows.lengths, bound)))
    if len(projects.starts) >= FEWEST:
        rows = evened(rows, projects, rules.single * bound)  # a delta spent on one word would drag that word anywhere
    weights = _capped(rows, crowd.stale, shares, bound)
    weights = _capped(rows, weights, owners, rules.projects_per_owner * bound)
    senders = zip(crowd.owners[moving].tolist(), crowd.shares[moving].tolist(), strict=True)
    return moved(head, rows.total(weights), paced(rules, senders))


def paced(rules: Rules, senders: Iterable[tuple[Hashable, Hashable]]) -> Rules:
    """The rules at the rate of a step that these made together: who answers for it, and what project of theirs it is.

    What many have learned from one head says much the same many times: the sum of all of it goes too far. An owner's
    projects count as far as they move the head.
    """
    if rules.together == inf:
        return rules
    owners = Counter(owner for owner, _ in set(senders))
    projects = sum(min(number, rules.projects_per_owner) for number in owners.values())
    return replace(rules, rate=min(rules.rate, rules.together / max(1.0, projects)))


def moved(head: Vector, step: NDArray[np.floating], rules: Rules) -> Vector:
    """The head after a step of summed deltas, at its rate and less what is forgotten."""
    after = np.float32(1.0 - rules.decay) * head
    if rules.start:
        after += rules.decay * np.array(rules.start)
    after += rules.rate * step
    return after


def fold_bound(updates: Sequence[Contribution], rules: Rules) -> float:
    """The L2 bound of each project's share in this fold: the constant one, or closer where most deltas are short.

    The constant leaves room for the longest honest delta, and a liar would always fill it. A median over projects stays
    honest while fewer than half of them lie; over fewer than five it would say little.
    """
    stale = np.ones(len(updates))
    rows = measured([update.delta for update in updates], stale, rules.clip, rules.longer)
    return _bound(rows, Groups.of(numbered(update.project for update in updates)), rules)


def _bound(rows: Rows, projects: Groups, rules: Rules) -> float:
    longest = projects.largest(rows.lengths)
    middle = median(longest.tolist()) if len(longest) >= FEWEST else 0.0
    return min(rules.clip, rules.longer * middle) if middle else rules.clip


def _capped(rows: Rows, weights: Figures, groups: Groups, most: float) -> Figures:
    """Weights with which no group's sum is longer than `most`: the same ones, of those that cannot be."""
    found = weights.copy()
    for places in groups.above(weights * rows.scales * rows.lengths, most * (1.0 + ROUNDING)):
        length = norm(_sum_of(rows, weights, places))
        found[places] *= min(1.0, most / length if length else 1.0)
    return found


def _sum_of(rows: Rows, weights: Figures, places: Places) -> Vector:
    """What those at some places are together: of most of them without a copy."""
    if 2 * len(places) < len(weights):
        return rows.some(places).total(weights[places])
    theirs = np.zeros(len(weights))
    theirs[places] = weights[places]
    return rows.total(theirs)


def clipped(delta: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """The delta in double precision, shrunk to an L2 norm of at most `bound`."""
    length = norm(delta)
    return delta.astype(np.float64) * min(1.0, bound / length if length else 1.0)
