"""GitHub's token for a job, from a stand-in on a loopback port that is aggregator and GitHub at once."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from fedstep.errors import AggregatorError, AggregatorUnreachable
from fedstep.federation.ci_token import ci_transport
from fedstep.federation.transport import Transport


class StandIn:
    """`granted` is what GitHub answers; the aggregator wants `wanted` as a bearer, "" is open."""

    def __init__(self) -> None:
        self.granted: tuple[int, bytes] = (200, b'{"count": 9, "value": "the.job.token"}')
        self.wanted = "the.job.token"
        self.asked: list[tuple[str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def env(self, **changes: str) -> dict[str, str]:
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
        } | changes

    def handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.asked.append((self.path, self.headers.get("Authorization", "")))
                signed = not stand_in.wanted or self.headers.get("Authorization") == f"Bearer {stand_in.wanted}"
                status, body = stand_in.granted if self.path.startswith("/token") else (200 if signed else 401, b"{}")
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.server.shutdown()
    made.server.server_close()


def ask(send: Transport) -> int:
    return send("GET", "/v1/model", {}, b"", 10.0).status


class TestRequest:
    def test_job_without_a_token_requests_one_once_when_asked(self, stand_in):
        """A job without a token requests one when the aggregator wants it, and only once."""
        send = ci_transport(f"{stand_in.url}/", "", stand_in.env())
        assert [ask(send), ask(send)] == [200, 200]
        paths = [urlsplit(path).path for path, _ in stand_in.asked]
        assert paths == ["/v1/model", "/token", "/v1/model", "/v1/model"]
        place, signature = stand_in.asked[1]
        assert parse_qs(urlsplit(place).query) == {"api-version": ["2.0"], "audience": [stand_in.url]}
        assert signature == "Bearer request-token"

    def test_an_open_aggregator_learns_nothing_of_the_job(self, stand_in):
        stand_in.wanted = ""
        assert ask(ci_transport(stand_in.url, "", stand_in.env())) == 200
        assert stand_in.asked == [("/v1/model", "")]

    def test_a_token_that_was_given_is_the_one_that_is_sent(self, stand_in):
        assert ask(ci_transport(stand_in.url, "the.job.token", stand_in.env())) == 200
        assert ask(ci_transport(stand_in.url, "another", stand_in.env())) == 401
        assert not any(path.startswith("/token") for path, _ in stand_in.asked)

    def test_elsewhere_than_on_github_a_401_is_a_401(self, stand_in):
        assert ask(ci_transport(stand_in.url, "", stand_in.env(GITHUB_ACTIONS=""))) == 401


class TestFailures:
    @pytest.mark.parametrize("lacking", ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
    def test_a_job_that_may_not_ask_hears_which_permission_it_lacks(self, stand_in, lacking):
        with pytest.raises(AggregatorError, match="id-token: write") as error:
            ask(ci_transport(stand_in.url, "", stand_in.env(**{lacking: ""})))
        assert "FEDSTEP_TOKEN" in str(error.value)

    @pytest.mark.parametrize(
        "granted", [(403, b"{}"), (200, b"{}"), (200, b"[]"), (200, b"<html>"), (200, b'{"value": 5}'), (500, b"")]
    )
    def test_refused_token_is_reported_without_the_answer(self, stand_in, granted):
        """A token that is not granted is reported, and nothing of the answer is shown."""
        stand_in.granted = granted
        with pytest.raises(AggregatorError, match="no token to this job") as error:
            ask(ci_transport(stand_in.url, "", stand_in.env()))
        assert "request-token" not in str(error.value)

    def test_while_github_cannot_be_reached_the_update_waits(self, stand_in):
        away = stand_in.env(ACTIONS_ID_TOKEN_REQUEST_URL="http://127.0.0.1:9/token")
        with pytest.raises(AggregatorUnreachable, match="no token"):
            ask(ci_transport(stand_in.url, "", away))

    def test_a_token_does_not_travel_in_the_clear(self, stand_in, monkeypatch):
        monkeypatch.setattr("fedstep.federation.transport.LOOPBACK_HOSTS", set())
        with pytest.raises(AggregatorError, match="sent unencrypted"):
            ask(ci_transport(stand_in.url, "", stand_in.env()))
        assert json.dumps(stand_in.asked).count("token") == 0
