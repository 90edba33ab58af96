"""Facts about a history whose remote speaks HTTP, as the hosting services do: git's own server on a loopback port."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedstep.errors import HistoryError
from tests.helpers.history import ENVIRONMENT, Clone, clone, git, new_remote, recorded


class Backend(BaseHTTPRequestHandler):
    """`git http-backend` for one repository; `forbidden` services answer 403, as for a token without the right."""

    project: Path
    url = ""
    forbidden = ""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        if self.forbidden and self.forbidden in self.path:
            self.send_error(403)
            return
        asked = {
            "GIT_PROJECT_ROOT": str(self.project),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "ada",
        }
        ran = subprocess.run(
            ("git", "http-backend"), env=ENVIRONMENT | asked, input=self._body(), capture_output=True, timeout=30
        )
        head, _, body = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        """Nothing: pytest shows what failed."""


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    made = new_remote(tmp_path)
    git(made, "config", "transfer.unpackLimit", "1")
    return made


@pytest.fixture
def backend(remote: Path) -> Iterator[type[Backend]]:
    """The handler of a server that runs as long as the test."""

    class ThisBackend(Backend):
        project = remote.parent

    server = ThreadingHTTPServer(("127.0.0.1", 0), ThisBackend)
    ThisBackend.url = f"http://127.0.0.1:{server.server_port}/{remote.name}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield ThisBackend
    server.shutdown()
    server.server_close()
    thread.join(10)


def over_http(remote: Path, backend: type[Backend], root: Path, *options: str) -> Clone:
    made = clone(remote, root, *options)
    git(made.root, "remote", "set-url", "origin", backend.url)
    return made


def packed(repository: Path) -> int:
    counts = dict(line.split(": ") for line in git(repository, "count-objects", "-v").splitlines())
    return int(counts["in-pack"])


class TestHttpRemote:
    @pytest.mark.parametrize("options", [(), ("--depth", "1")])
    def test_a_history_travels_over_http_a_few_objects_at_a_time(self, remote, backend, tmp_path, options):
        ada = over_http(remote, backend, tmp_path / "ada", *options)
        bob = over_http(remote, backend, tmp_path / "bob", *options)
        git(bob.root, "config", "transfer.unpackLimit", "1")
        for number in range(40):
            ada.record(number)
        ada.publish()
        assert bob.receive().added == 40
        at_remote, at_bob = packed(remote), packed(bob.root)
        ada.record(41)
        ada.publish()
        assert bob.receive().added == 1
        assert 0 < packed(remote) - at_remote < 10
        assert 0 < packed(bob.root) - at_bob < 10

    def test_read_only_token_is_told_what_is_missing(self, remote, backend, tmp_path):
        """A token that may read and not write is told what is missing."""
        ada = over_http(remote, backend, tmp_path / "ada")
        name = ada.record(1)
        backend.forbidden = "receive-pack"
        with pytest.raises(HistoryError, match=r"origin did not take the history .*403.*Let this job write"):
            ada.publish()
        backend.forbidden = ""
        ada.publish()
        assert recorded(remote) == [name]
