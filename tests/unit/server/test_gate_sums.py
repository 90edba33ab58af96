"""The gate over sums: its error rates by simulation, with secret shares (no noise) and with noise."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.gate import EvaluationSum, EvaluationSums, Gate, Verdict

GATE = Gate()
NOISE = 40.0  # standard deviation, of the total and of the count each
finite = st.floats(-1.0, 1.0)
releases = st.lists(
    st.builds(EvaluationSum, st.floats(0.0, 50.0), st.floats(-50.0, 50.0), st.floats(0.0, 500.0)), max_size=8
)


def drawn(mean: float, projects: int, noise: float, seed: int, spread: float = 0.1) -> Iterator[EvaluationSum]:
    """Releases of honest evaluations of this mean in units of the bound, each drawn in to the reach."""
    dice = np.random.default_rng(seed)
    while True:
        differences = np.clip(dice.normal(mean, spread, projects), -GATE.reach, GATE.reach) / GATE.reach
        noised = dice.normal(0.0, noise, 2) if noise else (0.0, 0.0)
        yield EvaluationSum(projects + noised[0], float(differences.sum()) + noised[1], 2.0 * noise**2)


def tried(source: Iterator[EvaluationSum], gate: Gate = GATE, spent: float = 0.0) -> Verdict:
    """One trial, looked at after every release, until it ends."""
    seen: list[EvaluationSum] = []
    for release in islice(source, 400):
        seen.append(release)
        verdict = gate.decide(EvaluationSums(seen), spent)
        if verdict.outcome != "open":
            return verdict
    raise AssertionError("the trial never ended")


def share(outcome: str, mean: float, projects: int, noise: float, trials: int = 150, spread: float = 0.1) -> float:
    found = [tried(drawn(mean, projects, noise, seed, spread)).outcome for seed in range(trials)]
    return sum(one == outcome for one in found) / trials


class TestVerdicts:
    @pytest.mark.parametrize(("projects", "noise"), [(5, 0.0), (20, 0.0), (100, NOISE)])
    def test_an_honest_version_is_promoted(self, projects: int, noise: float):
        assert share("promoted", 0.0, projects, noise) >= 0.95

    @pytest.mark.parametrize(("projects", "noise"), [(5, 0.0), (20, 0.0), (100, NOISE)])
    def test_worse_by_sums_is_promoted_in_under_1_of_100_trials(self, projects: int, noise: float):
        """A version that is worse by the margin is promoted in fewer than 1 of 100 trials."""
        assert share("promoted", 0.15, projects, noise) < 0.01

    @pytest.mark.parametrize(("projects", "noise"), [(5, 0.0), (20, 0.0), (100, NOISE)])
    def test_a_version_much_worse_is_rejected(self, projects: int, noise: float):
        assert share("rejected", 0.3, projects, noise) >= 0.95

    @pytest.mark.parametrize(("projects", "noise"), [(5, 0.0), (100, NOISE)])
    def test_false_rejections_without_liars_stay_in_the_stated_rate(self, projects: int, noise: float):
        """Without room for false evaluations, no more honest versions are rejected than stated.

        These are the widest evaluations there are: the bound itself is tried, at every look.
        """
        strict = replace(GATE, sum_liars=0.0, most=10_000, margin=-1.0)
        looks = [list(islice(drawn(0.0, projects, noise, seed, 1.0), 60)) for seed in range(200)]
        wrong = [any(strict.decide(EvaluationSums(seen[:n])).low > 0.0 for n in range(1, 61)) for seen in looks]
        assert sum(wrong) / len(wrong) <= GATE.wrong_rejection

    def test_a_fifth_of_liars_neither_promotes_nor_rejects_in_sums(self):
        """A fifth of false evaluations neither promotes damage nor rejects what is good."""

        def lying(mean: float, lie: float, seed: int) -> Iterator[EvaluationSum]:
            return (
                EvaluationSum(one.count * 1.25, one.total + lie * one.count / 4) for one in drawn(mean, 20, 0.0, seed)
            )

        assert all(tried(lying(0.3, -1.0, seed)).outcome != "promoted" for seed in range(50))
        assert all(tried(lying(0.0, 1.0, seed)).outcome != "rejected" for seed in range(50))

    def test_promotion_by_sums_is_within_and_taken_from_the_margin(self):
        """What is promoted is within what is left of the margin and taken from it."""
        verdict = tried(drawn(0.0, 20, 0.0, 1), spent=0.03)
        assert verdict.outcome == "promoted"
        assert verdict.high <= verdict.allowed == pytest.approx(0.12)
        assert verdict.spent == pytest.approx(0.03 + max(0.0, verdict.high))

    def test_noisy_trial_is_undecided_only_at_most_evaluations(self):
        """A trial that noise hides is undecided only when it is worth the most evaluations.

        Without noise, 200 evaluations end a trial; with noise, as many more as carry the same information.
        """
        assert tried(drawn(0.08, 20, 0.0, 1)).evaluations == GATE.sum_most
        assert tried(drawn(0.08, 20, 10.0, 1)).evaluations > 2 * GATE.sum_most

    def test_fewer_projects_than_the_gate_asks_for_decide_nothing(self):
        few = [EvaluationSum(4.0, -4.0)] * 49
        assert GATE.decide(EvaluationSums(few)).outcome == "open"
        assert GATE.decide(EvaluationSums([EvaluationSum(5.0, -5.0)] * 39)).outcome == "promoted"


class TestBounds:
    def test_no_release_says_nothing(self):
        verdict = GATE.decide(EvaluationSums([]))
        assert (verdict.outcome, verdict.evaluations) == ("open", 0)
        assert (verdict.low, verdict.high) == pytest.approx((-0.3, 0.3))

    @given(releases)
    def test_bounds_hold_the_mean_and_noise_never_narrows_them(self, seen: list[EvaluationSum]):
        verdict = GATE.decide(EvaluationSums(seen))
        assert verdict.low <= verdict.mean <= verdict.high or verdict.evaluations <= 0
        later = [replace(one, noise_variance=one.noise_variance + 100.0) for one in seen[1:]]
        noisier = GATE.decide(EvaluationSums([*seen[:1], *later]))
        assert noisier.low <= verdict.low + 1e-9
        assert noisier.high >= verdict.high - 1e-9

    @given(st.integers(5, 100), finite)
    def test_more_releases_of_the_same_mean_say_more(self, votes: int, mean: float):
        row = [GATE.decide(EvaluationSums([EvaluationSum(votes, votes * mean)] * count)) for count in (1, 2, 4, 8)]
        assert all(later.high - later.low <= earlier.high - earlier.low + 1e-9 for earlier, later in pairwise(row))
