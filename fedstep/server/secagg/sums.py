"""Sum the vectors of shares modulo 2^64, and take the masks off the sum again. Pure."""

from collections.abc import Iterable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import WireError
from fedstep.federation.secagg.shares import LEVELS, MAX_SUMMED, derive_pad
from fedstep.server.aggregation.vectors import norm
from fedstep.server.secagg.rounds import Residues

FAR = 8.0  # standard deviations that the length of noise may be off


def summed(vectors: Iterable[bytes], size: int) -> Residues:
    """The sum of little-endian vectors of `size` numbers, modulo 2^64."""
    total = np.zeros(size, np.uint64)
    for vector in vectors:
        total += np.frombuffer(vector, "<u8")[:size]
    return total


def summed_pads(seeds: Iterable[bytes], size: int) -> Residues:
    """The sum of the first `size` numbers of the pads that these seeds of one task give."""
    return summed((derive_pad(seed, size) for seed in seeds), size)


def unmask_sum(masked: Residues, pads: Residues, updates: int, size: int, deviation: int = 0) -> NDArray[np.int64]:
    """The sum of so many updates in steps of the grid, with its sign; the first `size` numbers are those of a delta.

    `deviation` is that of the noise of each. Raises WireError for a sum that updates within their bounds do not have:
    somebody lied, and nothing of it is used.
    """
    if updates > MAX_SUMMED:
        raise WireError(f"a sum of {updates} updates could overflow", f"At most {MAX_SUMMED} are summed.")
    steps: NDArray[np.int64] = (masked + pads).view(np.int64)
    numbers = steps.astype(np.float64)
    beyond = np.abs(numbers[size:]).max(initial=0.0) > updates * LEVELS
    if beyond or norm(numbers[:size]) > longest(updates, size, deviation):
        raise WireError(
            "the sum is not one of updates within their bounds",
            "A sender or the helper lies, or --noise is lower than it was.",
        )
    return steps


def longest(updates: int, size: int, deviation: int) -> float:
    """The length in steps of the grid that the sum of so many deltas is not above, each of `size` numbers.

    What noise adds is above this with a chance of exp(-32) (Laurent and Massart 2000, lemma 1).
    """
    most = updates * (LEVELS + 0.5 * sqrt(size))  # the length of a delta, and of what rounding to the grid adds
    return most + deviation * sqrt(updates) * (sqrt(size) + FAR)
