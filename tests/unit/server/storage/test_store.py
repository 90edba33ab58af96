"""What outlives the process."""

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from fedstep.errors import UsageError
from fedstep.model.linear import zeros
from fedstep.server.aggregation.step import initial_vectors, iter_task_deltas
from fedstep.server.gate import ActiveCounts
from fedstep.server.mode import BufferPolicy, is_due
from fedstep.server.storage.engine import create_store_engine, require_store, truncate_wal
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import receipts
from fedstep.server.storage.update_repository import StoredReceipt, UpdateRejected
from fedstep.server.writer import Writer
from tests.helpers.narrow import present
from tests.helpers.server_store import gated, make_version, offer, rows


class TestReceipts:
    def test_a_store_starts_with_version_0_and_later_with_the_newest(self, store, ours, url, update):
        assert store.start({}, 5.0).version == 0
        store.accept([offer(update(1))], 0, 10, 1.0)
        made = store.aggregate(make_version, 2.0)
        store.close()
        again = Store(url, ours)
        assert again.start({}, 9.0) == made
        again.close()

    def test_a_repeat_gets_the_same_receipt_and_counts_once(self, store, update):
        first = store.accept([offer(update(1))], 0, 10, 1.0)[0]
        before = store.aggregate(make_version, 2.0)
        second = store.accept([offer(update(1))], before.version, 10, 3.0)[0]
        assert second == replace(first, repeat=True)
        assert store.pending().updates == 0

    def test_the_same_update_twice_in_one_batch_is_stored_once(self, store, update):
        first, second = store.accept([offer(update(1)), offer(update(1))], 0, 10, 1.0)
        assert not first.repeat
        assert second.repeat
        assert store.pending().updates == 1

    def test_refused_offer_fails_no_other_of_its_batch(self, store, update, url):
        """What the database refuses is refused alone; every sender of the batch got a 503 for it."""
        store.accept([offer(update(1))], 0, 10, 1.0)
        store.write(lambda session: session.connection.execute(delete(receipts)))
        refused, stored = store.accept([offer(update(1)), offer(update(2))], 0, 10, 1.0)
        assert isinstance(refused, UpdateRejected)
        assert isinstance(stored, StoredReceipt)
        assert kept(url) == [update(1).id, update(2).id]

    def test_stale_and_unknown_bases_are_refused_but_no_repeat(self, store, update):
        """Updates with a base that is too stale or unknown are refused, but a repeat never is."""
        stale, future, fine = store.accept(
            [offer(update(1, 4)), offer(update(2, 16)), offer(update(3, 5))], 15, 10, 1.0
        )
        assert isinstance(stale, UpdateRejected)
        assert isinstance(future, UpdateRejected)
        assert isinstance(fine, StoredReceipt)
        assert isinstance(store.accept([offer(update(3, 5))], 99, 10, 1.0)[0], StoredReceipt)


class TestRecentUpdates:
    def test_newest_aggregated_updates_are_known_after_a_restart(self, store, ours, url, update):
        """The next aggregation gets the same, from the cache or from the file, without those in the buffer."""
        seen: list[set[str]] = []

        def look(moment):
            seen.append({one.update().id for one in moment.recent()})
            return make_version(moment)

        for number in range(3):
            store.accept([offer(update(number, number))], number, 10, 1.0)
            store.aggregate(look, 2.0)
        store.close()
        again = Store(url, ours)
        again.accept([offer(update(3, 3))], 3, 10, 1.0)
        again.aggregate(look, 3.0)
        again.close()
        ids = [update(number).id for number in range(3)]
        assert seen == [set(), {ids[0]}, {*ids[:2]}, {*ids}]

    def test_updates_of_a_forgotten_project_are_not_among_them(self, store, update):
        """Neither the cache nor the file has them: nothing that was deleted counts for or against anybody."""
        for number in range(2):
            store.accept([offer(update(number, number))], number, 10, 1.0)
            store.aggregate(make_version, 2.0)
        store.forget(update(0).project, "open")
        with store.read() as session:
            assert list(session.versions.recent_updates(10, {})) == [update(1).id]


class TestAggregation:
    def test_an_aggregation_makes_a_child_and_keeps_every_version(self, store, update, url):
        for number in range(3):
            store.accept([offer(update(number))], number, 10, 1.0)
            store.aggregate(make_version, 2.0)
        found = rows(url, "select version, parent, updates from versions order by version")
        assert found == [(0, None, 0), (1, 0, 1), (2, 1, 1), (3, 2, 1)]
        assert store.vectors(0)["flaky"] == zeros(5)
        assert store.vectors(1) != store.vectors(3)

    def test_failed_aggregation_leaves_buffer_and_versions_alone(self, store, update):
        """An aggregation that fails leaves the buffer and the versions unchanged."""
        store.accept([offer(update(1))], 0, 10, 1.0)

        def broken(_moment):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.aggregate(broken, 2.0)
        assert store.pending().updates == 1
        assert store.start({}, 3.0).version == 0
        assert present(store.aggregate(make_version, 4.0)).version == 1

    def test_aggregation_does_not_block_truncation_of_the_wal(self, tmp_path, ours, update):
        """While an aggregation is computed, nothing keeps SQLite's log from being truncated."""
        file = tmp_path / "a.db"

        def emptying(moment):
            with closing(sqlite3.connect(file)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
            return make_version(moment)

        with closing(Store(f"sqlite:///{file}", ours)) as alone:
            alone.start({name: zeros(size) for name, size in ours.sizes.items()}, 0.0)
            alone.accept([offer(update(1))], 0, 10, 1.0)
            assert present(alone.aggregate(emptying, 2.0)).version == 1

    def test_aggregation_of_a_changed_buffer_is_repeated(self, store, update, url):
        """An aggregation of a buffer that changed meanwhile is not written and is made again."""
        store.accept([offer(update(1)), offer(update(2, project=2))], 0, 10, 1.0)

        def slow(moment):
            engine = create_store_engine(url)
            with engine.begin() as connection:
                connection.exec_driver_sql(f"delete from updates where id = '{1:032x}'")
            engine.dispose()
            return make_version(moment)

        assert store.aggregate(slow, 2.0) is None
        assert (store.latest_version(), store.pending().updates) == (0, 1)
        assert present(store.aggregate(make_version, 3.0)).version == 1
        assert rows(url, "select version, updates from versions order by version") == [(0, 0), (1, 1)]

    def test_cached_updates_aggregate_as_those_read_from_the_store(self, tmp_path, ours, update):
        """Updates that were read on receipt aggregate as those read from the store."""
        tasks = []
        for name, known in (("a", True), ("b", False)):
            with closing(Store(f"sqlite:///{tmp_path / name}.db", ours)) as store:
                store.start(initial_vectors(b"", ours), 0.0)
                made = [update(number, project=number) for number in range(8)]
                store.accept([replace(offer(one), update=one if known else None) for one in made], 0, 10, 1.0)
                tasks.append(present(store.aggregate(make_version, 9.0)).vectors)
        assert tasks[0] == tasks[1]

    def test_updates_are_acknowledged_during_an_aggregation(self, store, ours, url, update):
        began, acknowledged, order = threading.Event(), threading.Event(), []

        def slow(moment):
            began.set()
            acknowledged.wait(30)
            order.append("folded")
            return make_version(moment)

        async def offers() -> None:
            writer = Writer(Store(url, ours), BufferPolicy(updates=1, seconds=3600.0), slow, 100)
            writing = asyncio.create_task(writer.run(store.current(), lambda _: None))
            await writer.offer(offer(update(1)))
            await asyncio.to_thread(began.wait, 30)
            await asyncio.wait_for(writer.offer(offer(update(2))), 20)
            order.append("acknowledged")
            acknowledged.set()
            await writer.stop()
            await writing
            writer.close()

        asyncio.run(offers())
        assert order[:2] == ["acknowledged", "folded"]

    def test_order_of_arrival_does_not_matter_bit_for_bit(self, tmp_path, ours, update):
        """The order of arrival in one buffer does not matter, bit for bit."""
        tasks = []
        for name, order in (("a", (1, 2, 3, 4)), ("b", (4, 2, 1, 3))):
            store = Store(f"sqlite:///{tmp_path / name}.db", ours)
            store.start(initial_vectors(b"", ours), 0.0)
            for number in order:
                store.accept([offer(update(number))], 0, 10, float(number))
            tasks.append(present(store.aggregate(make_version, 9.0)).vectors)
            store.close()
        assert tasks[0] == tasks[1]

    def test_other_schema_follows_the_last_version_with_a_new_buffer(self, store, ours, update, url):
        """Another schema starts after the last version and leaves the old buffer."""
        store.accept([offer(update(1))], 0, 10, 1.0)
        store.aggregate(make_version, 2.0)
        store.accept([offer(update(2))], 1, 10, 3.0)
        other = Store(url, ours._replace(digest="f" * 16))
        assert other.start(initial_vectors(b"", ours), 4.0).version == 2
        assert other.pending().updates == 0
        assert store.pending().updates == 1
        other.close()


def kept(url: str) -> list[str]:
    found = [number for (number,) in rows(url, "select id from updates order by received")]
    assert rows(url, "select id from bodies order by id") == [(number,) for number in sorted(found)]
    return found


class TestDurability:
    def test_pending_says_how_many_updates_projects_and_since_when(self, store, update):
        store.accept([offer(update(1, project=1)), offer(update(2, project=1))], 0, 10, 7.0)
        store.accept([offer(update(3, project=2))], 0, 10, 9.0)
        pending = store.pending()
        assert (pending.updates, pending.projects, pending.oldest) == (3, 2, 7.0)

    def test_commits_are_durable_and_beside_readers(self, tmp_path, ours):
        opened = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
        with opened._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        opened.close()

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "fedstep.db",
            "sqlite://",
            "sqlite:///:memory:",
            "postgresql://u:hunter2@127.0.0.1:1/d",
            "postgresql://127.0.0.1:1/d?user=u&password=hunter2",
            "postgresql://u:hunter2@127.0.0.1:1/d?sslmode=hunter2",
            "postgresql://u:hunter2@127.0.0.1:none/d",
            "postgresql+psycopg2://u:hunter2@127.0.0.1:1/d",
            "mysql://x",
            "sqlite:////no/such/a.db",
        ],
    )
    def test_unopenable_store_is_a_usage_error_without_a_password(self, url, ours):
        """A store that cannot be opened is a usage error without a password in its text."""
        with pytest.raises(UsageError) as error:
            Store(url, ours)
        assert "hunter2" not in str(error.value)
        assert error.value.remedy

    def test_a_file_that_is_no_database_is_a_usage_error(self, tmp_path: Path, ours):
        (tmp_path / "a.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
        with pytest.raises(UsageError, match="cannot be opened"):
            Store(f"sqlite:///{tmp_path / 'a.db'}", ours)

    def test_update_is_stored_whole_or_not_and_with_its_body(self, store, update, url):
        """Of an update that cannot be stored nothing is, and a body is never without its row."""
        first, second = offer(update(1)), offer(update(2))
        rows(url, f"insert into bodies (id, body) values ('{second.id}', 'taken') returning id")
        taken, refused = store.accept([first, second], 0, 10, 1.0)
        assert isinstance(taken, StoredReceipt)
        assert isinstance(refused, UpdateRejected)
        assert set(rows(url, "select id from updates union all select id from receipts")) == {(first.id,)}
        assert rows(url, f"delete from bodies where id = '{second.id}' returning id") == [(second.id,)]
        assert kept(url) == [first.id]
        store.accept([first, second], 0, 10, 1.0)
        assert len(kept(url)) == 2

    def test_an_aggregation_writes_no_body_again(self, tmp_path, ours, update):
        sizes = []
        for length in (0, 100_000):
            url = f"sqlite:///{tmp_path / str(length)}.db"
            with closing(Store(url, ours)) as store:
                store.start(initial_vectors(b"", ours), 0.0)
                store.aggregate(make_version, 1.0)  # SQLite has a 1 in no bytes, as NULL: no row would grow
                offers = [replace(offer(one), update=one) for one in map(update, range(20))]
                store.accept([replace(one, body=one.body + bytes(length)) for one in offers], 1, 10, 2.0)
                truncate_wal(store._engine)
                assert present(store.aggregate(make_version, 3.0)).version == 2
                sizes.append((tmp_path / f"{length}.db-wal").stat().st_size)
        assert sizes[1] < sizes[0] + 100_000


class TestRetention:
    def test_store_deletes_month_old_updates_once_a_day(self, store, update, url):
        """A store deletes updates of thirty days ago once a day."""
        days = 86_400.0
        first, second, third = update(1), update(2), update(3)
        store.accept([offer(first)], 0, 10, 0.0)
        store.aggregate(gated, 1.0)
        store.accept([offer(second)], 1, 10, 29 * days)
        store.tidy(29.5 * days)
        assert kept(url) == [first.id, second.id]
        store.accept([offer(third)], 1, 10, 30 * days)
        store.tidy(30.1 * days)
        assert kept(url) == [first.id, second.id, third.id], "not yet a day since the last time"
        store.tidy(30.6 * days)
        assert kept(url) == [second.id, third.id]

    def test_clock_that_went_back_ends_no_deletion(self, store, update, url):
        """A clock that was a year ahead at a deletion put the next one off for a year."""
        year, days = 365 * 86_400.0, 86_400.0
        store.start({}, 0.0)
        store.tidy(year)
        store.accept([offer(update(1))], 0, 10, 2 * days)
        store.tidy(33 * days)
        assert kept(url) == []

    def test_idle_writer_deletes_old_updates_by_the_clock(self, store, url, ours, update):
        """A writer that nobody sends to and that aggregates nothing deletes old updates by the clock alone."""
        now = [0.0]

        async def quiet() -> None:
            writer = Writer(
                Store(url, ours), BufferPolicy(updates=1000, seconds=1e9), make_version, 100, lambda: now[0]
            )
            writing = asyncio.create_task(writer.run(store.current(), lambda _: None))
            await writer.offer(offer(update(1)))
            assert kept(url) == [update(1).id]
            now[0] = 31 * 86_400.0
            async with asyncio.timeout(30):
                while kept(url):
                    await asyncio.sleep(0.1)
            await writer.stop()
            await writing
            writer.close()

        asyncio.run(quiet())
        assert store.latest_version() == 0

    def test_restarted_store_deletes_month_old_updates(self, store, update, url):
        """A store that is started anew deletes updates of thirty days ago."""
        store.accept([offer(update(1))], 0, 10, 0.0)
        store.aggregate(gated, 1.0)
        store.start({}, 29 * 86_400.0)
        assert kept(url) == [update(1).id]
        store.start({}, 31 * 86_400.0)
        assert kept(url) == []

    @pytest.mark.slow
    def test_needless_updates_go_after_a_week_and_receipts_stay(self, store, update, url):
        """Updates that cannot be needed again are deleted after a week, and their receipts stay."""
        day = 86_400.0
        store.accept([offer(update(1))], 0, 1000, 0.0)
        for number in range(99):
            store.aggregate(make_version, float(number))
        store.accept([offer(update(2))], 99, 1000, 8 * day)
        store.aggregate(make_version, 8 * day)
        store.tidy(8 * day)
        assert kept(url) == [f"{2:032x}"]
        assert store.accept([offer(update(1))], 100, 1000, 9 * day)[0].repeat

    def test_who_sent_nothing_for_a_week_is_not_waited_for(self, store, update):
        store.accept([offer(update(1, project=1)), offer(update(2, project=2))], 0, 10, 0.0)
        store.accept([offer(update(3, project=2))], 0, 10, 6 * 86_400.0)
        assert store.active(6 * 86_400.0) == ActiveCounts(2, 1)
        assert store.active(8 * 86_400.0) == ActiveCounts(1, 1)

    def test_to_look_at_a_store_that_is_not_there_does_not_make_it(self, url, ours):
        for _ in range(2):
            with pytest.raises(UsageError, match="not there"):
                require_store(url)
        Store(url, ours).close()
        assert require_store(url) == url


class TestProjects:
    @pytest.mark.parametrize(("identity", "projects"), [("web", 1), ("", 6)])
    def test_claimed_project_counts_only_without_an_identified_one(self, store, update, identity, projects):
        """The claimed project counts only where the identity has none."""
        offers = [offer(update(number)) for number in range(6)]
        store.accept([replace(one, project=identity or one.project) for one in offers], 0, 100, 1.0)
        folded: list[str] = []

        def look(moment):
            folded.extend(one.project for stored in moment.buffered for _, one in iter_task_deltas(stored, 0))
            return make_version(moment)

        store.aggregate(look, 2.0)
        assert len(folded) == 12
        assert len(set(folded)) == projects

    def test_busy_project_neither_delays_nor_is_aggregated_alone(self, store, update, monkeypatch):
        """One busy project neither delays others nor is aggregated alone."""
        monkeypatch.setattr("fedstep.server.storage.store.MAX_AGGREGATED", 4)
        store.accept([offer(update(number, project=1)) for number in range(9)], 0, 10, 1.0)

        def two(pending):
            return pending.projects >= 2

        assert store.aggregate(make_version, 2.0, two) is None
        store.accept([offer(update(20, project=2))], 0, 10, 3.0)
        folded: list[str] = []

        def look(moment):
            folded.extend(stored.project for stored in moment.buffered)
            return make_version(moment)

        assert present(store.aggregate(look, 4.0, two)).version == 1
        assert sorted(folded) == [f"{1:032x}"] * 3 + [f"{2:032x}"]
        assert store.pending().updates == 6
        assert store.aggregate(look, 5.0, two) is None

    def test_sender_in_a_hurry_does_not_make_others_stale(self, store, update):
        """It sends an update a second for two minutes: forty versions, and then one for each time that updates wait."""
        policy, began, made = BufferPolicy(updates=1, seconds=60.0), 3600.0, []
        for second in range(121):
            now = began + second
            store.accept([offer(update(second, project=1))], store.latest_version(), 100, now)
            version = store.aggregate(make_version, now, lambda status, now=now: is_due(status, now, policy))
            made += [second] if version else []
        assert made == [*range(40), 100]
        assert isinstance(
            store.accept([offer(update(500, project=2))], store.latest_version(), 100, now)[0], StoredReceipt
        )
        later = began + 3700.0
        store.accept([offer(update(501, project=1))], store.latest_version(), 100, later)
        assert store.aggregate(make_version, later, lambda status: is_due(status, later, policy))

    def test_a_long_queue_is_not_counted_after_every_batch(self, store, url, ours, update):
        counted = []

        class Counting(Store):
            def pending(self):
                counted.append(1)
                return super().pending()

        async def offers() -> int:
            writer = Writer(Counting(url, ours), BufferPolicy(updates=1000, seconds=3600.0), make_version, 100)
            writing = asyncio.create_task(writer.run(store.current(), lambda _: None))
            answers = [await writer.offer(offer(update(number))) for number in range(200)]
            await writer.stop()
            await writing
            writer.close()
            return len(answers)

        began = time.monotonic()
        assert asyncio.run(offers()) == 200
        assert len(counted) < 60 + time.monotonic() - began, "each eighth, and each second"
