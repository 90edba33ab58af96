"""Tokens of a CI, from an issuer on a loopback port with keys made here."""

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from fedstep.errors import AggregatorError, UsageError, WireError
from fedstep.features.schema import schema
from fedstep.federation.ci_token import ci_send
from fedstep.federation.client import Fetched, pull, push
from fedstep.federation.patience import Patience
from fedstep.federation.wire import Update, pack_update, shape
from fedstep.model.linear import zeros
from fedstep.server.buffer import Folding
from fedstep.server.identity import Denied, Sender, digest_of
from fedstep.server.issuers import Pattern, issuers_of
from fedstep.server.keys import BETWEEN, IssuerUnreachable, Keys, fetched, read_keys
from fedstep.server.oidc import Verifier
from tests.lifetime import bound

AUDIENCE = "https://fedstep.example.org"
RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC = ec.generate_private_key(ec.SECP256R1())


def public(kid: str, key: object) -> dict:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {"kid": kid, "use": "sig", **json.loads(algorithm.to_jwk(key.public_key()))}


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

    def token(self, key: object = None, kid: str = "one", algorithm: str = "RS256", **changes: object) -> str:
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


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def verify(issuer):
    verifier = Verifier(issuer.issuers(), AUDIENCE)
    return lambda token: asyncio.run(verifier(token, digest_of(token)))


def why(found: Sender | Denied) -> str:
    assert isinstance(found, Denied)
    assert found.remedy
    return found.reason


def test_project_and_owner_of_a_verified_token_are_all_that_is_known_of_it(issuer, verify):
    assert verify(issuer.token()) == Sender("ci:7", "ci:7/42")
    assert verify(issuer.token(EC, "curve", "ES256", repository_id="43")) == Sender("ci:7", "ci:7/43")
    assert verify(issuer.token(aud=[AUDIENCE + "/", "others"])) == Sender("ci:7", "ci:7/42")


def test_two_projects_of_one_owner_have_two_pseudonyms_and_a_claim_changes_neither(issuer, verify):
    first, second = verify(issuer.token()), verify(issuer.token(repository_id="43"))
    assert first.pseudonym("0" * 32) == first.pseudonym("1" * 32) != second.pseudonym("0" * 32)
    assert len(first.pseudonym("0" * 32)) == 32


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": None}, "lacks"),
        ({"iat": None}, "lacks"),
        ({"aud": None}, "lacks"),
        ({"aud": "https://other.example.org"}, "audience"),
        ({"aud": ["sts.amazonaws.com"]}, "audience"),
        ({"nbf": 9_000_000_000}, "not valid yet"),
        ({"iat": 9_000_000_000}, "not valid yet"),
        ({"iss": "https://token.actions.githubusercontent.com"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"exp": "soon"}, "malformed"),
        ({"repository": "other/web"}, "no pattern"),
        ({"repository": None}, "no pattern"),
        ({"repository_id": None}, "claim repository_id"),
        ({"repository_owner_id": ["7"]}, "claim repository_owner_id"),
    ],
)
def test_a_token_that_is_not_for_here_and_now_and_them_is_denied(issuer, verify, changes, reason):
    assert reason in why(verify(issuer.token(**changes)))


def test_a_little_difference_of_the_clocks_is_forgiven(issuer, verify):
    now = int(time.time())
    assert isinstance(verify(issuer.token(exp=now - 10)), Sender)
    assert isinstance(verify(issuer.token(nbf=now + 10, iat=now + 10)), Sender)
    assert "expired" in why(verify(issuer.token(exp=now - 60)))


def test_other_algorithms_than_the_two_are_denied_whatever_key_they_are_signed_with(issuer, verify):
    shown = issuer.keys[0]["n"]
    for key, algorithm in ((None, "none"), ("s" * 32, "HS256"), (shown, "HS512"), (RSA[0], "RS512"), (RSA[0], "PS256")):
        token = jwt.encode({"iss": issuer.url, "aud": AUDIENCE}, key, algorithm, {"kid": "one"})
        assert "RS256 or ES256" in why(verify(token))
    assert issuer.asked == []


def test_a_public_key_is_no_secret_to_sign_with(issuer, verify):
    """The classic: HS256 over the published RSA key, with a header that says RS256 and one that says HS256."""
    head = {"alg": "RS256", "kid": "one", "typ": "JWT"}
    body = issuer.token().split(".")[1]
    forged = jwt.encode({}, "x" * 32, "HS256").split(".")[2]
    text = base64.urlsafe_b64encode(json.dumps(head).encode()).decode().rstrip("=")
    assert "signature" in why(verify(f"{text}.{body}.{forged}"))


def test_a_key_of_the_wrong_kind_or_of_another_is_denied(issuer, verify):
    assert "signature" in why(verify(issuer.token(RSA[1])))
    assert isinstance(verify(issuer.token(EC, "one", "ES256")), Denied)
    assert isinstance(verify(issuer.token(RSA[0], "curve", "RS256")), Denied)


def test_a_token_that_was_changed_is_denied(issuer, verify):
    head, body, signature = issuer.token().split(".")
    other = issuer.token(repository_id="43").split(".")[1]
    assert "signature" in why(verify(f"{head}.{other}.{signature}"))
    assert isinstance(verify(f"{head}.{body}."), Denied)


def test_a_huge_token_is_denied_before_anything_is_read(issuer, verify):
    assert "more than" in why(verify(issuer.token(actor="x" * 20_000)))
    assert issuer.asked == []


@pytest.mark.parametrize("payload", ["[" * 9_000, "{}", "[]", "1", '{"iss":{}}', '{"iss":null}', "\x00"])
def test_payloads_that_are_no_claims_are_denied(verify, payload):
    head = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"one"}').decode().rstrip("=")
    text = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
    assert isinstance(verify(f"{head}.{text}.AAAA"), Denied)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3), st.booleans())
def test_any_bytes_for_a_token_are_denied_and_raise_nothing(parts, encoded):
    verifier = Verifier(issuers_of(["github"], ["*"]), AUDIENCE, fetch=lambda _: b"{}")
    texts = [base64.urlsafe_b64encode(part).decode() if encoded else part.decode("latin-1") for part in parts]
    assert isinstance(asyncio.run(verifier(".".join(texts), "digest")), Denied)


def test_a_known_token_is_not_verified_again_until_it_expires(issuer):
    now = [time.time()]
    verifier = Verifier(issuer.issuers(), AUDIENCE, clock=lambda: now[0])
    token = issuer.token()

    async def asks() -> list[Sender | Denied]:
        first = await verifier(token, digest_of(token))
        issuer.keys = []
        again = await verifier("not even looked at", digest_of(token))
        now[0] += 301
        return [first, again, await verifier("not.a.token", digest_of(token))]

    first, again, later = asyncio.run(asks())
    assert first == again == Sender("ci:7", "ci:7/42")
    assert isinstance(later, Denied)


def test_a_token_that_lives_long_is_verified_again_after_an_hour(issuer):
    now = [time.time()]
    verifier = Verifier(issuer.issuers(), AUDIENCE, clock=lambda: now[0])
    token = issuer.token(exp=9_000_000_000)

    async def asks() -> list[Sender | Denied]:
        found = [await verifier(token, "digest")]
        now[0] += 3500
        found.append(await verifier("no.to.ken", "digest"))
        now[0] += 200
        return [*found, await verifier("no.to.ken", "digest")]

    first, known, verified = asyncio.run(asks())
    assert first == known == Sender("ci:7", "ci:7/42")
    assert isinstance(verified, Denied)


def test_keys_that_turn_are_found_and_one_that_is_gone_is_not_used_again(issuer):
    now = [0.0]
    keys = Keys("ci", issuer.url, clock=lambda: now[0])

    async def turn() -> list[bool]:
        found = [await keys.key("one") is not None]
        issuer.keys = [public("two", RSA[1])]
        now[0] += BETWEEN
        found += [await keys.key("two") is not None, await keys.key("one") is not None]
        return found

    assert asyncio.run(turn()) == [True, True, False]


def test_however_many_unknown_keys_are_named_the_issuer_is_asked_once_a_minute(issuer):
    now = [0.0]
    keys = Keys("ci", issuer.url, clock=lambda: now[0])

    async def attack() -> int:
        await asyncio.gather(*(keys.key(f"made up {number}") for number in range(50)))
        now[0] += BETWEEN - 1
        await keys.key("made up")
        first = issuer.asked.count("/keys")
        now[0] += 1
        await keys.key("made up")
        return first

    assert asyncio.run(attack()) == 1
    assert issuer.asked.count("/keys") == 2


def test_keys_that_are_old_are_looked_at_again_while_they_are_used(issuer):
    now = [0.0]
    keys = Keys("ci", issuer.url, clock=lambda: now[0])

    async def hour() -> None:
        await keys.key("one")
        now[0] += 3601
        assert await keys.key("one") is not None
        await keys._background

    asyncio.run(hour())
    assert issuer.asked.count("/keys") == 2


def test_known_keys_outlive_an_issuer_that_is_away_for_a_day_and_no_longer(issuer):
    now = [0.0]
    keys = Keys("ci", issuer.url, clock=lambda: now[0])

    async def away() -> None:
        await keys.key("one")
        issuer.answer = b"<html>maintenance</html>"
        now[0] += 86_000
        assert await keys.key("one") is not None
        await keys._background
        with pytest.raises(IssuerUnreachable):
            await keys.key("two")
        now[0] += 1000
        with pytest.raises(IssuerUnreachable):
            await keys.key("one")

    asyncio.run(away())


@pytest.mark.parametrize(
    "wrong", [b"", b"[]", b"[" * 100_000, b'{"keys": 1}', b"x" * 300_000, b"y" * 2_000_000, b'{"issuer": "other"}']
)
def test_documents_that_make_no_sense_are_as_if_the_issuer_was_away(issuer, wrong):
    issuer.answer = wrong
    with pytest.raises(IssuerUnreachable) as error:
        asyncio.run(Keys("ci", issuer.url).key("one"))
    assert 1 <= error.value.seconds <= 60


def test_a_discovery_document_cannot_speak_for_another_issuer_or_send_for_keys_in_the_clear(issuer):
    issuer.named = "https://token.actions.githubusercontent.com"
    with pytest.raises(IssuerUnreachable):
        asyncio.run(Keys("ci", issuer.url).key("one"))
    about = {"issuer": "https://ci.example", "jwks_uri": "http://ci.example/keys"}
    with pytest.raises(IssuerUnreachable):
        asyncio.run(Keys("ci", "https://ci.example", fetch=lambda _: json.dumps(about).encode()).key("one"))


def test_of_a_key_set_only_keys_that_can_sign_for_the_two_algorithms_are_used():
    short = public("short", rsa.generate_private_key(65537, 1024))
    wrong_curve = public("curve", ec.generate_private_key(ec.SECP384R1()))
    one = public("one", RSA[0])
    others = [
        {**one, "kid": "encryption", "use": "enc"},
        {**one, "kid": "ps", "alg": "PS256"},
        {**one, "kid": 5},
        {"kid": "secret", "kty": "oct", "k": "c2VjcmV0"},
        {"kid": "broken", "kty": "RSA", "n": "!", "e": "AQAB"},
        {"kid": "empty", "kty": "EC"},
        "text",
    ]
    found = read_keys(json.dumps({"keys": [one, short, wrong_curve, *others]}).encode())
    assert list(found) == ["one"]
    with pytest.raises(WireError):
        read_keys(json.dumps({"keys": [one] * 101}).encode())


def test_redirects_are_not_followed_and_nobody_answers_for_a_closed_port():
    lone = Issuer()
    lone.close()
    with pytest.raises(Exception, match="cannot be reached"):
        fetched(f"{lone.url}/keys")


# through the application


def figures(house) -> str:
    return house.send("GET", "/metrics", {}, b"", 5).body.decode()


def until(holds) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "it did not happen inside 10 s"
        time.sleep(0.01)


def post(house, made, token: str):
    headers = {"Idempotency-Key": made.id, "Authorization": f"Bearer {token}"}
    return house.send("POST", "/v1/updates", headers, pack_update(made), 20.0)


def test_a_job_with_a_token_sends_and_neither_store_nor_log_have_more_than_project_and_owner(
    open_aggregator, settings, issuer, update, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    token, stranger = issuer.token(), issuer.token(repository="strange/one", actor="someone-else")
    with open_aggregator(replace(settings, issuers=issuer.issuers(), audience=AUDIENCE)) as house:
        assert post(house, update(1), token).status == 202
        refused = post(house, update(2), stranger)
    assert (refused.status, json.loads(refused.body)["type"]) == (403, "urn:fedstep:problem:not-allowed")
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("a.db*"))
    assert b"ci:7" in kept
    for secret in (*token.split("."), *stranger.split(".")[1:], "acme/web", "a-person", "strange/one", "someone-else"):
        assert secret not in caplog.text
        assert secret.encode() not in kept
    assert "no pattern of this aggregator" in caplog.text


def test_while_the_issuer_is_away_senders_are_told_to_come_back_and_not_that_they_are_unknown(
    open_aggregator, settings, issuer, update, caplog
):
    with open_aggregator(replace(settings, issuers=issuer.issuers(), audience=AUDIENCE)) as house:
        issuer.close()
        away = post(house, update(1), issuer.token())
        assert away.status == 503
        assert int(away.headers["retry-after"]) > 0
        assert post(house, update(1), "no-jwt-but-a-guess").status == 401
    assert "the keys of ci cannot be had" in caplog.text


def test_what_an_identity_says_counts_and_not_the_project_that_an_update_claims(
    open_aggregator, settings, issuer, update
):
    with open_aggregator(
        replace(settings, issuers=issuer.issuers(), audience=AUDIENCE, folding=Folding(updates=9, seconds=3600.0))
    ) as house:
        for number in (1, 2, 3):
            assert post(house, update(number, project=number + 10), issuer.token()).status == 202
        assert post(house, update(4, project=11), issuer.token(repository_id="43")).status == 202
        until(lambda: "fedstep_buffer_updates 4.0" in figures(house))
        assert "fedstep_buffer_projects 2.0" in figures(house)


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
            end = time.monotonic() + 30
            while "aggregator on " not in log.read_text():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def test_a_job_on_github_without_any_secret_pulls_and_sends(tmp_path, issuer):
    env = {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
    }
    ours = shape(schema())
    deltas = {"build-duration": zeros(ours.sizes["build-duration"])}
    made = Update(ours.digest, 0, "1" * 32, "2" * 32, {"build-duration": 8}, deltas)
    with serving(tmp_path, issuer) as url:
        send, patience = ci_send(url, "", env), Patience(timeout=20.0)
        assert isinstance(pull(url, "", send, ours, patience), Fetched)
        assert push(pack_update(made), url, send, patience).version == 0
        with pytest.raises(AggregatorError, match="id-token: write"):
            pull(url, "", ci_send(url, "", {"GITHUB_ACTIONS": "true"}), ours, patience)
    assert sum(path.startswith("/token?") for path in issuer.asked) == 1


# options


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("acme", "acme/web", True),
        ("ACME/Web", "acme/web", True),
        ("acme/w*", "acme/web", True),
        ("acme/w*", "acme/api", False),
        ("acme", "acme-evil/web", False),
        ("acme/web", "acme", False),
        ("group/*", "group/sub/project", True),
        ("*/web", "anyone/web", True),
        ("*", "", True),
        ("acme", "", False),
    ],
)
def test_a_pattern_is_compared_segment_by_segment(glob, path, fits):
    assert Pattern(glob).matches(path) is fits


def test_patterns_by_id_do_not_look_at_names():
    (github,) = issuers_of(["github"], ["github#7/*"])
    named = {"repository_id": 42, "repository_owner_id": 8, "repository": "7/web"}
    assert isinstance(github.sender(named), Denied)
    assert github.sender({**named, "repository_owner_id": 7, "repository": "moved/web"}) == Sender(
        "github:7", "github:7/42"
    )


def test_a_claim_with_a_slash_cannot_look_like_a_project_of_another_owner():
    (ci,) = issuers_of(["ci=https://ci.example,project=job,owner=team"], ["ci#a/*"])
    honest = ci.sender({"team": "a", "job": "b/c"})
    assert isinstance(honest, Sender)
    assert honest.project.count("/") == 1
    assert isinstance(ci.sender({"team": "a/b", "job": "c"}), Denied)


def test_issuers_and_patterns_with_their_defaults():
    github, corp = issuers_of(
        ["github", "corp=https://gitlab.corp.example,like=gitlab"], ["github:acme/*", "github#9/*", "corp:*"]
    )
    assert (github.project, len(github.allowed), corp.owner) == ("repository_id", 2, "namespace_id")
    assert corp.allowed == (Pattern("*"),)


@pytest.mark.parametrize(
    ("given", "allow", "match"),
    [
        (["github"], [], "every project of github"),
        (["github", "gitlab"], ["github:acme"], "every project of gitlab"),
        (["github", "gitlab"], ["acme"], "no issuer"),
        (["github"], ["gitlab:acme"], "no issuer"),
        (["github"], ["a b"], "no pattern"),
        (["github", "github"], ["github:*"], "twice"),
        (["somewhere"], ["*"], "no issuer"),
        (["ci=http://ci.example,like=github"], ["*"], "no issuer"),
        (["ci=https://ci.example"], ["*"], "which claims"),
        (["ci=https://ci.example,like=github,audience=x"], ["*"], "which claims"),
        (["ci=https://ci.example:port,like=github"], ["*"], "no issuer"),
        (["ci=https://user:word@ci.example,like=github"], ["*"], "no issuer"),
    ],
)
def test_options_that_would_let_in_nobody_or_everybody_are_refused(given, allow, match):
    with pytest.raises(UsageError, match=match):
        issuers_of(given, allow)
