"""An update as two additive shares modulo 2^64: numbers less a pad for the leader, the seed of the pad for the helper.

Either alone is uniform noise. Sums of many updates come out when the sum of their pads is added to that of the rest.
"""

from array import array
from collections.abc import Mapping, Sequence
from hashlib import sha256, shake_128

from fedstep.errors import WireError
from fedstep.federation.halves import Masked, Residues, Seeded, residues
from fedstep.federation.wire import Update

__all__ = ["HEAVIEST", "LEVELS", "MODULUS", "MOST_SUMMED", "REACH", "pad_bytes", "pair_of", "quantised", "split"]

MODULUS = 1 << 64
LEVELS = 1 << 20  # steps of the grid from 0 to the bound: 16 times coarser than a C float, and no coordinate is larger
REACH = 0.2  # of a score's range: it is drawn in to this, as in the gate, so that no lie weighs more
HEAVIEST = 1 << 6  # the weight of a sum of fresh updates
MOST_SUMMED = 1 << 10  # updates in one sum
assert LEVELS * HEAVIEST * MOST_SUMMED < MODULUS // 2, "a weighted sum has to fit, with its sign"


def split(update: Update, bounds: Mapping[str, float], seed: bytes) -> tuple[Masked, Seeded]:
    """The halves of an update whose heads are clipped to `bounds`. The same seed gives the same halves.

    `seed` is 32 random bytes, for this update alone. Raises WireError for a number over its bound: it would not fit the
    grid, and nothing is clipped silently.
    """
    trials = {head: update.scores[head].trial if head in update.scores else -1 for head in sorted(update.deltas)}
    vectors = {}
    for head in trials:
        score = update.scores[head].difference if head in update.scores else 0.0
        numbers = quantised(update.deltas[head], bounds[head]) + quantised([max(-REACH, min(REACH, score))], REACH)
        vectors[head] = _less(numbers, residues(pad_bytes(seed, update.schema, update.id, head, len(numbers))))
    names = update.id, update.project
    return (
        Masked(update.schema, update.base, *names, pair_of(seed), trials, vectors),
        Seeded(update.schema, *names, trials, seed),
    )


def quantised(vector: Sequence[float], bound: float) -> "array[int]":
    """Each number in steps of bound / 2^20, to the nearest. Raises WireError for one over the bound.

    >>> quantised([0.5, -0.25], 0.5).tolist()
    [1048576, -524288]
    """
    if max(map(abs, vector), default=0.0) > bound:
        raise WireError(f"a number of the update is over its bound {bound:g}", "Clip it before it is shared.")
    steps = LEVELS / bound
    return array("q", [round(number * steps) for number in vector])


def pad_bytes(seed: bytes, schema: str, number: str, head: str, size: int) -> bytes:
    """The pad of one head of the update with this id: `size` little-endian numbers of 8 bytes.

    SHAKE-128 (FIPS 202) of the seed and of what the pad is for, so that no pad is ever used twice.
    """
    return shake_128(f"fedstep pad 1\0{schema}\0{number}\0{head}\0".encode() + seed).digest(8 * size)


def pair_of(seed: bytes) -> str:
    """What the leader may know of a seed: 32 hex digits of its hash, which name it and do not lead back to it."""
    return sha256(b"fedstep pair 1\0" + seed).hexdigest()[:32]


def _less(numbers: "array[int]", pad: Residues) -> Residues:
    return array("Q", [(number - mask) % MODULUS for number, mask in zip(numbers, pad, strict=True)])
