"""What the project has learned for itself, as values and as the two cache files that keep them.

The correction is small and read by every prediction; the backlog is larger and read by `train` alone.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from fedstep.errors import HistoryError
from fedstep.features.schema import schema
from fedstep.history.columns import pack_rows, unpack_rows
from fedstep.history.entry import Row
from fedstep.model.calibration import Platt, Score, Trackers
from fedstep.model.labels import Ripe
from fedstep.model.linear import Local

__all__ = ["Backlog", "Correction", "load_backlog", "load_correction", "save_backlog", "save_correction"]

FORMAT = 1


class Correction(NamedTuple):
    """What is added to the shared model: local weights, calibration, and how predictions fared."""

    local: Mapping[str, Local] = MappingProxyType({})
    platt: Mapping[str, Platt] = MappingProxyType({})
    trackers: Mapping[str, Trackers] = MappingProxyType({})
    scores: Mapping[str, Score] = MappingProxyType({})


class Backlog(NamedTuple):
    """Rows by head: those without a label yet, those not yet sent, and the last ones learned, for replay."""

    pending: Mapping[str, tuple[Row, ...]] = MappingProxyType({})
    waiting: Mapping[str, tuple[Ripe, ...]] = MappingProxyType({})
    recent: Mapping[str, tuple[Ripe, ...]] = MappingProxyType({})


def save_correction(correction: Correction, generation: str) -> bytes:
    """JSON bytes. `generation` names the records it was learned from."""
    local = {
        head: {"shared": {str(i): w for i, w in one.shared.items()}, "private": dict(one.private)}
        for head, one in correction.local.items()
    }
    content = {
        **_stamp(generation),
        "local": local,
        "platt": {head: platt._asdict() for head, platt in correction.platt.items()},
        "trackers": {key: trackers._asdict() for key, trackers in correction.trackers.items()},
        "scores": {head: score._asdict() for head, score in correction.scores.items()},
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def load_correction(content: bytes) -> tuple[Correction, str]:
    """The correction and its generation. HistoryError where damaged or of another schema."""
    try:
        fields = _checked(json.loads(content))
        local = {
            head: Local({int(i): w for i, w in one["shared"].items()}, one["private"])
            for head, one in fields["local"].items()
        }
        platt = {head: Platt(**one) for head, one in fields["platt"].items()}
        trackers = {key: Trackers(**one) for key, one in fields["trackers"].items()}
        scores = {head: Score(**one) for head, one in fields["scores"].items()}
        return Correction(local, platt, trackers, scores), fields["generation"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HistoryError("the local model is damaged") from error


def save_backlog(backlog: Backlog, generation: str) -> bytes:
    """JSON bytes with rows in columns."""
    content = {
        **_stamp(generation),
        "pending": {head: pack_rows(rows) for head, rows in backlog.pending.items()},
        "waiting": {head: _pack_ripe(rows) for head, rows in backlog.waiting.items()},
        "recent": {head: _pack_ripe(rows) for head, rows in backlog.recent.items()},
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def load_backlog(content: bytes) -> tuple[Backlog, str]:
    """The backlog and its generation. HistoryError where damaged or of another schema."""
    try:
        fields = _checked(json.loads(content))
        pending = {head: unpack_rows(rows) for head, rows in fields["pending"].items()}
        waiting = {head: _unpack_ripe(rows) for head, rows in fields["waiting"].items()}
        recent = {head: _unpack_ripe(rows) for head, rows in fields["recent"].items()}
        return Backlog(pending, waiting, recent), fields["generation"]
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise HistoryError("the backlog of rows is damaged") from error


def _stamp(generation: str) -> dict[str, object]:
    return {"format": FORMAT, "schema": schema().digest, "generation": generation}


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    if (fields["format"], fields["schema"]) != (FORMAT, schema().digest):
        raise HistoryError("what was learned belongs to another version of fedstep")
    return fields


def _pack_ripe(rows: Sequence[Ripe]) -> dict[str, object]:
    return {
        "rows": pack_rows([ripe.row for ripe in rows]),
        "labels": [ripe.label for ripe in rows],
        "weights": [ripe.weight for ripe in rows],
    }


def _unpack_ripe(fields: Mapping[str, Any]) -> tuple[Ripe, ...]:
    labelled = zip(unpack_rows(fields["rows"]), fields["labels"], fields["weights"], strict=True)
    return tuple(Ripe(row, float(label), float(weight)) for row, label, weight in labelled)
