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

from fedstep.errors import WireError
from fedstep.features.schema import Schema
from fedstep.federation.bounds import LOUDEST, MOST_NOISE, loudness
from fedstep.federation.halves import Masked, Residues, Seeded, residues
from fedstep.federation.noise import FARTHEST, NO_NOISE, Noise, gaussian
from fedstep.federation.wire import Update

__all__ = [
    "HEAVIEST",
    "LEVELS",
    "MODULUS",
    "MOST_DEVIATION",
    "MOST_SUMMED",
    "REACH",
    "deviation_of",
    "deviations",
    "head_seeds",
    "pad_bytes",
    "pair_of",
    "quantised",
    "split",
]

MODULUS = 1 << 64
LEVELS = 1 << 20  # steps of the grid from 0 to the bound: 16 times coarser than a C float, and no coordinate is larger
REACH = 0.2  # of a score's range: it is drawn in to this, as in the gate, so that no lie weighs more
HEAVIEST = 1 << 6  # the weight of a sum of fresh updates
USUAL_SUM = 5  # projects in a sum where nobody says otherwise
MOST_SUMMED = 1 << 10  # updates in one sum
MOST_DEVIATION = int(MOST_NOISE * LEVELS)  # of one update's noise, in a head of whole batches
LARGEST = LEVELS + ceil(FARTHEST * LOUDEST * MOST_DEVIATION)  # that a number of one update can be, noise and all
assert LARGEST * HEAVIEST * MOST_SUMMED < MODULUS // 2, "a weighted sum has to fit, with its sign"


def split(update: Update, bounds: Mapping[str, float], seed: bytes, noise: Noise = NO_NOISE) -> tuple[Masked, Seeded]:
    """The halves of an update whose heads are clipped to `bounds`. The same seed and noise give the same halves.

    `seed` is 32 random bytes, for this update alone, and so is the secret of the noise, which leads to no pad: the
    helper has the seed, and must not know the noise. Scores get none. Raises WireError for a number over its bound: it
    would not fit the grid, and nothing is clipped silently.
    """
    trials = {head: update.scores[head].trial if head in update.scores else -1 for head in sorted(update.deltas)}
    seeded = Seeded(update.schema, update.id, update.project, trials, seed)
    vectors = {}
    for head, secret in head_seeds(seeded).items():
        score = update.scores[head].difference if head in update.scores else 0.0
        delta = update.deltas[head]
        deviation, purpose = noise.deviations.get(head, 0), f"{update.id} {head}"
        drawn = gaussian(deviation, noise.secret, purpose, len(delta)) if deviation else repeat(0.0)
        numbers = quantised(delta, bounds[head], drawn) + quantised([max(-REACH, min(REACH, score))], REACH)
        vectors[head] = _subtract(numbers, residues(pad_bytes(secret, len(numbers))))
    return Masked(update.schema, update.base, update.id, update.project, pair_of(seed), trials, vectors), seeded


def deviation_of(noise: float, fewest: int) -> int:
    """The standard deviation, in steps of the grid, of each update's noise where `fewest` of them add up to `noise`.

    A leader that names more than five gets no less of it: the helper may open sums of five.

    >>> deviation_of(0.5, 4) / LEVELS
    0.25
    """
    return ceil(noise * LEVELS / sqrt(max(1, min(fewest, USUAL_SUM))))


def deviations(usual: int, ours: Schema) -> Mapping[str, int]:
    """By head the standard deviation of its noise: the usual one, and more where few rows make a batch."""
    return {name: round(usual * loudness(head.minimum_rows)) for name, head in ours.heads.items()}


def quantised(vector: Sequence[float], bound: float, noise: Iterable[float] = repeat(0.0)) -> "array[int]":
    """Each number in steps of bound / 2^20, with its noise in such steps, to the nearest.

    Raises WireError for one over the bound without its noise.

    >>> quantised([0.5, -0.25], 0.5).tolist()
    [1048576, -524288]
    """
    if max(map(abs, vector), default=0.0) > bound:
        raise WireError(f"a number of the update is over its bound {bound:g}", "Clip it before it is shared.")
    steps = LEVELS / bound
    return array("q", [round(number * steps + drawn) for number, drawn in zip(vector, noise, strict=False)])


def head_seeds(half: Seeded) -> Mapping[str, bytes]:
    """For each head of the update a seed of its own, which leads to no other: they are released one by one.

    HKDF-Expand (RFC 5869) with SHA-256 of the seed, for this schema, update and head, so that no pad is used twice.
    """
    whose = f"fedstep head 1\0{half.schema}\0{half.id}\0"
    return {head: hmac.digest(half.seed, f"{whose}{head}\0\1".encode(), "sha256") for head in half.trials}


def pad_bytes(seed: bytes, size: int) -> bytes:
    """The pad that a head's own seed gives: `size` little-endian numbers of 8 bytes, SHAKE-128 (FIPS 202) of it."""
    return shake_128(b"fedstep pad 2\0" + seed).digest(8 * size)


def pair_of(seed: bytes) -> str:
    """What the leader may know of a seed: 32 hex digits of its hash, which name it and do not lead back to it."""
    return sha256(b"fedstep pair 1\0" + seed).hexdigest()[:32]


def _subtract(numbers: "array[int]", pad: Residues) -> Residues:
    """Return the numbers less the pad, each modulo 2^64, which is how numpy's unsigned integers wrap around."""
    import numpy as np  # here, because `predict` imports this module and makes no shares

    return array("Q", (np.frombuffer(numbers, np.uint64) - np.frombuffer(pad, np.uint64)).tobytes())
