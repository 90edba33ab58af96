"""From one version to the next: where a lineage starts, how updates become its next head, and how they do again."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby

import numpy as np

from fedstep.errors import SchemaMismatch, WireError
from fedstep.features.schema import schema
from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Shape, check_model, unpack_model
from fedstep.model.linear import zeros
from fedstep.server import aggregate
from fedstep.server.aggregate import Contribution, Rules, aggregate_heads
from fedstep.server.records import Stored, Version

__all__ = ["contributions", "fold_again", "fold_stored", "narrow", "next_head", "starting_vectors", "wide"]


def starting_vectors(starter: bytes, shape: Shape) -> Mapping[str, Vector]:
    """The head of a starter model; what the schema starts with where there is none, or one of another schema."""
    try:
        model = unpack_model(starter)
        check_model(model, shape)
    except (WireError, SchemaMismatch):
        ours = schema()
        return {
            name: ours.heads[name].start() if shape.digest == ours.digest else zeros(size)
            for name, size in shape.sizes.items()
        }
    return model.head


def next_head(head: Version, bodies: Iterable[bytes], rules: Mapping[str, Rules]) -> Mapping[str, Vector]:
    """The vectors after the updates in `bodies`, in whatever order they come, from owners that are not known."""
    return fold_stored(head, map(Stored, bodies), rules)


def fold_stored(head: Version, updates: Iterable[Stored], rules: Mapping[str, Rules]) -> Mapping[str, Vector]:
    """The vectors after these updates, in whatever order they come."""
    by_head: dict[str, list[Contribution]] = {}
    for stored in updates:
        for name, contribution in contributions(stored, head.version):
            by_head.setdefault(name, []).append(contribution)
    vectors = {name: wide(vector) for name, vector in head.vectors.items()}
    return {name: narrow(vector) for name, vector in aggregate_heads(vectors, by_head, rules).items()}


def fold_again(
    name: str, start: Vector, updates: Iterable[Stored], version: int, rules: Rules, without: Collection[str]
) -> Vector:
    """One head after the same folds from another start, less the projects and owners in `without`.

    The updates come in the order of their folds, those of the fold that makes `version` last; one fold is in memory.
    """
    vector = wide(start)
    for folded, generation in groupby(updates, lambda stored: stored.folded):
        base = (version if folded < 0 else folded) - 1
        found = (pair for stored in generation for pair in contributions(stored, base))
        kept = [part for head, part in found if head == name and not {part.project, part.owner} & set(without)]
        vector = aggregate.aggregate(vector, kept, rules)
    return narrow(vector)


def contributions(stored: Stored, version: int) -> Iterator[tuple[str, Contribution]]:
    """What an update adds to each of its heads when it is folded into `version`."""
    update = stored.update()
    for name, delta in update.deltas.items():
        project = stored.project or update.project
        yield name, Contribution(update.id, project, version - update.base, wide(delta), stored.owner)


def wide(vector: Vector) -> aggregate.Vector:
    """The same numbers for numpy, not copied."""
    return np.frombuffer(vector, dtype=np.float32)


def narrow(vector: aggregate.Vector) -> Vector:
    """The same numbers for the wire."""
    found = zeros(0)
    found.frombytes(vector.astype(np.float32).tobytes())
    return found
