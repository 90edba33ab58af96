"""Static tokens in the store of the aggregator: shown once when they are created, stored as hashes."""

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from fedstep.errors import UsageError
from fedstep.server.identity import Identity, digest_of
from fedstep.server.storage.engine import open_engine, read_only
from fedstep.server.storage.tables import heartbeats, tokens

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

    def listed(self) -> tuple[StoredToken, ...]:
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
