"""Facts about the estimates that are aggregated into one expected duration."""

import math

from hypothesis import given
from hypothesis import strategies as st

from fedstep.features.build_features import compress, expand
from fedstep.model.experts import START, STARTING_WEIGHTS, LogWeights, combine, observe_departure
from fedstep.schema.schema import SparseVector, schema

NAMES = schema().tasks["build-duration"].names()
departures = st.floats(-40.0, 40.0)


def row(**spreads: float) -> SparseVector:
    """The row of a build whose medians depart by so many spreads; "_" stands for "-"."""
    values = {NAMES.index(name.replace("_", "-")): compress(spread) for name, spread in spreads.items()}
    return SparseVector(tuple(sorted(values)), tuple(values[index] for index in sorted(values)))


def after(builds: int, features: SparseVector, departure: float) -> LogWeights:
    weights = START
    for _ in range(builds):
        weights = observe_departure(weights, features, 0.0, departure)
    return weights


class TestExperts:
    def test_starting_weights_are_a_distribution(self) -> None:
        """The starting weights sum to 1, and each expert but the first two is a feature of the task."""
        assert math.isclose(sum(STARTING_WEIGHTS.values()), 1.0)
        assert set(STARTING_WEIGHTS) - {"model", "estimate"} <= set(NAMES)

    def test_the_linear_model_counts_most_without_a_past(self) -> None:
        """At the start the linear model moves the expectation, and one other expert alone hardly does."""
        assert 0.0 < combine(START, row(), 1.0) <= 1.0
        assert abs(combine(START, row(newest=8.0), 0.0)) < 0.5

    def test_a_changed_level_is_followed_within_three_builds(self) -> None:
        """Once the newest builds are at the new level, three more of them turn the expectation there."""
        shifted = row(newest=9.0, last_3=9.0, last_20=1.0)
        assert combine(after(3, shifted, 9.0), shifted, 0.0) > 8.0

    def test_a_single_outlier_is_not_followed(self) -> None:
        """A build that no expert foresaw moves none of them ahead of the others."""
        once = observe_departure(START, row(), 0.0, 30.0)
        assert abs(combine(once, row(newest=9.0, last_3=0.0), 0.0)) < 0.5

    def test_an_absurd_time_counts_like_any_large_miss(self) -> None:
        """Where all are far off, none gains by having been nearer: in a noisy job that happens in every tenth build."""
        features = row(newest=9.0, last_3=-3.0)
        for weight, start in zip(observe_departure(START, features, 0.0, 30.0), START, strict=True):
            assert math.isclose(weight, start, abs_tol=1e-9)

    def test_a_change_of_level_decides_at_once(self) -> None:
        """Where the past was moved to a changed level, the expectation is there, and where none changed it is not."""
        assert combine(START, row(moved=9.0), 0.0) > 6.0
        assert abs(combine(START, row(), 0.0)) < 0.5

    def test_a_change_that_was_none_is_trusted_less(self) -> None:
        """Each time that the new level is wrong it counts less, and a silent expert keeps its weight."""
        assert combine(after(2, row(moved=9.0), 0.0), row(moved=9.0), 0.0) < 1.0
        silent = after(50, row(), 0.0)
        assert combine(silent, row(moved=9.0), 0.0) > 6.0

    def test_a_false_change_is_remembered(self) -> None:
        """However many builds without a change follow: the next one of this job counts as little."""
        weights = after(2, row(moved=9.0), 0.0)
        for _ in range(200):
            weights = observe_departure(weights, row(), 0.0, 0.0)
        assert combine(weights, row(moved=9.0), 0.0) < 1.0

    def test_an_expert_useless_for_long_comes_back(self) -> None:
        """The share that returns to the start keeps each weight above a floor."""
        long = after(500, row(same_running=20.0), 0.0)
        assert min(math.exp(weight) for weight in long) > 1e-4
        assert combine(after(0, row(), 0.0), row(), 0.0) == 0.0

    @given(st.lists(st.tuples(departures, departures, departures), max_size=30), departures)
    def test_the_expectation_lies_between_the_experts(
        self, builds: list[tuple[float, float, float]], margin: float
    ) -> None:
        """Whatever happened, weights stay a distribution, and the median of the experts is one of their span."""
        weights = START
        for newest, kinds, departure in builds:
            weights = observe_departure(weights, row(newest=newest, same_kinds=kinds), margin, departure)
        assert math.isclose(sum(map(math.exp, weights)), 1.0, rel_tol=1e-9)
        expected = combine(weights, row(newest=5.0), margin)
        assert min(0.0, margin) - 1e-9 <= expected <= max(5.0, margin) + 1e-9


class TestCompression:
    @given(st.floats(-50.0, 50.0))
    def test_a_departure_survives_its_compression(self, spreads: float) -> None:
        """`expand` undoes `compress` within its bounds."""
        assert math.isclose(expand(compress(spreads)), spreads, rel_tol=1e-9, abs_tol=1e-9)
