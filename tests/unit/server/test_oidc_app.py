"""Tokens of a CI at an aggregator: in this process, and one that a job without a secret finds."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fedstep.errors import AggregatorError
from fedstep.federation.ci_token import ci_transport
from fedstep.federation.client import FetchedModel, pull, push
from fedstep.federation.messages import Update, pack_update, shape
from fedstep.federation.transport import RetryPolicy
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from fedstep.server.mode import BufferPolicy
from tests.helpers.aggregator import InProcess, until
from tests.helpers.lifetime import bound, url_of
from tests.helpers.server_oidc import AUDIENCE, Issuer


def figures(house: InProcess) -> str:
    return house.send("GET", "/metrics", {}, b"", 5).body.decode()


def post(house, made, token: str):
    headers = {"Idempotency-Key": made.id, "Authorization": f"Bearer {token}"}
    return house.send("POST", "/v1/updates", headers, pack_update(made), 20.0)


@contextmanager
def serving(folder: Path, issuer: Issuer) -> Iterator[str]:
    """The URL of a real aggregator that knows the issuer; it is stopped by its pid."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    options = ["--oidc", f"ci={issuer.url},like=github", "--audience", url, "--allow", "acme/web", "--private-model"]
    words = bound(sys.executable, "-m", "fedstep", "serve", "--port", url.rpartition(":")[2], *options)
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP_")}
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, cwd=folder, env=env) as server:
        try:
            url_of(server, log)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


class TestTokens:
    def test_store_and_log_have_only_project_and_owner_of_a_token(
        self, open_aggregator, settings, issuer, update, tmp_path, caplog
    ):
        """A job with a token sends, and neither store nor log have more of it than project and owner."""
        caplog.set_level(logging.DEBUG)
        token, stranger = issuer.token(), issuer.token(repository="strange/one", actor="someone-else")
        with open_aggregator(replace(settings, issuers=issuer.issuers(), audience=AUDIENCE)) as house:
            assert post(house, update(1), token).status == 202
            refused = post(house, update(2), stranger)
        assert (refused.status, json.loads(refused.body)["type"]) == (403, "urn:fedstep:problem:not-allowed")
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("a.db*"))
        assert b"ci:7" in kept
        for secret in (
            *token.split("."),
            *stranger.split(".")[1:],
            "acme/web",
            "a-person",
            "strange/one",
            "someone-else",
        ):
            assert secret not in caplog.text
            assert secret.encode() not in kept
        assert "no pattern of this aggregator" in caplog.text

    def test_absent_issuer_tells_senders_to_retry_not_unknown(self, open_aggregator, settings, issuer, update, caplog):
        """While the issuer is unavailable, senders are told to come back and not that they are unknown."""
        with open_aggregator(replace(settings, issuers=issuer.issuers(), audience=AUDIENCE)) as house:
            issuer.close()
            away = post(house, update(1), issuer.token())
            assert away.status == 503
            assert int(away.headers["retry-after"]) > 0
            assert post(house, update(1), "no-jwt-but-a-guess").status == 401
        assert "the keys of ci are unavailable" in caplog.text

    def test_project_of_the_token_counts_and_not_the_claimed_one(self, open_aggregator, settings, issuer, update):
        """The project of an identity counts, and not the one that an update claims."""
        with open_aggregator(
            replace(
                settings, issuers=issuer.issuers(), audience=AUDIENCE, buffer=BufferPolicy(updates=9, seconds=3600.0)
            )
        ) as house:
            for number in (1, 2, 3):
                assert post(house, update(number, project=number + 10), issuer.token()).status == 202
            assert post(house, update(4, project=11), issuer.token(repository_id="43")).status == 202
            until(lambda: "fedstep_buffer_updates 4.0" in figures(house))
            assert "fedstep_buffer_projects 2.0" in figures(house)

    @pytest.mark.slow
    def test_a_job_on_github_without_any_secret_pulls_and_sends(self, tmp_path, issuer):
        env = {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
        }
        ours = shape(schema())
        deltas = {"build-duration": zeros(ours.sizes["build-duration"])}
        made = Update(ours.digest, 0, "1" * 32, "2" * 32, {"build-duration": 8}, deltas)
        with serving(tmp_path, issuer) as url:
            send, retry = ci_transport(url, "", env), RetryPolicy(timeout=20.0)
            assert isinstance(pull(url, "", send, ours, retry), FetchedModel)
            assert push(pack_update(made), url, send, retry).version == 0
            with pytest.raises(AggregatorError, match="id-token: write"):
                pull(url, "", ci_transport(url, "", {"GITHUB_ACTIONS": "true"}), ours, retry)
        assert sum(path.startswith("/token?") for path in issuer.asked) == 1
