"""The folder in which a project's history lives, with everything that is made from it."""

import os
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from fedstep.errors import HistoryError
from fedstep.history.log import Log, list_folder, remove, write_atomically, write_first

__all__ = ["Home"]

OLDEST_MARK = 7 * 86_400  # seconds: a job start older than a week belongs to nobody


class Home(NamedTuple):
    """Paths below one folder, and the project's secret key, which leaves it on the ref of a shared history alone."""

    folder: str

    @property
    def log(self) -> Log:
        """The records."""
        return Log(self.path("builds"))

    @property
    def outbox(self) -> str:
        """The folder of updates that are not yet acknowledged."""
        return self.path("outbox")

    def path(self, name: str) -> str:
        """The path of a file of this folder. Not a pathlib.Path: loading that costs every prediction 9 ms."""
        return os.path.join(self.folder, name)

    def prepare(self) -> None:
        """Make the folder, hidden from git, and its key. HistoryError where it cannot be written."""
        if not os.path.exists(self.path(".gitignore")):
            write_atomically(self.path(".gitignore"), b"*\n")
        if not os.path.exists(self.path("key")):
            write_first(self.path("key"), f"{os.urandom(32).hex()}\n".encode())

    def key(self) -> bytes:
        """The project's 32 secret bytes. HistoryError where the file is missing or damaged."""
        try:
            key = bytes.fromhex(self.read("key").decode().strip())
        except ValueError as error:
            raise HistoryError(f"{self.path('key')} is damaged", "Delete it to start under a new pseudonym") from error
        if len(key) != 32:
            raise HistoryError(f"{self.path('key')} is damaged", "Delete it to start under a new pseudonym")
        return key

    def hasher(self) -> Callable[..., str]:
        """A function from words to 32 hex digits that stand for them and cannot be reversed without the key."""
        key = self.key()
        return lambda *words: blake2b("\0".join(words).encode(errors="replace"), key=key, digest_size=16).hexdigest()

    def keyed(self, *words: str) -> str:
        """`hasher` for one use."""
        return self.hasher()(*words)

    def read(self, name: str) -> bytes:
        """The bytes of a file of this folder; b"" where there is none."""
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise HistoryError(f"cannot read {self.path(name)}: {error.strerror}", "Check its permissions") from error

    def write(self, name: str, content: bytes) -> None:
        """Replace a file of this folder whole."""
        write_atomically(self.path(name), content)

    def mark_start(self, run: str, now: float) -> None:
        """Remember when a job run started, for the train step at its end; the first mark stands."""
        for mark in list_folder(self.path("marks")):
            if now - (self.started(mark) or 0.0) >= OLDEST_MARK:
                remove(self.path(f"marks/{mark}"))
        # A file for each job run: jobs that start at once on one machine do not overwrite each other's.
        write_first(self.path(f"marks/{run}"), f"{now:.3f}\n".encode())

    def started(self, run: str) -> float | None:
        """When `mark_start` was called for this job run; None when it was not, or the mark is damaged."""
        try:
            return float(self.read(f"marks/{run}"))
        except ValueError:
            return None
