"""PostgreSQL as the store: what is its own, and what moves between it and SQLite."""

import gzip
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import inspect

from fedstep.cli.main import commands
from fedstep.errors import UsageError
from fedstep.federation.messages import TrialScore, pack_update
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.step import initial_vectors, next_version
from fedstep.server.gate import Gate
from fedstep.server.identity import TokenBook
from fedstep.server.mode import BufferPolicy
from fedstep.server.storage.engine import create_store_engine, open_engine, warn_of_others
from fedstep.server.storage.migrations import LAYOUT, RENAMED_COLUMNS, RENAMED_TABLES
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import metadata
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer
from tests.helpers.narrow import expect, present
from tests.helpers.server_store import rows

RULES = {"flaky": AggregationRules(1.0), "build-duration": AggregationRules(0.2)}


def make_version(moment):
    return next_version(moment, RULES, Gate(alone=3, distance=1, first_distance=1))


def offer(update) -> UpdateOffer:
    return UpdateOffer(update.id, update.project, "open", update.base, pack_update(update), update.scores)


@contextmanager
def opened(url: str, ours, count: int = 1) -> Iterator[tuple[Store, ...]]:
    """So many replicas of one store."""
    stores = tuple(Store(url, ours) for _ in range(count))
    try:
        for store in stores:
            store.start(initial_vectors(b"", ours), 0.0)
        yield stores
    finally:
        for store in stores:
            store.close()


def run(*words: str) -> str:
    return CliRunner().invoke(commands, words, catch_exceptions=False, standalone_mode=False).output


def asked(url: str, query: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


class TestReplicas:
    def test_replicas_starting_at_once_create_the_store_once(self, database, ours):
        """Replicas that start at once make the tables and the first version once."""
        gate = threading.Barrier(4)

        def start(_number: int) -> int:
            gate.wait(30)
            with closing(Store(database, ours)) as store:
                return store.start(initial_vectors(b"", ours), 0.0).version

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(start, range(4))) == [0] * 4
        assert asked(database, "select version from versions") == [(0,)]
        assert asked(database, "select layout from layouts") == [(LAYOUT,)]
        assert len(asked(database, "select id from lineages")) == 1

    def test_update_at_two_replicas_has_one_receipt_and_counts_once(self, database, ours, update):
        """What two replicas get at the same moment has one receipt and counts once."""
        rounds, size = 8, 20
        gate = threading.Barrier(2)
        with opened(database, ours, 2) as stores:

            def accept(store: Store) -> list[StoredReceipt]:
                found: list[StoredReceipt] = []
                for number in range(rounds):
                    offers = [offer(update(number * size + one)) for one in range(size)]
                    gate.wait(30)
                    answers = store.accept(offers if store is stores[0] else offers[::-1], 0, 10, 1.0)
                    found += (expect(StoredReceipt, one) for one in answers[:: 1 if store is stores[0] else -1])
                return found

            with ThreadPoolExecutor(2) as pool:
                first, second = pool.map(accept, stores)
            assert [one.receipt for one in first] == [one.receipt for one in second]
            assert all(one.repeat != other.repeat for one, other in zip(first, second, strict=True))
            assert stores[0].pending().updates == rounds * size

    def test_while_one_replica_aggregates_another_accepts(self, database, ours, update):
        """While one replica aggregates, another does not, and it goes on accepting."""
        with opened(database, ours, 2) as (one, other):
            one.accept([offer(update(1))], 0, 10, 1.0)
            made, repeats = [], []

            def makes(moment):
                made.append(other.aggregate(make_version, 2.0))
                repeats.append(expect(StoredReceipt, other.accept([offer(update(2))], 0, 10, 2.0)[0]).repeat)
                return make_version(moment)

            assert present(one.aggregate(makes, 3.0)).version == 1
            assert (made, repeats) == ([None], [False])
            assert other.pending().updates == 1
            assert present(other.aggregate(make_version, 4.0)).version == 2
            query = "select id, aggregated_in from updates order by id"
            assert asked(database, query) == [(f"{1:032x}", 1), (f"{2:032x}", 2)]

    def test_two_schemas_on_one_store_never_make_the_same_version(self, database, ours, update):
        with opened(database, ours) as (one,), opened(database, ours._replace(digest="f" * 16)) as (other,):
            one.accept([offer(update(1))], 0, 10, 1.0)
            made = [
                present(store.aggregate(make_version, now)).version
                for store, now in ((one, 2.0), (other, 3.0), (one, 4.0))
            ]
            assert made == [2, 3, 4]


def end_connections(database: str) -> None:
    ours = "application_name = 'fedstep' and datname = current_database()"
    asked(database, f"select pg_terminate_backend(pid) from pg_stat_activity where {ours}")


class TestConnections:
    def test_lost_connection_loses_nothing_acknowledged(self, database, ours, update):
        """A connection that is lost costs nothing that was acknowledged, and the next batch works."""
        with opened(database, ours) as (store,):
            store.accept([offer(update(1))], 0, 10, 1.0)
            end_connections(database)
            store.accept([offer(update(2))], 0, 10, 1.0)

            def loses(_moment):
                end_connections(database)
                return make_version(_moment)

            with pytest.raises(Exception, match="terminating connection"):
                store.aggregate(loses, 2.0)
            assert store.pending().updates == 2
            assert present(store.aggregate(make_version, 3.0)).version == 1

    def test_lost_database_answers_503_until_it_is_back(self, database, settings, open_aggregator, update, caplog):
        """A database that is gone leads to 503, and updates are accepted again when it is back."""

        def post(house, made):
            return house.send("POST", "/v1/updates", {"Idempotency-Key": made.id}, pack_update(made), 30).status

        with open_aggregator(replace(settings, store=database)) as house, caplog.at_level(logging.DEBUG):
            assert post(house, update(1)) == 202
            name = database.rpartition("/")[2]
            aside = database.replace(name, "postgres")
            asked(aside, f"alter database {name} allow_connections false")
            asked(aside, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
            assert post(house, update(2)) == 503
            asked(aside, f"alter database {name} allow_connections true")
            assert post(house, update(2)) == 202
        password = database.split(":")[2].partition("@")[0]
        assert password not in caplog.text

    def test_read_only_database_takes_and_promises_nothing(self, database, settings, open_aggregator, update):
        """A host sets it when its disk is full; only some connections obeyed, and /readyz was 200."""
        with open_aggregator(replace(settings, store=database)) as house:
            assert house.send("GET", "/v1/status", {}, b"", 30).status == 200, "a connection has read"
            name = database.rpartition("/")[2]
            asked(database, f"alter database {name} set default_transaction_read_only = on")
            end_connections(database)
            for made in map(update, (1, 2, 3)):
                refused = house.send("POST", "/v1/updates", {"Idempotency-Key": made.id}, pack_update(made), 30)
                assert refused.status == 503
            assert house.send("GET", "/readyz", {}, b"", 30).status == 503
            assert house.send("GET", "/v1/model", {}, b"", 30).status == 200

    def test_limits_on_idle_transactions_end_no_aggregation(self, database, ours, update):
        """The lock of an aggregation waits in a transaction: with such a limit no version was ever made."""
        name = database.rpartition("/")[2]
        asked(database, f"alter database {name} set idle_in_transaction_session_timeout = 50")
        with opened(database, ours) as (store,):
            store.accept([offer(update(1))], 0, 10, 1.0)

            def slow(moment):
                time.sleep(0.3)
                return make_version(moment)

            assert present(store.aggregate(slow, 2.0)).version == 1

    def test_every_route_answers_from_postgresql(self, database, settings, open_aggregator, update):
        settings = replace(
            settings,
            store=database,
            buffer=BufferPolicy(updates=1, seconds=0.05),
            gate=Gate(distance=1, first_distance=1),
        )
        with open_aggregator(settings) as house:
            for number in (1, 2):
                made = update(number, project=7)
                key = {"Idempotency-Key": made.id, "Fedstep-Project": made.project}
                assert house.send("POST", "/v1/updates", key, pack_update(made), 30).status == 202
            for path in (
                "/",
                "/v1/model",
                "/v1/versions",
                "/v1/status",
                "/healthz",
                "/readyz",
                "/metrics",
                "/openapi.json",
            ):
                assert house.send("GET", path, {}, b"", 30).status == 200, path
            gone = json.loads(house.send("POST", "/v1/forget", key, b"", 30).body)
            assert gone["updates"] == 2
            assert json.loads(house.send("POST", "/v1/forget", key, b"", 30).body)["updates"] == 0

    def test_wrong_passwords_are_neither_accepted_nor_shown(self, database):
        wrong = database.replace("fedstep:", "fedstep:hunter2")
        with pytest.raises(UsageError, match="cannot be opened") as error:
            open_engine(wrong)
        assert "password authentication failed" in str(error.value)
        assert "hunter2" not in str(error.value)


def filled(url: str, ours, update) -> None:
    with opened(url, ours) as (store,):
        store.accept([offer(update(1))], 0, 10, 1.0)
        store.aggregate(make_version, 2.0)
        votes = [offer(update(number, 1, project=7, scores={"flaky": TrialScore(1, -0.5)})) for number in (2, 3, 4)]
        store.accept(votes[:2], 1, 10, 3.0)
        store.aggregate(make_version, 4.0)
        store.roll_back(1, 5.0)
        store.aggregate(make_version, 6.0)
        store.accept([offer(update(5, 4, project=7, scores={"flaky": TrialScore(4, 0.5)}))], 4, 10, 7.0)


def earlier(file: Path) -> None:
    """Rewrite an export as an earlier fedstep had it: with other names, and an update with its bytes in one row."""
    header, *lines, _end = map(json.loads, gzip.decompress(file.read_bytes()).splitlines())
    earlier_names = {name: earlier for earlier, name in RENAMED_TABLES.items()}
    for table, renamed in RENAMED_COLUMNS.items():
        earlier_columns = {name: earlier for earlier, name in renamed.items()}
        if table in header["tables"]:
            columns = [earlier_columns.get(name, name) for name in header["tables"].pop(table)]
            header["tables"][earlier_names.get(table, table)] = columns
    lines = [[earlier_names.get(row[0], row[0]), *row[1:]] for row in lines]
    header["tables"]["updates"].append("body")
    del header["tables"]["bodies"]
    sent = {row[1]: row[2] for row in lines if row[0] == "bodies"}
    kept = [[*row, sent[row[1]]] if row[0] == "updates" else row for row in lines if row[0] != "bodies"]
    written = "".join(json.dumps(one) + "\n" for one in (header, *kept, {"rows": len(kept)}))
    file.write_bytes(gzip.compress(written.encode()))


class TestMoves:
    def test_a_store_moves_to_postgresql_and_goes_on_there(self, database, ours, update, tmp_path):
        url, file = f"sqlite:///{tmp_path / 'a.db'}", str(tmp_path / "a.gz")
        filled(url, ours, update)
        with closing(TokenBook(url)) as book:
            token = book.create("acme/web", 0.0)
        assert run("server", "export", file, "--store", url) == run("server", "import", file, "--store", database)
        with opened(url, ours) as (before,), opened(database, ours) as (after,), closing(TokenBook(database)) as book:
            assert after.current() == before.current(), "its lineage, too"
            assert after.lineage(99) == before.lineage(99)
            assert expect(StoredReceipt, after.accept([offer(update(1))], 4, 10, 8.0)[0]).repeat
            assert [kept.name for kept in book.list_tokens()] == ["acme/web"]
            late = offer(update(6, 4, project=7, scores={"flaky": TrialScore(4, 0.5)}))
            after.accept([late], 4, 10, 9.0)
            after.roll_back(0, 10.0)
        assert token not in str(asked(database, "select * from tokens"))
        numbers = [number for (number,) in asked(database, "select id from verdicts order by id")]
        assert numbers == sorted(set(numbers))

    def test_earlier_export_is_imported_with_every_byte(self, ours, update, tmp_path):
        """An export of an earlier layout is imported with every byte."""
        url, other, file = f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}", tmp_path / "a.gz"
        filled(url, ours, update)
        run("server", "export", str(file), "--store", url)
        earlier(file)
        run("server", "import", str(file), "--store", other)
        for query in ALL_UPDATES:
            assert rows(other, query) == rows(url, query) != []

    def test_earlier_export_with_missing_bytes_is_refused(self, ours, update, tmp_path):
        """An export of an earlier layout in which an update lacks its bytes is refused."""
        url, other, file = f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}", tmp_path / "a.gz"
        filled(url, ours, update)
        run("server", "export", str(file), "--store", url)
        earlier(file)
        lines = map(json.loads, gzip.decompress(file.read_bytes()).splitlines())
        cut = [row[:-1] if isinstance(row, list) and row[0] == "updates" else row for row in lines]
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in cut).encode()))
        with pytest.raises(UsageError, match="cannot be imported"):
            run("server", "import", str(file), "--store", other)
        assert rows(other, "select id from updates") == []

    def test_the_commands_work_with_a_postgresql_store(self, database, tmp_path):
        with pytest.raises(UsageError, match="not there"):
            run("server", "status", "--store", database)
        assert asked(database, "select tablename from pg_tables where schemaname = 'public'") == []
        run("server", "token", "create", "acme", "--store", database)
        assert "acme" in run("server", "token", "list", "--store", database)
        assert "nothing was ever served" in run("server", "status", "--store", database)
        file = str(tmp_path / "b.gz")
        assert "2 rows" in run("server", "export", file, "--store", database)
        assert "1 revoked" in run("server", "token", "revoke", "acme", "--store", database)


SHARES = {"halves", "shares", "releases"}  # of leader and helper
WITHOUT_LINEAGE = ("drop table lineages", "update layouts set layout = 5")
WITH_EARLIER_NAMES = (  # up to layout 3
    *WITHOUT_LINEAGE,
    *(f"drop index updates_{name}" for name in ("pending", "by_version")),
    "drop index evaluations_by_trial",
    *(
        f"alter table {table} rename column {name} to {earlier}"
        for table, columns in RENAMED_COLUMNS.items()
        for earlier, name in columns.items()
        if table not in SHARES
    ),
    *(f"alter table {name} rename to {earlier}" for earlier, name in RENAMED_TABLES.items() if earlier not in SHARES),
    "create index updates_waiting on updates (schema, project, received, id, folded) where folded is null",
    "create index updates_folded on updates (folded) where folded is not null",
    "create index votes_by_trial on votes (trial, head)",
    "update layouts set layout = 3",
)
WITH_BODIES = (  # up to layout 2
    *WITH_EARLIER_NAMES,
    "alter table updates add column body bytea",
    "update updates set body = (select body from bodies where bodies.id = updates.id)",
    "drop table bodies",
    "update layouts set layout = 2",
)
EARLIER_LAYOUTS = {
    1: (
        *WITH_BODIES,
        *(f"drop table {name}" for name in ("layouts", "schemas", "noised", "spending", "pulses")),  # not there yet
        "drop index updates_waiting",
        "drop index updates_folded",
        "create index updates_in_buffer on updates (folded, schema)",
    ),
    2: WITH_BODIES,
    3: WITH_EARLIER_NAMES,
    5: WITHOUT_LINEAGE,
}


ALL_UPDATES = ("select * from updates order by id", "select id, body from bodies order by id")


Tables = dict[str, tuple[list[tuple[str, str, bool]], list[str], list[tuple[str, list[str | None]]]]]


def describe_tables(url: str) -> Tables:
    """Return of each table its columns with type and whether they may be empty, its primary key and its indexes."""
    engine = create_store_engine(url)
    inspector = inspect(engine)
    described = {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(name)],
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted((str(index["name"]), index["column_names"]) for index in inspector.get_indexes(name)),
        )
        for name in inspector.get_table_names()
    }
    engine.dispose()
    return described


class TestSchema:
    def test_tables_of_another_user_are_said_at_the_start(self, database, ours, caplog):
        """Who made the table of tokens before the first start could add one, and send as any project."""
        name, (start, _, host) = database.rpartition("/")[2], database.rpartition("@")
        asked(database, f"create role {name}_us login password 'a'")
        asked(database, f'create role "{name}\nthem"')
        asked(database, f"alter database {name} owner to {name}_us")
        ours_url = f"{start.partition('//')[0]}//{name}_us:a@{host}"
        with opened(ours_url, ours):
            warn_of_others(ours_url)
            assert caplog.text == ""
            asked(database, f'alter table tokens owner to "{name}\nthem"')
            asked(database, "grant create on schema public to public")
            warn_of_others(ours_url)
        lines = [record.getMessage() for record in caplog.records]
        assert [f"'table tokens' is open to '{name}\\nthem'" in line for line in lines] == [True, False]
        assert "'schema public' is open to 'everyone'" in lines[1]
        caplog.clear()
        asked(database, "alter table tokens owner to fedstep")
        asked(database, "revoke create on schema public from public")
        warn_of_others(ours_url)
        assert caplog.text == "", "the administrator of the server can do anything"
        asked(database, f'create schema {name}_us authorization "{name}\nthem"')
        asked(database, f"grant usage on schema {name}_us to {name}_us")
        warn_of_others(ours_url)
        assert f"'schema {name}_us' is open to '{name}\\nthem'" in caplog.text

    def test_commits_are_durable_whatever_the_server_is_set_to(self, database, ours):
        """Commits are durable, also where the server is configured otherwise."""
        name = database.rpartition("/")[2]
        asked(database, f"alter database {name} set synchronous_commit = off")
        with opened(database, ours) as (store,), store._engine.connect() as connection:
            assert connection.exec_driver_sql("show synchronous_commit").scalar() == "on"

    @pytest.mark.parametrize("layout", EARLIER_LAYOUTS)
    def test_store_of_an_earlier_layout_is_migrated_whole(self, url, ours, update, tmp_path, layout):
        """A store of an earlier layout is migrated with all that it has."""
        filled(url, ours, update)
        with opened(url, ours) as (store,):
            before = replace(store.current(), lineage=""), store.lineage(99), store.pending()
        kept, columns = [rows(url, query) for query in ALL_UPDATES], describe_tables(url)
        if "sqlite" in url:
            with sqlite3.connect(tmp_path / "a.db") as connection:
                for statement in EARLIER_LAYOUTS[layout]:
                    connection.execute(statement)
        else:
            for statement in EARLIER_LAYOUTS[layout]:
                asked(url, statement)
        assert describe_tables(url) != columns
        open_engine(url).dispose()
        assert describe_tables(url) == columns
        assert [rows(url, query) for query in ALL_UPDATES] == kept
        with opened(url, ours) as (store,):
            assert (replace(store.current(), lineage=""), store.lineage(99), store.pending()) == before
            assert len(store.current().lineage) == 16
            assert present(store.aggregate(make_version, 9.0)).version == 5

    def test_a_store_of_a_later_fedstep_is_refused_and_left_alone(self, url, ours):
        with opened(url, ours):
            pass
        engine = open_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"update layouts set layout = {LAYOUT + 1}")
        with pytest.raises(UsageError, match="later fedstep"):
            Store(url, ours)
        with engine.begin() as connection:
            assert connection.exec_driver_sql("select layout from layouts").scalar() == LAYOUT + 1
        engine.dispose()

    def test_every_table_is_in_an_export_or_named_as_left_out(self, ours, tmp_path, url, update):
        file = tmp_path / "c.gz"
        filled(url, ours, update)
        run("server", "export", str(file), "--store", url)
        header = json.loads(gzip.decompress(file.read_bytes()).splitlines()[0])
        assert set(header["tables"]) == {table.name for table in metadata.sorted_tables} - {"layouts", "heartbeats"}
