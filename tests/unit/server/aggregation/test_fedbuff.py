"""The aggregation of deltas, against the same rules written step by step in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.server.aggregation.fedbuff import AggregationRules, TaskDelta, aggregate, update_mean
from fedstep.server.aggregation.vectors import BLOCK, GROUP_ROWS, MIN_ROWS, RUN, DeltaBatch, _blocks, compute_norms
from tests.helpers.reference_aggregation import aggregate_plainly

LONG = BLOCK // MIN_ROWS + 1
SIZES = [1, 40, RUN, RUN + 1, LONG]


def draw_task_deltas(seed: int, count: int, size: int) -> list[TaskDelta]:
    """Return deltas of uneven length, some with large coordinates and some of zeros, of few owners and projects."""
    dice = np.random.default_rng(seed)
    deltas = dice.standard_normal((count, size)) / np.sqrt(size) * dice.lognormal(-0.5, 0.7, (count, 1))
    large = dice.random((count, size)) < min(0.2, 8 / size)
    deltas[large] += dice.normal(0, 0.5, large.sum())
    deltas[dice.random(count) < 0.1] = 0.0
    return [
        TaskDelta(f"{row:04}", f"p{dice.integers(12)}", int(dice.integers(4)), delta, str(dice.choice(["", "a"])))
        for row, delta in enumerate(deltas.astype(np.float32))
    ]


class TestAggregate:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(SIZES), st.sampled_from([3.0, np.inf]))
    def test_agrees_with_the_rules_in_double_precision(self, seed, count, size, together):
        """To the rounding of float32 deltas, factors and sums: five digits of what the deltas are together."""
        task_deltas = draw_task_deltas(seed, count, size)
        task = np.linspace(-1, 1, size).astype(np.float32)
        rules = AggregationRules(clip=1.0, rate=0.7, decay=0.01, projects_per_owner=2.0, together=together)
        expected = aggregate_plainly(task, task_deltas, rules)
        np.testing.assert_allclose(aggregate(task, task_deltas, rules), expected, atol=1e-5 * (1 + count / 4))

    @pytest.mark.parametrize("size", SIZES)
    def test_order_of_arrival_does_not_matter_bit_for_bit(self, size):
        task_deltas = draw_task_deltas(size, 50, size)
        task, rules = np.zeros(size, np.float32), AggregationRules(clip=1.0)
        expected = aggregate(task, task_deltas, rules)
        assert aggregate(task, task_deltas[::-1], rules).tobytes() == expected.tobytes()

    @pytest.mark.parametrize("size", SIZES)
    def test_leaves_the_deltas_unchanged(self, size):
        task_deltas = draw_task_deltas(size, 30, size)
        before = [one.delta.copy() for one in task_deltas]
        aggregate(np.zeros(size, np.float32), task_deltas, AggregationRules(clip=0.5))
        np.testing.assert_array_equal([one.delta for one in task_deltas], before)


class TestComputeNorms:
    @pytest.mark.parametrize("size", [0, *SIZES])
    @pytest.mark.parametrize("scale", [1e-15, 1.0, 1e18, 1e30])
    def test_has_six_digits_and_bounds_every_coordinate(self, size, scale):
        delta = (np.random.default_rng(size).normal(0, 1, size) * scale).astype(np.float32)
        norms, peaks, _ = compute_norms([delta, delta], np.ones(2))
        assert norms[1] == pytest.approx(np.linalg.norm(delta.astype(float)), rel=1e-6)
        assert np.abs(delta).max(initial=0.0) <= peaks[1] <= 1.0001 * norms[1]

    @pytest.mark.parametrize("size", [100, LONG])
    def test_measures_each_delta_as_if_it_were_alone(self, size):
        deltas = list(np.random.default_rng(size).normal(0, 1, (40, size)).astype(np.float32))
        alone = [compute_norms([delta], np.ones(1))[0][0] for delta in deltas]
        np.testing.assert_allclose(compute_norms(deltas, np.ones(40))[0], alone, rtol=1e-6)


class TestUpdateMean:
    def test_of_noisy_vectors_is_nearer_to_what_they_scatter_around(self):
        """A constant rate leaves noise in each vector, and the mean of many has little of it."""
        draw, mean = np.random.default_rng(3), np.zeros(50, np.float32)
        for version in range(1, 401):
            vector = (1.0 + draw.normal(0, 1, 50)).astype(np.float32)
            mean = update_mean(mean, vector, version, 1000)
        assert np.linalg.norm(mean - 1.0) < 0.2 * np.linalg.norm(vector - 1.0)

    def test_the_first_version_replaces_the_start(self):
        start, first = np.full(3, 9.0, np.float32), np.ones(3, np.float32)
        np.testing.assert_array_equal(update_mean(start, first, 1, 1000), first)

    @pytest.mark.parametrize("version", [2000, 100_000])
    def test_follows_within_its_window_however_many_versions(self, version):
        mean, changed = np.zeros(1, np.float32), np.ones(1, np.float32)
        for number in range(version, version + 300):
            mean = update_mean(mean, changed, number, 100)
        assert mean[0] > 0.9

    def test_of_one_aggregation_is_the_vector(self):
        task = np.array([0.1, 0.7], np.float32)
        assert update_mean(np.zeros(2, np.float32), task, 5, 1) is task


class TestPartialSums:
    def test_long_rows_of_equal_weight_are_summed_in_groups(self):
        weights = np.array([1.0] * (GROUP_ROWS + 2) + [0.5] * 3)
        deltas = list(np.random.default_rng(0).normal(0, 1, (len(weights), LONG)).astype(np.float32))
        found = DeltaBatch.of(deltas, weights).partial_sums
        assert [(group.start, group.stop) for group in found.groups] == [(0, 32), (32, 34), (34, 37)]
        for group, total in zip(found.groups, found.totals, strict=True):
            np.testing.assert_allclose(total, np.sum(deltas[group], axis=0, dtype=float), atol=1e-4)

    def test_short_rows_have_none(self):
        assert DeltaBatch.of([np.ones(100, np.float32)] * 9, np.ones(9)).partial_sums.groups == ()

    def test_counts_only_where_all_rows_have_one_factor(self):
        deltas = [np.full(LONG, value, np.float32) for value in (1, 2, 4)]
        batch = DeltaBatch.of(deltas, np.ones(3))
        np.testing.assert_array_equal(batch.weighted_sum(np.full(3, 0.5)), np.full(LONG, 3.5))
        np.testing.assert_array_equal(batch.weighted_sum(np.array([0.5, 1.0, 1.0])), np.full(LONG, 6.5))


class TestWeightedSum:
    @pytest.mark.parametrize("size", SIZES)
    def test_of_more_rows_than_a_block_has_counts_each(self, size):
        batch = DeltaBatch.of([np.ones(size, np.float32)] * 300, np.ones(300))
        np.testing.assert_array_equal(batch.weighted_sum(np.full(300, 0.5)), np.full(size, 150))

    @pytest.mark.parametrize("size", SIZES)
    def test_of_selected_rows_is_that_of_all_with_zeros(self, size):
        deltas = [one.delta for one in draw_task_deltas(size, 30, size)]
        batch, weights = DeltaBatch.of(deltas, np.ones(30)).clip_norms(0.5), np.zeros(30)
        selected = np.array([1, 4, 29])
        weights[selected] = 0.5
        some = batch.select(selected).weighted_sum(np.full(3, 0.5))
        np.testing.assert_allclose(some, batch.weighted_sum(weights), atol=1e-6)

    @pytest.mark.parametrize("size", SIZES)
    def test_counts_replaced_values_instead_of_the_old_ones(self, size):
        batch = DeltaBatch.of([np.full(size, 8.0, np.float32)] * 2, np.ones(2))._replace(scales=np.array([0.5, 1.0]))
        changed = batch.replace(np.array([0]), np.array([0]), np.array([3.0]))
        assert changed.weighted_sum(np.array([2.0, 1.0]))[0] == 2 * 3 + 8
        assert batch.weighted_sum(np.array([2.0, 1.0]))[0] == 2 * 4 + 8


class TestBlocks:
    @pytest.mark.parametrize("size", [1, 40, LONG])
    def test_have_every_row_once_and_in_order(self, size: int) -> None:
        """What is copied together for speed stays in the order in which it was given."""
        rows = np.random.default_rng(size).normal(0, 1, (9 if size > 100 else 1500, size)).astype(np.float32)
        blocks = list(_blocks(list(rows)))
        assert len(blocks) > 1
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), rows)
        assert [index for group, _ in blocks for index in range(group.start, group.stop)] == list(range(len(rows)))

    def test_a_long_row_is_not_copied(self) -> None:
        """To copy it would take a second pass over the memory."""
        row = np.ones(LONG, np.float32)
        assert all(np.shares_memory(block, row) for _, block in _blocks([row, row]))
