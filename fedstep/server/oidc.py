"""Tokens that a CI gives its jobs: a JWT is verified, project and owner are kept, the rest is forgotten.

OpenID Connect Core 1.0, section 3.1.3.7; RFC 7519; RFC 8725 for what goes wrong with them.
"""

import json
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jwt
from jwt import exceptions as wrong

from fedstep.server.identity import Denied, Sender
from fedstep.server.issuers import Issuer
from fedstep.server.keys import ALGORITHMS, Fetch, Keys, fetched

__all__ = ["Verifier"]

LEEWAY = 30  # seconds that clocks may differ
LONGEST = 1 << 14  # characters of a token; GitHub's and GitLab's have about 2,000
MOST_REMEMBERED = 10_000  # verified tokens, by digest
LONGEST_REMEMBERED = 3600.0  # seconds: then its key has to be there still
ASK_AGAIN = "Ask the CI for a new one just before it is sent."
MALFORMED = Denied("the token is malformed", "Send it as the CI gave it.")
REASONS: tuple[tuple[type[Exception], str, str], ...] = (
    (wrong.ExpiredSignatureError, "the token has expired", ASK_AGAIN),
    (
        wrong.ImmatureSignatureError,
        "the token is not valid yet",
        "Set the clock of whoever issued it, or of this machine.",
    ),
    (wrong.InvalidAudienceError, "the token is meant for another audience", "Ask the CI for one with the audience {}."),
    (wrong.InvalidSignatureError, "the signature of the token does not fit", ASK_AGAIN),
    (wrong.MissingRequiredClaimError, "the token lacks one of exp, iat, iss, aud", "Use a token that the CI issued."),
)


class Verifier:
    """Verifies the tokens of some issuers, for one audience. Whom it knew it knows again until the token expires."""

    def __init__(
        self, issuers: Sequence[Issuer], audience: str, fetch: Fetch = fetched, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuers = {issuer.url: (issuer, Keys(issuer.name, issuer.url, fetch)) for issuer in issuers}
        self._audience, self._clock = audience.rstrip("/"), clock
        self._known: OrderedDict[str, tuple[float, Sender]] = OrderedDict()

    async def __call__(self, token: str, digest: str) -> Sender | Denied:
        """Whose token it is. Raises IssuerUnreachable while that cannot be known."""
        expires, sender = self._known.get(digest, (0.0, None))
        if sender and self._clock() < expires:
            return sender
        try:
            return await self._verified(token, digest)
        except (wrong.PyJWTError, ValueError, RecursionError, OverflowError) as error:
            return self._why_not(error)

    async def _verified(self, token: str, digest: str) -> Sender | Denied:
        if len(token) > LONGEST:
            return Denied(f"the token has more than {LONGEST} characters", "Send it as the CI gave it.")
        # Read before they are verified for one thing alone: which key of which issuer verifies them. Not by PyJWT,
        # which needs 0.1 ms each time it takes a token apart.
        header, told = (_unverified(part) for part in token.split(".")[:2])
        kid, algorithm, claimed = header.get("kid"), header.get("alg"), told.get("iss")
        if algorithm not in ALGORITHMS.values() or not isinstance(kid, str):
            return Denied(
                "the token is not signed with RS256 or ES256 by a named key", "Use a token that the CI issued."
            )
        issuer, keys = self._issuers.get(claimed, (None, None)) if isinstance(claimed, str) else (None, None)
        if not issuer or not keys:
            return Denied(
                "the issuer of the token is not known here", "Whoever runs the aggregator can add it with --oidc."
            )
        key = await keys.key(kid)
        if key is None:
            return Denied("the key of the token is not one of its issuer's", ASK_AGAIN)
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=(self._audience, f"{self._audience}/"),
            issuer=issuer.url,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        return self._remembered(digest, claims, issuer.sender(claims))

    def _remembered(self, digest: str, claims: dict[str, Any], sender: Sender | Denied) -> Sender | Denied:
        if isinstance(sender, Sender):
            self._known[digest] = (min(float(claims["exp"]), self._clock() + LONGEST_REMEMBERED), sender)
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return sender

    def _why_not(self, error: Exception) -> Denied:
        """In words of our own: those of the libraries may quote the token."""
        for kind, reason, remedy in REASONS:
            if isinstance(error, kind):
                return Denied(reason, remedy.format(self._audience))
        return MALFORMED


def _unverified(part: str) -> dict[str, Any]:
    """The JSON object in the first or second part of a JWT. Raises ValueError."""
    found = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
