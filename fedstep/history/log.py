"""The log: an append-only folder of records, one file a build; merging two logs is copying files."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedstep.build.record import Dropped
from fedstep.errors import HistoryError
from fedstep.history.entry import Entry, decode, encode

__all__ = ["Log", "build_of", "write_atomically", "write_first"]

_FILE = re.compile(r"(\d{14})-([0-9a-f]{32})\.rec")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part. HistoryError if it cannot."""
    with _scratch(path, content) as scratch:
        scratch.replace(path)


def write_first(path: Path, content: bytes) -> None:
    """`write_atomically`, except that a file that is there stays: of several writers at once the first one wins."""
    with _scratch(path, content) as scratch, contextlib.suppress(FileExistsError):
        os.link(scratch, path)


@contextlib.contextmanager
def _scratch(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with the content, safe on the disk; gone afterwards, whatever happens."""
    # Not the process number: two containers that share a folder may both be process 7.
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    except OSError as error:
        remedy = "Free space or point --history at a folder that can be written"
        raise HistoryError(f"cannot write {path}: {error.strerror or error}", remedy) from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def build_of(file: str) -> str:
    """The name of the build whose record this file is."""
    return file[-36:-4]


@dataclass(frozen=True, slots=True)
class Log:
    """Records under `folder`, in files named by end and build: a listing is in the order in which they were learned."""

    folder: Path

    def files(self) -> list[str]:
        """The names of all record files, the build that ended first first; names that are no records are ignored."""
        try:
            return sorted(name for name in os.listdir(self.folder) if _FILE.fullmatch(name))  # noqa: PTH208  Path.iterdir costs predict 3 ms at 500 records
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HistoryError(f"cannot list {self.folder}: {error.strerror}", "Check its permissions") from error

    def has(self, build: str) -> bool:
        """Whether a record of this build is there, whenever it ended."""
        return any(build_of(name) == build for name in self.files())

    def append(self, entry: Entry) -> str:
        """Write the record and return its file name; a build that is there already is left as it is."""
        name = f"{max(0, round(entry.finished_at * 1000)):014d}-{entry.name}.rec"
        path = self.folder / name
        if not path.exists():
            write_atomically(path, encode(entry))
        return name

    def read(self, name: str) -> Entry | Dropped:
        """The record in this file, or why it is skipped."""
        try:
            return decode((self.folder / name).read_bytes())
        except (OSError, HistoryError) as error:
            return Dropped(name, str(error))

    def entries(self, names: list[str]) -> Iterator[tuple[str, Entry | Dropped]]:
        """The records of these files, in the order given."""
        return ((name, self.read(name)) for name in names)

    def prune(self, keep: int) -> int:
        """Delete all but the `keep` newest records; returns how many went."""
        doomed = self.files()[:-keep] if keep > 0 else []
        for name in doomed:
            with contextlib.suppress(OSError):  # it goes next time
                (self.folder / name).unlink()
        return len(doomed)
