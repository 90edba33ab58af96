"""An id token of Jenkins' oidc-provider plugin instead of a secret: real aggregator, issuer on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.helpers.jenkins import controller, talk, train
from tests.helpers.lifetime import bound
from tests.helpers.narrow import expect, present

AUDIENCE = "https://fedstep.example.org"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer():
    """The address of what a controller serves below /oidc: a discovery document and its keys."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = f"http://127.0.0.1:{expect(HTTPServer, self.server).server_port}/oidc"
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
            documents = {
                "/oidc/.well-known/openid-configuration": {"issuer": url, "jwks_uri": f"{url}/jwks"},
                "/oidc/jwks": {"keys": [public | {"kid": "fedstep", "use": "sig", "alg": "RS256"}]},
            }
            body = json.dumps(documents.get(self.path, {})).encode()
            self.send_response(200 if self.path in documents else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/oidc"
    server.shutdown()
    server.server_close()


@pytest.fixture
def private_aggregator(issuer, tmp_path):
    """The address of an aggregator that shows its model to jobs of that controller alone."""
    options = (
        *("--host", "127.0.0.1", "--port", "0", "--store", f"sqlite:///{tmp_path}/aggregator.db", "--private-model"),
        *("--oidc", f"jenkins={issuer},project=sub,owner=iss", "--allow", "jenkins:*", "--audience", AUDIENCE),
    )
    words = bound(sys.executable, "-m", "fedstep", "serve", *options)
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP_")}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=env) as server:
        try:
            log = present(server.stderr)
            said = log.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert url, said + log.read()
            yield url.group()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def id_token(issuer, audience):
    """As the plugin makes it for a build: by default these claims and the number of the build."""
    now = int(time.time())
    claims = {"iss": issuer, "aud": audience, "iat": now, "exp": now + 3600, "build_number": 1}
    return jwt.encode(
        claims | {"sub": "https://ci.example.org/job/shop/job/main/"}, KEY, "RS256", headers={"kid": "fedstep"}
    )


class TestIdToken:
    @pytest.mark.full
    def test_token_of_this_job_alone_is_accepted(self, repository, tmp_path, issuer, private_aggregator, fedstep):
        """An id token opens the aggregator, and one for somebody else does not."""
        tokens = {"ours": id_token(issuer, AUDIENCE), "theirs": id_token(issuer, "https://elsewhere.example.org")}
        given = {"command": fedstep, "junit": "report.xml", "aggregator": private_aggregator}
        ours, theirs, none = controller(tmp_path, repository)(
            *(train(**given, credentialsId=name) | {"credentials": tokens} for name in tokens), train(**given)
        )
        assert ours["returned"]["status"] == "ok", talk(ours)
        assert theirs["returned"]["status"] == none["returned"]["status"] == "degraded"
        assert "answered 401" in talk(theirs)
        assert not any(token in json.dumps(result) for token in tokens.values() for result in (ours, theirs, none))
        assert {result["result"] for result in (ours, theirs, none)} == {"SUCCESS"}
