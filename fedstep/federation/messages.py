"""The messages of the federation, `Update` and `Model`, and their safetensors encoding (docs/reference/protocol.md).

Format 2 is written. Format 1, which differs in words only, is read too: histories, outboxes and stores contain it.

https://github.com/huggingface/safetensors#format: 8 bytes little-endian header length, a JSON header, the numbers.
Nothing in the bytes is trusted. Written here, because `safetensors.serialize` orders the metadata at random: the same
value would be other bytes.
"""

import json
import re
import sys
import time
import zlib
from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import isfinite, sqrt
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from safetensors import SafetensorError, deserialize

from fedstep.errors import SchemaMismatch, WireError
from fedstep.schema.schema import Schema

_GZIP = 31  # zlib's number for a gzip header and trailer around a window of 32 kB


def deflate(body: bytes) -> bytes:
    """Return the body as gzip; the same body gives the same bytes, because the header has no name and no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def inflate(body: bytes, most: int) -> bytes:
    """Return the decompressed body. Raise WireError unless it is one whole gzip member of at most `most` bytes.

    >>> inflate(deflate(b"coefficients"), 100)
    b'coefficients'
    """
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise WireError("the body says gzip and is not gzip", "Send one whole gzip member.") from error
    if len(plain) > most:
        raise WireError(f"the body inflates to more than {most} bytes", "Send less.")
    if not unpacker.eof or unpacker.unused_data:
        raise WireError("the gzip body is cut off or followed by other bytes", "Send one whole gzip member.")
    return plain


LARGEST_MESSAGE = 1 << 20  # bytes of one message, compressed or not
LONGEST_HEADER = 1 << 14  # bytes; four tasks on two tracks take less than 1 kB
MOST_TENSORS = 32
MEMBERS = {"dtype", "shape", "data_offsets"}
# As we write it, and the safetensors library. Where no text in it has a brace or an escape, it ends at the first brace.
METADATA_FIRST = re.compile(rb'\{"__metadata__":(\{(?:"[^"\\{}]*":"[^"\\{}]*",?)*\}),')
UNREADABLE_REMEDY = "Delete it or fetch it again; if it was just made, both sides need the same version of fedstep."

Vector: TypeAlias = "array[float]"
Layout: TypeAlias = tuple[tuple[str, int, int], ...]


class Tensors(NamedTuple):
    """The metadata, and each vector of C floats by name."""

    words: Mapping[str, str]
    vectors: Mapping[str, Vector]


def pack(words: Mapping[str, str], vectors: Mapping[str, Vector]) -> bytes:
    """Return the safetensors bytes; equal values give equal bytes, whatever the order of the mappings.

    >>> unpack(pack({"format": "example"}, {"flaky": array("f", [0.5])})).vectors["flaky"][0]
    0.5
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(words.items()))}
    end = 0
    for name, vector in sorted(vectors.items()):
        start, end = end, end + 4 * len(vector)
        header[name] = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(
        (len(text).to_bytes(8, "little"), text, *(little_endian_bytes(vector) for _, vector in sorted(vectors.items())))
    )
    unpack(body)
    return body


def unpack(body: bytes) -> Tensors:
    """Return the metadata and vectors. Raise WireError unless all are F32 vectors of finite numbers within limits."""
    if len(body) > LARGEST_MESSAGE:
        raise WireError(f"the message has {len(body)} bytes, more than {LARGEST_MESSAGE}", UNREADABLE_REMEDY)
    text, start = _header(body)
    usual = METADATA_FIRST.match(text)
    if usual:
        words, layout = _words(_json(usual[1])), _usual_layout(b"{" + text[usual.end() :], len(body) - start)
    else:
        header = _json(text)
        words, layout = _words(header.pop("__metadata__", {})), _layout(header, body)
    vectors = {name: _vector(body[start + first : start + end]) for name, first, end in layout}
    _check_finite(body[start + 3 :: 4], vectors)
    return Tensors(words, vectors)


def _header(body: bytes) -> tuple[bytes, int]:
    """Return the JSON header without its padding, and the offset at which the numbers start."""
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(LONGEST_HEADER, len(body) - 8):
        raise WireError("the message is cut off or is not safetensors", UNREADABLE_REMEDY)
    text = body[8 : 8 + length]
    end = text.rfind(b"}") + 1  # what fills it up is compared, not searched through
    return (text[:end] if text[end:] == b" " * (length - end) else text), 8 + length


def _json(text: bytes) -> dict[str, object]:
    try:
        header = _DECODER.decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise WireError("the header of the message is not JSON without repeated keys", UNREADABLE_REMEDY) from error
    if not isinstance(header, dict):
        raise WireError("the header of the message is not a JSON object", UNREADABLE_REMEDY)
    return header


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("repeated key")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)  # `json.loads` would make one for each message


def _words(metadata: object) -> Mapping[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WireError("the metadata of the message is not text by name", UNREADABLE_REMEDY)
    return metadata


@lru_cache(maxsize=64)  # what senders send is laid out in few ways, and to find out how takes longer than all the rest
def _usual_layout(entries: bytes, size: int) -> Layout:
    """Return what `_layout` does, for a header without its metadata and `size` bytes of numbers."""
    header = _json(entries)
    if "__metadata__" in header:
        raise WireError("the header of the message is not JSON without repeated keys", UNREADABLE_REMEDY)
    return _layout(header, len(entries).to_bytes(8, "little") + entries + bytes(size))


def _layout(header: Mapping[str, object], body: bytes) -> Layout:
    """Return the name of each vector, and the offsets of its numbers; vectors follow each other without gaps."""
    if not 0 < len(header) <= MOST_TENSORS:
        raise WireError(f"the message has {len(header)} tensors, 1 to {MOST_TENSORS} are allowed", UNREADABLE_REMEDY)
    if any(not isinstance(entry, dict) or entry.keys() != MEMBERS for entry in header.values()):
        raise WireError(f"a tensor of the message has not exactly {', '.join(sorted(MEMBERS))}", UNREADABLE_REMEDY)
    try:
        pairs = deserialize(body)  # type: ignore[no-untyped-call]  # its stub has no types
    except SafetensorError as error:
        raise WireError(f"the message is not safetensors ({str(error)[:80]!a})", UNREADABLE_REMEDY) from error
    for name, tensor in pairs:
        if tensor["dtype"] != "F32" or len(tensor["shape"]) != 1:
            raise WireError(f"the tensor {_escape(name)} is not one vector of F32", UNREADABLE_REMEDY)
    return tuple((name, *header[name]["data_offsets"]) for name, _ in pairs)  # type: ignore[index]  # looked at above


def _vector(numbers: bytes) -> Vector:
    vector = array("f")
    vector.frombytes(numbers)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def _check_finite(highest: bytes, vectors: Mapping[str, Vector]) -> None:
    """Raise WireError for a number that is not finite; `highest` has the highest byte of each number.

    That byte is 0x7f or 0xff for numbers that are not finite (and for those above 2^126), so most messages need no
    closer look. A sum of at most 2^18 C floats cannot overflow a double: it is finite exactly if each of them is.
    """
    for name, vector in vectors.items() if b"\x7f" in highest or b"\xff" in highest else ():
        if not isfinite(sum(vector)):
            raise WireError(f"the tensor {_escape(name)} has a number that is not finite", UNREADABLE_REMEDY)


def _escape(name: str) -> str:
    """Return an untrusted name in a form that is safe to print."""
    return ascii(name[:40])


def little_endian_bytes(vector: "array[float] | array[int]") -> bytes:
    """Return the numbers as bytes, the lowest byte of each first."""
    if sys.byteorder == "little":
        return vector.tobytes()
    swapped = vector[:]
    swapped.byteswap()
    return swapped.tobytes()


MOST_ROWS = 1 << 20
LARGEST_COEFFICIENT = 1000.0  # of a model: one of 3 moves a probability from 0.5 to 0.95
NOISE = 0.04  # default standard deviation of a coordinate in a sum of shares, in units of the task's bound
MOST_NOISE = 1.0  # maximum of the same: a sum with more noise is useless for learning
WHOLE_BATCH = 50  # examples
LOUDEST = sqrt(WHOLE_BATCH)  # upper bound of `loudness`


def norm(delta: Vector) -> float:
    """Return the L2 norm."""
    return sqrt(sum(coordinate * coordinate for coordinate in delta))


def bucket(count: int) -> int:
    """Round a count of at least 1 down to a power of two, so that updates do not reveal the size of a batch.

    >>> bucket(50)
    32
    """
    return 1 << (min(count, MOST_ROWS).bit_length() - 1)


def loudness(rows: int) -> float:
    """Return the factor on a task's noise if its batches have at least `rows` examples.

    An example in a small batch is easier to recognise, so smaller batches get more noise.

    >>> loudness(50), loudness(8)
    (1.0, 2.5)
    """
    return max(1.0, sqrt(WHOLE_BATCH / max(1, rows)))


Patterns: TypeAlias = Mapping[str, str]  # compiled when first used: a model needs a few of them

UPDATE, MODEL = "fedstep-update-2", "fedstep-model-2"
UPDATE_1, MODEL_1 = "fedstep-update-1", "fedstep-model-1"
REMEDY = "Both sides need the same version of fedstep."

_NUMBER = "0|[1-9][0-9]{0,14}"
_BUCKET = "|".join(str(bucket(1 << bits)) for bits in range(32))
_SCHEMA, _PSEUDONYM = "[0-9a-f]{16}", "[0-9a-f]{32}"
_UPDATE_WORDS = {"schema": _SCHEMA, "base": _NUMBER, "id": _PSEUDONYM, "project": _PSEUDONYM}
_MODEL_WORDS = {
    "schema": _SCHEMA,
    "candidate": _NUMBER,
    "production": _NUMBER,
    "created": "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00Z",
}
_REAL = "(?:0|[1-9][0-9]{0,5})(?:[.][0-9]{1,20})?(?:e-[0-9]{2,3})?"  # every digit of a float below 1,000,000
_PRIVACY = f"{_REAL}/{_REAL}/[1-9][0-9]{{0,5}}/{_REAL}"
_OPTIONAL_MODEL_WORDS = {"privacy": _PRIVACY, "shares": "[1-9][0-9]{0,5}", "noise": _REAL}
_TASK = "[a-z][a-z0-9-]{0,31}"


class TrialScore(NamedTuple):
    """Evaluation of version `trial`: its mean loss minus production's, clipped to [-1, 1]."""

    trial: int
    difference: float


class Update(NamedTuple):
    """What one project learned from one batch per task, relative to the candidate of version `base`.

    `id` is a keyed hash of the build records, so that a repeated update counts once. `project` is a pseudonym.
    `examples` has the number of examples per task, rounded by `bucket`. `scores` has the tasks with a version on trial;
    in the encoding, a score is the last coordinate of its task's vector.
    """

    schema: str
    base: int
    id: str
    project: str
    examples: Mapping[str, int]
    deltas: Mapping[str, Vector]
    scores: Mapping[str, TrialScore] = MappingProxyType({})


class PrivacyGuarantee(NamedTuple):
    """Differential privacy of a project: (epsilon, delta) over its lifetime.

    It holds for a project that contributes once per `days` and at most `releases` times. All zeros mean no guarantee.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    releases: int = 0
    days: float = 0.0


NO_PROMISE = PrivacyGuarantee()


class Model(NamedTuple):
    """The weights that participants learn from (`candidate`) and predict with (`production`), by task.

    `trials` has the version on trial per task and `trial` its vector; a task without a trial is in neither. `shares` is
    the minimum number of projects per sum if the aggregator accepts only shares of updates, else 0. `noise` is the
    standard deviation of the noise in such a sum, in units of the task's bound.
    """

    schema: str
    candidate_version: int
    production_version: int
    created: str
    candidate: Mapping[str, Vector]
    production: Mapping[str, Vector]
    trials: Mapping[str, int] = MappingProxyType({})
    trial: Mapping[str, Vector] = MappingProxyType({})
    promise: PrivacyGuarantee = NO_PROMISE
    shares: int = 0
    noise: float = 0.0


class SchemaShape(NamedTuple):
    """What a message has to match: the digest of the schema and the number of coordinates per task."""

    digest: str
    sizes: Mapping[str, int]


def shape(schema: Schema) -> SchemaShape:
    """Return the shape of every message in this schema."""
    return SchemaShape(schema.digest, {task.name: task.size() for task in schema.tasks.values()})


def pack_update(update: Update) -> bytes:
    """Encode an update; equal updates give equal bytes. Raises WireError for one that `unpack_update` refuses."""
    words = {
        "format": UPDATE,
        "schema": update.schema,
        "base": str(update.base),
        "id": update.id,
        "project": update.project,
        **{f"examples.{task}": str(count) for task, count in update.examples.items()},
        **{f"trial.{task}": str(score.trial) for task, score in update.scores.items()},
    }
    vectors = {task: _append_score(delta, update.scores.get(task)) for task, delta in update.deltas.items()}
    _parse_update(Tensors(words, vectors))
    return pack(words, vectors)


def unpack_update(body: bytes) -> Update:
    """Decode an update of format 2 or 1. Raises WireError."""
    return _parse_update(unpack(body))


def pack_model(model: Model) -> bytes:
    """Encode a model; equal models give equal bytes. Raises WireError for one that `unpack_model` refuses."""
    words = {
        "format": MODEL,
        "schema": model.schema,
        "candidate": str(model.candidate_version),
        "production": str(model.production_version),
        "created": model.created,
        **{f"trial.{task}": str(version) for task, version in model.trials.items()},
        **({"privacy": _format_guarantee(model.promise)} if model.promise.releases else {}),
        **({"shares": str(model.shares)} if model.shares else {}),
        **({"noise": str(model.noise)} if model.noise else {}),
    }
    tracks = (("candidate", model.candidate), ("production", model.production), ("trial", model.trial))
    vectors = {f"{track}/{name}": vector for track, tasks in tracks for name, vector in tasks.items()}
    _parse_model(Tensors(words, vectors))
    return pack(words, vectors)


def unpack_model(body: bytes) -> Model:
    """Decode a model of format 2 or 1. Raises WireError."""
    return _parse_model(unpack(body))


def update_words(body: bytes) -> Tensors:
    """Return the words and vectors of an update in the terms of format 2, unchecked otherwise. Raises WireError."""
    return _read_version_1(unpack(body))


def check_update(update: Update, own_shape: SchemaShape) -> None:
    """Raise SchemaMismatch for another schema, WireError for a task that is unknown or of another size."""
    _check(update.schema, update.deltas, own_shape)


def check_model(model: Model, own_shape: SchemaShape) -> None:
    """Raise SchemaMismatch for another schema, WireError unless every task is present in its size and its bounds."""
    _check(model.schema, model.candidate, own_shape)
    for vectors in (model.candidate, model.production, model.trial):
        for name, vector in vectors.items():
            if vector and not max(max(vector), -min(vector)) <= LARGEST_COEFFICIENT:
                raise WireError(f"a coefficient of {name} is beyond {LARGEST_COEFFICIENT:g}", REMEDY)
    if len(model.candidate) < len(own_shape.sizes):
        raise WireError(f"the model lacks {', '.join(sorted(own_shape.sizes.keys() - model.candidate.keys()))}", REMEDY)


def hour(seconds: float) -> str:
    """Format seconds since 1970 as ISO 8601 in UTC, to the hour.

    >>> hour(0)
    '1970-01-01T00:00Z'
    """
    return time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(seconds))


def _read_version_1(tensors: Tensors) -> Tensors:
    """Translate a message of format 1 into the words of format 2; return any other one as it is.

    Format 1 has `rows.<task>` for `examples.<task>`, and `head` for the candidate. Raises WireError for a message of
    format 1 with words of format 2.
    """
    words, vectors = tensors
    if words.get("format") == UPDATE_1:
        translated = {name.replace("rows.", "examples.", 1): word for name, word in words.items()}
        return _checked_translation(words, Tensors({**translated, "format": UPDATE}, vectors))
    if words.get("format") == MODEL_1:
        translated = {"candidate" if name == "head" else name: word for name, word in words.items()}
        named = {re.sub("^head/", "candidate/", name): vector for name, vector in vectors.items()}
        if len(named) < len(vectors):
            raise WireError(f"the message mixes tensors of {MODEL_1} and {MODEL}", REMEDY)
        return _checked_translation(words, Tensors({**translated, "format": MODEL}, named))
    return tensors


def _checked_translation(words: Mapping[str, str], translated: Tensors) -> Tensors:
    new = translated.words
    kept = [name for name in words if name in new and (name == "candidate" or name.startswith("examples."))]
    if kept:
        raise WireError(f"the message mixes words of {words['format']} and {new['format']}", REMEDY)
    return translated


def _parse_update(tensors: Tensors) -> Update:
    words, vectors = _read_version_1(tensors)
    tasks = tuple(sorted(vectors))
    trials = tuple(task for task in tasks if f"trial.{task}" in words)
    _check_words(words, UPDATE, UPDATE_1, _update_patterns(tasks, trials))
    if not tasks:
        raise WireError("the update has no task", REMEDY)
    counts = {task: int(words[f"examples.{task}"]) for task in tasks}
    scores = {task: _parse_score(task, words, vectors[task]) for task in trials}
    deltas = {task: vectors[task][:-1] for task in trials}
    return Update(
        words["schema"], int(words["base"]), words["id"], words["project"], counts, {**vectors, **deltas}, scores
    )


@lru_cache(maxsize=64)  # updates have few different sets of tasks; to build the patterns costs as much as to match
def _update_patterns(tasks: tuple[str, ...], trials: tuple[str, ...]) -> Patterns:
    """Return the pattern of each word of an update with these tasks; those in `trials` have a score."""
    _check_tasks(tasks)
    counts, scored = {f"examples.{task}": _BUCKET for task in tasks}, {f"trial.{task}": _NUMBER for task in trials}
    return {**_UPDATE_WORDS, **counts, **scored}


def _append_score(delta: Vector, score: TrialScore | None) -> Vector:
    """Return the delta, followed by the score if there is one."""
    return delta + array("f", [score.difference]) if score else delta


def _parse_score(task: str, words: Mapping[str, str], vector: Vector) -> TrialScore:
    if not vector or not -1.0 <= vector[-1] <= 1.0:
        raise WireError(f"the score of {task} is not in [-1, 1]", REMEDY)
    return TrialScore(int(words[f"trial.{task}"]), vector[-1])


def _parse_model(tensors: Tensors) -> Model:
    words, vectors = _read_version_1(tensors)
    candidate, production, trial = (_track(f"{name}/", vectors) for name in ("candidate", "production", "trial"))
    optional = {name: pattern for name, pattern in _OPTIONAL_MODEL_WORDS.items() if name in words}
    _check_words(words, MODEL, MODEL_1, {**_MODEL_WORDS, **_trial_patterns(candidate, words), **optional})
    _check_tasks(tuple(candidate))
    sizes = {name: len(vector) for name, vector in candidate.items()}
    known = len(candidate) + len(production) + len(trial)
    if known < len(vectors) or sizes != {name: len(vector) for name, vector in production.items()}:
        raise WireError("the model's candidate and production do not have the same tasks", REMEDY)
    trials = {name: int(words[f"trial.{name}"]) for name in candidate if f"trial.{name}" in words}
    if trials.keys() != trial.keys() or any(len(vector) != sizes[name] for name, vector in trial.items()):
        raise WireError("a version on trial does not fit the model's candidate", REMEDY)
    return Model(
        words["schema"],
        int(words["candidate"]),
        int(words["production"]),
        words["created"],
        candidate,
        production,
        trials,
        trial,
        _parse_guarantee(words["privacy"]) if "privacy" in words else NO_PROMISE,
        int(words.get("shares", "0")),
        _parse_noise(words),
    )


def _parse_noise(words: Mapping[str, str]) -> float:
    noise = float(words.get("noise", "0"))
    if "noise" in words and not (0.0 < noise <= MOST_NOISE and "shares" in words):
        raise WireError(f"the noise {words['noise'][:100]} is above {MOST_NOISE:g}, or without shares", REMEDY)
    return noise


def _format_guarantee(promise: PrivacyGuarantee) -> str:
    """Format with every digit, so that `_parse_guarantee` returns an equal value."""
    return "/".join(str(value).removesuffix(".0") for value in promise)


def _parse_guarantee(word: str) -> PrivacyGuarantee:
    epsilon, delta, releases, days = word.split("/")
    promise = PrivacyGuarantee(float(epsilon), float(delta), int(releases), float(days))
    if not all(promise):
        raise WireError(f"the privacy guarantee {word[:100]} has a zero", REMEDY)
    return promise


def _trial_patterns(tasks: Iterable[str], words: Mapping[str, str]) -> Patterns:
    """Return the patterns of the `trial.<task>` that are present; one of an unknown task is left to be refused."""
    return {f"trial.{task}": _NUMBER for task in tasks if f"trial.{task}" in words}


def _track(prefix: str, vectors: Mapping[str, Vector]) -> Mapping[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in vectors.items() if name.startswith(prefix)}


def _check_tasks(tasks: tuple[str, ...]) -> None:
    wrong = [task for task in tasks if not re.fullmatch(_TASK, task)]
    if wrong:
        raise WireError(f"{wrong[0][:40]!a} is not the name of a task", REMEDY)


def _check_words(words: Mapping[str, str], wanted: str, earlier: str, patterns: Patterns) -> None:
    if words.get("format") != wanted:
        raise WireError(f"the message is not of the format {wanted} or {earlier}", REMEDY)
    if len(words) != 1 + len(patterns) or not patterns.keys() <= words.keys():
        raise WireError(f"the metadata of {wanted} is not exactly {', '.join(patterns)}", REMEDY)
    for name, pattern in patterns.items():
        if not re.fullmatch(pattern, words[name]):
            raise WireError(f"the metadata {name[:40]!a} of {wanted} has no valid value", REMEDY)


def _check(digest: str, vectors: Mapping[str, Vector], own_shape: SchemaShape) -> None:
    if digest != own_shape.digest:
        raise SchemaMismatch(f"the message has the feature schema {digest}, this side {own_shape.digest}", REMEDY)
    for name, vector in vectors.items():
        if own_shape.sizes.get(name) != len(vector):
            wanted = own_shape.sizes.get(name, "no such task")
            raise WireError(f"the task {name} has {len(vector)} coordinates, the schema says {wanted}", REMEDY)
