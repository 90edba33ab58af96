"""Objects of a repository: read with bounds, written without touching branches, the index or the work tree."""

import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

from fedstep.errors import HistoryError
from fedstep.ingest.git_process import GitResult, git_command, run_git, safe_environment
from fedstep.types import Unavailable

_AT_ONCE = 500  # files named to one process: its answer has to fit into a pipe
_PIECE = 1 << 16
_SECONDS = 30.0  # for reading a whole history of objects, which are on this disk
_WRITER = "fedstep <noreply>"
_ENDED = HistoryError("git ended before the history was read", "Try again; git fsck tells whether the clone is whole")


class TreeEntry(NamedTuple):
    """One line of a tree: what it is, what it is called, the object it names."""

    mode: str  # 40000 a folder, 100644 a file
    name: str  # bytes that are no UTF-8 are surrogates
    oid: str


class GitObject(NamedTuple):
    """An object as git stores it."""

    oid: str
    kind: str  # commit, tree, blob
    content: bytes


class ObjectTooLarge(NamedTuple):
    """An object that was not read because of its size."""

    size: int
    most: int

    @property
    def reason(self) -> str:
        """What is wrong with it."""
        return f"has {self.size} bytes, more than the {self.most} allowed"


class ObjectReader(NamedTuple):
    """The two ends of a `git cat-file --batch`."""

    asking: IO[bytes]
    answering: IO[bytes]

    def read(self, name: str, most: int) -> GitObject | ObjectTooLarge | Unavailable:
        """The object of this name, if it is there and has at most `most` bytes. HistoryError where git ends instead."""
        try:
            self.asking.write(name.encode() + b"\n")
            self.asking.flush()
            head = self.answering.readline(4096).decode("ascii", "replace").split()
            if not head:
                raise _ENDED
            if len(head) != 3 or not head[2].isdecimal():
                return Unavailable("is not there")
            return self._content(head[0], head[1], int(head[2]), most)
        except OSError as error:
            raise _ENDED from error

    def _content(self, oid: str, kind: str, size: int, most: int) -> GitObject | ObjectTooLarge:
        if size > most:
            _skip(self.answering, size + 1)
            return ObjectTooLarge(size, most)
        content = self.answering.read(size)
        self.answering.read(1)
        if len(content) != size:
            raise _ENDED
        return GitObject(oid, kind, content)


@contextmanager
def open_objects(root: str, seconds: float = _SECONDS) -> Iterator[ObjectReader | Unavailable]:
    """The objects of the repository at `root`; git is ended after so many seconds."""
    try:
        process = subprocess.Popen(
            git_command(root, ("cat-file", "--batch")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=safe_environment(os.environ),
        )
    except (OSError, ValueError):
        yield Unavailable("git is not installed or not on the PATH")
        return
    watch = threading.Timer(seconds, process.kill)
    watch.daemon = True
    watch.start()
    try:
        assert process.stdin
        assert process.stdout
        yield ObjectReader(process.stdin, process.stdout)
    finally:
        watch.cancel()
        process.kill()
        process.communicate()


def parse_tree(content: bytes, oid_length: int) -> Iterator[TreeEntry]:
    """The entries of a tree object as far as it is whole; `oid_length` is in hex digits."""
    place, size = 0, oid_length // 2
    while (space := content.find(b" ", place)) >= 0 and (end := content.find(b"\0", space)) >= 0:
        mode, name, place = content[place:space], content[space + 1 : end], end + 1 + size
        yield TreeEntry(mode.decode("ascii", "replace"), _text(name), content[end + 1 : place].hex())


def write_blobs(root: str, paths: Sequence[str]) -> tuple[str, ...] | GitResult:
    """The ids of these files as objects, or what git said; stored byte by byte, whatever the attributes say."""
    oids: list[str] = []
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        ran = run_git(root, ("hash-object", "-w", "--no-filters", "--stdin-paths"), _lines(some))()
        found = ran.out.decode("ascii", "replace").split()
        if ran.code != 0 or len(found) != len(some):
            return ran._replace(code=ran.code or 1)
        oids += found
    return tuple(oids)


def write_trees(root: str, trees: Sequence[Iterable[TreeEntry]]) -> tuple[str, ...] | GitResult:
    """The ids of these folders as objects, or what git said. Names must be free of line ends and tabs."""
    texts = [
        "".join(f"{entry.mode:0>6} {_kind(entry)} {entry.oid}\t{entry.name}\n" for entry in tree) for tree in trees
    ]
    ran = run_git(root, ("mktree", "--batch"), "\n".join(texts).encode())()
    found = ran.out.decode("ascii", "replace").split()
    return tuple(found) if ran.code == 0 and len(found) == len(trees) else ran._replace(code=ran.code or 1)


def write_commit(root: str, tree: str, now: float) -> str | GitResult:
    """The id of a commit of this tree without parents, or what git said. It bears our name, whoever runs it."""
    by = f"{_WRITER} {now:.0f} +0000"
    text = f"tree {tree}\nauthor {by}\ncommitter {by}\n\nfedstep history\n"
    ran = run_git(root, ("hash-object", "-t", "commit", "-w", "--stdin"), text.encode())()
    return ran.out.decode("ascii", "replace").strip() if ran.code == 0 else ran


def _kind(entry: TreeEntry) -> str:
    return "tree" if entry.mode.endswith("40000") else "blob"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _lines(paths: Iterable[str]) -> bytes:
    return "".join(f"{path}\n" for path in paths).encode("utf-8", "surrogateescape")


def _skip(stream: IO[bytes], size: int) -> None:
    while size > 0 and (piece := stream.read(min(_PIECE, size))):
        size -= len(piece)
