"""Build updates from the labelled examples that wait in the history: the only code whose output leaves the project.

`suppress_rare_words` and `clip_update` bound what an update reveals; `score_trial` evaluates the model on trial.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from itertools import chain

from fedstep.federation.messages import Model, TrialScore, Update, Vector, bucket, norm
from fedstep.history.records import Example
from fedstep.model.labels import LabelledExample, count_subjects
from fedstep.model.linear import margin
from fedstep.model.state import ExampleQueue, SentBatch
from fedstep.model.training import learn_shared, mean_loss
from fedstep.schema.schema import BagOfWords, Task, schema
from fedstep.types import Unavailable

MIN_TESTS_PER_WORD = 3  # a word that two tests share identifies one of them to anyone who knows the other


def suppress_rare_words(task: Task, rows: Sequence[LabelledExample]) -> tuple[LabelledExample, ...]:
    """Return the examples without the words that fewer than MIN_TESTS_PER_WORD of their tests use."""
    word_indices = _word_indices(task.word_lists())
    if not word_indices:
        return tuple(rows)
    tests_by_word = _tests_by_word(rows, word_indices)
    rare = frozenset(index for index, tests in tests_by_word.items() if len(tests) < MIN_TESTS_PER_WORD)
    return tuple(_remove_words(task, rare, example) for example in rows)


def _tests_by_word(rows: Iterable[LabelledExample], word_indices: frozenset[int]) -> Mapping[int, set[str]]:
    tests: dict[int, set[str]] = {}
    for example in rows:
        for index in filter(word_indices.__contains__, example.example.indices):
            tests.setdefault(index, set()).add(example.example.subject)
    return tests


def _remove_words(task: Task, rare: frozenset[int], example: LabelledExample) -> LabelledExample:
    """Return the example with its other words weighted anew: the weight of a word reveals how many there are."""
    row, word_indices = example.example, _word_indices(task.word_lists())
    values = {index: value for index, value in zip(row.indices, row.values, strict=True) if index not in word_indices}
    common = [index for index in row.indices if index in word_indices and index not in rare]
    for start, words in task.word_lists():
        offsets = [index - start for index in common if start <= index < start + len(words.index)]
        values |= {start + offset: weight for offset, weight in words.encode(offsets)}
    indices = tuple(sorted(values))
    return example._replace(example=row._replace(indices=indices, values=tuple(map(values.__getitem__, indices))))


@cache
def _word_indices(lists: tuple[tuple[int, BagOfWords], ...]) -> frozenset[int]:
    """Return the coordinates of all words."""
    return frozenset(chain.from_iterable(range(start, start + len(words.index)) for start, words in lists))


KEPT = 8  # batches of a task that were sent: more tell little more of a version on trial
KEPT_BY_TASK = {"build-failure": 24}  # a batch has eight builds, of which few failed
LONGEST_KEPT = 2  # times the examples that a batch has at least; of a longer one the newest are kept
SCORE_BOUND = 0.1  # of a batch's mean difference: nats for the chances, spreads for the time


def score_trial(task: str, model: Model, rows: Sequence[LabelledExample]) -> TrialScore:
    """Return how much worse the trial is than production: the weighted mean loss difference, in units of SCORE_BOUND.

    It is clipped to [-1, 1]. The mean is clipped and not each example: where one example in twenty is positive, a
    better model gains much on it and loses a little on the others. The task must be on trial.
    """
    labels, weights = [row.label for row in rows], [row.weight for row in rows]
    trial, production = (
        mean_loss(task, _outputs(vector, rows), labels, weights)
        for vector in (model.trial[task], model.production[task])
    )
    difference = max(-1.0, min(1.0, (trial - production) / SCORE_BOUND))
    return TrialScore(model.trials[task], array("f", [difference])[0])  # a C float, as in the message


def _outputs(vector: Vector, rows: Sequence[LabelledExample]) -> Sequence[float]:
    return [margin(vector, row.example.indices, row.example.values) for row in rows]


def kept_batches(task: str) -> int:
    """Return how many sent batches of a task are kept for evaluations."""
    return KEPT_BY_TASK.get(task, KEPT)


def select_full_batches(backlog: ExampleQueue) -> Mapping[str, tuple[LabelledExample, ...]]:
    """Return the waiting examples of each task that has enough of them, from enough distinct tests or builds."""
    return {
        name: backlog.waiting.get(name, ())
        for name, task in schema().tasks.items()
        if _is_full(task, backlog.waiting.get(name, ()))
    }


def make_update(
    backlog: ExampleQueue, model: Model, keyed: Callable[..., str]
) -> tuple[Update | Unavailable, ExampleQueue]:
    """Return the update learned from all full batches, and the queue without their examples.

    An update has per task one clipped change of the coefficients and, where a version is on trial, its score on the
    same examples; and the base version, bucketed counts, and identifiers hashed by `keyed` with the project's key.
    Where no batch is full, return the reason and the queue as it is.
    """
    batches = select_full_batches(backlog)
    if not batches:
        return Unavailable(_describe_progress(backlog)), backlog
    examples = {name: suppress_rare_words(schema().tasks[name], rows) for name, rows in batches.items()}
    fair = {name: (*_iter_learned_by_both(name, model, backlog), *rows) for name, rows in examples.items()}
    update = Update(
        schema=schema().digest,
        base=model.candidate_version,
        id=keyed("update", *_example_names(batches)),
        project=keyed("project"),
        examples={name: bucket(len(rows)) for name, rows in batches.items()},
        deltas={name: _delta(name, model.candidate[name], rows) for name, rows in examples.items()},
        scores={name: score_trial(name, model, rows) for name, rows in fair.items() if name in model.trials},
    )
    sent = {name: _keep_sent(name, model, backlog, rows) for name, rows in examples.items()}
    return update, backlog._replace(
        waiting={**backlog.waiting, **dict.fromkeys(batches, ())}, sent={**backlog.sent, **sent}
    )


def _iter_learned_by_both(task: str, model: Model, backlog: ExampleQueue) -> Iterator[LabelledExample]:
    """Yield the examples sent before production was on trial: production and a later trial have learned them alike.

    Of examples sent since then only the trial has learned, so that it would seem better than it is.
    """
    production = _digest(model.production[task])
    for batch in backlog.sent.get(task, ()):
        if production not in batch.versions:
            yield from batch.examples


def _keep_sent(
    task: str, model: Model, backlog: ExampleQueue, rows: Sequence[LabelledExample]
) -> tuple[SentBatch, ...]:
    """Return the newest batches that were sent, with these examples as the last one."""
    versions = (model.production[task], *filter(None, [model.trial.get(task)]))
    newest = _without_names(rows[-LONGEST_KEPT * schema().tasks[task].minimum_rows :])
    return (*backlog.sent.get(task, ()), SentBatch(newest, tuple(map(_digest, versions))))[-kept_batches(task) :]


def _without_names(rows: Sequence[LabelledExample]) -> tuple[LabelledExample, ...]:
    """Return the examples with what an evaluation needs: no name of a test or build outlives its record here."""
    return tuple(row._replace(example=Example("", 0, row.example.indices, row.example.values, ())) for row in rows)


def _digest(vector: Vector) -> str:
    return sha256(vector.tobytes()).hexdigest()[:16]


def _is_full(task: Task, rows: Sequence[LabelledExample]) -> bool:
    return len(rows) >= task.minimum_rows and count_subjects(rows) >= task.minimum_groups


def _delta(name: str, task: Sequence[float], rows: Sequence[LabelledExample]) -> "array[float]":
    learned = learn_shared(name, task, rows)
    change = array("f", (after - before for after, before in zip(learned, task, strict=True)))
    return clip_update(change, schema().tasks[name].clip)


def _example_names(batches: Mapping[str, Sequence[LabelledExample]]) -> list[str]:
    return sorted(
        f"{task} {example.example.subject} {example.example.run}" for task, rows in batches.items() for example in rows
    )


def _describe_progress(backlog: ExampleQueue) -> str:
    parts = (
        f"{name} {len(backlog.waiting.get(name, ()))} of {task.minimum_rows}" for name, task in schema().tasks.items()
    )
    return f"no batch is full yet (rows: {', '.join(parts)})"


def clip_update(delta: Vector, bound: float) -> Vector:
    """Return the delta scaled down to an L2 norm of at most `bound`; itself where it is not longer."""
    length = norm(delta)
    if length <= bound:
        return delta
    scale = bound / length * (1 - 2**-23)  # rounding to C floats must not carry the norm over the bound
    return array("f", (coordinate * scale for coordinate in delta))
