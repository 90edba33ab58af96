"""Read files that a checkout, a cache or an artifact may have replaced by anything."""

import errno
import os
import stat

LARGEST = 1 << 28  # bytes; the summary of 100,000 tests has 60 MB


def read_bounded(path: str, most: int = LARGEST) -> bytes:
    """Return the content of a regular file of at most `most` bytes. Raise OSError for any other.

    A pipe would block for ever, and a device such as /dev/zero does not end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
        content = file.read(most + 1)
    if len(content) > most:  # it grew meanwhile
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
    return content
