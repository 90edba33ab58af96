"""Lengths, and sums made on the way, against numpy's in double precision."""

import numpy as np
import pytest

from fedstep.server.measured import RUN, measured
from fedstep.server.sums import FEW, ROOM, TOGETHER

LONG = ROOM // FEW + 1


def drawn(count: int, size: int, length: float = 1.0) -> list[np.ndarray]:
    found = np.random.default_rng(size).normal(0, 1, (count, size))
    return list((length * found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32))


@pytest.mark.parametrize("size", [0, 1, RUN - 1, RUN, RUN + 1, 3 * RUN + 7, LONG])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e18, 1e30])
def test_a_length_has_six_digits_and_no_coordinate_is_above_the_highest(size, scale):
    vector = (np.random.default_rng(size).normal(0, 1, size) * scale).astype(np.float32)
    found = measured([vector, vector], np.ones(2), 1.0, 2.0)
    assert found.lengths[1] == pytest.approx(np.linalg.norm(vector.astype(float)), rel=1e-6)
    assert np.abs(vector).max(initial=0.0) <= found.highest[1] <= 1.0001 * found.lengths[1]


@pytest.mark.parametrize("size", [100, LONG])
def test_each_vector_is_measured_as_if_it_were_alone(size):
    vectors = drawn(40, size)
    alone = [measured([vector], np.ones(1), 1.0, 2.0).lengths[0] for vector in vectors]
    np.testing.assert_allclose(measured(vectors, np.ones(40), 1.0, 2.0).lengths, alone, rtol=1e-6)


def test_long_vectors_of_a_kind_are_summed_while_they_are_measured():
    vectors, kinds = drawn(2 * TOGETHER, LONG), np.repeat([1.0, 0.5], TOGETHER)
    kinds[0] = 2.0
    heaps = measured(vectors, kinds, 1.1, 2.0).heaps
    assert [(places[0], len(places)) for places in heaps.places] == [(0, 1), (1, TOGETHER - 1), (TOGETHER, TOGETHER)]
    for places, total in zip(heaps.places, heaps.totals, strict=True):
        np.testing.assert_allclose(total, np.sum([vectors[place].astype(float) for place in places], 0), atol=1e-6)


def test_no_more_vectors_are_in_a_heap_than_rounding_allows():
    heaps = measured(drawn(TOGETHER + 2, LONG), np.ones(TOGETHER + 2), 1.1, 2.0).heaps
    assert [len(places) for places in heaps.places] == [TOGETHER, 2]


def test_vectors_that_are_longer_than_they_may_be_are_in_no_heap():
    vectors = drawn(9, LONG)
    vectors[3] = 3.0 * vectors[3]
    vectors[5] = np.full(LONG, 3e38, np.float32)
    ours = [0, 1, 2, 4, 6, 7, 8]
    for most in (1.1, 100.0):
        assert measured(vectors, np.ones(9), most, 2.0).heaps.places == [ours]


def test_a_kind_that_comes_again_after_a_long_vector_begins_no_heap_of_another_kind():
    vectors, kinds = drawn(3, LONG), np.array([1.0, 0.5, 0.5])
    vectors[1] = 9.0 * vectors[1]
    assert measured(vectors, kinds, 1.1, 2.0).heaps.places == [[0], [2]]


def test_short_vectors_are_summed_later():
    assert measured(drawn(9, 100), np.ones(9), 1.1, 2.0).heaps.places == ()
