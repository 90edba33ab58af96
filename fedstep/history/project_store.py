"""The store of a project: an append-only log with one file per build, caches, and a lock."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from math import inf
from types import MappingProxyType
from typing import NamedTuple, TypeVar, get_args

from fedstep.errors import MALFORMED, HistoryError
from fedstep.files import LARGEST, read_bounded
from fedstep.history.records import BuildRecord, decode_record, encode_record
from fedstep.types import Dropped, LeftOut

BACKLOG, CORRECTION, SUMMARY, OUTLOOK = "backlog.json", "correction.json", "summary.json", "outlook.json"
MODEL, MODEL_NOTE, TURNS, SENT = "model.safetensors", "model.json", "contributed.json", "sent/log.jsonl"
TIMELINE, WORDS = "timeline.z", "words.json"
TRAVEL, IMPORTED, LOCK = "travel.json", "imported", "learning.lock"


class LayoutEntry(NamedTuple):
    """A file or folder of a store, and how another machine's copy of it is imported ("": not at all)."""

    path: str
    what: str
    taken: str = ""  # theirs, union; together: all or none; newer: the one pulled later
    alias: str = ""  # its name in the ref, if different


FILES = (
    LayoutEntry("key", "the project's secret", "theirs"),
    LayoutEntry("floor", "up to which record all are pruned", "newer"),
    LayoutEntry("builds", "the records, which everything else is learned from", "union"),
    LayoutEntry(BACKLOG, "examples without a label yet, not sent yet, and sent last", "together"),
    LayoutEntry(CORRECTION, "what the project has learned for itself", "together"),
    LayoutEntry(SUMMARY, "what the records say of each test", "together"),
    LayoutEntry(OUTLOOK, "what predictions start from", "together"),
    LayoutEntry(TIMELINE, "builds beside their predictions, and changes of time", "together"),
    LayoutEntry(WORDS, "words of each test's own source", "together"),
    LayoutEntry(MODEL, "the model last pulled", "newer"),
    LayoutEntry(MODEL_NOTE, "where and when it was pulled", "newer"),
    LayoutEntry(TURNS, "what was given to an aggregator with differential privacy", "newer"),
    LayoutEntry(SENT, "everything that was ever sent", "union", alias="sent.jsonl"),
    LayoutEntry("sent", "beside it the bytes of the last ones"),
    LayoutEntry("outbox", "updates that are not acknowledged yet"),
    LayoutEntry(TRAVEL, "what is known of the ref"),
    LayoutEntry(IMPORTED, "what past builds were learned from"),
    LayoutEntry("marks", "when jobs began"),
    LayoutEntry("selections", "which tests a job leaves out"),
    LayoutEntry(LOCK, "held by whoever learns"),
    LayoutEntry(".gitignore", "hides all this from git"),
)
LEARNED = tuple(file.path for file in FILES if file.taken == "together")
TRAVELLING = MappingProxyType(
    {file.alias or file.path: file.path for file in FILES if file.taken and file.path not in ("key", "floor", "builds")}
)
"""The name in the ref of each shared file, except key, floor and records, and its path in the store."""


def write_atomically(path: str, content: bytes) -> None:
    """Write a file so that readers see the old or the new content, never a part. Raise HistoryError on failure."""
    with _scratch(path, content) as scratch:
        os.replace(scratch, path)


def write_if_absent(path: str, content: bytes) -> None:
    """Write a file as `write_atomically` does, unless it exists: the first of concurrent writers wins."""
    with _scratch(path, content) as scratch, contextlib.suppress(FileExistsError):
        try:
            os.link(scratch, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links, such as FAT: a crash may leave a partial file
            with open(path, "xb") as file:
                file.write(content)
                os.fsync(file.fileno())


def write_unsynced(path: str, content: bytes) -> None:
    """Write a file as `write_atomically` does but without fsync, for content that is also stored elsewhere."""
    with _scratch(path, content, lambda _: None) as scratch:
        os.replace(scratch, path)


def append(path: str, content: bytes) -> None:
    """Append to a file in one write, so that concurrent jobs do not interleave. Raise OSError on failure."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(path, flags, 0o666), "ab", buffering=0) as file:
        file.write(content)


def list_folder(path: str) -> list[str]:
    """Return the sorted names in a folder, none if it does not exist. Raise HistoryError if it cannot be listed."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HistoryError(f"cannot list {path}: {error.strerror}", "Check its permissions") from error


def remove(path: str) -> None:
    """Delete a file if it exists; ignore failures, since the next call tries again."""
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def _scratch(path: str, content: bytes, settle: Callable[[int], None] = os.fsync) -> Iterator[str]:
    """Yield a synced temporary file with the content beside `path`, and delete it afterwards."""
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


def is_record_name(name: str) -> bool:
    """Return whether this is the name of a record. No regular expression: `predict` lists 500.

    `<14 digits>-<32 hex digits>.rec`
    """
    digits, hexes = name[:14], name[15:47]
    shaped = len(name) == 51 and name[14] == "-" and name[47:] == ".rec" and digits.isascii() and digits.isdigit()
    return shaped and not hexes.strip("0123456789abcdef")


def build_name(file: str) -> str:
    """Return the build name in a record's file name."""
    return file[-36:-4]


class RecordLog(NamedTuple):
    """Records in `folder`, in files named by end time and build: sorted names are in learning order."""

    folder: str

    def files(self) -> list[str]:
        """Return the names of all record files in the order in which the builds ended."""
        return [name for name in list_folder(self.folder) if is_record_name(name)]

    def has(self, build: str) -> bool:
        """Return whether the log has a record of this build."""
        return any(build_name(name) == build for name in self.files())

    def append(self, entry: BuildRecord) -> str:
        """Write the record and return its file name; an existing file is left unchanged."""
        name = f"{max(0, round(entry.finished_at * 1000)):014d}-{entry.name}.rec"
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            write_atomically(path, encode_record(entry))
        return name

    def read(self, name: str) -> BuildRecord | Dropped:
        """Read the record in this file, or return why it is skipped."""
        try:
            return decode_record(read_bounded(os.path.join(self.folder, name)))
        except (OSError, HistoryError) as error:
            return Dropped(name, str(error))

    def entries(self, names: list[str]) -> Iterator[tuple[str, BuildRecord | Dropped]]:
        """Return an iterator over the records of these files, in the given order."""
        return ((name, self.read(name)) for name in names)

    def prune(self, keep: int) -> int:
        """Delete all but the `keep` newest records (0: none) and return how many were deleted."""
        doomed = self.files()[:-keep] if keep > 0 else []
        for name in doomed:
            remove(os.path.join(self.folder, name))
        return len(doomed)


LARGEST_NUMBER = 1e15  # more than any time in milliseconds
Row = TypeVar("Row", bound=tuple[object, ...])


def with_types(row: Row) -> Row:
    """Return a NamedTuple whose values have the types of its fields: those from somebody else's file may have others.

    Raise TypeError, or ValueError for a number that is too large.
    """
    for (name, classes), value in zip(_field_types(type(row)), row, strict=True):
        if not isinstance(value, classes):
            raise TypeError(f"{name} is {type(value).__name__}")
        if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
            raise ValueError(f"{name} is too large")
    return row


@cache
def _field_types(kind: type[tuple[object, ...]]) -> tuple[tuple[str, tuple[type, ...]], ...]:
    """Return the name and the classes of each field of a NamedTuple; a float may be a whole number."""
    types = []
    for name, annotation in kind.__annotations__.items():
        is_tuple = str(annotation).startswith("tuple[")
        classes = (tuple,) if is_tuple else get_args(annotation) or (annotation,)
        types.append((name, (*classes, int) if float in classes else classes))
    return tuple(types)


OLDEST_MARK = 7 * 86_400  # seconds; older marks and notes of a job are deleted
LONGEST_TIME = 40  # bytes of the time in a note


class StartMark(NamedTuple):
    """When a job started as far as fedstep knows, in seconds since the epoch, and the seconds it then took itself."""

    started_at: float
    own_seconds: float = 0.0  # of installing fedstep and predicting: they are no part of the build


class ProjectStore(NamedTuple):
    """Files below one folder, including the project's secret key, which is shared only through the history's ref."""

    folder: str

    @property
    def log(self) -> RecordLog:
        """Return the log of records."""
        return RecordLog(self.path("builds"))

    @property
    def outbox(self) -> str:
        """Return the folder of updates that are not acknowledged yet."""
        return self.path("outbox")

    def path(self, name: str) -> str:
        """Return the path of a file in this folder; a string, because loading pathlib costs each prediction 9 ms."""
        return os.path.join(self.folder, name)

    def check_links(self) -> None:
        """Raise HistoryError where an entry of this folder is a link: it would be written, and deleted, elsewhere."""
        names = [*(file.path for file in FILES), "parts"]  # parts of the repository have histories below
        links = [name for name in names if os.path.islink(self.path(name))]
        if links:
            raise HistoryError(f"{self.path(links[0])} is a link", "Delete it: the history is kept in ordinary files")

    def prepare(self) -> None:
        """Create the folder, hidden from git, and its key. Raise HistoryError if it cannot be written."""
        if not os.path.exists(self.path(".gitignore")):
            write_atomically(self.path(".gitignore"), b"*\n")
        if not os.path.exists(self.path("key")):
            write_if_absent(self.path("key"), f"{os.urandom(32).hex()}\n".encode())

    def key(self) -> bytes:
        """Return the project's 32 secret bytes. Raise HistoryError if the file is missing or damaged."""
        try:
            key = bytes.fromhex(self.read("key").decode().strip())
        except ValueError as error:
            raise HistoryError(f"{self.path('key')} is damaged", "Delete it to start under a new pseudonym") from error
        if len(key) != 32:
            raise HistoryError(f"{self.path('key')} is damaged", "Delete it to start under a new pseudonym")
        return key

    def hasher(self) -> Callable[..., str]:
        """Return a keyed hash function from words to 32 hex digits, which cannot be reversed without the key."""
        key = self.key()
        return lambda *words: blake2b("\0".join(words).encode(errors="replace"), key=key, digest_size=16).hexdigest()

    def keyed_hash(self, *words: str) -> str:
        """Return the keyed hash of the words; `hasher` is faster for many calls."""
        return self.hasher()(*words)

    def read(self, name: str, most: int = LARGEST) -> bytes:
        """Return the bytes of a file in this folder, b"" if it does not exist. Raise HistoryError for any other."""
        try:
            return read_bounded(self.path(name), most)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise HistoryError(f"cannot read {self.path(name)}: {error.strerror}", "Check its permissions") from error

    def write(self, name: str, content: bytes) -> None:
        """Replace a file in this folder atomically."""
        write_atomically(self.path(name), content)

    def mark_start(self, run: str, mark: StartMark, now: float) -> None:
        """Record when a job run started, for the train step at its end; the first mark is kept."""
        self.remove_outdated("marks", lambda name: mark.started_at if (mark := self.read_mark(name)) else None, now)
        # One file per job run: concurrent jobs on one machine do not overwrite each other.
        write_if_absent(self.path(f"marks/{run}"), f"{mark.started_at:.3f} {mark.own_seconds:.3f}\n".encode())

    def remove_outdated(self, folder: str, read_time: Callable[[str], float | None], now: float) -> None:
        """Delete the files in a folder that are a week old, or damaged: `read_time` then returns None.

        A temporary file stays, which another job may be writing.
        """
        for name in list_folder(self.path(folder)):
            written = read_time(name)
            if not name.startswith(".") if written is None else now - written >= OLDEST_MARK:
                remove(self.path(f"{folder}/{name}"))

    def read_mark(self, run: str) -> StartMark | None:
        """Return the mark of this job run; None without a valid one."""
        try:
            return StartMark(*map(float, self.read(f"marks/{run}").split()))
        except (ValueError, TypeError):
            return None

    def note_left_out(self, run: str, left_out: LeftOut, now: float) -> None:
        """Write down what the selection of this job run leaves out, for the train step at its end.

        Raise HistoryError if it cannot be written.
        """
        self.remove_outdated("selections", self._read_left_out_at, now)
        content = json.dumps([now, left_out.tests, left_out.shadow], separators=(",", ":")).encode()
        write_unsynced(self.path(f"selections/{run}"), content)  # after a crash this job ends, too

    def read_left_out(self, run: str) -> LeftOut | None:
        """Return what was noted in this job run, None without a valid note."""
        try:
            _, tests, shadow = json.loads(self.read(f"selections/{run}") or "[]")
            return LeftOut(tuple(map(str, tests)), shadow=bool(shadow))
        except MALFORMED:
            return None

    def forget_left_out(self, run: str) -> None:
        """Delete the note of a job run."""
        remove(self.path(f"selections/{run}"))

    def _read_left_out_at(self, run: str) -> float | None:
        """Return when a note was written, its first value: the names behind it, megabytes, are not read.

        None if it is damaged or gone. What cannot be read is never outdated.
        """
        try:
            with open(self.path(f"selections/{run}"), "rb") as file:
                return float(file.read(LONGEST_TIME).removeprefix(b"[").partition(b",")[0])
        except (FileNotFoundError, ValueError):
            return None
        except OSError:
            return inf


if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


SECONDS = 10.0  # to wait for another process; learning one build takes about one
EVERY = 0.05


class StoreLocked(HistoryError):
    """Another process held the lock of this store for too long."""


@contextmanager
def exclusive(store: ProjectStore, seconds: float = SECONDS) -> Iterator[None]:
    """Hold the exclusive lock of this store. Raise StoreLocked after `seconds`, HistoryError if it cannot be opened.

    The system releases the lock when the process ends. A process must not enter it twice.
    """
    deadline = time.monotonic() + seconds
    with _open_lock(store) as descriptor:
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise StoreLocked(
                    f"another fedstep is learning in {store.folder}", "Nothing to do, the next one learns it too"
                )
            time.sleep(EVERY)
        yield


@contextmanager
def _open_lock(store: ProjectStore) -> Iterator[int]:
    path = store.path(LOCK)
    try:
        os.makedirs(store.folder, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        remedy = "Free space or point --history at a folder that can be written"
        raise HistoryError(f"cannot write {path}: {error.strerror}", remedy) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Try to lock the file; return whether it succeeded. A file system without locks always succeeds."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
