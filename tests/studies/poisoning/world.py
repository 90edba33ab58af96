"""A drawn federation: what is true of its four tasks, and what an honest project learns and reports of them."""

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedstep.federation.messages import SchemaShape
from fedstep.schema.schema import schema

Array = NDArray[np.float64]

FACTS = 12  # coordinates that are often set
WORDS = {"flaky": 200, "triage": 60, "build-failure": 20, "build-duration": 0}  # coordinates that are rarely set
WORD_CHANCE = 0.03
HELD_OUT = 3000  # examples per task
HETEROGENEITY = 0.4  # standard deviation of a project's own intercept
# As in `model.training.PACES`; that of flaky tests is a fifth of it, because here all projects want the same step.
RATES = {"flaky": 0.01, "triage": 0.005, "build-failure": 0.02, "build-duration": 0.001}
BASE_RATES = {"flaky": 0.05, "triage": 0.4, "build-failure": 0.25}  # recorded flake rates are 3 to 7 %
STARTS = {"flaky": log(0.018 / 0.982)}  # the initial intercept of the schema


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """One task: the true weights, and the constants with which projects learn it."""

    name: str
    weights: Array
    shifts: Array  # of the intercept, by project
    batch: int
    rate: float
    clip: float

    @property
    def size(self) -> int:
        """Return the number of coordinates."""
        return len(self.weights)

    @property
    def is_regression(self) -> bool:
        """Return whether the label is a number of spreads."""
        return self.name not in BASE_RATES

    def draw(self, random: np.random.Generator, project: int, count: int) -> tuple[Array, Array]:
        """Return rows and labels of one project."""
        chances = np.concatenate([[1.0], np.full(FACTS, 0.4), np.full(self.size - FACTS - 1, WORD_CHANCE)])
        rows = (random.random((count, self.size)) < chances).astype(float)
        outputs = rows @ self.weights + self.shifts[project]
        if self.is_regression:
            return rows, outputs + random.laplace(0.0, 0.7, count)
        return rows, (random.random(count) < sigmoid(outputs)).astype(float)

    def learn(self, start: Array, rows: Array, labels: Array) -> Array:
        """Return what one pass of stochastic gradient descent over the rows changes."""
        (delta,) = self.learn_all(start, rows[np.newaxis], labels[np.newaxis])
        return delta

    def learn_all(self, start: Array, rows: Array, labels: Array) -> list[Array]:
        """Return the same for many projects at once: rows and labels have one more dimension, the project."""
        weights = np.repeat(start[np.newaxis], len(rows), axis=0)
        for step in range(rows.shape[1]):
            row = rows[:, step]
            outputs = np.vecdot(weights, row)
            errors = np.sign(outputs - labels[:, step]) if self.is_regression else sigmoid(outputs) - labels[:, step]
            weights -= (self.rate * errors)[:, np.newaxis] * row
        return [self.clipped(own - start) for own in weights]

    def clipped(self, delta: Array) -> Array:
        """Return the delta within the bound of the task."""
        length = float(np.linalg.norm(delta))
        return delta * min(1.0, 0.9999 * self.clip / length) if length else delta

    def score(self, weights: Array, rows: Array, labels: Array) -> float:
        """Return the AUC; of a regression minus the absolute error, over that of the best constant."""
        if self.is_regression:
            return -float(np.abs(rows @ weights - labels).mean() / np.abs(labels - np.median(labels)).mean())
        outputs = rows @ weights
        negatives = np.sort(outputs[labels == 0])
        sides = [np.searchsorted(negatives, outputs[labels == 1], side) for side in ("left", "right")]
        return float(np.mean(sides) / len(negatives))


@dataclass(frozen=True, slots=True)
class World:
    """All tasks of one seed, with the examples that nobody learns from."""

    tasks: Mapping[str, SimulatedTask]
    held_out: Mapping[str, tuple[Array, Array]]

    @property
    def shape(self) -> SchemaShape:
        """Return the shape of the messages."""
        return SchemaShape("a" * 16, {name: task.size for name, task in self.tasks.items()})

    def start(self) -> dict[str, Array]:
        """Return the weights before any learning."""
        starts = {name: np.zeros(task.size) for name, task in self.tasks.items()}
        for name, vector in starts.items():
            vector[0] = STARTS.get(name, 0.0)
        return starts

    def starter(self, random: np.random.Generator) -> dict[str, Array]:
        """Return weights that were learned from other projects: half of what can be learned, and errors."""
        learned = {}
        for name, task in self.tasks.items():
            errors = random.normal(0.0, 0.35 * task.weights[1:].std(), task.size)
            learned[name] = 0.5 * task.weights + errors
            learned[name][0] = task.weights[0]
        return learned

    def scores(self, weights: Mapping[str, Array]) -> dict[str, float]:
        """Return the score of each task on the held-out examples."""
        return {name: task.score(weights[name], *self.held_out[name]) for name, task in self.tasks.items()}


def draw_world(seed: int, projects: int, only: Collection[str] = tuple(RATES), flakes: float | None = None) -> World:
    """Return the world of a seed with some tasks; each is the same whatever the others are.

    With `flakes` that share of the examples of the flaky task are flakes; without it the intercept is that of 5 %, and
    the other weights decide.
    """
    tasks, held_out = {}, {}
    for number, (name, task) in enumerate(schema().tasks.items()):
        if name not in RATES or name not in only:
            continue
        random = np.random.default_rng([seed, number])
        scale = 1.0 if name in BASE_RATES else 0.3
        weights = np.concatenate([[0.0], random.normal(0, 0.8, FACTS), random.normal(0, 1.2, WORDS[name])]) * scale
        weights[0] = log(BASE_RATES[name] / (1 - BASE_RATES[name])) - 0.3 if name in BASE_RATES else 0.0
        shifts = random.normal(0.0, HETEROGENEITY * scale, projects)
        tasks[name] = SimulatedTask(name, weights, shifts, task.minimum_rows, RATES[name], task.clip)
        if name == "flaky" and flakes is not None:
            _centre(tasks[name], flakes, np.random.default_rng([seed, 99]))
        drawn = [tasks[name].draw(random, project, HELD_OUT // projects) for project in range(projects)]
        held_out[name] = (np.concatenate([rows for rows, _ in drawn]), np.concatenate([labels for _, labels in drawn]))
    return World(tasks, held_out)


def _centre(task: SimulatedTask, share: float, random: np.random.Generator) -> None:
    """Set the intercept so that this share of the labels is 1, in the mean over the projects."""
    count = HELD_OUT // len(task.shifts)
    rows = np.concatenate([task.draw(random, project, count)[0] for project in range(len(task.shifts))])
    outputs = rows @ task.weights - task.weights[0] + np.repeat(task.shifts, count)
    task.weights[0] = brentq(lambda intercept: float(sigmoid(outputs + intercept).mean()) - share, -20.0, 20.0)


def sigmoid(outputs: Array) -> Array:
    """Return the probabilities of these log-odds."""
    return 1.0 / (1.0 + np.exp(-np.clip(outputs, -30, 30)))


def to_floats(weights: Array) -> "array[float]":
    """Return the vector of a message."""
    return array("f", weights.tolist())
