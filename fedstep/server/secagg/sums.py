"""The mathematics of sums of shares: sums without their pads, and the version that they lead to. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import WireError
from fedstep.federation.secagg.shares import LEVELS, MAX_SUMMED, derive_pad
from fedstep.federation.tensors import Vector
from fedstep.server.aggregation.fedbuff import AggregationRules, apply_step, scale_rate
from fedstep.server.aggregation.inputs import AggregationResult, CurrentModels
from fedstep.server.aggregation.step import TaskState, VersionBuilder, to_float_array, to_numpy
from fedstep.server.aggregation.vectors import norm
from fedstep.server.gate import EvaluationSum, Gate, judge_evaluation_sums
from fedstep.server.secagg.rounds import Residues

FAR = 8.0  # standard deviations that the length of noise may be off


@dataclass(frozen=True, slots=True)
class TaskSum:
    """What a round brought for one task: the sum in steps of a grid, each `scale` of the task's bound.

    `release` has the updates' scores of the snapshot on trial; without votes where they need not have scored it.
    `senders` are owner and project of each update; none where nobody may know.
    """

    steps: NDArray[np.int64]
    scale: float
    release: EvaluationSum = field(default_factory=lambda: EvaluationSum(0, 0.0))
    senders: Sequence[tuple[str, str]] = ()


def summed(vectors: Iterable[bytes], size: int) -> Residues:
    """The sum of little-endian vectors of `size` numbers, modulo 2^64."""
    total = np.zeros(size, np.uint64)
    for vector in vectors:
        total += np.frombuffer(vector, "<u8")[:size]
    return total


def summed_pads(seeds: Iterable[bytes], size: int) -> Residues:
    """The sum of the first `size` numbers of the pads that these seeds of one task give."""
    return summed((derive_pad(seed, size) for seed in seeds), size)


def unmask_sum(masked: Residues, pads: Residues, updates: int, size: int, deviation: int = 0) -> NDArray[np.int64]:
    """The sum of so many updates in steps of the grid, with its sign; the first `size` numbers are those of a delta.

    `deviation` is that of the noise of each. Raises WireError for a sum that updates within their bounds do not have:
    somebody lied, and nothing of it is used.
    """
    if updates > MAX_SUMMED:
        raise WireError(f"a sum of {updates} updates could overflow", f"At most {MAX_SUMMED} are summed.")
    steps: NDArray[np.int64] = (masked + pads).view(np.int64)
    numbers = steps.astype(np.float64)
    beyond = np.abs(numbers[size:]).max(initial=0.0) > updates * LEVELS
    if beyond or norm(numbers[:size]) > longest(updates, size, deviation):
        raise WireError(
            "the sum is not one of updates within their bounds",
            "A sender or the helper lies, or --noise is lower than it was.",
        )
    return steps


def longest(updates: int, size: int, deviation: int) -> float:
    """The length in steps of the grid that the sum of so many deltas is not above, each of `size` numbers.

    What noise adds is above this with a chance of exp(-32) (Laurent and Massart 2000, lemma 1).
    """
    most = updates * (LEVELS + 0.5 * sqrt(size))  # the length of a delta, and of what rounding to the grid adds
    return most + deviation * sqrt(updates) * (sqrt(size) + FAR)


@dataclass(frozen=True, slots=True)
class ModelState:
    """What the next version starts from, as the store has it, and its number.

    `releases` are the scores of each open trial by task, the newest last; `spent` is the margin gone, `restarted` when
    a rejection last sent the task back, in seconds since 1970.
    """

    current: CurrentModels
    number: int
    releases: Mapping[str, tuple[EvaluationSum, ...]]
    spent: Mapping[str, float]
    restarted: Mapping[str, float]
    now: float


def next_shared(
    standing: ModelState, sums: Mapping[str, TaskSum], rules: Mapping[str, AggregationRules], gate: Gate | None
) -> AggregationResult:
    """Return the next version, each task moved by its sum and judged on its own; ungated, production is the candidate."""
    birth, tracks = VersionBuilder(standing.current, standing.number, standing.now, standing.restarted), {}
    for name, vector in birth.before.vectors.items():
        moved_on = _moved(vector, sums[name], rules[name]) if name in sums else vector
        tracks[name] = _judged(standing, birth, name, moved_on, gate) if gate else TaskState(moved_on, birth.number)
    return birth.made(tracks)


def _moved(vector: Vector, found: TaskSum, rules: AggregationRules) -> Vector:
    """The task after the sum, as after a fold of plain updates that no cap has touched."""
    step = found.steps.astype(np.float64) * (found.scale * rules.clip)
    senders = ((owner or (project,), project) for owner, project in found.senders)
    return to_float_array(apply_step(to_numpy(vector), step, scale_rate(rules, senders)))


def _judged(standing: ModelState, birth: VersionBuilder, name: str, vector: Vector, gate: Gate) -> TaskState:
    verdict = judge_evaluation_sums(standing.releases.get(name, ()), gate, standing.spent.get(name, 0.0))
    # what was summed cannot be told apart: nothing of it is folded again
    return birth.judged(name, vector, verdict, lambda _: (standing.current.production[name], 0))
