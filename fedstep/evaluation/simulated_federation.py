"""Simulate the shared weights of one task during a replay: none, from a federation, or from pooled data."""

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from math import isnan
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit

from fedstep.evaluation.corpus import BuildStep, Case, KnownLabel, read_steps
from fedstep.evaluation.replay import Extracted
from fedstep.features.build_features import Estimate
from fedstep.federation.messages import Model, check_update, pack_update, shape, unpack_update
from fedstep.federation.update_builder import make_update
from fedstep.ingest.change_impact import group_of
from fedstep.model.experts import START, combine
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import LocalWeights, QuantileTrackers, initial_scaling
from fedstep.model.predictor import chance_of, full_margin
from fedstep.model.state import ExampleQueue, LocalModel
from fedstep.model.training import learn_examples, learn_shared, sparse_matrix
from fedstep.schema.schema import SparseVector, schema
from fedstep.server.aggregation.fedbuff import TaskDelta, aggregate, default_rules, update_mean
from fedstep.types import Unavailable


class SharedLearner(Protocol):
    """The source of a project's shared weights and the recipient of its rows."""

    @property
    def weights(self) -> Sequence[float]:
        """Return the current shared weights."""

    def offer(self, project: str, backlog: ExampleQueue) -> ExampleQueue:
        """Take the waiting rows of a project, if they are enough; the backlog without them."""


class LocalOnly:
    """No sharing: the shared weights stay constant, zero if not given."""

    def __init__(self, task: str, start: Sequence[float] | None = None) -> None:
        self.weights: Sequence[float] = start or schema().tasks[task].start()

    def offer(self, project: str, backlog: ExampleQueue) -> ExampleQueue:  # noqa: ARG002
        return backlog._replace(waiting={})


class SimulatedFederation:
    """Updates in the wire format, aggregated one by one, because recorded builds are minutes apart."""

    def __init__(self, task: str, start: Sequence[float] | None = None) -> None:
        self._task, self._version = task, 0
        self._rules, self._shape = default_rules(schema())[task], shape(schema())
        self.candidate = array("f", start or schema().tasks[task].start())
        self.weights: Sequence[float] = self.candidate  # what goes on trial, taken as production
        self.sizes: list[int] = []  # bytes of each update

    def offer(self, project: str, backlog: ExampleQueue) -> ExampleQueue:
        candidate = {self._task: self.candidate}
        model = Model(schema().digest, self._version, self._version, "", candidate, candidate)
        update, left = make_update(backlog, model, key_by(project))
        if not isinstance(update, Unavailable):
            self.receive(pack_update(update))
        return left

    def receive(self, body: bytes) -> None:
        """Aggregate one update into the task, as the aggregator does."""
        update = unpack_update(body)
        check_update(update, self._shape)
        delta = np.array(update.deltas[self._task], np.float32)
        task_delta = TaskDelta(update.id, update.project, self._version - update.base, delta)
        vector = aggregate(np.array(self.candidate, np.float32), [task_delta], self._rules)
        self.candidate, self._version = array("f", vector.tobytes()), self._version + 1
        mean = update_mean(np.array(self.weights, np.float32), vector, self._version, self._rules.window)
        self.weights = array("f", mean.tobytes())
        self.sizes.append(len(body))


class ReadOnlyLearner:
    """Shared weights for a project that contributes no rows."""

    def __init__(self, shared: SharedLearner) -> None:
        self._shared = shared

    @property
    def weights(self) -> Sequence[float]:
        return self._shared.weights

    def offer(self, project: str, backlog: ExampleQueue) -> ExampleQueue:  # noqa: ARG002
        return backlog._replace(waiting={})


class PooledLearner:
    """One learner on all raw rows: an upper bound for any federation."""

    def __init__(self, task: str) -> None:
        self._task = task
        self.weights: Sequence[float] = schema().tasks[task].start()

    def offer(self, project: str, backlog: ExampleQueue) -> ExampleQueue:  # noqa: ARG002
        rows: Sequence[LabelledExample] = backlog.waiting.get(self._task, ())
        if rows:
            self.weights = learn_shared(self._task, self.weights, rows)
        return backlog._replace(waiting={})


MODES = {"federated": SimulatedFederation, "local": LocalOnly, "pooled": PooledLearner}


def key_by(project: str) -> Callable[..., str]:
    """Return a substitute for a project's own key."""

    def key(*parts: str) -> str:
        return blake2b("\0".join((project, *parts)).encode(), digest_size=16).hexdigest()

    return key


class CasePrediction(NamedTuple):
    """The prediction and the truth of one case: seconds with an interval, or a chance (`low` and `high` too)."""

    project: str
    build_index: int  # of the build in its project, from 0
    predicted: float
    low: float
    high: float
    truth: float
    guesses: Mapping[str, float]


class _Asked(NamedTuple):
    case: Case
    prediction: CasePrediction


class SimulatedProject:
    """A project with weights and a calibration of its own on top of the shared ones."""

    def __init__(self, name: str, task: str, shared: SharedLearner, learns: bool = True) -> None:
        self._name, self._task, self._shared, self._learns = name, task, shared, learns
        self._correction, self._backlog = LocalModel(), ExampleQueue()
        self._asked: dict[int, _Asked] = {}

    def live(self, step: BuildStep) -> Iterator[CasePrediction]:
        """Learn what is known by the start of this build, then predict it; the predictions whose truth is known."""
        for batch in _batches_of_project(self._task, step.known):
            yield from self._learn(batch)
        for case in step.cases:
            prediction = self._predict(step.build_index, case)
            self._asked[case.key] = _Asked(case, prediction)
            if case.scored and not isnan(case.truth):
                yield prediction

    def _learn(self, batch: Sequence[KnownLabel]) -> Iterator[CasePrediction]:
        asked = [self._asked.pop(known.key) for known in batch]
        if self._learns:
            self._absorb(
                [
                    LabelledExample(pending.case.row, known.label, known.weight)
                    for pending, known in zip(asked, batch, strict=True)
                ],
                asked[0].case.stream,
            )
        for pending, known in zip(asked, batch, strict=True):
            if pending.case.scored and isnan(pending.case.truth) and known.is_judged:
                yield pending.prediction._replace(truth=known.label if isnan(known.truth) else known.truth)

    def _absorb(self, ripe: Sequence[LabelledExample], stream: str) -> None:
        correction, backlog = learn_examples(
            self._task, self._correction, self._backlog, ripe, self._shared.weights, stream
        )
        self._correction, self._backlog = correction, self._shared.offer(self._name, backlog)

    def _predict(self, build_index: int, case: Case) -> CasePrediction:
        predicted, low, high = self._meant(case)
        return CasePrediction(self._name, build_index, predicted, low, high, case.truth, case.guesses)

    def _meant(self, case: Case) -> tuple[float, float, float]:
        local, weights = self._correction.local.get(self._task, LocalWeights()), self._shared.weights
        if self._task != "build-duration":
            platt = self._correction.platt.get(self._task, initial_scaling(self._task))
            chance = chance_of(self._task, weights, local, platt, case.row)
            return chance, chance, chance
        score = full_margin(weights, local, case.row)
        trackers = self._correction.trackers.get(case.stream, QuantileTrackers())
        row = SparseVector(case.row.indices, case.row.values)
        score = combine(self._correction.experts.get(case.stream, START), row, score)
        low, seconds, high = Estimate(*case.estimate).interval(score, trackers.ends())
        return seconds, low, high


def _batches_of_project(task: str, known: Sequence[KnownLabel]) -> Iterator[Sequence[KnownLabel]]:
    """Yield what one record reveals as one batch: one label of a build, all labels of its tests."""
    if task.startswith("build-"):
        yield from ((label,) for label in known)
    elif known:
        yield known


# Passes over all rows, each batch one update: chosen with each project left out in turn.
PASSES = {"flaky": 5, "triage": 10, "build-failure": 3, "build-duration": 2}
MOST_ROWS = 3000  # of one project and task, sampled, so that no project dominates


def lessons(project: Extracted) -> tuple[LabelledExample, ...]:
    """Return every row of the project whose label became known, in that order."""
    return label_rows(read_steps(project.path))


def label_rows(steps: Iterable[BuildStep]) -> tuple[LabelledExample, ...]:
    """Return every row of these steps whose label became known, in that order."""
    waiting: dict[int, Case] = {}
    rows: list[LabelledExample] = []
    for step in steps:
        rows += [LabelledExample(waiting.pop(label.key).row, label.label, label.weight) for label in step.known]
        waiting |= {case.key: case for case in step.cases}
    return tuple(rows)


def train_global(task: str, projects: Mapping[str, Sequence[LabelledExample]], seed: int) -> Sequence[float]:
    """Train the task on these projects alone: batches of one project each, updates through the aggregation.

    The weights are averaged over the second half of the passes (Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging", 1992). Tables of reruns, which have no private features, are fitted exactly instead.
    """
    tables = [rows for rows in projects.values() if rows and not any(row.example.private for row in rows)]
    if task == "flaky" and any(row.label for rows in tables for row in rows):
        return fit_tables(task, tables)
    draw, federation = random.Random(f"{seed} {task}"), SimulatedFederation(task)
    kept: list[Sequence[float]] = []
    chosen = {name: _chosen(rows, draw) for name, rows in projects.items()}
    for pass_index in range(PASSES[task]):
        _one_pass(task, federation, chosen, draw)
        if pass_index >= PASSES[task] // 2:
            kept.append(federation.candidate)
    return [float(weight) for weight in np.mean(kept, axis=0)]


RIDGE = 0.002  # of the mean loss; a quarter, half, or half as much again ranks tests of other projects a little worse
L_BFGS = {"maxiter": 300, "maxfun": 600, "ftol": 1e-8, "gtol": 1e-6}
Floats = NDArray[np.float64]


def fit_tables(task: str, tables: Sequence[Sequence[LabelledExample]]) -> Sequence[float]:
    """Return the weights of an exact logistic regression on the tests of several projects.

    Positive and negative examples of a project weigh the same. Tests of one class may flake by one cause: n of a class
    with one label count as √n. Each project also has weights of its own, with the same ridge, so that what one project
    alone shows is not taken for what they have in common (Evgeniou and Pontil, "Regularized multi-task learning",
    2004); they are discarded. The ridge draws towards the weights that the schema starts with. At last the intercept is
    set so that the mean probability is the base rate of the weighted examples.
    """
    start = np.array(schema().tasks[task].start(), np.float64)
    rows = [
        sparse_matrix([row.example.indices for row in some], [row.example.values for row in some], len(start))
        for some in tables
    ]
    labels = [np.array([row.label for row in some]) for some in tables]
    weights = [np.array([row.weight for row in some]) for some in tables]
    classes = [[group_of(row.example.subject) for row in some] for some in tables]
    balanced = list(map(_balance, labels, weights, classes))
    total = sum(float(project_weights.sum()) for project_weights in balanced)

    def loss(flat: Floats) -> tuple[float, Floats]:
        parts, intercept = flat[:-1].reshape(-1, len(start)), flat[-1]  # the common one, then each project's own
        value, slopes, error = RIDGE / 2 * float((parts**2).sum()), RIDGE * parts, 0.0
        for own, (matrix, label, weight) in enumerate(zip(rows, labels, balanced, strict=True), 1):
            score = matrix @ (start + parts[0] + parts[own]) + intercept
            value += float(weight @ np.logaddexp(0.0, np.where(label > 0, -score, score))) / total
            wrong = weight * (expit(score) - label) / total
            slopes[[0, own]] += matrix.T @ wrong
            error += float(wrong.sum())
        return value, np.append(slopes.ravel(), error)

    nothing = np.zeros(len(start) * (len(rows) + 1) + 1)
    common = start + minimize(loss, nothing, jac=True, method="L-BFGS-B", options=L_BFGS).x[: len(start)]
    scores, label, weight = (np.concatenate(some) for some in ([matrix @ common for matrix in rows], labels, weights))
    common[0] += brentq(lambda added: weight @ (expit(scores + added) - label), -50.0, 50.0)  # the bias is the first
    return [float(coordinate) for coordinate in common]


def _balance(labels: Floats, weights: Floats, classes: Sequence[str]) -> Floats:
    """Return weights of the same sum: half of it for each label, and n tests of a class with one label count as √n."""
    kinds = list(zip(classes, labels, strict=True))
    alike = Counter(kinds)
    shares = weights / np.sqrt([alike[kind] for kind in kinds])
    halves: Floats = np.where(labels > 0, shares @ labels, shares @ (1.0 - labels))
    return shares / np.maximum(halves, 1e-9) * float(weights.sum()) / 2


def predict_left_out(
    task: str, project: Extracted, weights: Sequence[float], learns: bool = False
) -> Iterator[CasePrediction]:
    """Yield the prediction of this shared model for every case of a project, which learns local weights or does not."""
    participant = SimulatedProject(project.project, task, LocalOnly(task, weights), learns)
    for step in read_steps(project.path):
        yield from participant.live(step)


def _chosen(rows: Sequence[LabelledExample], draw: random.Random) -> Sequence[LabelledExample]:
    return rows if len(rows) <= MOST_ROWS else draw.sample(rows, MOST_ROWS)


def _one_pass(
    task: str, federation: SimulatedFederation, projects: Mapping[str, Sequence[LabelledExample]], draw: random.Random
) -> None:
    size = schema().tasks[task].minimum_rows
    backlogs = dict.fromkeys(projects, ExampleQueue())
    batches = [
        (name, batch) for name, rows in projects.items() for batch in _batches(draw.sample(rows, len(rows)), size)
    ]
    draw.shuffle(batches)
    for name, batch in batches:
        waiting = (*backlogs[name].waiting.get(task, ()), *batch)
        backlogs[name] = federation.offer(name, ExampleQueue(waiting={task: waiting}))


def _batches(rows: Sequence[LabelledExample], size: int) -> Iterator[Sequence[LabelledExample]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
