"""An issuer of tokens on a loopback port, with keys made here."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from fedstep.server.oidc import issuers_of

AUDIENCE = "https://fedstep.example.org"
RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC = ec.generate_private_key(ec.SECP256R1())


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def public(kid: str, key: PrivateKey) -> dict[str, str]:
    known = key.public_key()
    jwk = RSAAlgorithm.to_jwk(known) if isinstance(known, rsa.RSAPublicKey) else ECAlgorithm.to_jwk(known)
    return {"kid": kid, "use": "sig", **json.loads(jwk)}


class Issuer:
    """A discovery document and keys over HTTP; `asked` counts requests by path."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[str] = []
        self.keys = [public("one", RSA[0]), public("curve", EC)]
        self.named, self.answer = "", None
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                about = {"issuer": issuer.named or issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                body = json.dumps({"keys": issuer.keys} if self.path == "/keys" else about).encode()
                if self.path.startswith("/token?"):  # as GitHub does, beside the issuer
                    audience = parse_qs(urlsplit(self.path).query)["audience"][0]
                    body = json.dumps({"value": issuer.token(aud=audience)}).encode()
                body = issuer.answer if issuer.answer is not None else body
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def token(
        self, key: PrivateKey | bytes | None = None, kid: str = "one", algorithm: str = "RS256", **changes: object
    ) -> str:
        """A token like GitHub's; a change to None leaves the claim out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "repository_id": "42",
            "repository_owner_id": "7",
            "repository": "acme/web",
            "actor": "a-person",
            **changes,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, key or RSA[0], algorithm, {"kid": kid})

    def issuers(self, *allowed: str):
        return issuers_of([f"ci={self.url},like=github"], allowed or ["ci:acme/*"])
