"""The mathematics of the aggregation: deltas in, the next head out. Pure; no order of arrival, no clock, no disk.

Buffered asynchronous aggregation after FedBuff: Nguyen et al., AISTATS 2022.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fedstep.features.schema import Schema
from fedstep.server.outliers import Scaled, evened
from fedstep.server.sums import Block, Groups, Part, Vector, apart, blocks, norm, total, within

__all__ = [
    "Contribution",
    "Rules",
    "Vector",
    "aggregate",
    "aggregate_heads",
    "clipped",
    "fold_bound",
    "moved",
    "norm",
    "rules_for",
    "staleness_weight",
]


@dataclass(frozen=True, slots=True)
class Rules:
    """How one head moves: the L2 bound of each project's share, the step of a fold, the part of it forgotten.

    `projects_per_owner`: an owner's projects together move it no further than so many projects would. `longer`: in a
    fold of five projects or more, how much longer than the median project's a delta may be. `single`: how much of the
    bound one coordinate may take, unless it moves in most projects.
    """

    clip: float
    rate: float = 1.0
    decay: float = 0.0005
    projects_per_owner: float = 4.0
    longer: float = 2.0
    single: float = 0.1
    start: tuple[float, ...] = ()  # what is forgotten is forgotten towards these weights; empty: towards zero


FEWEST = 5  # projects in a fold for a median to be taken
RATES = {"build-failure": 0.3, "build-duration": 0.3}  # few rows, mixed projects: faster than this it hurts


@dataclass(frozen=True, slots=True)
class Contribution:
    """One project's delta for one head; `staleness` counts the folds since the head that it was learned from.

    `owner` is who answers for the project; "" where that is not known, and then it counts for itself.
    """

    id: str
    project: str
    staleness: int
    delta: Vector
    owner: str = ""


def rules_for(schema: Schema) -> Mapping[str, Rules]:
    """The default rules of each head."""
    return {
        name: Rules(head.clip, RATES.get(name, 1.0), start=tuple(head.start())) for name, head in schema.heads.items()
    }


def aggregate(head: Vector, updates: Sequence[Contribution], rules: Rules) -> Vector:
    """The head after one fold; without updates, the head itself.

    Each project's weighted, clipped deltas are summed in id order, and the sum is clipped again: many updates of one
    project move the head no further than one. So it is with the projects of one owner, whose bound is wider. C floats
    come back, because that is what clients learn from.
    """
    if not updates:
        return head
    ordered = sorted(updates, key=_place)
    found, projects = blocks([update.delta for update in ordered]), Groups.of(update.project for update in ordered)
    bound = _bound(found, projects, rules)
    taken = _taken(found, projects, bound, rules)
    parts = (
        Part(delta, staleness_weight(update.staleness) * scale, length)
        for update, (delta, scale, length) in zip(ordered, taken, strict=True)
    )
    even = zip(ordered, parts, strict=True)
    shares: list[Part] = []
    for owner, owned in groupby(even, lambda pair: pair[0].owner):
        mine: list[Part] = []
        for _, pairs in groupby(owned, lambda pair: pair[0].project):
            mine += within([part for _, part in pairs], bound)
        shares += within(mine, rules.projects_per_owner * bound) if owner else mine
    return moved(head, total(shares, len(head)), rules)


def moved(head: Vector, step: NDArray[np.float64], rules: Rules) -> Vector:
    """The head after a step of summed deltas, at its rate and less what is forgotten."""
    after = np.multiply(head, 1.0 - rules.decay, dtype=np.float64)
    if rules.start:
        after += rules.decay * np.array(rules.start)
    after += rules.rate * step
    return after.astype(np.float32)


def aggregate_heads(
    heads: Mapping[str, Vector], updates: Mapping[str, Sequence[Contribution]], rules: Mapping[str, Rules]
) -> Mapping[str, Vector]:
    """Every head after one fold of the updates by name of the head."""
    return {name: aggregate(head, updates.get(name, ()), rules[name]) for name, head in heads.items()}


def fold_bound(updates: Sequence[Contribution], rules: Rules) -> float:
    """The L2 bound of each project's share in this fold: the constant one, or closer where most deltas are short.

    The constant leaves room for the longest honest delta, and a liar would always fill it. A median over projects stays
    honest while fewer than half of them lie; over fewer than five it would say little.
    """
    found = blocks([update.delta for update in updates])
    return _bound(found, Groups.of(update.project for update in updates), rules)


def _bound(found: Sequence[Block], projects: Groups, rules: Rules) -> float:
    longest = projects.largest(np.concatenate([block.lengths for block in found]))
    median = float(np.median(longest))
    return min(rules.clip, rules.longer * median) if len(longest) >= FEWEST and median else rules.clip


def _taken(
    found: Sequence[Block], projects: Groups, bound: float, rules: Rules
) -> Iterator[tuple[Vector, float, float]]:
    """Of each update what a step takes, how many times itself, and its length: nothing that sticks out or is too long.

    One spent on one word would drag that word anywhere.
    """
    lengths = np.concatenate([block.lengths for block in found])
    scales = np.minimum(1.0, bound / np.where(lengths, lengths, bound))
    scaled: Sequence[Scaled] = tuple(map(Scaled, found, apart(scales, [block.rows for block in found])))
    if len(projects.starts) >= FEWEST:
        scaled = evened(scaled, projects, rules.single * bound)
    for block, times in scaled:
        yield from zip(block.rows, times.tolist(), block.lengths.tolist(), strict=True)


def staleness_weight(staleness: int) -> float:
    """1 for a delta learned from the newest head, falling as 1 / sqrt(1 + staleness).

    >>> staleness_weight(3)
    0.5
    """
    return float((1.0 + max(0, staleness)) ** -0.5)


def clipped(delta: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """The delta in double precision, shrunk to an L2 norm of at most `bound`."""
    length = norm(delta)
    return delta.astype(np.float64) * min(1.0, bound / length if length else 1.0)


def _place(update: Contribution) -> tuple[str, str, str]:
    return update.owner, update.project, update.id
