"""Noise inside shares: a Gaussian that each client adds to its numbers before they are rounded and split."""

from array import array
from collections.abc import Mapping, Sequence
from hashlib import shake_128
from types import MappingProxyType
from typing import NamedTuple

from fedstep.federation.halves import residues

__all__ = ["FARTHEST", "NO_NOISE", "Noise", "gaussian"]

FARTHEST = 8.3  # standard deviations, which no draw goes beyond: the largest is that of a chance of 2^-53
CHANCE = 2.0**-64 - 2.0**-116  # from [-2^63, 2^63) to within (-1/2, 1/2), also after rounding


class Noise(NamedTuple):
    """What one update is noised with: by head the standard deviation in steps of the grid, and 32 random bytes."""

    deviations: Mapping[str, int]
    secret: bytes


NO_NOISE = Noise(MappingProxyType({}), b"")


def gaussian(deviation: int, secret: bytes, purpose: str, size: int) -> Sequence[float]:
    """So many numbers in steps of the grid, drawn for this purpose: the same secret and purpose give the same ones.

    By inversion (Wichura, AS 241, in `statistics`) of 53 bits each, which SHAKE-128 (FIPS 202) makes of the secret.
    Rounded, with the number that they are added to, they are a discrete Gaussian around it but for a total variation of
    less than 0.03 / deviation^2 + 1e-10: 2e-10 where the deviation is the usual one. An exact sampler takes a hundred
    times as long.
    """
    from statistics import NormalDist  # predict draws nothing, and need not wait for all that this loads

    words = residues(shake_128(f"fedstep noise 1\0{purpose}\0".encode() + secret).digest(8 * size))
    chances = [word * CHANCE + 0.5 for word in array("q", words.tobytes())]
    return list(map(NormalDist(0.0, deviation).inv_cdf, chances))
