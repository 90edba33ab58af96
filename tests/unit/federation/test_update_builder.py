"""What a runner says of a version on trial, and how it travels."""

import math
from array import array
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.federation.messages import Model, Update, pack_update, unpack_update
from fedstep.federation.update_builder import (
    KEPT,
    SCORE_BOUND,
    kept_batches,
    make_update,
    score_trial,
)
from fedstep.history.records import Example
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import zeros
from fedstep.model.state import ExampleQueue
from fedstep.model.training import PACES, Floats, mean_loss
from fedstep.schema.schema import TASK_NAMES, schema
from tests.helpers.narrow import expect

SIZES = {name: task.size() for name, task in schema().tasks.items()}


def drawn(count: int, label: float = 1.0, weight: float = 1.0) -> tuple[LabelledExample, ...]:
    return tuple(
        LabelledExample(Example(f"t{n}", 0, (0, 1 + n % 3), (1.0, 0.5), ()), label, weight) for n in range(count)
    )


def model(bias: float, **trials: int) -> Model:
    """Production of zeros, and a version that differs in its first coordinate."""
    empty = {name: zeros(size) for name, size in SIZES.items()}
    names = {name.replace("_", "-"): version for name, version in trials.items()}
    snapshots = {name: array("f", [bias]) + zeros(SIZES[name] - 1) for name in names}
    return Model(schema().digest, 9, 3, "2026-01-31T12:00Z", empty, empty, names, snapshots)


def keyed(*parts: str) -> str:
    return f"{len(parts):032x}"


class TestScore:
    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_a_version_that_is_production_scores_nothing(self, task: str) -> None:
        found = score_trial(task, model(0.0, **{task.replace("-", "_"): 7}), drawn(10))
        assert found == (7, 0.0)

    def test_better_version_scores_below_zero_and_a_worse_above(self):
        """A better version scores below zero, and a worse one above."""
        assert score_trial("flaky", model(0.01, flaky=7), drawn(10)).difference < 0
        assert score_trial("flaky", model(-0.01, flaky=7), drawn(10)).difference > 0

    @pytest.mark.parametrize("task", ["flaky", "build-failure"])
    @given(bias=st.floats(-1e30, 1e30), label=st.integers(0, 1))
    def test_a_score_is_between_minus_one_and_one(self, task: str, bias: float, label: int):
        tried = model(bias, **{task.replace("-", "_"): 7})
        assert -1.0 <= score_trial(task, tried, drawn(5, float(label))).difference <= 1.0

    def test_a_score_is_the_weighted_mean_in_units_of_the_bound(self):
        rows = (*drawn(1, 1.0, 1.0), *drawn(1, 0.0, 0.5))
        gain = [math.log1p(math.exp(-0.02)) - math.log(2), math.log1p(math.exp(0.02)) - math.log(2)]
        expected = (gain[0] + 0.5 * gain[1]) / 1.5 / SCORE_BOUND
        assert score_trial("flaky", model(0.02, flaky=7), rows).difference == pytest.approx(expected, rel=1e-4)

    def test_rare_positives_ranked_better_score_better(self):
        """Where positives are rare, a version that ranks them better scores better.

        One example in twenty gains much and the others lose a little: clipped one by one, it would look worse.
        """
        dice = Random(1)
        rows = tuple(
            LabelledExample(Example(f"t{n}", 0, (0, 1), (1.0, float(n % 20 == 0)), ()), float(n % 20 == 0))
            for n in range(100)
        )
        trial = zeros(SIZES["flaky"])
        trial[0], trial[1] = -2.9, 3.0
        before = zeros(SIZES["flaky"])
        before[0] = -3.0
        base = model(0.0, flaky=7)
        better = base._replace(production={**base.production, "flaky": before}, trial={"flaky": trial})
        assert score_trial("flaky", better, dice.sample(rows, 100)).difference < -0.5

    def test_the_loss_of_a_time_is_its_absolute_error(self):
        assert mean_loss("build-duration", np.array([2.0]), np.array([0.5]), np.ones(1)) == 1.5

    @given(st.floats(-1e4, 1e4))
    def test_the_loss_of_a_chance_is_its_log_loss_without_overflow(self, output: float):
        right, wrong = (mean_loss("flaky", np.array([output]), np.array([label]), np.ones(1)) for label in (1.0, 0.0))
        assert right - wrong == pytest.approx(-output, rel=1e-9, abs=1e-9)
        assert min(right, wrong) <= math.log(2)


class TestOwnIntercept:
    """Build failures are evaluated with an intercept of the project, which it learns by itself."""

    def test_better_order_counts_whatever_the_failure_rate_is(self):
        """This project fails twice as often as the others, and a version that foresees more failures is lower for it.

        By its log loss as it is the version would be worse here, only because of the intercept.
        """
        labels = np.array([0.0, 1.0] * 20)
        production, trial = np.zeros(40), np.where(labels == 1.0, -0.8, -1.2)
        assert _mean_difference("flaky", trial, production, labels) > 0
        assert _mean_difference("build-failure", trial, production, labels) < 0

    @pytest.mark.parametrize("shift", [-1.0, -0.3, 0.3, 1.0])
    def test_wrong_intercept_of_a_version_counts(self, shift: float):
        """A version whose intercept is wrong in all projects is worse in each, though less so than by its log loss."""
        labels = np.array([0.0, 0.0, 0.0, 1.0] * 20)
        production = np.full(80, -math.log(3))
        plain, own = (
            _mean_difference(task, production + shift, production, labels) for task in ("flaky", "build-failure")
        )
        assert plain / 25 < own < plain

    def test_intercept_is_the_most_likely_one(self):
        """No other intercept has a lower loss together with its penalty."""
        dice = np.random.default_rng(1)
        outputs, labels, weights = dice.normal(size=30), (dice.random(30) < 0.8) * 1.0, dice.random(30)
        precision = PACES["build-failure"].own_intercept ** -2
        losses = [
            mean_loss("flaky", outputs + intercept, labels, weights) + precision * intercept**2 / 2 / weights.sum()
            for intercept in np.linspace(-2.0, 2.0, 401)
        ]
        assert mean_loss("build-failure", outputs, labels, weights) == pytest.approx(min(losses), abs=1e-5)


def _mean_difference(task: str, trial: Floats, production: Floats, labels: Floats) -> float:
    after, before = (mean_loss(task, outputs, labels, np.ones(len(labels))) for outputs in (trial, production))
    return after - before


class TestUpdate:
    def test_update_scores_the_tasks_on_trial_on_unlearned_examples(self):
        """An update scores the tasks on trial, and no others, with what it has not learned."""
        backlog = ExampleQueue(waiting={"flaky": drawn(50), "build-failure": drawn(8)})
        tried = model(0.05, flaky=7)
        update, left = make_update(backlog, tried, keyed)
        made = expect(Update, update)
        assert made.scores == {"flaky": score_trial("flaky", tried, drawn(50))}
        assert unpack_update(pack_update(made)) == made
        assert left.waiting == {"flaky": (), "build-failure": ()}

    def test_without_a_trial_an_update_has_no_score(self):
        update, _ = make_update(ExampleQueue(waiting={"flaky": drawn(50)}), model(0.0), keyed)
        made = expect(Update, update)
        assert made.scores == {}
        assert len(unpack_update(pack_update(made)).deltas["flaky"]) == SIZES["flaky"]

    def test_version_on_trial_does_not_change_what_is_learned(self):
        """The version on trial changes nothing of what is learned."""
        backlog = ExampleQueue(waiting={"flaky": drawn(50)})
        plain, tried = (
            expect(Update, make_update(backlog, one, keyed)[0]) for one in (model(0.0), model(3.0, flaky=7))
        )
        assert plain.deltas == tried.deltas


class TestSentExamples:
    """What was sent before tells of a version on trial, too, where production and the trial have learned it alike."""

    def test_examples_that_production_has_learned_count(self):
        """A trial of later than these examples became production: it has learned them, and so has the next trial."""
        before, now = _queue_after(model(0.5)), model(0.05, flaky=7)
        now = now._replace(production={**now.production, "flaky": model(-0.1, flaky=3).trial["flaky"]})
        made = expect(Update, make_update(_refilled(before, label=0.0), now, keyed)[0])
        both = (*drawn(50), *drawn(50, label=0.0))
        assert made.scores == {"flaky": score_trial("flaky", now, both)}
        assert made.examples == {"flaky": 32}

    @pytest.mark.parametrize("promoted", [False, True])
    def test_examples_that_the_trial_alone_has_learned_do_not(self, promoted: bool):
        """Production is as old as then, or was on trial then: on what it alone has learned, a trial seems better."""
        then = model(0.5, flaky=3)
        before, now = _queue_after(then), model(0.05, flaky=7)
        if promoted:
            now = now._replace(production={**now.production, "flaky": then.trial["flaky"]})
        made = expect(Update, make_update(_refilled(before, label=0.0), now, keyed)[0])
        assert made.scores == {"flaky": score_trial("flaky", now, drawn(50, label=0.0))}

    def test_what_is_kept_is_bounded_and_has_no_names(self):
        """The newest batches are kept, and of a long one its newest examples."""
        queue = ExampleQueue()
        for number in range(12):
            queue = _queue_after(model(0.0), _refilled(queue, label=float(number % 2)))
        kept = [one for batch in queue.sent["flaky"] for one in batch.examples]
        assert [one.label for one in kept] == ([0.0] * 50 + [1.0] * 50) * (KEPT // 2)
        assert {(one.example.subject, one.example.run, one.example.private) for one in kept} == {("", 0, ())}
        long = ExampleQueue(waiting={"flaky": (*drawn(100, 0.0), *drawn(100, 1.0))}, sent=queue.sent)
        assert [one.label for one in _queue_after(model(0.0), long).sent["flaky"][-1].examples] == [1.0] * 100

    def test_of_small_batches_more_are_kept(self):
        """A batch of build failures has eight builds, and eight of them tell little."""
        queue = ExampleQueue()
        for _ in range(30):
            queue = _queue_after(model(0.0), queue._replace(waiting={"build-failure": drawn(8)}))
        assert len(queue.sent["build-failure"]) == kept_batches("build-failure") == 3 * KEPT

    def test_rare_words_are_not_kept(self):
        """What a batch did not reveal when it was sent is not revealed by a later evaluation."""
        word = _word_column()
        rare = [one._replace(example=one.example._replace(indices=(0, word), values=(1.0, 1.0))) for one in drawn(2)]
        queue = _queue_after(model(0.0), ExampleQueue(waiting={"flaky": (*rare, *drawn(60)[2:])}))
        assert all(word not in one.example.indices for batch in queue.sent["flaky"] for one in batch.examples)


def _queue_after(shared: Model, queue: ExampleQueue | None = None) -> ExampleQueue:
    """Return the queue once what waits was sent; by default a batch of positive examples."""
    update, left = make_update(queue or _refilled(ExampleQueue(), label=1.0), shared, keyed)
    expect(Update, update)
    return left


def _refilled(queue: ExampleQueue, label: float) -> ExampleQueue:
    named = tuple(one._replace(example=one.example._replace(private=("class=A",))) for one in drawn(50, label))
    return queue._replace(waiting={"flaky": named})


def _word_column() -> int:
    start, _ = schema().tasks["flaky"].word_lists()[0]
    return start
