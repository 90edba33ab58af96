"""The mathematics of the aggregation: deltas in, the next head out. Pure; no order of arrival, no clock, no disk.

Buffered asynchronous aggregation after FedBuff: Nguyen et al., AISTATS 2022.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedstep.features.schema import Schema

__all__ = [
    "Contribution",
    "Rules",
    "Vector",
    "aggregate",
    "aggregate_heads",
    "clipped",
    "norm",
    "rules_for",
    "staleness_weight",
]

Vector: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rules:
    """How one head moves: the L2 bound of each project's share, the step of a fold, the part of it forgotten."""

    clip: float
    rate: float = 1.0
    decay: float = 0.0005


RATES = {"build-failure": 0.3, "build-duration": 0.1}  # few rows, mixed projects: faster than this it hurts


@dataclass(frozen=True, slots=True)
class Contribution:
    """One project's delta for one head; `staleness` counts the folds since the head that it was learned from."""

    id: str
    project: str
    staleness: int
    delta: Vector


def rules_for(schema: Schema) -> Mapping[str, Rules]:
    """The default rules of each head."""
    return {name: Rules(head.clip, RATES.get(name, 1.0)) for name, head in schema.heads.items()}


def aggregate(head: Vector, updates: Sequence[Contribution], rules: Rules) -> Vector:
    """The head after one fold; without updates, the head itself.

    Each project's weighted, clipped deltas are summed in id order, and the sum is clipped again: many updates of one
    project move the head no further than one. Rounded to C floats once, because that is what clients learn from.
    """
    if not updates:
        return head
    step = np.zeros(len(head), np.float64)
    for _, shares in groupby(sorted(updates, key=lambda update: (update.project, update.id)), lambda u: u.project):
        share = np.zeros(len(head), np.float64)
        for update in shares:
            share += staleness_weight(update.staleness) * clipped(update.delta, rules.clip)
        step += clipped(share, rules.clip)
    return ((1.0 - rules.decay) * head.astype(np.float64) + rules.rate * step).astype(np.float32)


def aggregate_heads(
    heads: Mapping[str, Vector], updates: Mapping[str, Sequence[Contribution]], rules: Mapping[str, Rules]
) -> Mapping[str, Vector]:
    """Every head after one fold of the updates by name of the head."""
    return {name: aggregate(head, updates.get(name, ()), rules[name]) for name, head in heads.items()}


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


def norm(delta: NDArray[np.floating]) -> float:
    """The L2 norm, in double precision."""
    wide = delta.astype(np.float64)
    return float(np.sqrt(wide @ wide))
