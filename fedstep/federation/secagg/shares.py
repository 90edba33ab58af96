"""An update as two additive shares modulo 2^64: numbers less a pad for the leader, the seed of the pad for the helper.

Either share alone is uniformly random. The sum of many updates is the sum of the leader's shares plus the sum of the
pads. The noise of each update stays in the sum: Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism
for Federated Learning with Secure Aggregation", ICML 2021.
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
    return array("q", [round(number * steps + drawn) for number, drawn in zip(vector, noise, strict=False)])


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
