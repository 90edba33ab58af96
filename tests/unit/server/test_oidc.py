"""Tokens of a CI and the keys of their issuer: whom they let in, and for how long."""

import asyncio
import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedstep.errors import WireError
from fedstep.server.identity import AccessDenied, Identity, digest_of
from fedstep.server.oidc import BETWEEN, IssuerKeys, IssuerUnreachable, Verifier, fetch_keys, issuers_of, read_keys
from tests.helpers.narrow import present
from tests.helpers.server_oidc import AUDIENCE, EC, RSA, Issuer, public


@pytest.fixture
def verify(issuer):
    verifier = Verifier(issuer.issuers(), AUDIENCE)
    return lambda token: asyncio.run(verifier(token, digest_of(token)))


def why(found: Identity | AccessDenied) -> str:
    assert isinstance(found, AccessDenied)
    assert found.remedy
    return found.reason


class TestIdentity:
    def test_verified_token_yields_project_and_owner_alone(self, issuer, verify):
        """Project and owner are all that is taken from a verified token."""
        assert verify(issuer.token()) == Identity("ci:7", "ci:7/42")
        assert verify(issuer.token(EC, "curve", "ES256", repository_id="43")) == Identity("ci:7", "ci:7/43")
        assert verify(issuer.token(aud=[AUDIENCE + "/", "others"])) == Identity("ci:7", "ci:7/42")

    def test_projects_of_one_owner_have_pseudonyms_no_claim_changes(self, issuer, verify):
        """Two projects of one owner have two pseudonyms, and a claim changes neither."""
        first, second = verify(issuer.token()), verify(issuer.token(repository_id="43"))
        assert first.pseudonym("0" * 32) == first.pseudonym("1" * 32) != second.pseudonym("0" * 32)
        assert len(first.pseudonym("0" * 32)) == 32


class TestTokens:
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
    def test_a_token_that_is_not_for_here_and_now_and_them_is_denied(self, issuer, verify, changes, reason):
        assert reason in why(verify(issuer.token(**changes)))

    def test_a_little_difference_of_the_clocks_is_forgiven(self, issuer, verify):
        now = int(time.time())
        assert isinstance(verify(issuer.token(exp=now - 10)), Identity)
        assert isinstance(verify(issuer.token(nbf=now + 10, iat=now + 10)), Identity)
        assert "expired" in why(verify(issuer.token(exp=now - 60)))

    def test_only_two_algorithms_are_accepted_whatever_the_key(self, issuer, verify):
        """Algorithms other than the two are denied, whatever key they are signed with."""
        shown = issuer.keys[0]["n"]
        for key, algorithm in (
            ("", "none"),
            ("s" * 32, "HS256"),
            (shown, "HS512"),
            (RSA[0], "RS512"),
            (RSA[0], "PS256"),
        ):
            token = jwt.encode({"iss": issuer.url, "aud": AUDIENCE}, key, algorithm, {"kid": "one"})
            assert "RS256 or ES256" in why(verify(token))
        assert issuer.asked == []

    def test_a_public_key_is_no_secret_to_sign_with(self, issuer, verify):
        """HS256 over the published RSA key is denied, with a header that says RS256 and one that says HS256."""
        task = {"alg": "RS256", "kid": "one", "typ": "JWT"}
        body = issuer.token().split(".")[1]
        forged = jwt.encode({}, "x" * 32, "HS256").split(".")[2]
        text = base64.urlsafe_b64encode(json.dumps(task).encode()).decode().rstrip("=")
        assert "signature" in why(verify(f"{text}.{body}.{forged}"))

    def test_a_key_of_the_wrong_kind_or_of_another_is_denied(self, issuer, verify):
        assert "signature" in why(verify(issuer.token(RSA[1])))
        assert isinstance(verify(issuer.token(EC, "one", "ES256")), AccessDenied)
        assert isinstance(verify(issuer.token(RSA[0], "curve", "RS256")), AccessDenied)

    def test_a_token_that_was_changed_is_denied(self, issuer, verify):
        task, body, signature = issuer.token().split(".")
        other = issuer.token(repository_id="43").split(".")[1]
        assert "signature" in why(verify(f"{task}.{other}.{signature}"))
        assert isinstance(verify(f"{task}.{body}."), AccessDenied)

    def test_a_huge_token_is_denied_before_anything_is_read(self, issuer, verify):
        assert "more than" in why(verify(issuer.token(actor="x" * 20_000)))
        assert issuer.asked == []

    @pytest.mark.parametrize("payload", ["[" * 9_000, "{}", "[]", "1", '{"iss":{}}', '{"iss":null}', "\x00"])
    def test_payloads_that_are_no_claims_are_denied(self, verify, payload):
        task = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"one"}').decode().rstrip("=")
        text = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
        assert isinstance(verify(f"{task}.{text}.AAAA"), AccessDenied)

    @hypothesis_settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=60), min_size=3, max_size=3), st.booleans())
    def test_any_bytes_for_a_token_are_denied_and_raise_nothing(self, parts, encoded):
        verifier = Verifier(issuers_of(["github"], ["*"]), AUDIENCE, fetch=lambda _: b"{}")
        texts = [base64.urlsafe_b64encode(part).decode() if encoded else part.decode("latin-1") for part in parts]
        assert isinstance(asyncio.run(verifier(".".join(texts), "digest")), AccessDenied)

    def test_a_known_token_is_not_verified_again_until_it_expires(self, issuer):
        now = [time.time()]
        verifier = Verifier(issuer.issuers(), AUDIENCE, clock=lambda: now[0])
        token = issuer.token()

        async def asks() -> list[Identity | AccessDenied]:
            first = await verifier(token, digest_of(token))
            issuer.keys = []
            again = await verifier("not even looked at", digest_of(token))
            now[0] += 301
            return [first, again, await verifier("not.a.token", digest_of(token))]

        first, again, later = asyncio.run(asks())
        assert first == again == Identity("ci:7", "ci:7/42")
        assert isinstance(later, AccessDenied)

    def test_a_token_that_lives_long_is_verified_again_after_an_hour(self, issuer):
        now = [time.time()]
        verifier = Verifier(issuer.issuers(), AUDIENCE, clock=lambda: now[0])
        token = issuer.token(exp=9_000_000_000)

        async def asks() -> list[Identity | AccessDenied]:
            found = [await verifier(token, "digest")]
            now[0] += 3500
            found.append(await verifier("no.to.ken", "digest"))
            now[0] += 200
            return [*found, await verifier("no.to.ken", "digest")]

        first, known, verified = asyncio.run(asks())
        assert first == known == Identity("ci:7", "ci:7/42")
        assert isinstance(verified, AccessDenied)


class TestKeys:
    def test_rotated_keys_are_found_and_withdrawn_keys_dropped(self, issuer):
        """Rotated keys are found, and a key that was withdrawn is not used again."""
        now = [0.0]
        keys = IssuerKeys("ci", issuer.url, clock=lambda: now[0])

        async def turn() -> list[bool]:
            found = [await keys.key("one") is not None]
            issuer.keys = [public("two", RSA[1])]
            now[0] += BETWEEN
            found += [await keys.key("two") is not None, await keys.key("one") is not None]
            return found

        assert asyncio.run(turn()) == [True, True, False]

    @pytest.mark.parametrize("last", [0, 1])
    def test_keys_of_two_kinds_may_have_one_name(self, issuer: Issuer, last: int):
        """RFC 7517, 4.5: the last one of the set was taken, and tokens that the other one signed were denied."""
        pair = [public("one", RSA[0]), public("one", EC)]
        issuer.keys = [pair[1 - last], pair[last]]
        verify = Verifier(issuer.issuers(), AUDIENCE)

        async def both() -> list[bool]:
            tokens = issuer.token(), issuer.token(EC, algorithm="ES256")
            senders = [await verify(token, token) for token in tokens]
            return [isinstance(sender, Identity) for sender in senders]

        assert asyncio.run(both()) == [True, True]

    def test_issuer_is_asked_once_a_minute_for_unknown_keys(self, issuer: Issuer):
        """However many unknown keys are named, the issuer is asked once a minute."""
        now = [0.0]
        keys = IssuerKeys("ci", issuer.url, clock=lambda: now[0])

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

    def test_old_keys_are_refreshed_while_they_are_used(self, issuer):
        """Old keys are fetched again while they are used."""
        now = [0.0]
        keys = IssuerKeys("ci", issuer.url, clock=lambda: now[0])

        async def hour() -> None:
            await keys.key("one")
            now[0] += 3601
            assert await keys.key("one") is not None
            await present(keys._background)

        asyncio.run(hour())
        assert issuer.asked.count("/keys") == 2

    def test_known_keys_outlive_an_absent_issuer_for_a_day(self, issuer):
        """Known keys outlive an issuer that is unavailable for a day, and no longer."""
        now = [0.0]
        keys = IssuerKeys("ci", issuer.url, clock=lambda: now[0])

        async def away() -> None:
            await keys.key("one")
            issuer.answer = b"<html>maintenance</html>"
            now[0] += 86_000
            assert await keys.key("one") is not None
            await present(keys._background)
            with pytest.raises(IssuerUnreachable):
                await keys.key("two")
            now[0] += 1000
            with pytest.raises(IssuerUnreachable):
                await keys.key("one")

        asyncio.run(away())

    @pytest.mark.parametrize(
        "wrong", [b"", b"[]", b"[" * 100_000, b'{"keys": 1}', b"x" * 300_000, b"y" * 2_000_000, b'{"issuer": "other"}']
    )
    def test_invalid_documents_count_as_an_absent_issuer(self, issuer, wrong):
        """Documents that cannot be read are treated as if the issuer were unavailable."""
        issuer.answer = wrong
        with pytest.raises(IssuerUnreachable) as error:
            asyncio.run(IssuerKeys("ci", issuer.url).key("one"))
        assert 1 <= error.value.seconds <= 60

    def test_discovery_document_must_name_its_issuer_and_https_keys(self, issuer):
        """A discovery document cannot speak for another issuer or send for keys over plain HTTP."""
        issuer.named = "https://token.actions.githubusercontent.com"
        with pytest.raises(IssuerUnreachable):
            asyncio.run(IssuerKeys("ci", issuer.url).key("one"))
        about = {"issuer": "https://ci.example", "jwks_uri": "http://ci.example/keys"}
        with pytest.raises(IssuerUnreachable):
            asyncio.run(IssuerKeys("ci", "https://ci.example", fetch=lambda _: json.dumps(about).encode()).key("one"))

    def test_only_keys_for_the_two_algorithms_are_used(self):
        """Of a key set, only the keys that can sign for the two algorithms are used."""
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
        assert list(found) == [("one", "RS256")]
        with pytest.raises(WireError):
            read_keys(json.dumps({"keys": [one] * 101}).encode())

    def test_redirects_are_not_followed_and_a_closed_port_is_absent(self):
        """Redirects are not followed, and a closed port counts as an unavailable issuer."""
        lone = Issuer()
        lone.close()
        with pytest.raises(Exception, match="cannot be reached"):
            fetch_keys(f"{lone.url}/keys")
