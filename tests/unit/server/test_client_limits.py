"""What one client may not do to the others: suppress their updates, flood with projects, readings or connections."""

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from fedstep.errors import UsageError
from fedstep.federation.client import push
from fedstep.federation.messages import pack_update, shape
from fedstep.federation.secagg.shares import pack_share, split_update
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.schema.schema import schema
from fedstep.server.app import serve
from fedstep.server.health import LEAST_FREE
from fedstep.server.identity import Identity, TokenBook
from fedstep.server.listener import MOST_WAITING
from fedstep.server.mode import BufferPolicy
from fedstep.server.oidc import issuers_of
from fedstep.server.rate_limits import WEEK, ProjectLimiter, ReadLimiter
from fedstep.server.secagg.leader import SecureAggregation
from fedstep.server.storage.engine import check_store_file, create_store_engine, warn_of_others
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import receipts
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer, UpdateRejected
from fedstep.server.storage.version_repository import VersionListing, schemas_of
from tests.helpers.aggregator import until
from tests.helpers.cli import aggregator
from tests.helpers.narrow import expect

ONCE = RetryPolicy(timeout=5.0, waits=())


def sender(settings, name: str) -> dict[str, str]:
    """Return the header of a new token."""
    book = TokenBook(settings.store)
    try:
        return {"Authorization": f"Bearer {book.create(name, 0.0)}"}
    finally:
        book.close()


def post(house, update, token: dict[str, str]):
    return house.send("POST", "/v1/updates", {"Idempotency-Key": update.id, **token}, pack_update(update), 5.0)


class TestReceipts:
    def test_known_id_from_another_sender_suppresses_nothing(self, open_aggregator, settings, update):
        """An attacker posts the id of an update first; the owner's own update is accepted nevertheless."""
        settings = replace(settings, buffer=BufferPolicy(updates=100, seconds=3600.0))
        evil, ours = sender(settings, "evil/x"), sender(settings, "acme/web")
        with open_aggregator(settings) as house:
            first = post(house, update(1, project=9), evil)
            second = post(house, update(1), ours)
            assert (first.status, second.status) == (202, 202)
            assert first.body != second.body
            assert post(house, update(1), ours).body == second.body, "a repeat of the same sender is one"
            until(lambda: b"fedstep_buffer_updates 2" in house.send("GET", "/metrics", {}, b"", 5.0).body)

    def test_id_of_an_open_aggregator_is_that_of_the_update(self):
        assert Identity("").receipt_id("a", "b") == "a"
        ids = {Identity(owner).receipt_id("a", project) for owner in ("x", "y") for project in ("b", "c")}
        assert len(ids) == 4


class TestProjects:
    def test_owner_token_names_so_many_projects(self, open_aggregator, settings, update):
        settings = replace(settings, owner_projects=2, buffer=BufferPolicy(updates=100, seconds=3600.0))
        token = sender(settings, "acme")
        with open_aggregator(settings) as house:
            statuses = [post(house, update(number), token).status for number in (1, 2, 3)]
            again = post(house, update(4, project=1), token).status
        assert (statuses, again) == ([202, 202, 429], 202)

    def test_owner_token_names_so_many_projects_in_shares(self, open_aggregator, settings, small, update):
        """A leader counted no projects, so that a token of one owner made the four that hide a fifth."""
        mode = SecureAggregation("http://127.0.0.1:9", "x" * 32)
        settings = replace(settings, owner_projects=2, mode=mode)
        token = sender(settings, "acme")
        bounds = {name: task.clip for name, task in small.tasks.items()}

        def share(house, number: int, project: int) -> int:
            made = split_update(update(number, project=project), bounds, bytes(32))[0]
            headers = {"Idempotency-Key": made.id, **token}
            status: int = house.send("POST", "/v1/shares", headers, pack_share(made), 5.0).status
            return status

        with open_aggregator(settings) as house:
            assert [share(house, number, number) for number in (1, 2, 3)] == [202, 202, 429]
            assert share(house, 4, 1) == 202
            headers = {"Fedstep-Project": f"{1:032x}", **token}
            assert house.send("POST", "/v1/forget", headers, b"", 5.0).status == 200
            assert share(house, 5, 1) == 429

    def test_project_that_is_silent_for_a_week_makes_room(self):
        limiter = ProjectLimiter(1)
        assert [limiter.admit("a", name, now) for name, now in (("x", 0), ("y", 1), ("x", 2), ("y", WEEK + 3))] == [
            *(True, False, True, True)
        ]
        assert limiter.admit("b", "y", 0)
        assert all(ProjectLimiter(0).admit("a", str(n), 0) for n in range(500))


class TestForgotten:
    def test_forgotten_project_waits_before_it_sends_again(self, open_aggregator, settings, update):
        """Or an attacker would have each update forgotten, and never be known by two of them."""
        settings = replace(settings, buffer=BufferPolicy(updates=100, seconds=3600.0))
        evil, ours, owner = (sender(settings, name) for name in ("evil/x", "acme/web", "beta"))
        with open_aggregator(settings) as house:

            def forget(token: dict[str, str], project: int) -> int:
                headers = {"Fedstep-Project": f"{project:032x}", **token}
                status: int = house.send("POST", "/v1/forget", headers, b"", 5.0).status
                return status

            assert forget(evil, 9) == 200
            assert post(house, update(1, project=9), evil).status == 202, "nothing was deleted"
            assert forget(evil, 9) == 200
            refused = post(house, update(2, project=9), evil)
            assert (refused.status, b"forgotten" in refused.body) == (429, True)
            assert WEEK - 60 < float(refused.headers["retry-after"]) <= WEEK
            assert post(house, update(3), ours).status == 202
            assert post(house, update(4, project=4), owner).status == 202
            assert forget(owner, 4) == 200
            assert [post(house, update(n, project=n), owner).status for n in (4, 5)] == [429, 202]


class TestClaims:
    @pytest.mark.parametrize(
        ("claims", "fits"),
        [
            ({"ref": "refs/heads/main", "event_name": "push", "workflow": "ci"}, True),
            ({"ref": "refs/heads/topic", "event_name": "push", "workflow": "ci"}, False),
            ({"ref": "refs/heads/main", "event_name": "pull_request_target", "workflow": "ci"}, False),
            ({"ref": "refs/heads/main", "event_name": "push"}, False),
        ],
    )
    def test_pattern_may_name_branch_event_and_workflow(self, claims: dict[str, str], fits: bool):
        pattern = "github:acme/*,ref=refs/heads/main,event_name=push,workflow=c*"
        (issuer,) = issuers_of(["github"], [pattern])
        given = {"repository_id": "1", "repository_owner_id": "2", "repository": "acme/web", **claims}
        assert isinstance(issuer.sender(given), Identity) == fits

    @pytest.mark.parametrize("pattern", ["acme/*,ref", "acme/*,=x", "acme/*,ref=", "acme/*,Ref=x"])
    def test_condition_without_claim_or_value_is_refused(self, pattern: str):
        with pytest.raises(UsageError, match="no pattern"):
            issuers_of(["github"], [pattern])


class TestReaders:
    def test_listing_reads_the_store_once_a_second(self, open_aggregator, settings, monkeypatch):
        read: list[int] = []
        original = Store.lineage

        def counted(store: Store, limit: int) -> VersionListing:
            read.append(limit)
            return original(store, limit)

        monkeypatch.setattr(Store, "lineage", counted)
        with open_aggregator(settings) as house:
            bodies = {house.send("GET", "/v1/versions", {}, b"", 5.0).body for _ in range(20)}
        assert len(bodies) == 1
        assert len(read) <= 3

    def test_made_up_schemas_are_answered_without_the_store(self, open_aggregator, settings, monkeypatch):
        read: list[Connection] = []

        def counted(connection: Connection) -> frozenset[str]:
            read.append(connection)
            return schemas_of(connection)

        monkeypatch.setattr("fedstep.server.models.schemas_of", counted)
        with open_aggregator(settings) as house:
            answers = [house.send("GET", f"/v1/model?schema={n:016x}", {}, b"", 5.0).status for n in range(30)]
        assert set(answers) == {409}
        assert len(read) <= 2

    def test_address_reads_so_often_and_updates_go_on(self, open_aggregator, settings, update):
        """Every reading route counts; the health checks and the updates of the same address do not."""
        routes = ("/", "/v1/versions", "/v1/model", f"/v1/model?schema={1:016x}", "/v1/status", "/metrics")
        with open_aggregator(replace(settings, read_rate=12)) as house:
            answers = [house.send("GET", route, {}, b"", 5.0) for _ in range(3) for route in routes]
            assert [answer.status for answer in answers[:12]].count(429) == 0
            assert {answer.status for answer in answers[12:]} == {429}
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 5
            assert house.send("GET", "/readyz", {}, b"", 5.0).status == 200
            assert house.send("GET", "/healthz", {}, b"", 5.0).status == 200
            assert post(house, update(1), {}).status == 202

    def test_reads_are_counted_by_address_and_network(self):
        reads = ReadLimiter(2)
        assert [reads.take("10.0.0.1", 0.0) for _ in range(3)] == [0, 0, 30]
        assert reads.take("10.0.0.2", 0.0) == 0
        assert reads.take("10.0.0.1", 31.0) == 0
        assert [reads.take(f"2001:db8::{n:x}", 0.0) for n in range(3)] == [0, 0, 30]
        assert reads.take("2001:db8:0:1::", 0.0) == 0
        assert [ReadLimiter(0).take("10.0.0.1", 0.0) for _ in range(3)] == [0, 0, 0]

    @pytest.mark.parametrize("address", ["10.0.0.1:5678", "::ffff:10.0.0.1", "10.0.0.1"])
    def test_address_with_its_port_is_the_same_client(self, address: str):
        """Some proxies forward an address with its port; that was an error of every read."""
        reads = ReadLimiter(1)
        assert reads.take("10.0.0.1", 0.0) == 0
        assert reads.take(address, 0.0) == 60

    @pytest.mark.parametrize("address", ["unknown", "[::1]:80", "a:b:c", ":", "x" * 9999])
    def test_any_text_for_an_address_is_a_client(self, address: str):
        assert ReadLimiter(1).take(address, 0.0) == 0


class TestStoreFile:
    def test_file_and_log_are_for_the_owner_alone(self, tmp_path: Path, ours):
        path = tmp_path / "a.db"
        path.touch(mode=0o644)
        store = Store(f"sqlite:///{path}", ours)
        store.start(_zeros(ours), 0.0)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        store.close()
        assert set(modes.values()) == {0o600}, modes

    def test_rights_of_a_file_that_is_no_store_stay(self, tmp_path: Path, ours):
        """With a mistyped --store, the file of another program was closed to its other readers."""
        path = tmp_path / "passwd"
        path.write_text("root:x:0:0\n" * 100)
        path.chmod(0o644)
        with pytest.raises(UsageError, match="cannot be opened"):
            Store(f"sqlite:///{path}", ours)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_log_of_a_linked_store_is_for_the_owner_alone(self, tmp_path: Path, ours):
        """SQLite keeps the log beside the file that the link leads to."""
        (tmp_path / "real").mkdir()
        path = tmp_path / "real" / "b.db"
        first = Store(f"sqlite:///{path}", ours)
        for file in path.parent.iterdir():
            file.chmod(0o644)
        (tmp_path / "a.db").symlink_to(path)
        second = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        for store in (first, second):
            store.close()
        assert modes == dict.fromkeys(("b.db", "b.db-wal", "b.db-shm"), 0o600)

    def test_store_that_others_can_write_is_said_at_the_start(self, tmp_path: Path, ours, caplog):
        """Another user of the machine could put a write-ahead log with a token beside the file."""
        path = tmp_path / "a.db"
        url = f"sqlite:///{path}"
        Store(url, ours).close()
        warn_of_others(url)
        assert caplog.text == ""
        path.chmod(0o644)
        tmp_path.chmod(0o1777)
        (tmp_path / "link.db").symlink_to(path)
        warn_of_others(f"sqlite:///{tmp_path / 'link.db'}")
        assert f"{path} is open to other users of this machine" in caplog.text
        assert f"{tmp_path} is open to other users of this machine" in caplog.text

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
    def test_store_of_another_user_is_said_at_the_start(self, tmp_path: Path, ours, caplog):
        path = tmp_path / "a.db"
        Store(f"sqlite:///{path}", ours).close()
        os.chown(path, 65_534, 65_534)
        warn_of_others(f"sqlite:///{path}")
        assert f"{path} is open to the user 65534" in caplog.text

    def test_start_that_cannot_write_is_one_sentence(self, tmp_path: Path, settings, ours):
        """A read-only disk or the lock of another process: SQLite opens the file, and the first write fails."""
        path = tmp_path / "b.db"
        store = Store(f"sqlite:///{path}", ours)
        store.start(_zeros(ours), 0.0)
        store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE versions")
        with pytest.raises(UsageError, match="cannot be opened"):
            serve(replace(settings, store=f"sqlite:///{path}"))

    def test_opening_a_store_again_leaves_its_locks(self, tmp_path: Path, ours):
        """Closing a second handle ended the process's locks: another process then deleted the log in use."""
        path = tmp_path / "a.db"
        store = Store(f"sqlite:///{path}", ours)
        store.start(_zeros(ours), 0.0)
        create_store_engine(f"sqlite:///{path}").dispose()
        Store(f"sqlite:///{path}", ours).close()
        count = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
            "print(c.execute('select count(*) from versions').fetchone()[0]); c.close()"
        )

        def seen_by_another_process() -> int:
            return int(subprocess.run([sys.executable, "-c", count, path], capture_output=True, check=True).stdout)

        assert seen_by_another_process() == 1
        store.write(partial(_add_version, ours=ours, number=1))
        assert seen_by_another_process() == 2
        store.close()

    def test_damaged_store_is_one_sentence(self, tmp_path: Path, ours):
        """A page is overwritten: SQLite opens the file, and would fail in some later request."""
        path = tmp_path / "a.db"
        store = Store(f"sqlite:///{path}", ours)
        store.start(_zeros(ours), 0.0)
        store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
            connection.execute("pragma journal_mode=delete")
        content = bytearray(path.read_bytes())
        content[-4096:] = b"\xff" * 4096
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"is damaged|cannot be opened"):
            Store(f"sqlite:///{path}", ours)

    def test_check_of_a_large_store_ends_in_time(self, tmp_path: Path, ours, caplog):
        """A check that would take ten seconds is ended after a fifth of one, and said."""
        url = f"sqlite:///{tmp_path / 'a.db'}"
        Store(url, ours).close()
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute("create table slow (n integer, check (length(hex(randomblob(5000000))) > n))")
            connection.execute("pragma ignore_check_constraints = on")
            connection.executemany("insert into slow values (?)", [(n,) for n in range(500)])
        engine = create_store_engine(url)
        before = time.process_time()
        check_store_file(engine, url, seconds=0.2)
        assert "only a part of it was checked" in caplog.text
        assert time.process_time() - before < 5.0
        engine.dispose()

    def test_full_disk_is_not_ready(self, open_aggregator, settings, monkeypatch):
        with open_aggregator(settings) as house:
            assert house.send("GET", "/readyz", {}, b"", 5.0).status == 200
            monkeypatch.setattr("fedstep.server.health.free_bytes", lambda _: LEAST_FREE - 1.0)
            assert house.send("GET", "/readyz", {}, b"", 5.0).status == 503


class TestPruning:
    def test_old_versions_go_and_promotions_stay(self, tmp_path: Path, ours, monkeypatch):
        from fedstep.server.storage import version_repository

        monkeypatch.setattr(version_repository, "MIN_VERSIONS", 3)
        store = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
        store.start(_zeros(ours), 0.0)
        for number in range(1, 9):
            store.write(partial(_add_version, ours=ours, number=number))
        store.write(lambda session: session.versions.prune_versions())
        listed = [version.version for version in store.lineage(100).versions]
        store.roll_back(4, 1.0)
        store.close()
        assert listed == [8, 7, 6, 4, 0]

    def test_receipts_go_with_the_versions_that_would_refuse_them(self, tmp_path: Path, ours, update, monkeypatch):
        """An update from so old a version is stale, so that its receipt is not needed to count it once."""
        from fedstep.server.storage import version_repository

        monkeypatch.setattr(version_repository, "MIN_VERSIONS", 3)
        store = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
        store.start(_zeros(ours), 0.0)
        for number in range(1, 9):
            made = update(number, base=number - 1)
            store.accept([UpdateOffer(made.id, made.project, "", number - 1, pack_update(made))], number - 1, 2, 0.0)
            store.write(partial(_add_version, ours=ours, number=number))
        store.tidy(31 * 86_400.0)
        with store.read() as session:
            kept = sorted(session.connection.scalars(select(receipts.c.version)))
        old = update(1, base=0)
        (again,) = store.accept([UpdateOffer(old.id, old.project, "", 0, pack_update(old))], 8, 2, 0.0)
        store.close()
        assert kept == [5, 6, 7]
        assert isinstance(again, UpdateRejected)

    def test_receipt_stays_as_long_as_its_update(self, tmp_path: Path, ours, update, monkeypatch):
        """The same id with a newer base was stored again, which failed for all updates of the same moment."""
        from fedstep.server.storage import version_repository

        monkeypatch.setattr(version_repository, "MIN_VERSIONS", 3)
        store = Store(f"sqlite:///{tmp_path / 'a.db'}", ours)
        store.start(_zeros(ours), 0.0)
        made = update(1)
        (first,) = store.accept([UpdateOffer(made.id, made.project, "", 0, pack_update(made))], 0, 9, 0.0)
        for number in range(1, 9):
            store.write(partial(_add_version, ours=ours, number=number))
        store.start({}, 1.0)
        newer = update(1, base=8)
        (again,) = store.accept([UpdateOffer(newer.id, newer.project, "", 8, pack_update(newer))], 8, 9, 2.0)
        store.close()
        assert again == replace(expect(StoredReceipt, first), repeat=True)


def _zeros(ours):
    from fedstep.model.linear import zeros

    return {name: zeros(size) for name, size in ours.sizes.items()}


def _add_version(session, ours, number: int) -> None:
    from fedstep.server.aggregation.inputs import ModelVersion

    source = 4 if number >= 4 else 0
    made = ModelVersion(number, source, 0.0, _zeros(ours), dict.fromkeys(ours.sizes, source))
    session.versions.add(made, number - 1, 0)


class TestConnections:
    def test_half_open_requests_of_one_address_shut_nobody_out(self, tmp_path: Path):
        """Three hundred connections that never finish a request; another client is served at once, and health too."""
        with aggregator(tmp_path) as url:
            host, port = url.removeprefix("http://").split(":")
            held = [socket.create_connection((host, int(port)), timeout=5) for _ in range(300)]
            try:
                for connection in held:
                    connection.sendall(b"POST /v1/updates HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx")
                time.sleep(0.5)
                send = requests_transport(url)
                assert send("GET", "/healthz", {}, b"", 5.0).status == 200
                assert send("GET", f"/v1/model?schema={shape(schema()).digest}", {}, b"", 5.0).status == 200
                closed = sum(_is_closed(connection) for connection in held)
                assert closed >= 300 - MOST_WAITING - 2
            finally:
                for connection in held:
                    connection.close()

    @pytest.mark.parametrize("requests", [1, 40], ids=["idle", "answers unread"])
    def test_idle_and_unread_connections_shut_nobody_out(self, tmp_path: Path, requests: int):
        """More of them than the process serves at once: a thousand idle ones gave everybody a 503."""
        with aggregator(tmp_path, "--read-rate", "0") as url:
            host, port = url.removeprefix("http://").split(":")
            held: list[socket.socket] = []
            try:
                for _ in range(1100 if requests == 1 else 300):
                    held.append(socket.create_connection((host, int(port)), timeout=5))
                    with suppress(OSError):
                        held[-1].sendall(b"GET /v1/model HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
                send = requests_transport(url)
                assert send("GET", "/healthz", {}, b"", 60.0).status == 200
                assert send("GET", f"/v1/model?schema={shape(schema()).digest}", {}, b"", 60.0).status == 200
            finally:
                for connection in held:
                    connection.close()

    @pytest.mark.parametrize("proxies", ["127.0.0.1", "127.0.0.0/8"])
    def test_proxy_may_have_more_connections(self, tmp_path: Path, proxies: str):
        """It sends for others; one that was named as a part of a network had the limits of a client."""
        book = TokenBook(f"sqlite:///{tmp_path / 'aggregator.db'}")
        token = book.create("acme/web", 0.0).encode()
        book.close()
        head = (
            b"POST /v1/updates HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
            + token
            + b"\r\nContent-Length: 9\r\n\r\nx"
        )
        options = ("--proxy-headers", proxies, "--project-rate", "0", "--owner-rate", "0")
        with aggregator(tmp_path, *options) as url:
            host, port = url.removeprefix("http://").split(":")
            held = [socket.create_connection((host, int(port)), timeout=5) for _ in range(2 * MOST_WAITING)]
            for connection in held:
                connection.sendall(head)
            time.sleep(0.5)
            assert not any(map(_is_closed, held))
            for connection in held:
                connection.close()

    def test_header_section_in_one_piece_has_the_same_limit(self, tmp_path: Path):
        """It was bounded only where it came in several."""
        with aggregator(tmp_path) as url:
            host, port = url.removeprefix("http://").split(":")
            for size, answered in ((20_000, True), (100_000, False)):
                with socket.create_connection((host, int(port)), timeout=5) as connection:
                    header = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * size + b"\r\n\r\n"
                    connection.sendall(header)
                    try:
                        answer = connection.recv(20)
                    except ConnectionError:
                        answer = b""
                    assert answer.startswith(b"HTTP/1.1 200") == answered

    def test_what_is_around_a_body_has_its_limit(self, tmp_path: Path):
        """Trailers were kept, 400 MB of them in three seconds, and a single one was copied again and again."""
        start = b"POST /v1/updates HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        endless = {b"0\r\n": b"X: a\r\n", b"0\r\nX: ": b"aaaaa", b"1;": b"aaaaa", b"1\r\na\r\n": b"1\r\na\r\n"}
        with aggregator(tmp_path) as url:
            host, port = url.removeprefix("http://").split(":")
            for first, piece in endless.items():
                with socket.create_connection((host, int(port)), timeout=15) as connection:
                    connection.sendall(start + first)
                    with pytest.raises(ConnectionError):
                        connection.sendall(piece * 6_000_000)


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class TestReceipt:
    def test_push_still_accepts_the_receipt(self, open_aggregator, settings, update):
        """The receipt names the stored update; a client needs no particular form of it."""
        token = sender(settings, "acme/web")
        with open_aggregator(settings) as house:

            def send(method, path, headers, body, timeout):
                return house.send(method, path, {**headers, **token}, body, timeout)

            made = update(1)
            assert push(pack_update(made), "http://here", send, ONCE).id == made.id
