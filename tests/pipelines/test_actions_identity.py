"""The token that GitHub signs for a job: from an issuer on loopback, to a real aggregator that takes no other."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.helpers.lifetime import bound
from tests.helpers.narrow import present

LOOP = Path(__file__).parent / "workflows" / "loop.yml"
KEY = rsa.generate_private_key(65537, 2048)


class Issuer:
    """GitHub's side: the discovery document, its public key, and a token for the audience that is asked for."""

    def __init__(self, repository):
        self.repository, self.audiences = repository, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path, query, authorization):
        if path == "/token":
            assert authorization == "Bearer of-this-job"
            self.audiences += query["audience"]
            return {"value": self.token(query["audience"][0])}
        if path == "/keys":
            public = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
            return {"keys": [{"kid": "one", "use": "sig", **public}]}
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    def token(self, audience):
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "iat": now, "nbf": now, "exp": now + 300}
        ids = {"repository_id": "42", "repository_owner_id": "7", "repository": self.repository}
        return jwt.encode(claims | ids, KEY, "RS256", {"kid": "one"})

    def handler(self):
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                value = issuer.answer(parts.path, parse_qs(parts.query), self.headers.get("Authorization", ""))
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


@pytest.fixture
def issuer(request):
    made = Issuer(getattr(request, "param", "acme/shop"))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def closed_aggregator(issuer, tmp_path):
    """The address of an aggregator that even reads out its model only to jobs of acme's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = ["--port", str(port), "--oidc", f"ci={issuer.url},like=github", "--audience", url, "--allow", "ci:acme/*"]
    words += ["--private-model", "--store", f"sqlite:///{tmp_path / 'closed.db'}"]
    command = bound(Path(sys.executable).with_name("fedstep"), "serve", *words)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            log = present(server.stderr)
            said = log.readline()
            assert re.search(url, said), said
            threading.Thread(target=log.read, daemon=True).start()
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def trained(act, fedstep, aggregator, **more):
    given = {"COMMAND": fedstep, "AGGREGATOR": aggregator, "REPORTS": "report.xml"}
    run = act(LOOP, "--matrix", "cell:one", **given, **more)
    assert run.code == 0, run.log
    return run


def granted(issuer):
    """What the runner puts into the environment of a job with `id-token: write`."""
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-this-job",
    }


class TestToken:
    def test_a_job_with_the_permission_needs_no_secret(self, act, fedstep, issuer, closed_aggregator):
        run = trained(act, fedstep, closed_aggregator, **granted(issuer))
        assert run.outputs("train")["status"] == "ok", run.log
        assert set(issuer.audiences) == {closed_aggregator}, "a token for this aggregator alone"

    @pytest.mark.full
    def test_missing_permission_is_named_in_one_sentence(self, act, fedstep, issuer, closed_aggregator):
        """A job without the permission is told which in one sentence."""
        run = trained(act, fedstep, closed_aggregator)
        assert run.outputs("train")["status"] == "degraded"
        (line,) = {line.split("| ")[-1] for line in run.log.splitlines() if "id-token" in line and "| fedstep:" in line}
        assert f"{closed_aggregator} wants a token, and this job may not ask GitHub for one" in line
        assert "permissions: id-token: write" in line
        assert "permissions: id-token: write" in run.summary()
        assert issuer.audiences == []

    @pytest.mark.full
    @pytest.mark.parametrize("issuer", ["stranger/shop"], indirect=True)
    def test_stranger_is_refused_and_its_build_stays_green(self, act, fedstep, issuer, closed_aggregator):
        """A job of a stranger is refused, and its build stays green."""
        run = trained(act, fedstep, closed_aggregator, **granted(issuer))
        assert run.outputs("train")["status"] == "degraded"
        assert issuer.audiences
