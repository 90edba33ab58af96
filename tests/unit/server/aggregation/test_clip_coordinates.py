"""What sticks out, against the rule written plainly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedstep.server.aggregation.fedbuff import clip_coordinates
from fedstep.server.aggregation.vectors import BLOCK, MIN_ROWS, DeltaBatch, GroupIndex, index_names

SIZE, MOST = 4, 0.25
LONG = BLOCK // MIN_ROWS + 1
values = st.sampled_from((0.0, 0.1, -0.125, 0.2, 0.5, -0.75, 2.0, -6.0))
deltas = st.lists(
    st.tuples(st.sampled_from("abcdef"), arrays(np.float32, SIZE, elements=values), st.sampled_from((1.0, 0.5))),
    min_size=1,
    max_size=40,
)


def plainly(rows: np.ndarray, names: list[str]) -> np.ndarray:
    """Each coordinate at most `MOST`, or three times its median over the projects, in double precision."""
    largest = [np.abs(rows[[own == name for own in names]]).max(axis=0) for name in dict.fromkeys(names)]
    limits = np.maximum(MOST, 3.0 * np.median(largest, axis=0))
    clipped: np.ndarray = np.clip(rows, -limits, limits)
    return clipped


def taken(vectors: list[np.ndarray], names: list[str], scales: np.ndarray) -> np.ndarray:
    batch = DeltaBatch.of(vectors, np.ones(len(vectors)))
    batch = batch._replace(scales=scales, norms=batch.norms * scales, peaks=batch.peaks * scales)
    found = clip_coordinates(batch, GroupIndex.of(index_names(names)), MOST)
    return np.array([found.select(np.array([number])).weighted_sum(np.ones(1)) for number in range(len(vectors))])


class TestClipCoordinates:
    @given(deltas)
    def test_what_is_taken_is_what_the_rule_leaves(self, drawn):
        names, vectors, scales = ([row[column] for row in drawn] for column in range(3))
        expected = plainly(np.array(vectors, float) * np.array(scales)[:, np.newaxis], names)
        np.testing.assert_allclose(taken(vectors, names, np.array(scales)), expected, atol=1e-6)

    @pytest.mark.parametrize("common", [0.0, 0.2])
    def test_a_long_delta_is_cut_like_a_short_one(self, common):
        vectors = [np.zeros(LONG, np.float32) for _ in range(5)]
        for vector in vectors:
            vector[7] = common
        vectors[2][7] = 2.0
        expected = plainly(np.array(vectors, float), list("abcde"))
        np.testing.assert_allclose(taken(vectors, list("abcde"), np.ones(5)), expected, atol=1e-6)

    def test_where_nothing_sticks_out_the_deltas_are_themselves(self):
        batch = DeltaBatch.of([np.full(SIZE, 0.1, np.float32)] * 5, np.ones(5))
        assert clip_coordinates(batch, GroupIndex.of(index_names("abcde")), MOST) is batch
