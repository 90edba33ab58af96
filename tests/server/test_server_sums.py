"""Lengths and weighted sums, against numpy's in double precision."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedstep.server.sums import RUN, TOGETHER, Part, measured, total, within

SIZE = 5
numbers = st.floats(-1e3, 1e3, width=32)
parts = st.lists(
    st.tuples(arrays(np.float32, SIZE, elements=numbers), st.sampled_from((1.0, 0.5, 3**-0.5))), max_size=80
)


def exact(drawn: list[tuple[np.ndarray, float]]) -> np.ndarray:
    return sum((weight * vector.astype(float) for vector, weight in drawn), np.zeros(SIZE))


def as_parts(drawn: list[tuple[np.ndarray, float]]) -> list[Part]:
    return [Part(vector, weight, measured(vector).length) for vector, weight in drawn]


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
    found = measured(vector)
    assert found.length == pytest.approx(np.linalg.norm(vector.astype(float)), rel=1e-6)
    assert np.abs(vector).max(initial=0.0) <= found.highest <= found.length
