"""The shared schema: the features of each task, their encoders, their order and their fixed public scales.

Every message names the schema's digest. Any change here changes the digest: raise VERSION with it.
"""

import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from math import isfinite, log
from typing import NamedTuple, TypeVar

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


VERSION = 6
_T = TypeVar("_T")

RATES = (0.0, 0.002, 0.01, 0.03, 0.1, 0.3, 1.0)
RUNS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SECONDS = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
OUTCOMES = ("passed", "unstable", "failed", "none")
STREAKS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)
GAPS = (0.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0, 604800.0)  # seconds
FAILURE_RATES = (
    "similar",
    "own",
    "newest",
    "any-age",
    "same-branch",
    "any-branch",
    "any-kind",
    "same-author",
    "same-size",
    "same-hour",
    "same-before",
    "same-previous",
    "same-kinds",
    "same-running",
    "same-kinds-running",
)
DURATION_LEVELS = (
    "newest",
    "any-age",
    "any-branch",
    "same-branch",
    "same-author",
    "same-size",
    "same-hour",
    "same-weekend",
    "low",
    "high",
    "last",
    "last-5",
    "passed",
    "same-kinds",
    "same-running",
    "same-kinds-running",
    "last-3",
    "last-20",
    "last-branch",
    "moved",
)
SIZES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
FAILURE_KINDS = ("assertion", "timeout", "connection", "null", "state", "io", "memory", "concurrency", "other")
EVENTS = ("push", "pull_request", "schedule", "manual", "tag", "other")
EVIDENCE = (
    "past",
    "repeats",
    "change",
    "companions",
    "kind",
    "time",
    "environment",
    "words",
    "commit",
)  # fields of `FlakeEvidence`
EVIDENCE_SCALE = 4.0  # of the log-odds of what was seen of a test
RELATIONS = ("itself", "near", "build-file", "elsewhere", "nothing")


def _history_of_a_test() -> tuple[Encoder, ...]:
    """Return the parts on a test's past that both test tasks share."""
    return (
        PiecewiseLinear("runs", RUNS, logarithmic=True),
        PiecewiseLinear("failure-rate-5", RATES, logarithmic=True),
        PiecewiseLinear("failure-rate-50", RATES, logarithmic=True),
        PiecewiseLinear("flip-rate-20", RATES, logarithmic=True),
        PiecewiseLinear("flip-rate-100", RATES, logarithmic=True),
        PiecewiseLinear("gold-rate-100", RATES, logarithmic=True),
        PiecewiseLinear("runs-since-failure", RUNS, logarithmic=True),
        PiecewiseLinear("runs-since-flip", RUNS, logarithmic=True),
        PiecewiseLinear("classmates-flip-rate", RATES, logarithmic=True),
        PiecewiseLinear("classmates-failure-rate", RATES, logarithmic=True),
        PiecewiseLinear("project-flip-rate", (0.0, 0.0005, 0.002, 0.01, 0.05), logarithmic=True),
    )


def _flaky(words: Sequence[tuple[str, str]]) -> tuple[Encoder, ...]:
    """Return what was seen of a test as log-odds, which start as the margin, and what corrects them.

    Nothing else depends on the test's own outcomes: the probability is monotone in the evidence.
    """
    return (
        Numeric("bias"),
        Numeric("evidence", start=EVIDENCE_SCALE),  # log-odds / EVIDENCE_SCALE, so that it is about 1 in size
        Numeric("flipped"),  # whether the test was ever seen to flip
        Numeric("time-rank"),  # linear: knots on seconds overfit the recorded projects and rank others worse
        PiecewiseLinear("source-words", (0.0, 10.0, 30.0, 100.0, 300.0), logarithmic=True),
        Numeric("doubted", start=6.0),  # failures that may have been flakes, of a test that never flipped
        Numeric("classmates-flakes", start=3.0),
        Numeric("project-flips", start=1.0),
        BagOfWords("name", _index(words, "n")),
        BagOfWords("source", _index(words, "s")),
    )


def _triage() -> tuple[Encoder, ...]:
    """Return the evidence for a flake in nats, with initial weight 1, and the plain facts that correct it."""
    return (
        Numeric("bias"),
        *_history_of_a_test(),
        *(Numeric(f"evidence-{name}", start=1.0) for name in EVIDENCE),
        Numeric("flipped"),
        PiecewiseLinear("failures-in-a-row", (0.0, 1.0, 2.0, 3.0, 10.0)),
        PiecewiseLinear("failures-in-build", (1.0, 2.0, 3.0, 10.0, 30.0, 100.0), logarithmic=True),
        PiecewiseLinear("classmates-failing", (0.0, 1.0, 2.0, 5.0, 20.0), logarithmic=True),
        Categorical("change", RELATIONS),
        PiecewiseLinear("files-changed", SIZES, logarithmic=True),
        Categorical("same-commit", ("passed", "failed", "both", "unseen")),
        Categorical("failure-kind", FAILURE_KINDS),
        PiecewiseLinear("seconds-ratio", (-3.0, -1.0, 0.0, 1.0, 3.0)),
        PiecewiseLinear("seconds", SECONDS, logarithmic=True),
    )


def _build_failure() -> tuple[Encoder, ...]:
    """Return the log-odds of failing among similar builds, and plain facts about the builds before."""
    return (
        Numeric("bias"),
        *(Numeric(name) for name in FAILURE_RATES),
        PiecewiseLinear("runs", (1.0, 3.0, 10.0, 30.0, 100.0), logarithmic=True),
        PiecewiseLinear("failing", STREAKS),
        PiecewiseLinear("passing", STREAKS),
        Categorical("last-outcome", OUTCOMES),
        PiecewiseLinear("branch-runs", STREAKS),
        PiecewiseLinear("branch-failing", STREAKS),
        PiecewiseLinear("branch-passing", STREAKS),
        Categorical("branch-outcome", OUTCOMES),
        PiecewiseLinear("branch-gap", GAPS, logarithmic=True),
        PiecewiseLinear("hour", (0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0)),
        PiecewiseLinear("files", SIZES, logarithmic=True),
        PiecewiseLinear("lines", SIZES, logarithmic=True),
        PiecewiseLinear("running", (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)),
    )


def _build_duration() -> tuple[Encoder, ...]:
    """Return departures of other estimates from the running one, in compressed spreads, without bias."""
    return tuple(Numeric(name) for name in DURATION_LEVELS)


class Task(NamedTuple):
    """A task's linear model: its parts in order and the public constants of its learning.

    `clip` bounds the L2 norm of one update. A batch is `minimum_rows` rows of `minimum_groups` distinct tests (builds,
    for the build tasks). `horizon` counts runs of the test from the example to its label; 0: labelled at once.
    """

    name: str
    parts: tuple[Encoder, ...]
    clip: float
    minimum_rows: int
    minimum_groups: int
    horizon: int

    def names(self) -> tuple[str, ...]:
        """Return the name of every coordinate, in order."""
        return _names(self.parts)

    def first(self, part: str) -> int:
        """Return the first coordinate of the part with this name."""
        return _starts(self.parts)[[encoder.name for encoder in self.parts].index(part)]

    def spans(self) -> Iterator[tuple[Encoder, int, int]]:
        """Return each part with its first coordinate, and the one behind its last."""
        starts = _starts(self.parts)
        return zip(self.parts, starts, (*starts[1:], self.size()), strict=True)

    def size(self) -> int:
        """Return the number of coordinates."""
        return len(self.names())

    def word_lists(self) -> tuple[tuple[int, BagOfWords], ...]:
        """Return the parts that are lists of words, each with its first coordinate."""
        return _word_lists(self.parts)

    def start(self) -> "array[float]":
        """Return the weights before any learning: the start values of the parts, else zero."""
        starts = {part.name: part.start for part in self.parts if isinstance(part, Numeric)}
        return array("f", (starts.get(name, 0.0) for name in self.names()))

    def encode(self, raw: Raw) -> SparseVector:
        """Return the sparse row of raw values by part name; None marks an absent value.

        Raise ValueError if a part has no value in `raw`, or if `raw` names something that is no part of this task.
        """
        indices: list[int] = []
        values: list[float] = []
        for start, part, value in zip(_starts(self.parts), self.parts, self._in_order(raw), strict=True):
            for offset, weight in part.encode(value):
                indices.append(start + offset)
                values.append(weight)
        return SparseVector(tuple(indices), tuple(values))

    def usual(self) -> "array[float]":
        """Return the mean of every coordinate over recorded public projects; 0 for a feature that is newer than they.

        An explanation compares with it: what is as usual explains nothing. Evidence is compared with none: the mean of
        failures in a row is that of a few long breaks, beside which a test that failed three times seems to recover.
        """
        return _usual_values(self.name, self.parts)

    def margins(self, weights: Sequence[float], columns: Columns) -> list[float]:
        """Return the margin of every row, from the raw values of all rows: one column for each part, by its name.

        A margin equals `margin(weights, *encode(row))` up to the order of the sum. What a value adds is
        computed once: the 5,000 tests of a build share a few hundred values.

        Raise ValueError if a part has no column, or if a column belongs to no part.
        """
        ends = (*_starts(self.parts)[1:], len(weights))
        spans = zip(self.parts, self._in_order(columns), _starts(self.parts), ends, strict=True)
        return list(
            map(sum, zip(*(_add_column(part, column, weights[a:b]) for part, column, a, b in spans), strict=True))
        )

    def added(self, part: str, weights: Sequence[float], column: Sequence[Value]) -> list[float]:
        """Return what each value of one part, given by its name, adds to the margin of its row."""
        encoder, start, end = next(span for span in self.spans() if span[0].name == part)
        return list(_add_column(encoder, column, weights[start:end]))

    def _in_order(self, by_name: Mapping[str, _T]) -> list[_T]:
        names = [part.name for part in self.parts]
        if by_name.keys() != set(names):
            missing = ", ".join(name for name in names if name not in by_name) or "none"
            unknown = ", ".join(sorted(by_name.keys() - set(names))) or "none"
            raise ValueError(f"the features do not fit the {self.name} task: missing {missing}; unknown {unknown}")
        return [by_name[name] for name in names]


class Schema:
    """All tasks, and the digest that names them."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = {task.name: task for task in tasks}

    def words(self, part: str) -> BagOfWords:
        """Return the word list of this name in the flaky task."""
        return next(p for p in self.tasks["flaky"].parts if isinstance(p, BagOfWords) and p.name == part)

    @cached_property
    def digest(self) -> str:
        """Return the first 16 hex digits of SHA-256 over the text of all tasks: every part and constant, in order."""
        return sha256(f"fedstep {VERSION}\n{_canonical(self.tasks.values())}".encode()).hexdigest()[:16]


TASK_NAMES = ("flaky", "triage", "build-failure", "build-duration")


@cache
def schema() -> Schema:
    """Return the schema of this version of fedstep."""
    words = _vocabulary()
    return Schema(
        (
            Task("flaky", _flaky(words), clip=1.0, minimum_rows=50, minimum_groups=20, horizon=20),
            Task("triage", _triage(), clip=1.0, minimum_rows=50, minimum_groups=20, horizon=1),
            Task("build-failure", _build_failure(), clip=0.2, minimum_rows=8, minimum_groups=8, horizon=0),
            Task("build-duration", _build_duration(), clip=0.1, minimum_rows=8, minimum_groups=8, horizon=0),
        )
    )


# The digest is made from these names: it must not change when a class is renamed.
_DIGEST_NAMES = {
    "Task(": "Head(",
    "Numeric(": "Flag(",
    "PiecewiseLinear(": "Hats(",
    "Categorical(": "Choice(",
    "BagOfWords(": "Words(",
}


def _canonical(tasks: Iterable[Task]) -> str:
    """Return the text that the digest is made from."""
    text = repr(tuple(tasks))
    for name, digest_name in _DIGEST_NAMES.items():
        text = text.replace(name, digest_name)
    return text


@cache
def _usual_values(task: str, parts: tuple[Encoder, ...]) -> "array[float]":
    means = _usual().get(task, {})
    return array("d", (0.0 if name.startswith("evidence-") else means.get(name, 0.0) for name in _names(parts)))


@cache
def _names(parts: tuple[Encoder, ...]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in part.names())


@cache
def _starts(parts: tuple[Encoder, ...]) -> tuple[int, ...]:
    starts, position = [], 0
    for part in parts:
        starts.append(position)
        position += len(part.names())
    return tuple(starts)


@cache
def _word_lists(parts: tuple[Encoder, ...]) -> tuple[tuple[int, BagOfWords], ...]:
    return tuple(
        (start, part) for start, part in zip(_starts(parts), parts, strict=True) if isinstance(part, BagOfWords)
    )


def _add_column(part: Encoder, column: Sequence[Value], weights: Sequence[float]) -> Iterable[float]:
    """Return what each value of a column adds to its row's margin."""
    if isinstance(part, BagOfWords):  # hardly any two tests have the same words
        weigh = weights.__getitem__
        return [sum(map(weigh, words)) * len(words) ** -0.5 if words else 0.0 for words in column]  # type: ignore[arg-type]
    return map(_Margins(part, weights).__getitem__, column)


class _Margins(dict[Value, float]):
    """What each value of one part adds to the margin, computed on first use."""

    def __init__(self, part: Encoder, weights: Sequence[float]) -> None:
        super().__init__()
        self.part, self.weights = part, weights

    def __missing__(self, value: Value) -> float:
        weights = self.weights
        added = self[value] = sum([weights[offset] * share for offset, share in self.part.encode(value)])
        return added


@cache
def _usual() -> Mapping[str, Mapping[str, float]]:
    import json

    with open(os.path.join(os.path.dirname(__file__), "usual.json"), encoding="ascii") as file:
        means: Mapping[str, Mapping[str, float]] = json.load(file)
        return means


def _vocabulary() -> list[tuple[str, str]]:
    """Return each word of the list, with "n" if it occurs in test names and "s" if in test source."""
    with open(os.path.join(os.path.dirname(__file__), "vocabulary.txt"), encoding="ascii") as file:
        pairs = (line.split() for line in file if not line.startswith("#"))
        return [(word, where) for word, where in pairs]


def _index(words: Sequence[tuple[str, str]], letter: str) -> dict[str, int]:
    return {word: index for index, word in enumerate(word for word, where in words if letter in where)}
