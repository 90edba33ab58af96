"""Facts about learning: it is scikit-learn's, it changes nothing it is given, and local learning is the joint fit."""

import math
import random
from array import array
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDClassifier, SGDRegressor

from fedstep.history.records import Example
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import LocalWeights, margin, sigmoid, zeros
from fedstep.model.training import NEGLIGIBLE, NEGLIGIBLE_PRIVATE, PACES, learn_local, learn_shared
from fedstep.schema.schema import TASK_NAMES

SIZE = 30
LOG_HEADS = [task for task in TASK_NAMES if PACES[task].loss == "log_loss"]


def drawn(task: str, count: int, seed: int = 1) -> list[LabelledExample]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        indices = tuple(sorted(draw.sample(range(SIZE), 4)))
        values = tuple(round(draw.uniform(0.1, 1), 3) for _ in indices)
        label = float(draw.random() < 0.4) if task in LOG_HEADS else draw.gauss(0, 0.5)
        private = (f"test=t{number % 5}", f"class=c{number % 2}")
        rows.append(LabelledExample(Example(f"t{number}", 0, indices, values, private), label, draw.choice([0.5, 1.0])))
    return rows


def weights(seed: int = 2) -> "array[float]":
    draw = random.Random(seed)
    return array("f", [draw.gauss(0, 0.5) for _ in range(SIZE)])


def by_hand(task: str, start: Sequence[float], rows: Sequence[LabelledExample], rate: float) -> list[float]:
    """One pass of plain stochastic gradient descent."""
    moved = list(map(float, start))
    for (_, _, indices, values, _, _), label, weight in rows:
        score = sum(moved[index] * value for index, value in zip(indices, values, strict=True))
        if task in LOG_HEADS:
            slope = sigmoid(score) - label
        else:
            slope = math.copysign(1.0, score - label) if score != label else 0.0
        for index, value in zip(indices, values, strict=True):
            moved[index] -= rate * weight * slope * value
    return moved


def dense(rows: Sequence[LabelledExample]) -> csr_matrix:
    matrix = np.zeros((len(rows), SIZE))
    for number, ripe in enumerate(rows):
        matrix[number, list(ripe.example.indices)] = ripe.example.values
    return csr_matrix(matrix)


class TestScikitLearn:
    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_prediction_is_scikit_learns_to_twelve_digits(self, task: str) -> None:
        rows = drawn(task, 50)
        coefficients = np.array(weights(), dtype=np.float64)
        if task in LOG_HEADS:
            model = SGDClassifier(loss="log_loss", fit_intercept=False)
            model.classes_, model.coef_, model.intercept_ = (
                np.array([0.0, 1.0]),
                coefficients.reshape(1, -1),
                np.zeros(1),
            )
            theirs = model.decision_function(dense(rows))
            chances = model.predict_proba(dense(rows))[:, 1]
            assert [sigmoid(score) for score in theirs] == pytest.approx(chances, abs=1e-12)
        else:
            model = SGDRegressor(fit_intercept=False)
            model.coef_, model.intercept_ = coefficients, np.zeros(1)
            theirs = model.predict(dense(rows))
        ours = [margin(coefficients.tolist(), ripe.example.indices, ripe.example.values) for ripe in rows]
        assert ours == pytest.approx(theirs, abs=1e-12)

    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_shared_learning_is_plain_gradient_descent(self, task: str) -> None:
        rows, start = drawn(task, 80), weights()
        learned = learn_shared(task, start, rows)
        assert list(learned) == pytest.approx(by_hand(task, start, rows, PACES[task].shared_rate), abs=1e-6)
        assert learned != start

    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_learning_changes_nothing_it_is_given(self, task: str) -> None:
        rows, start, local = drawn(task, 20), weights(), LocalWeights({3: 0.5}, {"test=t1": 0.25})
        text = repr((rows, start, local))
        learn_shared(task, start, rows)
        learn_local(task, start, local, rows)
        assert repr((rows, start, local)) == text

    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_learning_goes_on_bit_for_bit_where_it_stopped(self, task: str) -> None:
        rows, start = drawn(task, 60), weights()
        whole = learn_local(task, start, LocalWeights(), rows)
        from fedstep.model import training

        pace = PACES[task]
        names = [f"{n}" for n in range(SIZE)]
        assert names
        at_once = training._fit(pace, 0.05, np.array(start, dtype=np.float64), dense(rows), rows)
        half = training._fit(pace, 0.05, np.array(start, dtype=np.float64), dense(rows[:25]), rows[:25])
        again = training._fit(pace, 0.05, half, dense(rows[25:]), rows[25:])
        assert again.tobytes() == at_once.tobytes()
        assert whole.shared


class TestLocalWeights:
    def test_private_names_are_not_learned_by_the_shared_task(self) -> None:
        rows = drawn("flaky", 20)
        bare = [ripe._replace(example=ripe.example._replace(private=())) for ripe in rows]
        assert learn_shared("flaky", weights(), rows) == learn_shared("flaky", weights(), bare)

    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_production_and_local_together_are_the_joint_fit(self, task: str) -> None:
        rows, production, pace = drawn(task, 60), weights(), PACES[task]
        names = sorted({name for ripe in rows for name in ripe.example.private})
        joint_rows = [
            ripe._replace(
                example=ripe.example._replace(
                    indices=(*ripe.example.indices, *(SIZE + names.index(name) for name in ripe.example.private)),
                    values=(*ripe.example.values, 1.0, 1.0),
                )
            )
            for ripe in rows
        ]
        joint = by_hand(task, [*production, *[0.0] * len(names)], joint_rows, pace.local_rate)
        local = learn_local(task, production, LocalWeights(), rows)
        for index in range(SIZE):
            moved = (joint[index] - production[index]) * pace.decay * pace.trust
            assert local.shared.get(index, 0.0) == pytest.approx(moved, abs=2 * NEGLIGIBLE)
        for number, name in enumerate(names):
            assert local.private.get(name, 0.0) == pytest.approx(
                joint[SIZE + number] * pace.decay * pace.trust, abs=NEGLIGIBLE_PRIVATE
            )

    def test_learning_goes_on_from_all_that_was_learned(self) -> None:
        """Predictions trust a part of the local weights; the next example is learned on top of the whole."""
        task, rows, production = "build-failure", drawn("build-failure", 2), [0.0] * SIZE
        pace, bare = PACES[task], [one._replace(example=one.example._replace(private=())) for one in rows]
        assert pace.trust < 1.0
        local = LocalWeights()
        for one in bare:
            local = learn_local(task, production, local, [one])
        first = [weight * pace.decay for weight in by_hand(task, production, bare[:1], pace.local_rate)]
        second = by_hand(task, first, bare[1:], pace.local_rate)
        for index in range(SIZE):
            wanted = second[index] * pace.decay * pace.trust
            assert local.shared.get(index, 0.0) == pytest.approx(wanted, abs=4 * NEGLIGIBLE)

    def test_local_weights_decay_where_nothing_is_learned(self) -> None:
        untouched = LabelledExample(Example("t", 0, (1,), (1.0,), ("test=t",)), 1.0)
        local = learn_local("flaky", [0.0] * SIZE, LocalWeights({5: 1.0, 6: NEGLIGIBLE}), [untouched])
        assert local.shared[5] == pytest.approx(PACES["flaky"].decay)
        assert 6 not in local.shared

    def test_private_weights_are_kept_by_name(self) -> None:
        first = LabelledExample(Example("a", 0, (0,), (1.0,), ("test=a", "class=x")), 1.0)
        second = LabelledExample(Example("b", 0, (0,), (1.0,), ("test=b", "class=x")), 0.0)
        local = learn_local("flaky", [0.0] * SIZE, LocalWeights(), [first])
        assert local.private["test=a"] > 0
        later = learn_local("flaky", [0.0] * SIZE, local, [second])
        assert later.private["test=a"] == local.private["test=a"]
        assert later.private["test=b"] < 0
        assert later.private.get("class=x", 0.0) < local.private["class=x"]


class TestNumbers:
    @settings(max_examples=30)
    @given(st.integers(0, 10**6), st.sampled_from(TASK_NAMES))
    def test_learned_numbers_are_finite(self, seed: int, task: str) -> None:
        """Learned numbers are finite, and rows outside stay untouched."""
        rows = drawn(task, 8, seed)
        learned = learn_shared(task, zeros(SIZE), rows)
        touched = {index for ripe in rows for index in ripe.example.indices}
        assert all(math.isfinite(weight) for weight in learned)
        assert all(learned[index] == 0.0 for index in range(SIZE) if index not in touched)

    @given(st.floats(-1e6, 1e6))
    def test_a_sigmoid_is_a_probability_and_odd_about_a_half(self, score: float) -> None:
        assert 0.0 <= sigmoid(score) <= 1.0
        assert sigmoid(score) + sigmoid(-score) == pytest.approx(1.0)
