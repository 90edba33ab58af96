"""Which update to look at: the next one to be sent, made without touching anything, or the last one that was."""

import os
from typing import NamedTuple

from fedstep.build.record import Absent
from fedstep.errors import HistoryError, WireError
from fedstep.federation.audit import last_sent, read_audit
from fedstep.federation.kept import kept_model
from fedstep.federation.tensors import LARGEST
from fedstep.federation.wire import Model, pack_update, unpack_update
from fedstep.history.home import Home

__all__ = ["Chosen", "last_update", "next_update", "waiting_updates"]

WITHOUT_SKLEARN = "scikit-learn is not installed, which makes the next update. Run: pip install 'fedstep[train]'"


class Chosen(NamedTuple):
    """The bytes of one update, where they are from (outbox, rows, sent), and a sentence about it."""

    body: bytes
    origin: str
    note: str


def next_update(home: Home) -> Chosen | Absent:
    """The oldest update of the outbox, else the one that the waiting rows would make now. Writes nothing."""
    waiting = waiting_updates(home)
    if waiting:
        more = f"; {len(waiting) - 1} more behind it" if len(waiting) > 1 else ""
        return Chosen(waiting[0], "outbox", f"it waits in the outbox{more}{_noise(kept_model(home).model)}")
    if not home.read("key"):
        return Absent("no build of this project is known yet. Run fedstep train after your tests")
    return _from_rows(home)


def last_update(home: Home) -> Chosen | Absent:
    """The last update that was acknowledged, in the bytes that were sent."""
    body = last_sent(home)
    if not body and read_audit(home).sent:
        return Absent("its bytes are on the machine that sent it. Run fedstep inspect --audit for what is known here")
    if not body:
        return Absent("no update was ever sent from this history")
    try:
        unpack_update(body)
    except WireError:
        return Absent("the last update was sent in two halves, each of them noise alone")
    return Chosen(body, "sent", "as it was sent")


def waiting_updates(home: Home) -> tuple[bytes, ...]:
    """The updates of the outbox, oldest first. Unlike `Outbox.waiting` it leaves files alone that are damaged."""
    try:
        with os.scandir(home.outbox) as entries:
            found = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries)
    except OSError:
        return ()
    bodies = (_update(path) for _, path in found if path.endswith(".safetensors"))
    return tuple(filter(None, bodies))


def _update(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            body = file.read(LARGEST + 1)
        unpack_update(body)
    except (OSError, WireError):
        return b""
    return body


def _from_rows(home: Home) -> Chosen | Absent:
    try:
        from fedstep.federation.batch import make_update
        from fedstep.model.catch_up import catch_up
    except ImportError:
        return Absent(WITHOUT_SKLEARN)
    kept = kept_model(home)
    try:
        update, _ = make_update(catch_up(home, kept.model.production).state.backlog, kept.model, home.keyed)
    except HistoryError as error:
        return Absent(str(error))
    if isinstance(update, Absent):
        return update
    when = "the next fedstep train" if kept.url else "a fedstep train with --aggregator"
    note = f"made from the rows that wait, as {when} would; nothing is written{_noise(kept.model)}"
    return Chosen(pack_update(update), "rows", note)


def _noise(model: Model) -> str:
    """What is added to the numbers that are shown, before they leave in two halves."""
    if not model.noise:
        return ""
    return f"; as it is split it gets noise: {model.noise:g} of a head's bound in a sum of {model.shares}"
