"""Learning from one record: rows ripen, are scored with the current model, and are learned once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedstep.features.schema import HEAD_NAMES, schema
from fedstep.history.entry import Entry, Row
from fedstep.history.tests import TestTable
from fedstep.model.calibration import (
    Score,
    Trackers,
    observe_outcome,
    observe_residual,
    probability,
    score_outcome,
    untried,
)
from fedstep.model.labels import Ripe, numbered, ripen
from fedstep.model.linear import Local, margin
from fedstep.model.sgd import learn_local
from fedstep.model.state import Backlog, Correction

__all__ = ["Learned", "Production", "absorb", "absorb_ripe", "full_margin"]

MOST_WAITING = 2000  # rows of one head that wait to be sent; without an aggregator the oldest go
REPLAYED = {"flaky": 30, "triage": 30}  # recent rows learned again with each new batch; builds gain nothing by it

Production = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Learned:
    """The correction and the backlog after a record, and how many rows it ripened."""

    correction: Correction
    backlog: Backlog
    ripened: int


def absorb(correction: Correction, backlog: Backlog, entry: Entry, table: TestTable, production: Production) -> Learned:
    """Learn from one more record; `table` already has it folded in, `production` is held fixed."""
    ripened = 0
    for head in HEAD_NAMES:
        fresh = entry.rows.get(head, ()) if entry.schema == schema().digest else ()
        ripe, pending = ripen(head, (*backlog.pending.get(head, ()), *numbered(fresh, table)), table)
        backlog = backlog._replace(pending={**backlog.pending, head: tuple(pending)})
        correction, backlog = absorb_ripe(head, correction, backlog, ripe, production[head], entry.stream)
        ripened += len(ripe)
    return Learned(correction, backlog, ripened)


def absorb_ripe(
    head: str, correction: Correction, backlog: Backlog, ripe: Sequence[Ripe], weights: Sequence[float], stream: str
) -> tuple[Correction, Backlog]:
    """Learn rows of one head that have just ripened; `weights` are its production, `stream` is their build's."""
    learned = _learn(head, correction, backlog.recent.get(head, ()), ripe, weights, stream)
    return learned, _file(head, backlog, ripe)


def full_margin(weights: Sequence[float], local: Local, row: Row) -> float:
    """The margin of shared and local weights together."""
    correction = sum(local.shared.get(index, 0.0) * value for index, value in zip(row.indices, row.values, strict=True))
    return margin(weights, row.indices, row.values) + correction + sum(local.private.get(p, 0.0) for p in row.private)


def _learn(
    head: str, before: Correction, recent: Sequence[Ripe], ripe: Sequence[Ripe], weights: Sequence[float], stream: str
) -> Correction:
    """Calibrate on the fresh rows first, each with the model that has not seen it; then learn them."""
    if not ripe:
        return before
    local = before.local.get(head, Local())
    after = before
    for one in ripe:
        score = full_margin(weights, local, one.row)
        after = (
            _observe_time(after, stream, one, score) if head == "build-duration" else _observe(after, head, one, score)
        )
    learned = learn_local(head, weights, local, [*_newest(recent, REPLAYED.get(head, 0)), *ripe])
    return after._replace(local={**after.local, head: learned})


def _observe(correction: Correction, head: str, ripe: Ripe, score: float) -> Correction:
    platt = correction.platt.get(head, untried(head))
    fared = score_outcome(correction.scores.get(head, Score()), probability(platt, score), ripe.label)
    return correction._replace(
        platt={**correction.platt, head: observe_outcome(platt, score, ripe.label, ripe.weight)},
        scores={**correction.scores, head: fared},
    )


def _observe_time(correction: Correction, stream: str, ripe: Ripe, score: float) -> Correction:
    trackers = correction.trackers.get(stream, Trackers())
    return correction._replace(trackers={**correction.trackers, stream: observe_residual(trackers, ripe.label - score)})


def _file(head: str, backlog: Backlog, ripe: Sequence[Ripe]) -> Backlog:
    waiting = (*backlog.waiting.get(head, ()), *ripe)[-MOST_WAITING:]
    recent = _newest((*backlog.recent.get(head, ()), *ripe), REPLAYED.get(head, 0))
    return backlog._replace(waiting={**backlog.waiting, head: waiting}, recent={**backlog.recent, head: recent})


def _newest(rows: Sequence[Ripe], most: int) -> tuple[Ripe, ...]:
    return tuple(rows[max(0, len(rows) - most) :])
