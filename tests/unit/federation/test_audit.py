"""What left is on record before it leaves; where it cannot be recorded nothing leaves."""

import json
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from fedstep.errors import AggregatorError, AggregatorUnreachable
from fedstep.federation.messages import Update, pack_update
from fedstep.federation.model_cache import load_starter_bytes, save_model
from fedstep.federation.outbox import KEPT_BODIES, Outbox, audit_transport, load_last_sent, read_audit
from fedstep.federation.sync import AggregatorLink, push_pending
from fedstep.federation.transport import HttpResponse, RetryPolicy, Transport
from fedstep.history.project_store import ProjectStore

URL = "https://ada:secret@fedstep.example.org:8443/fed?key=1"
ACCEPTED = HttpResponse(202, {}, b'{"receipt": "r1", "version": 3}')
NOON = 1_790_000_000.0  # 2026-09-21T14:13:20Z


def update(number: int = 0) -> bytes:
    delta = array("f", [0.0, 0.25])
    return pack_update(Update("0" * 16, 7, f"{number:032x}", "b" * 32, {"flaky": 64}, {"flaky": delta}))


@pytest.fixture
def home(tmp_path: Path) -> ProjectStore:
    made = ProjectStore(str(tmp_path / "history"))
    save_model(made, load_starter_bytes(), "", URL, NOON)
    return made


def delivered(home: ProjectStore, answer: Callable[[], HttpResponse], *bodies: bytes) -> list[bytes]:
    """Deliver these updates to an aggregator with this answer; what arrived there."""
    arrived: list[bytes] = []

    def send(_method: str, _path: str, _headers: object, body: bytes, _timeout: float) -> HttpResponse:
        arrived.append(body)
        return answer()

    for body in bodies:
        Outbox(Path(home.outbox)).add(body)
    push_pending(home, AggregatorLink(URL, send, RetryPolicy(waits=(), timeout=1)))
    return arrived


def unreachable() -> HttpResponse:
    raise AggregatorUnreachable("nobody there")


class TestRecord:
    def test_acknowledged_update_is_on_record_with_its_bytes(self, home: ProjectStore) -> None:
        """An update that was acknowledged is on record with its bytes."""
        body = update()
        delivered(home, lambda: ACCEPTED, body)
        (sent,) = read_audit(home).sent
        assert (sent.size, dict(sent.rows), sent.base, sent.host, sent.answer) == (
            len(body),
            {"flaky": 64},
            "7",
            "fedstep.example.org:8443",
            202,
        )
        assert load_last_sent(home) == body
        assert b"secret" not in home.read("sent/log.jsonl")

    def test_the_time_on_record_is_an_hour(self, home: ProjectStore) -> None:
        send = audit_transport(home, URL, lambda *_: ACCEPTED, clock=lambda: NOON)
        send("POST", "/v1/updates", {}, update(), 1.0)
        assert read_audit(home).sent[0].hour == "2026-09-21T14:00Z"

    def test_bytes_that_left_without_an_answer_are_on_record_too(self, home: ProjectStore) -> None:
        assert len(delivered(home, unreachable, update())) == 1
        (sent,) = read_audit(home).sent
        assert sent.answer == 0
        delivered(home, lambda: HttpResponse(503, {}, b""))
        delivered(home, lambda: HttpResponse(503, {}, b""))
        assert [one.answer for one in read_audit(home).sent] == [503]
        lines = list(filter(None, home.read("sent/log.jsonl").splitlines()))
        assert len(lines) == len(set(lines)), "said once"
        delivered(home, lambda: ACCEPTED)
        assert [one.answer for one in read_audit(home).sent] == [202]

    def test_nothing_leaves_that_cannot_be_noted(self, home: ProjectStore) -> None:
        Outbox(Path(home.outbox)).add(update())
        Path(home.path("sent")).write_text("a file where the folder should be")
        arrived: list[bytes] = []

        def send(_method: str, _path: str, _headers: object, body: bytes, _timeout: float) -> HttpResponse:
            arrived.append(body)
            return ACCEPTED

        flushed = push_pending(home, AggregatorLink(URL, send, RetryPolicy(waits=())))
        assert arrived == []
        assert flushed.waiting == 1
        assert "cannot be recorded" in str(flushed.failures[0])
        with pytest.raises(AggregatorError, match="nothing is sent"):
            audit_transport(home, URL, send)("POST", "/v1/updates", {}, update(), 1.0)

    def test_a_question_without_a_body_is_not_on_record(self, home: ProjectStore) -> None:
        audit_transport(home, URL, lambda *_: ACCEPTED)("GET", "/v1/model", {}, b"", 1.0)
        assert read_audit(home).sent == ()

    def test_every_update_stays_on_record_and_the_last_with_bytes(self, home: ProjectStore) -> None:
        """Every update stays on record, and the last ones with their bytes."""
        bodies = [update(number) for number in range(KEPT_BODIES + 5)]
        for body in bodies:
            delivered(home, lambda: ACCEPTED, body)
        assert len(read_audit(home).sent) == len(bodies)
        kept = {path.read_bytes() for path in Path(home.path("sent")).glob("*.safetensors")}
        assert kept == set(bodies[-KEPT_BODIES:])
        assert load_last_sent(home) == bodies[-1]


class TestDamage:
    def test_a_line_that_was_cut_off_costs_only_itself(self, home: ProjectStore) -> None:
        delivered(home, lambda: ACCEPTED, update(1))
        with open(home.path("sent/log.jsonl"), "ab") as file:
            file.write(b'{"hour": "2026-09-21T1')
        delivered(home, lambda: ACCEPTED, update(2))
        audit = read_audit(home)
        assert ([one.answer for one in audit.sent], audit.damaged) == ([202, 202], 1)

    @pytest.mark.parametrize("line", [b"[]", b"\xff", b'{"sha256": "a", "host": "h", "answer": 202}', b'{"sha256": 1}'])
    def test_a_line_that_says_nothing_is_counted(self, home: ProjectStore, line: bytes) -> None:
        home.write("sent/log.jsonl", line + b"\n")
        assert read_audit(home) == read_audit(home)._replace(sent=(), damaged=1)

    def test_a_host_and_a_digest_are_one_line_whatever_is_retried(self, home: ProjectStore) -> None:
        answers = iter((HttpResponse(500, {}, b""), HttpResponse(500, {}, b""), ACCEPTED))

        def send(*_: object) -> HttpResponse:
            return next(answers)

        noting: Transport = audit_transport(home, URL, send)
        for _ in range(3):
            noting("POST", "/v1/updates", {}, update(), 1.0)
        lines = [json.loads(line) for line in home.read("sent/log.jsonl").splitlines() if line]
        assert [line.get("answer") for line in lines] == [None, 500, 202]
