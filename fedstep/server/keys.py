"""The public keys of an issuer: found by its discovery document, cached, fetched again when they turn."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from fedstep.errors import AggregatorError, WireError
from fedstep.federation.transport import requests_send
from fedstep.server.issuers import fetchable

__all__ = ["ALGORITHMS", "Fetch", "IssuerUnreachable", "Keys", "fetched", "read_keys"]

ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}  # pinned: by the kind of key, whatever a token or a key set says
FRESH = 3600.0  # seconds that keys are used without a look
USABLE = 86_400.0  # seconds that keys are used while their issuer cannot be reached
BETWEEN = 60.0  # seconds between looks, however many unknown keys tokens name
AFTER_FAILURE = 10.0
TIMEOUT = 5.0  # seconds for each of the two documents
LARGEST = 1 << 18  # bytes of either
MOST_KEYS = 100
SHORTEST_RSA = 2048  # bits
log = logging.getLogger("fedstep.server")

Fetch = Callable[[str], bytes]


class IssuerUnreachable(Exception):
    """The keys cannot be had now, so nothing can be said about a token; worth another try after so many seconds."""

    def __init__(self, issuer: str, seconds: float) -> None:
        super().__init__(issuer)
        self.issuer, self.seconds = issuer, max(1, round(seconds))


def fetched(url: str) -> bytes:
    """The document at a URL, bounded in size and time, redirects not followed. Raises AggregatorError, WireError."""
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    send = requests_send(f"{parts.scheme}://{parts.netloc}")
    answer = send("GET", path, {"Accept": "application/json", "Accept-Encoding": "identity"}, b"", TIMEOUT)
    if answer.status != 200 or len(answer.body) > LARGEST:
        raise WireError(f"{parts.hostname} answered {answer.status} with {len(answer.body)} bytes")
    return answer.body


class Keys:
    """The keys of one issuer by their names. One look at a time, however many ask."""

    def __init__(
        self, name: str, url: str, fetch: Fetch = fetched, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._url, self._fetch, self._clock = name, url, fetch, clock
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched, self._next, self._failed = -inf, -inf, False
        self._looking = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> PyJWK | None:
        """The key of this name; None where its issuer has none. Raises IssuerUnreachable while that cannot be known."""
        if self._clock() - self._fetched > USABLE:
            self._keys = {}
        if kid in self._keys:
            if self._clock() - self._fetched > FRESH and self._clock() >= self._next and not self._looking.locked():
                self._background = asyncio.create_task(self._look())  # nobody waits for what is still good
            return self._keys[kid]
        await self._look()
        if kid not in self._keys and self._failed:
            raise IssuerUnreachable(self._name, self._next - self._clock())
        return self._keys.get(kid)

    async def _look(self) -> None:
        async with self._looking:
            if self._clock() < self._next:
                return
            try:
                self._keys = await asyncio.to_thread(self._read)
                self._fetched, self._failed = self._clock(), False
            except (AggregatorError, WireError) as error:
                self._failed = True
                log.warning("the keys of %s cannot be had: %s", self._name, error.args[0])
            self._next = self._clock() + (AFTER_FAILURE if self._failed else BETWEEN)

    def _read(self) -> Mapping[str, PyJWK]:
        """Both documents, one after the other (OpenID Connect Discovery 1.0, section 4)."""
        about = _object(self._fetch(f"{self._url.rstrip('/')}/.well-known/openid-configuration"))
        place = about.get("jwks_uri")
        if about.get("issuer") != self._url:
            raise WireError("its discovery document is another issuer's")
        if not isinstance(place, str) or not fetchable(place):
            raise WireError("its discovery document names no place for keys that is HTTPS")
        return read_keys(self._fetch(place))


def read_keys(document: bytes) -> Mapping[str, PyJWK]:
    """The keys of a JWK set (RFC 7517) that can verify the two kinds of signature. Raises WireError for no set."""
    given = _object(document).get("keys")
    if not isinstance(given, list) or len(given) > MOST_KEYS:
        raise WireError("its keys are no JWK set, or too many")
    return {jwk["kid"]: key for jwk in given if isinstance(jwk, dict) and (key := _key(jwk))}


def _key(jwk: dict[str, Any]) -> PyJWK | None:
    kid, algorithm = jwk.get("kid"), ALGORITHMS.get(str(jwk.get("kty")))
    if not isinstance(kid, str) or not algorithm:
        return None
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm or jwk.get("crv", "P-256") != "P-256":
        return None
    try:
        key = PyJWK({name: value for name, value in jwk.items() if name != "d"}, algorithm)
    except (PyJWTError, ValueError, TypeError):
        return None
    weak = isinstance(key.key, RSAPublicKey) and key.key.key_size < SHORTEST_RSA
    return None if weak else key


def _object(document: bytes) -> dict[str, Any]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise WireError("its document is no JSON") from error
    if not isinstance(found, dict):
        raise WireError("its document is no JSON object")
    return found
