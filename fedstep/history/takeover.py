"""What another copy of this history has learned, pulled and sent, taken over here where it knows more than this one."""

import json
from collections.abc import Callable
from contextlib import suppress

from fedstep.errors import HistoryError
from fedstep.history.files import LEARNED, MODEL, MODEL_NOTE, SENT, TURNS
from fedstep.history.home import Home
from fedstep.history.lock import alone
from fedstep.history.log import append, write_copy

__all__ = ["Content", "take_learned", "take_notes"]

WAIT = 1.0  # seconds for one who learns here at this moment

Content = Callable[[str], bytes]  # the bytes of a file of the other copy, by its path there; b"" where it has none


def take_learned(home: Home, content: Content) -> None:
    """Replace what was learned here: the other copy has learned all of it and more, and knows what was sent."""
    learned = {path: found for path in LEARNED if (found := content(path))}
    if not learned:
        return
    with alone(home, WAIT):
        for path, found in learned.items():
            write_copy(home.path(path), found)


def take_notes(home: Home, content: Content) -> None:
    """Take the model and the note of what was given where they are later ones, and all that was sent from there."""
    if _later(home, MODEL_NOTE, content, "fetched_at") and (model := content(MODEL)):
        write_copy(home.path(MODEL), model)
        write_copy(home.path(MODEL_NOTE), content(MODEL_NOTE))
    if _later(home, TURNS, content, "last", "made", "over"):
        write_copy(home.path(TURNS), content(TURNS))
    known = set(home.read(SENT).split(b"\n"))
    if missing := [line for line in content(SENT).split(b"\n") if line and line not in known]:
        _append(home.path(SENT), b"\n%s\n" % b"\n".join(missing))


def _append(path: str, content: bytes) -> None:
    try:
        append(path, content)
    except OSError as error:
        remedy = "Free space or point --history at a folder that can be written"
        raise HistoryError(f"cannot write {path}: {error.strerror}", remedy) from error


def _later(home: Home, path: str, content: Content, *fields: str) -> bool:
    return _moment(content(path), fields) > _moment(home.read(path), fields)


def _moment(content: bytes, fields: tuple[str, ...]) -> tuple[float, ...]:
    """These numbers of a JSON object; () where it has not all of them, which is before everything."""
    with suppress(ValueError, LookupError, TypeError, RecursionError, OverflowError):
        told = json.loads(content)
        return tuple(float(told[field]) for field in fields)
    return ()
