"""The one place that makes what leaves the house: an update, from the rows that wait in the history."""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from math import exp, log1p

from fedstep.federation.messages import Model, TrialScore, Update, bucket, norm
from fedstep.federation.tensors import Vector
from fedstep.model.labels import LabelledExample, count_subjects
from fedstep.model.linear import margin
from fedstep.model.sgd import PACES, learn_shared
from fedstep.model.state import ExampleQueue
from fedstep.schema.encoders import BagOfWords
from fedstep.schema.schema import Task, schema
from fedstep.types import Unavailable

MIN_TESTS_PER_WORD = 3  # tests: of two, whoever knows the one knows the other


def suppress_rare_words(task: Task, rows: Sequence[LabelledExample]) -> tuple[LabelledExample, ...]:
    """The rows as if the words that too few tests of them use were not in the list."""
    listed = _listed(task.word_lists())
    if not listed:
        return tuple(rows)
    users = _users(rows, listed)
    rare = frozenset(index for index, tests in users.items() if len(tests) < MIN_TESTS_PER_WORD)
    return tuple(_without(task, rare, ripe) for ripe in rows)


def _users(rows: Iterable[LabelledExample], listed: frozenset[int]) -> Mapping[int, set[str]]:
    """By word the tests that use it."""
    users: dict[int, set[str]] = {}
    for ripe in rows:
        for index in filter(listed.__contains__, ripe.row.indices):
            users.setdefault(index, set()).add(ripe.row.subject)
    return users


def _without(task: Task, rare: frozenset[int], ripe: LabelledExample) -> LabelledExample:
    """The row with its other words weighed anew: the weight of a word tells how many there are."""
    row, listed = ripe.row, _listed(task.word_lists())
    values = {index: value for index, value in zip(row.indices, row.values, strict=True) if index not in listed}
    shown = [index for index in row.indices if index in listed and index not in rare]
    for start, words in task.word_lists():
        offsets = [index - start for index in shown if start <= index < start + len(words.index)]
        values |= {start + offset: weight for offset, weight in words.encode(offsets)}
    indices = tuple(sorted(values))
    return ripe._replace(row=row._replace(indices=indices, values=tuple(map(values.__getitem__, indices))))


@cache
def _listed(lists: tuple[tuple[int, BagOfWords], ...]) -> frozenset[int]:
    """The coordinates of all words."""
    return frozenset(chain.from_iterable(range(start, start + len(words.index)) for start, words in lists))


SCORE_BOUND = 0.1  # of a batch's mean difference: nats for the chances, spreads for the time


def score_trial(task: str, model: Model, rows: Sequence[LabelledExample]) -> TrialScore:
    """The weighted mean loss difference of the rows, trial less production, by the shared tasks alone, clipped.

    In units of the bound, so in [-1, 1]. The mean is clipped and not each row: where one row in twenty is positive, a
    better task gains much on it and loses a little on the others. The task must be on trial.
    """
    production, trial = model.production[task], model.trial[task]
    weights = sum(ripe.weight for ripe in rows)
    total = sum(ripe.weight * (example_loss(task, trial, ripe) - example_loss(task, production, ripe)) for ripe in rows)
    difference = array("f", [max(-1.0, min(1.0, total / weights / SCORE_BOUND))])[0]  # as the wire rounds it
    return TrialScore(model.trials[task], difference)


def example_loss(task: str, weights: Sequence[float], ripe: LabelledExample) -> float:
    """The log loss in nats of a chance, the absolute error in spreads of a time."""
    found = margin(weights, ripe.row.indices, ripe.row.values)
    if PACES[task].loss != "log_loss":
        return abs(ripe.label - found)
    wrong = -found if ripe.label else found
    return max(0.0, wrong) + log1p(exp(-abs(wrong)))


def select_full_batches(backlog: ExampleQueue) -> Mapping[str, tuple[LabelledExample, ...]]:
    """The waiting rows of each task that has enough of them, of enough distinct tests or builds."""
    return {
        name: backlog.waiting.get(name, ())
        for name, task in schema().tasks.items()
        if _is_full(task, backlog.waiting.get(name, ()))
    }


def make_update(
    backlog: ExampleQueue, model: Model, keyed: Callable[..., str]
) -> tuple[Update | Unavailable, ExampleQueue]:
    """Return the update learned from all full batches, and the queue without their examples.

    What is in it: one clipped change of coefficients a task, where a snapshot is on trial the mean clipped difference
    of losses on the same rows, the base version, bucketed counts and hashes by `keyed`, the project's own.
    """
    batches = select_full_batches(backlog)
    if not batches:
        return Unavailable(_progress(backlog)), backlog
    told = {name: suppress_rare_words(schema().tasks[name], rows) for name, rows in batches.items()}
    update = Update(
        schema=schema().digest,
        base=model.candidate_version,
        id=keyed("update", *_row_names(batches)),
        project=keyed("project"),
        examples={name: bucket(len(rows)) for name, rows in batches.items()},
        deltas={name: _delta(name, model.candidate[name], rows) for name, rows in told.items()},
        # the shared tasks have not learned these rows yet, so that they are a fair test of the snapshot
        scores={name: score_trial(name, model, rows) for name, rows in told.items() if name in model.trials},
    )
    return update, backlog._replace(waiting={**backlog.waiting, **dict.fromkeys(batches, ())})


def _is_full(task: Task, rows: Sequence[LabelledExample]) -> bool:
    return len(rows) >= task.minimum_rows and count_subjects(rows) >= task.minimum_groups


def _delta(name: str, task: Sequence[float], rows: Sequence[LabelledExample]) -> "array[float]":
    learned = learn_shared(name, task, rows)
    change = array("f", (after - before for after, before in zip(learned, task, strict=True)))
    return clip_update(change, schema().tasks[name].clip)


def _row_names(batches: Mapping[str, Sequence[LabelledExample]]) -> list[str]:
    return sorted(f"{task} {ripe.row.subject} {ripe.row.run}" for task, rows in batches.items() for ripe in rows)


def _progress(backlog: ExampleQueue) -> str:
    parts = (
        f"{name} {len(backlog.waiting.get(name, ()))} of {task.minimum_rows}" for name, task in schema().tasks.items()
    )
    return f"no batch is full yet (rows: {', '.join(parts)})"


def clip_update(delta: Vector, bound: float) -> Vector:
    """The delta itself, or shrunk to an L2 norm of at most `bound`."""
    length = norm(delta)
    if length <= bound:
        return delta
    share = bound / length * (1 - 2**-23)  # rounding to C floats must not carry the norm over the bound
    return array("f", (number * share for number in delta))
