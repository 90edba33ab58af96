"""Who may send updates: whoever has a token; without tokens, anyone on this machine, and nobody else gets there."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address

from fedstep.errors import UsageError

__all__ = ["Denied", "Doorkeeper", "Sender", "doorkeeper", "is_loopback"]

SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent an update, as far as the aggregator knows: "open", or the first digits of the token's hash."""

    owner: str


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is turned away, and what would help."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Knows the hashes of the tokens; without any, everyone is let in."""

    hashes: tuple[str, ...]

    def identify(self, authorization: str) -> Sender | Denied:
        """The sender behind an Authorization header ("": none came)."""
        if not self.hashes:
            return Sender("open")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return Denied("no token came with the request", "Send it as `Authorization: Bearer TOKEN`.")
        shown = _hash(token.strip())
        # every hash is compared, so that the time taken does not tell which one was close
        known = [digest for digest in self.hashes if compare_digest(digest, shown)]
        return Sender(known[0][:8]) if known else Denied("the token is not known here", "Use one of its tokens.")


def doorkeeper(host: str, tokens: Sequence[str]) -> Doorkeeper:
    """The doorkeeper for an aggregator on `host`. UsageError when strangers could send, or guess a token."""
    if not tokens and not is_loopback(host):
        raise UsageError(
            f"without a token anyone who reaches {host} could send updates",
            "Give one in FEDSTEP_TOKENS, or listen on --host 127.0.0.1.",
        )
    if any(len(token.strip()) < SHORTEST_TOKEN for token in tokens):
        raise UsageError(
            f"a token is shorter than {SHORTEST_TOKEN} characters",
            "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return Doorkeeper(tuple(_hash(token.strip()) for token in tokens))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
