"""From one version to the next: where a lineage starts, and how the updates in the buffer become its next head."""

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Shape, Update, check_model, unpack_model, unpack_update
from fedstep.model.linear import zeros
from fedstep.server import aggregate
from fedstep.server.aggregate import Contribution, Rules, aggregate_heads
from fedstep.server.store import Version

__all__ = ["next_head", "starting_vectors", "wide"]


def starting_vectors(starter: bytes, shape: Shape) -> Mapping[str, Vector]:
    """The head of a starter model; zeros where there is none, or one of another schema."""
    try:
        model = unpack_model(starter)
        check_model(model, shape)
    except (WireError, SchemaMismatch):
        return {name: zeros(size) for name, size in shape.sizes.items()}
    return model.head


def next_head(head: Version, bodies: Iterable[bytes], rules: Mapping[str, Rules]) -> Mapping[str, Vector]:
    """The vectors after the updates in `bodies`, in whatever order they come."""
    parts = chain.from_iterable(_contributions(unpack_update(body), head.version) for body in bodies)
    by_head: dict[str, list[Contribution]] = {}
    for name, contribution in parts:
        by_head.setdefault(name, []).append(contribution)
    vectors = {name: wide(vector) for name, vector in head.vectors.items()}
    return {name: _narrow(vector) for name, vector in aggregate_heads(vectors, by_head, rules).items()}


def _contributions(update: Update, version: int) -> Iterable[tuple[str, Contribution]]:
    for name, delta in update.deltas.items():
        yield name, Contribution(update.id, update.project, version - update.base, wide(delta))


def wide(vector: Vector) -> aggregate.Vector:
    """The same numbers for numpy, not copied."""
    return np.frombuffer(vector, dtype=np.float32)


def _narrow(vector: aggregate.Vector) -> Vector:
    narrow = zeros(0)
    narrow.frombytes(vector.astype(np.float32).tobytes())
    return narrow
