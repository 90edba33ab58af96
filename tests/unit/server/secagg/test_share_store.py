"""Shares on disk: a round makes one version, each task of an update is released once, and what must be gone is gone."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from fedstep.errors import WireError
from fedstep.federation.messages import SchemaShape, Update
from fedstep.federation.secagg.shares import LEVELS, SCORE_LIMIT, hash_seed
from fedstep.model.linear import zeros
from fedstep.server.gate import Gate
from fedstep.server.secagg.helper import HelperStore
from fedstep.server.secagg.leader import LeaderStore
from fedstep.server.secagg.rounds import Proposal, RoundPart, choose_parts, unpack_proposal, unpack_reply
from fedstep.server.storage.store import Store
from tests.helpers.server_books import AT_ONCE, FEWEST, SIZES, STALENESS, Pair, drawn, offers, seed_of


@pytest.fixture
def pair(tmp_path) -> Iterator[Pair]:
    with closing(Pair(tmp_path)) as made:
        yield made


def opened_sum(pair: Pair) -> list[float]:
    return list(pair.store.current().candidate.vectors["flaky"])


def wanted(updates: list[Update], task: str = "flaky"):
    step = [sum(column) for column in zip(*(update.deltas[task] for update in updates), strict=True)]
    return pytest.approx(step, abs=len(updates) / LEVELS + 1e-6)


class TestRounds:
    def test_a_round_makes_one_version_of_what_both_have(self, pair):
        updates = [drawn(number, ("flaky", "triage")) for number in range(4)]
        pair.keep(*updates)
        settled = pair.aggregate()
        assert (settled.version.version, settled.updates, settled.spoiled) == (1, 4, ())
        assert opened_sum(pair) == wanted(updates)
        assert list(pair.store.current().candidate.vectors["triage"]) == wanted(updates, "triage")
        assert pair.plan() == b""
        assert pair.store.lineage(1).versions[0].updates == 4

    def test_sum_takes_a_number_free_in_every_schema(self, pair):
        """A sum takes a number that no version of another schema has."""
        with closing(Store(pair.urls[0], SchemaShape("b" * 16, {"flaky": 1}))) as other:
            other.start({"flaky": zeros(1)}, 1.0)
            taken = other.current().candidate.version
        pair.keep(*(drawn(number) for number in range(4)))
        assert pair.aggregate().version.version == taken + 1

    def test_a_repeat_is_known_for_ever_and_a_batch_has_each_once(self, pair):
        first, second = offers(drawn(1)), offers(drawn(2))
        assert pair.leader.keep([first[0], first[0], second[0]], 1.0) == (False, True, False)
        pair.helper.keep([first[1], second[1]], 1.0)
        pair.keep(drawn(3))
        assert pair.aggregate().updates == 3
        assert pair.leader.keep([first[0]], 2.0) == pair.helper.keep([first[1]], 2.0) == (True,)
        assert pair.leader.waiting() == pair.helper.waiting() == ()

    def test_a_plan_is_final_until_it_is_settled_also_after_a_crash(self, pair):
        pair.keep(*(drawn(number) for number in range(3)))
        body = pair.plan()
        answer = pair.helper.answer(unpack_proposal(body), FEWEST, SIZES)
        pair.keep(drawn(3))
        with closing(LeaderStore(pair.urls[0], "a" * 16)) as restarted:
            assert restarted.plan(lambda *_: pytest.fail("there is a plan"), STALENESS) == body
        with closing(HelperStore(pair.urls[1], "a" * 16)) as restarted:
            assert restarted.answer(unpack_proposal(body), FEWEST, SIZES) == answer
        assert pair.settle(body, answer).version.version == 1
        assert pair.settle(body, answer).version is None
        assert opened_sum(pair) == wanted([drawn(number) for number in range(3)])


class TestRetention:
    def test_unmatched_share_waits_and_is_deleted_after_its_time(self, pair):
        """What only one of the two has waits, and is deleted after its time."""
        pair.keep(*(drawn(number) for number in range(3)))
        pair.leader.keep([offers(drawn(8))[0]], 1.0)
        pair.helper.keep([offers(drawn(9))[1]], 5.0)
        assert pair.aggregate().updates == 3
        assert [one.missed for one in pair.leader.waiting()] == [1]
        assert (pair.leader.delete_waiting(2.0), pair.helper.delete_waiting(5.0), pair.helper.delete_waiting(6.0)) == (
            1,
            0,
            1,
        )
        assert pair.leader.waiting() == pair.helper.waiting() == ()
        assert pair.leader.keep([offers(drawn(8))[0]], 9.0) == (True,), "its twin will not wait for it again"

    def test_expired_share_is_deleted_even_if_a_round_needs_it(self, pair):
        """What waits too long is deleted, also while a round needs it."""
        pair.keep(*(drawn(number) for number in range(3)))
        body = pair.plan()
        assert (pair.leader.delete_waiting(1.0), pair.leader.delete_waiting(2.0), pair.helper.delete_waiting(2.0)) == (
            0,
            3,
            3,
        )
        settled = pair.settle(body, pair.helper.answer(unpack_proposal(body), FEWEST, SIZES))
        assert (settled.version, settled.spoiled, pair.plan()) == (None, (), b"")

    def test_project_deleted_during_a_round_spoils_its_sum(self, pair):
        """A project deleted while a round is under way spoils the sum of that round and is gone."""
        pair.keep(*(drawn(number) for number in range(3)))
        body = pair.plan()
        assert pair.leader.forget(drawn(0).project, "owner") == 1
        assert pair.leader.forget(drawn(1).project, "somebody else") == 0
        settled = pair.settle(body, pair.helper.answer(unpack_proposal(body), FEWEST, SIZES))
        assert (settled.version, len(settled.spoiled)) == (None, 1)
        assert pair.leader.keep([offers(drawn(0))[0]], 9.0) == (True,)


class TestSums:
    def test_leader_uses_no_sum_of_fewer_projects_than_it_counts(self, pair):
        """The leader uses no sum of fewer projects than it counts itself."""
        pair.keep(*(drawn(number) for number in range(3)))
        body = pair.plan()
        settled = pair.settle(body, pair.helper.answer(unpack_proposal(body), FEWEST, SIZES), fewest=4)
        assert settled.version is None
        assert "too few projects" in settled.spoiled[0]
        assert opened_sum(pair) == [0.0] * 4
        assert pair.plan() == b"", "what the helper has told is not proposed again"

    def test_two_updates_of_one_project_are_never_in_one_sum(self, pair):
        pair.keep(drawn(1), drawn(2), project="one")
        pair.keep(drawn(3), drawn(4))
        body = pair.plan()
        assert len(unpack_proposal(body).parts[0].pairs) == 3
        both = {number.id: hash_seed(seed_of(int(number.id, 16))) for number in map(drawn, (1, 2, 3, 4))}
        forced = Proposal(9, "a" * 16, (RoundPart("flaky", -1, both),))
        answer = unpack_reply(pair.helper.answer(forced, FEWEST, SIZES), forced, SIZES)
        assert len(answer.parts[0].ids) == 3

    def test_a_liars_sum_is_thrown_away_and_the_next_one_counts(self, pair):
        liar = offers(drawn(7))
        wild = replace(liar[0], bodies={"flaky": b"\x11" * 40})
        pair.leader.keep([wild], 1.0)
        pair.helper.keep([liar[1]], 1.0)
        pair.keep(drawn(1), drawn(2))
        settled = pair.aggregate()
        assert settled.version is None
        assert "dishonest" in settled.spoiled[0]
        pair.keep(*(drawn(number) for number in (3, 4, 5)))
        assert pair.aggregate().version.version == 1
        assert opened_sum(pair) == wanted([drawn(number) for number in (3, 4, 5)])

    def test_leader_without_rounds_continues_after_the_helpers(self, pair):
        """A leader that lost its rounds continues after those of the helper."""
        pair.keep(*(drawn(number) for number in range(3)))
        pair.helper.answer(Proposal(41, "a" * 16, (RoundPart("flaky", -1, {"f" * 32: "f" * 32}),)), FEWEST, SIZES)
        body = pair.plan()
        with pytest.raises(WireError, match="over"):
            pair.helper.answer(unpack_proposal(body), FEWEST, SIZES)
        pair.leader.give_up(unpack_proposal(body).round_number)
        again = pair.leader.plan(lambda waiting, _: choose_parts(waiting, 0, {}, 9.0, AT_ONCE, FEWEST), STALENESS, 41)
        assert unpack_proposal(again).round_number == 42
        assert pair.settle(again, pair.helper.answer(unpack_proposal(again), FEWEST, SIZES)).updates == 3

    def test_used_seeds_are_nowhere_in_the_file_of_a_helper(self, pair, tmp_path):
        """Used seeds are nowhere in the file of a helper that has stopped."""
        pair.keep(*(drawn(number) for number in range(3)))
        pair.aggregate()
        pair.helper.close()
        everything = b"".join(path.read_bytes() for path in tmp_path.glob("helper.db*"))
        assert drawn(1).id.encode() in everything
        assert not any(seed_of(number) in everything for number in range(3))


class TestEvaluations:
    def test_sums_of_evaluations_promote_the_version(self, tmp_path):
        """Evaluations of the version on trial promote it by their sums alone."""
        with closing(Pair(tmp_path, Gate(voters=FEWEST, sum_distance=1))) as pair:
            pair.keep(*(drawn(number) for number in range(3)))
            pair.aggregate()
            assert set(pair.store.current().trials) == {"flaky"}
            for turn in range(1, 40):
                trial = pair.store.current().trials["flaky"].version
                task = pair.store.latest_version()
                pair.keep(*(drawn(10 * turn + n, base=task, trial=trial, score=-SCORE_LIMIT) for n in range(6)))
                pair.aggregate()
                if pair.store.lineage(9).verdicts:
                    break
            (verdict,) = pair.store.lineage(9).verdicts
            assert (verdict.outcome, verdict.trial, verdict.figures["evaluations"]) == ("promoted", 1, 6 * turn)
            assert pair.store.current().candidate.sources["flaky"] == 1

    def test_evaluations_of_an_ended_trial_are_not_released(self, pair):
        """Evaluations of a version that is no longer on trial are not released."""
        pair.keep(*(drawn(number, trial=5, score=0.1) for number in range(3)))
        body = pair.plan()
        (part,) = unpack_proposal(body).parts
        assert part.trial == -1
        answer = unpack_reply(pair.helper.answer(unpack_proposal(body), FEWEST, SIZES), unpack_proposal(body), SIZES)
        assert len(answer.parts[0].total) == SIZES["flaky"]
