"""Every byte that a real `fedstep train` sends is accounted for: its sockets are watched, its requests kept whole."""

import ast
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from fedstep.federation.messages import LARGEST_MESSAGE, inflate, unpack_update
from fedstep.federation.model_cache import load_starter_bytes
from fedstep.schema.schema import schema
from tests.helpers.cli import Checkout, forty_tests, read_request, server
from tests.helpers.narrow import expect

CASES = forty_tests(12)
WATCHER = """
import os, sys
log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
NAMES = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
         "socket.gethostbyaddr", "subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "ctypes.dlopen")
def watch(event, arguments):
    if event in NAMES:
        seen = arguments[1] if event.startswith(("socket.connect", "socket.send", "subprocess")) else arguments[0]
        os.write(log, (repr((event, list(seen) if isinstance(seen, (list, tuple)) else seen)) + "\\n").encode())
sys.addaudithook(watch)
"""
TOKEN = "the.job.token"
ASKING = ("fetch", "push", "pull", "clone", "ls-remote", "remote-https", "send-pack")  # what of git goes to a network


class Request(NamedTuple):
    """One request, whole."""

    line: str
    headers: dict[str, str]
    body: bytes


def parsed(received: bytes) -> Request:
    head, _, body = received.partition(b"\r\n\r\n")
    line, *headers = head.decode("ascii").split("\r\n")
    named = {name: value.strip() for name, _, value in (header.partition(":") for header in headers)}
    assert len(body) == int(named.get("Content-Length", "0")), "nothing follows the request"
    return Request(line, named, body)


@contextmanager
def keeping(answer: Callable[[Request], tuple[str, bytes]]) -> Iterator[tuple[str, list[Request]]]:
    """The URL of a server, and all that it was sent, in order: to the last byte before each connection ends."""
    got: list[Request] = []
    lock = threading.Lock()

    def behave(connection: socket.socket, received: bytes) -> None:
        status, body = answer(parsed(received))
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.settimeout(20)
        while piece := connection.recv(1 << 16):
            received += piece
        with lock:
            got.append(parsed(received))

    with server(behave) as url:
        yield url, got


def as_aggregator(request: Request) -> tuple[str, bytes]:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return "401 Unauthorized", b""
    if request.line.startswith("POST"):
        return "202 Accepted", b'{"receipt": "r1", "version": 1}'
    return "200 OK", load_starter_bytes()


@pytest.fixture
def watched(tmp_path: Path) -> Callable[[Checkout], Checkout]:
    """The same checkout, whose commands write down where they connect and what they start."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCHER)
    return lambda place: place.with_env(PYTHONPATH=str(tmp_path / "watch"), AUDIT_LOG=str(tmp_path / "seen"))


def seen(tmp_path: Path) -> list[tuple[str, object]]:
    return [ast.literal_eval(line) for line in (tmp_path / "seen").read_text().splitlines()]


def assert_only_local_git(events: list[tuple[str, object]]) -> None:
    started = [expect(list, told) for event, told in events if event == "subprocess.Popen"]
    assert {Path(str(command[0])).name for command in started} <= {"git"}
    assert [word for command in started for word in command if word in ASKING] == []
    assert [event for event, _ in events if event in ("os.system", "os.exec", "os.posix_spawn")] == []


class TestConnections:
    def test_train_sends_pull_update_and_token_request_only(
        self, connected: Checkout, github: Callable, watched: Callable, tmp_path: Path
    ) -> None:
        """A train step sends the pull, the update and the question for its token, and nothing else."""
        with (
            keeping(as_aggregator) as (url, to_aggregator),
            keeping(lambda _: ("200 OK", json.dumps({"value": TOKEN}).encode())) as (issuer, to_github),
        ):
            place = watched(github(connected)).with_env(
                ACTIONS_ID_TOKEN_REQUEST_URL=f"{issuer}/token?v=2", ACTIONS_ID_TOKEN_REQUEST_TOKEN="request-token"
            )
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url)
            assert ran.code == 0, ran.err
            events = seen(tmp_path)
            addresses = {("127.0.0.1", int(one.rpartition(":")[2])) for one in (url, issuer)}

        assert {tuple(expect(list, told)) for event, told in events if event == "socket.connect"} == addresses
        assert {told for event, told in events if event == "socket.getaddrinfo"} == {"127.0.0.1"}
        assert [event for event, _ in events if event.startswith("socket.send") or "gethostby" in event] == []
        assert_only_local_git(events)

        refused, pulled, pushed = to_aggregator
        (asked,) = to_github
        agent, close = f"python-requests/{requests.__version__}", {"Connection": "keep-alive"}
        pull = {
            "Host": url.removeprefix("http://"),
            "User-Agent": agent,
            "Accept-Encoding": "gzip",
            "Accept": "application/octet-stream",
            **close,
        }
        etag = {"If-None-Match": refused.headers["If-None-Match"]} if "If-None-Match" in refused.headers else {}
        signed = {"Authorization": f"Bearer {TOKEN}"}
        assert refused == Request(f"GET /v1/model?schema={schema().digest} HTTP/1.1", {**pull, **etag}, b"")
        assert pulled == refused._replace(headers={**pull, **etag, **signed})
        assert asked.line == f"GET /token?v=2&audience=http%3A%2F%2F127.0.0.1%3A{url.rpartition(':')[2]} HTTP/1.1"
        assert asked.headers["Authorization"] == "Bearer request-token"
        assert asked.body == b""

        (kept,) = (place.history / "sent").glob("*.safetensors")
        update = inflate(pushed.body, LARGEST_MESSAGE) if "Content-Encoding" in pushed.headers else pushed.body
        assert update == kept.read_bytes()
        assert pushed.line == "POST /v1/updates HTTP/1.1"
        known = {**pull, **signed, "Accept": "application/json", "Content-Type": "application/octet-stream"}
        known |= {"Idempotency-Key": unpack_update(update).id, "Content-Length": str(len(pushed.body))}
        known |= {"Content-Encoding": "gzip"} if len(pushed.body) < len(update) else {}
        assert {name: value for name, value in pushed.headers.items() if name != "Accept-Encoding"} == {
            name: value for name, value in known.items() if name != "Accept-Encoding"
        }
        (on_record,) = json.loads(connected.run("inspect", "--audit", "--json").out)["sent"]
        assert on_record["sha256"] == kept.stem

    @pytest.mark.parametrize(
        "command", [("predict",), ("triage", "--junit", "report.xml"), ("inspect",), ("explain", "test_7")]
    )
    def test_what_only_looks_connects_to_nobody(
        self, connected: Checkout, github: Callable, watched: Callable, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        connected.report(CASES)
        place = watched(github(connected)).with_env(FEDSTEP_AGGREGATOR="http://127.0.0.1:9")
        assert place.run(*command).code == 0
        events = seen(tmp_path) if (tmp_path / "seen").exists() else []
        assert [told for told in events if told[0].startswith("socket.")] == []
        assert_only_local_git(events)

    def test_the_watcher_sees_a_connection(self, fresh: Checkout, watched: Callable, tmp_path: Path) -> None:
        """Without this the two tests above could see nothing and pass."""
        got: list[bytes] = []

        def behave(connection: socket.socket, request: bytes) -> None:
            got.append(request)
            connection.close()

        with server(behave) as url:
            place = watched(fresh)
            place.run("pull", "--aggregator", url, "--timeout", "1")
            port = int(url.rpartition(":")[2])
        assert ("socket.connect", ["127.0.0.1", port]) in seen(tmp_path)
        assert got


class TestRequests:
    def test_a_request_with_something_behind_it_is_noticed(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc")
            with pytest.raises(AssertionError, match="nothing follows"):
                parsed(read_request(theirs))
