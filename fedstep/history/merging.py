"""Records from elsewhere: another folder, another clone, another ref. Merging is a union of files, each build once."""

import os
import stat
from collections.abc import Callable, Iterable, Set
from typing import NamedTuple

from fedstep.build.gitobjects import Stored, open_objects
from fedstep.build.gitrun import common_folder
from fedstep.build.record import Absent
from fedstep.errors import HistoryError, UsageError
from fedstep.history.home import Home
from fedstep.history.intake import known_floor, load_seen, whole_records
from fedstep.history.log import build_of, is_record, list_folder, write_copy
from fedstep.history.shared import LARGEST_RECORD, checked_key, read_shared
from fedstep.history.takeover import take_learned, take_notes

__all__ = ["Merged", "merge_folder", "merge_ref"]


class Merged(NamedTuple):
    """How many records were added, were here already, were pruned here before; and why others were refused."""

    added: int = 0
    known: int = 0
    pruned: int = 0
    refused: tuple[str, ...] = ()


def merge_folder(home: Home, folder: str) -> Merged:
    """Add the records of a folder: a history, a clone that has one, or the records themselves."""
    candidates = (
        os.path.join(folder, "builds"),
        os.path.join(folder, ".fedstep", "builds"),
        os.path.join(common_folder(folder), "fedstep", "builds"),
        folder,
    )
    source = next((path for path in candidates if any(map(is_record, list_folder(path)))), "")
    if not source:
        raise UsageError(f"{folder} holds no records", "Give the folder of a history, or a ref of this repository")
    records = set(filter(is_record, list_folder(source)))
    if os.path.basename(source) == "builds":
        _take_over(home, Home(os.path.dirname(source)), records)
    return _merged(home, records, lambda name: _bytes_of(os.path.join(source, name)))


def _take_over(home: Home, other: Home, records: Set[str]) -> None:
    """Where the other history has all records of this one and more, take what it has learned and knows to be sent."""

    def content(path: str) -> bytes:
        found = _bytes_of(other.path(path))
        return b"" if isinstance(found, Absent) else found

    local, key = whole_records(home), checked_key(content("key").decode("ascii", "replace").strip())
    if key and not local and not load_seen(home).commit:  # a ref has one key for all that share it
        home.write("key", f"{key}\n".encode())
    if local < records and home.read("key").decode("ascii", "replace").strip() == key:
        take_learned(home, content)
        take_notes(home, content)


def merge_ref(home: Home, root: str, ref: str, part: str) -> Merged:
    """Add the records of a ref or commit of the repository at `root`."""
    if not ref.isprintable() or ref.startswith("-"):
        raise UsageError(f"{ref[:80]!r} is no ref", "Give a folder or a ref of this repository")
    with open_objects(root) as objects:
        if isinstance(objects, Absent):
            raise HistoryError(f"{ref} cannot be read, {objects.reason}", "Install git")
        shared = read_shared(objects, part, ref)
        if not shared.commit:
            raise UsageError(f"{ref} is neither a folder nor a ref of this repository", "Fetch it first")
        if not shared.records:
            raise UsageError(f"{ref} holds no records", "Give the folder of a history, or its ref")

        def content(name: str) -> bytes | Absent:
            found = objects.read(shared.records[name], LARGEST_RECORD)
            return found.content if isinstance(found, Stored) else Absent(found.reason)

        return _merged(home, shared.records, content)


def _merged(home: Home, names: Iterable[str], content: Callable[[str], bytes | Absent]) -> Merged:
    here, floor = {build_of(name) for name in home.log.files()}, known_floor(home)
    added, known, pruned, refused = 0, 0, 0, []
    for name in sorted(filter(is_record, names)):
        if build_of(name) in here:
            known += 1
        elif name <= floor:
            pruned += 1
        elif isinstance(found := content(name), Absent):
            refused.append(f"{name} is left out: it {found.reason}")
        else:
            write_copy(home.path(f"builds/{name}"), found)
            here.add(build_of(name))
            added += 1
    return Merged(added, known, pruned, tuple(refused))


def _bytes_of(path: str) -> bytes | Absent:
    """The bytes of a regular file that is not too large; links, pipes and devices are not opened."""
    try:
        about = os.lstat(path)
        if not stat.S_ISREG(about.st_mode):
            return Absent("is no file")
        if about.st_size > LARGEST_RECORD:
            return Absent(f"has {about.st_size} bytes, more than the {LARGEST_RECORD} allowed")
        with open(path, "rb") as file:
            return file.read(LARGEST_RECORD)
    except OSError as error:
        return Absent(f"cannot be read ({error.strerror})")
