"""Facts about asking an API: limits are kept, what was answered before is not sent again, refusals are named."""

import email.utils
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedstep.errors import InputError
from fedstep.importers.api_client import MAX_FILES, CachedResponse, ResponseCache, ResponseTooLarge, ServiceUnreachable
from fedstep.types import Unavailable
from tests.helpers.importers import Patience, Reply, asker, new_home, serving

NOW = 1_700_000_000.0


class TestLimits:
    @pytest.mark.parametrize(
        ("status", "headers", "body", "pause"),
        [
            (429, {"Retry-After": "7"}, b"", 7.0),
            (403, {"Retry-After": "7"}, b"", 7.0),
            (503, {"Retry-After": "7"}, b"", 7.0),
            (429, {"Retry-After": email.utils.formatdate(NOW + 90, usegmt=True)}, b"", 90.0),
            (429, {"Retry-After": "soon"}, b"", 60.0),
            (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW + 1200:.0f}"}, b"", 1200.0),
            (429, {"RateLimit-Remaining": "0", "RateLimit-Reset": f"{NOW + 30:.0f}"}, b"", 30.0),
            (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{NOW - 30:.0f}"}, b"", 1.0),
            (403, {}, b'{"message": "You have exceeded a secondary rate limit."}', 60.0),
            (429, {}, b"", 60.0),
        ],
        ids=str,
    )
    def test_a_limit_is_waited_for_as_long_as_it_says(
        self, tmp_path: Path, status: int, headers: dict[str, str], body: bytes, pause: float
    ) -> None:
        replies = iter([Reply(status=status, headers=headers, body=body), Reply({"fine": True})])
        patience = Patience()
        with serving(lambda _path, _headers: next(replies)) as server:
            page = asker(new_home(tmp_path), server.url, patience.manners()).page("runs")
        assert page.value == {"fine": True}
        assert patience.pauses == [pause + 0.5]
        assert bool(patience.told) == (pause > 5)

    def test_pause_of_more_than_an_hour_is_an_error(self, tmp_path: Path) -> None:
        """A pause of more than an hour is an error that says how to go on."""
        with (
            serving(lambda _path, _headers: Reply(status=429, headers={"Retry-After": "7200"})) as server,
            pytest.raises(InputError, match=r"asks to wait 120 minutes. Run the same command then: it goes on"),
        ):
            asker(new_home(tmp_path), server.url).page("runs")

    def test_an_api_that_asks_to_wait_for_ever_is_given_up(self, tmp_path: Path) -> None:
        patience = Patience()
        with (
            serving(lambda _path, _headers: Reply(status=429, headers={"Retry-After": "1"})) as server,
            pytest.raises(InputError, match="goes on asking to wait"),
        ):
            asker(new_home(tmp_path), server.url, patience.manners()).page("runs")
        assert 10 < len(patience.pauses) < 50


class TestErrors:
    def test_server_error_is_retried_with_growing_pauses(self, tmp_path: Path) -> None:
        """A server error is tried again with growing pauses and then named."""
        patience = Patience()
        with (
            serving(lambda _path, _headers: Reply(status=502)) as server,
            pytest.raises(InputError, match=r"/runs answers 502. Check GITHUB_TOKEN"),
        ):
            asker(new_home(tmp_path), server.url, patience.manners()).page("runs")
        assert patience.pauses == [1.0, 2.0]

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
    def test_a_refusal_is_not_tried_again_and_says_what_to_do(self, tmp_path: Path, status: int) -> None:
        with serving(lambda _path, _headers: Reply(status=status)) as server:
            with pytest.raises(InputError, match=f"answers {status}.*Check GITHUB_TOKEN"):
                asker(new_home(tmp_path), server.url).page("runs?per_page=100")
            assert len(server.asked) == 1

    def test_what_may_be_missing_is_absent(self, tmp_path: Path) -> None:
        with serving(lambda _path, _headers: Reply(status=404)) as server:
            assert isinstance(asker(new_home(tmp_path), server.url).page_if_there("testReport"), Unavailable)
            assert isinstance(asker(new_home(tmp_path), server.url).file(f"{server.url}/zip", 100), Unavailable)


class TestKeptAnswers:
    def test_an_answer_that_has_not_changed_is_not_sent_again(self, tmp_path: Path) -> None:
        def answering(_path: str, headers: Mapping[str, str]) -> Reply:
            if headers.get("if-none-match") == 'W/"abc"':
                return Reply(status=304, body=b"")
            return Reply([1], headers={"ETag": 'W/"abc"', "Link": '<http://127.0.0.1:9/2>; rel="next"'})

        home = new_home(tmp_path)
        with serving(answering) as server:
            first, second = (asker(home, server.url).page("runs") for _ in range(2))
            assert first == second == ([1], "http://127.0.0.1:9/2")
            assert [headers.get("if-none-match") for _, headers in server.asked] == [None, 'W/"abc"']

    def test_a_damaged_answer_of_before_is_asked_for_again(self, tmp_path: Path) -> None:
        home = new_home(tmp_path)
        with serving(lambda _path, _headers: Reply([1], headers={"ETag": "x"})) as server:
            asker(home, server.url).page("runs")
            for path in (tmp_path / "answers").iterdir():
                path.write_bytes(b"no zlib")
            assert asker(home, server.url).page("runs").value == [1]
            assert "if-none-match" not in server.asked[1][1]

    @pytest.mark.slow
    def test_the_answers_kept_stay_few(self, tmp_path: Path) -> None:
        answers = ResponseCache(new_home(tmp_path))
        for number in range(MAX_FILES + 5):
            answers.save(f"u{number}", CachedResponse("e", "", b"[]"))
        assert len(list((tmp_path / "answers").iterdir())) <= MAX_FILES


class TestPages:
    def test_pages_are_asked_for_when_they_are_wanted(self, tmp_path: Path) -> None:
        def answering(path: str, headers: Mapping[str, str]) -> Reply:
            following = f'<http://{headers["host"]}/runs?page=2>; rel="next", <http://x/9>; rel="last"'
            return Reply(path, headers={} if "page=2" in path else {"Link": following})

        with serving(answering) as server:
            pages = asker(new_home(tmp_path), server.url).pages("runs")
            assert next(pages) == "/runs"
            assert server.paths() == ["/runs"]
            assert list(pages) == ["/runs?page=2"]

    def test_what_is_no_json_is_named(self, tmp_path: Path) -> None:
        with (
            serving(lambda _path, _headers: Reply(body=b"<html>login</html>")) as server,
            pytest.raises(InputError, match="/runs answers what is no JSON"),
        ):
            asker(new_home(tmp_path), server.url).page("runs?token=secret")


class TestTransport:
    def test_a_token_goes_to_the_host_that_was_asked_and_to_no_other(self, tmp_path: Path) -> None:
        with serving(lambda _path, _headers: Reply(body=b"PK")) as storage:

            def redirecting(path: str, _headers: Mapping[str, str]) -> Reply:
                place = "/b" if path == "/a" else f"{storage.url}/signed?sig=1"
                return Reply(status=302, headers={"Location": place})

            with serving(redirecting) as server:
                found = asker(new_home(tmp_path), server.url).file(f"{server.url}/a", 1000)
                assert not isinstance(found, Unavailable)
                assert found.read() == b"PK"
                found.close()
                assert [headers["authorization"] for _, headers in server.asked] == ["Bearer t0ken"] * 2
                assert [headers.get("authorization") for _, headers in storage.asked] == [None]

    def test_redirects_in_a_circle_end(self, tmp_path: Path) -> None:
        with (
            serving(lambda _path, _headers: Reply(status=302, headers={"Location": "/again"})) as server,
            pytest.raises(InputError, match="redirected again and again"),
        ):
            asker(new_home(tmp_path), server.url).page("runs")

    def test_an_answer_that_is_too_large_is_not_read_to_its_end(self, tmp_path: Path) -> None:
        with (
            serving(lambda _path, _headers: Reply(body=b"x" * 3_000_000)) as server,
            pytest.raises(ResponseTooLarge, match="larger than 1 MB"),
        ):
            asker(new_home(tmp_path), server.url).file(f"{server.url}/zip", 1 << 20)

    def test_an_answer_that_breaks_off_is_asked_for_again(self, tmp_path: Path) -> None:
        replies = iter([Reply(body=b"PK", headers={"Content-Length": "100"}), Reply(body=b"PK")])
        with serving(lambda _path, _headers: next(replies)) as server:
            found = asker(new_home(tmp_path), server.url, Patience().manners(timeout=0.5)).file(
                f"{server.url}/zip", 1000
            )
            assert not isinstance(found, Unavailable)
            assert found.read() == b"PK"
            found.close()

    def test_a_server_that_is_not_there_is_named_without_the_query(self, tmp_path: Path) -> None:
        patience = Patience()
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{held.getsockname()[1]}"
            with pytest.raises(ServiceUnreachable) as raised:
                asker(new_home(tmp_path), url, patience.manners()).page("runs?secret=1")
        assert f"{url}/runs cannot be reached" in str(raised.value)
        assert "secret" not in str(raised.value)
        assert patience.pauses == [1.0, 2.0]
