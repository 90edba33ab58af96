"""Differential privacy: the mechanism, an aggregation with it, and an aggregator that keeps its promise."""

import json
import secrets
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import exp, sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedstep.errors import ContributionNotDue, PrivacyBudgetExhausted
from fedstep.federation.client import push
from fedstep.federation.messages import PrivacyGuarantee, SchemaShape, TrialScore, pack_update
from fedstep.federation.transport import RetryPolicy
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, CurrentModels, ModelVersion, StoredUpdate, Trial
from fedstep.server.aggregation.step import to_numpy
from fedstep.server.differential_privacy import (
    GRID,
    BudgetPolicy,
    DifferentialPrivacy,
    GaussianNoise,
    draw_discrete_gaussian,
    next_private_version,
    noise_variance,
    round_to_grid,
    sum_with_noise,
)
from fedstep.server.gate import EvaluationSum, EvaluationSums, Gate
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import evaluations, privacy_spending
from tests.helpers.aggregator import InProcess, until
from tests.helpers.server_store import charging

URL = "http://here"
ONCE = RetryPolicy(timeout=10.0, waits=())
RULES = {"flaky": AggregationRules(1.0, decay=0.0), "build-duration": AggregationRules(0.2, decay=0.0)}
SHARE = 0.05
WHISPER = GaussianNoise(1e-7, Random(1).randrange, SHARE)  # less than a step of the grid
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
vectors_of = arrays(np.float64, st.integers(1, 40), elements=numbers)


class TestMechanism:
    @given(vectors_of)
    def test_no_vector_is_longer_than_its_bound_on_the_grid(self, vector):
        """On the grid of whole numbers, no vector is longer than its bound: the sensitivity that the noise is
        made for.
        """
        steps = round_to_grid(vector)
        assert sum(int(step) ** 2 for step in steps) <= GRID**2

    @given(vectors_of)
    def test_rounding_goes_towards_zero_and_by_less_than_one_step(self, vector):
        steps, length = round_to_grid(vector), float(np.linalg.norm(vector))
        exact = vector * GRID / max(1.0, length)
        assert np.all(np.abs(steps) <= np.abs(exact) * (1 + 1e-12))
        assert np.all(np.abs(steps - exact) < 1.0 + 1e-9 * GRID)

    @given(st.integers(1, 60), st.integers(0, 1000))
    def test_a_vector_of_equal_numbers_at_the_bound_keeps_it(self, size, seed):
        """A vector of equal numbers at the bound keeps it, where rounding in floats might carry the norm over it."""
        vector = np.full(size, 1.0 / sqrt(size)) * (1.0 + seed * 1e-17)
        assert int(round_to_grid(vector) @ round_to_grid(vector)) <= GRID**2

    def test_a_hair_too_much_is_taken_back_in_whole_numbers(self, monkeypatch):
        """A first rounding that is too long, from a norm that a float gives too small, is corrected in whole
        numbers.
        """
        monkeypatch.setattr(np.linalg, "norm", lambda vector: float(np.sqrt(vector @ vector)) * (1 - 1e-7))
        steps = round_to_grid(np.full(4, 7.0))
        assert int(steps @ steps) <= GRID**2

    @pytest.mark.parametrize("variance", [1, 3, 20])
    def test_the_noise_is_the_discrete_gaussian(self, variance):
        """The noise is the discrete Gaussian.

        Chi-square over every value that is expected five times or more; the chance to fail is below 1e-6.
        """
        dice, draws = Random(variance), 20_000
        seen = Counter(draw_discrete_gaussian(variance, dice.randrange) for _ in range(draws))
        weights = {x: exp(-x * x / (2 * variance)) for x in range(-60, 61)}
        total = sum(weights.values())
        expected = {x: draws * weight / total for x, weight in weights.items() if draws * weight / total >= 5}
        square = sum((seen[x] - count) ** 2 / count for x, count in expected.items())
        assert square < len(expected) + 5 * sqrt(2 * len(expected)) + 10

    def test_wide_noise_has_the_requested_variance(self):
        """Noise as wide as in production has the variance asked for."""
        found = sum_with_noise([], 4000, 5.0, Random(5).randrange) / GRID
        assert abs(found.std() / 5.0 - 1.0) < 0.05
        assert abs(found.mean()) < 5.0 * 5.0 / sqrt(4000)

    def test_same_random_bits_give_the_same_noise_around_the_sum(self):
        """The same random bits give the same noise around the sum of the parts."""
        parts = [np.arange(6), np.arange(6) * 7]
        alone = sum_with_noise([], 6, 2.0, Random(3).randrange)
        assert np.array_equal(sum_with_noise(parts, 6, 2.0, Random(3).randrange) - alone, np.arange(6) * 8)

    def test_the_variance_is_never_below_what_was_asked(self):
        assert noise_variance(0.3) >= (0.3 * GRID) ** 2
        assert noise_variance(1e-9) == 1


# one aggregation


def tasks(value: float) -> dict[str, array]:
    return {"flaky": array("f", [value] * 5), "build-duration": array("f", [value] * 3)}


def moment_of(*buffered: StoredUpdate, noised: dict | None = None) -> AggregationInput:
    """Version 4, its flaky task on trial as version 3."""
    task = ModelVersion(4, 0, 1000.0, tasks(0.0), {"flaky": 0, "build-duration": 0})
    trials = {"flaky": Trial("flaky", 3, 0, 900.0, tasks(0.1)["flaky"])}
    current = CurrentModels(task, tasks(0.0), trials)
    evidence = {task: EvaluationSums(sums) for task, sums in (noised or {}).items()}
    return AggregationInput(current, 5, {}, {}, 2000.0, buffered, evidence)


def stored(update, number: int, difference: float | None = None, **changes) -> StoredUpdate:
    scores = {} if difference is None else {"flaky": TrialScore(3, difference)}
    return StoredUpdate(pack_update(update(number, base=4, scores=scores, **changes)))


def units(made) -> np.ndarray:
    """What an aggregation from zero moved, in units of a project's bound."""
    moved = made.version.vectors
    return np.concatenate([to_numpy(moved["flaky"]) / SHARE, to_numpy(moved["build-duration"]) / (SHARE * 0.2)]).astype(
        float
    )


class TestContributions:
    def test_project_moves_all_tasks_together_by_at_most_its_bound(self, update):
        """One project moves all tasks together by its bound at most."""
        once = units(next_private_version(moment_of(stored(update, 1)), RULES, Gate(), WHISPER))
        assert np.linalg.norm(once) == pytest.approx(1.0, abs=1e-3)

    def test_noised_version_takes_a_number_free_in_every_schema(self, update):
        """A noised version takes a number that no version of another schema has."""
        moment = replace(moment_of(stored(update, 1)), version=9)
        made = next_private_version(moment, RULES, Gate(), WHISPER)
        assert (made.version.version, made.version.production) == (9, 0)

    def test_many_updates_of_one_project_move_no_more_than_one(self, update):
        """Many updates of one project in one aggregation move no more than one."""
        many = [stored(update, number, project=7) for number in range(1, 9)]
        assert np.linalg.norm(units(next_private_version(moment_of(*many), RULES, Gate(), WHISPER))) <= 1.0 + 1e-3

    def test_projects_add_up(self, update):
        both = units(next_private_version(moment_of(stored(update, 1), stored(update, 2)), RULES, Gate(), WHISPER))
        single = [units(next_private_version(moment_of(stored(update, n)), RULES, Gate(), WHISPER)) for n in (1, 2)]
        assert np.allclose(both, sum(single), atol=1e-3)

    def test_evaluations_are_counted_and_summed_in_the_reach(self, update):
        voters = [stored(update, number, difference) for number, difference in enumerate((0.1, -0.1, 0.9, -0.05), 1)]
        made = next_private_version(moment_of(*voters, stored(update, 9)), RULES, Gate(), WHISPER)
        assert made.releases["flaky"].count == pytest.approx(4, abs=1e-3)
        assert made.releases["flaky"].total == pytest.approx(0.5 - 0.5 + 1.0 - 0.25, abs=1e-3)
        assert "build-duration" not in made.releases

    def test_evaluations_of_another_version_do_not_count(self, update):
        late = StoredUpdate(pack_update(update(1, base=4, scores={"flaky": TrialScore(2, 0.5)})))
        assert next_private_version(moment_of(late), RULES, Gate(), WHISPER).releases["flaky"].count == pytest.approx(
            0, abs=1e-3
        )

    def test_trial_is_judged_by_all_noised_evaluations_alone(self, update):
        """The trial is judged by all noised evaluations so far and by no others."""
        bad = {"flaky": tuple(EvaluationSum(40.0, 40.0, 1.0) for _ in range(5))}
        made = next_private_version(moment_of(stored(update, 1), noised=bad), RULES, Gate(), WHISPER)
        (decision,) = made.decisions
        assert (decision.verdict.outcome, decision.restarted) == ("rejected", True)
        same = next_private_version(moment_of(stored(update, 1)), RULES, Gate(), WHISPER).version.vectors["flaky"]
        assert made.version.vectors["flaky"].tolist() == pytest.approx([value / 2 for value in same], abs=1e-3)

    def test_output_is_a_function_of_the_noised_sum_alone(self, update):
        """What leaves an aggregation is a function of the noised sum alone.

        Two buffers with equal sums and the same random bits give the same version, trials and evaluations.
        """
        delta = {"flaky": array("f", [0.002, -0.001, 0.0, 0.0, 0.0]), "build-duration": array("f", [0.0] * 3)}
        halves = {name: array("f", [x / 2 for x in vector]) for name, vector in delta.items()}
        one = moment_of(*(stored(update, n, deltas=halves) for n in (1, 2)))
        other = moment_of(stored(update, 3, deltas=delta), stored(update, 4, deltas=tasks(0.0)))
        made = [
            next_private_version(moment, RULES, Gate(), GaussianNoise(5.0, Random(2).randrange, SHARE))
            for moment in (one, other)
        ]
        assert (made[0].releases, made[0].decisions) == (made[1].releases, made[1].decisions)
        assert np.allclose(units(made[0]), units(made[1]), atol=1e-4)  # up to a step of the grid


# an aggregator


@pytest.fixture
def promising(settings) -> Callable[..., object]:
    """Settings with a promise; the period is long unless it is given."""

    def make(releases: int = 2, days: float = 7.0, epsilon: float = 8.0):
        mode = DifferentialPrivacy(PrivacyGuarantee(epsilon, 1e-6, releases, days))
        return replace(settings, gate=Gate(), mode=mode)

    return make


def is_candidate(house: InProcess, ours: SchemaShape, version: int) -> bool:
    return house.pulled(ours).candidate_version == version


def get(house: InProcess, path: str) -> str:
    answer = house.send("GET", path, {}, b"", 10.0)
    assert answer.status == 200
    return answer.body.decode()


class TestAggregator:
    def test_the_model_says_what_is_promised(self, open_aggregator, promising, ours):
        with open_aggregator(promising()) as house:
            assert house.pulled(ours).promise == PrivacyGuarantee(8.0, 1e-6, 2, 7.0)

    @pytest.mark.slow
    def test_project_contributes_once_in_a_period(self, open_aggregator, promising, update):
        """A project contributes once in a period, and a repeat is no second contribution."""
        with open_aggregator(promising()) as house:
            first = push(pack_update(update(1, project=7)), URL, house.send, ONCE)
            assert push(pack_update(update(1, project=7)), URL, house.send, ONCE) == first
            with pytest.raises(ContributionNotDue, match="has contributed in this period") as declined:
                push(pack_update(update(2, project=7)), URL, house.send, ONCE)
            assert not isinstance(declined.value, PrivacyBudgetExhausted)
            push(pack_update(update(3, project=8)), URL, house.send, ONCE)

    def test_updates_wait_for_the_next_period_however_many_there_are(self, open_aggregator, promising, update, ours):
        with open_aggregator(promising()) as house:
            for number in range(1, 6):
                push(pack_update(update(number)), URL, house.send, ONCE)
            time.sleep(0.3)
            assert house.pulled(ours).candidate_version == 0

    @pytest.mark.slow
    def test_each_period_releases_until_the_budget_is_spent(self, open_aggregator, promising, update, ours):
        """Each period has its noised release, and a project past its budget is refused."""
        period = 0.4  # seconds
        with open_aggregator(promising(releases=2, days=period / 86_400)) as house:
            for turn in (1, 2):
                until(lambda: time.time() % period < period / 4)
                push(pack_update(update(turn, base=turn - 1, project=7)), URL, house.send, ONCE)
                until(partial(is_candidate, house, ours, turn))
            time.sleep(period)
            with pytest.raises(PrivacyBudgetExhausted, match="contributes no longer"):
                push(pack_update(update(3, base=2, project=7)), URL, house.send, ONCE)
            push(pack_update(update(4, base=2, project=8)), URL, house.send, ONCE)
            task = house.pulled(ours).candidate
            assert all(task["flaky"])  # every coordinate has noise
            status = json.loads(get(house, "/v1/status"))
        assert status["privacy"]["spent_at_most"] == pytest.approx(8.0, rel=1e-6)

    def test_nothing_gives_a_spent_budget_back(self, tmp_path, promising, update, ours):
        """Neither a restart nor a deletion nor another store file gives the budget back."""
        store = Store(promising().store, ours, charging(BudgetPolicy(0.5, 0.5, 60.0)))
        with store._engine.begin() as connection:
            connection.execute(privacy_spending.insert().values(project="p" * 32, rho=0.5, last=0.0))
        store.forget("p" * 32, "")
        store.close()
        from fedstep.server.storage.archive import export_store, import_store

        export_store(promising().store, str(tmp_path / "a.gz"))
        import_store(f"sqlite:///{tmp_path / 'b.db'}", str(tmp_path / "a.gz"))
        again = Store(f"sqlite:///{tmp_path / 'b.db'}", ours, charging(BudgetPolicy(0.5, 0.5, 60.0)))
        again.start({name: array("f", bytes(4 * size)) for name, size in ours.sizes.items()}, 0.0)
        from fedstep.server.storage.update_repository import UpdateOffer, UpdateRejected

        (outcome,) = again.accept([UpdateOffer("1" * 32, "p" * 32, "", 0, pack_update(update(1)))], 0, 100, 999.0)
        again.close()
        assert isinstance(outcome, UpdateRejected)
        assert outcome.problem == (422, "budget-spent")

    def test_publication_hides_who_participates_and_evaluates(self, open_aggregator, promising, update):
        """What is published does not reveal how many take part or who evaluates."""
        told = {}
        for count in (1, 4):
            settings = promising(days=30.0)
            with open_aggregator(replace(settings, store=settings.store.replace("a.db", f"{count}.db"))) as house:
                for number in range(1, count + 1):
                    push(pack_update(update(number, scores={})), URL, house.send, ONCE)
                told[count] = [get(house, path) for path in ("/v1/status", "/v1/versions", "/")]
                figures = get(house, "/metrics")
                assert "fedstep_updates" not in figures
                assert "fedstep_buffer" not in figures
                assert "fedstep_deltas" not in figures
                assert '"/v1/updates"' not in figures
        assert told[1] == told[4]
        assert "waiting" not in json.loads(told[1][0])

    def test_single_evaluations_are_not_even_kept(self, open_aggregator, promising, update, ours):
        settings = promising()
        with open_aggregator(settings) as house:
            push(pack_update(update(1, scores={"flaky": TrialScore(0, 0.5)})), URL, house.send, ONCE)
        store = Store(settings.store, ours)
        with store._engine.connect() as connection:
            assert connection.execute(evaluations.select()).all() == []
        store.close()

    @hypothesis_settings(max_examples=60)
    @given(st.lists(st.floats(0.0, 400.0), max_size=30), st.integers(1, 5), st.sampled_from([7.0, 60.0]))
    def test_no_order_of_requests_overspends_or_doubles_a_budget(self, times, most, seconds):
        """No order of requests lets a project spend more than it has, or twice in a period."""
        purse, rho, last = BudgetPolicy(0.1, 0.1 * most, seconds), 0.0, 0.0
        taken: list[float] = []
        for now in sorted(times):
            if not taken or not purse.refusal(rho, last, now):
                rho, last = rho + purse.cost, now
                taken.append(now // seconds)
        assert len(taken) <= most
        assert len(set(taken)) == len(taken)

    def test_chance_comes_from_the_operating_system(self):
        assert DifferentialPrivacy(PrivacyGuarantee(8.0, 1e-6, 2, 7.0)).noise.below is secrets.randbelow
