"""The gate: what it promotes and rejects, what it may lose. All figures: python -m tests.benchmarks.gate."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.gate import ActiveCounts, Evaluation, Gate, UpdateEvaluations, upper_bound
from tests.benchmarks.federation import Plan, poisoned, run
from tests.benchmarks.gate import CHAINS, MANY, Lies, chain, normal, rates, tried

GATE = Gate()
differences = st.lists(st.floats(-1.0, 1.0), max_size=60)


def votes(values, projects: int = 20) -> list[Evaluation]:
    return [Evaluation(f"p{n % projects}", f"o{n % projects}", value) for n, value in enumerate(values)]


class TestPromotion:
    def test_honest_snapshot_is_promoted_after_40_votes(self):
        """An honest snapshot is promoted after a median of at most 40 evaluations."""
        found = rates(normal(0.0, 0.1), trials=40, every=2)
        assert found["promoted"] >= 0.95
        assert found["median votes"] <= 40

    def test_worse_snapshot_is_promoted_in_under_1_of_100_trials(self):
        """A snapshot that is worse by the margin is promoted in fewer than 1 of 100 trials."""
        found = rates(normal(0.15, 0.1), trials=150, every=8)
        assert found["promoted"] < 0.01
        assert found["rejected"] > 0.95

    def test_a_fifth_of_liars_does_not_promote_a_damaged_snapshot(self):
        assert rates(normal(0.3, 0.1), Lies(0.2, -1.0), trials=40, every=10)["promoted"] == 0.0

    def test_a_fifth_of_liars_does_not_block_an_honest_snapshot(self):
        """A fifth of false evaluations neither rejects nor blocks an honest snapshot."""
        found = rates(normal(0.0, 0.1), Lies(0.2, 1.0), trials=40, every=10)
        assert found["rejected"] <= 0.025
        assert found["promoted"] >= 0.8


class TestMargin:
    @pytest.mark.parametrize("name", list(CHAINS))
    def test_twenty_promotions_in_a_row_lose_no_more_than_one_margin(self, name: str):
        assert max(chain(CHAINS[name], seed, every=40) for seed in range(2)) <= GATE.margin

    def test_what_is_promoted_is_within_what_is_left_of_the_margin(self):
        """The bound that a promotion rests on, and what it takes from the margin, add up."""
        verdict = tried(normal(0.0), Random(1), spent=0.05, every=5)
        assert verdict.outcome == "promoted"
        assert 0.0 < verdict.high <= verdict.allowed == pytest.approx(0.10)
        assert verdict.spent == pytest.approx(0.05 + verdict.high)

    def test_spent_margin_promotes_improvements_alone(self):
        """With the margin spent, only an improvement promotes, and it gives back less than it was."""
        assert tried(normal(0.0), Random(2), spent=0.15, every=20).outcome == "undecided"
        better = tried(normal(-0.10), Random(2), spent=0.15, every=5)
        assert better.outcome == "promoted"
        assert better.high <= 0.0
        assert 0.15 - 0.10 < better.spent < 0.15


class TestVotes:
    def test_after_200_votes_without_a_verdict_the_trial_gives_way(self):
        """Half of the votes up and half down: neither better nor worse can be shown."""
        undecided = [0.2 if n % 5 < 3 else -0.2 for n in range(200)]
        assert GATE.decide(UpdateEvaluations(votes(undecided[:199]), MANY), 0.0).outcome == "open"
        assert GATE.decide(UpdateEvaluations(votes(undecided), MANY), 0.0).outcome == "undecided"

    @pytest.mark.parametrize(
        ("projects", "active", "outcome"), [(4, 20, "open"), (5, 20, "promoted"), (3, 3, "promoted")]
    )
    def test_it_needs_five_projects_or_all_that_are_active(self, projects: int, active: int, outcome: str):
        heard = votes([-0.5] * 60, projects)
        assert GATE.decide(UpdateEvaluations(heard, ActiveCounts(active, active)), 0.0).outcome == outcome

    def test_lone_project_promotes_after_20_votes_unless_worse(self):
        """With one project, production follows after 20 evaluations unless it is shown to be worse."""
        alone = ActiveCounts(1, 1)
        assert GATE.decide(UpdateEvaluations(votes([0.01] * 4, 1), alone), 0.15).outcome == "open"
        assert GATE.decide(UpdateEvaluations(votes([0.01, -0.01] * 10, 1), alone), 0.15).outcome == "promoted"
        assert GATE.decide(UpdateEvaluations(votes([0.5] * 30, 1), alone), 0.15).outcome == "rejected"

    def test_project_and_owner_have_a_capped_share_of_votes(self):
        """One project and one owner have at most their share of the evaluations."""
        loud = [Evaluation("loud", "o-loud", 1.0)] * 100 + votes([0.0] * 40)
        heard = UpdateEvaluations(loud, MANY).eligible(GATE)
        assert sum(vote.project == "loud" for vote in heard) <= GATE.share * len(heard)
        puppets = [Evaluation(f"puppet{n}", "one", 1.0) for n in range(100)] + votes([0.0] * 40)
        heard = UpdateEvaluations(puppets, MANY).eligible(GATE)
        assert sum(vote.owner == "one" for vote in heard) <= GATE.share * len(heard)

    @given(st.lists(st.integers(0, 8), max_size=80), st.integers(1, 30))
    def test_counting_keeps_the_order_and_every_project_is_heard(self, senders: list[int], active: int):
        cast = [Evaluation(f"p{sender}", f"o{sender}", float(n % 3 - 1)) for n, sender in enumerate(senders)]
        heard = UpdateEvaluations(cast, ActiveCounts(active, active)).eligible(GATE)
        assert {vote.project for vote in heard} == {vote.project for vote in cast}
        rest = iter(cast)
        assert all(any(vote is other for other in rest) for vote in heard)

    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60), st.floats(0.001, 0.5))
    @settings(deadline=None)
    def test_bound_is_above_the_mean_and_falls_with_more_votes(self, values: list[float], alpha: float):
        """The bound is above the mean and falls with more evaluations of the same value."""
        array = np.array(values)
        bound = upper_bound(array, alpha)
        assert array.mean() <= bound <= 1.0
        assert upper_bound(np.tile(array, 3), alpha) <= bound + 1e-3
        assert upper_bound(array, alpha / 2) >= bound - 1e-3

    @given(differences, st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=30)
    def test_the_order_of_the_votes_does_not_matter(self, values: list[float], dice: Random):
        """Where nobody's votes are capped."""
        free = replace(GATE, share=1.0)
        cast = votes(values)
        first, second = (
            free.decide(UpdateEvaluations(some, MANY), 0.0) for some in (cast, dice.sample(cast, len(cast)))
        )
        assert first.outcome == second.outcome
        assert first.high == pytest.approx(second.high, abs=1e-3)


@pytest.fixture(scope="module")
def clean() -> float:
    return run(Plan()).production


class TestVerdicts:
    @given(differences, st.floats(0.0, 0.15))
    @settings(deadline=None, max_examples=50)
    def test_every_verdict_has_figures_within_the_margin(self, values: list[float], spent: float):
        """Every verdict has its figures and never spends more than the margin."""
        verdict = GATE.decide(UpdateEvaluations(votes(values), MANY), spent)
        assert verdict.low <= verdict.mean <= verdict.high or not values
        assert 0.0 <= verdict.spent <= GATE.margin + 1e-9
        assert verdict.figures().keys() >= {"counted", "mean", "low", "high", "allowed", "spent", "projects"}

    @pytest.mark.parametrize("poison", ["scaled", "word"])
    def test_poison_keeps_production_within_two_points_of_clean(self, poison: str, clean: float):
        """A fifth of poisoned updates leaves production within two points of clean."""
        assert run(poisoned(poison, 0.2)).production > clean - 0.02

    def test_without_the_bounds_of_a_fold_the_same_poison_does_harm(self, clean: float):
        """So that the tests above show a defence, and not a harmless attack."""
        bare = AggregationRules(clip=1.0, longer=1000.0, single=1.0)
        assert run(poisoned("word", 0.2, rules=bare, gate=None)).production < clean - 0.04
