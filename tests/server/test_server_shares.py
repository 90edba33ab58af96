"""Sums of shares: whose, how they open, what they lead to, and that each is released once, on disk."""

import re
from array import array
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import WireError
from fedstep.federation.bounds import clip
from fedstep.federation.halves import Masked, Seeded, residue_bytes
from fedstep.federation.shares import HEAVIEST, LEVELS, MOST_SUMMED, REACH, pair_of, quantised, split
from fedstep.federation.wire import Score, Shape, Update
from fedstep.model.linear import zeros
from fedstep.server.aggregate import Contribution, Rules, aggregate
from fedstep.server.buffer import Folding
from fedstep.server.choosing import Waiting, chosen, weight
from fedstep.server.gate import Gate
from fedstep.server.gate_sums import Release
from fedstep.server.helper_book import HelperBook
from fedstep.server.leader_book import LeaderBook
from fedstep.server.lineage import wide
from fedstep.server.records import Current, Trial, Version
from fedstep.server.rounds import Part, Proposal, pack_proposal, signature, unpack_answer, unpack_proposal
from fedstep.server.share_book import KEPT_SECONDS, HalfOffer
from fedstep.server.shared_sums import HeadSum, Standing, lifted, next_shared, summed, summed_pads
from fedstep.server.store import Store

SIZES = {"flaky": 4, "triage": 2}
OURS = Shape("a" * 16, SIZES)
RULES = {"flaky": Rules(clip=0.5), "triage": Rules(clip=1.0)}
BOUNDS = {name: rules.clip for name, rules in RULES.items()}
AT_ONCE = Folding(updates=1, seconds=3600.0)
FEWEST = 3


def seed_of(number: int) -> bytes:
    return Random(number).randbytes(32)


def drawn(number: int, heads: tuple[str, ...] = ("flaky",), base: int = 0, trial: int = -1, score: float = 0.0):
    dice = Random(number)
    deltas = {head: clip(array("f", [dice.gauss(0, 1) for _ in range(SIZES[head])]), BOUNDS[head]) for head in heads}
    scores = dict.fromkeys(heads, Score(trial, score)) if trial >= 0 else {}
    name = f"{number:032x}"
    return Update("a" * 16, base, name, name, dict.fromkeys(heads, 8), deltas, scores)


def offers(update: Update, project: str = "") -> tuple[HalfOffer, HalfOffer]:
    """What leader and helper keep of an update."""
    masked, seeded = split(update, BOUNDS, seed_of(int(update.id, 16)))
    whose = (update.id, project or update.project, "owner", masked.pair, masked.trials)
    vectors = {head: residue_bytes(vector) for head, vector in masked.vectors.items()}
    return (
        HalfOffer(*whose, vectors, update.base),
        HalfOffer(*whose, dict.fromkeys(vectors, seeded.seed)),
    )


def waiting(number: int, **changes: object) -> Waiting:
    one = Waiting(f"{number:032x}", "flaky", f"project {number}", 0, -1, "f" * 32, float(number))
    return replace(one, **changes)


def ids(parts: tuple[Part, ...]) -> Mapping[str, list[int]]:
    return {part.head: sorted(int(number, 16) for number in part.pairs) for part in parts}


# whose updates are summed


def test_a_sum_has_one_update_of_each_project_the_oldest_first():
    several = [waiting(number, project="a") for number in (4, 1, 2)]
    others = [waiting(number) for number in (5, 6)]
    assert ids(chosen([*several, *others], 0, {}, 9.0, AT_ONCE, 3)) == {"flaky": [1, 5, 6]}
    assert chosen([*several, *others[1:]], 0, {}, 9.0, AT_ONCE, 3) == ()


def test_each_head_has_a_sum_of_its_own_when_it_is_due():
    flaky = [waiting(number) for number in range(3)]
    triage = [waiting(number, head="triage") for number in range(5)]
    folding = Folding(updates=5, seconds=100.0)
    assert ids(chosen([*flaky, *triage], 0, {}, 50.0, folding, 3)) == {"triage": [0, 1, 2, 3, 4]}
    assert set(ids(chosen([*flaky, *triage], 0, {}, 100.0, folding, 3))) == {"flaky", "triage"}


def test_updates_of_one_staleness_are_summed_and_staler_ones_join_where_they_are_too_few():
    fresh = [waiting(number, base=20) for number in range(3)]
    stale = [waiting(number, base=4) for number in range(3, 6)]
    assert ids(chosen([*fresh, *stale], 20, {}, 9.0, AT_ONCE, 3)) == {"flaky": [0, 1, 2]}
    assert ids(chosen([*fresh[:2], *stale], 20, {}, 9.0, AT_ONCE, 3)) == {"flaky": [0, 1, 3, 4, 5]}
    assert ids(chosen(stale, 20, {}, 9.0, AT_ONCE, 3)) == {"flaky": [3, 4, 5]}


def test_those_that_scored_the_snapshot_on_trial_are_summed_apart():
    voting = [waiting(number, trial=7) for number in range(3)]
    others = [waiting(number, trial=trial) for number, trial in ((3, 6), (4, -1), (5, -1))]
    (part,) = chosen([*voting, *others], 7, {"flaky": 7}, 9.0, AT_ONCE, 3)
    assert (part.trial, ids((part,))) == (7, {"flaky": [0, 1, 2]})
    (part,) = chosen([*voting[:2], *others], 7, {"flaky": 7}, 9.0, AT_ONCE, 3)
    assert (part.trial, ids((part,))) == (-1, {"flaky": [3, 4, 5]})
    (part,) = chosen([*voting[:2], *others[:1]], 7, {"flaky": 7}, 9.0, AT_ONCE, 3)
    assert (part.trial, ids((part,))) == (-1, {"flaky": [0, 1, 3]})


def test_one_without_a_twin_does_not_keep_its_projects_others_waiting():
    orphan, next_one = waiting(1, project="a", missed=1), waiting(9, project="a")
    assert ids(chosen([orphan, next_one, waiting(5), waiting(6)], 0, {}, 9.0, AT_ONCE, 3)) == {"flaky": [5, 6, 9]}


def test_weights_are_public_whole_numbers_that_fall_and_never_reach_zero():
    weights = [weight(0, staleness) for staleness in range(101)]
    assert weights == sorted(weights, reverse=True)
    assert (weights[0], weights[3], weights[-1]) == (HEAVIEST, HEAVIEST // 2, HEAVIEST // 8)


# how sums open


@given(st.lists(st.lists(st.floats(-0.25, 0.25, width=32), min_size=4, max_size=4), min_size=1, max_size=8))
def test_the_sum_without_its_pads_is_the_sum_of_the_updates(rows):
    updates = [drawn(number)._replace(deltas={"flaky": array("f", row)}) for number, row in enumerate(rows)]
    halves = [split(update, BOUNDS, seed_of(number)) for number, update in enumerate(updates)]
    masked = summed((residue_bytes(first.vectors["flaky"]) for first, _ in halves), 5)
    pads = summed_pads({second.id: second.seed for _, second in halves}, "a" * 16, "flaky", 5, 5)
    steps = lifted(masked, pads, len(rows), 4)
    assert steps[:4].tolist() == np.sum([quantised(row, 0.5) for row in rows], axis=0).tolist()
    assert steps[4] == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_most_updates_at_their_bounds_do_not_overflow_also_when_weighted(sign):
    half = np.array([sign * LEVELS * MOST_SUMMED], np.int64).view(np.uint64)
    steps = lifted(half, np.zeros(1, np.uint64), MOST_SUMMED, 1)
    assert int((steps * HEAVIEST)[0]) == sign * LEVELS * MOST_SUMMED * HEAVIEST
    with pytest.raises(WireError, match="overflow"):
        lifted(half, np.zeros(1, np.uint64), MOST_SUMMED + 1, 1)


@pytest.mark.parametrize("wrong", [[3 * LEVELS + 3, 0], [-(1 << 63), 0], [2 * LEVELS, -3 * LEVELS], [1 << 40, 1]])
def test_a_sum_that_no_honest_updates_have_is_refused(wrong):
    with pytest.raises(WireError, match="lies"):
        lifted(np.array(wrong, np.int64).view(np.uint64), np.zeros(2, np.uint64), 3, 2)


# what sums lead to


def standing(**changes: object) -> Standing:
    vectors = {name: zeros(size) for name, size in SIZES.items()}
    current = Current(Version(3, 3, 0.0, vectors, dict.fromkeys(SIZES, 3)), vectors, {})
    return replace(Standing(current, 4, {}, {}, {}, 1e6), **changes)


def head_sum(updates: list[Update], **changes: object) -> HeadSum:
    steps = np.sum([quantised(update.deltas["flaky"], 0.5) for update in updates], axis=0)
    return replace(HeadSum(steps, len(updates), HEAVIEST), **changes)


def test_a_head_moves_as_after_a_fold_of_the_same_updates_in_the_clear():
    updates = [drawn(number) for number in range(4)]
    made = next_shared(standing(), {"flaky": head_sum(updates)}, RULES, None)
    plain = [Contribution(u.id, u.project, 0, wide(u.deltas["flaky"])) for u in updates]
    wanted = aggregate(wide(zeros(4)), plain, RULES["flaky"])
    assert list(made.version.vectors["flaky"]) == pytest.approx(wanted, abs=4 * 0.5 / LEVELS + 1e-6)
    assert made.version.vectors["triage"] == zeros(2)
    assert (made.version.version, made.version.production) == (4, 4)


def test_a_stale_sum_moves_a_head_less():
    updates = [drawn(number) for number in range(4)]
    fresh, stale = (
        next_shared(standing(), {"flaky": head_sum(updates, weight=w)}, RULES, None).version.vectors["flaky"]
        for w in (HEAVIEST, HEAVIEST // 2)
    )
    assert list(stale) == pytest.approx([number / 2 for number in fresh], abs=1e-7)


def test_the_gate_judges_by_sums_of_scores():
    trial = Trial("flaky", 2, 1, 0.0, array("f", [1.0] * 4))
    before = standing()
    on_trial = replace(before, current=replace(before.current, trials={"flaky": trial}))

    def outcome(*releases: Release, **changes: object):
        return next_shared(replace(on_trial, releases={"flaky": releases}, **changes), {}, RULES, Gate())

    still_open = outcome(Release(5, 0.0))
    assert (still_open.trials, still_open.decisions) == ((trial,), ())
    better, worse = (outcome(*[Release(10, total)] * 20) for total in (-9.0, 9.0))
    assert better.version.sources["flaky"] == 2
    assert [decision.verdict.outcome for decision in better.decisions] == ["promoted"]
    assert worse.version.sources["flaky"] == 3
    assert worse.decisions[0].refolded
    again = outcome(*[Release(10, 9.0)] * 20, restarted={"flaky": 1e6 - 60})
    assert not again.decisions[0].refolded


def test_a_rejection_sends_head_back_to_production():
    before = standing()
    moved = array("f", [1.0] * 4)
    head = replace(before.current.head, vectors={**before.current.head.vectors, "flaky": moved})
    current = replace(before.current, head=head, trials={"flaky": Trial("flaky", 2, 1, 0.0, moved)})
    releases = {"flaky": (Release(10, 9.0),) * 20}
    made = next_shared(replace(before, current=current, releases=releases), {}, RULES, Gate())
    assert made.version.vectors["flaky"] == zeros(4)
    assert made.trials == ()


# what leader and helper say


def test_a_proposal_is_read_as_it_was_written_and_signatures_bind_answers_to_it():
    proposal = Proposal(3, "a" * 16, (Part("flaky", 7, {"b" * 32: "c" * 32}), Part("triage", -1, {"d" * 32: "e" * 32})))
    body = pack_proposal(proposal)
    assert unpack_proposal(body) == proposal
    other = pack_proposal(replace(proposal, number=4))
    assert signature("secret", body, b"yes") != signature("secret", other, b"yes")
    assert len({signature(s, b) for s in ("secret", "other") for b in (body, other)}) == 4
    assert signature("secret", body) != signature("secret", b"", body)


@given(st.binary(max_size=100))
def test_any_bytes_are_no_proposal_or_raise_a_wire_error(body):
    with pytest.raises(WireError):
        unpack_proposal(body)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'{"round": 4, "parts": []}',
        b'{"round": 3, "parts": [{"head": "triage", "ids": ["%s"], "total": ""}]}' % (b"b" * 32),
        b'{"round": 3, "parts": [{"head": "flaky", "ids": ["%s"], "total": ""}]}' % (b"c" * 32),
        b'{"round": 3, "parts": [{"head": "flaky", "ids": [], "total": ""}]}',
        b'{"round": 3, "parts": [{"head": "flaky", "ids": ["%s"], "total": "AAAA"}]}' % (b"b" * 32),
    ],
)
def test_an_answer_to_something_else_is_none(answer):
    proposal = Proposal(3, "a" * 16, (Part("flaky", -1, {"b" * 32: "c" * 32}),))
    with pytest.raises(WireError):
        unpack_answer(answer, proposal, SIZES)


# what is on disk


class Pair:
    """A leader's and a helper's book, without what is between them."""

    def __init__(self, folder, gate: Gate | None = None) -> None:
        self.urls, self.gate = [f"sqlite:///{folder / name}.db" for name in ("leader", "helper")], gate
        self.store = Store(self.urls[0], OURS)
        self.store.start({name: zeros(size) for name, size in SIZES.items()}, 0.0)
        self.leader, self.helper = LeaderBook(self.urls[0], "a" * 16), HelperBook(self.urls[1], "a" * 16)

    def close(self) -> None:
        for book in (self.store, self.leader, self.helper):
            book.close()

    def keep(self, *updates: Update, project: str = "") -> None:
        halves = [offers(update, project) for update in updates]
        self.leader.keep([first for first, _ in halves], 1.0)
        self.helper.keep([second for _, second in halves], 1.0)

    def plan(self, fewest: int = FEWEST) -> bytes:
        def choose(waiting, current):
            trials = {name: trial.version for name, trial in current.trials.items()}
            return chosen(waiting, current.head.version, trials, 9.0, AT_ONCE, fewest)

        return self.leader.planned(choose)

    def settle(self, body: bytes, answer: bytes, fewest: int = FEWEST):
        proposal = unpack_proposal(body)

        def step(standing, sums):
            return next_shared(standing, sums, RULES, self.gate)

        return self.leader.settle(proposal, unpack_answer(answer, proposal, SIZES), step, fewest, 9.0)

    def fold(self):
        body = self.plan()
        return self.settle(body, self.helper.answer(unpack_proposal(body), FEWEST, SIZES))


@pytest.fixture
def pair(tmp_path) -> Iterator[Pair]:
    with closing(Pair(tmp_path)) as made:
        yield made


def opened_sum(pair: Pair) -> list[float]:
    return list(pair.store.current().head.vectors["flaky"])


def wanted(updates: list[Update], head: str = "flaky"):
    step = [sum(column) for column in zip(*(update.deltas[head] for update in updates), strict=True)]
    return pytest.approx(step, abs=len(updates) / LEVELS + 1e-6)


def test_a_round_makes_one_version_of_what_both_have(pair):
    updates = [drawn(number, ("flaky", "triage")) for number in range(4)]
    pair.keep(*updates)
    settled = pair.fold()
    assert (settled.version.version, settled.updates, settled.spoiled) == (1, 4, ())
    assert opened_sum(pair) == wanted(updates)
    assert list(pair.store.current().head.vectors["triage"]) == wanted(updates, "triage")
    assert pair.plan() == b""
    assert pair.store.lineage(1).versions[0].updates == 4


def test_a_sum_takes_a_number_that_no_version_of_another_schema_has(pair):
    with closing(Store(pair.urls[0], Shape("b" * 16, {"flaky": 1}))) as other:
        other.start({"flaky": zeros(1)}, 1.0)
        taken = other.current().head.version
    pair.keep(*(drawn(number) for number in range(4)))
    assert pair.fold().version.version == taken + 1


def test_a_repeat_is_known_for_ever_and_a_batch_has_each_once(pair):
    first, second = offers(drawn(1)), offers(drawn(2))
    assert pair.leader.keep([first[0], first[0], second[0]], 1.0) == (False, True, False)
    pair.helper.keep([first[1], second[1]], 1.0)
    pair.keep(drawn(3))
    assert pair.fold().updates == 3
    assert pair.leader.keep([first[0]], 2.0) == pair.helper.keep([first[1]], 2.0) == (True,)
    assert pair.leader.waiting() == pair.helper.waiting() == ()


def test_a_plan_is_final_until_it_is_settled_also_after_a_crash(pair):
    pair.keep(*(drawn(number) for number in range(3)))
    body = pair.plan()
    answer = pair.helper.answer(unpack_proposal(body), FEWEST, SIZES)
    pair.keep(drawn(3))
    with closing(LeaderBook(pair.urls[0], "a" * 16)) as restarted:
        assert restarted.planned(lambda *_: pytest.fail("there is a plan")) == body
    with closing(HelperBook(pair.urls[1], "a" * 16)) as restarted:
        assert restarted.answer(unpack_proposal(body), FEWEST, SIZES) == answer
    assert pair.settle(body, answer).version.version == 1
    assert pair.settle(body, answer).version is None
    assert opened_sum(pair) == wanted([drawn(number) for number in range(3)])


def test_what_only_one_of_them_has_waits_and_is_let_go_after_its_time(pair):
    pair.keep(*(drawn(number) for number in range(3)))
    pair.leader.keep([offers(drawn(8))[0]], 1.0)
    pair.helper.keep([offers(drawn(9))[1]], 5.0)
    assert pair.fold().updates == 3
    assert [one.missed for one in pair.leader.waiting()] == [1]
    assert (pair.leader.let_go(2.0), pair.helper.let_go(5.0), pair.helper.let_go(6.0)) == (1, 0, 1)
    assert pair.leader.waiting() == pair.helper.waiting() == ()
    assert pair.leader.keep([offers(drawn(8))[0]], 9.0) == (True,), "its twin will not wait for it again"


def test_nothing_that_a_round_under_way_needs_is_let_go(pair):
    pair.keep(*(drawn(number) for number in range(3)))
    body = pair.plan()
    assert pair.leader.let_go(9.0) == 0
    assert pair.settle(body, pair.helper.answer(unpack_proposal(body), FEWEST, SIZES)).updates == 3


def test_a_project_forgotten_in_a_round_under_way_spoils_its_sum_and_is_gone(pair):
    pair.keep(*(drawn(number) for number in range(3)))
    body = pair.plan()
    assert pair.leader.forget(drawn(0).project, "owner") == 1
    assert pair.leader.forget(drawn(1).project, "somebody else") == 0
    settled = pair.settle(body, pair.helper.answer(unpack_proposal(body), FEWEST, SIZES))
    assert (settled.version, len(settled.spoiled)) == (None, 1)
    assert pair.leader.keep([offers(drawn(0))[0]], 9.0) == (True,)


def test_the_leader_uses_no_sum_of_fewer_projects_than_it_counts_itself(pair):
    pair.keep(*(drawn(number) for number in range(3)))
    body = pair.plan()
    settled = pair.settle(body, pair.helper.answer(unpack_proposal(body), FEWEST, SIZES), fewest=4)
    assert settled.version is None
    assert "too few projects" in settled.spoiled[0]
    assert opened_sum(pair) == [0.0] * 4
    assert pair.plan() == b"", "what the helper has told is not proposed again"


def test_two_updates_of_one_project_are_never_in_one_sum(pair):
    pair.keep(drawn(1), drawn(2), project="one")
    pair.keep(drawn(3), drawn(4))
    body = pair.plan()
    assert len(unpack_proposal(body).parts[0].pairs) == 3
    both = {number.id: pair_of(seed_of(int(number.id, 16))) for number in map(drawn, (1, 2, 3, 4))}
    forced = Proposal(9, "a" * 16, (Part("flaky", -1, both),))
    answer = unpack_answer(pair.helper.answer(forced, FEWEST, SIZES), forced, SIZES)
    assert len(answer.parts[0].ids) == 3


def test_a_liars_sum_is_thrown_away_and_the_next_one_counts(pair):
    liar = offers(drawn(7))
    wild = replace(liar[0], bodies={"flaky": b"\x11" * 40})
    pair.leader.keep([wild], 1.0)
    pair.helper.keep([liar[1]], 1.0)
    pair.keep(drawn(1), drawn(2))
    settled = pair.fold()
    assert settled.version is None
    assert "lies" in settled.spoiled[0]
    pair.keep(*(drawn(number) for number in (3, 4, 5)))
    assert pair.fold().version.version == 1
    assert opened_sum(pair) == wanted([drawn(number) for number in (3, 4, 5)])


def test_a_leader_that_lost_its_rounds_goes_on_after_those_of_the_helper(pair):
    pair.keep(*(drawn(number) for number in range(3)))
    pair.helper.answer(Proposal(41, "a" * 16, (Part("flaky", -1, {"f" * 32: "f" * 32}),)), FEWEST, SIZES)
    body = pair.plan()
    with pytest.raises(WireError, match="over"):
        pair.helper.answer(unpack_proposal(body), FEWEST, SIZES)
    pair.leader.give_up(unpack_proposal(body).number)
    again = pair.leader.planned(lambda waiting, _: chosen(waiting, 0, {}, 9.0, AT_ONCE, FEWEST), 41)
    assert unpack_proposal(again).number == 42
    assert pair.settle(again, pair.helper.answer(unpack_proposal(again), FEWEST, SIZES)).updates == 3


def test_seeds_that_were_used_are_nowhere_in_the_file_of_a_helper_that_has_stopped(pair, tmp_path):
    pair.keep(*(drawn(number) for number in range(3)))
    pair.fold()
    pair.helper.close()
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("helper.db*"))
    assert drawn(1).id.encode() in everything
    assert not any(seed_of(number) in everything for number in range(3))


def test_scores_of_the_snapshot_on_trial_promote_it_by_their_sums_alone(tmp_path):
    with closing(Pair(tmp_path, Gate(voters=FEWEST))) as pair:
        pair.keep(*(drawn(number) for number in range(3)))
        pair.fold()
        assert set(pair.store.current().trials) == {"flaky"}
        for turn in range(1, 40):
            trial = pair.store.current().trials["flaky"].version
            head = pair.store.newest()
            pair.keep(*(drawn(10 * turn + n, base=head, trial=trial, score=-REACH) for n in range(6)))
            pair.fold()
            if pair.store.lineage(9).verdicts:
                break
        (verdict,) = pair.store.lineage(9).verdicts
        assert (verdict.outcome, verdict.trial, verdict.figures["votes"]) == ("promoted", 1, 6 * turn)
        assert pair.store.current().head.sources["flaky"] == 1


def test_scores_of_a_snapshot_that_is_no_longer_on_trial_are_not_told(pair):
    pair.keep(*(drawn(number, trial=5, score=0.1) for number in range(3)))
    body = pair.plan()
    (part,) = unpack_proposal(body).parts
    assert part.trial == -1
    answer = unpack_answer(pair.helper.answer(unpack_proposal(body), FEWEST, SIZES), unpack_proposal(body), SIZES)
    assert len(answer.parts[0].total) == SIZES["flaky"]


def test_every_test_that_the_page_names_is_there():
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs/secure-aggregation.md").read_text(encoding="utf-8")))
    places = ("tests/server/test_server_roles.py", "tests/server/test_server_shares.py")
    there = "".join((root / place).read_text(encoding="utf-8") for place in places)
    there += (root / "tests/federation/test_federation_shares.py").read_text(encoding="utf-8")
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in there} == set()


def test_the_page_lists_the_words_of_both_halves_and_the_limits_of_the_code():
    page = (Path(__file__).parents[2] / "docs/secure-aggregation.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|", page, re.M))
    assert {*Masked._fields, *Seeded._fields} - {"trials", "vectors"} <= rows.keys()
    assert {word for word, helper in rows.items() if helper == "yes"} == {*Seeded._fields} - {"trials"} | {
        "trial.<head>"
    }
    assert f"at most {MOST_SUMMED:,} updates and a weight of at most {HEAVIEST}" in page
    assert LEVELS == 1 << 20
    assert KEPT_SECONDS == 7 * 86_400
