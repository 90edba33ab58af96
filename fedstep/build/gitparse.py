"""What git's machine-readable outputs say, as values; any bytes are read without an error."""

from collections.abc import Sequence
from typing import NamedTuple

from fedstep.build.record import FileChange

__all__ = ["Commit", "Status", "parse_names", "parse_numstat", "parse_objects", "parse_status"]


class Commit(NamedTuple):
    """A commit object; `parents` counts those it names, also where a shallow clone does not have them."""

    oid: str
    tree: str
    author: str  # e-mail
    parents: int


class Status(NamedTuple):
    """The work tree: whether tracked files differ from HEAD, what is untracked, whether an upstream is there."""

    modified: bool
    untracked: tuple[str, ...]
    upstream: bool


def parse_numstat(out: bytes) -> tuple[FileChange, ...]:
    r"""The files of `git diff --numstat -z`; what is no such line is passed over.

    >>> parse_numstat(b"3\t1\ta.py\x00-\t-\t\x00old.png\x00new.png\x00")[1]
    FileChange(path='new.png', added=0, deleted=0, renamed_from='old.png')
    """
    fields = iter(out.split(b"\0"))
    changes = []
    for field in fields:
        added, _, rest = field.partition(b"\t")
        deleted, tab, path = rest.partition(b"\t")
        if not tab:
            continue
        before, after = (b"", path) if path else (next(fields, b""), next(fields, b""))
        changes.append(FileChange(_name(after), _lines(added), _lines(deleted), _name(before)))
    return tuple(changes)


def parse_status(out: bytes) -> Status:
    """The answer of `git status --porcelain=v2 -z --branch --no-renames`."""
    entries = out.split(b"\0")
    untracked = tuple(_name(entry[2:]) for entry in entries if entry.startswith(b"? "))
    modified = any(entry[:2] in (b"1 ", b"2 ", b"u ") for entry in entries)
    return Status(modified, untracked, any(entry.startswith(b"# branch.ab ") for entry in entries))


def parse_objects(asked: Sequence[str], out: bytes) -> dict[str, Commit]:
    """Asked name -> commit, from `git cat-file --batch`, which answers in order and skips nothing."""
    found, at = {}, 0
    for name in asked:
        end = out.find(b"\n", at)
        if end < 0:
            break
        header, at = out[at:end].split(b" "), end + 1
        if len(header) != 3 or not header[2].isdigit():
            continue
        size = int(header[2])
        if header[1] == b"commit":
            found[name] = _commit(header[0], out[at : at + size])
        at += size + 1
    return found


def parse_names(out: bytes) -> tuple[str, ...]:
    """The paths of a `-z` list."""
    return tuple(_name(name) for name in out.split(b"\0") if name)


def _commit(oid: bytes, body: bytes) -> Commit:
    head = body.partition(b"\n\n")[0].split(b"\n")
    tree = next((line[5:] for line in head if line.startswith(b"tree ")), b"")
    author = next((line for line in head if line.startswith(b"author ")), b"")
    email = author.rpartition(b"<")[2].partition(b">")[0]
    return Commit(_name(oid), _name(tree), _name(email), sum(line.startswith(b"parent ") for line in head))


def _name(raw: bytes) -> str:
    # A path is bytes to git. Escaped, not replaced: two odd paths stay two paths, and any sink can encode them.
    return raw.decode("utf-8", "backslashreplace")


def _lines(count: bytes) -> int:
    return int(count) if count.isdigit() and len(count) < 12 else 0  # "-": a binary file
