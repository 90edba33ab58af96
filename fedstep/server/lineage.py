"""From one version to the next: where a lineage starts, how updates become its next head, and how they do again."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter

import numpy as np

from fedstep.errors import SchemaMismatch, WireError
from fedstep.features.schema import schema
from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Shape, check_model, unpack_model
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import AggregationRules, Contribution, aggregate, aggregate_task
from fedstep.server.aggregation.vectors import Contributor, Contributors
from fedstep.server.aggregation.vectors import Vector as FloatVector
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


def next_head(head: Version, bodies: Iterable[bytes], rules: Mapping[str, AggregationRules]) -> Mapping[str, Vector]:
    """The vectors after the updates in `bodies`, in whatever order they come, from owners that are not known."""
    return fold_stored(head, map(Stored, bodies), rules)


def fold_stored(
    head: Version, updates: Iterable[Stored], rules: Mapping[str, AggregationRules]
) -> Mapping[str, Vector]:
    """The vectors after these updates, in whatever order they come."""
    sent = sorted((_sent(stored, head.version) for stored in updates), key=itemgetter(0))
    everyone = Contributors.of([sender for sender, _ in sent])
    deltas: dict[str, dict[int, FloatVector]] = {name: {} for name in head.vectors}
    for place, (_, parts) in enumerate(sent):
        for name, delta in parts.items():
            deltas[name][place] = wide(delta)
    return {
        name: narrow(aggregate_task(wide(vector), deltas[name], everyone, rules[name]))
        for name, vector in head.vectors.items()
    }


def fold_again(
    name: str, start: Vector, updates: Iterable[Stored], version: int, rules: AggregationRules, without: Collection[str]
) -> Vector:
    """One head after the same folds from another start, less the projects and owners in `without`.

    The updates come in the order of their folds, those of the fold that makes `version` last; one fold is in memory.
    """
    vector = wide(start)
    for fold, generation in groupby(updates, lambda stored: stored.folded):
        base = (version if fold < 0 else fold) - 1
        found = (pair for stored in generation for pair in contributions(stored, base))
        kept = [part for head, part in found if head == name and not {part.project, part.owner} & set(without)]
        vector = aggregate(vector, kept, rules)
    return narrow(vector)


def contributions(stored: Stored, version: int) -> Iterator[tuple[str, Contribution]]:
    """What an update adds to each of its heads when it is folded into `version`."""
    sender, parts = _sent(stored, version)
    for name, delta in parts.items():
        yield name, Contribution(sender.id, sender.project, sender.staleness, wide(delta), sender.owner)


def _sent(stored: Stored, version: int) -> tuple[Contributor, Mapping[str, Vector]]:
    """Whose it is, and its deltas by head."""
    update = stored.update()
    sender = Contributor(version - update.base, stored.owner, stored.project or update.project, update.id)
    return sender, update.deltas


def wide(vector: Vector) -> FloatVector:
    """The same numbers for numpy, not copied."""
    return np.frombuffer(vector, dtype=np.float32)


def narrow(vector: FloatVector) -> Vector:
    """The same numbers for the wire."""
    found = zeros(0)
    found.frombytes(vector.astype(np.float32).tobytes())
    return found
