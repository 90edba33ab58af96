"""What an aggregation decides: promotion, rejection, the next trial; each task on its own."""

from array import array
from collections.abc import Iterable
from dataclasses import replace
from math import inf

import numpy as np
import pytest

from fedstep.federation.messages import pack_update
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, CurrentModels, ModelVersion, StoredUpdate, Trial
from fedstep.server.aggregation.step import (
    RESTART_SECONDS,
    Comparisons,
    aggregate_updates,
    compare_sources,
    log_decisions,
    next_version,
)
from fedstep.server.gate import ActiveCounts, Evaluation, Gate, UpdateEvaluations

STARTER = (9.0,)  # no vector here is what a task without a starter model begins with
RULES = {
    "flaky": AggregationRules(1.0, decay=0.0, start=STARTER * 5),
    "build-duration": AggregationRules(0.2, decay=0.0, start=STARTER * 3),
}
GATE = Gate()
BETTER = tuple(Evaluation(f"p{n % 9}", f"o{n % 9}", -0.3) for n in range(60))
ACTIVE = ActiveCounts(9, 9)
SLIGHTLY_BETTER = tuple(Evaluation(f"p{n % 9}", f"o{n % 9}", 0.3 * (n % 5) - 0.69) for n in range(60))
WORSE = tuple(Evaluation(vote.project, vote.owner, 0.3) for vote in BETTER)


def vectors(value: float) -> dict[str, array]:
    return {"flaky": array("f", [value] * 5), "build-duration": array("f", [value] * 3)}


def stored(update, numbers, folded: int = -1) -> tuple[StoredUpdate, ...]:
    return tuple(StoredUpdate(pack_update(update(n, base=0)), f"o{n}", folded) for n in numbers)


@pytest.fixture
def moment(update) -> AggregationInput:
    """Version 4 with production of version 0, version 3 of the flaky task on trial, two updates in the buffer."""
    task = ModelVersion(4, 0, 1000.0, vectors(0.4), {"flaky": 0, "build-duration": 0})
    trials = {"flaky": Trial("flaky", 3, 0, 900.0, vectors(0.3)["flaky"])}
    current = CurrentModels(task, vectors(0.0), trials)
    return AggregationInput(current, 5, {}, {}, 2000.0, stored(update, (6, 7)), {}, promoted=frozenset(RULES))


class TestTrial:
    def test_open_trial_moves_the_candidate_and_not_production(self, moment):
        """While a trial is open, the candidate moves and production does not."""
        made = next_version(moment, RULES, GATE)
        assert made.version.vectors == aggregate_updates(moment.current.candidate, moment.buffered, RULES)
        assert (made.version.version, made.version.production) == (5, 0)
        assert made.version.sources == {"flaky": 0, "build-duration": 0}
        assert made.decisions == ()

    def test_task_without_a_trial_begins_one_with_its_candidate(self, moment):
        """A task without a trial begins one with its newest vector, where no earlier one is old enough for a mean."""
        made = next_version(moment, RULES, replace(GATE, distance=5))
        fresh = {trial.task: trial for trial in made.trials}
        assert fresh["flaky"] == moment.current.trials["flaky"]
        vector = made.version.vectors["build-duration"]
        assert fresh["build-duration"] == Trial("build-duration", 5, 0, 2000.0, vector)

    @pytest.mark.parametrize(("version", "tried"), [(1, False), (2, False), (3, True)])
    def test_a_trial_waits_for_three_aggregations(self, moment, version: int, tried: bool):
        """A version of one aggregation from zero moves the intercept, and the order of tests in any direction."""
        early = replace(moment, version=version, current=replace(moment.current, trials={}))
        made = next_version(early, RULES, GATE)
        assert [trial.task for trial in made.trials] == (["flaky", "build-duration"] if tried else [])

    @pytest.mark.parametrize(("version", "tried"), [(5, False), (9, False), (10, True)])
    def test_first_trial_of_a_task_waits_for_ten(self, moment: AggregationInput, version: int, tried: bool):
        """Versions of five aggregations were below the start once, from zero and from a starter model."""
        current = replace(moment.current, trials={})
        early = replace(moment, version=version, current=current, promoted={"build-duration"})
        tasks = [trial.task for trial in next_version(early, RULES, GATE).trials]
        assert ("flaky" in tasks, "build-duration" in tasks) == (tried, True)

    def test_mean_of_the_newest_five_candidates_is_tried(self, moment):
        """One that is not three aggregations after production knows too little, or was there before it."""
        earlier = [replace(moment.current.candidate, version=n, vectors=vectors(n / 10)) for n in (13, 12, 11, 10)]
        candidate = replace(moment.current.candidate, version=14, vectors=vectors(1.4))
        current = replace(moment.current, candidate=candidate, trials={})
        late = replace(moment, version=15, current=current, buffered=(), earlier=earlier)
        made = next_version(late, RULES, GATE)
        assert made.version.vectors["flaky"] == vectors(1.4)["flaky"]
        assert made.trials[0].vector.tolist() == pytest.approx([(1.4 + 1.4 + 1.3 + 1.2 + 1.1) / 5] * 5)
        since = {**candidate.sources, "flaky": 10}
        after = replace(late, current=replace(current, candidate=replace(candidate, sources=since)))
        made = next_version(after, RULES, GATE)
        assert made.trials[0].vector.tolist() == pytest.approx([(1.4 + 1.4 + 1.3) / 3] * 5)

    def test_candidates_before_a_restart_are_not_tried(self, moment):
        """They were rejected: the mean begins again with the candidate that went halfway back."""
        earlier = [replace(moment.current.candidate, version=n, vectors=vectors(9.0)) for n in (13, 12, 11)]
        candidate = replace(moment.current.candidate, version=14, created=1500.0)
        trials = {"flaky": replace(moment.current.trials["flaky"], version=10)}
        late = replace(moment, version=15, current=replace(moment.current, candidate=candidate, trials=trials))
        rejected = replace(late, buffered=(), earlier=earlier, evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)})
        made = next_version(rejected, RULES, GATE)
        assert made.trials[0].vector.tolist() == pytest.approx([0.2] * 5)
        current = replace(late.current, trials={})
        after = replace(late, buffered=(), earlier=earlier, current=current, restarted={"flaky": 1500.0})
        assert next_version(after, RULES, GATE).trials[0].vector.tolist() == pytest.approx([0.4] * 5)

    def test_first_promotion_of_a_task_needs_more_evidence(self, moment):
        """It replaces the model that all promises are relative to; the task that was promoted before needs less."""
        heard = {"flaky": UpdateEvaluations(SLIGHTLY_BETTER, ACTIVE)}
        outcomes = [
            [one.verdict.outcome for one in next_version(state, RULES, GATE).decisions]
            for state in (
                replace(moment, evidence=heard, promoted=()),
                replace(moment, evidence=heard, promoted={"build-duration"}),
                replace(moment, evidence=heard, promoted={"flaky"}),
            )
        ]
        assert outcomes == [["undecided"], ["undecided"], ["promoted"]]

    def test_nothing_is_tried_while_candidate_is_production(self, moment):
        task = moment.current.candidate
        still = replace(moment, current=CurrentModels(task, task.vectors, {}), buffered=())
        assert next_version(still, RULES, GATE).trials == ()

    def test_promotion_changes_one_task_and_begins_the_next_trial(self, moment):
        """A promotion changes one task and the version of production, and the next trial begins."""
        evidence, near = {"flaky": UpdateEvaluations(BETTER, ACTIVE)}, replace(GATE, distance=2)
        made = next_version(replace(moment, evidence=evidence), RULES, near)
        assert made.version.sources == {"flaky": 3, "build-duration": 0}
        assert made.version.production == 5
        (decision,) = made.decisions
        assert decision.verdict.outcome == "promoted"
        assert decision.trial.version == 3
        assert {trial.task: (trial.version, trial.against) for trial in made.trials}["flaky"] == (5, 3)

    def test_log_has_one_line_per_verdict_with_its_figures(self, moment, caplog):
        """The log has a line for each verdict with the figures that led to it."""
        with caplog.at_level("INFO", "fedstep.server"):
            log_decisions(
                next_version(
                    replace(moment, evidence={"flaky": UpdateEvaluations(BETTER, ACTIVE)}), RULES, GATE
                ).decisions
            )
            log_decisions(next_version(moment, RULES, GATE).decisions)
        (line,) = caplog.records
        assert line.getMessage().startswith("trial of flaky 3: promoted (evaluations 60, ")
        assert line.fields["outcome"] == "promoted"
        assert line.fields["high"] < GATE.margin


AVERAGED = {name: replace(rules, window=1000) for name, rules in RULES.items()}


class TestMeans:
    def test_the_mean_goes_on_trial(self, moment):
        """Learners start from the newest vector; the mean of the newest ones is what may become production."""
        moment = replace(moment, version=9, current=replace(moment.current, trials={}))
        made = next_version(moment, AVERAGED, GATE)
        assert made.version.vectors == aggregate_updates(moment.current.candidate, moment.buffered, AVERAGED)
        for trial in made.trials:
            before, after = moment.current.candidate.vectors[trial.task], made.version.vectors[trial.task]
            mean = [old + (new - old) * 8 / (9 + 7) for old, new in zip(before, after, strict=True)]
            assert trial.vector.tolist() == pytest.approx(mean)
            assert trial.vector == made.version.means[trial.task]

    def test_a_task_that_learns_nothing_keeps_its_mean(self, moment):
        candidate = replace(moment.current.candidate, means=vectors(0.1))
        still = replace(moment, buffered=(), current=replace(moment.current, candidate=candidate, trials={}))
        assert next_version(still, AVERAGED, GATE).version.means == vectors(0.1)

    def test_the_mean_begins_anew_after_a_rejection(self, moment):
        """A mean of vectors that were rejected would be rejected again for hundreds of aggregations."""
        moment = replace(moment, evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)})
        made = next_version(moment, AVERAGED, GATE).version
        assert made.means["flaky"] == made.vectors["flaky"]
        assert made.means["build-duration"] != made.vectors["build-duration"]

    def test_a_task_without_a_window_has_no_mean(self, moment):
        assert next_version(moment, RULES, replace(GATE, distance=5)).version.means == {}


class TestRestart:
    def test_rejected_task_goes_halfway_back_to_production(self, moment):
        """After a rejection the candidate is the mean of itself and production; the other task goes on."""
        made = next_version(replace(moment, evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)}), RULES, GATE)
        (decision,) = made.decisions
        assert (decision.verdict.outcome, decision.restarted) == ("rejected", True)
        assert made.version.sources["flaky"] == 0
        aggregated = aggregate_updates(moment.current.candidate, moment.buffered, RULES)
        halfway = [value / 2 for value in aggregated["flaky"]]  # production is zero
        assert made.version.vectors["flaky"].tolist() == pytest.approx(halfway)
        assert made.version.vectors["build-duration"] == aggregated["build-duration"]
        assert {trial.task: trial.version for trial in made.trials}["flaky"] == 5

    def test_a_task_restarts_once_a_day(self, moment):
        lately = replace(
            moment,
            evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)},
            restarted={"flaky": moment.now - RESTART_SECONDS / 2},
        )
        made = next_version(lately, RULES, GATE)
        assert [(one.verdict.outcome, one.restarted) for one in made.decisions] == [("rejected", False)]
        assert made.version.vectors == aggregate_updates(moment.current.candidate, moment.buffered, RULES)
        for at in (moment.now - RESTART_SECONDS, moment.now + 1e9):  # the clock of the machine was ahead then
            again = replace(lately, restarted={"flaky": at})
            assert next_version(again, RULES, GATE).decisions[0].restarted

    def test_a_damage_is_gone_after_a_few_rejections(self, moment):
        """A candidate far from production comes within a hundredth of the way in a week of rejections."""
        for day in range(7):
            made = next_version(
                replace(
                    moment,
                    buffered=(),
                    now=2000.0 + day * RESTART_SECONDS,
                    version=5 + day,
                    evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)},
                ),
                RULES,
                GATE,
            )
            trial = Trial("flaky", 5 + day, 0, 0.0, made.version.vectors["flaky"])
            current = replace(moment.current, candidate=made.version, trials={"flaky": trial})
            moment = replace(moment, current=current)
        assert max(map(abs, made.version.vectors["flaky"])) <= 0.01 * 0.4


class TestGate:
    def test_a_trial_without_verdict_gives_way_to_the_candidate(self, moment):
        torn = tuple(Evaluation(f"p{n % 9}", f"o{n % 9}", 0.2 if n % 9 < 5 else -0.2) for n in range(GATE.most))
        made = next_version(replace(moment, evidence={"flaky": UpdateEvaluations(torn, ACTIVE)}), RULES, GATE)
        assert made.decisions[0].verdict.outcome == "undecided"
        assert made.version.production == 0
        assert {trial.task: trial.version for trial in made.trials}["flaky"] == 5

    def test_without_a_gate_production_is_always_the_candidate(self, moment):
        made = next_version(moment, RULES, None)
        assert made.version.sources == {"flaky": 5, "build-duration": 5}
        assert (made.version.production, made.trials, made.decisions) == (5, (), ())


def sent(update, times: int, senders: int, against: int, owner: str = "o{n}") -> list[StoredUpdate]:
    """Return `times` updates of each of these senders, mostly noise; the last `against` learn the opposite."""
    random, made = np.random.default_rng(1), []
    for turn in range(times):
        for n in range(senders):
            sign = -1.0 if n >= senders - against else 1.0
            delta = array("f", (sign * 0.05 + random.normal(0.0, 0.1, 5)).tolist())
            one = update(100 * turn + n, deltas={"flaky": delta}, examples={"flaky": 64}, project=n)
            made.append(StoredUpdate(pack_update(one), owner.format(n=n), turn))
    return made


def opponents(updates: Iterable[StoredUpdate]) -> frozenset[tuple[str, str]]:
    return compare_sources(updates, RULES)["flaky"].opponents


def faster(factor: float) -> dict[str, AggregationRules]:
    return {**RULES, "flaky": replace(RULES["flaky"], rate=RULES["flaky"].rate * factor)}


def without_opponents(compared: Comparisons) -> Comparisons:
    return {name: one._replace(opponents=frozenset()) for name, one in compared.items()}


class TestOpponents:
    def test_who_goes_against_all_others_is_left_out(self, update):
        """Two of ten, known from twenty updates each; the direction is as if they had sent nothing."""
        past, start = sent(update, 20, 10, 2), ModelVersion(6, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        compared = compare_sources(past, RULES)
        assert compared["flaky"].opponents == {("o8", ""), ("o9", "")}
        made = aggregate_updates(start, past[-10:], RULES, compared)
        assert made == aggregate_updates(start, past[-10:-2], faster(10 / 8), without_opponents(compared))
        by_chance = {"flaky": compared["flaky"]._replace(proven=frozenset())}
        made = aggregate_updates(start, past[-10:], RULES, by_chance)
        assert made == aggregate_updates(start, past[-10:-2], RULES, without_opponents(compared))

    def test_proven_opponents_do_not_slow_the_others_down(self, update):
        """A step is as long as if they had moved the task like the others, and at most ten sevenths as long."""
        past, start = sent(update, 20, 10, 2), ModelVersion(6, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        compared = compare_sources(past, RULES)
        assert compared["flaky"].proven == {("o8", ""), ("o9", "")}
        made = aggregate_updates(start, past[-4:], RULES, compared)
        assert made == aggregate_updates(start, past[-4:-2], faster(10 / 7), without_opponents(compared))
        assert aggregate_updates(start, past[-2:], RULES, compared) == start.vectors

    def test_next_version_says_how_many_and_leaves_them_out(self, update):
        past = sent(update, 20, 10, 2)
        start = ModelVersion(6, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        buffered = tuple(replace(one, version=-1) for one in past[-10:])
        current = CurrentModels(start, start.vectors, {})
        moment = AggregationInput(current, 7, {}, {}, 0.0, buffered, {}, lambda: past[:-10])
        made = next_version(moment, RULES, GATE)
        assert made.opposed == {"flaky": 2}
        compared = without_opponents(compare_sources(past, RULES))
        assert made.version.vectors == aggregate_updates(start, buffered[:-2], faster(10 / 8), compared)

    def test_evaluations_of_opponents_do_not_count(self, update):
        """Three of ten learn the opposite, and evaluate a version that all others find better as worse."""
        past = sent(update, 20, 10, 3)
        start = ModelVersion(0, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        trial = Trial("flaky", 1, 0, 0.0, array("f", [0.1] * 5))
        votes = tuple(
            Evaluation(f"p{n % 10}", f"o{n % 10}", 1.0 if n % 10 >= 7 else -0.1 - 0.01 * (n % 7)) for n in range(60)
        )
        moment = AggregationInput(
            CurrentModels(start, start.vectors, {"flaky": trial}),
            7,
            {},
            {},
            0.0,
            tuple(replace(one, version=-1) for one in past[-10:]),
            {"flaky": UpdateEvaluations(votes, ActiveCounts(10, 10))},
            lambda: past[:-10],
        )
        (decision,) = next_version(moment, {"flaky": RULES["flaky"]}, GATE).decisions
        assert (decision.verdict.outcome, decision.verdict.owners) == ("promoted", 7)
        (decision,) = next_version(replace(moment, recent=tuple), {"flaky": RULES["flaky"]}, GATE).decisions
        assert decision.verdict.owners == 10, "one update of each says nothing"

    def test_opponent_in_a_federation_of_four_blocks_nothing(self, update):
        """Its evaluations do not count, so that it is not waited for; one that did not evaluate yet is."""
        past = sent(update, 20, 4, 1)
        start = ModelVersion(0, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        trial = Trial("flaky", 1, 0, 0.0, array("f", [0.1] * 5))
        votes = tuple(Evaluation(f"p{n % 4}", f"o{n % 4}", -0.3 - 0.01 * (n % 5)) for n in range(60))
        moment = AggregationInput(
            CurrentModels(start, start.vectors, {"flaky": trial}),
            7,
            {},
            {},
            0.0,
            tuple(replace(one, version=-1) for one in past[-4:]),
            {"flaky": UpdateEvaluations(votes, ActiveCounts(4, 4))},
            lambda: past[:-4],
        )
        (decision,) = next_version(moment, {"flaky": RULES["flaky"]}, GATE).decisions
        assert (decision.verdict.outcome, decision.verdict.counted) == ("promoted", 3)
        three = UpdateEvaluations(tuple(vote for vote in votes if vote.owner != "o2"), ActiveCounts(4, 4))
        assert next_version(replace(moment, evidence={"flaky": three}), RULES, GATE).decisions == ()

    def test_attackers_on_one_coordinate_are_found(self, update):
        """Three of ten spend their deltas on one coordinate, so that its sum is theirs, and not the others'."""
        past = sent(update, 8, 10, 0)
        spent = array("f", [0.0, 0.0, 0.0, 0.0, -1.0])
        past = [
            replace(one, body=pack_update(one.update()._replace(deltas={"flaky": spent})))
            if one.owner in ("o7", "o8", "o9")
            else one
            for one in past
        ]
        assert opponents(past) == {("o7", ""), ("o8", ""), ("o9", "")}

    def test_a_slow_drift_in_rare_coordinates_is_found(self, update):
        """Rare flakes: what is learned of sixty rare words is small beside the noise of five facts that all have.

        Four of twenty learn like the others and push all words the other way, by a quarter of their deltas' length.
        """
        random, past = np.random.default_rng(2), []
        for turn in range(6):
            for n in range(20):
                facts, seen = random.normal(0.0, 0.1, 5), random.random(60) < 0.5
                words = seen * random.normal(0.004, 0.015, 60)
                if n >= 16:
                    words -= 0.25 * 0.26 / np.sqrt(60)
                delta = array("f", [*facts.tolist(), *words.tolist()])
                one = update(100 * turn + n, deltas={"flaky": delta}, examples={"flaky": 64}, project=n)
                past.append(StoredUpdate(b"", f"o{n}", turn, known=one))
        assert {(f"o{n}", "") for n in range(16, 20)} <= opponents(past)


class TestUsual:
    def test_most_of_one_aggregation_move_no_further_than_usual(self, update):
        """Six attackers of fifty are in one aggregation of ten; its median is theirs, that of all sources is not."""
        past = sent(update, 3, 50, 0)
        start = ModelVersion(3, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        push = array("f", [0.0, 0.0, 0.0, 0.0, -1.0])
        buffered = [
            StoredUpdate(
                pack_update(update(900 + n, deltas={"flaky": push}, examples={"flaky": 64}, project=n)), f"o{n}"
            )
            for n in range(6)
        ]
        buffered += past[-4:]
        compared = compare_sources([*past, *buffered], RULES)
        assert compared["flaky"].opponents.isdisjoint({(f"o{n}", "") for n in range(44, 50)})
        guarded = aggregate_updates(start, buffered, RULES, without_opponents(compared))["flaky"][4]
        assert aggregate_updates(start, buffered, RULES)["flaky"][4] < -3.0
        assert guarded > -1.0

    def test_few_sources_have_no_usual_length(self, update):
        assert compare_sources(sent(update, 3, 2, 0), RULES)["flaky"].usual.norm() == inf
        assert compare_sources(sent(update, 3, 3, 0), RULES)["flaky"].usual.norm() == pytest.approx(0.25, rel=0.3)

    def test_one_update_and_few_sources_say_nothing(self, update):
        assert opponents(sent(update, 1, 10, 2)) == frozenset()
        assert opponents(sent(update, 6, 3, 1)) == frozenset()

    def test_one_of_four_can_be_known(self, update):
        assert opponents(sent(update, 12, 4, 1)) == {("o3", "")}

    def test_at_most_three_tenths_are_left_out(self, update):
        """However many seem to go against the others: near to the optimum the direction is mostly noise."""
        assert len(opponents(sent(update, 6, 20, 9))) == 6

    def test_all_projects_of_an_owner_are_one_source(self, update):
        """Twenty projects of one owner are one of five sources, whatever direction they have together."""
        past = [
            replace(one, owner="many" if n % 24 >= 4 else f"o{n % 24}") for n, one in enumerate(sent(update, 6, 24, 20))
        ]
        assert opponents(past) == {("many", "")}

    def test_owner_of_many_does_not_make_the_direction(self, update):
        """With fewer owners projects are the sources, and those of one owner count like four."""
        past = [
            replace(one, owner="many" if n % 30 >= 18 else f"o{n % 30 % 2}")
            for n, one in enumerate(sent(update, 6, 30, 12))
        ]
        found = opponents(past)
        assert len(found) == 9
        assert {owner for owner, _ in found} == {"many"}

    def test_claimed_pseudonym_does_not_put_another_owner_out(self, update):
        """A project of one owner is not a project of the same name of another owner."""
        past = [
            replace(one, owner=("acme", "beta", "evil")[n % 10 // 4]) for n, one in enumerate(sent(update, 6, 10, 2))
        ]
        claimed = [
            replace(one, body=pack_update(one.update()._replace(project=f"{0:032x}"))) if one.owner == "evil" else one
            for one in past
        ]
        found = opponents(claimed)
        assert ("evil", f"{0:032x}") in found
        assert ("acme", f"{0:032x}") not in found
