"""An update as two additive shares modulo 2^64: numbers less a pad for the leader, the seed of the pad for the helper.

Either alone is uniform. Sums of many updates come out when the sum of their pads is added to that of the rest. Their
noise stays in: Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation", ICML 2021.
"""

import hmac
from array import array
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256, shake_128
from itertools import repeat
from math import ceil, sqrt
from types import MappingProxyType
from typing import NamedTuple

from fedstep.errors import WireError
from fedstep.federation.messages import LOUDEST, MOST_NOISE, Update, loudness
from fedstep.federation.secagg.share_messages import MaskedShare, Residues, SeedShare, bytes_to_residues
from fedstep.schema.schema import Schema

MAX_DRAW = 8.3  # standard deviations, which no draw goes beyond: the largest is that of a chance of 2^-53
CHANCE = 2.0**-64 - 2.0**-116  # from [-2^63, 2^63) to within (-1/2, 1/2), also after rounding


class ShareNoise(NamedTuple):
    """What one update is noised with: by task the standard deviation in steps of the grid, and 32 random bytes."""

    deviations: Mapping[str, int]
    secret: bytes


NO_NOISE = ShareNoise(MappingProxyType({}), b"")


def draw_gaussian(deviation: int, secret: bytes, purpose: str, size: int) -> Sequence[float]:
    """So many numbers in steps of the grid, drawn for this purpose: the same secret and purpose give the same ones.

    By inversion (Wichura, AS 241, in `statistics`) of 53 bits each, which SHAKE-128 (FIPS 202) makes of the secret.
    Rounded, with the number that they are added to, they are a discrete Gaussian around it but for a total variation of
    less than 0.03 / deviation^2 + 1e-10: 2e-10 where the deviation is the usual one. An exact sampler takes a hundred
    times as long.
    """
    from statistics import NormalDist  # predict draws nothing, and need not wait for all that this loads

    words = bytes_to_residues(shake_128(f"fedstep noise 1\0{purpose}\0".encode() + secret).digest(8 * size))
    chances = [word * CHANCE + 0.5 for word in array("q", words.tobytes())]
    return list(map(NormalDist(0.0, deviation).inv_cdf, chances))


MODULUS = 1 << 64
LEVELS = 1 << 20  # steps of the grid from 0 to the bound: 16 times coarser than a C float, and no coordinate is larger
SCORE_LIMIT = 0.2  # of a score's range: it is drawn in to this, as in the gate, so that no lie weighs more
MAX_WEIGHT = 1 << 6  # the weight of a sum of fresh updates
USUAL_SUM_SIZE = 5  # projects in a sum where nobody says otherwise
MAX_SUMMED = 1 << 10  # updates in one sum
MAX_DEVIATION = int(MOST_NOISE * LEVELS)  # of one update's noise, in a task of whole batches
MAX_QUANTISED = LEVELS + ceil(MAX_DRAW * LOUDEST * MAX_DEVIATION)  # that a number of one update can be, noise and all
assert MAX_QUANTISED * MAX_WEIGHT * MAX_SUMMED < MODULUS // 2, "a weighted sum has to fit, with its sign"


def split_update(
    update: Update, bounds: Mapping[str, float], seed: bytes, noise: ShareNoise = NO_NOISE
) -> tuple[MaskedShare, SeedShare]:
    """The halves of an update whose tasks are clipped to `bounds`. The same seed and noise give the same halves.

    `seed` is 32 random bytes, for this update alone, and so is the secret of the noise, which leads to no pad: the
    helper has the seed, and must not know the noise. Scores get none. Raises WireError for a number over its bound: it
    would not fit the grid, and nothing is clipped silently.
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
    """The standard deviation, in steps of the grid, of each update's noise where `fewest` of them add up to `noise`.

    A leader that names more than five gets no less of it: the helper may open sums of five.

    >>> noise_deviation(0.5, 4) / LEVELS
    0.25
    """
    return ceil(noise * LEVELS / sqrt(max(1, min(fewest, USUAL_SUM_SIZE))))


def scale_deviations(usual: int, ours: Schema) -> Mapping[str, int]:
    """By task the standard deviation of its noise: the usual one, and more where few rows make a batch."""
    return {name: round(usual * loudness(task.minimum_rows)) for name, task in ours.tasks.items()}


def quantise(vector: Sequence[float], bound: float, noise: Iterable[float] = repeat(0.0)) -> "array[int]":
    """Each number in steps of bound / 2^20, with its noise in such steps, to the nearest.

    Raises WireError for one over the bound without its noise.

    >>> quantise([0.5, -0.25], 0.5).tolist()
    [1048576, -524288]
    """
    if max(map(abs, vector), default=0.0) > bound:
        raise WireError(f"a number of the update is over its bound {bound:g}", "Clip it before it is shared.")
    steps = LEVELS / bound
    return array("q", [round(number * steps + drawn) for number, drawn in zip(vector, noise, strict=False)])


def derive_task_seeds(half: SeedShare) -> Mapping[str, bytes]:
    """For each task of the update a seed of its own, which leads to no other: they are released one by one.

    HKDF-Expand (RFC 5869) with SHA-256 of the seed, for this schema, update and task, so that no pad is used twice.
    """
    whose = f"fedstep head 1\0{half.schema}\0{half.id}\0"
    return {task: hmac.digest(half.seed, f"{whose}{task}\0\1".encode(), "sha256") for task in half.trials}


def derive_pad(seed: bytes, size: int) -> bytes:
    """The pad that a task's own seed gives: `size` little-endian numbers of 8 bytes, SHAKE-128 (FIPS 202) of it."""
    return shake_128(b"fedstep pad 2\0" + seed).digest(8 * size)


def hash_seed(seed: bytes) -> str:
    """What the leader may know of a seed: 32 hex digits of its hash, which name it and do not lead back to it."""
    return sha256(b"fedstep pair 1\0" + seed).hexdigest()[:32]


def _subtract(numbers: "array[int]", pad: Residues) -> Residues:
    """Return the numbers less the pad, each modulo 2^64, which is how numpy's unsigned integers wrap around."""
    import numpy as np  # here, because `predict` imports this module and makes no shares

    return array("Q", (np.frombuffer(numbers, np.uint64) - np.frombuffer(pad, np.uint64)).tobytes())
