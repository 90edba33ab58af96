"""`kill -9` under load: no acknowledged update lost, none counted twice. A hundred kills: make soak."""

import sqlite3
from contextlib import closing
from functools import partial
from itertools import chain, repeat
from random import Random

import pytest

from fedstep.federation.client import FetchedModel
from fedstep.federation.messages import Model, pack_update, shape
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.step import initial_vectors, next_version
from fedstep.server.gate import Gate
from fedstep.server.storage.store import Store
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer
from tests.benchmarks import accounts as accounts_module
from tests.benchmarks.accounts import accounts, served_as_stored
from tests.benchmarks.senders import drawn
from tests.benchmarks.soak import soak
from tests.helpers.narrow import expect, present


class TestKill:
    def test_five_kills_under_load_account_for_every_receipt(self, tmp_path):
        """Killed five times under load, it accounts for every receipt."""
        found = soak(tmp_path, kills=5, seed=3)
        assert found.wrong == ()
        assert found.acknowledged >= 10
        assert found.repeats > 0
        assert found.versions > 1


@pytest.fixture
def books(tmp_path):
    """The URL, the file, the bodies and the receipts of a store with three versions, a buffer and evaluations."""
    url, ours, dice = f"sqlite:///{tmp_path / 'a.db'}", shape(schema()), Random(1)
    bodies, promised = {}, {}
    with closing(Store(url, ours)) as store:
        version = store.start(initial_vectors(b"", ours), 0.0)
        for turn in range(3):
            trials = {} if turn == 0 else {"build-failure": 1, "build-duration": 1}
            model = Model(ours.digest, version.version, 0, "", {}, {}, trials)
            made = [drawn(dice, sender, turn, model) for sender in range(4)]
            offers = [UpdateOffer(one.id, one.project, "", one.base, pack_update(one), one.scores) for one in made]
            for offer, answer in zip(offers, store.accept(offers, version.version, 100, turn), strict=True):
                bodies[offer.id], promised[offer.id] = offer.body, expect(StoredReceipt, answer).receipt
            if turn < 2:
                step = partial(next_version, rules=default_rules(schema()), gate=Gate(distance=1, first_distance=1))
                version = present(store.aggregate(step, turn + 0.5))
    return url, tmp_path / "a.db", bodies, promised


class TestServed:
    @pytest.mark.parametrize(
        ("readings", "said"), [(3, ""), (60, "the head served as version 1 is not the one stored")]
    )
    def test_version_made_while_it_is_read_is_waited_for(self, books, monkeypatch, readings: int, said: str):
        """The aggregator made a version after the model was pulled: the soak once called this a loss."""
        url, *_ = books
        with closing(Store(url, shape(schema()))) as store:
            current = store.current()
        newest = Model("", current.candidate.version, 0, "", current.candidate.vectors, current.production)
        answers = chain(repeat(newest._replace(candidate_version=1), readings), repeat(newest))
        monkeypatch.setattr(accounts_module, "pull", lambda *_: FetchedModel(next(answers), b"", ""))
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        assert list(served_as_stored(url, "http://127.0.0.1:9")) == [said][: bool(said)]


class TestAudit:
    def test_the_books_of_a_sound_store_have_nothing_wrong(self, books):
        url, _file, bodies, promised = books
        assert accounts(url, bodies, promised).wrong == ()
        assert accounts(url, bodies, promised).versions == 3

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("DELETE FROM bodies", "its body is not in the store"),
            ("UPDATE bodies SET body = (SELECT body FROM bodies ORDER BY id LIMIT 1)", "its body is not in the store"),
            ("DELETE FROM updates WHERE aggregated_in IS NULL", "has a row or a body, and not both"),
            ("INSERT INTO bodies (id, body) VALUES ('a', '')", "has a row or a body, and not both"),
            ("DELETE FROM receipts", "was acknowledged with"),
            ("UPDATE receipts SET receipt = 'another'", "was acknowledged with"),
            ("UPDATE updates SET aggregated_in = 2 WHERE aggregated_in = 1", "the updates say otherwise"),
            ("UPDATE updates SET aggregated_in = 7 WHERE aggregated_in IS NULL", "versions that are not there"),
            ("UPDATE versions SET parent = 0 WHERE version = 2", "does not follow"),
            ("UPDATE versions SET version = 3 WHERE version = 2", "gap"),
            (("UPDATE versions SET vectors = (SELECT vectors FROM versions WHERE "
"version = 0)"), "is not what its updates"),
            (("INSERT INTO evaluations SELECT id + 100, schema, task, trial, update_id, project, owner, "
"difference FROM evaluations"),
             "has 2 votes"),
            ("UPDATE evaluations SET trial = 2", "does not carry"),
        ],
    )  # fmt: skip
    def test_the_books_say_what_was_lost_changed_or_counted_twice(self, books, damage, said):
        url, file, bodies, promised = books
        with closing(sqlite3.connect(file)) as connection, connection:
            assert connection.execute(damage).rowcount > 0
        wrong = accounts(url, bodies, promised).wrong
        assert any(said in line for line in wrong), wrong

    def test_what_nobody_sent_is_not_in_a_sound_store(self, books):
        url, _file, bodies, promised = books
        stranger = next(iter(bodies))
        fewer = {key: body for key, body in bodies.items() if key != stranger}
        receipts = {key: receipt for key, receipt in promised.items() if key != stranger}
        assert accounts(url, fewer, receipts).wrong == (f"{stranger} was never sent",)
