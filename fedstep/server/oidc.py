"""Verify OIDC tokens of CI jobs: issuers, their keys, the claims that identify a project, and which are allowed."""

import asyncio
import json
import logging
import re
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from math import inf
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt import exceptions as wrong
from jwt.exceptions import PyJWTError

from fedstep.errors import AggregatorError, UsageError, WireError
from fedstep.federation.transport import requests_transport
from fedstep.federation.trust import split_address
from fedstep.server.identity import AccessDenied, Identity, is_loopback

LONGEST_PATTERN = 200  # characters of a claim that is kept
FORM = "Give github, gitlab, NAME=URL,like=gitlab or NAME=URL,project=CLAIM,owner=CLAIM,path=CLAIM."


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob for projects of one issuer, by the segments of their path or of OWNER-ID/PROJECT-ID."""

    glob: str
    by_id: bool = False
    claims: tuple[tuple[str, str], ...] = ()  # other claims, each with a glob: ("ref", "refs/heads/main")

    def fits(self, claims: Mapping[str, object]) -> bool:
        """Return whether all other claims that the pattern names have a value that matches."""
        return all(fnmatchcase(_text(claims.get(name)), glob) for name, glob in self.claims)

    def matches(self, path: str) -> bool:
        """Return whether the first segments match, ignoring case as the services do.

        >>> [Pattern(glob).matches("Acme/web") for glob in ("acme", "acme/w*", "acm", "*")]
        [True, True, False, True]
        """
        wanted, segments = (_lower(text).split("/") for text in (self.glob, path))
        return len(segments) >= len(wanted) and all(map(fnmatchcase, segments, wanted))


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer by its name in patterns and identities, and the claims that contain project, owner and path."""

    name: str
    url: str
    project: str
    owner: str
    path: str
    allowed: tuple[Pattern, ...] = ()

    def sender(self, claims: Mapping[str, object]) -> Identity | AccessDenied:
        """Return project and owner of verified claims; nothing else is kept."""
        project, owner, path = (_text(claims.get(name)) for name in (self.project, self.owner, self.path))
        if not project or not owner:
            missing = self.owner if project else self.project
            return AccessDenied(
                f"the token of {self.name} has no usable claim {missing}", "Name the claims in --oidc.", True
            )
        owner_id, project_id = _label(owner), _label(project)
        allowed = (pattern for pattern in self.allowed if pattern.fits(claims))
        if not any(pattern.matches(f"{owner_id}/{project_id}" if pattern.by_id else path) for pattern in allowed):
            return AccessDenied(
                f"no pattern of this aggregator lets that project, or that run of it, of {self.name} in",
                "Whoever runs it can add one with --allow.",
                True,
            )
        return Identity(f"{self.name}:{owner_id}", f"{self.name}:{owner_id}/{project_id}")


# The claims as docs.github.com and docs.gitlab.com describe them; ids, because names can be registered again by others.
GITHUB = Issuer(
    "github", "https://token.actions.githubusercontent.com", "repository_id", "repository_owner_id", "repository"
)
GITLAB = Issuer("gitlab", "https://gitlab.com", "project_id", "namespace_id", "project_path")
KNOWN = {issuer.name: issuer for issuer in (GITHUB, GITLAB)}


def issuers_of(given: Sequence[str], allow: Sequence[str]) -> tuple[Issuer, ...]:
    """Return the issuers that the options name, with their patterns. Raise UsageError for unusable ones."""
    issuers = [_issuer(text) for text in given]
    names = [issuer.name for issuer in issuers]
    if len(set(names)) < len(names) or len({issuer.url for issuer in issuers}) < len(issuers):
        raise UsageError("--oidc names the same issuer twice", FORM)
    patterns: dict[str, list[Pattern]] = {name: [] for name in names}
    for text in allow:
        name, pattern = _pattern(text, names)
        patterns[name].append(pattern)
    for name in names:
        if not patterns[name]:
            raise UsageError(
                f"every project of {name} could send updates",
                f"Say which may: --allow '{name}:OWNER/*', or all: '{name}:*'.",
            )
    return tuple(replace(issuer, allowed=tuple(patterns[issuer.name])) for issuer in issuers)


def fetchable(url: str) -> bool:
    """Return whether keys may be fetched from this URL: HTTPS, or loopback."""
    parts = split_address(url)
    if not parts or parts.username or parts.password:
        return False
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _issuer(text: str) -> Issuer:
    if text in KNOWN:
        return KNOWN[text]
    issuer, *settings = text.split(",")
    name, _, url = issuer.partition("=")
    pairs = dict(pair.partition("=")[::2] for pair in settings)
    if not re.fullmatch("[a-z][a-z0-9-]{0,19}", name) or not fetchable(url) or urlsplit(url).query:
        raise UsageError(f"--oidc {text[:80]!r} is no issuer", FORM)
    like = KNOWN.get(pairs.pop("like", ""), Issuer("", "", "", "", ""))
    project, owner = pairs.pop("project", like.project), pairs.pop("owner", like.owner)
    path = pairs.pop("path", like.path or project)
    if not project or not owner or pairs:
        raise UsageError(f"--oidc {text[:80]!r} does not say which claims are project and owner", FORM)
    return Issuer(name, url, project, owner, path)


def _pattern(text: str, names: Sequence[str]) -> tuple[str, Pattern]:
    projects, *conditions = text.split(",")
    claims = tuple((claim, glob) for claim, _, glob in (each.partition("=") for each in conditions))
    parts = re.fullmatch(r"(?:([a-z][a-z0-9-]*)([:#]))?([^\s:#]+)", projects)
    if not parts or not all(re.fullmatch("[a-z_]+", claim) and glob for claim, glob in claims):
        raise UsageError(
            f"--allow {text[:80]!r} is no pattern",
            "Give one like github:acme/*, github#1234/* or github:acme/*,ref=refs/heads/main.",
        )
    name = parts[1] or (names[0] if len(names) == 1 else "")
    if name not in names:
        raise UsageError(
            f"--allow {text[:80]!r} is of no issuer that --oidc names", "Put its name before it: github:acme/*."
        )
    return name, Pattern(parts[3], by_id=parts[2] == "#", claims=claims)


def _text(claim: object) -> str:
    """Return a claim that can be an identity, else ""."""
    text = str(claim) if isinstance(claim, str | int) and not isinstance(claim, bool) else ""
    return text if len(text) <= LONGEST_PATTERN and text.isprintable() else ""


def _lower(text: str) -> str:
    """Return the text with ASCII letters in lower case: `lower` makes a plain k of the Kelvin sign, too."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _label(text: str) -> str:
    """Return an id as it is or hashed, so that it has no slash and cannot look like another owner's project."""
    return text if re.fullmatch(r"[\w.-]{1,40}", text, re.ASCII) else sha256(text.encode()).hexdigest()[:32]


ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}  # pinned: by the kind of key, whatever a token or a key set says
FRESH = 3600.0  # seconds that keys are used without a refresh
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
    """The keys are unavailable, so a token cannot be verified; try again after `seconds`."""

    def __init__(self, issuer: str, seconds: float) -> None:
        super().__init__(issuer)
        self.issuer, self.seconds = issuer, max(1, round(seconds))


def fetch_keys(url: str) -> bytes:
    """Return the document at a URL, limited in size and time; redirects are not followed.

    Raise AggregatorError or WireError.
    """
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    send = requests_transport(f"{parts.scheme}://{parts.netloc}")
    answer = send("GET", path, {"Accept": "application/json", "Accept-Encoding": "identity"}, b"", TIMEOUT)
    if answer.status != 200 or len(answer.body) > LARGEST:
        raise WireError(f"{parts.hostname} answered {answer.status} with {len(answer.body)} bytes")
    return answer.body


class IssuerKeys:
    """The keys of one issuer by `kid` and algorithm, cached.

    There is one fetch at a time, and at most one per minute.
    """

    def __init__(
        self, name: str, url: str, fetch: Fetch = fetch_keys, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._url, self._fetch, self._clock = name, url, fetch, clock
        self._keys: Mapping[tuple[str, str], PyJWK] = {}
        self._fetched, self._next, self._failed = -inf, -inf, False
        self._looking = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    async def key(self, kid: str, algorithm: str = ALGORITHMS["RSA"]) -> PyJWK | None:
        """Return the key with this `kid`, None if there is none. Raise IssuerUnreachable while that is unknown."""
        name = kid, algorithm
        if self._clock() - self._fetched > USABLE:
            self._keys = {}
        if name in self._keys:
            if self._clock() - self._fetched > FRESH and self._clock() >= self._next and not self._looking.locked():
                self._background = asyncio.create_task(self._look())  # requests do not wait: the cached key is valid
            return self._keys[name]
        await self._look()
        if name not in self._keys and self._failed:
            raise IssuerUnreachable(self._name, self._next - self._clock())
        return self._keys.get(name)

    async def _look(self) -> None:
        async with self._looking:
            if self._clock() < self._next:
                return
            try:
                self._keys = await asyncio.to_thread(self._read)
                self._fetched, self._failed = self._clock(), False
            except (AggregatorError, WireError) as error:
                self._failed = True
                log.warning("the keys of %s are unavailable: %s", self._name, error.args[0])
            self._next = self._clock() + (AFTER_FAILURE if self._failed else BETWEEN)

    def _read(self) -> Mapping[tuple[str, str], PyJWK]:
        """Fetch the discovery document, then the keys (OpenID Connect Discovery 1.0, section 4)."""
        about = _object(self._fetch(f"{self._url.rstrip('/')}/.well-known/openid-configuration"))
        keys_url = about.get("jwks_uri")
        if about.get("issuer") != self._url:
            raise WireError("its discovery document is another issuer's")
        if not isinstance(keys_url, str) or not fetchable(keys_url):
            raise WireError("its discovery document names no place for keys that is HTTPS")
        return read_keys(self._fetch(keys_url))


def read_keys(document: bytes) -> Mapping[tuple[str, str], PyJWK]:
    """Return the keys of a JWK set (RFC 7517) by `kid` and algorithm, RS256 or ES256. Raise WireError if it is none.

    Keys of two kinds may have one `kid` (section 4.5).
    """
    given = _object(document).get("keys")
    if not isinstance(given, list) or len(given) > MOST_KEYS:
        raise WireError("its keys are no JWK set, or too many")
    keys = ((jwk["kid"], key) for jwk in given if isinstance(jwk, dict) and (key := _key(jwk)))
    return {(kid, key.algorithm_name): key for kid, key in keys}


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
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise WireError("its document is no JSON") from error
    if not isinstance(parsed, dict):
        raise WireError("its document is no JSON object")
    return parsed


LEEWAY = 30  # seconds that clocks may differ
LONGEST = 1 << 14  # characters of a token; GitHub's and GitLab's have about 2,000
MOST_REMEMBERED = 10_000  # verified tokens in the cache, by digest
LONGEST_REMEMBERED = 3600.0  # seconds: then the issuer must still have its key
ASK_AGAIN = "Ask the CI for a new one just before it is sent."
MALFORMED = AccessDenied("the token is malformed", "Send it as the CI gave it.")
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
    """Verifies tokens of some issuers for one audience, and remembers valid ones until they expire."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        audience: str,
        fetch: Fetch = fetch_keys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = {issuer.url: (issuer, IssuerKeys(issuer.name, issuer.url, fetch)) for issuer in issuers}
        self._audience, self._clock = audience.rstrip("/"), clock
        self._known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()

    async def __call__(self, token: str, digest: str) -> Identity | AccessDenied:
        """Return the sender of a token. Raise IssuerUnreachable while that is unknown."""
        expires, sender = self._known.get(digest, (0.0, None))
        if sender and self._clock() < expires:
            return sender
        try:
            return await self._verify(token, digest)
        except (wrong.PyJWTError, ValueError, RecursionError, OverflowError) as error:
            return self._why_not(error)

    async def _verify(self, token: str, digest: str) -> Identity | AccessDenied:
        if len(token) > LONGEST:
            return AccessDenied(f"the token has more than {LONGEST} characters", "Send it as the CI gave it.")
        # Unverified, and used only to choose the issuer and the key. Not parsed by PyJWT, which takes 0.1 ms.
        header, payload = (_decode_unverified(part) for part in token.split(".")[:2])
        kid, algorithm, claimed = header.get("kid"), header.get("alg"), payload.get("iss")
        if algorithm not in ALGORITHMS.values() or not isinstance(kid, str):
            return AccessDenied(
                "the token is not signed with RS256 or ES256 by a named key", "Use a token that the CI issued."
            )
        issuer, keys = self._issuers.get(claimed, (None, None)) if isinstance(claimed, str) else (None, None)
        if not issuer or not keys:
            return AccessDenied(
                "the issuer of the token is not known here", "Whoever runs the aggregator can add it with --oidc."
            )
        key = await keys.key(kid, str(algorithm))
        if key is None:
            return AccessDenied("the key of the token is not one of its issuer's", ASK_AGAIN)
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=(self._audience, f"{self._audience}/"),
            issuer=issuer.url,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        return self._remember(digest, claims, issuer.sender(claims))

    def _remember(
        self, digest: str, claims: dict[str, Any], sender: Identity | AccessDenied
    ) -> Identity | AccessDenied:
        if isinstance(sender, Identity):
            self._known[digest] = (min(float(claims["exp"]), self._clock() + LONGEST_REMEMBERED), sender)
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return sender

    def _why_not(self, error: Exception) -> AccessDenied:
        """Return why a token is invalid, without the text of the libraries, which may quote the token."""
        for kind, reason, remedy in REASONS:
            if isinstance(error, kind):
                return AccessDenied(reason, remedy.format(self._audience))
        return MALFORMED


def _decode_unverified(part: str) -> dict[str, Any]:
    """Return the JSON object in the first or second part of a JWT. Raise ValueError."""
    parsed = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(parsed, dict):
        raise ValueError("no object")
    return parsed
