"""Read files that a checkout, a cache or an artifact may have replaced by anything."""

import errno
import os
import stat
from contextlib import suppress
from typing import BinaryIO

LARGEST = 1 << 28  # bytes; the summary of 100,000 tests has 60 MB


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading. Raise OSError for any other.

    A pipe would block for ever, and a device such as /dev/zero does not end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = open(descriptor, "rb")  # noqa: SIM115  # returned
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return file


def read_bounded(path: str, most: int = LARGEST) -> bytes:
    """Return the content of a regular file of at most `most` bytes. Raise OSError for any other."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
        content = file.read(most + 1)
    if len(content) > most:  # it grew meanwhile
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
    return content


def check_regular(path: str) -> None:
    """Raise OSError where `path` exists and is no regular file: writing through a link changes another."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EINVAL, "it is a link or no regular file", path)
