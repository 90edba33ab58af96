"""The real process on a loopback port."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from fedstep.errors import UsageError
from fedstep.federation.client import NotModified, pull, push
from fedstep.federation.messages import TrialScore, Update, pack_update, shape
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from fedstep.server.app import serve
from fedstep.server.listener import listener
from fedstep.server.settings import Settings
from fedstep.server.storage.store import Store
from tests.helpers.lifetime import bound
from tests.helpers.narrow import present
from tests.helpers.server_shares import pulled

PATIENCE = RetryPolicy(timeout=10.0, waits=(0.1, 0.2))
SERVE = """
import sys
from fedstep.server.app import serve
from fedstep.server.mode import BufferPolicy
from fedstep.server.settings import Limits, Settings
store, updates, seconds, slow = sys.argv[1:]
serve(
    Settings(
        port=0,
        store=store,
        buffer=BufferPolicy(int(updates), float(seconds)),
        limits=Limits(seconds=float(slow)),
    ),
    lambda url: print(url, flush=True),
)
"""


@contextmanager
def process(tmp_path, updates: int = 3, seconds: float = 3600.0, slow: float = 20.0) -> Iterator[tuple[str, int]]:
    """The URL and the pid of a server, which is stopped by that pid."""
    arguments = bound(sys.executable, "-c", SERVE, f"sqlite:///{tmp_path / 'a.db'}", updates, seconds, slow)
    with (
        (tmp_path / "log").open("ab") as log,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log) as server,
    ):
        try:
            url = present(server.stdout).readline().decode().strip()
            assert url, (tmp_path / "log").read_text()
            yield url, server.pid
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
            server.wait(15)
    assert server.returncode in (0, -signal.SIGKILL)


def made(number: int, base: int = 0) -> Update:
    delta = zeros(schema().tasks["build-duration"].size())
    delta[number % len(delta)] = 0.1
    return Update(
        schema().digest, base, f"{number:032x}", f"{number:032x}", {"build-duration": 8}, {"build-duration": delta}
    )


def task(url: str) -> int:
    return pulled(url).candidate_version


def wait_for(url: str, version: int) -> None:
    end = time.monotonic() + 10
    while task(url) != version:
        assert time.monotonic() < end, f"no version {version} inside 10 s"
        time.sleep(0.02)


class TestProcess:
    def test_push_aggregate_pull_and_a_restart_keep_everything(self, tmp_path):
        ours = shape(schema())
        with process(tmp_path) as (url, _):
            send = requests_transport(url)
            receipts = [push(pack_update(made(number)), url, send, PATIENCE) for number in range(3)]
            wait_for(url, 1)
            newest = pull(url, "", send, ours, PATIENCE)
            assert isinstance(pull(url, newest.etag, send, ours, PATIENCE), NotModified)
        with process(tmp_path) as (url, _):
            send = requests_transport(url)
            assert isinstance(pull(url, newest.etag, send, ours, PATIENCE), NotModified)
            assert push(pack_update(made(1)), url, send, PATIENCE) == receipts[1]
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log

    def test_kill_9_before_an_acknowledged_update_counts_loses_none(self, tmp_path):
        with process(tmp_path, updates=3) as (url, pid):
            receipts = [push(pack_update(made(number)), url, requests_transport(url), PATIENCE) for number in range(2)]
            os.kill(pid, signal.SIGKILL)
        with process(tmp_path, updates=3) as (url, _):
            assert task(url) == 0
            assert push(pack_update(made(0)), url, requests_transport(url), PATIENCE) == receipts[0]
            assert task(url) == 0
            push(pack_update(made(2)), url, requests_transport(url), PATIENCE)
            wait_for(url, 1)
            vector = pulled(url).candidate["build-duration"]
            assert all(vector[number] > 0 for number in range(3))

    def test_kill_9_in_the_middle_of_a_trial_keeps_every_evaluation(self, tmp_path):
        store = f"sqlite:///{tmp_path / 'a.db'}"
        with process(tmp_path, updates=1) as (url, _):
            for number in range(10):  # from zero a trial begins after ten aggregations
                push(pack_update(made(number)), url, requests_transport(url), PATIENCE)
                wait_for(url, number + 1)
        with process(tmp_path, updates=100) as (url, pid):
            for number in (10, 11, 12):
                scored = made(number, 10)._replace(scores={"build-duration": TrialScore(10, 0.5)})
                push(pack_update(scored), url, requests_transport(url), PATIENCE)
            os.kill(pid, signal.SIGKILL)
        with closing(Store(store, shape(schema()))) as reader:
            assert [(trial.version, trial.evaluations) for trial in reader.lineage(1).trials] == [(10, 3)]
        with process(tmp_path, updates=100) as (url, _):
            push(pack_update(scored), url, requests_transport(url), PATIENCE)
            assert pulled(url).trials == {"build-duration": 10}
        with closing(Store(store, shape(schema()))) as reader:
            assert reader.lineage(1).trials[0].evaluations == 3, "the repeat is no second vote"


def _all_of(connection: socket.socket, sent: bytes) -> bytes:
    """Everything the server says until it hangs up."""
    pieces = []
    try:
        connection.sendall(sent)
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)


class TestHostileRequests:
    def test_slow_endless_senders_are_cut_off_and_others_served(self, tmp_path):
        """Slow and endless senders are cut off, and others are served."""
        with process(tmp_path, slow=0.5) as (url, _):
            host, port = url.removeprefix("http://").split(":")
            begun = b"POST /v1/updates HTTP/1.1\r\nHost: here\r\nContent-Length: 5000\r\n"
            for sent in (b"", begun, begun + b"\r\n123", b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000):
                with socket.create_connection((host, int(port)), timeout=10) as slow:
                    assert task(url) == 0
                    answer = _all_of(slow, sent)
                    assert answer == b"" or b" 408 " in answer.split(b"\r\n")[0]

    @pytest.mark.parametrize("line", ["POST /v1/forget", "GET /", "GET /healthz", "POST /nothing"])
    def test_body_that_nobody_reads_has_limits(self, line: str, tmp_path):
        """Neither many bytes nor a long time: the answer was given before."""
        with process(tmp_path, slow=1.0) as (url, _):
            host, port = url.removeprefix("http://").split(":")
            begun = f"{line} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            with socket.create_connection((host, int(port)), timeout=10) as slow:
                assert _all_of(slow, begun + b"1\r\na\r\n").startswith(b"HTTP/1.1 ")
            chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
            with socket.create_connection((host, int(port)), timeout=10) as fast:
                fast.sendall(begun)
                with pytest.raises(ConnectionError):
                    fast.sendall(chunk * 4000)  # 65 MB
            assert task(url) == 0

    def test_body_over_the_limit_gets_413_while_it_is_sent(self, tmp_path):
        """A body over the limit is answered with 413 even while it is sent."""
        with process(tmp_path) as (url, _):
            answer = requests_transport(url)(
                "POST", "/v1/updates", {"Idempotency-Key": "0" * 32}, bytes(3_000_000), 10.0
            )
            assert answer.status == 413
            assert answer.headers["content-type"] == "application/problem+json"

    def test_impossible_settings_are_reported_at_the_start(self, tmp_path):
        """Settings that cannot work are reported before anything listens."""
        usable = Settings(port=0, store=f"sqlite:///{tmp_path / 'a.db'}")
        with pytest.raises(UsageError, match="token"):
            serve(replace(usable, host="0.0.0.0"))
        with listener("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="cannot listen"):
            serve(replace(usable, port=taken.getsockname()[1]))
        with pytest.raises(UsageError, match="cannot listen"):
            serve(replace(usable, port=99999))
