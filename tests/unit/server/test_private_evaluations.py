"""The gate under differential privacy: every evaluation is heard, however long the deltas beside it are.

All figures: python -m tests.benchmarks.gate.
"""

from array import array
from math import sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedstep.federation.messages import TrialScore, pack_update
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, CurrentModels, ModelVersion, StoredUpdate, Trial
from fedstep.server.aggregation.step import to_numpy
from fedstep.server.differential_privacy import (
    EVALUATION_SIZE,
    GRID,
    LIFE,
    GaussianNoise,
    clip_and_concatenate,
    next_private_version,
    round_to_grid,
)
from fedstep.server.gate import Gate
from tests.benchmarks.gate import noised_rates, normal

RULES = {"flaky": AggregationRules(1.0, decay=0.0), "build-duration": AggregationRules(0.2, decay=0.0)}
SIZES = {"flaky": 5, "build-duration": 3}
SHARE = LIFE / 52
NOISE = GaussianNoise(1e-7, Random(1).randrange, SHARE)  # less than a step of the grid
BOTH = ("flaky", "build-duration")
deltas_of = arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6, allow_subnormal=False))
saying = st.lists(st.one_of(st.none(), st.floats(-1.0, 1.0)), min_size=4, max_size=4)  # of four tasks


def votes_of(said: list[float | None]) -> np.ndarray:
    return EVALUATION_SIZE * np.array(
        [one for value in said for one in ((0.0, 0.0) if value is None else (1.0, value))]
    )


def moment_of(*buffered: StoredUpdate) -> AggregationInput:
    """Version 4, both tasks on trial as version 3."""
    zeros = {name: array("f", [0.0] * size) for name, size in SIZES.items()}
    task = ModelVersion(4, 0, 1000.0, zeros, dict.fromkeys(SIZES, 0))
    trials = {name: Trial(name, 3, 0, 900.0, array("f", [0.1] * size)) for name, size in SIZES.items()}
    return AggregationInput(CurrentModels(task, zeros, trials), 5, {}, {}, 2000.0, buffered, {})


def stored(update, number: int, differences: tuple[float, ...] = (), owner: str = "", **changes) -> StoredUpdate:
    """An update whose deltas are as long as their bounds, nineteen times what a release has room for."""
    scores = {name: TrialScore(3, value) for name, value in zip(BOTH, differences, strict=False)}
    return StoredUpdate(pack_update(update(number, base=4, scores=scores, **changes)), owner)


def moved(made) -> float:
    """How far all tasks moved together, in units of a project's bound."""
    units = [to_numpy(made.version.vectors[name]) / (SHARE * RULES[name].clip) for name in BOTH]
    return float(np.linalg.norm(np.concatenate(units)))


class TestBound:
    @given(deltas_of, saying)
    def test_project_with_evaluations_stays_within_its_bound(self, deltas, said):
        """No project is longer than its bound with its evaluations, and on the grid."""
        vector = clip_and_concatenate(deltas, votes_of(said))
        steps = round_to_grid(vector)
        assert np.linalg.norm(vector) <= 1.0 + 1e-12
        assert sum(int(step) ** 2 for step in steps) <= GRID**2

    @given(deltas_of, saying)
    def test_an_evaluation_is_as_long_beside_any_delta_as_alone(self, deltas, said):
        votes = votes_of(said)
        assert (
            np.abs(round_to_grid(clip_and_concatenate(deltas, votes))[-len(votes) :] - votes * GRID).max() < 2.0
        )  # steps

    @given(deltas_of, saying)
    def test_deltas_keep_direction_and_lose_what_evaluations_take(self, deltas, said):
        """Deltas keep their direction and lose no more than the evaluations take."""
        votes, length = votes_of(said), float(np.linalg.norm(deltas))
        left = clip_and_concatenate(deltas, votes)[: len(deltas)]
        assert np.linalg.norm(left) == pytest.approx(min(length, sqrt(1.0 - votes @ votes)), abs=1e-9)
        assert left @ deltas == pytest.approx(np.linalg.norm(left) * length, rel=1e-6, abs=1e-9)

    def test_a_hundred_voters_at_the_bound_count_as_a_hundred(self, update):
        """A hundred evaluators with deltas at the bound are counted as a hundred."""
        voters = [stored(update, number, (0.1, -0.1)) for number in range(1, 101)]
        told = next_private_version(moment_of(*voters), RULES, Gate(), NOISE).releases
        assert [told[name].count for name in BOTH] == pytest.approx([100.0, 100.0], abs=1e-2)
        assert [told[name].total for name in BOTH] == pytest.approx([50.0, -50.0], abs=1e-2)

    @pytest.mark.parametrize(("differences", "taken"), [((), 0.0), ((0.2,), 2.0), ((0.2, -0.2), 4.0), ((0.0,), 1.0)])
    def test_evaluations_take_their_part_of_the_bound_alone(self, update, differences, taken):
        """Evaluations take their part of the bound from the deltas, and no more."""
        made = next_private_version(moment_of(stored(update, 1, differences)), RULES, Gate(), NOISE)
        assert moved(made) == pytest.approx(sqrt(1.0 - taken * EVALUATION_SIZE**2), abs=1e-3)

    def test_impostor_is_not_clipped_together_with_the_project(self, update):
        """An update in the name of another project is not clipped with it.

        Otherwise a stranger who knows a pseudonym could suppress it, and its part could weigh twice its bound.
        """
        mine = stored(update, 1, (0.2,), owner="acme", project=7)
        theirs = stored(update, 2, (-0.2,), owner="mallory", project=7)
        told = next_private_version(moment_of(mine, theirs), RULES, Gate(), NOISE)
        assert told.releases["flaky"].count == pytest.approx(2.0, abs=1e-3)
        alone = [
            next_private_version(moment_of(one), RULES, Gate(), NOISE).version.vectors["flaky"]
            for one in (mine, theirs)
        ]
        assert to_numpy(told.version.vectors["flaky"]) == pytest.approx(
            to_numpy(alone[0]) + to_numpy(alone[1]), abs=1e-4
        )

    def test_an_owners_many_updates_of_one_project_are_one_part(self, update):
        twice = [stored(update, number, (0.2,), owner="acme", project=7) for number in (1, 2)]
        assert next_private_version(moment_of(*twice), RULES, Gate(), NOISE).releases["flaky"].count == pytest.approx(
            1.0, abs=1e-3
        )


class TestGate:
    @pytest.mark.slow
    def test_honest_version_of_a_hundred_takes_months(self):
        """With a hundred projects, an honest version is promoted within months.

        Weeks, at the usual guarantee; without noise the same evaluations need one.
        """
        found = noised_rates(normal(0.0), trials=25)
        assert found["promoted"] >= 0.95
        assert found["median periods"] <= 9
        assert found["nine of ten within"] <= 16

    def test_damaged_version_of_a_hundred_is_rejected_sooner(self):
        """With a hundred projects, a damaged version is rejected sooner."""
        found = noised_rates(normal(0.3), trials=25)
        assert found["rejected"] == 1.0
        assert found["median periods"] <= 4

    @pytest.mark.slow
    def test_worse_version_is_not_promoted_through_the_noise(self):
        """A version that is worse by the margin is not promoted through the noise."""
        assert noised_rates(normal(0.15), trials=40)["promoted"] == 0.0
