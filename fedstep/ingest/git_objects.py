"""Read and write objects of a repository: within size limits, without changing branches, the index or the work tree."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

from fedstep.errors import HistoryError
from fedstep.ingest.git_process import (
    GitResult,
    explain_failure,
    git_command,
    limit_memory,
    run_git,
    safe_environment,
)
from fedstep.types import Unavailable

_FILES_PER_PROCESS = 500  # its output has to fit into a pipe
_BLOCK_BYTES = 1 << 16
_SECONDS = 30.0  # for reading a whole history of objects from the local disk
_WRITER = "fedstep <noreply>"
_ENDED = HistoryError("git ended before the history was read", "Try again; git fsck tells whether the clone is whole")
_MAX_ERROR_BYTES = 4096


class TreeEntry(NamedTuple):
    """One line of a tree object."""

    mode: str  # 40000 a folder, 100644 a file
    name: str  # bytes that are not UTF-8 are surrogates
    oid: str


class GitObject(NamedTuple):
    """An object as git stores it."""

    oid: str
    kind: str  # commit, tree, blob
    content: bytes


class ObjectTooLarge(NamedTuple):
    """An object that was not read because of its size in bytes."""

    size: int
    limit: int

    @property
    def reason(self) -> str:
        """Return why it was not read."""
        return f"has {self.size} bytes, more than the {self.limit} allowed"


class ObjectReader(NamedTuple):
    """The standard input and output of a running `git cat-file --batch`."""

    requests: IO[bytes]
    replies: IO[bytes]

    def read(self, name: str, max_bytes: int) -> GitObject | ObjectTooLarge | Unavailable:
        """Return the object of this name, if it exists and is not too large. Raise HistoryError where git ends."""
        try:
            self.requests.write(name.encode() + b"\n")
            self.requests.flush()
            header = self.replies.readline(4096).decode("ascii", "replace").split()
            if not header:
                raise _ENDED
            if len(header) != 3 or not header[2].isdecimal():
                return Unavailable("is not there")
            return self._read_content(header[0], header[1], int(header[2]), max_bytes)
        except OSError as error:
            raise _ENDED from error

    def _read_content(self, oid: str, kind: str, size: int, max_bytes: int) -> GitObject | ObjectTooLarge:
        if size > max_bytes:
            _skip(self.replies, size + 1)
            return ObjectTooLarge(size, max_bytes)
        content = self.replies.read(size)
        self.replies.read(1)
        if len(content) != size:
            raise _ENDED
        return GitObject(oid, kind, content)


@contextmanager
def open_objects(root: str, seconds: float = _SECONDS) -> Iterator[ObjectReader | Unavailable]:
    """Yield a reader of the repository's objects; git is killed after `seconds`."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                git_command(root, ("cat-file", "--batch")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=safe_environment(root, os.environ),
            )
        except (OSError, ValueError):
            yield Unavailable("git is not installed or not on the PATH")
            return
        limit_memory(process)
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert process.stdin
            assert process.stdout
            yield ObjectReader(process.stdin, process.stdout)
        except HistoryError as error:
            if error is not _ENDED:
                raise
            raise _explain_end(root, errors) from error
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()


def _explain_end(root: str, errors: IO[bytes]) -> HistoryError:
    """Return the error for a git that ended, with the remedy for what it wrote."""
    errors.seek(0)
    message = errors.read(_MAX_ERROR_BYTES).decode("utf-8", "replace")
    if not message.strip():
        return _ENDED
    reason, _, command = explain_failure(GitResult(128, b"", message), root).reason.partition("; run: ")
    return HistoryError(f"the history cannot be read, {reason}", f"Run: {command}" if command else _ENDED.remedy)


def parse_tree(content: bytes, oid_length: int) -> Iterator[TreeEntry]:
    """Yield the entries of a tree object, up to a damaged one; `oid_length` is in hex digits."""
    position, size = 0, oid_length // 2
    while (space := content.find(b" ", position)) >= 0 and (end := content.find(b"\0", space)) >= 0:
        mode, name, position = content[position:space], content[space + 1 : end], end + 1 + size
        yield TreeEntry(mode.decode("ascii", "replace"), _text(name), content[end + 1 : position].hex())


def write_blobs(root: str, paths: Sequence[str]) -> tuple[str, ...] | GitResult:
    """Store these files as objects, without git's filters, and return their ids; git's result where it fails."""
    oids: list[str] = []
    for start in range(0, len(paths), _FILES_PER_PROCESS):
        batch = paths[start : start + _FILES_PER_PROCESS]
        result = run_git(root, ("hash-object", "-w", "--no-filters", "--stdin-paths"), _lines(batch))()
        batch_oids = result.out.decode("ascii", "replace").split()
        if result.code != 0 or len(batch_oids) != len(batch):
            return result._replace(code=result.code or 1)
        oids += batch_oids
    return tuple(oids)


def write_trees(root: str, trees: Sequence[Iterable[TreeEntry]]) -> tuple[str, ...] | GitResult:
    """Store these folders as objects and return their ids; git's result where it fails. No name may have a tab."""
    texts = [
        "".join(f"{entry.mode:0>6} {_kind(entry)} {entry.oid}\t{entry.name}\n" for entry in tree) for tree in trees
    ]
    result = run_git(root, ("mktree", "--batch"), "\n".join(texts).encode())()
    oids = result.out.decode("ascii", "replace").split()
    return tuple(oids) if result.code == 0 and len(oids) == len(trees) else result._replace(code=result.code or 1)


def write_commit(root: str, tree: str, now: float) -> str | GitResult:
    """Store a commit of this tree without parents, by _WRITER, and return its id; git's result where it fails."""
    by = f"{_WRITER} {now:.0f} +0000"
    text = f"tree {tree}\nauthor {by}\ncommitter {by}\n\nfedstep history\n"
    result = run_git(root, ("hash-object", "-t", "commit", "-w", "--stdin"), text.encode())()
    return result.out.decode("ascii", "replace").strip() if result.code == 0 else result


def _kind(entry: TreeEntry) -> str:
    return "tree" if entry.mode.endswith("40000") else "blob"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _lines(paths: Iterable[str]) -> bytes:
    return "".join(f"{path}\n" for path in paths).encode("utf-8", "surrogateescape")


def _skip(stream: IO[bytes], size: int) -> None:
    while size > 0 and (block := stream.read(min(_BLOCK_BYTES, size))):
        size -= len(block)
