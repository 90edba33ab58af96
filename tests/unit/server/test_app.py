"""Client and server meet in one process."""

import asyncio
import gzip
import json
import logging
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.types import Message

from fedstep.errors import AggregatorError, AggregatorUnreachable, SchemaMismatch, UpdateRefused
from fedstep.federation.client import FetchedModel, NotModified, pull, push
from fedstep.federation.messages import (
    Model,
    SchemaShape,
    TrialScore,
    deflate,
    hour,
    pack_model,
    pack_update,
    unpack_model,
)
from fedstep.federation.outbox import Outbox, flush
from fedstep.federation.transport import HttpResponse, RetryPolicy
from fedstep.model.linear import zeros
from fedstep.schema.schema import Schema
from fedstep.server.gate import Gate
from fedstep.server.http_messages import HttpProblem, plain_body, read_bounded_body
from fedstep.server.mode import BufferPolicy
from fedstep.server.settings import Limits
from fedstep.server.storage.store import Store
from tests.helpers.aggregator import InProcess, until
from tests.helpers.narrow import expect

URL = "http://here"
ONCE = RetryPolicy(timeout=5.0, waits=())
TOKEN = "correct-horse-battery-staple"


def version(house: InProcess, ours: SchemaShape) -> int:
    return house.pulled(ours).candidate_version


def post(house: InProcess, body: bytes, key: str, **headers: str) -> HttpResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return house.send("POST", "/v1/updates", {"Idempotency-Key": key, **names}, body, 5.0)


def problem(answer: HttpResponse) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status
    assert found["type"].startswith("urn:fedstep:problem:")
    assert found["title"]
    assert found["detail"]
    return found


class TestAggregation:
    def test_pushed_updates_become_candidate_and_production(self, open_aggregator, settings, ours, update):
        with open_aggregator(settings) as house:
            before = expect(FetchedModel, pull(URL, "", house.send, ours, ONCE))
            receipts = [push(pack_update(update(number)), URL, house.send, ONCE) for number in (1, 2)]
            until(lambda: version(house, ours) == 1)
            after = expect(FetchedModel, pull(URL, before.etag, house.send, ours, ONCE))
            assert {receipt.version for receipt in receipts} == {0}
            assert after.model.candidate != before.model.candidate
            assert after.model.production == after.model.candidate
            assert isinstance(pull(URL, after.etag, house.send, ours, ONCE), NotModified)

    def test_a_repeated_push_counts_once_and_gets_the_same_receipt(self, open_aggregator, settings, ours, update):
        with open_aggregator(settings) as house:
            first = push(pack_update(update(1)), URL, house.send, ONCE)
            assert [push(pack_update(update(1)), URL, house.send, ONCE) for _ in range(3)] == [first] * 3
            assert version(house, ours) == 0
            push(pack_update(update(2)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 1)
            assert push(pack_update(update(1)), URL, house.send, ONCE) == first

    def test_a_restart_keeps_versions_receipts_and_the_buffer(self, open_aggregator, settings, ours, update):
        with open_aggregator(settings) as house:
            receipts = [push(pack_update(update(number)), URL, house.send, ONCE) for number in (1, 2)]
            until(lambda: version(house, ours) == 1)
            push(pack_update(update(3)), URL, house.send, ONCE)
            kept = pull(URL, "", house.send, ours, ONCE)
        with open_aggregator(settings) as house:
            assert pull(URL, "", house.send, ours, ONCE) == kept
            assert push(pack_update(update(1)), URL, house.send, ONCE) == receipts[0]
            push(pack_update(update(4)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 2)

    def test_time_aggregates_a_buffer_that_does_not_fill(self, open_aggregator, settings, ours, update):
        hurried = replace(settings, buffer=BufferPolicy(updates=100, seconds=0.1))
        with open_aggregator(hurried) as house:
            push(pack_update(update(1)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 1)

    def test_a_lone_project_waits_for_a_second_one(self, open_aggregator, settings, ours, update):
        shy = replace(settings, buffer=BufferPolicy(updates=2, seconds=0.05, projects=2))
        with open_aggregator(shy) as house:
            for number in (1, 2, 3):
                push(pack_update(update(number, project=7)), URL, house.send, ONCE)
            time.sleep(0.2)
            assert version(house, ours) == 0
            push(pack_update(update(4, project=8)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 1)

    def test_starts_from_the_starter_model_or_from_zeros(self, open_aggregator, settings, ours, tmp_path):
        """It starts from the starter model of its schema, and from zeros where there is none."""
        vectors = {name: zeros(size) for name, size in ours.sizes.items()}
        vectors["flaky"][0] = 0.5
        starter = Model(ours.digest, 0, 0, hour(0), vectors, vectors)
        for number, (digest, first) in enumerate(((ours.digest, 0.5), ("f" * 16, 0.0))):
            body = pack_model(starter._replace(schema=digest))
            given = replace(settings, store=f"sqlite:///{tmp_path / str(number)}.db", starter=body)
            with open_aggregator(given) as house:
                assert house.pulled(ours).candidate["flaky"][0] == first


def version_of_health(house: InProcess) -> int:
    answer = house.send("GET", "/healthz", {}, b"", 5)
    assert answer.status == 200
    return int(json.loads(answer.body)["version"])


@pytest.fixture
def one_house(open_aggregator, settings):
    with open_aggregator(settings) as house:
        yield house


class TestRequests:
    def test_the_model_is_gzipped_for_those_who_take_it(self, open_aggregator, settings, ours):
        with open_aggregator(settings) as house:
            plain = house.send("GET", "/v1/model", {}, b"", 5)
            packed = house.send("GET", "/v1/model", {"Accept-Encoding": "br, gzip;q=0.5"}, b"", 5)
            refused = house.send("GET", "/v1/model", {"Accept-Encoding": "gzip;q=0"}, b"", 5)
            assert unpack_model(plain.body).schema == ours.digest
            assert gzip.decompress(packed.body) == plain.body == refused.body
            assert packed.headers["etag"] == "W/" + plain.headers["etag"]

    @pytest.mark.parametrize("shown", ["{}", "W/{}", '"other", {}', "*"])
    def test_a_reader_who_has_the_model_gets_304(self, open_aggregator, settings, shown):
        with open_aggregator(settings) as house:
            etag = house.send("GET", "/v1/model", {}, b"", 5).headers["etag"]
            answer = house.send("GET", "/v1/model", {"If-None-Match": shown.format(etag)}, b"", 5)
            assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)

    def test_every_answer_names_the_lineage_of_the_store(self, open_aggregator, settings, small, ours, tmp_path):
        """Also 304, and the model of an earlier schema; the id is drawn once, and another one for another store."""
        with open_aggregator(settings) as house:
            plain = house.send("GET", "/v1/model", {}, b"", 5)
            known = house.send("GET", "/v1/model", {"If-None-Match": plain.headers["etag"]}, b"", 5)
        lineage = plain.headers["fedstep-lineage"]
        assert re.fullmatch("[0-9a-f]{16}", lineage)
        assert (known.status, known.headers["fedstep-lineage"]) == (304, lineage)
        with open_aggregator(settings, Schema(tuple(small.tasks.values())[:1])) as house:
            for path in ("/v1/model", f"/v1/model?schema={ours.digest}"):
                assert house.send("GET", path, {}, b"", 5).headers["fedstep-lineage"] == lineage
        with open_aggregator(replace(settings, store=f"sqlite:///{tmp_path / 'new.db'}")) as house:
            assert house.send("GET", "/v1/model", {}, b"", 5).headers["fedstep-lineage"] != lineage

    def test_another_schema_is_409_with_both_digests(self, open_aggregator, settings, ours, update):
        other = ours._replace(digest="f" * 16)
        with open_aggregator(settings) as house:
            with pytest.raises(SchemaMismatch, match=f"{ours.digest}.*{'f' * 16}"):
                pull(URL, "", house.send, other, ONCE)
            with pytest.raises(SchemaMismatch):
                push(pack_update(update(1, schema="f" * 16)), URL, house.send, ONCE)
            made = update(1, schema="f" * 16)
            found = problem(post(house, pack_update(made), made.id))
            assert (found["expected"], found["got"]) == (ours.digest, "f" * 16)

    def test_an_update_that_does_not_fit_is_refused_for_good(self, open_aggregator, settings, update):
        fine = update(1)
        long = {**fine.deltas, "build-duration": fine.deltas["flaky"][:3]}
        with open_aggregator(settings) as house:
            for wrong, name in (
                (update(2, deltas={"flaky": zeros(4)}, examples={"flaky": 64}), "does-not-fit"),
                (update(3, deltas={"other": zeros(5)}, examples={"other": 64}), "does-not-fit"),
                (fine._replace(deltas=long), "too-long"),
                (update(4, base=1), "stale"),
            ):
                found = problem(post(house, pack_update(wrong), wrong.id))
                assert found["type"].endswith(name)
                assert found["status"] == 422
                with pytest.raises(UpdateRefused):
                    push(pack_update(wrong), URL, house.send, ONCE)

    def test_a_key_that_is_not_the_updates_id_is_refused(self, open_aggregator, settings, update):
        with open_aggregator(settings) as house:
            assert problem(post(house, pack_update(update(1)), ""))["type"].endswith("key")
            assert problem(post(house, pack_update(update(1)), "f" * 32))["status"] == 400

    def test_too_large_or_oddly_encoded_bodies_are_refused(self, open_aggregator, settings, update):
        """Bodies that are too large or have an unknown encoding are refused."""
        bomb = deflate(bytes(5_000_000))
        key = update(1).id
        with open_aggregator(settings) as house:
            assert problem(post(house, bytes(1_100_000), key))["status"] == 413
            assert problem(post(house, bomb, key, Content_Encoding="gzip"))["status"] == 413
            assert problem(post(house, b"", key, Content_Length="999999999999"))["status"] == 413
            assert problem(post(house, b"nonsense", key, Content_Encoding="gzip"))["status"] == 400
            assert problem(post(house, b"nonsense", key, Content_Encoding="br"))["status"] == 415
            assert version_of_health(house) == 0

    def test_endless_body_takes_the_limit_and_one_piece_of_memory(self):
        """Of an endless body, no more than the limit and one piece is kept in memory."""
        taken = []

        async def receive() -> Message:
            taken.append(1)
            return {"type": "http.request", "body": bytes(100), "more_body": True}

        endless = Request({"type": "http", "headers": []}, receive)
        with pytest.raises(HttpProblem, match="too-large"):
            asyncio.run(plain_body(endless, Limits(body=1000)))
        assert len(taken) < 100
        assert len(asyncio.run(read_bounded_body(endless, 1000))) <= 1100

    @hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(body=st.binary(max_size=300), zipped=st.booleans())
    def test_any_bytes_get_a_clean_4xx(self, one_house, body, zipped):
        sent = deflate(body) if zipped else body
        answer = post(one_house, sent, "0" * 32, Content_Encoding="gzip" if zipped else "identity")
        assert 400 <= problem(answer)["status"] < 500

    def test_unknown_paths_and_methods_have_problem_documents(self, one_house):
        """Paths and methods that do not exist are answered with problem documents too."""
        assert problem(one_house.send("GET", "/nowhere", {}, b"", 5))["status"] == 404
        assert problem(one_house.send("DELETE", "/v1/model", {}, b"", 5))["status"] == 405

    def test_no_answer_names_the_host_of_a_request(self, one_house):
        """A slash at the end of a path led to whatever host the request named, and a cache kept that for others."""
        headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
        for path in ("/metrics/", "/v1/model/", "//evil.example/", "/", "/openapi.json", "/v1/versions", "/nothing"):
            answer = one_house.send("GET", path, headers, b"", 5.0)
            assert answer.status in (200, 404), path
            assert b"evil" not in answer.body or path.startswith("//"), path
            assert "location" not in answer.headers, path

    def test_with_a_token_senders_need_it_and_readers_do_not(self, open_aggregator, settings, ours, update, caplog):
        made = update(1)
        caplog.set_level(logging.DEBUG)
        with open_aggregator(replace(settings, tokens=(TOKEN,))) as house:
            assert isinstance(pull(URL, "", house.send, ours, ONCE), FetchedModel)
            with pytest.raises(AggregatorError, match="token") as error:
                push(pack_update(made), URL, house.send, ONCE)
            assert not isinstance(error.value, UpdateRefused)
            denied = post(house, pack_update(made), made.id, Authorization="Bearer wrong-wrong-wrong-wrong")
            assert denied.headers["www-authenticate"] == "Bearer"
            assert post(house, pack_update(made), made.id, Authorization=f"Bearer {TOKEN}").status == 202
        assert TOKEN not in caplog.text
        assert "wrong-wrong" not in caplog.text
        assert all(len(line) < 200 for line in caplog.text.splitlines())


class TestFailures:
    def test_failing_store_acknowledges_nothing(self, open_aggregator, settings, update, tmp_path, monkeypatch):
        """A store that fails acknowledges nothing, and the update waits."""
        outbox = Outbox(tmp_path / "outbox")
        outbox.add(pack_update(update(1)))

        def full_disk(*_arguments):
            raise OperationalError("insert", {}, OSError("database or disk is full"))

        with open_aggregator(settings) as house:
            with monkeypatch.context() as patch:
                patch.setattr("fedstep.server.storage.update_repository.UpdateRepository._insert", full_disk)
                failed = flush(outbox, URL, house.send, ONCE)
                assert isinstance(failed.failures[0], AggregatorUnreachable)
                assert (failed.waiting, failed.sent) == (1, ())
            again = flush(outbox, URL, house.send, ONCE)
            assert (again.waiting, len(again.sent)) == (0, 1)

    def test_failed_aggregation_is_tried_again_and_loses_nothing(
        self, open_aggregator, settings, ours, update, monkeypatch
    ):
        hurried = replace(settings, buffer=BufferPolicy(updates=1, seconds=0.05))
        calls, aggregate = [], Store.aggregate

        def fails_once(self, *arguments):
            calls.append(1)
            if len(calls) == 1:
                raise OperationalError("insert", {}, OSError("database is locked"))
            return aggregate(self, *arguments)

        monkeypatch.setattr("fedstep.server.storage.store.Store.aggregate", fails_once)
        with open_aggregator(hurried) as house:
            push(pack_update(update(1)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 1)
            assert len(calls) == 2

    def test_evaluations_of_runners_promote_a_version(self, open_aggregator, settings, ours, update):
        """Runners evaluate a version, and their evaluations put it into production."""
        with open_aggregator(replace(settings, gate=Gate(alone=2, distance=1, first_distance=1))) as house:
            for number in (1, 2):
                push(pack_update(update(number, project=7)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 1)
            model = house.pulled(ours)
            assert model.trials == {"flaky": 1, "build-duration": 1}
            assert model.trial == model.candidate
            assert model.production != model.candidate
            for number in (3, 4):
                scores = {"flaky": TrialScore(1, -0.25)}
                push(pack_update(update(number, 1, project=7, scores=scores)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 2)
            after = house.pulled(ours)
            assert after.production["flaky"] == model.trial["flaky"]
            assert after.production["build-duration"] == model.production["build-duration"]
            assert after.production_version == 2
            found = json.loads(house.send("GET", "/v1/versions", {}, b"", 5).body)
            assert [(ended["task"], ended["outcome"]) for ended in found["verdicts"]] == [("flaky", "promoted")]
            assert found["verdicts"][0]["figures"]["evaluations"] == 2
            assert [shown["version"] for shown in found["versions"]] == [2, 1, 0]
            assert {trial["task"]: trial["version"] for trial in found["trials"]} == {"flaky": 2, "build-duration": 1}

    def test_a_rollback_by_another_process_is_served_within_a_tick(self, open_aggregator, settings, ours, update):
        with open_aggregator(replace(settings, buffer=BufferPolicy(updates=1, seconds=0.05))) as house:
            first = house.pulled(ours)
            push(pack_update(update(1)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 1)
            other = Store(settings.store, ours)
            other.roll_back(0, time.time())
            other.close()
            until(lambda: version(house, ours) == 2)
            assert house.pulled(ours).production == first.production
            push(pack_update(update(2, base=2)), URL, house.send, ONCE)
            until(lambda: version(house, ours) == 3)

    def test_more_updates_than_the_queue_holds_are_told_to_come_back(self, open_aggregator, settings, update):
        with open_aggregator(replace(settings, limits=Limits(queue=1))) as house:
            bodies = [update(number) for number in range(40)]

            async def all_at_once():
                asks = [
                    house._ask("POST", "/v1/updates", {"Idempotency-Key": made.id}, pack_update(made))
                    for made in bodies
                ]
                return await asyncio.gather(*asks)

            answers = house.run(all_at_once(), 10)
            assert {answer.status for answer in answers} == {202, 503}
            assert all(answer.headers["retry-after"] for answer in answers if answer.status == 503)
