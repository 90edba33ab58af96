"""Two aggregators as two real processes: what they make together, and what neither can do alone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.routing import Route

from fedstep.errors import AggregatorError, UpdateRefused
from fedstep.federation.client import post, push
from fedstep.federation.messages import TrialScore, Update, pack_update, shape
from fedstep.federation.outbox import Outbox, read_audit
from fedstep.federation.secagg.share_client import SHARES_PATH, flush_shares, push_shares
from fedstep.federation.secagg.shares import LEVELS, hash_seed, pack_share, split_update
from fedstep.federation.transport import Endpoint
from fedstep.history.project_store import ProjectStore
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.app import create_app
from fedstep.server.openapi import helper_document, leader_document
from fedstep.server.secagg.helper import create_helper_app
from fedstep.server.secagg.leader import SecureAggregation
from fedstep.server.secagg.rounds import Proposal, RoundPart, pack_proposal, sign
from fedstep.server.settings import Settings
from tests.helpers.cli import Checkout
from tests.helpers.narrow import expect
from tests.helpers.server_shares import (
    PATIENCE,
    PEER_TOKEN,
    drawn,
    helper,
    leader,
    logged,
    peer,
    pulled,
    serving,
    wait_for,
)

HEADS, RULES = ("build-duration", "build-failure"), default_rules(schema())
BOUNDS = {name: task.clip for name, task in schema().tasks.items()}
SEED = bytes(range(32))
ROUNDS = count(1)  # of the helper that tests share


@pytest.fixture(scope="module")
def shared_helper(tmp_path_factory: pytest.TempPathFactory):
    """Where a helper listens."""
    with helper(tmp_path_factory.mktemp("shared")) as (url, _):
        yield url


def send(update: Update, first: str, second: str) -> None:
    push_shares(pack_update(update), SEED, peer(first), peer(second), PATIENCE)


def send_seed(update: Update, url: str, seed: bytes = SEED) -> None:
    post(SHARES_PATH, update.id, pack_share(split_update(update, BOUNDS, seed)[1]), url, peer(url).send, PATIENCE)


def send_masked(update: Update, url: str) -> None:
    post(SHARES_PATH, update.id, pack_share(split_update(update, BOUNDS, SEED)[0]), url, peer(url).send, PATIENCE)


def made_of(url: str, updates: list[Update], version: int = 1) -> None:
    """Waits for a version, which has to be one aggregation of these fresh updates onto zeros, with no cap."""
    wait_for(lambda: pulled(url).candidate_version >= version)
    model = pulled(url)
    for task in HEADS:
        sums = [RULES[task].rate * sum(column) for column in zip(*(u.deltas[task] for u in updates), strict=True)]
        tolerance = len(updates) * RULES[task].clip / LEVELS + 1e-6
        assert list(model.candidate[task]) == pytest.approx(sums, abs=tolerance)


def proposed(number: int, updates: list[Update], task: str = "build-failure") -> bytes:
    pairs = {update.id: hash_seed(SEED) for update in updates}
    return pack_proposal(Proposal(number, schema().digest, (RoundPart(task, -1, pairs),)))


def ask(url: str, body: bytes, token: str = PEER_TOKEN, signed: str = PEER_TOKEN) -> requests.Response:
    """The helper's answer to whoever says to be the leader."""
    headers = {"Authorization": f"Bearer {token}", "Fedstep-Signature": sign(signed, body)}
    return requests.post(f"{url}/v1/rounds", body, headers=headers, timeout=30)


def released(answer: requests.Response) -> list[int]:
    """The numbers of the updates that the helper has just released."""
    assert answer.status_code == 200, answer.text
    return sorted(int(number, 16) for part in answer.json()["parts"] for number in part["ids"])


class TestRound:
    def test_shares_aggregate_as_whole_updates_would(self, tmp_path):
        """Shares are aggregated as whole updates would be, and a client that vanished delays nobody."""
        with helper(tmp_path) as (second, _), leader(tmp_path, second, "--buffer-size", "6") as (first, _):
            send_seed(drawn(8), second)
            send_masked(drawn(9), first)
            updates = [drawn(number) for number in range(5)]
            for update in updates:
                send(update, first, second)
                send(update, first, second)  # a repeat counts once
            made_of(first, updates)
            assert pulled(first).candidate["flaky"] == schema().tasks["flaky"].start()

    @pytest.mark.full
    def test_shares_wait_for_an_absent_helper_and_go_out_unchanged(self, tmp_path):
        """With the helper unavailable, both shares wait and the same bytes go out later."""
        outbox, seen = Outbox(tmp_path / "outbox"), []
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        nowhere = f"http://127.0.0.1:{port}"
        with leader(tmp_path, nowhere) as (first, _):

            def watched(to: Endpoint) -> Endpoint:
                def noting(method, path, headers, body, timeout):
                    seen.append(body)
                    return to.send(method, path, headers, body, timeout)

                return Endpoint(to.url, noting)

            for number in range(5):
                outbox.add(pack_update(drawn(number)))
            flushed = flush_shares(outbox, watched(peer(first)), watched(peer(nowhere)), PATIENCE)
            assert (len(flushed.sent), flushed.waiting, len(flushed.failures)) == (0, 5, 1)
            tried = seen[0]
            with helper(tmp_path, "--port", str(port)) as (second, _):
                assert second == nowhere
                flushed = flush_shares(outbox, watched(peer(first)), watched(peer(second)), PATIENCE)
                assert (len(flushed.sent), flushed.waiting) == (5, 0)
                assert seen.count(tried) > 1
                assert list(outbox.folder.iterdir()) == []
                made_of(first, [drawn(number) for number in range(5)])

    def test_a_leader_killed_after_its_proposal_aggregates_once(self, tmp_path):
        updates = [drawn(number) for number in range(5)]
        with helper(tmp_path) as (second, _):
            with socket.create_server(("127.0.0.1", 0)) as silent:
                silent.settimeout(60)
                with leader(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}") as (first, process):
                    for update in updates:
                        send(update, first, second)
                    connection, _ = silent.accept()  # the proposal comes, so that it is on disk
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait(30)
                    connection.close()
            with leader(tmp_path, second) as (first, _):
                made_of(first, updates)
            with leader(tmp_path, second) as (first, _):
                assert pulled(first).candidate_version == 1

    @pytest.mark.full
    def test_a_helper_that_restarts_goes_on(self, tmp_path):
        updates = [drawn(number) for number in range(5)]
        with helper(tmp_path) as (second, _):
            for update in updates:
                send_seed(update, second)
        port = second.rpartition(":")[2]
        with helper(tmp_path, "--port", port) as (second, _), leader(tmp_path, second) as (first, _):
            for update in updates:
                send(update, first, second)
            made_of(first, updates)

    @pytest.mark.full
    def test_with_another_peer_token_nothing_is_combined(self, tmp_path):
        with (
            helper(tmp_path, peer_token="another-secret-of-letters") as (second, _),
            leader(tmp_path, second) as (first, _),
        ):
            for number in range(5):
                send(drawn(number), first, second)
            wait_for(lambda: logged(tmp_path / "leader", "the helper answered 401"))
            assert pulled(first).candidate_version == 0


class TestHelper:
    def test_helper_releases_no_sum_of_fewer_projects_than_it_counts(self, shared_helper):
        """The helper releases no sum of fewer projects than it counts itself."""
        of_one = [drawn(number, project=7) for number in range(110, 116)]
        others = [drawn(number) for number in range(100, 104)]
        for update in [*of_one, *others[:3]]:
            send_seed(update, shared_helper)
        for too_few in (of_one, others[:1], [*of_one, *others[:3]]):
            assert released(ask(shared_helper, proposed(next(ROUNDS), too_few))) == []
        send_seed(others[3], shared_helper)
        assert released(ask(shared_helper, proposed(next(ROUNDS), [*of_one, *others]))) == [100, 101, 102, 103, 110]

    def test_helper_answers_only_signed_requests_with_the_peer_token(self, shared_helper):
        """Only requests signed with the peer token are answered, and only for what is signed."""
        body = proposed(next(ROUNDS), [drawn(1)])
        for token, signed in (("", PEER_TOKEN), ("another-secret", PEER_TOKEN), (PEER_TOKEN, "another-secret")):
            assert ask(shared_helper, body, token, signed).status_code == 401
        headers = {"Authorization": f"Bearer {PEER_TOKEN}", "Fedstep-Signature": sign(PEER_TOKEN, body)}
        changed = requests.post(f"{shared_helper}/v1/rounds", body + b" ", headers=headers, timeout=10)
        assert changed.status_code == 401

    def test_what_is_released_is_released_once_and_in_one_sum(self, shared_helper):
        updates, number = [drawn(number) for number in range(200, 206)], next(ROUNDS)
        for update in updates:
            send_seed(update, shared_helper)
        first, again = (ask(shared_helper, proposed(number, updates[:5])) for _ in range(2))
        assert released(first) == [200, 201, 202, 203, 204]
        assert (again.content, again.headers["Fedstep-Signature"]) == (
            first.content,
            first.headers["Fedstep-Signature"],
        )
        assert ask(shared_helper, proposed(number, updates)).status_code == 409, (
            "another set under a number that is used"
        )
        later = next(ROUNDS)
        assert released(ask(shared_helper, proposed(later, updates))) == [], "one more would be told by the difference"
        send_seed(updates[0], shared_helper, bytes(32))
        refused = ask(shared_helper, proposed(number, updates[:5]))
        assert (refused.status_code, refused.json()["newest"]) == (409, str(later)), "the seeds are gone"
        assert released(ask(shared_helper, proposed(next(ROUNDS), updates))) == []

    def test_shares_of_two_splits_are_never_put_together(self, shared_helper):
        updates = [drawn(number) for number in range(300, 306)]
        for update in updates[:5]:
            send_seed(update, shared_helper)
        send_seed(updates[5], shared_helper, bytes(32))
        assert released(ask(shared_helper, proposed(next(ROUNDS), updates))) == [300, 301, 302, 303, 304]

    def test_half_of_a_forgotten_project_is_gone_and_not_taken_again(self, shared_helper):
        updates = [drawn(number) for number in range(400, 405)]
        for update in updates:
            send_seed(update, shared_helper)
        headers = {"Fedstep-Project": updates[0].project}
        assert requests.post(f"{shared_helper}/v1/forget", headers=headers, timeout=10).json()["updates"] == 2
        send_seed(updates[0], shared_helper)
        assert released(ask(shared_helper, proposed(next(ROUNDS), updates))) == []

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b"[" * 100_000,
            json.dumps({"round": 1, "schema": schema().digest, "parts": []}).encode(),
            json.dumps({"round": True, "schema": schema().digest, "parts": [["flaky"]]}).encode(),
            proposed(0, [drawn(1)]),
            proposed(1, [drawn(1)], task="Flaky\n"),
        ],
    )
    def test_a_proposal_that_is_none_is_refused_by_the_helper(self, body, shared_helper):
        assert ask(shared_helper, body).status_code == 400

    def test_a_proposal_for_another_schema_or_task_is_refused(self, shared_helper):
        assert ask(shared_helper, proposed(1, [drawn(1)], task="other")).status_code == 422
        assert ask(shared_helper, proposed(1, [drawn(1)]).replace(b"a", b"b")).status_code in (400, 409)

    def test_each_takes_its_own_half_alone(self, tmp_path, shared_helper):
        with leader(tmp_path, shared_helper) as (first, _), serving(tmp_path / "alone") as (alone, _):
            with pytest.raises(UpdateRefused, match="takes shares alone"):
                push(pack_update(drawn(1)), first, peer(first).send, PATIENCE)
            with pytest.raises(UpdateRefused, match="fedstep-masked-2"):
                send_seed(drawn(1), first)
            with pytest.raises(UpdateRefused, match="fedstep-seed-2"):
                send_masked(drawn(1), shared_helper)
            for half in (send_seed, send_masked):
                with pytest.raises(AggregatorError, match="accepts no shares") as caught:
                    half(drawn(1), alone)
                assert not isinstance(caught.value, UpdateRefused), "it waits until the URL is right"
            with pytest.raises(UpdateRefused, match="version 5"):
                send_masked(drawn(1, base=5), first)
            wild = drawn(1)._replace(scores={"build-failure": TrialScore(10**15 - 1, 0.1)})
            for half, url in ((send_masked, first), (send_seed, shared_helper)):
                with pytest.raises(UpdateRefused, match="cannot be"):
                    half(wild, url)
        assert requests.get(f"{shared_helper}/v1/model", timeout=10).status_code == 404


class TestRoles:
    def test_the_documents_have_every_route_and_are_valid(self, tmp_path):
        schemathesis = pytest.importorskip("schemathesis")
        settings = Settings(store=f"sqlite:///{tmp_path / 'a.db'}")
        leading = replace(settings, mode=SecureAggregation("http://127.0.0.1:1", PEER_TOKEN))
        for app, written in (
            (create_app(leading), leader_document(shape(schema()))),
            (create_helper_app(settings, PEER_TOKEN), helper_document(shape(schema()))),
        ):
            document: dict[str, Any] = json.loads(json.dumps(written))
            schemathesis.openapi.from_dict(document).validate()
            used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
            assert used == set(document["components"]["schemas"])
            routes = [expect(Route, route) for route in app.routes]
            assert {route.path for route in routes} - {"/v1/updates"} == set(document["paths"])
            distinct = {(route.path, *sorted(route.methods or ())) for route in routes}
            assert len(routes) == len(distinct), "hidden routes"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("leader", "--peer", "https://h.example", "--peer-token", ""), "FEDSTEP_PEER_TOKEN"),
            (("helper", "--peer-token", "short"), "FEDSTEP_PEER_TOKEN"),
            (("leader", "--peer", ""), "--peer"),
            (("leader", "--peer", "http://h.example"), "https://"),
            (("leader", "--peer", "https://["), "--peer"),
            (("helper", "--privacy-epsilon", "8"), "--privacy-epsilon"),
        ],
    )
    def test_roles_that_cannot_work_are_said_before_anything_listens(self, tmp_path, options, said):
        words = ("serve", "--store", f"sqlite:///{tmp_path / 'a.db'}", "--peer-token", PEER_TOKEN, "--role", *options)
        done = Checkout(tmp_path, dict(os.environ)).run(*words)
        assert done.code == 2
        assert said in done.err


class TestClient:
    def test_client_without_a_helper_sends_nothing_and_warns_once(self, tmp_path, shared_helper):
        """A client without a helper sends the leader nothing and says once what to do."""
        outbox = Outbox(tmp_path / ".fedstep" / "outbox")
        for number in (91, 92):
            outbox.add(pack_update(drawn(number)))
        with leader(tmp_path, shared_helper) as (first, _):
            never_pulled = _fedstep(tmp_path, "push", "--aggregator", first, "--strict")
            pulled_once = _fedstep(tmp_path, "pull", "--aggregator", first)
            after = _fedstep(tmp_path, "push", "--aggregator", first)
        for tried in (never_pulled, after):
            assert tried.stdout == "0 sent, 0 refused, 2 waiting\n", tried.stderr
            assert tried.stderr.count("Give --helper") == 1
        assert (never_pulled.returncode, pulled_once.returncode, after.returncode) == (5, 0, 0)
        assert not logged(tmp_path / "leader", "shares-only"), "it would have been refused, and seen"
        assert read_audit(ProjectStore(str(tmp_path / ".fedstep"))).sent == ()

    @pytest.mark.full
    def test_push_splits_updates_and_reports_refused_shares(self, tmp_path, shared_helper):
        """`push` splits pending updates and reports a share that is not accepted."""
        outbox = Outbox(tmp_path / ".fedstep" / "outbox")
        outbox.add(pack_update(drawn(77)))
        with leader(tmp_path, shared_helper) as (first, _):
            words = ("push", "--aggregator", first, "--strict", "--helper")
            assert "would hold both shares" in _fedstep(tmp_path, *words, first).stderr
            down = _fedstep(tmp_path, *words, "http://127.0.0.1:1", "--timeout", "5")
            assert (down.returncode, down.stdout) == (5, "0 sent, 0 refused, 1 waiting\n"), down.stderr
            done = _fedstep(tmp_path, *words, shared_helper)
            assert (done.returncode, done.stdout) == (0, "1 sent, 0 refused, 0 waiting\n"), done.stderr


def _fedstep(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP_")} | variables
    command = [sys.executable, "-P", "-m", "fedstep", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=120, text=True)
