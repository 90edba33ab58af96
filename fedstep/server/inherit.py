"""Where the lineage of a new schema starts: with the old coefficients of the features that it kept. Pure."""

from array import array
from collections.abc import Mapping, Sequence

from fedstep.features.schema import Schema
from fedstep.federation.tensors import Vector

__all__ = ["Names", "inherited", "names_of"]

Names = Mapping[str, Sequence[str]]  # what the coordinates of each head are called, in order


def names_of(schema: Schema) -> Names:
    """What the coordinates of the schema are called."""
    return {name: head.names() for name, head in schema.heads.items()}


def inherited(
    names: Names, start: Mapping[str, Vector], old: Names, weights: Mapping[str, Vector]
) -> Mapping[str, Vector]:
    """`start`, each coordinate with the weight that its name had in the `old` head of the same name, if it had one."""
    return {
        head: _kept(names[head], vector, dict(zip(old.get(head, ()), weights.get(head, ()), strict=True)))
        for head, vector in start.items()
    }


def _kept(names: Sequence[str], start: Vector, weights: Mapping[str, float]) -> Vector:
    return array("f", (weights.get(name, weight) for name, weight in zip(names, start, strict=True)))
