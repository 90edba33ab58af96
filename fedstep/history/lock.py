"""One process at a time learns in a home: what it has read must still hold when it writes."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fedstep.errors import HistoryError
from fedstep.history.files import LOCK
from fedstep.history.home import Home

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Busy", "alone"]

SECONDS = 10.0  # to wait for another; learning one build takes it about one
EVERY = 0.05


class Busy(HistoryError):
    """Another process learns in this home and did not end in time."""


@contextmanager
def alone(home: Home, seconds: float = SECONDS) -> Iterator[None]:
    """Nobody else is in such a block of this home. Raises Busy after so many seconds, HistoryError.

    The system takes the lock from a process that ends, however it ends. Not to be entered twice by one process.
    """
    deadline = time.monotonic() + seconds
    with _opened(home) as number:
        while not _taken(number):
            if time.monotonic() >= deadline:
                raise Busy(f"another fedstep is learning in {home.folder}", "Nothing to do, the next one learns it too")
            time.sleep(EVERY)
        yield


@contextmanager
def _opened(home: Home) -> Iterator[int]:
    path = home.path(LOCK)
    try:
        os.makedirs(home.folder, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        remedy = "Free space or point --history at a folder that can be written"
        raise HistoryError(f"cannot write {path}: {error.strerror}", remedy) from error
    try:
        yield number
    finally:
        os.close(number)


def _taken(number: int) -> bool:
    """Whether the lock is ours now. On a file system without locks it is: there nothing keeps two apart."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
