"""What the ref of a travelling history holds: its layout, read with suspicion, and how two histories become one."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from fedstep.errors import HistoryError
from fedstep.history.project_store import MODEL, MODEL_NOTE, TRAVELLING, ProjectStore, build_name, is_record_name
from fedstep.ingest.git_objects import (
    GitObject,
    ObjectReader,
    ObjectTooLarge,
    TreeEntry,
    parse_tree,
    write_blobs,
    write_commit,
    write_trees,
)
from fedstep.ingest.git_process import GitResult, summarize_error
from fedstep.types import Unavailable

REF = "refs/fedstep/history"
FOLDER, FILE = "40000", "100644"
LARGEST_RECORD = LARGEST_CACHE = 64 << 20  # bytes, as they are stored
LARGEST_TREE = 8 << 20  # bytes of one folder's list: 80,000 records of one month
MOST_MONTHS = 600
_SMALL = 1 << 16
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_ENCODED = _PLAIN | {"%"}


class SharedHistory(NamedTuple):
    """What the ref holds of one part of the repository, and what else has to stay in it."""

    commit: str = ""  # "" where the ref is not there
    tree: str = ""  # of the commit
    records: Mapping[str, str] = MappingProxyType({})  # record file -> object id
    caches: Mapping[str, str] = MappingProxyType({})  # file -> object id
    key: str = ""  # the project's key, 64 hex digits
    floor: str = ""  # the newest pruned record file: records up to it are not imported again
    others: tuple[TreeEntry, ...] = ()  # entries of the root that belong to other parts
    parts: tuple[TreeEntry, ...] = ()  # folders of other parts below `parts`
    ignored: tuple[str, ...] = ()  # shortened names of entries that belong to no history


class MergedHistory(NamedTuple):
    """The merged records of two histories, oldest first, and the floor up to which records stay deleted."""

    records: tuple[str, ...]
    floor: str


def merge_records(names: Iterable[str], floor: str, keep: int) -> MergedHistory:
    """Return the newest `keep` records (0: all) above the floor, one per build; the floor rises to the newest removed.

    Commutative, associative and idempotent, so that the order of merges does not matter.
    """
    earliest = {build_name(name): name for name in sorted(set(names), reverse=True) if name > floor}
    records = sorted(earliest.values())
    surplus = records[:-keep] if keep else []
    return MergedHistory(tuple(records[len(surplus) :]), surplus[-1] if surplus else floor)


def month_of(record: str) -> str:
    """Return the folder of a record: the month (UTC) in which its build ended.

    >>> month_of("01793577600000-00000000000000000000000000000000.rec")
    '2026-11'
    """
    return time.strftime("%Y-%m", time.gmtime(int(record[:14]) / 1000))


def folder_name(part: str) -> str:
    """Encode the path of a part as one folder name.

    >>> folder_name("services/api")
    'services%2Fapi'
    """
    return "".join(
        letter if letter in _PLAIN else "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "replace"))
        for letter in part
    )


def read_shared(objects: ObjectReader, part: str, ref: str = REF) -> SharedHistory:
    """Read the history of this part from the ref, empty without a ref. Raise HistoryError if objects are missing."""
    commit = objects.read(f"{ref}^{{commit}}", _SMALL)
    if not isinstance(commit, GitObject):
        return SharedHistory()
    reader = _TreeReader(objects, [])
    tree = commit.content.removeprefix(b"tree ").partition(b"\n")[0].decode("ascii", "replace")
    root = {entry.name: entry for entry in reader.folder(tree) if reader.is_known(entry)}
    parts = {entry.name: entry for entry in reader.below(root.get("parts")) if reader.is_part(entry)}
    shelf = root
    if part:
        ours = parts.pop(folder_name(part), None)
        shelf = {entry.name: entry for entry in reader.below(ours) if reader.is_known(entry)}
    return SharedHistory(
        commit=commit.oid,
        tree=tree,
        records=dict(reader.records(shelf.values())),
        caches={entry.name: entry.oid for entry in reader.below(shelf.get("cache")) if reader.is_cache(entry)},
        key=parse_key(reader.text(root.get("key"))),
        floor=_checked_floor(reader.text(shelf.get("floor"))),
        others=tuple(e for e in root.values() if e.name not in ("key", "parts") and part),
        parts=tuple(parts.values()),
        ignored=tuple(reader.ignored),
    )


def parse_key(text: str) -> str:
    """Return the text if it is a valid project key, else ""."""
    return text if len(text) == 64 and not text.strip("0123456789abcdef") else ""


class _TreeReader(NamedTuple):
    """Reads folders no deeper than the layout and collects the names of unknown entries."""

    objects: ObjectReader
    ignored: list[str]

    def folder(self, name: str) -> Iterator[TreeEntry]:
        tree = self.present(name, LARGEST_TREE)
        if isinstance(tree, GitObject) and tree.kind == "tree":
            return parse_tree(tree.content, len(tree.oid))
        self.ignored.append("a folder that is none or too large")
        return iter(())

    def present(self, name: str, most: int) -> GitObject | ObjectTooLarge:
        """Read an object that the commit names. Raise HistoryError if it is missing: publishing would then lose it."""
        content = self.objects.read(name, most)
        if isinstance(content, Unavailable):
            raise HistoryError(f"this clone has a part of {REF} only", f"Run: git update-ref -d {REF}, and fetch again")
        return content

    def below(self, entry: TreeEntry | None) -> Iterator[TreeEntry]:
        return self.folder(entry.oid) if entry else iter(())

    def text(self, entry: TreeEntry | None) -> str:
        blob = self.present(entry.oid, _SMALL) if entry else None
        return blob.content.decode("ascii", "replace").strip() if isinstance(blob, GitObject) else ""

    def records(self, shelf: Iterable[TreeEntry]) -> Iterator[tuple[str, str]]:
        months = sorted(entry for entry in shelf if _is_month(entry.name))[-MOST_MONTHS:]
        for month in months:
            for entry in self.below(month):
                if self._passes(entry, FILE, is_record_name(entry.name) and month_of(entry.name) == month.name):
                    yield entry.name, entry.oid

    def is_known(self, entry: TreeEntry) -> bool:
        named = entry.name in ("key", "floor")
        return self._passes(entry, FILE if named else FOLDER, named or _is_folder(entry.name))

    def is_part(self, entry: TreeEntry) -> bool:
        return self._passes(entry, FOLDER, 0 < len(entry.name) <= 255 and _ENCODED.issuperset(entry.name))

    def is_cache(self, entry: TreeEntry) -> bool:
        return self._passes(entry, FILE, entry.name in TRAVELLING)

    def _passes(self, entry: TreeEntry, mode: str, named_well: bool) -> bool:
        good = named_well and entry.mode == mode
        if not good:
            self.ignored.append(repr(entry.name[:60]))
        return good


def _is_folder(name: str) -> bool:
    return name in ("cache", "parts") or _is_month(name)


def _is_month(name: str) -> bool:
    year, dash, month = name[:4], name[4:5], name[5:]
    return len(name) == 7 and dash == "-" and name.isascii() and year.isdigit() and month.isdigit()


def _checked_floor(text: str) -> str:
    return text if is_record_name(text) else ""


T = TypeVar("T", str, tuple[str, ...])


class GitWriter(NamedTuple):
    """The target repository, the part and the commit time."""

    root: str
    part: str
    now: float


def write_history(target: GitWriter, store: ProjectStore, shared: SharedHistory, united: MergedHistory) -> str:
    """Write this history beside the other shared parts and return the commit: the shared one if nothing is new.

    Raise HistoryError if git cannot store it.
    """
    oids = _blobs(target.root, store, shared, united)
    months = groupby(united.records, month_of)
    named = [(month, [TreeEntry(FILE, name, oids[name]) for name in names]) for month, names in months]
    caches = [TreeEntry(FILE, name, oids[name]) for name in TRAVELLING if name in oids]
    folders = [*named, *([("cache", caches)] if caches else [])]
    trees = _done(write_trees(target.root, [entries for _, entries in folders])) if folders else ()
    shelf = [TreeEntry(FOLDER, name, oid) for (name, _), oid in zip(folders, trees, strict=True)]
    shelf += [TreeEntry(FILE, "floor", oids["floor"])] if united.floor else []
    return _committed(target, shared, shelf, oids["key"])


def write_without_part(target: GitWriter, store: ProjectStore, shared: SharedHistory) -> str:
    """Write the shared history without this part and return the commit: the shared one if the part is not in it."""
    (key,) = _done(write_blobs(target.root, [os.path.abspath(store.path("key"))]))
    return _committed(target, shared, [], key)


def _committed(target: GitWriter, shared: SharedHistory, shelf: list[TreeEntry], key: str) -> str:
    if target.part:
        own = _one_tree(target.root, folder_name(target.part), shelf)
        top, parts = [*shared.others], [*shared.parts, *own]
    else:
        top, parts = shelf, [*shared.parts]
    top += _one_tree(target.root, "parts", parts)
    (tree,) = _done(write_trees(target.root, [[*top, TreeEntry(FILE, "key", key)]]))
    return shared.commit if tree == shared.tree else _done(write_commit(target.root, tree, target.now))


def _one_tree(root: str, name: str, entries: list[TreeEntry]) -> list[TreeEntry]:
    return [TreeEntry(FOLDER, name, oid) for oid in _done(write_trees(root, [entries]))] if entries else []


def _blobs(root: str, store: ProjectStore, shared: SharedHistory, united: MergedHistory) -> dict[str, str]:
    """Write the files of the commit and return the object id of each by its name there."""
    caches = [name for name, path in TRAVELLING.items() if os.path.exists(store.path(path))]
    fresh = [name for name in united.records if name not in shared.records]
    names = [*fresh, *caches, "key", *(["floor"] if united.floor else [])]
    paths = [*(f"builds/{name}" for name in fresh), *(TRAVELLING.get(name, name) for name in names[len(fresh) :])]
    oids = dict(
        zip(names, _done(write_blobs(root, [os.path.abspath(store.path(path)) for path in paths])), strict=True)
    )
    if MODEL_NOTE in shared.caches and oids.get(MODEL) == shared.caches.get(MODEL):
        oids[MODEL_NOTE] = shared.caches[MODEL_NOTE]  # only the time of the last pull differs: not worth a commit
    return {**shared.records, **oids}


def _done(result: T | GitResult) -> T:
    """Return what git wrote. Raise HistoryError if it failed."""
    if isinstance(result, GitResult):
        raise HistoryError(f"git cannot store the history ({summarize_error(result)})", "Check the permissions of .git")
    return result
