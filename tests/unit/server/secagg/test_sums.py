"""Sums of shares: whose, how they open, what they lead to, and what the page says of them."""

import re
from array import array
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import WireError
from fedstep.federation.messages import MOST_NOISE, Update, little_endian_bytes
from fedstep.federation.secagg.shares import (
    LEVELS,
    MAX_SUMMED,
    MAX_WEIGHT,
    MaskedShare,
    SeedShare,
    derive_task_seeds,
    draw_gaussian,
    noise_deviation,
    quantise,
    split_update,
)
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import TaskDelta, aggregate
from fedstep.server.aggregation.inputs import CurrentModels, ModelState, ModelVersion, Trial
from fedstep.server.aggregation.step import TaskSum, advance_by_sums, to_numpy
from fedstep.server.gate import EvaluationSum, EvaluationSums, Gate
from fedstep.server.mode import BufferPolicy
from fedstep.server.secagg.rounds import (
    PendingShare,
    Proposal,
    RoundPart,
    choose_parts,
    max_length,
    pack_proposal,
    sign,
    sum_masks,
    sum_vectors,
    unmask_sum,
    unpack_proposal,
    unpack_reply,
    weight,
)
from fedstep.server.secagg.share_store import KEPT_SECONDS
from tests.helpers.server_books import AT_ONCE, BOUNDS, RULES, SIZES, drawn, seed_of


def waiting(
    number: int, task: str = "flaky", project: str = "", base: int = 0, trial: int = -1, missed: int = 0
) -> PendingShare:
    project = project or f"project {number}"
    return PendingShare(f"{number:032x}", task, project, base, trial, "f" * 32, float(number), missed=missed)


def ids(parts: tuple[RoundPart, ...]) -> Mapping[str, list[int]]:
    return {part.task: sorted(int(number, 16) for number in part.pairs) for part in parts}


class TestSelection:
    # whose updates are summed
    def test_a_sum_has_one_update_of_each_project_the_oldest_first(self):
        several = [waiting(number, project="a") for number in (4, 1, 2)]
        others = [waiting(number) for number in (5, 6)]
        assert ids(choose_parts([*several, *others], 0, {}, 9.0, AT_ONCE, 3)) == {"flaky": [1, 5, 6]}
        assert choose_parts([*several, *others[1:]], 0, {}, 9.0, AT_ONCE, 3) == ()

    def test_each_task_has_a_sum_of_its_own_when_it_is_due(self):
        flaky = [waiting(number) for number in range(3)]
        triage = [waiting(number, task="triage") for number in range(5)]
        folding = BufferPolicy(updates=5, seconds=100.0)
        assert ids(choose_parts([*flaky, *triage], 0, {}, 50.0, folding, 3)) == {"triage": [0, 1, 2, 3, 4]}
        assert set(ids(choose_parts([*flaky, *triage], 0, {}, 100.0, folding, 3))) == {"flaky", "triage"}

    def test_updates_of_one_staleness_are_summed_together(self):
        """Updates of one staleness are summed, and staler ones join where there are too few."""
        fresh = [waiting(number, base=20) for number in range(3)]
        stale = [waiting(number, base=4) for number in range(3, 6)]
        assert ids(choose_parts([*fresh, *stale], 20, {}, 9.0, AT_ONCE, 3)) == {"flaky": [0, 1, 2]}
        assert ids(choose_parts([*fresh[:2], *stale], 20, {}, 9.0, AT_ONCE, 3)) == {"flaky": [0, 1, 3, 4, 5]}
        assert ids(choose_parts(stale, 20, {}, 9.0, AT_ONCE, 3)) == {"flaky": [3, 4, 5]}

    def test_evaluators_of_the_version_are_summed_apart(self):
        """Updates that evaluated the version on trial are summed apart."""
        voting = [waiting(number, trial=7) for number in range(3)]
        others = [waiting(number, trial=trial) for number, trial in ((3, 6), (4, -1), (5, -1))]
        (part,) = choose_parts([*voting, *others], 7, {"flaky": 7}, 9.0, AT_ONCE, 3)
        assert (part.trial, ids((part,))) == (7, {"flaky": [0, 1, 2]})
        (part,) = choose_parts([*voting[:2], *others], 7, {"flaky": 7}, 9.0, AT_ONCE, 3)
        assert (part.trial, ids((part,))) == (-1, {"flaky": [3, 4, 5]})
        (part,) = choose_parts([*voting[:2], *others[:1]], 7, {"flaky": 7}, 9.0, AT_ONCE, 3)
        assert (part.trial, ids((part,))) == (-1, {"flaky": [0, 1, 3]})

    def test_update_without_its_share_delays_no_other_of_the_project(self):
        """An update without its other share does not keep the project's others waiting."""
        orphan, next_one = waiting(1, project="a", missed=1), waiting(9, project="a")
        assert ids(choose_parts([orphan, next_one, waiting(5), waiting(6)], 0, {}, 9.0, AT_ONCE, 3)) == {
            "flaky": [5, 6, 9]
        }

    def test_weights_are_public_whole_numbers_above_zero(self):
        """Weights are public whole numbers that fall and never reach zero."""
        weights = [weight(0, staleness) for staleness in range(101)]
        assert weights == sorted(weights, reverse=True)
        assert (weights[0], weights[3], weights[-1]) == (MAX_WEIGHT, MAX_WEIGHT // 2, MAX_WEIGHT // 8)


class TestSums:
    # how sums open
    @given(st.lists(st.lists(st.floats(-0.25, 0.25, width=32), min_size=4, max_size=4), min_size=1, max_size=8))
    def test_the_sum_without_its_pads_is_the_sum_of_the_updates(self, rows):
        updates = [drawn(number)._replace(deltas={"flaky": array("f", row)}) for number, row in enumerate(rows)]
        halves = [split_update(update, BOUNDS, seed_of(number)) for number, update in enumerate(updates)]
        masked = sum_vectors((little_endian_bytes(first.vectors["flaky"]) for first, _ in halves), 5)
        pads = sum_masks((derive_task_seeds(second)["flaky"] for _, second in halves), 5)
        steps = unmask_sum(masked, pads, len(rows), 4)
        assert steps[:4].tolist() == np.sum([quantise(row, 0.5) for row in rows], axis=0).tolist()
        assert steps[4] == 0

    @pytest.mark.parametrize("sign", [1, -1])
    def test_most_weighted_updates_at_their_bounds_do_not_overflow(self, sign):
        """The most updates at their bounds do not overflow, also when weighted."""
        half = np.array([sign * LEVELS * MAX_SUMMED], np.int64).view(np.uint64)
        steps = unmask_sum(half, np.zeros(1, np.uint64), MAX_SUMMED, 1)
        assert int((steps * MAX_WEIGHT)[0]) == sign * LEVELS * MAX_SUMMED * MAX_WEIGHT
        with pytest.raises(WireError, match="overflow"):
            unmask_sum(half, np.zeros(1, np.uint64), MAX_SUMMED + 1, 1)

    @pytest.mark.parametrize("wrong", [[3 * LEVELS + 3, 0], [-(1 << 63), 0], [2 * LEVELS, -3 * LEVELS], [1 << 40, 1]])
    def test_a_sum_that_no_honest_updates_have_is_refused(self, wrong):
        with pytest.raises(WireError, match="dishonest"):
            unmask_sum(np.array(wrong, np.int64).view(np.uint64), np.zeros(2, np.uint64), 3, 2)

    def test_honest_noise_is_accepted_and_a_longer_sum_is_not(self):
        """Honest noise is accepted, and a sum that is longer than noise can make it is not."""
        size, updates, deviation = 2561, 10, noise_deviation(MOST_NOISE, 2)
        direction = [0.999 * size**-0.5] * size
        drawn = [draw_gaussian(deviation, bytes([number] * 32), "a test", size) for number in range(updates)]
        steps = np.sum([[*quantise(direction, 1.0, noise), LEVELS] for noise in drawn], axis=0)
        none = np.zeros(size + 1, np.uint64)
        assert unmask_sum(steps.view(np.uint64), none, updates, size, deviation).tolist() == steps.tolist()
        steps[0] += round(max_length(updates, size, deviation))
        with pytest.raises(WireError, match="dishonest"):
            unmask_sum(steps.view(np.uint64), none, updates, size, deviation)

    @pytest.mark.parametrize("deviation", [0, 1 << 16])
    def test_noise_is_no_room_for_a_score(self, deviation):
        for score, lies in ((3 * LEVELS, False), (3 * LEVELS + 1, True)):
            steps = np.array([0, 0, score], np.int64).view(np.uint64)
            with pytest.raises(WireError) if lies else nullcontext():
                unmask_sum(steps, np.zeros(3, np.uint64), 3, 2, deviation)


# what sums lead to


def standing() -> ModelState:
    vectors = {name: zeros(size) for name, size in SIZES.items()}
    current = CurrentModels(ModelVersion(3, 3, 0.0, vectors, dict.fromkeys(SIZES, 3)), vectors, {})
    return ModelState(current, 4, {}, {}, 1e6)


def task_sum(updates: list[Update], scale: float = 1.0 / LEVELS, senders: Sequence[tuple[str, str]] = ()) -> TaskSum:
    steps = np.sum([quantise(update.deltas["flaky"], 0.5) for update in updates], axis=0)
    return TaskSum(steps, scale, senders=senders or [("", update.project) for update in updates])


class TestStep:
    def test_task_moves_as_with_the_same_updates_in_the_clear(self):
        """As after an aggregation of the same updates in the clear, while they are too few for a median of them."""
        updates = [drawn(number) for number in range(2)]
        made = advance_by_sums(standing(), {"flaky": task_sum(updates)}, {}, RULES, None)
        plain = [TaskDelta(u.id, u.project, 0, to_numpy(u.deltas["flaky"])) for u in updates]
        wanted = aggregate(to_numpy(zeros(4)), plain, RULES["flaky"])
        assert list(made.version.vectors["flaky"]) == pytest.approx(wanted, abs=4 * 0.5 / LEVELS + 1e-6)
        assert made.version.vectors["triage"] == zeros(2)
        assert (made.version.version, made.version.production) == (4, 4)

    @pytest.mark.parametrize(("projects", "most"), [(4, 3.0), (8, 4.0)])
    def test_many_projects_move_a_task_by_a_multiple_of_the_mean(self, projects, most):
        """A sum of many projects moves a task as many times their mean as the rules say; they have no owners."""
        updates = [drawn(number) for number in range(projects)]
        whole, held = (
            advance_by_sums(standing(), {"flaky": task_sum(updates)}, {}, rules, None).version.vectors["flaky"]
            for rules in (RULES, {**RULES, "flaky": replace(RULES["flaky"], together=most)})
        )
        assert list(held) == pytest.approx([most / projects * number for number in whole], abs=1e-7)

    def test_projects_of_one_owner_slow_a_sum_like_four(self):
        """Projects of one owner slow a sum no more than four would."""
        updates = [drawn(number) for number in range(4)]
        rules = {**RULES, "flaky": replace(RULES["flaky"], together=5.0)}
        theirs = [(f"o{number}", f"p{number}") for number in range(4)]
        mine = [("me", f"x{number}") for number in range(40)]
        whole, held = (
            advance_by_sums(standing(), {"flaky": task_sum(updates, senders=senders)}, {}, rules, None).version.vectors[
                "flaky"
            ]
            for senders in (theirs, [*theirs, *mine])
        )
        assert list(held) == pytest.approx([5 / 8 * number for number in whole], abs=1e-7)

    def test_a_stale_sum_moves_a_task_less(self):
        updates = [drawn(number) for number in range(4)]
        fresh, stale = (
            advance_by_sums(standing(), {"flaky": task_sum(updates, scale=scale)}, {}, RULES, None).version.vectors[
                "flaky"
            ]
            for scale in (1.0 / LEVELS, 0.5 / LEVELS)
        )
        assert list(stale) == pytest.approx([number / 2 for number in fresh], abs=1e-7)

    def test_the_gate_judges_by_sums_of_scores(self):
        trial = Trial("flaky", 2, 1, 0.0, array("f", [1.0] * 4))
        before = standing()
        on_trial = replace(before, current=replace(before.current, trials={"flaky": trial}))

        def outcome(*releases: EvaluationSum, restarted: Mapping[str, float] = on_trial.restarted):
            before = replace(on_trial, restarted=restarted)
            return advance_by_sums(before, {}, {"flaky": EvaluationSums(releases)}, RULES, Gate())

        still_open = outcome(EvaluationSum(5, 0.0))
        assert (still_open.trials, still_open.decisions) == ((trial,), ())
        better, worse = (outcome(*[EvaluationSum(10, total)] * 20) for total in (-9.0, 9.0))
        assert better.version.sources["flaky"] == 2
        assert [decision.verdict.outcome for decision in better.decisions] == ["promoted"]
        assert worse.version.sources["flaky"] == 3
        assert worse.decisions[0].restarted
        again = outcome(*[EvaluationSum(10, 9.0)] * 20, restarted={"flaky": 1e6 - 60})
        assert not again.decisions[0].restarted

    def test_a_rejection_sends_a_task_halfway_back(self):
        before = standing()
        moved = array("f", [1.0] * 4)
        candidate = replace(before.current.candidate, vectors={**before.current.candidate.vectors, "flaky": moved})
        current = replace(before.current, candidate=candidate, trials={"flaky": Trial("flaky", 2, 1, 0.0, moved)})
        evidence = {"flaky": EvaluationSums((EvaluationSum(10, 9.0),) * 20)}
        made = advance_by_sums(replace(before, current=current), {}, evidence, RULES, Gate())
        assert made.version.vectors["flaky"].tolist() == [0.5] * 4, "production is zero"


class TestMessages:
    # what leader and helper say
    def test_proposal_round_trips_and_signatures_bind_answers(self):
        """A proposal is read as it was written, and signatures bind answers to it."""
        proposal = Proposal(
            3, "a" * 16, (RoundPart("flaky", 7, {"b" * 32: "c" * 32}), RoundPart("triage", -1, {"d" * 32: "e" * 32}))
        )
        body = pack_proposal(proposal)
        assert unpack_proposal(body) == proposal
        other = pack_proposal(replace(proposal, round_number=4))
        assert sign("secret", body, b"yes") != sign("secret", other, b"yes")
        assert len({sign(s, b) for s in ("secret", "other") for b in (body, other)}) == 4
        assert sign("secret", body) != sign("secret", b"", body)

    @given(st.binary(max_size=100))
    def test_any_bytes_are_no_proposal_or_raise_a_wire_error(self, body):
        with pytest.raises(WireError):
            unpack_proposal(body)

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b'{"round": 4, "parts": []}',
            b'{"round": 3, "parts": [{"task": "triage", "ids": ["%s"], "total": ""}]}' % (b"b" * 32),
            b'{"round": 3, "parts": [{"task": "flaky", "ids": ["%s"], "total": ""}]}' % (b"c" * 32),
            b'{"round": 3, "parts": [{"task": "flaky", "ids": [], "total": ""}]}',
            b'{"round": 3, "parts": [{"task": "flaky", "ids": ["%s"], "total": "AAAA"}]}' % (b"b" * 32),
        ],
    )
    def test_an_answer_to_something_else_is_none(self, answer):
        proposal = Proposal(3, "a" * 16, (RoundPart("flaky", -1, {"b" * 32: "c" * 32}),))
        with pytest.raises(WireError):
            unpack_reply(answer, proposal, SIZES)


class TestPage:
    def test_every_test_that_the_page_names_is_there(self):
        root = Path(__file__).parents[4]
        named = set(
            re.findall(r"`(test_\w+)`", (root / "docs/explanation/secure-aggregation.md").read_text(encoding="utf-8"))
        )
        there = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
        assert len(named) > 10
        assert {name for name in named if f"def {name}(" not in there} == set()

    def test_page_lists_the_fields_of_both_shares_and_the_limits(self):
        """The page lists the fields of both shares and the limits of the code."""
        page = (Path(__file__).parents[4] / "docs/explanation/secure-aggregation.md").read_text(encoding="utf-8")
        rows = dict(re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|", page, re.M))
        assert {*MaskedShare._fields, *SeedShare._fields} - {"trials", "vectors"} <= rows.keys()
        assert {word for word, helper in rows.items() if helper == "yes"} == {*SeedShare._fields} - {"trials"} | {
            "trial.<task>"
        }
        assert f"at most {MAX_SUMMED:,} updates and a weight of at most {MAX_WEIGHT}" in page
        assert LEVELS == 1 << 20
        assert KEPT_SECONDS == 7 * 86_400
