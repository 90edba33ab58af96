"""Encoders of raw values as coordinates of a sparse row."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from typing import NamedTuple

Value = float | str | Sequence[int] | None
Raw = Mapping[str, Value]  # the value of each part, by its name
Columns = Mapping[str, Sequence[Value]]  # the values of all rows for each part, by its name
ABSENT = "absent"


class SparseVector(NamedTuple):
    """One sparse row: coordinate numbers in ascending order, and their values."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


class Numeric(NamedTuple):
    """One coordinate: the value itself, as in `Numeric("bias")`. `start` is its weight before any learning."""

    name: str
    start: float = 0.0

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def encode(self, value: object) -> Sequence[tuple[int, float]]:
        """Return the offset and value; nothing for a value that is absent or zero.

        >>> Numeric("bias").encode(1.0)
        ((0, 1.0),)
        """
        return ((0, float(value)),) if isinstance(value, int | float) and value else ()


class PiecewiseLinear(NamedTuple):
    """A piecewise-linear function of a number: at most two neighbouring knots are active and sum to 1.

    Beyond the outer knots the function is constant. With `logarithmic`, interpolation is linear in log(value + first
    positive knot). The last coordinate stands for an absent value.
    """

    name: str
    knots: tuple[float, ...]
    logarithmic: bool = False

    def names(self) -> tuple[str, ...]:
        return (*(f"{self.name}={knot:g}" for knot in self.knots), f"{self.name}={ABSENT}")

    def encode(self, value: object) -> Sequence[tuple[int, float]]:
        """Return one or two (offset, weight) pairs.

        >>> PiecewiseLinear("rate", (0.0, 0.5, 1.0)).encode(0.25)
        ((0, 0.5), (1, 0.5))
        """
        knots = self.knots
        if not isinstance(value, int | float) or not isfinite(value):
            return ((len(knots), 1.0),)
        right = bisect_right(knots, value)
        if right == 0:
            return ((0, 1.0),)
        if right == len(knots):
            return ((right - 1, 1.0),)
        share = self._share(value, knots[right - 1], knots[right])
        return ((right - 1, 1.0 - share), (right, share)) if share else ((right - 1, 1.0),)

    def _share(self, value: float, left: float, right: float) -> float:
        if not self.logarithmic:
            return (value - left) / (right - left)
        offset = next(knot for knot in self.knots if knot > 0)
        return log((value + offset) / (left + offset)) / log((right + offset) / (left + offset))


class Categorical(NamedTuple):
    """One coordinate for each of a fixed list of options; any other value has none."""

    name: str
    options: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={option}" for option in self.options)

    def encode(self, value: object) -> Sequence[tuple[int, float]]:
        """Return one pair for a listed option, else nothing.

        >>> Categorical("event", ("push", "schedule")).encode("schedule")
        ((1, 1.0),)
        """
        return ((self.options.index(value), 1.0),) if value in self.options else ()


@dataclass(frozen=True, slots=True, eq=False)
class BagOfWords:
    """One coordinate for each word of a closed list; a word outside the list has no coordinate.

    Every word present weighs 1 / sqrt(words present), so that long tests do not dominate.
    """

    name: str
    index: Mapping[str, int]

    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={word}" for word in self.index)

    def listed(self, words: Iterable[str]) -> list[int]:
        """Return the ascending offsets of the words that are in the list; other words are discarded.

        >>> BagOfWords("word", {"sleep": 0, "wait": 1}).listed(("wait", "secretproject"))
        [1]
        """
        return sorted({self.index[word] for word in words if word in self.index})

    def encode(self, value: object) -> Sequence[tuple[int, float]]:
        """Return one pair for each offset of `listed`; nothing for an absent value."""
        if not isinstance(value, Sequence) or not value:
            return ()
        weight = len(value) ** -0.5
        return tuple((offset, weight) for offset in value)


Encoder = Numeric | PiecewiseLinear | Categorical | BagOfWords


# An acronym before a capitalised word, a word with or without its capital, or an acronym:
# XMLHttpRequest -> xml http request
_PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def sub_words(identifiers: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct lower-case sub-words of two letters or more, sorted.

    >>> sub_words(["testHTTPServer_startsUp2x"])
    ('http', 'server', 'starts', 'test', 'up')
    """
    return tuple(sorted({piece.lower() for name in identifiers for piece in _PIECE.findall(name) if len(piece) > 1}))
