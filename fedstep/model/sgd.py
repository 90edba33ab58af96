"""Learning with scikit-learn's SGD through partial_fit. The only client module that loads scikit-learn."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn import config_context
from sklearn.linear_model import SGDClassifier, SGDRegressor

from fedstep.model.labels import LabelledExample
from fedstep.model.linear import LocalWeights

NEGLIGIBLE = 1e-6  # shared corrections smaller than this are not kept
NEGLIGIBLE_PRIVATE = 1e-3  # nor private weights: each stable test would have one, and `predict` reads all


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The learning constants of one task. `decay` is the factor on local weights after a batch.

    Of what is learned locally predictions count the part `trust`, because a part of it is noise.
    """

    loss: str
    shared_rate: float
    local_rate: float
    decay: float = 0.999
    trust: float = 1.0


PACES: Mapping[str, Hyperparameters] = {
    "flaky": Hyperparameters("log_loss", shared_rate=0.05, local_rate=0.05),
    "triage": Hyperparameters("log_loss", shared_rate=0.005, local_rate=0.002),
    "build-failure": Hyperparameters("log_loss", shared_rate=0.02, local_rate=0.03, decay=0.997, trust=0.7),
    "build-duration": Hyperparameters("epsilon_insensitive", shared_rate=0.001, local_rate=0.01),
}


def learn_shared(task: str, weights: Sequence[float], rows: Sequence[LabelledExample]) -> "array[float]":
    """Return the weights after one pass over the examples, in the given order; private features are ignored."""
    matrix = _matrix([one.example.indices for one in rows], [one.example.values for one in rows], len(weights))
    pace = PACES[task]
    return array("f", _fit(pace, pace.shared_rate, np.array(weights, dtype=np.float64), matrix, rows))


def learn_local(
    task: str, production: Sequence[float], local: LocalWeights, rows: Sequence[LabelledExample]
) -> LocalWeights:
    """Return the local weights after one pass, fitted to the residual of the fixed `production` weights.

    The joint weights start at production + local, as it was before the part `trust` was taken of it; their difference
    from production after the steps is local.
    """
    pace = PACES[task]
    names = sorted({name for one in rows for name in one.example.private})
    columns = {name: len(production) + number for number, name in enumerate(names)}
    shared = np.array(production, dtype=np.float64)
    start = shared.copy()
    for index, value in local.shared.items():
        start[index] += value / pace.trust
    joint = np.concatenate([start, [local.private.get(name, 0.0) / pace.trust for name in names]])
    fitted = _fit(pace, pace.local_rate, joint, _with_private(rows, columns, len(joint)), rows)
    kept = pace.decay * pace.trust
    moved = (fitted[: len(shared)] - shared) * kept
    return LocalWeights(
        {int(index): float(moved[index]) for index in np.flatnonzero(np.abs(moved) > NEGLIGIBLE)},
        _updated(local.private, names, fitted[len(shared) :] * kept),
    )


def _updated(private: Mapping[str, float], names: Sequence[str], values: Any) -> Mapping[str, float]:
    """Return the private weights with new values for these names; the other thousands are not examined."""
    after = dict(private)
    for name, value in zip(names, map(float, values), strict=True):
        if abs(value) > NEGLIGIBLE_PRIVATE:
            after[name] = value
        else:
            after.pop(name, None)
    return after


def _with_private(rows: Sequence[LabelledExample], columns: Mapping[str, int], width: int) -> Any:
    indices = [(*one.example.indices, *(columns[name] for name in one.example.private)) for one in rows]
    values = [(*one.example.values, *(1.0 for _ in one.example.private)) for one in rows]
    return _matrix(indices, values, width)


def _matrix(indices: Sequence[Sequence[int]], values: Sequence[Sequence[float]], width: int) -> Any:
    starts = np.cumsum([0, *(len(row) for row in indices)])
    flat_values = np.array([value for row in values for value in row], dtype=np.float64)
    flat_indices = np.array([index for row in indices for index in row], dtype=np.int32)
    return csr_matrix((flat_values, flat_indices, starts), shape=(len(indices), width))


def _fit(pace: Hyperparameters, rate: float, start: Any, matrix: Any, rows: Sequence[LabelledExample]) -> Any:
    """Return the coefficients after one partial_fit. `start` must be a copy: partial_fit writes into its array.

    No intercept (sparse input scales its step by 0.01; the bias is a feature), no penalty (L2 makes every delta dense),
    a constant rate (the default diverges when every run restarts its clock).
    """
    labels = np.array([one.label for one in rows])
    # Argument checks are most of the cost of a small partial_fit, and these are finite by construction.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return _partial_fit(pace, rate, start, matrix, labels, _weights(rows))


def _weights(rows: Sequence[LabelledExample]) -> Any:
    """Return the weights of the examples; None if all are 1, which spares scikit-learn their validation."""
    weights = [one.weight for one in rows]
    return None if all(weight == 1.0 for weight in weights) else np.array(weights)


def _partial_fit(pace: Hyperparameters, rate: float, start: Any, matrix: Any, labels: Any, weights: Any) -> Any:
    common = {"penalty": None, "fit_intercept": False, "learning_rate": "constant", "eta0": rate, "shuffle": False}
    if pace.loss == "log_loss":
        learner = SGDClassifier(loss="log_loss", **common)
        learner.classes_ = np.array([0.0, 1.0])
        learner.coef_, learner.intercept_ = start.reshape(1, -1).copy(), np.zeros(1)
        learner.partial_fit(matrix, labels, classes=learner.classes_, sample_weight=weights)
        return learner.coef_.ravel()
    learner = SGDRegressor(loss=pace.loss, epsilon=0.0, **common)  # epsilon 0: the absolute error
    learner.coef_, learner.intercept_ = start.copy(), np.zeros(1)
    learner.partial_fit(matrix, labels, sample_weight=weights)
    return learner.coef_.ravel()
