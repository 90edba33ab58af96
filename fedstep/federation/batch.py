"""The one place that makes what leaves the house: an update, from the rows that wait in the history."""

from array import array
from collections.abc import Callable, Mapping, Sequence

from fedstep.build.record import Absent
from fedstep.features.schema import Head, schema
from fedstep.federation.bounds import bucket, clip
from fedstep.federation.crowd import veiled
from fedstep.federation.scores import score
from fedstep.federation.wire import Model, Update
from fedstep.model.labels import Ripe, groups
from fedstep.model.sgd import learn_shared
from fedstep.model.state import Backlog

__all__ = ["full_batches", "make_update"]


def full_batches(backlog: Backlog) -> Mapping[str, tuple[Ripe, ...]]:
    """The waiting rows of each head that has enough of them, of enough distinct tests or builds."""
    return {
        name: backlog.waiting.get(name, ())
        for name, head in schema().heads.items()
        if _is_full(head, backlog.waiting.get(name, ()))
    }


def make_update(backlog: Backlog, model: Model, keyed: Callable[..., str]) -> tuple[Update | Absent, Backlog]:
    """The update learned from all full batches, veiled, starting at `model.head`, and the backlog without their rows.

    What is in it: one clipped change of coefficients a head, where a snapshot is on trial the mean clipped difference
    of losses on the same rows, the base version, bucketed counts and hashes by `keyed`, the project's own.
    """
    batches = full_batches(backlog)
    if not batches:
        return Absent(_progress(backlog)), backlog
    told = {name: veiled(schema().heads[name], rows) for name, rows in batches.items()}
    update = Update(
        schema=schema().digest,
        base=model.head_version,
        id=keyed("update", *_row_names(batches)),
        project=keyed("project"),
        rows={name: bucket(len(rows)) for name, rows in batches.items()},
        deltas={name: _delta(name, model.head[name], rows) for name, rows in told.items()},
        # the shared heads have not learned these rows yet, so that they are a fair test of the snapshot
        scores={name: score(name, model, rows) for name, rows in told.items() if name in model.trials},
    )
    return update, backlog._replace(waiting={**backlog.waiting, **dict.fromkeys(batches, ())})


def _is_full(head: Head, rows: Sequence[Ripe]) -> bool:
    return len(rows) >= head.minimum_rows and groups(rows) >= head.minimum_groups


def _delta(name: str, head: Sequence[float], rows: Sequence[Ripe]) -> "array[float]":
    learned = learn_shared(name, head, rows)
    change = array("f", (after - before for after, before in zip(learned, head, strict=True)))
    return clip(change, schema().heads[name].clip)


def _row_names(batches: Mapping[str, Sequence[Ripe]]) -> list[str]:
    return sorted(f"{head} {ripe.row.subject} {ripe.row.run}" for head, rows in batches.items() for ripe in rows)


def _progress(backlog: Backlog) -> str:
    parts = (
        f"{name} {len(backlog.waiting.get(name, ()))} of {head.minimum_rows}" for name, head in schema().heads.items()
    )
    return f"no batch is full yet (rows: {', '.join(parts)})"
