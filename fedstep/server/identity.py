"""Identify senders: by bearer token, of the settings or of the store; without tokens, only loopback clients."""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from fedstep.errors import UsageError
from fedstep.server.storage.engine import open_engine, read_only
from fedstep.server.storage.tables import heartbeats, tokens

SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """The owner and the project of a sender; "" where unknown.

    For a static token, such as `acme` and `acme/web`; for a CI's token, `github:ID` and `github:ID/ID`.
    """

    owner: str
    project: str = ""

    def receipt_id(self, update_id: str, project: str) -> str:
        """Return the id of an update in the store: of this sender alone, whoever else posts the same id."""
        if not self.owner:
            return update_id
        return sha256(f"{self.owner} {project} {update_id}".encode()).hexdigest()[:32]

    def pseudonym(self, claimed: str) -> str:
        """Return the name of the project in the store: a hash of its identity, else the pseudonym in its update."""
        return sha256(self.project.encode()).hexdigest()[:32] if self.project else claimed


@dataclass(frozen=True, slots=True)
class AccessDenied:
    """A refused request: the reason and the remedy. `known`: the sender was authenticated and is not authorised."""

    reason: str
    remedy: str
    known: bool = False


Verify = Callable[[str, str], Awaitable[Identity | AccessDenied]]  # takes a token that is not static, and its digest

OPEN = Identity("")


class TokenAuthenticator:
    """Authenticates by the SHA-256 of tokens; accepts everyone as long as there never was a token.

    A fast hash is enough, because tokens are too long to be guessed. The time of the look-up depends on the hash of
    the token only, which an attacker cannot steer towards a known one.
    """

    def __init__(self, fixed: Mapping[str, Identity], is_open: bool, verify: Verify | None = None) -> None:
        self._fixed, self._known, self._verify = fixed, fixed, verify
        self.is_open = is_open

    def learn(self, stored: Mapping[str, Identity]) -> None:
        """Replace the tokens of the store. The first token ends open access for good."""
        self._known = {**stored, **self._fixed}
        self.is_open = self.is_open and not stored

    async def identify(self, authorization: str) -> Identity | AccessDenied:
        """Return the sender of an Authorization header, "" if there was none. Raise what the verifier raises."""
        if self.is_open:
            return OPEN
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return AccessDenied("no token came with the request", "Send it as `Authorization: Bearer TOKEN`.")
        digest = digest_of(token)
        known = self._known.get(digest)
        if known:
            return known
        if self._verify and token.count(".") == 2:
            return await self._verify(token, digest)
        return AccessDenied("the token is not known here", "Use one of its tokens.")


def doorkeeper(
    host: str,
    tokens: Sequence[str],
    stored: Mapping[str, Identity] | None = None,
    verify: Verify | None = None,
    closed: bool = False,
) -> TokenAuthenticator:
    """Return the authenticator for an aggregator on `host`. Raise UsageError if anyone could send, or guess a token.

    `closed`: never accept everyone, because a proxy forwards requests of others, or because there once were tokens.
    """
    short = any(len(token.strip()) < SHORTEST_TOKEN for token in tokens)
    if short:
        raise UsageError(
            f"a token is shorter than {SHORTEST_TOKEN} characters",
            "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    needs_none = is_loopback(host) and not closed
    if not (tokens or stored or verify or needs_none):
        raise UsageError(
            f"without a token anyone who reaches {host} could send updates",
            "Make one with `fedstep server token create`, give one in FEDSTEP_TOKENS, or listen on --host 127.0.0.1.",
        )
    fixed = {digest_of(token.strip()): Identity(f"token:{digest_of(token.strip())[:8]}") for token in tokens}
    keeper = TokenAuthenticator(fixed, not (tokens or verify) and needs_none, verify)
    keeper.learn(stored or {})
    return keeper


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, which is all that is stored of it."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


PREFIX = "fedstep_"  # secret scanners recognise it
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,39}(/[A-Za-z0-9][\w.-]{0,39})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredToken:
    """What is stored of a token: the first digits of its hash, its name, and when it was created and revoked."""

    id: str
    name: str
    created: float
    revoked: float | None


class TokenBook:
    """The tokens of one store. Each call is one transaction; calls from several threads are safe."""

    def __init__(self, url: str) -> None:
        """Raise UsageError if the database cannot be opened."""
        self._engine: Engine = open_engine(url)
        self._reader = read_only(self._engine)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def create(self, name: str, now: float) -> str:
        """Create a token for OWNER or OWNER/PROJECT; it cannot be shown again. Raise UsageError for another name.

        A name can have several tokens, so that a new one is in use before the old one is revoked.
        """
        if not NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is no name for a token", "Give OWNER or OWNER/PROJECT: acme or acme/web.")
        token = PREFIX + secrets.token_urlsafe(32)
        with self._engine.begin() as connection:
            connection.execute(insert(tokens).values(hash=digest_of(token), name=name, created=now))
        return token

    def revoke(self, named: str, now: float) -> int:
        """Revoke all tokens of a name, or the one with this id; return how many. Raise UsageError if there is none."""
        alive = tokens.c.revoked.is_(None)
        with self._engine.begin() as connection:
            count = connection.execute(update(tokens).where(alive, tokens.c.name == named).values(revoked=now)).rowcount
            if not count and re.fullmatch("[0-9a-f]{8}", named):
                has_id = tokens.c.hash.startswith(named)
                count = connection.execute(update(tokens).where(alive, has_id).values(revoked=now)).rowcount
        if not count:
            remedy = "`fedstep server token list` shows names and ids."
            raise UsageError(f"no token in use is named {named[:80]!r}", remedy)
        return count

    def list_tokens(self) -> tuple[StoredToken, ...]:
        """Return all tokens, revoked ones too, ordered by name."""
        with self._reader.begin() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.name, tokens.c.created)).all()
        return tuple(StoredToken(row.hash[:8], row.name, row.created, row.revoked) for row in rows)

    def senders(self) -> Mapping[str, Identity]:
        """Return the identity of each accepted token by its hash."""
        with self._reader.begin() as connection:
            rows = connection.execute(select(tokens.c.hash, tokens.c.name).where(tokens.c.revoked.is_(None))).all()
        return {row.hash: _sender(row.name) for row in rows}

    def beat(self, now: float) -> None:
        """Write a timestamp, to check that the store can be written. Raise what the database raises."""
        with suppress(IntegrityError), self._engine.begin() as connection:  # another replica wrote the first one
            if not connection.execute(update(heartbeats).values(at=now)).rowcount:
                connection.execute(insert(heartbeats).values(name="pulse", at=now))


def _sender(name: str) -> Identity:
    owner, _, project = name.partition("/")
    return Identity(owner, name if project else "")
