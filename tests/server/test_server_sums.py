"""Lengths and weighted sums, against numpy's in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedstep.server.sums import ROOM, RUN, TOGETHER, Groups, Part, blocks, total, within

SIZE = 5
numbers = st.floats(-1e3, 1e3, width=32)
parts = st.lists(
    st.tuples(arrays(np.float32, SIZE, elements=numbers), st.sampled_from((1.0, 0.5, 3**-0.5))), max_size=80
)


def exact(drawn: list[tuple[np.ndarray, float]]) -> np.ndarray:
    return sum((weight * vector.astype(float) for vector, weight in drawn), np.zeros(SIZE))


def as_parts(drawn: list[tuple[np.ndarray, float]]) -> list[Part]:
    return [Part(vector, weight, float(np.linalg.norm(vector.astype(float)))) for vector, weight in drawn]


@given(parts)
def test_a_sum_is_that_of_double_precision_to_six_digits_of_its_largest_part(drawn):
    found = total(as_parts(drawn), SIZE)
    most = max((float(np.abs(vector).max()) for vector, _ in drawn), default=0.0)
    np.testing.assert_allclose(found, exact(drawn), atol=1e-6 * most * len(drawn))


def test_more_vectors_than_are_summed_together_are_all_in_the_sum():
    ones = [Part(np.ones(SIZE, np.float32), 0.5, SIZE**0.5)] * (2 * TOGETHER + 1)
    np.testing.assert_array_equal(total(ones, SIZE), np.full(SIZE, TOGETHER + 0.5))


@given(parts.filter(len), st.floats(1e-3, 1e3))
def test_what_is_shrunk_is_as_long_as_it_may_be_and_points_where_it_did(drawn, most):
    whole, shrunk = exact(drawn), total(within(as_parts(drawn), most), SIZE)
    length, longest = np.linalg.norm(whole), max(np.linalg.norm(vector) for vector, _ in drawn)
    assert np.linalg.norm(shrunk) <= most * (1 + 1e-5)
    np.testing.assert_allclose(shrunk, whole * min(1.0, most / max(length, most)), atol=1e-5 * longest * len(drawn))


def test_parts_that_cannot_be_too_long_stay_as_they_are():
    together = as_parts([(np.ones(SIZE, np.float32), 0.5), (-np.ones(SIZE, np.float32), 0.5)])
    assert within(together, SIZE**0.5 + 1e-6) is together
    assert within(together, SIZE**0.5 - 1e-3) is not together


@pytest.mark.parametrize("size", [0, 1, RUN - 1, RUN, RUN + 1, 3 * RUN + 7])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e18, 1e30])
def test_a_length_has_six_digits_and_no_coordinate_is_above_the_highest(size, scale):
    vector = (np.random.default_rng(size).normal(0, 1, size) * scale).astype(np.float32)
    (found,) = blocks([vector])
    assert found.lengths[0] == pytest.approx(np.linalg.norm(vector.astype(float)), rel=1e-6)
    assert np.abs(vector).max(initial=0.0) <= found.highest[0] <= 1.0001 * found.lengths[0]


@pytest.mark.parametrize("size", [1, 100, ROOM // 2 - 1, ROOM])
def test_vectors_in_blocks_are_the_same_in_the_same_order_and_each_is_measured_as_if_it_were_alone(size):
    vectors = np.random.default_rng(size).normal(0, 1, (9 if size > 100 else 1500, size)).astype(np.float32)
    found = blocks(list(vectors))
    assert len(found) > 1 or size == 1
    np.testing.assert_array_equal(np.concatenate([block.rows for block in found]), vectors)
    alone = [blocks([vector])[0] for vector in vectors]
    together = np.concatenate([block.lengths for block in found])
    np.testing.assert_allclose(together, [one.lengths[0] for one in alone], rtol=1e-6)


def test_a_vector_that_fills_a_block_is_not_copied():
    vector = np.ones(ROOM, np.float32)
    assert np.shares_memory(blocks([vector, vector])[1].rows, vector)


@given(st.lists(st.tuples(st.sampled_from("abc"), numbers, numbers), min_size=1, max_size=20))
def test_the_largest_of_a_group_is_that_of_its_members_in_each_column(drawn):
    values = np.array([row[1:] for row in drawn])
    found = Groups.of(name for name, *_ in drawn).largest(values)
    named = dict.fromkeys(name for name, *_ in drawn)
    expected = [values[[row[0] == name for row in drawn]].max(axis=0) for name in named]
    np.testing.assert_array_equal(found, expected)
