"""Weighted sums, against numpy's in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedstep.server.sums import FEW, ROOM, TOGETHER, Cuts, Heaps, Rows, stacked

SIZE = 5
numbers = st.floats(-1e3, 1e3, width=32)
drawn_parts = st.lists(
    st.tuples(arrays(np.float32, SIZE, elements=numbers), st.sampled_from((1.0, 0.5, 3**-0.5, 0.0))),
    min_size=1,
    max_size=80,
)


def rows_of(vectors: list[np.ndarray], scales=None, **more) -> Rows:
    lengths = np.array([np.linalg.norm(vector.astype(float)) for vector in vectors])
    scales = np.ones(len(vectors)) if scales is None else np.array(scales)
    return Rows(vectors, stacked(vectors), lengths, lengths, scales, **more)


def exact(vectors, weights) -> np.ndarray:
    return sum(weight * vector.astype(float) for vector, weight in zip(vectors, weights, strict=True))


@given(drawn_parts)
def test_a_sum_is_that_of_double_precision_to_six_digits_of_its_largest_part(drawn):
    vectors, weights = [vector for vector, _ in drawn], np.array([weight for _, weight in drawn])
    most = max(float(np.abs(vector).max()) for vector in vectors)
    least = float(np.finfo(np.float32).smallest_subnormal)  # half of it has no digits at all
    np.testing.assert_allclose(
        rows_of(vectors).total(weights), exact(vectors, weights), atol=(1e-6 * most + least) * len(vectors)
    )


@given(drawn_parts, st.data())
def test_the_sum_of_some_is_that_of_all_when_the_others_weigh_nothing(drawn, more):
    vectors, scales = [vector for vector, _ in drawn], [weight for _, weight in drawn]
    chosen = np.array(more.draw(st.lists(st.sampled_from(range(len(drawn))), min_size=1, unique=True)))
    cut = Cuts(np.array([0]), np.array([2]), vectors[0][2:3], np.array([0.25]))
    rows, weights = rows_of(vectors, scales, cuts=cut), np.zeros(len(drawn))
    weights[chosen] = 1.0
    some = rows.some(chosen).total(np.ones(len(chosen)))
    np.testing.assert_allclose(some, rows.total(weights), atol=1e-2)


@pytest.mark.parametrize("size", [SIZE, 2 * ROOM // FEW])
def test_more_vectors_than_are_summed_together_are_all_in_the_sum(size):
    count = 2 * TOGETHER + 1
    found = rows_of([np.ones(size, np.float32)] * count).total(np.full(count, 0.5))
    np.testing.assert_array_equal(found, np.full(size, count / 2))


def test_a_heap_counts_only_where_all_its_vectors_are_taken_equally_often():
    vectors = [np.full(SIZE, number, np.float32) for number in (1, 2, 4)]
    rows = rows_of(vectors, heaps=Heaps([[0, 2]], np.full((1, SIZE), 100, np.float32)))
    np.testing.assert_array_equal(rows.total(np.array([0.5, 1.0, 0.5])), np.full(SIZE, 52))
    np.testing.assert_array_equal(rows.total(np.array([0.5, 1.0, 1.0])), np.full(SIZE, 6.5))


def test_of_what_is_cut_the_rest_is_taken_however_often_the_vector_is():
    vectors = [np.array([8, 1, 0, 0, 0], np.float32), np.array([1, 1, 0, 0, 0], np.float32)]
    rows = rows_of(vectors, [0.5, 1.0], cuts=Cuts(np.array([0]), np.array([0]), vectors[0][:1], np.array([3.0])))
    np.testing.assert_array_equal(rows.total(np.array([2.0, 1.0])), [7, 2, 0, 0, 0])


@pytest.mark.parametrize("size", [1, 100, ROOM // FEW, ROOM // FEW + 1, ROOM])
def test_vectors_in_stacks_are_the_same_in_the_same_order(size):
    vectors = np.random.default_rng(size).normal(0, 1, (9 if size > 100 else 1500, size)).astype(np.float32)
    found = stacked(list(vectors))
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found), vectors)


def test_a_long_vector_is_not_copied():
    vector = np.ones(ROOM, np.float32)
    assert np.shares_memory(stacked([vector, vector])[1], vector)
