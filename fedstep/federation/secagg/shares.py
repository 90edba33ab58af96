"""An update as two additive shares modulo 2^64, and the messages that carry them, one for each of two aggregators.

The leader gets the numbers less a pad, the helper the seed of the pad; either alone is uniformly random. The sum of
many updates is the sum of the leader's shares plus the sum of the pads. The noise of each update stays in the sum:
Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation",
ICML 2021.

Both messages are safetensors (https://github.com/huggingface/safetensors#format) in one canonical form: others are
rejected.
"""

import hmac
import json
import re
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256, shake_128
from itertools import repeat
from math import ceil, sqrt
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from fedstep.errors import MALFORMED, SchemaMismatch, WireError
from fedstep.federation.messages import (
    LARGEST_MESSAGE,
    LOUDEST,
    MOST_NOISE,
    SchemaShape,
    Update,
    little_endian_bytes,
    loudness,
)
from fedstep.schema.schema import Schema

MASKED_FORMAT, SEED_FORMAT = "fedstep-masked-2", "fedstep-seed-2"
SEED_BYTES = 32
MAX_HEADER_BYTES = 1 << 12  # bytes; four tasks take about 600
MAX_TASKS = 32
MAX_VERSION = (1 << 31) - 1  # what a database's integers hold
REMEDY = "Both sides need the same version of fedstep."

_NUMBER = "0|[1-9][0-9]{0,14}"
_TASK = "[a-z][a-z0-9-]{0,31}"
_WORDS = {"schema": "[0-9a-f]{16}", "id": "[0-9a-f]{32}", "project": "[0-9a-f]{32}"}

Residues: TypeAlias = "array[int]"  # type code "Q": numbers modulo 2^64


class MaskedShare(NamedTuple):
    """The leader's share: by task the quantised delta with the score as its last number, less the pad, modulo 2^64.

    `trials` has every task of the update: the version on trial that its score evaluates, -1 where it has none.
    `pair` is the hash of the seed that the pads are derived from, so that shares of two splits are never combined.
    """

    schema: str
    base: int
    id: str
    project: str
    pair: str
    trials: Mapping[str, int]
    vectors: Mapping[str, Residues]


class SeedShare(NamedTuple):
    """The helper's share: the 32 bytes that all pads of one update are derived from, and the update's tasks."""

    schema: str
    id: str
    project: str
    trials: Mapping[str, int]
    seed: bytes


def pack_share(share: MaskedShare | SeedShare) -> bytes:
    """Return the bytes of either message; equal messages give equal bytes. Raise WireError for an invalid one."""
    body = _pack(share)
    if isinstance(share, MaskedShare):
        unpack_masked_share(body)
    else:
        unpack_seed_share(body)
    return body


def unpack_masked_share(body: bytes) -> MaskedShare:
    """Return the leader's share in these bytes. Raise WireError."""
    words, lengths, numbers = _read(body, MASKED_FORMAT, {**_WORDS, "base": _NUMBER, "pair": "[0-9a-f]{32}"})
    trials, vectors, start = _parse_trials(words), {}, 0
    for task in sorted(trials):
        end = start + 8 * lengths.get(task, 0)
        vectors[task] = bytes_to_residues(numbers[start:end])
        start = end
    names = words["id"], words["project"], words["pair"]
    share = MaskedShare(words["schema"], int(words["base"]), *names, trials, vectors)
    _check_form(share, body)
    return share


def unpack_seed_share(body: bytes) -> SeedShare:
    """Return the helper's share in these bytes. Raise WireError."""
    words, _, seed = _read(body, SEED_FORMAT, _WORDS)
    if len(seed) != SEED_BYTES:
        raise WireError(f"the seed has {len(seed)} bytes, not {SEED_BYTES}", REMEDY)
    share = SeedShare(words["schema"], words["id"], words["project"], _parse_trials(words), seed)
    _check_form(share, body)
    return share


def check_share(share: MaskedShare | SeedShare, local_schema: SchemaShape) -> None:
    """Raise SchemaMismatch for another schema, WireError for an unknown task, another size or an impossible version."""
    if share.schema != local_schema.digest:
        raise SchemaMismatch(
            f"the message has the feature schema {share.schema}, this side {local_schema.digest}", REMEDY
        )
    base = share.base if isinstance(share, MaskedShare) else 0
    if max([base, *share.trials.values()]) > MAX_VERSION:
        raise WireError("it was learned from, or scored, a version that there cannot be", "Run fedstep pull.")
    lengths = {task: len(vector) for task, vector in share.vectors.items()} if isinstance(share, MaskedShare) else {}
    for task in share.trials:
        wanted = local_schema.sizes.get(task, -1) + 1
        if not wanted or lengths.get(task, wanted) != wanted:
            raise WireError(f"the task {task} is unknown, or has not {wanted} coordinates", REMEDY)


def _pack(share: MaskedShare | SeedShare) -> bytes:
    words = {"schema": share.schema, "id": share.id, "project": share.project}
    words |= {f"trial.{task}": str(trial) if trial >= 0 else "none" for task, trial in share.trials.items()}
    tensors: list[tuple[str, str, int, bytes]]
    if isinstance(share, MaskedShare):
        words |= {"format": MASKED_FORMAT, "base": str(share.base), "pair": share.pair}
        tensors = [
            (task, "U64", len(vector), little_endian_bytes(vector)) for task, vector in sorted(share.vectors.items())
        ]
    else:
        words |= {"format": SEED_FORMAT}
        tensors = [("seed", "U8", len(share.seed), share.seed)]
    header: dict[str, object] = {"__metadata__": dict(sorted(words.items()))}
    start = 0
    for name, dtype, length, numbers in tensors:
        header[name] = {"dtype": dtype, "shape": [length], "data_offsets": [start, start + len(numbers)]}
        start += len(numbers)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *(numbers for *_, numbers in tensors)))


def _check_form(share: MaskedShare | SeedShare, body: bytes) -> None:
    """Raise WireError unless packing gives the same bytes: no gap, overlap, repeated key or trailing byte."""
    if _pack(share) != body:
        raise WireError("the message is not in the one form that it may have", REMEDY)


def _read(body: bytes, wanted: str, patterns: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, int], bytes]:
    """Return the metadata, the length of each tensor as the header claims it, and the bytes of the numbers."""
    length = int.from_bytes(body[:8], "little")
    if len(body) > LARGEST_MESSAGE or len(body) < 8 or length > min(MAX_HEADER_BYTES, len(body) - 8):
        raise WireError("the message is too large, cut off or not safetensors", REMEDY)
    try:
        header = json.loads(body[8 : 8 + length].decode("ascii"))
        words = dict(header.pop("__metadata__"))
        lengths = {name: int(entry["shape"][0]) for name, entry in header.items()}
    except MALFORMED as error:
        raise WireError("the header of the message cannot be read", REMEDY) from error
    if words.pop("format", "") != wanted:
        raise WireError(f"the message is not of the format {wanted}", REMEDY)
    _check_words(words, patterns)
    return words, lengths, body[8 + length :]


def _check_words(words: Mapping[str, object], patterns: Mapping[str, str]) -> None:
    for name, value in words.items():
        pattern = patterns.get(name, "none|" + _NUMBER if re.fullmatch(f"trial[.]{_TASK}", name) else "")
        if not pattern or not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise WireError(f"the metadata {name[:40]!a} is unknown or has no valid value", REMEDY)
    tasks = len(words) - len(patterns)
    if not patterns.keys() <= words.keys() or not 0 < tasks <= MAX_TASKS:
        raise WireError("the metadata of the message is not whole, or names no task", REMEDY)


def _parse_trials(words: Mapping[str, str]) -> Mapping[str, int]:
    named = {name.removeprefix("trial."): value for name, value in words.items() if name.startswith("trial.")}
    return {task: -1 if value == "none" else int(value) for task, value in sorted(named.items())}


def bytes_to_residues(numbers: bytes) -> Residues:
    """Return the little-endian numbers of 8 bytes each in these bytes."""
    vector = array("Q")
    vector.frombytes(numbers[: len(numbers) // 8 * 8])
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


MAX_DRAW = 8.3  # standard deviations; no draw is farther out: the farthest one has a probability of 2^-53
CHANCE = 2.0**-64 - 2.0**-116  # from [-2^63, 2^63) to within (-1/2, 1/2), also after rounding


class ShareNoise(NamedTuple):
    """The noise of one update: by task its standard deviation in grid steps, and the 32 bytes it is drawn from."""

    deviations: Mapping[str, int]
    secret: bytes


NO_NOISE = ShareNoise(MappingProxyType({}), b"")


def draw_gaussian(deviation: int, secret: bytes, purpose: str, size: int) -> Sequence[float]:
    """Return `size` Gaussian numbers in grid steps; the same secret and purpose give the same numbers.

    They are drawn by inversion (Wichura, AS 241, in `statistics`) of 53 bits each, which SHAKE-128 (FIPS 202) derives
    from the secret. Added to a number and rounded, they are a discrete Gaussian around it up to a total variation
    below 0.03 / deviation^2 + 1e-10: 2e-10 for the usual deviation. An exact sampler takes a hundred times as long.
    """
    from statistics import NormalDist  # 15 ms, which only an update with noise pays

    words = bytes_to_residues(shake_128(f"fedstep noise 1\0{purpose}\0".encode() + secret).digest(8 * size))
    chances = [word * CHANCE + 0.5 for word in array("q", words.tobytes())]
    return list(map(NormalDist(0.0, deviation).inv_cdf, chances))


MODULUS = 1 << 64
LEVELS = 1 << 20  # steps of the grid from 0 to the bound: 16 times coarser than a C float, and no coordinate is larger
SCORE_LIMIT = 0.2  # of a score's range: larger scores are clipped, as in the gate, so that a false one weighs little
MAX_WEIGHT = 1 << 6  # the weight of a sum of fresh updates
USUAL_SUM_SIZE = 5  # projects in a sum, unless the leader is configured otherwise
MAX_SUMMED = 1 << 10  # updates in one sum
MAX_DEVIATION = int(MOST_NOISE * LEVELS)  # grid steps, of one update's noise, in a task of whole batches
MAX_QUANTISED = LEVELS + ceil(
    MAX_DRAW * LOUDEST * MAX_DEVIATION
)  # absolute value of a number of one update, with its noise
assert MAX_QUANTISED * MAX_WEIGHT * MAX_SUMMED < MODULUS // 2, "a weighted sum has to fit, with its sign"


def split_update(
    update: Update, bounds: Mapping[str, float], seed: bytes, noise: ShareNoise = NO_NOISE
) -> tuple[MaskedShare, SeedShare]:
    """Return the two shares of an update. The same seed and noise give the same shares.

    Args:
        update: The update, each task clipped to its bound.
        bounds: By task the bound; a number over it would not fit the grid, and nothing is clipped silently.
        seed: 32 random bytes, used for this update alone; the helper receives them.
        noise: Its secret is independent of `seed`, because the helper must not know the noise. Scores get none.

    Raises:
        WireError: A number is over its bound.
    """
    trials = {task: update.scores[task].trial if task in update.scores else -1 for task in sorted(update.deltas)}
    seeded = SeedShare(update.schema, update.id, update.project, trials, seed)
    vectors = {}
    for task, secret in derive_task_seeds(seeded).items():
        score = update.scores[task].difference if task in update.scores else 0.0
        delta = update.deltas[task]
        deviation, purpose = noise.deviations.get(task, 0), f"{update.id} {task}"
        drawn = draw_gaussian(deviation, noise.secret, purpose, len(delta)) if deviation else repeat(0.0)
        numbers = quantise(delta, bounds[task], drawn) + quantise(
            [max(-SCORE_LIMIT, min(SCORE_LIMIT, score))], SCORE_LIMIT
        )
        vectors[task] = _subtract(numbers, bytes_to_residues(derive_pad(secret, len(numbers))))
    return MaskedShare(update.schema, update.base, update.id, update.project, hash_seed(seed), trials, vectors), seeded


def noise_deviation(noise: float, fewest: int) -> int:
    """Return the standard deviation, in grid steps, of each update's noise so that `fewest` updates add up to `noise`.

    More than five count as five, because the helper may open sums of five.

    >>> noise_deviation(0.5, 4) / LEVELS
    0.25
    """
    return ceil(noise * LEVELS / sqrt(max(1, min(fewest, USUAL_SUM_SIZE))))


def scale_deviations(usual: int, local_schema: Schema) -> Mapping[str, int]:
    """Return by task the standard deviation of its noise: the usual one, and more where a batch has few examples."""
    return {name: round(usual * loudness(task.minimum_rows)) for name, task in local_schema.tasks.items()}


def quantise(vector: Sequence[float], bound: float, noise: Iterable[float] = repeat(0.0)) -> "array[int]":
    """Return each number plus its noise, rounded to grid steps of bound / 2^20; the noise is in grid steps already.

    Raise WireError for a number that is over the bound without its noise.

    >>> quantise([0.5, -0.25], 0.5).tolist()
    [1048576, -524288]
    """
    if max(map(abs, vector), default=0.0) > bound:
        raise WireError(f"a number of the update is over its bound {bound:g}", "Clip it before it is shared.")
    steps = LEVELS / bound
    return array("q", [round(coordinate * steps + drawn) for coordinate, drawn in zip(vector, noise, strict=False)])


def derive_task_seeds(share: SeedShare) -> Mapping[str, bytes]:
    """Return by task a seed that reveals no other task's: the helper releases them one by one.

    Each is HKDF-Expand (RFC 5869, SHA-256) of the seed for this schema, update and task, so that no pad is used twice.
    """
    context = f"fedstep head 1\0{share.schema}\0{share.id}\0"
    return {task: hmac.digest(share.seed, f"{context}{task}\0\1".encode(), "sha256") for task in share.trials}


def derive_pad(seed: bytes, size: int) -> bytes:
    """Return the pad of a task's seed: `size` little-endian numbers of 8 bytes, SHAKE-128 (FIPS 202) of the seed."""
    return shake_128(b"fedstep pad 2\0" + seed).digest(8 * size)


def hash_seed(seed: bytes) -> str:
    """Return 32 hex digits of the seed's hash, which identify the seed to the leader without revealing it."""
    return sha256(b"fedstep pair 1\0" + seed).hexdigest()[:32]


def _subtract(numbers: "array[int]", pad: Residues) -> Residues:
    """Return the numbers less the pad, each modulo 2^64, which is how numpy's unsigned integers wrap around."""
    import numpy as np  # here, because `predict` imports this module and makes no shares

    return array("Q", (np.frombuffer(numbers, np.uint64) - np.frombuffer(pad, np.uint64)).tobytes())
