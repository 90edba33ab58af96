"""Where the lineage of a new schema starts: with the old coefficients of the features that it kept. Pure."""

from array import array
from collections.abc import Mapping, Sequence

from fedstep.federation.tensors import Vector
from fedstep.schema.schema import Schema

Names = Mapping[str, Sequence[str]]  # what the coordinates of each task are called, in order


def names_of(schema: Schema) -> Names:
    """What the coordinates of the schema are called."""
    return {name: task.names() for name, task in schema.tasks.items()}


def inherited(
    names: Names, start: Mapping[str, Vector], old: Names, weights: Mapping[str, Vector]
) -> Mapping[str, Vector]:
    """`start`, each coordinate with the weight that its name had in the `old` task of the same name, if it had one."""
    return {
        task: _kept(names[task], vector, dict(zip(old.get(task, ()), weights.get(task, ()), strict=True)))
        for task, vector in start.items()
    }


def _kept(names: Sequence[str], start: Vector, weights: Mapping[str, float]) -> Vector:
    return array("f", (weights.get(name, weight) for name, weight in zip(names, start, strict=True)))
