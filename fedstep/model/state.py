"""The local learned state and its encoding in two cache files.

The correction is small and read by every prediction; the backlog is larger and read by `train` alone.
"""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, HistoryError
from fedstep.history.records import Example, pack_examples, unpack_examples
from fedstep.model.experts import START, LogWeights
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import CalibrationScore, LocalWeights, PlattScaling, QuantileTrackers
from fedstep.schema.schema import schema

FORMAT = 1
LARGEST_COEFFICIENT = 1e9  # a slope that has seen many examples has a large weight
LARGEST_COUNT = 1e12


class LocalModel(NamedTuple):
    """The local additions to the shared model: weights, calibration and calibration scores."""

    local: Mapping[str, LocalWeights] = MappingProxyType({})
    platt: Mapping[str, PlattScaling] = MappingProxyType({})
    trackers: Mapping[str, QuantileTrackers] = MappingProxyType({})
    scores: Mapping[str, CalibrationScore] = MappingProxyType({})
    experts: Mapping[str, LogWeights] = MappingProxyType({})  # by stream, as the trackers are


class SentBatch(NamedTuple):
    """The examples of one task that an update was learned from, and digests of the versions that had not learned them.

    `versions` are those of production and of the version on trial at that time; later ones learned the examples, too.
    """

    examples: tuple[LabelledExample, ...]
    versions: tuple[str, ...]


class ExampleQueue(NamedTuple):
    """Examples by task: without a label yet, not sent yet, the last learned ones, for replay, and the last sent ones.

    Those that were sent are kept for evaluations, the oldest batch first.
    """

    pending: Mapping[str, tuple[Example, ...]] = MappingProxyType({})
    waiting: Mapping[str, tuple[LabelledExample, ...]] = MappingProxyType({})
    recent: Mapping[str, tuple[LabelledExample, ...]] = MappingProxyType({})
    sent: Mapping[str, tuple[SentBatch, ...]] = MappingProxyType({})


def encode_local_model(correction: LocalModel, generation: str) -> bytes:
    """Encode the correction as JSON. `generation` names the records it was learned from."""
    local = {
        task: {"shared": {str(i): w for i, w in weights.shared.items()}, "private": dict(weights.private)}
        for task, weights in correction.local.items()
    }
    content = {
        **_stamp(generation),
        "local": local,
        "platt": {task: platt._asdict() for task, platt in correction.platt.items()},
        "trackers": {key: trackers._asdict() for key, trackers in correction.trackers.items()},
        "scores": {task: score._asdict() for task, score in correction.scores.items()},
        "experts": dict(correction.experts),
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def decode_local_model(content: bytes) -> tuple[LocalModel, str]:
    """Decode the correction and its generation. Raise HistoryError if damaged or of another schema."""
    try:
        fields = _check(json.loads(content))
        local = {task: _local_weights(task, packed) for task, packed in fields["local"].items()}
        platt = {task: PlattScaling(**_numbers(packed)) for task, packed in fields["platt"].items()}
        trackers = {key: QuantileTrackers(**_numbers(packed)) for key, packed in fields["trackers"].items()}
        scores = {
            task: CalibrationScore(**_numbers(known, 0.0, LARGEST_COUNT)) for task, known in fields["scores"].items()
        }
        if not all(min(scaling.slope_weight, scaling.offset_weight) > 0.0 for scaling in platt.values()):
            raise ValueError("a weight is not positive")
        experts = {stream: _log_weights(packed) for stream, packed in fields["experts"].items()}
        return LocalModel(local, platt, trackers, scores, experts), fields["generation"]
    except MALFORMED as error:
        raise HistoryError("the local model is damaged") from error


def _log_weights(values: Sequence[float]) -> LogWeights:
    """Return the log-weights of the experts. Raise ValueError if they are not as many as there are experts."""
    if len(values) != len(START) or not all(-LARGEST_COEFFICIENT < value <= 0.0 for value in values):
        raise ValueError("the weights do not fit the experts")
    return tuple(map(float, values))


def encode_queue(backlog: ExampleQueue, generation: str) -> bytes:
    """Encode the backlog as JSON, examples in columns."""
    content = {
        **_stamp(generation),
        "pending": {task: pack_examples(rows) for task, rows in backlog.pending.items()},
        "waiting": {task: _pack_labelled(rows) for task, rows in backlog.waiting.items()},
        "recent": {task: _pack_labelled(rows) for task, rows in backlog.recent.items()},
        "sent": {
            task: [{**_pack_labelled(batch.examples), "versions": batch.versions} for batch in batches]
            for task, batches in backlog.sent.items()
        },
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def decode_queue(content: bytes) -> tuple[ExampleQueue, str]:
    """Decode the backlog and its generation. Raise HistoryError if damaged or of another schema."""
    try:
        fields = _check(json.loads(content))
        pending = {task: unpack_examples(rows) for task, rows in fields["pending"].items()}
        waiting = {task: _unpack_labelled(rows) for task, rows in fields["waiting"].items()}
        recent = {task: _unpack_labelled(rows) for task, rows in fields["recent"].items()}
        sent = {task: tuple(map(_unpack_sent, batches)) for task, batches in fields.get("sent", {}).items()}
        return ExampleQueue(pending, waiting, recent, sent), fields["generation"]
    except MALFORMED as error:
        raise HistoryError("the backlog of rows is damaged") from error


def count_outdated(content: bytes) -> int:
    """Return how many unsent examples of a backlog have features of another schema; 0 where it cannot be read."""
    try:
        fields = json.loads(content)
        outdated = fields["schema"] != schema().digest
        return sum(len(rows["labels"]) for rows in fields["waiting"].values()) if outdated else 0
    except MALFORMED:
        return 0


def _local_weights(task: str, fields: Mapping[str, Any]) -> LocalWeights:
    """Return the weights of a task. Raise ValueError for a coordinate that it does not have."""
    shared, size = {int(i): weight for i, weight in _numbers(fields["shared"]).items()}, schema().tasks[task].size()
    if not all(0 <= index < size for index in shared):
        raise ValueError("a coordinate is out of range")
    return LocalWeights(shared, _numbers(fields["private"]))


def _numbers(
    fields: Mapping[str, Any], least: float = -LARGEST_COEFFICIENT, most: float = LARGEST_COEFFICIENT
) -> Mapping[str, Any]:
    """Return the fields. Raise ValueError or TypeError unless all are numbers within these bounds."""
    if not all(least <= value <= most for value in fields.values()):
        raise ValueError("a number is out of range")
    return fields


def _stamp(generation: str) -> dict[str, object]:
    return {"format": FORMAT, "schema": schema().digest, "generation": generation}


def _check(fields: dict[str, Any]) -> dict[str, Any]:
    if (fields["format"], fields["schema"]) != (FORMAT, schema().digest):
        raise HistoryError("what was learned belongs to another version of fedstep")
    return fields


def _pack_labelled(rows: Sequence[LabelledExample]) -> dict[str, object]:
    return {
        "rows": pack_examples([row.example for row in rows]),
        "labels": [row.label for row in rows],
        "weights": [row.weight for row in rows],
    }


def _unpack_sent(fields: Mapping[str, Any]) -> SentBatch:
    return SentBatch(_unpack_labelled(fields), tuple(map(str, fields["versions"])))


def _unpack_labelled(fields: Mapping[str, Any]) -> tuple[LabelledExample, ...]:
    if not isfinite(sum(fields["labels"]) + sum(fields["weights"])):
        raise ValueError("a number is not finite")
    labelled = zip(unpack_examples(fields["rows"]), fields["labels"], fields["weights"], strict=True)
    return tuple(LabelledExample(row, float(label), float(weight)) for row, label, weight in labelled)
