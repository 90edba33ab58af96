"""What the client makes of answers. Time, dice and the network are values here."""

import json
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import AggregatorError, AggregatorUnreachable, SchemaMismatch, UpdateRefused, WireError
from fedstep.federation.client import FetchedModel, NotModified, Receipt, pull, push
from fedstep.federation.messages import Model, SchemaShape, Update, deflate, inflate, pack_model, pack_update
from fedstep.federation.transport import HttpResponse, RetryPolicy

URL = "https://me:secret@ci.example.org/fed"
OURS = SchemaShape("a" * 16, {"flaky": 2})
UPDATE = pack_update(Update("a" * 16, 3, "b" * 32, "c" * 32, {"flaky": 64}, {"flaky": array("f", [0.5, 0.0])}))
VECTORS = {"flaky": array("f", [1.0, 0.0])}
MODEL = pack_model(Model("a" * 16, 4, 3, "2026-01-31T12:00Z", VECTORS, VECTORS))
RECEIPT = json.dumps({"receipt": "r", "version": 7}).encode()


class World:
    """A clock that sleeping moves on, and a server that gives its answers in order (the last one for ever)."""

    def __init__(self, *answers: HttpResponse | Exception, seconds: float = 0.0) -> None:
        self.answers, self.seconds, self.now = list(answers), seconds, 0.0
        self.asked: list[tuple] = []
        self.slept: list[float] = []

    def send(self, method, path, headers, body, timeout) -> HttpResponse:
        self.asked.append((method, path, dict(headers), body, timeout))
        self.now += self.seconds
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def retry(self, **changes) -> RetryPolicy:
        return RetryPolicy(**{"clock": lambda: self.now, "sleep": self.sleep, "random": lambda: 0.5, **changes})


def pushed(*answers: HttpResponse | Exception, **changes):
    world = World(*answers)
    return push(UPDATE, URL, world.send, world.retry(**changes))


def failed(kind: type[AggregatorError], *answers: HttpResponse | Exception) -> str:
    with pytest.raises(kind) as error:
        pushed(*answers)
    assert error.type is kind
    assert error.value.remedy
    assert "secret" not in str(error.value)
    assert str(error.value).isprintable()
    return str(error.value)


def problem(status: int, **members: str) -> HttpResponse:
    return HttpResponse(status, {"content-type": "application/problem+json"}, json.dumps(members).encode())


class TestPush:
    def test_push_carries_its_id_and_is_gzipped_where_shorter(self):
        """A push carries its id and is sent gzipped where that is shorter."""
        world = World(HttpResponse(202, {}, RECEIPT))
        large = pack_update(Update("a" * 16, 3, "b" * 32, "c" * 32, {"flaky": 64}, {"flaky": array("f", bytes(4000))}))
        assert push(large, URL, world.send, world.retry()) == Receipt("b" * 32, "r", 7)
        method, path, headers, body, timeout = world.asked[0]
        assert (method, path, timeout) == ("POST", "/v1/updates", 10.0)
        assert headers["Idempotency-Key"] == "b" * 32
        assert headers["Content-Encoding"] == "gzip"
        assert inflate(body, 10_000) == large

    def test_what_is_no_update_is_not_sent(self):
        world = World(HttpResponse(202, {}, RECEIPT))
        with pytest.raises(WireError):
            push(b"{}", URL, world.send, world.retry())
        assert world.asked == []

    @pytest.mark.parametrize(
        "trouble", [HttpResponse(500, {}, b""), HttpResponse(503, {}, b"x"), HttpResponse(429, {}, b"")]
    )
    def test_a_busy_aggregator_is_asked_again(self, trouble):
        assert pushed(trouble, trouble, HttpResponse(202, {}, RECEIPT)).version == 7

    def test_unreachable_aggregator_is_retried_with_random_backoff(self):
        """An unreachable aggregator is asked again with growing and random pauses."""
        world = World(AggregatorUnreachable("nobody is there", "Start it."))
        with pytest.raises(AggregatorUnreachable, match="nobody"):
            push(UPDATE, URL, world.send, world.retry(random=lambda: 0.9))
        assert world.slept == pytest.approx([0.7, 1.4, 2.8])
        assert len(world.asked) == 4

    def test_an_error_that_a_retry_cannot_mend_is_raised_at_once(self):
        world = World(AggregatorError("the certificate is not trusted"))
        with pytest.raises(AggregatorError, match="certificate"):
            push(UPDATE, URL, world.send, world.retry())
        assert len(world.asked) == 1

    def test_retry_after_is_honoured_when_it_fits_and_else_said(self):
        world = World(HttpResponse(429, {"retry-after": "6"}, b""), HttpResponse(202, {}, RECEIPT))
        push(UPDATE, URL, world.send, world.retry())
        assert world.slept == [6.0]
        assert "asks to wait 60 s" in failed(AggregatorUnreachable, HttpResponse(503, {"retry-after": "60"}, b""))

    def test_tries_and_pauses_stay_inside_the_timeout(self):
        world = World(HttpResponse(500, {}, b""), seconds=2.0)
        with pytest.raises(AggregatorUnreachable):
            push(UPDATE, URL, world.send, world.retry(timeout=5.0))
        assert world.now <= 5.0
        assert [asked[-1] for asked in world.asked] == [5.0, 2.5]

    def test_the_deadline_of_the_budget_cuts_the_timeout_short(self):
        world = World(HttpResponse(202, {}, RECEIPT))
        world.now = 28.0
        push(UPDATE, URL, world.send, world.retry(deadline=30.0))
        assert world.asked[0][-1] == 2.0
        world.now = 30.0
        with pytest.raises(AggregatorUnreachable, match="no time was left"):
            push(UPDATE, URL, world.send, world.retry(deadline=30.0))

    def test_what_is_refused_for_good_says_why(self):
        assert "the delta is too long" in failed(UpdateRefused, problem(422, detail="the delta is too long"))
        assert "too large" in failed(AggregatorError, HttpResponse(413, {}, b"<html>"))
        assert "400" in failed(UpdateRefused, HttpResponse(400, {}, b""))

    def test_another_schema_names_both(self):
        said = failed(SchemaMismatch, problem(409, expected="f" * 16, got="a" * 16))
        assert "f" * 16 in said
        assert "a" * 16 in said

    def test_a_token_that_is_missing_or_wrong_keeps_the_update(self):
        assert "FEDSTEP_TOKEN" in failed(AggregatorError, HttpResponse(401, {}, b""))
        assert "it has expired. Set FEDSTEP_TOKEN" in failed(AggregatorError, problem(401, detail="it has expired."))
        assert "\x1b" not in failed(AggregatorError, problem(401, detail="\x1b[2Jred"))
        assert len(failed(AggregatorError, problem(401, detail="x" * 9999))) < 500
        assert "may not" in failed(AggregatorError, problem(403, detail="this project is not on the list"))

    @pytest.mark.parametrize("status", [404, 405, 418, 200, 204, 304])
    def test_what_is_no_aggregator_is_said_to_be_none(self, status):
        assert "Check that the URL" in failed(AggregatorError, HttpResponse(status, {}, b"<html>Welcome</html>"))

    def test_redirect_is_not_followed_and_shown_without_secrets(self):
        """A redirect is not followed, and it is shown without its secrets."""
        said = failed(AggregatorError, HttpResponse(308, {"location": "https://u:pw@other.example/x?token=t"}, b""))
        assert "https://other.example/x" in said
        assert "pw" not in said
        assert "token=t" not in said


class TestAnswers:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"[]",
            b"null",
            b"\xff",
            b"[" * 10_000,
            b'{"receipt": 1, "version": 2}',
            b'{"receipt": "r", "version": -1}',
        ],
    )
    def test_a_202_without_a_receipt_is_no_receipt(self, body):
        assert "without a receipt" in failed(AggregatorError, HttpResponse(202, {}, body))

    @given(st.integers(100, 599).filter(lambda status: status != 202), st.binary(max_size=200), st.text(max_size=50))
    def test_any_answer_is_an_aggregator_error_in_printable_words(self, status, body, header):
        names = {"location": header, "retry-after": header, "content-encoding": header, "etag": header}
        for answer in (
            HttpResponse(status, names, body),
            problem(status, detail=header, title=header, expected=header, got=header),
        ):
            with pytest.raises(AggregatorError) as error:
                pushed(answer)
            assert str(error.value).isprintable()
            assert len(str(error.value)) < 800

    @given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=50), st.sampled_from(["", '"1-x"']))
    def test_any_answer_to_a_pull_is_a_result_or_aggregator_error(self, status, body, header, etag):
        """Any answer to a pull is a model, "not modified" or an aggregator error."""
        world = World(HttpResponse(status, {"content-encoding": header, "etag": header, "location": header}, body))
        if status == 304 and etag:
            assert pull(URL, etag, world.send, OURS, world.retry()) == NotModified(etag)
        else:
            with pytest.raises(AggregatorError) as error:
                pull(URL, etag, world.send, OURS, world.retry())
            assert str(error.value).isprintable()


class TestPull:
    def test_a_pull_brings_the_model_its_bytes_and_its_etag(self):
        world = World(HttpResponse(200, {"etag": '"4-x"', "content-encoding": "gzip"}, deflate(MODEL)))
        fetched = pull(URL, '"3-x"', world.send, OURS, world.retry())
        assert isinstance(fetched, FetchedModel)
        assert (fetched.body, fetched.etag, fetched.model.candidate_version) == (MODEL, '"4-x"', 4)
        method, path, headers, body, _ = world.asked[0]
        assert (method, path, body) == ("GET", f"/v1/model?schema={'a' * 16}", b"")
        assert headers["If-None-Match"] == '"3-x"'

    def test_not_modified_counts_only_where_a_model_was_shown(self):
        world = World(HttpResponse(304, {}, b""))
        assert pull(URL, '"3-x"', world.send, OURS, world.retry()) == NotModified('"3-x"')
        with pytest.raises(AggregatorError):
            pull(URL, "", world.send, OURS, world.retry())

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (HttpResponse(200, {}, b"<html>"), "no usable model"),
            (HttpResponse(200, {}, UPDATE), "no usable model"),
            (HttpResponse(200, {"content-encoding": "gzip"}, deflate(bytes(2_000_000))), "no usable model"),
            (HttpResponse(200, {"content-encoding": "br"}, MODEL), "no usable model"),
        ],
    )
    def test_a_200_that_is_no_model_is_an_aggregator_error(self, answer, words):
        world = World(answer)
        with pytest.raises(AggregatorError, match=words) as error:
            pull(URL, "", world.send, OURS, world.retry())
        assert "secret" not in str(error.value)

    def test_a_model_of_another_schema_is_a_schema_mismatch(self):
        world = World(HttpResponse(200, {}, MODEL))
        with pytest.raises(SchemaMismatch):
            pull(URL, "", world.send, SchemaShape("f" * 16, {"flaky": 2}), world.retry())

    def test_an_etag_that_cannot_be_a_header_is_forgotten(self):
        world = World(HttpResponse(200, {"etag": '"x\r\nX: y"'}, MODEL))
        assert pull(URL, "", world.send, OURS, world.retry()).etag == ""
