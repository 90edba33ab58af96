"""What leader and helper show of those who take part: counts, from the halves that they hold."""

import asyncio
from contextlib import closing

import pytest
import requests
from sqlalchemy import select

from fedstep.federation.client import post
from fedstep.federation.messages import pack_update
from fedstep.federation.secagg.share_client import SHARES_PATH, push_shares
from fedstep.federation.secagg.shares import pack_share, split_update
from fedstep.schema.schema import schema
from fedstep.server.dashboard import DashboardReader
from fedstep.server.gate import ActiveCounts, Gate
from fedstep.server.mode import BufferStatus
from fedstep.server.secagg.leader import SecureAggregation
from fedstep.server.secagg.share_store import KEPT_SECONDS, expire_shares, shares
from fedstep.server.storage.engine import open_engine
from tests.helpers.server_books import OURS, Pair, drawn, offers
from tests.helpers.server_shares import PATIENCE, helper, leader, peer
from tests.helpers.server_shares import drawn as real

DAY = 86_400.0
NOW = 100 * DAY
SEED = bytes(range(32))


@pytest.fixture
def pair(tmp_path):
    with closing(Pair(tmp_path)) as made:
        yield made


@pytest.fixture
def overview(pair):
    with closing(
        DashboardReader(pair.urls[0], OURS, Gate(), SecureAggregation("http://127.0.0.1:9", "x" * 20))
    ) as made:
        yield made


def keep(pair: Pair, number: int, whose: str, received: float) -> None:
    pair.leader.keep([offers(drawn(number, ("flaky", "triage")), whose)[0]], received)


class TestActivity:
    def test_an_update_of_several_tasks_waits_once(self, pair, overview):
        for number, whose in enumerate("aab"):
            keep(pair, number, whose, NOW + number)
        assert overview.read_snapshot(NOW + 9).pending == BufferStatus(3, 2, NOW)
        assert overview.read_snapshot(NOW + 9).status()["buffer"] == {"updates": 3, "projects": 2}

    def test_sender_of_the_last_week_is_active_after_the_round(self, pair, overview):
        """A project that sent in the last week is active, also after the round."""
        pair.keep(*(drawn(number) for number in range(3)))
        assert pair.aggregate().updates == 3
        keep(pair, 7, "new", 2.0)
        look = overview.read_snapshot(DAY)
        assert (look.pending.updates, look.active) == (1, ActiveCounts(4, 1))
        assert sum(day.updates for day in look.days) == 4
        assert look.volumes[0] == 4
        assert overview.read_snapshot(9 * DAY).active == ActiveCounts(0, 0)

    def test_a_project_that_was_forgotten_is_not_counted(self, pair, overview):
        keep(pair, 1, "gone", NOW)
        keep(pair, 2, "here", NOW)
        pair.leader.forget("gone", "owner")
        look = overview.read_snapshot(NOW + 1)
        assert (look.pending.updates, look.active.projects, sum(look.volumes)) == (1, 1, 1)

    def test_whose_an_old_half_was_is_forgotten_and_its_id_is_not(self, pair):
        pair.keep(*(drawn(number) for number in range(3)))
        assert pair.aggregate().updates == 3
        keep(pair, 8, "late", 50.0)
        for book in (pair.leader, pair.helper):
            book.delete_waiting(10.0)
        for url, left in zip(pair.urls, ({"late"}, set()), strict=True):
            engine = open_engine(url)
            with engine.begin() as connection:
                assert {row for row in connection.scalars(select(shares.c.project)) if row} == left
            engine.dispose()
        assert pair.leader.keep([offers(drawn(1))[0]], 60.0) == (True,)


class TestCounts:
    def test_a_book_that_nobody_sends_to_lets_go_by_the_clock_alone(self, pair):
        keep(pair, 1, "old", 0.0)

        async def quiet() -> None:
            tidying = asyncio.create_task(expire_shares(pair.leader, lambda: KEPT_SECONDS + 1.0))
            async with asyncio.timeout(30):
                while pair.leader.waiting():
                    await asyncio.sleep(0.05)
            tidying.cancel()

        asyncio.run(quiet())
        assert pair.leader.count_waiting() == BufferStatus(0, 0, 0.0)

    @pytest.mark.slow
    def test_two_processes_count_waiting_and_refused_shares(self, tmp_path):
        """Two processes count the shares that wait and those they refused."""
        with helper(tmp_path) as (second, _), leader(tmp_path, second) as (first, _):
            for number in (1, 2):
                push_shares(pack_update(real(number)), SEED, peer(first), peer(second), PATIENCE)
            bounds = {name: task.clip for name, task in schema().tasks.items()}
            lonely = split_update(real(3), bounds, SEED)[1]
            for _ in range(2):
                post(SHARES_PATH, lonely.id, pack_share(lonely), second, peer(second).send, PATIENCE)
            assert requests.post(f"{first}{SHARES_PATH}", b"no half", timeout=30).status_code == 400
            status = requests.get(f"{first}/v1/status", timeout=30).json()
            assert status["buffer"] == {"updates": 2, "projects": 2}
            assert status["active"] == {"projects": 2, "owners": 1}
            leads, helps = (requests.get(f"{url}/metrics", timeout=30).text for url in (first, second))
            page = requests.get(first, timeout=30).text
        assert 'fedstep_shares_total{outcome="accepted"} 2.0' in leads
        assert 'fedstep_shares_total{outcome="not-an-update"} 1.0' in leads
        assert "fedstep_pending_shares 2.0" in leads
        assert 'fedstep_shares_total{outcome="repeat"} 1.0' in helps
        assert "fedstep_pending_share_projects 3.0" in helps
        assert "Not counted: updates arrive as shares" in page
        assert "<dd>2 updates</dd>" in page
