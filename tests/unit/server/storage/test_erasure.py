"""A project that asks to be forgotten is, by its own sender alone; what stays has no name."""

import json
import logging
import re
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Table, func, insert, select

from fedstep.federation.client import Receipt, push
from fedstep.federation.messages import SchemaShape, Update, pack_update
from fedstep.federation.transport import HttpResponse, Transport
from fedstep.server.auth import PROJECT_HEADER
from fedstep.server.identity import TokenBook
from fedstep.server.mode import BufferPolicy
from fedstep.server.rate_limits import Allowance, Allowances
from fedstep.server.settings import Settings
from fedstep.server.storage.engine import open_engine
from fedstep.server.storage.tables import bodies, evaluations, metadata, receipts, updates
from fedstep.server.storage.update_repository import PROJECT_TABLES
from fedstep.server.storage.version_repository import VersionRepository
from tests.helpers.narrow import present

PROJECT, STRANGER = f"{7:032x}", f"{8:032x}"
KEPT_OF_A_PROJECT = {"privacy_spending"}  # of privacy: who is forgotten may not spend it again


@pytest.fixture
def either(url: str) -> Settings:
    """An aggregator on each kind of database, which aggregates every second update."""
    return Settings(store=url, buffer=BufferPolicy(updates=2, seconds=3600.0), gate=None)


def asked(send: Transport, project: str = PROJECT, token: str = "") -> HttpResponse:
    headers = {PROJECT_HEADER: project, **({"Authorization": f"Bearer {token}"} if token else {})}
    return send("POST", "/v1/forget", headers, b"", 5)


def forgot(answer: HttpResponse) -> dict[str, int]:
    assert answer.status == 200, answer.body
    counts: dict[str, int] = json.loads(answer.body)
    return counts


def with_token(send: Transport, token: str) -> Transport:
    return lambda method, path, headers, body, timeout: send(
        method, path, {**headers, "Authorization": f"Bearer {token}"}, body, timeout
    )


def pushed(send: Transport, update: Update, token: str = "") -> Receipt:
    return push(pack_update(update), "http://here", with_token(send, token) if token else send)


def left(settings: Settings, table: Table, **wanted: str) -> int:
    """How many rows of a table have these values."""
    engine = open_engine(settings.store)
    with engine.begin() as connection:
        query = select(func.count()).select_from(table)
        found = connection.scalar(query.where(*(table.c[name] == value for name, value in wanted.items())))
    engine.dispose()
    return present(found)


def cast_vote(settings: Settings, project: str, owner: str = "") -> None:
    engine = open_engine(settings.store)
    row = {"schema": "s", "task": "flaky", "trial": 1, "update_id": "u", "project": project, "owner": owner}
    with engine.begin() as connection:
        connection.execute(insert(evaluations).values(**row, difference=0.1))
    engine.dispose()


class TestDeletion:
    def test_everything_of_a_project_is_deleted_and_of_no_other(
        self, either: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        """Pending and aggregated updates and the evaluations of a project are deleted, and of no other project."""
        with open_aggregator(either) as house:
            for number, project in enumerate((7, 8, 7)):  # two of them are aggregated at once
                pushed(house.send, update(number, project=project))
            cast_vote(either, PROJECT)
            cast_vote(either, STRANGER)
            assert forgot(asked(house.send)) == {"updates": 2, "evaluations": 1}
            assert json.loads(house.send("GET", "/v1/status", {}, b"", 5).body)["buffer"] == {
                "updates": 0,
                "projects": 0,
            }
        for table in PROJECT_TABLES:
            assert left(either, table, project=PROJECT) == 0
            assert left(either, table, project=STRANGER) == 1
        assert left(either, bodies) == left(either, bodies, id=update(1).id) == 1

    def test_every_table_with_a_project_is_deleted_or_listed(self) -> None:
        """Every table that has a project is deleted from or listed as kept."""
        with_project = {table.name for table in metadata.tables.values() if "project" in table.columns}
        assert with_project == {table.name for table in PROJECT_TABLES} | KEPT_OF_A_PROJECT

    def test_deleting_twice_or_an_unknown_project_changes_nothing(
        self, either: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        """Deleting twice is the same as once, and an unknown project gets the same answer."""
        with open_aggregator(either) as house:
            pushed(house.send, update(1, project=7))
            assert forgot(asked(house.send))["updates"] == 1
            again, unknown = asked(house.send), asked(house.send, STRANGER)
            assert again == unknown
            assert forgot(again) == {"updates": 0, "evaluations": 0}

    def test_an_update_that_was_forgotten_is_not_counted_anew(
        self, either: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        with open_aggregator(either) as house:
            first = pushed(house.send, update(1, project=7))
            asked(house.send)
            assert pushed(house.send, update(1, project=7)) == first
        assert left(either, receipts) == 1
        assert left(either, updates) == 0


class TestRequest:
    def test_another_owner_with_the_pseudonym_deletes_nothing(
        self, settings: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        """Another owner who knows the pseudonym deletes nothing and learns nothing."""
        mine, theirs = "m" * 20, "t" * 20
        closed = Settings(store=settings.store, buffer=settings.buffer, gate=None, tokens=(mine, theirs))
        with open_aggregator(closed) as house:
            pushed(house.send, update(1, project=7), mine)
            assert asked(house.send).status == 401
            known, unknown = asked(house.send, PROJECT, theirs), asked(house.send, STRANGER, theirs)
            assert known == unknown
            assert left(settings, updates, project=PROJECT) == 1
            assert forgot(asked(house.send, PROJECT, mine)) == {"updates": 1, "evaluations": 0}

    def test_project_of_the_token_counts_whatever_is_claimed(
        self, settings: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        """Where the token names the project, that one is deleted, whatever the request claims."""
        book = TokenBook(settings.store)
        web, shop = book.create("acme/web", 0.0), book.create("acme/shop", 0.0)
        book.close()
        with open_aggregator(settings) as house:
            pushed(house.send, update(1, project=7), web)
            assert forgot(asked(house.send, PROJECT, shop)) == {"updates": 0, "evaluations": 0}
            assert forgot(asked(house.send, STRANGER, web)) == {"updates": 1, "evaluations": 0}

    @pytest.mark.parametrize("project", ["", "7", f"{7:033x}", "G" * 32, f"{7:032x}\n"])
    def test_a_request_that_names_no_project_is_refused(
        self, settings: Settings, open_aggregator: Callable, project: str
    ) -> None:
        with open_aggregator(settings) as house:
            answer = asked(house.send, project)
        assert (answer.status, json.loads(answer.body)["type"]) == (400, "urn:fedstep:problem:no-project")

    def test_it_is_asked_for_as_often_as_an_update_may_be_sent(
        self, settings: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        token = "m" * 20
        few = Allowances(owner=(Allowance(2, 3600.0),))
        with open_aggregator(
            Settings(store=settings.store, buffer=settings.buffer, gate=None, tokens=(token,), allowances=few)
        ) as house:
            pushed(house.send, update(1, project=7), token)
            assert asked(house.send, PROJECT, token).status == 200
            refused = asked(house.send, PROJECT, token)
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) > 0

    def test_the_log_says_that_and_not_who(
        self, settings: Settings, open_aggregator: Callable, update: Callable, caplog: pytest.LogCaptureFixture
    ) -> None:
        book = TokenBook(settings.store)
        token = book.create("acme/web", 0.0)
        book.close()
        caplog.set_level(logging.DEBUG, "fedstep")
        with open_aggregator(settings) as house:
            pushed(house.send, update(1, project=7), token)
            caplog.clear()
            asked(house.send, PROJECT, token)
        (line,) = [record for record in caplog.records if "forgotten" in record.getMessage()]
        assert line.getMessage() == "a project was forgotten: 1 updates, 0 evaluations"
        assert not re.search(f"acme|{PROJECT}|{token}", str(line.__dict__))

    def test_failing_deletion_deletes_and_promises_nothing(
        self, settings: Settings, open_aggregator: Callable, update: Callable
    ) -> None:
        """Where one part cannot be deleted, nothing is deleted and nothing is acknowledged."""
        with open_aggregator(settings) as house:
            pushed(house.send, update(1, project=7))
            engine = open_engine(settings.store)
            evaluations.drop(engine)
            engine.dispose()
            answer = asked(house.send)
            assert (answer.status, json.loads(answer.body)["type"]) == (503, "urn:fedstep:problem:store")
            assert left(settings, updates, project=PROJECT) == 1


class TestRetention:
    def test_the_bytes_are_gone_from_the_files_of_the_store_too(
        self, settings: Settings, open_aggregator: Callable, update: Callable, tmp_path: Path
    ) -> None:
        telling = update(1, project=7)._replace(
            deltas={"flaky": array("f", [0.1234567] * 5), "build-duration": array("f", [0.0123] * 3)}
        )
        needle = array("f", [0.1234567] * 5).tobytes()

        def found() -> list[str]:
            return [path.name for path in tmp_path.iterdir() if needle in path.read_bytes()]

        waiting = Settings(store=settings.store, buffer=BufferPolicy(updates=9, seconds=3600.0), gate=None)
        with open_aggregator(waiting) as house:
            pushed(house.send, telling)
            assert found() != []
            asked(house.send)
            assert found() == []

    def test_an_aggregated_update_is_deleted_after_thirty_days(
        self, settings: Settings, open_aggregator: Callable, update: Callable, ours: SchemaShape
    ) -> None:
        with open_aggregator(settings) as house:
            pushed(house.send, update(1, project=7))
            pushed(house.send, update(2, project=8))  # both are aggregated now
        engine = open_engine(settings.store)
        with engine.begin() as connection:
            received = connection.scalar(select(func.min(updates.c.received)))
            for days, kept in ((29, 2), (31, 0)):
                VersionRepository(connection, ours.digest).prune_updates(-1, received + days * 86_400)
                for table in (updates, bodies):
                    assert connection.scalar(select(func.count()).select_from(table)) == kept
            assert connection.scalar(select(func.count()).select_from(receipts)) == 2
        engine.dispose()

    @pytest.mark.parametrize("digest", ["", "b" * 16])
    def test_waiting_update_is_deleted_after_thirty_days(
        self, settings: Settings, open_aggregator: Callable, update: Callable, ours: SchemaShape, digest: str
    ) -> None:
        """An update that was never aggregated is deleted after thirty days, also one of another schema."""
        waiting = Settings(store=settings.store, buffer=BufferPolicy(updates=9, seconds=3600.0), gate=None)
        with open_aggregator(waiting) as house:
            pushed(house.send, update(1, project=7))
        engine = open_engine(settings.store)
        with engine.begin() as connection:
            received = connection.scalar(select(func.min(updates.c.received)))
            for days, kept in ((29, 1), (31, 0)):
                VersionRepository(connection, digest or ours.digest).prune_updates(10**6, received + days * 86_400)
                for table in (updates, bodies):
                    assert connection.scalar(select(func.count()).select_from(table)) == kept
            assert connection.scalar(select(func.count()).select_from(receipts)) == 1
        engine.dispose()

    def test_a_request_that_is_served_leaves_no_address_in_the_log(
        self, settings: Settings, open_aggregator: Callable, update: Callable, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with open_aggregator(settings) as house:
            pushed(house.send, update(1, project=7))
            asked(house.send)
            house.send("GET", "/v1/model", {}, b"", 5)
        assert [record.__dict__ for record in caplog.records if "127.0.0.1" in str(record.__dict__)] == []
