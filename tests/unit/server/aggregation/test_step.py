"""What an aggregation decides: promotion, rejection, the next trial; each task on its own."""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import inf

import numpy as np
import pytest

from fedstep.federation.messages import pack_update
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import AggregationRules, TaskDelta
from fedstep.server.aggregation.inputs import AggregationInput, CurrentModels, ModelVersion, StoredUpdate, Trial
from fedstep.server.aggregation.step import (
    REPLAY_SECONDS,
    Comparisons,
    aggregate_updates,
    compare_sources,
    find_suspects,
    iter_task_deltas,
    log_decisions,
    next_version,
    replay_updates,
)
from fedstep.server.gate import ActiveCounts, Evaluation, Gate, UpdateEvaluations

RULES = {"flaky": AggregationRules(1.0, decay=0.0), "build-duration": AggregationRules(0.2, decay=0.0)}
GATE = Gate()
BETTER = tuple(Evaluation(f"p{n % 9}", f"o{n % 9}", -0.3) for n in range(60))
ACTIVE = ActiveCounts(9, 9)
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
    past = stored(update, (1, 2, 3), 1) + stored(update, (4, 5), 3)

    def since(version: int) -> Iterator[StoredUpdate]:
        return (one for one in past if one.version > version)

    current = CurrentModels(task, vectors(0.0), trials)
    return AggregationInput(current, 5, {}, {}, 2000.0, stored(update, (6, 7)), {}, since)


class TestTrial:
    def test_open_trial_moves_the_candidate_and_not_production(self, moment):
        """While a trial is open, the candidate moves and production does not."""
        made = next_version(moment, RULES, GATE)
        assert made.version.vectors == aggregate_updates(moment.current.candidate, moment.buffered, RULES)
        assert (made.version.version, made.version.production) == (5, 0)
        assert made.version.sources == {"flaky": 0, "build-duration": 0}
        assert made.decisions == ()

    def test_task_without_a_trial_begins_one_with_its_candidate(self, moment):
        """A task without a trial begins one with its newest vector."""
        made = next_version(moment, RULES, GATE)
        fresh = {trial.task: trial for trial in made.trials}
        assert fresh["flaky"] == moment.current.trials["flaky"]
        vector = made.version.vectors["build-duration"]
        assert fresh["build-duration"] == Trial("build-duration", 5, 0, 2000.0, vector)

    def test_nothing_is_tried_while_candidate_is_production(self, moment):
        task = moment.current.candidate
        still = replace(moment, current=CurrentModels(task, task.vectors, {}), buffered=())
        assert next_version(still, RULES, GATE).trials == ()

    def test_promotion_changes_one_task_and_begins_the_next_trial(self, moment):
        """A promotion changes one task and the version of production, and the next trial begins."""
        made = next_version(replace(moment, evidence={"flaky": UpdateEvaluations(BETTER, ACTIVE)}), RULES, GATE)
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


class TestReplay:
    def test_rejection_replays_all_updates_but_the_suspects(self, moment):
        """After a rejection, the candidate is production with all updates aggregated again but those of suspects."""
        made = next_version(replace(moment, evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)}), RULES, GATE)
        (decision,) = made.decisions
        assert (decision.verdict.outcome, decision.replayed) == ("rejected", True)
        assert 1 <= decision.left_out <= 2
        assert made.version.sources["flaky"] == 0
        assert (
            made.version.vectors["flaky"]
            != aggregate_updates(moment.current.candidate, moment.buffered, RULES)["flaky"]
        )
        folded = aggregate_updates(moment.current.candidate, moment.buffered, RULES)
        assert made.version.vectors["build-duration"] == folded["build-duration"], "the other head goes on"
        assert {trial.task: trial.version for trial in made.trials}["flaky"] == 5

    def test_replay_without_suspects_equals_the_aggregations(self, update):
        """A replay without suspects gives what the aggregations gave.

        From the same start, through the same aggregations, bit for bit.
        """
        honest = ModelVersion(0, 0, 0.0, vectors(0.0), {"flaky": 0, "build-duration": 0})
        first = aggregate_updates(honest, (StoredUpdate(one.body) for one in stored(update, (1, 2, 3))), RULES)
        second = aggregate_updates(ModelVersion(1, 0, 0.0, first), stored(update, (4, 5)), RULES)
        away = {name: array("f", [-1.0] * len(vector)) for name, vector in first.items()}
        current = CurrentModels(replace(honest, version=1, vectors=first), honest.vectors, {})
        damage = Trial("flaky", 1, 0, 0.0, away["flaky"])
        past = stored(update, (1, 2, 3), 1)
        moment = AggregationInput(
            current=replace(current, trials={"flaky": damage}),
            version=2,
            spent={},
            replayed={},
            now=0.0,
            buffered=stored(update, (4, 5)),
            evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)},
            since=lambda version: iter(one for one in past if one.version > version),
        )
        nobody = replace(GATE, suspects=0.0)
        made = next_version(moment, RULES, nobody)
        assert (made.decisions[0].replayed, made.decisions[0].left_out) == (True, 0)
        assert made.version.vectors["flaky"] == second["flaky"]

    def test_a_task_is_replayed_once_a_day(self, moment):
        lately = replace(
            moment,
            evidence={"flaky": UpdateEvaluations(WORSE, ACTIVE)},
            replayed={"flaky": moment.now - REPLAY_SECONDS / 2},
        )
        made = next_version(lately, RULES, GATE)
        assert [(one.verdict.outcome, one.replayed) for one in made.decisions] == [("rejected", False)]
        assert made.version.vectors == aggregate_updates(moment.current.candidate, moment.buffered, RULES)
        again = replace(lately, replayed={"flaky": moment.now - REPLAY_SECONDS})
        assert next_version(again, RULES, GATE).decisions[0].replayed


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


def task_delta(number: int, delta: list[float], owner: str) -> TaskDelta:
    return TaskDelta(str(number), f"p{number}", 0, np.array(delta, np.float32), owner)


class TestSuspects:
    def test_suspects_are_owners_furthest_along_the_damage(self):
        """Suspects are the owners whose deltas went furthest along the damage."""
        damage = np.array([1.0, 0.0], np.float32)
        parts = [task_delta(n, [0.1 * n, 1.0], f"o{n}") for n in range(-4, 5)]
        assert find_suspects(parts, damage, 9.0, 0.2, owners=5) == {"o4", "o3"}
        assert find_suspects(parts, -damage, 9.0, 0.2, owners=5) == {"o-4", "o-3"}
        assert find_suspects(parts, damage, 9.0, 0.2, owners=50) == {"p4", "p3"}, "too few owners: projects"

    def test_nobody_who_went_the_other_way_is_a_suspect(self):
        damage = np.array([1.0, 0.0], np.float32)
        parts = [task_delta(n, [-0.1, 1.0], f"o{n}") for n in range(10)]
        assert find_suspects(parts, damage, 9.0, 0.2, owners=5) == frozenset()

    def test_a_damage_is_undone_where_its_makers_are_a_fifth(self, update):
        """Ten senders, two of whom push one coordinate: after the rejection task is what the eight made."""
        start = ModelVersion(0, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        rules = {"flaky": replace(RULES["flaky"], longer=100.0, single=1.0)}
        push, pull = array("f", [0, 0, 0, 0, 1.0]), array("f", [0.1, -0.1, 0.1, 0, 0])
        sent = [
            StoredUpdate(
                pack_update(update(n, deltas={"flaky": push if n < 2 else pull}, examples={"flaky": 64})), f"o{n}", 1
            )
            for n in range(10)
        ]
        damaged = aggregate_updates(start, sent, rules)
        trial = Trial("flaky", 1, 0, 0.0, array("f", [0, 0, 0, 0, 0.9]))  # what they push for
        current = CurrentModels(ModelVersion(1, 0, 0.0, damaged, {"flaky": 0}), start.vectors, {"flaky": trial})
        moment = AggregationInput(
            current, 2, {}, {}, 0.0, (), {"flaky": UpdateEvaluations(WORSE, ACTIVE)}, lambda _version: iter(sent)
        )
        made = next_version(moment, rules, GATE)
        assert made.version.vectors == aggregate_updates(start, sent[2:], rules)
        assert made.decisions[0].left_out == 2


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


def without_opponents(compared: Comparisons) -> Comparisons:
    return {name: one._replace(opponents=frozenset()) for name, one in compared.items()}


class TestOpponents:
    def test_who_goes_against_all_others_is_left_out(self, update):
        """Two of ten, known from six updates each; the aggregation is as if they had sent nothing."""
        past, start = sent(update, 6, 10, 2), ModelVersion(6, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        compared = compare_sources(past, RULES)
        assert compared["flaky"].opponents == {("o8", ""), ("o9", "")}
        made = aggregate_updates(start, past[-10:], RULES, compared)
        assert made == aggregate_updates(start, past[-10:-2], RULES, without_opponents(compared))

    def test_next_version_says_how_many_and_replays_without_them(self, update):
        past = sent(update, 6, 10, 2)
        start = ModelVersion(0, 0, 0.0, {"flaky": zeros(5)}, {"flaky": 0})
        trial = Trial("flaky", 1, 0, 0.0, array("f", [0.1] * 5))
        moment = AggregationInput(
            CurrentModels(start, start.vectors, {"flaky": trial}),
            7,
            {},
            {},
            0.0,
            tuple(replace(one, version=-1) for one in past[-10:]),
            {"flaky": UpdateEvaluations(WORSE, ACTIVE)},
            lambda _version: iter(past[:-10]),
            lambda: past[:-10],
        )
        made = next_version(moment, {"flaky": RULES["flaky"]}, GATE)
        assert made.opposed == {"flaky": 2}
        honest = [one for one in past if one.owner not in ("o8", "o9")]
        suspects = find_suspects(
            [part for one in past for _, part in iter_task_deltas(one, 0)], np.full(5, 0.1), 1.0, 0.2, 5
        )
        kept = [replace(one, version=-1) if one.version == 5 else one for one in honest]
        usual = without_opponents(compare_sources(past, RULES))["flaky"]
        again = replay_updates("flaky", start.vectors["flaky"], kept, 7, RULES["flaky"], suspects, usual)
        assert made.version.vectors["flaky"] == again

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
            lambda _version: iter(past[:-10]),
            lambda: past[:-10],
        )
        (decision,) = next_version(moment, {"flaky": RULES["flaky"]}, GATE).decisions
        assert (decision.verdict.outcome, decision.verdict.owners) == ("promoted", 7)
        (decision,) = next_version(replace(moment, recent=tuple), {"flaky": RULES["flaky"]}, GATE).decisions
        assert decision.verdict.owners == 10, "one update of each says nothing"

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
        assert aggregate_updates(start, buffered, RULES)["flaky"][4] < -4.0
        assert guarded > -2.0

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
