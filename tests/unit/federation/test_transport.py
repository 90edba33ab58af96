"""The real exchange against real sockets that behave badly."""

import json
import socket
import subprocess
import sys
import threading
import time
import traceback
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import requests
import responses

from fedstep.errors import AggregatorError, AggregatorUnreachable, FedstepError, UsageError
from fedstep.federation.client import push
from fedstep.federation.messages import Update, pack_update
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.federation.trust import redact_url
from tests.helpers.cli import recording

TOKEN = "tok-correct-horse-battery"
SHORT = RetryPolicy(timeout=0.6, waits=(0.05,))
UPDATE = pack_update(Update("a" * 16, 3, "b" * 32, "c" * 32, {"flaky": 64}, {"flaky": array("f", [0.5, 0.0])}))
RECEIPT = json.dumps({"receipt": "r", "version": 7}).encode()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def server(behave: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server on loopback: each connection's first bytes go to `behave`, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                behave(connection, connection.recv(1 << 16))

        def all_of_them() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(door.accept()[0],), daemon=True).start()

        threading.Thread(target=all_of_them, daemon=True).start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)


def says(status: str, body: bytes = b"", *headers: str) -> Callable[[socket.socket, bytes], None]:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return lambda connection, _asked: connection.sendall("\r\n".join(lines).encode() + body)


def hangs(_connection: socket.socket, _asked: bytes) -> None:
    time.sleep(4)


def drips(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(40):
        connection.sendall(b"x")
        time.sleep(0.1)


def drips_headers(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 OK\r\n")
    for number in range(40):
        connection.sendall(f"X-{number}: y\r\n".encode())
        time.sleep(0.1)


def never_ends(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 16))


def never_ends_in_chunks(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


def speaks_nonsense(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n" * 10)


def breaks_off(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 OK\r\nContent-Length: 1000\r\n\r\nhalf")


def endless_header(connection: socket.socket, _asked: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 OK\r\nX: ")
    while True:
        connection.sendall(b"y" * (1 << 16))


def failure(url: str, token: str = TOKEN, retry: RetryPolicy = SHORT) -> FedstepError:
    """The error of a push; it came by itself, whatever the other side does, and shows no secret."""
    with pytest.raises(AggregatorError) as error:
        push(UPDATE, url, requests_transport(url, token), retry)
    said = "".join(traceback.format_exception(error.value))
    assert TOKEN not in said
    assert "hunter2" not in said
    assert error.value.remedy
    return error.value


class TestConnections:
    @pytest.mark.parametrize(
        "behave",
        [hangs, drips, drips_headers, speaks_nonsense, breaks_off, endless_header, says("500 Oops"), says("502 Bad")],
    )
    def test_improper_answer_is_unreachable_within_the_timeout(self, behave):
        """A server that does not answer properly is unreachable within the timeout."""
        with server(behave) as url:
            assert type(failure(url)) is AggregatorUnreachable

    @pytest.mark.parametrize("behave", [never_ends, never_ends_in_chunks])
    def test_an_endless_answer_is_cut_off(self, behave):
        with server(behave) as url:
            assert "larger than" in str(failure(url))

    def test_nobody_there_is_unreachable_with_the_reason(self):
        with socket.create_server(("127.0.0.1", 0)) as door:
            url = f"http://127.0.0.1:{door.getsockname()[1]}"
        error = failure(url)
        assert type(error) is AggregatorUnreachable
        assert "refused" in str(error)

    def test_a_good_answer_is_a_receipt_and_the_token_came_with_it(self):
        asked = []

        def behave(connection, request):
            asked.append(request)
            says("202 Accepted", RECEIPT)(connection, request)

        with server(behave) as url:
            assert (
                push(UPDATE, url + "/prefix/", requests_transport(url + "/prefix/", TOKEN + "\n"), SHORT).version == 7
            )
        assert asked[0].startswith(b"POST /prefix/v1/updates HTTP/1.1\r\n")
        assert f"Authorization: Bearer {TOKEN}\r\n".encode() in asked[0]

    def test_a_server_that_recovers_gets_the_update(self):
        answers = [says("503 Busy", b"", "Retry-After: 0"), says("202 Accepted", RECEIPT)]
        with server(lambda connection, request: answers.pop(0)(connection, request)) as url:
            assert push(UPDATE, url, requests_transport(url), SHORT).receipt == "r"


class TestSecrets:
    def test_a_redirect_to_another_host_does_not_get_the_token(self):
        asked: list[bytes] = []
        with (
            server(recording(asked, says("200 OK"))) as other,
            server(says("307 Moved", b"", f"Location: {other}/v1/updates")) as url,
        ):
            assert other in str(failure(url))
        assert asked == []

    @pytest.mark.parametrize(
        ("user", "token", "sent"),
        [
            ("", "", []),
            ("", TOKEN, [f"Bearer {TOKEN}".encode()]),
            ("ann:key@", "", [b"Basic " + b64encode(b"ann:key")]),
        ],
        ids=["nobody", "token", "user of the URL"],
    )
    def test_what_netrc_has_of_the_host_is_not_sent(self, tmp_path, monkeypatch, user, token, sent):
        (tmp_path / "netrc").write_text("default login me password hunter2\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        asked = []

        def behave(connection, request):
            asked.append(request)
            says("202 Accepted", RECEIPT)(connection, request)

        with server(behave) as url:
            push(UPDATE, url, requests_transport(url.replace("//", f"//{user}"), token), SHORT)
        lines = (line.partition(b": ") for line in asked[0].split(b"\r\n"))
        assert [value for name, _, value in lines if name.lower() == b"authorization"] == sent


class TestEnvironment:
    def test_https_goes_through_the_proxy_of_the_environment(self, monkeypatch):
        asked = []

        def behave(connection, request):
            asked.append(request)
            says("403 Forbidden")(connection, request)

        with server(behave) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.replace("http://", "http://me:hunter2@"))
            error = failure("https://ci.example.org")
            assert type(error) is AggregatorUnreachable
            assert "HTTPS_PROXY" in str(error)
            assert asked[0].startswith(b"CONNECT ci.example.org:443")

    def test_no_proxy_goes_past_it(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with server(says("202 Accepted", RECEIPT)) as url:
            assert push(UPDATE, url, requests_transport(url), SHORT).version == 7

    def test_a_ca_bundle_that_is_not_there_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
        with server(hangs) as url:
            error = failure(url.replace("http:", "https:"))
        assert type(error) is AggregatorError
        assert "REQUESTS_CA_BUNDLE" in error.remedy

    def test_plain_http_where_tls_is_expected_is_a_clean_error(self):
        with server(says("400 Bad Request")) as url:
            assert isinstance(failure(url.replace("http:", "https:")), AggregatorError)


class TestUrls:
    def test_secrets_in_the_url_are_not_shown(self):
        with server(says("404 Not Found")) as url:
            error = failure(url.replace("http://", "http://me:hunter2@"))
        assert "127.0.0.1" in str(error)

    @pytest.mark.parametrize(
        "url", ["", "ftp://x", "ci.example.org", "http://", "http://[::1", "http://x:99999", "http://x:y"]
    )
    def test_what_is_no_url_is_a_usage_error(self, url):
        with pytest.raises(UsageError):
            requests_transport(url)

    @pytest.mark.parametrize("token", ["tök-en", "two words", "line\nbreak", "tab\there", "nul\0"])
    def test_unsendable_token_is_a_usage_error_that_hides_it(self, token):
        """A token that cannot be sent is a usage error that does not show it."""
        with pytest.raises(UsageError) as error:
            requests_transport("https://ci.example.org", token)
        assert token not in str(error.value)

    @responses.activate
    @pytest.mark.parametrize(
        ("raised", "kind", "remedy"),
        [
            (requests.exceptions.SSLError("hunter2"), AggregatorError, "REQUESTS_CA_BUNDLE"),
            (requests.exceptions.ProxyError("hunter2"), AggregatorUnreachable, "HTTPS_PROXY"),
            (requests.exceptions.ReadTimeout("hunter2"), AggregatorUnreachable, "proxy"),
            (requests.exceptions.ConnectionError("hunter2"), AggregatorUnreachable, "network"),
            (requests.exceptions.InvalidProxyURL("hunter2"), AggregatorError, "proxy"),
            (requests.exceptions.ChunkedEncodingError("hunter2"), AggregatorUnreachable, "network"),
            (requests.exceptions.RequestException("hunter2"), AggregatorError, "URL"),
        ],
    )
    def test_what_requests_raises_becomes_words_of_our_own(self, raised, kind, remedy):
        responses.add(responses.POST, "https://ci.example.org/v1/updates", body=raised)
        error = failure("https://ci.example.org")
        assert type(error) is kind
        assert remedy in error.remedy

    def test_the_room_loads_no_http_library_until_it_is_used(self):
        program = (
            "import sys, fedstep.federation.outbox, fedstep.federation.messages\n"
            "print([name for name in ('requests', 'urllib3', 'http.client', 'numpy', 'starlette') if name "
            "in sys.modules])"
        )
        assert (
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
        )

    def test_a_url_is_shown_without_what_is_secret_in_it(self):
        assert redact_url("https://me:hunter2@h:1/p?token=t#f") == "https://h:1/p"
        assert redact_url("https://h/\x1b[2J") == "https://h/[2J"
        assert "hunter2" not in redact_url("http://me:hunter2@[")
        assert redact_url("me:hunter2@h:1/p") == "h:1/p"
        assert redact_url("http://me:x#hunter2@h/p") == "http://h/p"
        assert redact_url("https://h/@team") == "https://h/@team"
