"""The log: an append-only folder of records, one file a build; merging two logs is copying files."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fedstep.build.record import Dropped
from fedstep.errors import HistoryError
from fedstep.history.entry import Entry, decode, encode

__all__ = [
    "Log",
    "append",
    "build_of",
    "is_record",
    "list_folder",
    "remove",
    "write_atomically",
    "write_copy",
    "write_first",
]


def write_atomically(path: str, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part. HistoryError if it cannot."""
    with _scratch(path, content) as scratch:
        os.replace(scratch, path)


def write_first(path: str, content: bytes) -> None:
    """`write_atomically`, except that a file that is there stays: of several writers at once the first one wins."""
    with _scratch(path, content) as scratch, contextlib.suppress(FileExistsError):
        try:
            os.link(scratch, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links, as on memory sticks: a crash may leave a part there
            with open(path, "xb") as file:
                file.write(content)
                os.fsync(file.fileno())


def write_copy(path: str, content: bytes) -> None:
    """`write_atomically` for what is kept elsewhere too: the disk is not waited for."""
    with _scratch(path, content, lambda _: None) as scratch:
        os.replace(scratch, path)


def append(path: str, content: bytes) -> None:
    """Add to the end of a file in one write, so that jobs which share it do not mix. OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        file.write(content)


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder. HistoryError where it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HistoryError(f"cannot list {path}: {error.strerror}", "Check its permissions") from error


def remove(path: str) -> None:
    """Delete a file, if it is there and can be deleted: what stays now goes next time."""
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def _scratch(path: str, content: bytes, settle: Callable[[int], None] = os.fsync) -> Iterator[str]:
    """A file beside `path` with the content, safe on the disk; gone afterwards, whatever happens."""
    folder, name = os.path.split(path)
    # Not the process number: two containers that share a folder may both be process 7.
    scratch = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.tmp")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(scratch, "wb") as file:
            file.write(content)
            file.flush()
            settle(file.fileno())
        yield scratch
    except OSError as error:
        remedy = "Free space or point --history at a folder that can be written"
        raise HistoryError(f"cannot write {path}: {error.strerror or error}", remedy) from error
    finally:
        remove(scratch)


def is_record(name: str) -> bool:
    """Whether this is a record's name; told without a regular expression: `predict` lists 500.

    `<14 digits>-<32 hex digits>.rec`
    """
    digits, hexes = name[:14], name[15:47]
    shaped = len(name) == 51 and name[14] == "-" and name[47:] == ".rec" and digits.isascii() and digits.isdigit()
    return shaped and not hexes.strip("0123456789abcdef")


def build_of(file: str) -> str:
    """The name of the build whose record this file is."""
    return file[-36:-4]


class Log(NamedTuple):
    """Records under `folder`, in files named by end and build: a listing is in the order in which they were learned."""

    folder: str

    def files(self) -> list[str]:
        """The names of all record files, the build that ended first first; names that are no records are ignored."""
        return [name for name in list_folder(self.folder) if is_record(name)]

    def has(self, build: str) -> bool:
        """Whether a record of this build is there, whenever it ended."""
        return any(build_of(name) == build for name in self.files())

    def append(self, entry: Entry) -> str:
        """Write the record and return its file name; a build that is there already is left as it is."""
        name = f"{max(0, round(entry.finished_at * 1000)):014d}-{entry.name}.rec"
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            write_atomically(path, encode(entry))
        return name

    def read(self, name: str) -> Entry | Dropped:
        """The record in this file, or why it is skipped."""
        try:
            with open(os.path.join(self.folder, name), "rb") as file:
                return decode(file.read())
        except (OSError, HistoryError) as error:
            return Dropped(name, str(error))

    def entries(self, names: list[str]) -> Iterator[tuple[str, Entry | Dropped]]:
        """The records of these files, in the order given."""
        return ((name, self.read(name)) for name in names)

    def prune(self, keep: int) -> int:
        """Delete all but the `keep` newest records; returns how many went."""
        doomed = self.files()[:-keep] if keep > 0 else []
        for name in doomed:
            remove(os.path.join(self.folder, name))
        return len(doomed)
