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

from fedstep.features.schema import HEAD_NAMES
from fedstep.history.entry import Row
from fedstep.model.labels import Ripe
from fedstep.model.linear import Local, margin, sigmoid, zeros
from fedstep.model.sgd import NEGLIGIBLE, NEGLIGIBLE_PRIVATE, PACES, learn_local, learn_shared

SIZE = 30
LOG_HEADS = [head for head in HEAD_NAMES if PACES[head].loss == "log_loss"]


def drawn(head: str, count: int, seed: int = 1) -> list[Ripe]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        indices = tuple(sorted(draw.sample(range(SIZE), 4)))
        values = tuple(round(draw.uniform(0.1, 1), 3) for _ in indices)
        label = float(draw.random() < 0.4) if head in LOG_HEADS else draw.gauss(0, 0.5)
        private = (f"test=t{number % 5}", f"class=c{number % 2}")
        rows.append(Ripe(Row(f"t{number}", 0, indices, values, private), label, draw.choice([0.5, 1.0])))
    return rows


def weights(seed: int = 2) -> "array[float]":
    draw = random.Random(seed)
    return array("f", [draw.gauss(0, 0.5) for _ in range(SIZE)])


def by_hand(head: str, start: Sequence[float], rows: Sequence[Ripe], rate: float) -> list[float]:
    """One pass of plain stochastic gradient descent."""
    moved = list(map(float, start))
    for (_, _, indices, values, _, _), label, weight in rows:
        score = sum(moved[index] * value for index, value in zip(indices, values, strict=True))
        if head in LOG_HEADS:
            slope = sigmoid(score) - label
        else:
            slope = math.copysign(1.0, score - label) if score != label else 0.0
        for index, value in zip(indices, values, strict=True):
            moved[index] -= rate * weight * slope * value
    return moved


def dense(rows: Sequence[Ripe]) -> csr_matrix:
    matrix = np.zeros((len(rows), SIZE))
    for number, ripe in enumerate(rows):
        matrix[number, list(ripe.row.indices)] = ripe.row.values
    return csr_matrix(matrix)


class TestScikitLearn:
    @pytest.mark.parametrize("head", HEAD_NAMES)
    def test_prediction_is_scikit_learns_to_twelve_digits(self, head: str) -> None:
        rows = drawn(head, 50)
        coefficients = np.array(weights(), dtype=np.float64)
        if head in LOG_HEADS:
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
        ours = [margin(coefficients.tolist(), ripe.row.indices, ripe.row.values) for ripe in rows]
        assert ours == pytest.approx(theirs, abs=1e-12)

    @pytest.mark.parametrize("head", HEAD_NAMES)
    def test_shared_learning_is_plain_gradient_descent(self, head: str) -> None:
        rows, start = drawn(head, 80), weights()
        learned = learn_shared(head, start, rows)
        assert list(learned) == pytest.approx(by_hand(head, start, rows, PACES[head].shared_rate), abs=1e-6)
        assert learned != start

    @pytest.mark.parametrize("head", HEAD_NAMES)
    def test_learning_changes_nothing_it_is_given(self, head: str) -> None:
        rows, start, local = drawn(head, 20), weights(), Local({3: 0.5}, {"test=t1": 0.25})
        text = repr((rows, start, local))
        learn_shared(head, start, rows)
        learn_local(head, start, local, rows)
        assert repr((rows, start, local)) == text

    @pytest.mark.parametrize("head", HEAD_NAMES)
    def test_learning_goes_on_bit_for_bit_where_it_stopped(self, head: str) -> None:
        rows, start = drawn(head, 60), weights()
        whole = learn_local(head, start, Local(), rows)
        from fedstep.model import sgd

        pace = PACES[head]
        names = [f"{n}" for n in range(SIZE)]
        assert names
        at_once = sgd._fit(pace, 0.05, np.array(start, dtype=np.float64), dense(rows), rows)
        half = sgd._fit(pace, 0.05, np.array(start, dtype=np.float64), dense(rows[:25]), rows[:25])
        again = sgd._fit(pace, 0.05, half, dense(rows[25:]), rows[25:])
        assert again.tobytes() == at_once.tobytes()
        assert whole.shared


class TestLocalWeights:
    def test_private_names_are_not_learned_by_the_shared_head(self) -> None:
        rows = drawn("flaky", 20)
        bare = [ripe._replace(row=ripe.row._replace(private=())) for ripe in rows]
        assert learn_shared("flaky", weights(), rows) == learn_shared("flaky", weights(), bare)

    @pytest.mark.parametrize("head", HEAD_NAMES)
    def test_production_and_local_together_are_the_joint_fit(self, head: str) -> None:
        rows, production, pace = drawn(head, 60), weights(), PACES[head]
        names = sorted({name for ripe in rows for name in ripe.row.private})
        joint_rows = [
            ripe._replace(
                row=ripe.row._replace(
                    indices=(*ripe.row.indices, *(SIZE + names.index(name) for name in ripe.row.private)),
                    values=(*ripe.row.values, 1.0, 1.0),
                )
            )
            for ripe in rows
        ]
        joint = by_hand(head, [*production, *[0.0] * len(names)], joint_rows, pace.local_rate)
        local = learn_local(head, production, Local(), rows)
        for index in range(SIZE):
            moved = (joint[index] - production[index]) * pace.decay
            assert local.shared.get(index, 0.0) == pytest.approx(moved, abs=2 * NEGLIGIBLE)
        for number, name in enumerate(names):
            assert local.private.get(name, 0.0) == pytest.approx(
                joint[SIZE + number] * pace.decay, abs=NEGLIGIBLE_PRIVATE
            )

    def test_local_weights_decay_where_nothing_is_learned(self) -> None:
        untouched = Ripe(Row("t", 0, (1,), (1.0,), ("test=t",)), 1.0)
        local = learn_local("flaky", [0.0] * SIZE, Local({5: 1.0, 6: NEGLIGIBLE}), [untouched])
        assert local.shared[5] == pytest.approx(PACES["flaky"].decay)
        assert 6 not in local.shared

    def test_private_weights_are_kept_by_name(self) -> None:
        first = Ripe(Row("a", 0, (0,), (1.0,), ("test=a", "class=x")), 1.0)
        second = Ripe(Row("b", 0, (0,), (1.0,), ("test=b", "class=x")), 0.0)
        local = learn_local("flaky", [0.0] * SIZE, Local(), [first])
        assert local.private["test=a"] > 0
        later = learn_local("flaky", [0.0] * SIZE, local, [second])
        assert later.private["test=a"] == local.private["test=a"]
        assert later.private["test=b"] < 0
        assert later.private.get("class=x", 0.0) < local.private["class=x"]


class TestNumbers:
    @settings(max_examples=30)
    @given(st.integers(0, 10**6), st.sampled_from(HEAD_NAMES))
    def test_learned_numbers_are_finite(self, seed: int, head: str) -> None:
        """Learned numbers are finite, and rows outside stay untouched."""
        rows = drawn(head, 8, seed)
        learned = learn_shared(head, zeros(SIZE), rows)
        touched = {index for ripe in rows for index in ripe.row.indices}
        assert all(math.isfinite(weight) for weight in learned)
        assert all(learned[index] == 0.0 for index in range(SIZE) if index not in touched)

    @given(st.floats(-1e6, 1e6))
    def test_a_sigmoid_is_a_probability_and_odd_about_a_half(self, score: float) -> None:
        assert 0.0 <= sigmoid(score) <= 1.0
        assert sigmoid(score) + sigmoid(-score) == pytest.approx(1.0)
