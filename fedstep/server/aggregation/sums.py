"""Make the next version of sums of updates, where no single update is known. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedstep.federation.messages import Vector
from fedstep.server.aggregation.fedbuff import AggregationRules, apply_step, scale_rate
from fedstep.server.aggregation.inputs import AggregationResult, ModelState
from fedstep.server.aggregation.step import Aggregate, advance, to_float_array, to_numpy
from fedstep.server.gate import Evidence, Gate


@dataclass(frozen=True, slots=True)
class TaskSum:
    """The sum of the deltas of one task in steps of a grid, each of them `scale` times the task's bound.

    `senders` are the owner and project of each delta; empty where they must not be known.
    """

    steps: NDArray[np.int64]
    scale: float
    senders: Sequence[tuple[str, str]] = ()


def advance_by_sums(
    state: ModelState,
    sums: Mapping[str, TaskSum],
    evidence: Mapping[str, Evidence],
    rules: Mapping[str, AggregationRules],
    gate: Gate | None,
) -> AggregationResult:
    """Return the next version, each task moved by its sum, if it has one."""
    vectors = {
        name: _add_sum(vector, sums[name], rules[name]) if name in sums else vector
        for name, vector in state.current.candidate.vectors.items()
    }
    return advance(state, Aggregate(vectors), evidence, gate)


def _add_sum(vector: Vector, task_sum: TaskSum, rules: AggregationRules) -> Vector:
    """Return the vector after the sum, as after an aggregation of single updates that no cap has touched."""
    step = task_sum.steps.astype(np.float64) * (task_sum.scale * rules.clip)
    senders = ((owner or (project,), project) for owner, project in task_sum.senders)
    return to_float_array(apply_step(to_numpy(vector), step, scale_rate(rules, senders)))
