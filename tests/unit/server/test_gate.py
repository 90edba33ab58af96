"""The gate: what it promotes and rejects, what it may lose. All figures: python -m tests.benchmarks.gate."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.gate import ActiveCounts, Evaluation, Gate, UpdateEvaluations
from tests.benchmarks.federation import Plan, poisoned, run
from tests.benchmarks.gate import CHAINS, MANY, Lies, chain, normal, of_batches, partly, rates

GATE = Gate()
differences = st.lists(st.floats(-1.0, 1.0), max_size=60)


def votes(values, projects: int = 20, owner: str = "") -> list[Evaluation]:
    return [Evaluation(f"p{n % projects}", owner or f"o{n % projects}", value) for n, value in enumerate(values)]


def decide(evaluations, known: ActiveCounts = MANY):
    return GATE.decide(UpdateEvaluations(evaluations, known))


class TestPromotion:
    def test_better_version_is_promoted_after_40_evaluations(self):
        """A version that is 0.1 better is promoted after a median of at most 40 evaluations."""
        found = rates(normal(-0.1, 0.1), trials=40, every=4)
        assert found["promoted"] >= 0.95
        assert found["median votes"] <= 40

    def test_version_that_is_not_better_is_promoted_in_1_of_20(self):
        """Whenever it is looked at; a version must be better, not only not worse. The first one in 1 of 50."""
        as_good = normal(0.0, 0.1)
        assert rates(as_good, trials=150, every=10)["promoted"] <= 0.06
        first = replace(GATE, wrong_promotion=GATE.first_wrong_promotion)
        assert rates(as_good, trials=150, every=10, gate=first)["promoted"] <= 0.02

    def test_early_looks_need_more_evidence(self):
        """The same ten evaluations promote at the end of a short trial, and not at the begin of a long one."""
        heard = UpdateEvaluations(votes([-0.15 - 0.05 * (n % 5) for n in range(10)], 10), ActiveCounts(10, 10))
        assert replace(GATE, most=10).decide(heard).outcome == "promoted"
        assert replace(GATE, most=200).decide(heard).outcome == "open"

    def test_worse_version_is_promoted_in_under_1_of_100_trials(self):
        found = rates(normal(0.05, 0.1), trials=150, every=10)
        assert found["promoted"] < 0.01
        assert rates(normal(0.15, 0.1), trials=50, every=10)["rejected"] > 0.95

    def test_a_fifth_of_liars_does_not_promote_a_damaged_version(self):
        assert rates(normal(0.1, 0.1), Lies(0.2, -1.0), trials=60, every=10)["promoted"] == 0.0

    @pytest.mark.parametrize(
        ("lie", "honest", "allowed"), [(-1.0, 0.02, {"open", "rejected", "undecided"}), (1.0, -0.3, {"promoted"})]
    )
    def test_three_tenths_of_liars_decide_nothing(self, lie: float, honest: float, allowed: set[str]):
        """Of twenty voters six lie: they neither promote what is a little worse, nor block what is better."""
        heard = [
            Evaluation(f"p{n % 20}", f"o{n % 20}", lie if n % 20 < 6 else honest + 0.01 * (n % 5 - 2))
            for n in range(GATE.most)
        ]
        assert decide(heard).outcome in allowed

    def test_a_fifth_of_liars_does_not_block_a_better_version(self):
        found = rates(normal(-0.15, 0.1), Lies(0.2, 1.0), trials=40, every=10)
        assert found["rejected"] == 0.0
        assert found["promoted"] >= 0.9

    @pytest.mark.parametrize("share", [0.4, 0.5])
    def test_loss_of_many_builds_counts_whatever_the_others_gain(self, share: float):
        """Two fifths of the builds lose 0.1 nats and the others gain a little: it is a loss, and no liar is needed."""
        assert rates(partly(share, 1.0, -0.05), trials=60, every=10)["promoted"] == 0.0

    def test_large_loss_of_few_builds_is_seen_in_nine_batches(self):
        """One batch in ten loses 1.0 nats and the others gain 0.02: the gate sees 0.1 nats of a sole batch at most."""
        of_few = partly(0.1, 10.0, -0.2)
        assert rates(of_batches(of_few, 1), trials=60, every=10)["promoted"] > 0.5
        assert rates(of_batches(of_few, 9), trials=60, every=10)["promoted"] <= 0.1

    @pytest.mark.parametrize("name", list(CHAINS))
    def test_twenty_promotions_in_a_row_lose_next_to_nothing(self, name: str):
        """A tenth of what one promotion alone might have lost before (0.15)."""
        assert max(chain(CHAINS[name], seed, every=20) for seed in range(3)) <= 0.015

    def test_verdict_reports_the_loss_that_liars_may_have_hidden(self):
        """In nats: the bound where as many voters as the gate allows for lie in favour of the version."""
        verdict = decide(votes([-0.3, -0.2, -0.25, -0.1] * 15))
        assert verdict.outcome == "promoted"
        assert verdict.high <= 0.0
        assert verdict.worst > verdict.high
        assert verdict.admitted == pytest.approx(max(0.0, 0.1 * verdict.worst))


class TestVoters:
    @pytest.mark.parametrize(
        ("projects", "known", "outcome"), [(4, 20, "open"), (20, 20, "promoted"), (8, 8, "promoted")]
    )
    def test_it_needs_five_voters_or_all_that_are_known(self, projects: int, known: int, outcome: str):
        heard = votes([-0.5, -0.4, -0.45] * 20, projects)
        assert decide(heard, ActiveCounts(known, known)).outcome == outcome

    def test_project_counts_once_however_often_it_evaluates(self):
        """Ten evaluations an aggregation from one attacker do not outvote four others."""
        loud = [Evaluation("loud", "o-loud", -1.0)] * 60
        assert decide([*loud, *votes([0.3, 0.2, 0.25, 0.35] * 6, 4)], ActiveCounts(5, 5)).outcome != "promoted"

    def test_owner_counts_once_however_many_projects_it_has(self):
        """Two hundred projects of one owner are one voter among five."""
        puppets = [Evaluation(f"puppet{n}", "one", -1.0) for n in range(60)]
        known = ActiveCounts(204, 5)
        assert decide([*puppets, *votes([0.3, 0.2, 0.25, 0.35] * 6, 4)], known).outcome != "promoted"
        assert len(UpdateEvaluations(puppets, known).voters()) == 1

    def test_projects_of_a_sole_owner_are_voters(self):
        """In an organisation with one token its projects are all there is."""
        heard = UpdateEvaluations(votes([-0.5, -0.4] * 20, owner="acme"), ActiveCounts(20, 1))
        assert len(heard.voters()) == 20
        assert GATE.decide(heard).outcome == "promoted"

    @pytest.mark.parametrize("lie", [-1.0, 1.0])
    def test_one_of_four_decides_nothing(self, lie: float):
        """Neither can it promote what the others find worse, nor block what they find better."""
        honest = -0.3 if lie > 0 else 0.3
        heard = [
            Evaluation(f"p{n % 4}", f"o{n % 4}", lie if n % 4 == 3 else honest + 0.02 * (n % 7 - 3)) for n in range(60)
        ]
        expected = "promoted" if honest < 0 else "rejected"
        assert decide(heard, ActiveCounts(4, 4)).outcome == expected

    def test_lone_project_promotes_after_20_unless_worse(self):
        """With one project, production follows after 20 evaluations unless it is shown to be worse."""
        alone = ActiveCounts(1, 1)
        assert decide(votes([0.01, -0.01], 1), alone).outcome == "open"
        assert decide(votes([0.01, -0.01] * 10, 1), alone).outcome == "promoted"
        assert decide(votes([0.5, 0.45] * 15, 1), alone).outcome == "rejected"

    def test_one_project_of_a_larger_federation_is_not_alone(self):
        """Where the others are silent, nothing is promoted on its word."""
        for known in (ActiveCounts(40, 40), ActiveCounts(2, 2)):
            assert decide(votes([-0.5, -0.45] * 20, 1), known).outcome != "promoted"

    def test_after_most_evaluations_a_trial_gives_way(self):
        """Most voters a little better, and some not: an improvement cannot be shown."""
        mixed = [-0.2 if n % 20 < 13 else 0.2 for n in range(GATE.most)]
        assert decide(votes(mixed[:-1])).outcome == "open"
        assert decide(votes(mixed)).outcome == "undecided"

    def test_version_without_improvement_gives_way_early(self):
        """Half of the voters up and half down, after two fifths of a trial: a newer version is tried instead."""
        torn = [0.2 if n % 2 else -0.2 for n in range(GATE.most)]
        assert decide(votes(torn[:18])).outcome == "open"
        assert decide(votes(torn[:20])).outcome == "undecided"
        assert decide(votes([-0.15 + value for value in torn[:20]])).outcome == "open", "it may be better"
        assert decide(votes([0.3 + value for value in torn[:20]])).outcome == "open", "it may be worse"

    def test_a_few_voters_end_no_trial_of_many(self):
        """Five of forty known voters, however often they evaluate, do not say that there is no hope."""
        known = ActiveCounts(40, 40)
        assert decide(votes([0.2, -0.2, 0.1, -0.1, 0.0] * 9, 5), known).outcome == "open"
        assert decide(votes([0.2, -0.2, 0.1, -0.1, 0.0] * 9, 25), known).outcome == "undecided"

    @pytest.mark.parametrize("busy", [100, 5000])
    def test_a_busy_project_ends_no_trial(self, busy: int):
        """It evaluates all the time, and the trial is over only when the others have evaluated, too."""
        torn = [0.2 if n % 2 else -0.2 for n in range(GATE.most)]
        for owner, known in (("", MANY), ("acme", ActiveCounts(21, 1))):
            often = [Evaluation("busy", owner or "busy", 0.1 * (-1) ** n) for n in range(busy)]
            for others in (0, 3, 12):
                assert decide([*often, *votes(torn[:others], owner=owner)], known).outcome == "open", others
            assert decide([*often, *votes(torn, owner=owner)], known).outcome == "undecided"


@pytest.fixture(scope="module")
def clean() -> float:
    return run(Plan()).production


class TestVerdicts:
    @given(differences, st.integers(0, 30))
    @settings(deadline=None, max_examples=60)
    def test_every_verdict_has_its_figures(self, values: list[float], known: int):
        verdict = decide(votes(values), ActiveCounts(known, known))
        assert verdict.low <= verdict.high <= verdict.worst + 1e-9
        assert verdict.allowed == 0.0
        assert verdict.figures().keys() >= {"counted", "mean", "low", "high", "worst", "spent", "projects", "admitted"}

    @given(differences, st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=30)
    def test_the_order_of_the_evaluations_does_not_matter(self, values: list[float], dice):
        cast = votes(values)
        first, second = decide(cast), decide(dice.sample(cast, len(cast)))
        assert first.outcome == second.outcome
        assert first.high == pytest.approx(second.high, abs=1e-9)

    def test_bounds_hold_at_every_look(self):
        """The mean of twenty voters is above the upper bound at any look at a trial in fewer than 1 of 40 runs."""
        dice, wrong = np.random.default_rng(1), 0
        for _ in range(200):
            values = dice.normal(0.0, 0.2, GATE.most).clip(-1, 1)
            wrong += any(decide(votes(values[:count])).high < 0.0 for count in range(20, GATE.most + 1, 10))
        assert wrong / 200 <= 0.025

    @pytest.mark.parametrize("poison", ["scaled", "word"])
    def test_poison_keeps_production_within_two_points_of_clean(self, poison: str, clean: float):
        """A fifth of poisoned updates leaves production within two points of clean."""
        assert run(poisoned(poison, 0.2)).production > clean - 0.02

    def test_without_bounds_the_same_poison_does_harm(self, clean: float):
        """So that the tests above show a defence, and not a harmless attack."""
        bare = AggregationRules(clip=1.0, longer=1000.0, single=1.0)
        assert run(poisoned("word", 0.2, rules=bare, gate=None)).production < clean - 0.02
