"""What the operator sees: figures, readiness, the log."""

import asyncio
import json
import logging
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedstep.federation.messages import pack_update
from fedstep.model.linear import zeros
from fedstep.server import health
from fedstep.server.aggregation.inputs import CurrentModels, ModelVersion, Trial
from fedstep.server.health import HealthEndpoints
from fedstep.server.http_messages import HttpProblem
from fedstep.server.identity import TokenBook
from fedstep.server.listener import LINES_OF_CLIENT, LINES_OF_KIND, JsonLines, LogLimit, TextLines, start_logging
from fedstep.server.metrics import Metrics
from fedstep.server.mode import BufferPolicy
from fedstep.server.storage.store import Store
from fedstep.server.writer import Writer
from tests.helpers.aggregator import until

TOKEN = "correct-horse-battery-staple"


def figures(house) -> dict[tuple[str, str], float]:
    """The value of each sample, by its name and the values of its labels."""
    answer = house.send("GET", "/metrics", {}, b"", 5)
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, ",".join(s.labels.values())): s.value for family in families for s in family.samples}


def post(house, made, body: bytes | None = None, **headers: str):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = pack_update(made) if body is None else body
    return house.send("POST", "/v1/updates", {"Idempotency-Key": made.id, **names}, sent, 5.0)


class TestStart:
    def test_start_is_measured(self, open_aggregator, settings):
        """What the start took, and its part for the store, in CPU seconds of this process."""
        with open_aggregator(settings) as house:
            told = figures(house)
        whole, store = (told["fedstep_start_cpu_seconds", part] for part in ("whole", "store"))
        assert 0.0 < store < whole <= time.process_time()


class TestMetrics:
    def test_updates_are_counted_by_what_became_of_them(self, open_aggregator, settings, update):
        with open_aggregator(replace(settings, buffer=BufferPolicy(updates=9, seconds=3600.0))) as house:
            for made in (update(1), update(1), update(2), update(3, base=5), update(4, schema="f" * 16)):
                post(house, made)
            post(house, update(5), b"nonsense")
            post(house, update(6), Idempotency_Key="0" * 32)
            found = figures(house)
        outcomes = {label: value for (name, label), value in found.items() if name == "fedstep_updates_total"}
        assert outcomes == {
            "accepted": 2,
            "repeat": 1,
            "stale": 1,
            "schema-mismatch": 1,
            "not-an-update": 1,
            "key": 1,
        }

    def test_strangers_are_counted_too_and_no_label_comes_from_them(self, open_aggregator, settings, update):
        with open_aggregator(replace(settings, tokens=(TOKEN,))) as house:
            assert post(house, update(1)).status == 401
            for path in ("/admin", "/wp-login.php", "/v1/updates/x"):
                assert house.send("GET", path, {}, b"", 5).status == 404
            found = figures(house)
        assert found["fedstep_updates_total", "unknown-sender"] == 1
        assert found["fedstep_request_seconds_count", "other,404"] == 3
        assert found["fedstep_request_seconds_count", "/v1/updates,401"] == 1

    def test_buffer_versions_rounds_staleness_and_clipping_are_seen(self, open_aggregator, settings, ours, update):
        short = {name: zeros(size) for name, size in ours.sizes.items()}
        with open_aggregator(replace(settings, buffer=BufferPolicy(updates=3, seconds=3600.0))) as house:
            post(house, update(1))
            post(house, update(2, deltas=short))
            until(lambda: figures(house)["fedstep_buffer_updates", ""] == 2)
            assert figures(house)["fedstep_buffer_projects", ""] == 2
            post(house, update(3))
            until(lambda: figures(house)["fedstep_model_version", "candidate"] == 1)
            post(house, update(4))
            after = figures(house)
        assert after["fedstep_model_version", "production"] == 1
        assert after["fedstep_aggregations_total", "succeeded"] == 1
        assert after["fedstep_aggregation_seconds_count", ""] == 1
        assert after["fedstep_commit_seconds_count", ""] >= 3
        assert after["fedstep_deltas_total", "flaky"] == 4
        assert after["fedstep_deltas_at_bound_total", "flaky"] == 3
        assert (
            after["fedstep_staleness_versions_bucket", "0.0"],
            after["fedstep_staleness_versions_bucket", "1.0"],
        ) == (
            3,
            4,
        )

    def test_a_trial_is_seen_while_it_runs(self):
        metrics, task = Metrics(), ModelVersion(7, 3, 0.0, {}, {})
        metrics.set_models(CurrentModels(task, {}, {"flaky": Trial("flaky", 6, 3, 0.0, zeros(1))}))
        assert b'fedstep_trial_version{task="flaky"} 6.0' in metrics.text()
        metrics.set_models(CurrentModels(task, {}, {}))
        assert b"fedstep_trial_version{" not in metrics.text()

    def test_an_aggregation_that_fails_is_counted(self, open_aggregator, settings, update, monkeypatch):
        def fails(*_arguments):
            raise OSError("disk")

        monkeypatch.setattr(Store, "_aggregate", fails)
        with open_aggregator(replace(settings, buffer=BufferPolicy(updates=1, seconds=0.05))) as house:
            assert post(house, update(1)).status == 202
            until(lambda: figures(house).get(("fedstep_aggregations_total", "failed"), 0) >= 1)


# readiness


def ready(house) -> tuple[int, str]:
    answer = house.send("GET", "/readyz", {}, b"", 20)
    return answer.status, answer.body.decode()


class TestReadiness:
    def test_is_ready_only_when_the_store_can_be_written(self, open_aggregator, settings, tmp_path, monkeypatch):
        """It is ready when the store can be written, and not while another process holds it."""
        monkeypatch.setattr(health, "BETWEEN", 0.0)
        monkeypatch.setattr(health, "PATIENCE", 0.2)
        with open_aggregator(settings) as house:
            assert ready(house)[0] == 200
            other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            status, text = ready(house)
            assert (status, "cannot be written" in text) == (503, True)
            assert house.send("GET", "/healthz", {}, b"", 5).status == 200
            other.execute("ROLLBACK")
            other.close()
            until(lambda: ready(house)[0] == 200)

    def test_it_is_neither_ready_nor_well_when_its_writer_has_ended(self, open_aggregator, settings, monkeypatch):
        async def ends(*_arguments):
            pass

        monkeypatch.setattr(Writer, "run", ends)
        with open_aggregator(settings) as house:
            until(lambda: ready(house)[0] == 503)
            assert house.send("GET", "/healthz", {}, b"", 5).status == 503

    def test_it_is_not_ready_from_the_signal_on(self, open_aggregator, settings):
        with open_aggregator(settings) as house:
            house.app.state.stopping()
            status, text = ready(house)
            assert (status, "shutting down" in text) == (503, True)
            assert house.send("GET", "/healthz", {}, b"", 5).status == 200

    def test_however_many_ask_the_store_is_written_once_a_second(self, tmp_path):
        written = []

        class Counting(TokenBook):
            def beat(self, now: float) -> None:
                written.append(threading.get_ident())
                super().beat(now)

        book = Counting(f"sqlite:///{tmp_path / 'a.db'}")

        async def ask() -> None:
            asked = HealthEndpoints(book, Metrics(), lambda: True, f"sqlite:///{tmp_path / 'a.db'}")
            await asyncio.gather(*(asked.ready(0) for _ in range(50)))
            await asked.ready(0)

        asyncio.run(ask())
        book.close()
        assert len(written) == 1
        assert written[0] != threading.get_ident()

    def test_hanging_store_costs_one_thread_however_many_ask(self, monkeypatch, tmp_path):
        """A store that hangs costs one thread, not one for each request."""
        monkeypatch.setattr(health, "PATIENCE", 0.05)
        calls, end = [], threading.Event()

        class Hanging(TokenBook):
            def beat(self, now: float) -> None:
                calls.append(now)
                end.wait(10)

        book = Hanging(f"sqlite:///{tmp_path / 'a.db'}")

        async def ask() -> None:
            asked = HealthEndpoints(book, Metrics(), lambda: True, f"sqlite:///{tmp_path / 'a.db'}")
            for _ in range(3):
                with pytest.raises(HttpProblem, match="cannot be written"):
                    await asked.ready(0)
            end.set()

        asyncio.run(ask())
        book.close()
        assert len(calls) == 1


# the log


@pytest.fixture
def lines():
    """The log of the server as JSON lines writes it."""

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(self.format(record)))

    found: list[dict] = []
    handler, log = Kept(), logging.getLogger("fedstep.server")
    handler.setFormatter(JsonLines())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield found
    log.removeHandler(handler)
    log.setLevel(level)


@contextmanager
def started_logging(level: str):
    """Start the log as `fedstep serve` does, and undo that at the end."""
    ours, root = logging.getLogger("fedstep"), logging.getLogger()
    before = ours.level, root.level, root.handlers
    root.handlers = []
    try:
        start_logging("json", level)
        yield
    finally:
        ours.setLevel(before[0])
        root.setLevel(before[1])
        root.handlers = before[2]


class TestLog:
    def test_every_refusal_is_one_line_with_a_reason_and_no_token(self, open_aggregator, settings, update, lines):
        """Every refusal is one line with its reason and never with a token."""
        book = TokenBook(settings.store)
        token = book.create("acme/web", 0.0)
        book.close()
        signed = {"Authorization": f"Bearer {token}"}
        with open_aggregator(settings) as house:
            sent = [
                post(house, update(1)),
                post(house, update(1), Authorization="Bearer wrong-wrong-wrong-wrong"),
                post(house, update(1), b"nonsense", **signed),
                post(house, update(1), None, Content_Encoding="br", **signed),
                post(house, update(2), b"x" * 1_100_000, **signed),
                post(house, update(2, base=9), None, **signed),
                post(house, update(2, deltas={"flaky": zeros(4)}, examples={"flaky": 64}), None, **signed),
                post(house, update(2), None, Idempotency_Key="", **signed),
                house.send("GET", "/nowhere", {}, b"", 5),
            ]
        refused = [line for line in lines if line["level"] == "warning"]
        assert [line["status"] for line in refused] == [answer.status for answer in sent]
        assert [line["problem"] for line in refused] == [
            json.loads(answer.body)["type"].rpartition(":")[2] for answer in sent
        ]
        assert refused[0]["reason"] == "no token came with the request"
        assert (refused[5]["owner"], refused[5]["project"]) == ("acme", "acme/web")
        assert refused[5]["update"] == update(2).id[:8]
        shown = json.dumps(lines)
        assert token not in shown
        assert token.removeprefix("fedstep_") not in shown
        assert "wrong-wrong" not in shown

    def test_an_accepted_update_is_one_line_with_whose_it_is(self, open_aggregator, settings, update, lines):
        with open_aggregator(settings) as house:
            assert post(house, update(1)).status == 202
        (line,) = [line for line in lines if line["message"].startswith("update")]
        assert line["update"] == update(1).id[:8]
        assert "peer" not in line
        assert line["time"].endswith("Z")
        assert (line["level"], line["logger"], line["base"]) == ("debug", "fedstep.server", 0)

    def test_text_line_names_the_refused_sender_on_one_line(self):
        """A line for a person says whose request was refused and is one line."""
        record = logging.LogRecord("fedstep.server", logging.WARNING, "", 0, "refused a request", None, None)
        plain = TextLines().format(record)
        record.fields = {"status": 400, "owner": "acme", "project": "acme/web", "peer": "::1\nforged"}
        told = TextLines().format(record)
        assert told == f'{plain} (owner="acme" project="acme/web" peer="::1\\nforged")'

    def test_a_traceback_is_part_of_its_line(self):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            record = logging.LogRecord("x", logging.ERROR, "", 0, "it failed", None, sys.exc_info())
        text = JsonLines().format(record)
        assert "\n" not in text
        assert "ValueError" in json.loads(text)["traceback"]

    @staticmethod
    def _refusal(peer: str, level: int = logging.WARNING) -> logging.LogRecord:
        record = logging.LogRecord("fedstep.server", level, "", 0, "refused %s", ("a request",), None)
        record.fields = {"peer": peer}
        return record

    def test_refused_requests_fill_no_log(self, capsys):
        """Ten thousand refusals of a moment, from 250 addresses, are three hundred lines."""
        with started_logging("info"):
            for number in range(10_000):
                fields = {"peer": f"10.0.{number % 250}.1"}
                logging.getLogger("fedstep.server").warning("refused %s", "a request", extra={"fields": fields})
        written = capsys.readouterr().err.splitlines()
        assert LINES_OF_KIND <= len(written) <= 1.2 * LINES_OF_KIND

    def test_one_client_hides_no_line_of_another(self):
        """A flood of one address leaves room for others; once it ends, a line tells how much was dropped."""
        now = [0.0]
        limit = LogLimit(clock=lambda: now[0])
        passed = [limit.filter(self._refusal(f"2001:db8::{number:x}")) for number in range(1000)]
        assert passed.count(True) == LINES_OF_CLIENT
        other, debug = self._refusal("10.0.0.1"), self._refusal("2001:db8::1", logging.DEBUG)
        assert limit.filter(other)
        assert limit.filter(debug)
        assert vars(other)["fields"] == {"peer": "10.0.0.1", "dropped": 1000 - LINES_OF_CLIENT}
        now[0] = 60.0
        later = self._refusal("2001:db8::1")
        assert limit.filter(later)
        assert "dropped" not in vars(later)["fields"]

    @pytest.mark.parametrize(("level", "least"), [("debug", 10), ("info", 20), ("warning", 30)])
    def test_the_level_is_that_of_our_log_and_libraries_do_not_debug(self, level, least):
        ours, root = logging.getLogger("fedstep"), logging.getLogger()
        with started_logging(level):
            assert (ours.level, root.level) == (least, max(20, least))
            assert isinstance(root.handlers[0].formatter, JsonLines)
