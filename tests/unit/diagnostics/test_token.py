"""A token in words: what a JWT tells is listed, its signature and a static secret are in nothing that is shown."""

import json
import socket
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.diagnostics.aggregator import CHECKED, IGNORED, KEPT, claims_of, expiry, find_token, seen_token
from fedstep.report.inspection import Inspection, inspection_text
from fedstep.report.json import inspection_json
from fedstep.server.identity import Identity
from fedstep.server.oidc import GITHUB, GITLAB, Issuer, Pattern
from fedstep.types import Unavailable

WHERE, WITH = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
SIGNATURE = "c2lnbmF0dXJlLXRoYXQtbmV2ZXItc2hvd3M"
SECRET = "kQ9vT2xL7mZ4pR8sW1yB6nD3"


def jwt(header: object = None, claims: object = None) -> str:
    parts = (header or {"alg": "RS256", "kid": "7"}, {} if claims is None else claims)
    return ".".join((*(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), SIGNATURE))


@contextmanager
def listening(behave: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """The URL of a loopback server that answers one connection."""
    door = socket.create_server(("127.0.0.1", 0))
    door.settimeout(20)

    def serve() -> None:
        with suppress(OSError):
            connection, _ = door.accept()
            with connection:
                behave(connection, connection.recv(1 << 16))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        door.close()
        thread.join(20)


def shown(token: str) -> str:
    inspection = Inspection(Unavailable("nothing"), seen_token(token))
    return inspection_text(inspection) + inspection_json(inspection)


class TestClaims:
    def test_the_claims_of_a_github_token_say_what_they_tell(self) -> None:
        claims = {"sub": "repo:o/r:ref:refs/heads/x", "ref": "refs/heads/x", "sha": "e" * 40, "actor": "octocat"}
        claims |= {"aud": "https://fedstep.example.org", "iss": "https://token.actions.githubusercontent.com"}
        told = {one.name: one.identifies for one in seen_token(jwt(claims=claims)).fields}
        assert told["actor"] == "a person"
        assert told["ref"] == told["sha"] == "the commit or branch"
        assert told["sub"] == "the project"
        assert told["aud"] == told["iss"] == told["header.alg"] == ""
        assert "tell where an update is from: sub, ref, sha, actor." in " ".join(shown(jwt(claims=claims)).split())

    def test_a_claim_that_is_not_known_is_not_called_harmless(self) -> None:
        (*_, field) = seen_token(jwt(claims={"costcentre": "4711"})).fields
        assert field.identifies == "what fedstep does not know"

    @pytest.mark.parametrize("issuer", [GITHUB, GITLAB], ids=lambda issuer: issuer.name)
    def test_what_an_aggregator_keeps_of_a_token_is_marked_as_kept(self, issuer: Issuer) -> None:
        kept, held_against_patterns = {issuer.project, issuer.owner}, issuer.path
        claims = dict.fromkeys((*kept, held_against_patterns, "ref", "sha", "actor", "user_email", "jti"), "1")
        sender = replace(issuer, allowed=(Pattern("*"),)).sender(claims)
        assert isinstance(sender, Identity)
        fates = {one.name: one.fate for one in seen_token(jwt(claims={**claims, "iss": issuer.url, "exp": 1})).fields}
        assert {name for name, fate in fates.items() if fate == KEPT} == kept
        assert {fates[name] for name in (held_against_patterns, "iss", "exp", "header.alg", "header.kid")} == {CHECKED}
        assert {fates[name] for name in ("ref", "sha", "actor", "user_email", "jti")} == {IGNORED}

    def test_the_claims_of_another_issuer_are_not_called_ignored(self) -> None:
        assert {one.fate for one in seen_token(jwt(claims={"sub": "x", "actor": "y"})).fields} == {""}
        assert "--oidc" in shown(jwt(claims={"sub": "x"}))

    def test_the_token_that_github_would_give_is_asked_for_and_shown(self) -> None:
        claims = {"repository_id": "1", "repository_owner_id": "2", "repository": "o/r", "ref": "refs/heads/x"}
        asked: list[str] = []

        def answer(connection: socket.socket, request: bytes) -> None:
            asked.append(request.split(b" ")[1].decode())
            body = json.dumps({"value": jwt(claims=claims)}).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        with listening(answer) as url:
            env = {"GITHUB_ACTIONS": "true", WHERE: f"{url}/token?v=2", WITH: "request-token"}
            seen = find_token("", "https://fedstep.example.org/", env)
        assert asked == ["/token?v=2&audience=https%3A%2F%2Ffedstep.example.org"]
        assert [one.name for one in seen.fields if one.fate == KEPT] == ["repository_id", "repository_owner_id"]
        assert "when the aggregator answers 401" in seen.note
        assert "request-token" not in inspection_text(Inspection(Unavailable("nothing"), seen))

    def test_without_an_aggregator_github_is_not_asked(self) -> None:
        """Without an aggregator, GitHub is not asked, and that is said."""
        env = {"GITHUB_ACTIONS": "true", WHERE: "http://127.0.0.1:1/", WITH: "request-token"}
        seen = find_token("", "", env)
        assert (seen.kind, "--aggregator" in seen.note) == ("none", True)
        assert find_token("", "https://fedstep.example.org", {}).note == ""
        assert find_token(SECRET, "https://fedstep.example.org", env).kind == "static"

    def test_where_github_gives_no_token_the_reason_is_shown(self) -> None:
        env = {"GITHUB_ACTIONS": "true", WHERE: "http://127.0.0.1:1/", WITH: "request-token"}
        seen = find_token("", "https://fedstep.example.org", env)
        assert seen.kind == "none"
        assert "gives this job no token" in inspection_text(Inspection(Unavailable("nothing"), seen))


class TestSecrets:
    @pytest.mark.parametrize("token", [jwt(), jwt(claims={"jti": "1"}), jwt({"alg": "none"}, {"a": [1, {"b": None}]})])
    def test_a_signature_is_never_shown(self, token: str) -> None:
        assert seen_token(token).kind == "jwt"
        assert SIGNATURE not in shown(token)
        assert token not in shown(token)

    def test_a_static_token_is_shown_by_its_first_characters(self) -> None:
        seen = seen_token(f" {SECRET}\n")
        assert (seen.kind, seen.size, seen.shown) == ("static", 24, "kQ9v…")
        assert SECRET[:5] not in shown(SECRET)
        assert "kQ9v" in shown(SECRET)

    def test_of_a_short_secret_nothing_is_shown(self) -> None:
        assert seen_token("hunter2").shown == "…"
        assert "hunt" not in shown("hunter2")

    def test_no_token_is_said_so(self) -> None:
        assert seen_token("  ").kind == "none"
        assert "names no sender" in shown("")

    @pytest.mark.parametrize(
        "token",
        ["a.b.c", "..", f"{SECRET}.x.y", jwt(["alg"]), jwt({"typ": "JWT"}), jwt(claims=[1]), jwt() + ".more", "é.é.é"],
    )
    def test_what_only_looks_like_a_jwt_is_static(self, token: str) -> None:
        assert seen_token(token).kind == "static"
        assert claims_of(token) == {}

    def test_the_expiry_is_a_number_or_none(self) -> None:
        assert expiry(jwt(claims={"exp": 1_790_000_000})) == 1_790_000_000.0
        for wrong in ("soon", None, True, [1]):
            assert expiry(jwt(claims={"exp": wrong})) is None
        assert expiry(SECRET) is None

    @given(st.text())
    def test_any_text_is_some_kind_of_token_and_not_shown_whole(self, token: str) -> None:
        seen = seen_token(token)
        assert seen.kind in ("none", "static", "jwt")
        assert len(seen.shown) <= 5

    @pytest.mark.parametrize("time", ["x", 1e400, -1e18, {"a": 1}])
    def test_a_time_that_is_none_is_shown_as_it_is(self, time: object) -> None:
        assert seen_token(jwt(claims={"exp": time})).fields[-1].meaning.startswith("expires")
