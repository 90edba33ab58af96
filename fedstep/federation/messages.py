"""The two messages of the federation, an update and a model, as values and as bytes."""

import re
import time
from array import array
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import sqrt
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.tensors import Tensors, Vector, pack, unpack
from fedstep.schema.schema import Schema

MOST_ROWS = 1 << 20
NOISE = 0.04  # standard deviation of a number in a sum of shares, in units of the task's bound, unless a leader says
MOST_NOISE = 1.0  # likewise: more of it leaves nothing to learn
WHOLE_BATCH = 50  # rows
LOUDEST = sqrt(WHOLE_BATCH)  # what loudness is not above


def norm(delta: Vector) -> float:
    """The L2 norm."""
    return sqrt(sum(number * number for number in delta))


def bucket(count: int) -> int:
    """The largest power of two that is not above a count of at least 1: exact sizes of batches stay home.

    >>> bucket(50)
    32
    """
    return 1 << (min(count, MOST_ROWS).bit_length() - 1)


def loudness(rows: int) -> float:
    """How many times the usual noise a task has whose batches have at least so many rows: of few, each tells more.

    >>> loudness(50), loudness(8)
    (1.0, 2.5)
    """
    return max(1.0, sqrt(WHOLE_BATCH / max(1, rows)))


Patterns: TypeAlias = Mapping[str, re.Pattern[str]]

UPDATE, MODEL = "fedstep-update-1", "fedstep-model-1"
REMEDY = "Both sides need the same version of fedstep."

_NUMBER = re.compile("0|[1-9][0-9]{0,14}")
_ROWS = re.compile("|".join(str(bucket(1 << bits)) for bits in range(32)))  # the buckets there are
_SCHEMA, _PSEUDONYM = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{32}")
_UPDATE_WORDS = {"schema": _SCHEMA, "base": _NUMBER, "id": _PSEUDONYM, "project": _PSEUDONYM}
_MODEL_WORDS = {
    "schema": _SCHEMA,
    "head": _NUMBER,
    "production": _NUMBER,
    "created": re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00Z"),
}
_REAL = "(?:0|[1-9][0-9]{0,5})(?:[.][0-9]{1,20})?(?:e-[0-9]{2,3})?"  # all digits that a float may need below 1,000,000
_PROMISE = re.compile(f"{_REAL}/{_REAL}/[1-9][0-9]{{0,5}}/{_REAL}")
_MODEL_MAY = {"privacy": _PROMISE, "shares": re.compile("[1-9][0-9]{0,5}"), "noise": re.compile(_REAL)}
_HEAD = re.compile("[a-z][a-z0-9-]{0,31}")


class TrialScore(NamedTuple):
    """How the snapshot `trial` did on rows that nobody had learned: its loss less production's, in [-1, 1]."""

    trial: int
    difference: float


class Update(NamedTuple):
    """What one project learned from one batch a task: the change of the coefficients since version `base`.

    `id` is a keyed hash of the records, so that a repeat counts once; `project` a pseudonym; `rows` bucketed counts.
    `scores` by task, for those with a snapshot on trial: on the wire, the last coordinate of the task's vector.
    """

    schema: str
    base: int
    id: str
    project: str
    rows: Mapping[str, int]
    deltas: Mapping[str, Vector]
    scores: Mapping[str, TrialScore] = MappingProxyType({})


class PrivacyGuarantee(NamedTuple):
    """What an aggregator with differential privacy holds for every project: (epsilon, delta) over its lifetime.

    A project contributes one batch in so many days, and at most so many of them. All zero: nothing is promised.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    releases: int = 0
    days: float = 0.0


NO_PROMISE = PrivacyGuarantee()


class Model(NamedTuple):
    """What everyone learns from (`candidate`) and what everyone predicts with (`production`), by name of the task.

    `trials` has the version of each snapshot on trial, `trial` its vector; a task without a trial is in neither.
    `shares` is the fewest projects of a sum where updates are taken in two halves alone, 0 where they are taken whole.
    `noise` is the standard deviation that the updates' noise has in such a sum, in units of each task's bound.
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
    """What a message must fit: the digest of a schema and the number of coordinates of each task."""

    digest: str
    sizes: Mapping[str, int]


def shape(schema: Schema) -> SchemaShape:
    """The shape of every message in this schema."""
    return SchemaShape(schema.digest, {task.name: task.size() for task in schema.tasks.values()})


def pack_update(update: Update) -> bytes:
    """The safetensors bytes of an update; equal updates give equal bytes. WireError for one nobody would accept."""
    words = {
        "format": UPDATE,
        "schema": update.schema,
        "base": str(update.base),
        "id": update.id,
        "project": update.project,
        **{f"rows.{task}": str(rows) for task, rows in update.rows.items()},
        **{f"trial.{task}": str(score.trial) for task, score in update.scores.items()},
    }
    vectors = {task: _scored(delta, update.scores.get(task)) for task, delta in update.deltas.items()}
    _update(Tensors(words, vectors))
    return pack(words, vectors)


def unpack_update(body: bytes) -> Update:
    """The update in these bytes. Raises WireError."""
    return _update(unpack(body))


def pack_model(model: Model) -> bytes:
    """The safetensors bytes of a model; equal models give equal bytes. WireError for a model that is none."""
    words = {
        "format": MODEL,
        "schema": model.schema,
        "head": str(model.candidate_version),
        "production": str(model.production_version),
        "created": model.created,
        **{f"trial.{task}": str(version) for task, version in model.trials.items()},
        **({"privacy": _promise_word(model.promise)} if model.promise.releases else {}),
        **({"shares": str(model.shares)} if model.shares else {}),
        **({"noise": str(model.noise)} if model.noise else {}),
    }
    tracks = (("head", model.candidate), ("production", model.production), ("trial", model.trial))
    vectors = {f"{track}/{name}": vector for track, tasks in tracks for name, vector in tasks.items()}
    _model(Tensors(words, vectors))
    return pack(words, vectors)


def unpack_model(body: bytes) -> Model:
    """The model in these bytes. Raises WireError."""
    return _model(unpack(body))


def check_update(update: Update, ours: SchemaShape) -> None:
    """Raises SchemaMismatch for another schema, WireError for a task that is unknown or of another size."""
    _check(update.schema, update.deltas, ours)


def check_model(model: Model, ours: SchemaShape) -> None:
    """Raises SchemaMismatch for another schema, WireError unless every task is there in its size."""
    _check(model.schema, model.candidate, ours)
    if len(model.candidate) < len(ours.sizes):
        raise WireError(f"the model lacks {', '.join(sorted(ours.sizes.keys() - model.candidate.keys()))}", REMEDY)


def hour(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the hour.

    >>> hour(0)
    '1970-01-01T00:00Z'
    """
    return time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(seconds))


def _update(tensors: Tensors) -> Update:
    words, vectors = tensors
    tasks = tuple(sorted(vectors))
    trials = tuple(task for task in tasks if f"trial.{task}" in words)
    _words(words, UPDATE, _update_words(tasks, trials))
    if not tasks:
        raise WireError("the update has no head", REMEDY)
    counts = {task: int(words[f"rows.{task}"]) for task in tasks}
    scores = {task: _score(task, words, vectors[task]) for task in trials}
    deltas = {task: vectors[task][:-1] for task in trials}
    return Update(
        words["schema"], int(words["base"]), words["id"], words["project"], counts, {**vectors, **deltas}, scores
    )


@lru_cache(maxsize=64)  # what senders send differs in few ways, and to make the patterns costs as much as to match them
def _update_words(tasks: tuple[str, ...], trials: tuple[str, ...]) -> Patterns:
    """The patterns of all words of an update with these tasks, some of them with a score. WireError for a bad name."""
    _check_tasks(tasks)
    rows, scored = {f"rows.{task}": _ROWS for task in tasks}, {f"trial.{task}": _NUMBER for task in trials}
    return {**_UPDATE_WORDS, **rows, **scored}


def _scored(delta: Vector, score: TrialScore | None) -> Vector:
    """The delta, and where there is a score that as one more coordinate."""
    return delta + array("f", [score.difference]) if score else delta


def _score(task: str, words: Mapping[str, str], vector: Vector) -> TrialScore:
    if not vector or not -1.0 <= vector[-1] <= 1.0:
        raise WireError(f"the score of {task} is not in [-1, 1]", REMEDY)
    return TrialScore(int(words[f"trial.{task}"]), vector[-1])


def _model(tensors: Tensors) -> Model:
    candidate, production, trial = (_track(f"{name}/", tensors.vectors) for name in ("head", "production", "trial"))
    optional = {name: pattern for name, pattern in _MODEL_MAY.items() if name in tensors.words}
    words = _words(tensors.words, MODEL, {**_MODEL_WORDS, **_trial_words(candidate, tensors.words), **optional})
    _check_tasks(tuple(candidate))
    sizes = {name: len(vector) for name, vector in candidate.items()}
    tracks = len(candidate) + len(production) + len(trial)
    if tracks < len(tensors.vectors) or sizes != {name: len(vector) for name, vector in production.items()}:
        raise WireError("the model's head and production do not have the same heads", REMEDY)
    trials = {name: int(words[f"trial.{name}"]) for name in candidate if f"trial.{name}" in words}
    if trials.keys() != trial.keys() or any(len(vector) != sizes[name] for name, vector in trial.items()):
        raise WireError("a snapshot on trial does not fit the model's head", REMEDY)
    versions = int(words["head"]), int(words["production"])
    promise = _promise(words["privacy"]) if "privacy" in optional else NO_PROMISE
    shares, noise = int(words.get("shares", "0")), _noise(words)
    return Model(
        words["schema"], *versions, words["created"], candidate, production, trials, trial, promise, shares, noise
    )


def _noise(words: Mapping[str, str]) -> float:
    noise = float(words.get("noise", "0"))
    if "noise" in words and not (0.0 < noise <= MOST_NOISE and "shares" in words):
        raise WireError(f"the noise {words['noise'][:100]} is not one of shares, or over {MOST_NOISE:g}", REMEDY)
    return noise


def _promise_word(promise: PrivacyGuarantee) -> str:
    """Every digit: what comes back is what was promised."""
    return "/".join(str(number).removesuffix(".0") for number in promise)


def _promise(word: str) -> PrivacyGuarantee:
    epsilon, delta, releases, days = word.split("/")
    promise = PrivacyGuarantee(float(epsilon), float(delta), int(releases), float(days))
    if not all(promise):
        raise WireError(f"the promise {word[:100]} has a zero", REMEDY)
    return promise


def _trial_words(tasks: Iterable[str], words: Mapping[str, str]) -> Patterns:
    """The patterns of the words on trials that are there; any other word stays one too many."""
    return {f"trial.{task}": _NUMBER for task in tasks if f"trial.{task}" in words}


def _track(prefix: str, vectors: Mapping[str, Vector]) -> Mapping[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in vectors.items() if name.startswith(prefix)}


def _check_tasks(tasks: tuple[str, ...]) -> None:
    wrong = [task for task in tasks if not _HEAD.fullmatch(task)]
    if wrong:
        raise WireError(f"{wrong[0][:40]!a} is no name of a head", REMEDY)


def _words(found: Mapping[str, str], wanted: str, patterns: Patterns) -> Mapping[str, str]:
    if found.get("format") != wanted:
        raise WireError(f"the message is not of the format {wanted}", REMEDY)
    if len(found) != 1 + len(patterns) or not patterns.keys() <= found.keys():
        raise WireError(f"the metadata of {wanted} is not exactly {', '.join(patterns)}", REMEDY)
    for name, pattern in patterns.items():
        if not pattern.fullmatch(found[name]):
            raise WireError(f"the metadata {name[:40]!a} of {wanted} has no valid value", REMEDY)
    return found


def _check(digest: str, vectors: Mapping[str, Vector], ours: SchemaShape) -> None:
    if digest != ours.digest:
        raise SchemaMismatch(f"the message has the feature schema {digest}, this side {ours.digest}", REMEDY)
    for name, vector in vectors.items():
        if ours.sizes.get(name) != len(vector):
            wanted = ours.sizes.get(name, "no such head")
            raise WireError(f"the head {name} has {len(vector)} coordinates, the schema says {wanted}", REMEDY)
