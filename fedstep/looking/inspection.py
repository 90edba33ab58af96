"""An update taken apart: every field with its meaning, every coefficient by name."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fedstep.build.record import Absent
from fedstep.features.schema import schema
from fedstep.federation.audit import KEPT_BYTES, read_audit
from fedstep.federation.bounds import norm
from fedstep.federation.gzipped import deflate
from fedstep.federation.tensors import Vector, unpack
from fedstep.history.home import Home
from fedstep.ingest.junit import expand
from fedstep.looking.against import prove
from fedstep.looking.updates import Chosen, last_update, next_update
from fedstep.report.inspected import (
    Coefficient,
    Field,
    Inspection,
    PastUpdate,
    Proof,
    Record,
    SeenHead,
    SeenToken,
    SeenUpdate,
)

__all__ = ["MEANINGS", "headers_of", "inspection_of", "past_updates", "seen_update"]

MEANINGS = {
    "format": "kind of the message",
    "schema": "digest of the public list of features",
    "base": "version of the model it was learned from",
    "id": "keyed hash of its rows; repeats count once",
    "project": "pseudonym: a keyed hash, one a history",
}
BY_HEAD = {"rows": "rows, rounded down to a power of two", "trial": "version on trial that they scored"}


def inspection_of(home: Home, last: bool, told: SeenToken, globs: Sequence[str]) -> Inspection:
    """The next update, else the last one sent (at once with `last`); with `globs`, looked through for those reports.

    Nothing is written.
    """
    chosen, warnings = _chosen(home, last)
    if isinstance(chosen, Absent):
        return Inspection(chosen, told, proof=Proof() if globs else Absent("no report was named"), warnings=warnings)
    return Inspection(
        update=seen_update(chosen.body, chosen.origin, chosen.note),
        token=told,
        headers=headers_of(chosen.body, told.kind != "none"),
        proof=prove(chosen.body, expand(globs, Path.cwd())) if globs else Absent("no report was named"),
        warnings=warnings,
    )


def _chosen(home: Home, last: bool) -> tuple[Chosen | Absent, tuple[str, ...]]:
    found = Absent("") if last else next_update(home)
    if isinstance(found, Chosen):
        return found, ()
    sent = last_update(home)
    if isinstance(sent, Chosen):
        return sent, (found.reason,) if found.reason else ()
    return Absent("; ".join(filter(None, (found.reason, sent.reason)))), ()


def seen_update(body: bytes, origin: str, note: str = "") -> SeenUpdate:
    """What these bytes say. Raises WireError for bytes that are no safetensors."""
    tensors = unpack(body)
    fields = tuple(Field(name, value, _meaning(name)) for name, value in tensors.words.items())
    heads = tuple(
        _head(name, vector, tensors.words.get(f"rows.{name}", ""), tensors.words.get(f"trial.{name}", ""))
        for name, vector in sorted(tensors.vectors.items())
    )
    packed = min(len(body), len(deflate(body)))
    return SeenUpdate(origin, note, len(body), packed, sha256(body).hexdigest(), fields, heads)


def headers_of(body: bytes, token: bool) -> tuple[Field, ...]:
    """The headers that fedstep sets on the request that carries this update; the HTTP library adds its own."""
    packed = len(deflate(body)) < len(body)
    number = unpack(body).words.get("id", "")
    return (
        Field("Accept", "application/json", "asks for the receipt as JSON"),
        Field("Content-Type", "application/octet-stream", "constant"),
        *((Field("Content-Encoding", "gzip", "constant"),) if packed else ()),
        Field("Idempotency-Key", number, "the id again"),
        *((Field("Authorization", "Bearer …", "the token, see there"),) if token else ()),
    )


def past_updates(home: Home) -> Record:
    """Everything ever sent from this history. HistoryError where its record cannot be read."""
    audit = read_audit(home)
    sent = (PastUpdate(**{**one._asdict(), "rows": tuple(one.rows.items())}) for one in audit.sent)
    return Record(tuple(sent), audit.damaged, KEPT_BYTES)


def _meaning(name: str) -> str:
    return BY_HEAD.get(name.partition(".")[0], "") or MEANINGS.get(name, "not known to this page")


def _head(name: str, vector: Vector, rows: str, trial: str) -> SeenHead:
    """One vector. Where a snapshot is on trial its last coordinate is no change, but how the snapshot did."""
    known = schema().heads.get(name)
    changes = vector[:-1] if trial else vector
    names = (*_names(name, len(changes)), f"loss of version {trial} on trial, less production's")
    moved = [Coefficient(names[number], value) for number, value in enumerate(vector) if value]
    moved.sort(key=lambda coefficient: (-abs(coefficient.value), coefficient.name))
    bound = known.clip if known else 0.0
    return SeenHead(name, int(rows or 0), len(vector), norm(changes), bound, tuple(moved))


def _names(head: str, size: int) -> Sequence[str]:
    """The names of the coordinates; a number for each that the schema does not name."""
    known = schema().heads.get(head)
    named = known.names() if known else ()
    return (*named[:size], *(f"{head}[{number}]" for number in range(len(named), size)))
