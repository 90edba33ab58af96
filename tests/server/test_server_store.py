"""What outlives the process."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fedstep.errors import UsageError
from fedstep.federation.wire import pack_update
from fedstep.model.linear import zeros
from fedstep.server.aggregate import Rules
from fedstep.server.lineage import next_head, starting_vectors
from fedstep.server.store import Accepted, Offer, Refused, Store

RULES = {"flaky": Rules(1.0), "build-duration": Rules(0.2)}


def fold(head, bodies):
    return next_head(head, bodies, RULES)


def offer(update) -> Offer:
    return Offer(update.id, update.project, "open", update.base, pack_update(update))


@pytest.fixture
def store(tmp_path, ours):
    opened = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
    opened.start(starting_vectors(b"", ours), 0.0)
    yield opened
    opened.close()


def test_a_store_starts_with_version_0_and_later_with_the_newest(store, ours, tmp_path, update):
    assert store.start({}, 5.0).version == 0
    store.accept([offer(update(1))], 0, 10, 1.0)
    made = store.fold(fold, 2.0)
    store.close()
    again = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
    assert again.start({}, 9.0) == made
    again.close()


def test_a_repeat_gets_the_same_receipt_and_counts_once(store, update):
    first = store.accept([offer(update(1))], 0, 10, 1.0)[0]
    before = store.fold(fold, 2.0)
    second = store.accept([offer(update(1))], before.version, 10, 3.0)[0]
    assert second == replace(first, repeat=True)
    assert store.pending().updates == 0


def test_the_same_update_twice_in_one_batch_is_stored_once(store, update):
    first, second = store.accept([offer(update(1)), offer(update(1))], 0, 10, 1.0)
    assert not first.repeat
    assert second.repeat
    assert store.pending().updates == 1


def test_too_stale_and_unknown_bases_are_refused_but_a_repeat_never_is(store, update):
    stale, future, fine = store.accept([offer(update(1, 4)), offer(update(2, 16)), offer(update(3, 5))], 15, 10, 1.0)
    assert isinstance(stale, Refused)
    assert isinstance(future, Refused)
    assert isinstance(fine, Accepted)
    assert isinstance(store.accept([offer(update(3, 5))], 99, 10, 1.0)[0], Accepted)


def test_a_fold_makes_a_child_and_keeps_every_version(store, update, tmp_path):
    for number in range(3):
        store.accept([offer(update(number))], number, 10, 1.0)
        store.fold(fold, 2.0)
    rows = sqlite3.connect(tmp_path / "a.db").execute("select version, parent, updates from versions").fetchall()
    assert rows == [(0, None, 0), (1, 0, 1), (2, 1, 1), (3, 2, 1)]
    assert store.vectors(0)["flaky"] == zeros(5)
    assert store.vectors(1) != store.vectors(3)


def test_a_fold_that_fails_leaves_the_buffer_and_the_versions_alone(store, update):
    store.accept([offer(update(1))], 0, 10, 1.0)

    def broken(_head, _bodies):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.fold(broken, 2.0)
    assert store.pending().updates == 1
    assert store.start({}, 3.0).version == 0
    assert store.fold(fold, 4.0).version == 1


def test_the_order_of_arrival_in_one_buffer_does_not_matter_bit_for_bit(tmp_path, ours, update):
    heads = []
    for name, order in (("a", (1, 2, 3, 4)), ("b", (4, 2, 1, 3))):
        store = Store(f"sqlite:///{tmp_path / name}.db", ours)
        store.start(starting_vectors(b"", ours), 0.0)
        for number in order:
            store.accept([offer(update(number))], 0, 10, float(number))
        heads.append(store.fold(fold, 9.0).vectors)
        store.close()
    assert heads[0] == heads[1]


def test_another_schema_starts_after_the_last_version_and_leaves_the_old_buffer(store, ours, update, tmp_path):
    store.accept([offer(update(1))], 0, 10, 1.0)
    store.fold(fold, 2.0)
    store.accept([offer(update(2))], 1, 10, 3.0)
    other = Store(f"sqlite:///{tmp_path / 'a.db'}", ours._replace(digest="f" * 16))
    assert other.start(starting_vectors(b"", ours), 4.0).version == 2
    assert other.pending().updates == 0
    assert store.pending().updates == 1
    other.close()


def test_pending_says_how_many_updates_projects_and_since_when(store, update):
    store.accept([offer(update(1, project=1)), offer(update(2, project=1))], 0, 10, 7.0)
    store.accept([offer(update(3, project=2))], 0, 10, 9.0)
    pending = store.pending()
    assert (pending.updates, pending.projects, pending.oldest) == (3, 2, 7.0)


def test_commits_are_durable_and_beside_readers(store):
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fedstep.db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://u:hunter2@h/d",
        "mysql://x",
        "sqlite:////no/such/a.db",
    ],
)
def test_a_store_that_cannot_be_opened_is_a_usage_error_without_a_password(url, ours):
    with pytest.raises(UsageError) as error:
        Store(url, ours)
    assert "hunter2" not in str(error.value)
    assert error.value.remedy


def test_a_file_that_is_no_database_is_a_usage_error(tmp_path: Path, ours):
    (tmp_path / "a.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(UsageError, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
