"""The project's own record of everything that left for an aggregator: noted before it leaves, its answer after."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Set
from hashlib import sha256
from typing import NamedTuple

from fedstep.errors import AggregatorError, HistoryError, WireError
from fedstep.federation.gzipped import inflate
from fedstep.federation.tensors import LARGEST, unpack
from fedstep.federation.transport import Answer, Send, redacted
from fedstep.federation.wire import hour
from fedstep.history.files import SENT
from fedstep.history.home import Home
from fedstep.history.log import append, list_folder, remove

__all__ = ["KEPT_BYTES", "Audit", "Sent", "host_of", "last_sent", "read_audit", "recorded"]

SUFFIX = ".safetensors"
KEPT_BYTES = 20  # of so many updates, the last ones, the bytes themselves are kept


class Sent(NamedTuple):
    """One update that left for one host. `answer` is the last HTTP status that came back, 0 where none did."""

    hour: str  # of the first attempt
    sha256: str
    size: int  # bytes, unpacked
    rows: Mapping[str, int]  # bucketed counts, by head
    base: str
    schema: str
    host: str
    answer: int = 0


class Audit(NamedTuple):
    """Everything ever sent from this history, oldest first, and how many lines of the record cannot be read."""

    sent: tuple[Sent, ...] = ()
    damaged: int = 0


def recorded(home: Home, url: str, send: Send, clock: Callable[[], float] = time.time) -> Send:
    """The same `Send`, which notes every body before it leaves; where that fails nothing leaves (AggregatorError)."""
    host = host_of(url)

    def noting(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        if not body:
            return send(method, path, headers, body, timeout)
        plain = inflate(body, LARGEST) if headers.get("Content-Encoding") == "gzip" else body
        digest = sha256(plain).hexdigest()
        try:
            _note(home, plain, digest, host, clock())
        except (OSError, HistoryError) as error:
            reason = getattr(error, "strerror", None) or error.args[0]
            raise AggregatorError(
                f"nothing is sent, because it cannot be noted in {home.path('sent')} ({reason})",
                "Free space or make the folder writable; the update waits.",
            ) from error
        answer = send(method, path, headers, body, timeout)
        _note_answer(home, digest, host, answer.status)
        return answer

    return noting


def host_of(url: str) -> str:
    """The host of an aggregator, as the record has it.

    >>> host_of("https://me:secret@ci.example:8443/fed?key=1")
    'ci.example:8443'
    """
    return redacted(url).partition("://")[2].partition("/")[0]


def read_audit(home: Home) -> Audit:
    """The record. HistoryError where it cannot be read."""
    found: dict[tuple[str, str], Sent] = {}
    damaged = 0
    for line in filter(None, home.read(SENT).splitlines()):
        try:
            _take(json.loads(line), found)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            damaged += 1
    return Audit(tuple(found.values()), damaged)


def last_sent(home: Home) -> bytes:
    """The bytes of the last update that was acknowledged, else of the last that left; b"" where none are kept."""
    sent = read_audit(home).sent
    ranked = [*(one for one in sent if one.answer != 202), *(one for one in sent if one.answer == 202)]
    return next((body for one in reversed(ranked) if (body := home.read(f"sent/{one.sha256}{SUFFIX}"))), b"")


def _note(home: Home, body: bytes, digest: str, host: str, now: float) -> None:
    sent = read_audit(home).sent
    if any((one.sha256, one.host) == (digest, host) for one in sent):
        return
    words = _words(body)
    rows = {name.removeprefix("rows."): int(value) for name, value in words.items() if name.startswith("rows.")}
    fields = {
        "hour": hour(now),
        "sha256": digest,
        "size": len(body),
        "rows": rows,
        "base": words.get("base", ""),
        "schema": words.get("schema", ""),
        "host": host,
    }
    home.write(f"sent/{digest}{SUFFIX}", body)
    _append(home, fields)
    _trim(home, {digest, *(one.sha256 for one in sent[1 - KEPT_BYTES :])})


def _note_answer(home: Home, digest: str, host: str, status: int) -> None:
    try:
        if not any((one.sha256, one.host, one.answer) == (digest, host, status) for one in read_audit(home).sent):
            _append(home, {"sha256": digest, "host": host, "answer": status})
    except (OSError, HistoryError):
        pass  # that it left is on record; an exchange that happened is not called a failure for this


def _append(home: Home, fields: Mapping[str, object]) -> None:
    """The first newline ends a line that a crash cut."""
    append(home.path(SENT), f"\n{json.dumps(fields)}\n".encode())


def _trim(home: Home, kept: Set[str]) -> None:
    for name in list_folder(home.path("sent")):
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) not in kept:
            remove(os.path.join(home.path("sent"), name))


def _words(body: bytes) -> Mapping[str, str]:
    try:
        return unpack(body).words
    except WireError:
        return {}


def _take(fields: Mapping[str, object], found: dict[tuple[str, str], Sent]) -> None:
    """Add what one line says. KeyError, TypeError or ValueError for a line that says nothing."""
    key = str(fields["sha256"]), str(fields["host"])
    if "answer" in fields:
        found[key] = found[key]._replace(answer=int(str(fields["answer"])))
        return
    rows = dict(_counts(fields["rows"]))
    base, schema, host = (str(fields[name]) for name in ("base", "schema", "host"))
    found[key] = Sent(str(fields["hour"]), key[0], int(str(fields["size"])), rows, base, schema, host)


def _counts(rows: object) -> Iterator[tuple[str, int]]:
    if not isinstance(rows, dict):
        raise TypeError("no counts by head")
    return ((str(head), int(count)) for head, count in rows.items())
