"""What leader and helper let go of, from their files too, and what no project and no change of schema can stop."""

import json
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, Table, func, select

from fedstep.errors import AggregatorError, WireError
from fedstep.federation.messages import NOISE, shape
from fedstep.federation.secagg.shares import MAX_VERSION, SeedShare, check_share, derive_task_seeds, split_update
from fedstep.federation.transport import HttpResponse
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.metrics import Metrics
from fedstep.server.secagg.helper import SIGNATURE, HelperStore
from fedstep.server.secagg.leader import Leader, LeaderStore, SumPolicy
from fedstep.server.secagg.rounds import LATEST_HEARD, pack_reply, sign, unpack_proposal
from fedstep.server.secagg.rounds import RoundReply as Released
from fedstep.server.secagg.share_store import KEPT_SECONDS, MOST_LOOKED_AT, rounds, shares
from fedstep.server.settings import ModeContext
from fedstep.server.storage.engine import open_engine
from fedstep.server.storage.store import Store
from tests.helpers.narrow import present
from tests.helpers.server_books import BOUNDS, FEWEST, OURS, SIZES, STALENESS, Pair, drawn, offers, seed_of
from tests.helpers.server_shares import PEER_TOKEN

BOTH = ("flaky", "triage")


@pytest.fixture
def pair(tmp_path):
    with closing(Pair(tmp_path)) as made:
        yield made


def secrets(number: int) -> dict[str, bytes]:
    """The seed of an update, and that of each of its tasks, as a helper could have them."""
    update = drawn(number, BOTH)
    seed = seed_of(number)
    return {
        "": seed,
        **derive_task_seeds(SeedShare(update.schema, update.id, update.project, dict.fromkeys(BOTH, -1), seed)),
    }


def in_files(folder: Path, numbers: range) -> dict[str, int]:
    """How many of the seeds of these updates are in any file of the helper, by task; "": of whole updates."""
    everything = b"".join(path.read_bytes() for path in folder.glob("helper.db*"))
    found = [{task: secret in everything for task, secret in secrets(number).items()} for number in numbers]
    return {task: sum(one[task] for one in found) for task in ("", *BOTH)}


def counted(url: str, table: Table = shares, *which: ColumnElement[bool]) -> int:
    engine = open_engine(url)
    with engine.begin() as connection:
        found = connection.scalar(select(func.count()).select_from(table).where(*which))
    engine.dispose()
    return present(found)


class TestDeletion:
    # what is gone from the files of a helper that runs
    def test_a_helper_has_no_seed_that_opens_more_than_one_task(self, pair, tmp_path):
        pair.keep(*(drawn(number, BOTH) for number in range(3)))
        assert in_files(tmp_path, range(3)) == {"": 0, "flaky": 3, "triage": 3}

    def test_released_task_is_gone_while_another_waits(self, pair, tmp_path):
        """What is released of one task is gone while another waits."""
        pair.keep(*(drawn(number, BOTH) for number in range(3)))
        whole = unpack_proposal(pair.plan())
        flaky = replace(whole, parts=tuple(part for part in whole.parts if part.task == "flaky"))
        pair.helper.answer(flaky, FEWEST, SIZES)
        assert in_files(tmp_path, range(3)) == {"": 0, "flaky": 0, "triage": 3}

    def test_what_is_forgotten_or_let_go_is_gone_at_once(self, pair, tmp_path):
        pair.keep(*(drawn(number, BOTH) for number in range(3)))
        assert pair.helper.forget(drawn(0).project, "owner") == 2
        assert in_files(tmp_path, range(3)) == {"": 0, "flaky": 2, "triage": 2}
        assert pair.helper.delete_waiting(2.0) == 4
        assert in_files(tmp_path, range(3)) == {"": 0, "flaky": 0, "triage": 0}

    def test_waiting_seeds_alone_are_left_after_many_rounds(self, pair, tmp_path):
        """Of many seeds that come and go in many rounds, only those that wait are left.

        Rows move inside and between pages when others grow and go; no copy of them stays behind.
        """
        for turn in range(8):
            several = range(100 * turn, 100 * turn + 40)
            pair.keep(*(drawn(number, BOTH) for number in several[:30]))
            pair.helper.keep([offers(drawn(number, BOTH))[1] for number in several[30:]], 1.0)
            pair.aggregate()
        gone = [number for turn in range(8) for number in range(100 * turn, 100 * turn + 30)]
        everything = b"".join(path.read_bytes() for path in tmp_path.glob("helper.db*"))
        assert not any(secret in everything for number in gone for secret in secrets(number).values())
        assert len(pair.helper.waiting()) == 8 * 10 * len(BOTH)


class TestProgress:
    # who stops nobody
    @pytest.mark.slow
    def test_one_project_with_more_than_is_looked_at_holds_up_nobody(self, pair):
        busy = [offers(drawn(number), "one")[0] for number in range(3)]
        many = [replace(busy[0], id=f"{10**6 + number:032x}") for number in range(MOST_LOOKED_AT + 10)]
        pair.leader.keep(many, 1.0)
        pair.leader.keep([offers(drawn(number))[0] for number in range(20)], 2.0)
        (part,) = unpack_proposal(pair.plan()).parts
        assert {*part.pairs} >= {drawn(number).id for number in range(20)}
        assert len(part.pairs) == 21

    def test_what_is_too_stale_to_be_summed_takes_nobodys_place(self, pair):
        for version in range(STALENESS + 1):
            pair.keep(*(drawn(10 * version + number, base=version) for number in range(3)))
            pair.aggregate()
        stale, fresh = (
            [drawn(900 + number) for number in range(3)],
            [drawn(910 + number, base=1) for number in range(3)],
        )
        pair.keep(*stale, *fresh)
        (part,) = unpack_proposal(pair.plan()).parts
        assert {*part.pairs} == {update.id for update in fresh}

    # another schema
    def test_round_of_a_former_schema_does_not_stop_the_next(self, pair, tmp_path):
        """A round of a schema that was left does not stop the next one."""
        pair.keep(*(drawn(number) for number in range(3)))
        left = unpack_proposal(pair.plan())
        with closing(Pair(tmp_path, schema="b" * 16)) as later:
            assert later.plan() == b"", "what waits is of another schema"
            updates = [drawn(number)._replace(schema="b" * 16) for number in range(10, 13)]
            later.keep(*updates)
            body = later.plan()
            proposal = unpack_proposal(body)
            assert (proposal.schema, proposal.round_number > left.round_number) == ("b" * 16, True)
            assert {*proposal.parts[0].pairs} == {update.id for update in updates}
            assert later.aggregate().updates == 3

    def test_shares_of_another_schema_are_deleted_after_their_time(self, pair):
        pair.keep(*(drawn(number) for number in range(3)))
        for url, book in zip(pair.urls, (LeaderStore, HelperStore), strict=True):
            with closing(book(url, "b" * 16)) as later:
                assert later.delete_waiting(KEPT_SECONDS) == 3
            assert counted(url, shares, shares.c.body.is_not(None)) == 0

    # what does not grow
    def test_of_all_rounds_the_newest_alone_is_kept_on_either_side(self, pair):
        for turn in range(3):
            pair.keep(*(drawn(10 * turn + number) for number in range(3)))
            pair.aggregate()
        assert [counted(url, rounds) for url in pair.urls] == [1, 1]


class TestVersions:
    # what cannot be
    @pytest.mark.parametrize("side", [0, 1])
    def test_share_with_a_version_beyond_the_database_is_refused(self, side):
        """A share with a version that no database can hold is refused."""
        check_share(split_update(drawn(1, trial=MAX_VERSION), BOUNDS, seed_of(1))[side], OURS)
        for trial in (MAX_VERSION + 1, 10**15 - 1):
            with pytest.raises(WireError, match="cannot be"):
                check_share(split_update(drawn(1, trial=trial), BOUNDS, seed_of(1))[side], OURS)

    def test_share_based_on_an_unstorable_version_is_refused(self):
        """A share that was learned from a version that no database can hold is refused."""
        for base, fits in ((MAX_VERSION, True), (MAX_VERSION + 1, False)):
            half = split_update(drawn(1, base=base), BOUNDS, seed_of(1))[0]
            with nullcontext() if fits else pytest.raises(WireError, match="cannot be"):
                check_share(half, OURS)

    @pytest.mark.parametrize("trial", [-1, MAX_VERSION])
    def test_every_version_that_fits_is_kept_by_every_database(self, url, trial):
        half = offers(drawn(1, base=max(0, trial), trial=trial))[0]
        with closing(LeaderStore(url, OURS.digest)) as book:
            assert book.keep([half], 1.0) == (False,)
            assert [(one.trial, one.base) for one in book.waiting()] == [(trial, half.base)]

    @pytest.mark.parametrize("named", [LATEST_HEARD + 1, 2**31 - 2, 2**31, 10**30])
    def test_impossible_round_of_a_helper_stops_no_leader_for_good(self, settings, small, update, named):
        """A helper that names an impossible round does not stop a leader for good."""
        said, asked = {"newest": str(named)}, []

        def ask(_method, _path, _headers, body, _timeout):
            asked.append(unpack_proposal(body).round_number)
            if said:
                return HttpResponse(409, {}, json.dumps(said).encode())
            answer = pack_reply(Released(asked[-1], ()))
            return HttpResponse(200, {SIGNATURE.lower(): sign(PEER_TOKEN, body, answer)}, answer)

        bounds = {name: task.clip for name, task in small.tasks.items()}
        with closing(Store(settings.store, shape(small))) as store:
            store.start({name: task.start() for name, task in small.tasks.items()}, 0.0)
        context = ModeContext(settings, small, default_rules(small), Metrics(), lambda: 9.0)
        leader = Leader(context, SumPolicy(ask, PEER_TOKEN, min_projects=2, noise=NOISE))
        with closing(leader._store), closing(leader._tokens):
            for number in (1, 2):
                half = split_update(update(number), bounds, seed_of(number))[0]
                leader._store.keep([leader._offer(half, half.project, "owner")], 1.0)
            with pytest.raises(AggregatorError, match=r"as its last round.*start it with an empty one"):
                leader.round()
            said["newest"] = str(LATEST_HEARD)
            leader.round()
            said.clear()
            leader.round()
        assert asked == [1, 1, LATEST_HEARD + 1]
