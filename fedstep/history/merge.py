"""Import of records, key, floor and caches from a ref or another folder into a store."""

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from typing import NamedTuple

from fedstep.errors import MALFORMED, HistoryError, UsageError
from fedstep.history.git_ref import (
    LARGEST_CACHE,
    LARGEST_RECORD,
    REF,
    GitChannel,
    SharedHistory,
    parse_key,
    read_shared,
)
from fedstep.history.project_store import (
    LEARNED,
    MODEL,
    MODEL_NOTE,
    SENT,
    SUMMARY,
    TRAVEL,
    TRAVELLING,
    TURNS,
    ProjectStore,
    append,
    build_name,
    exclusive,
    is_record_name,
    list_folder,
    remove,
    write_unsynced,
)
from fedstep.ingest.git_objects import GitObject, ObjectReader, ObjectTooLarge, open_objects
from fedstep.ingest.git_process import common_folder
from fedstep.types import Unavailable

WAIT = 1.0  # seconds to wait for a process that is learning here

Content = Callable[[str], bytes]  # bytes of a file in the other copy by its path, b"" if absent


def import_learned(store: ProjectStore, content: Content) -> None:
    """Replace the learned state: the other copy has learned at least the same records and knows what was sent."""
    learned = {path: state for path in LEARNED if (state := content(path))}
    if not learned:
        return
    with exclusive(store, WAIT):
        for path, state in learned.items():
            write_unsynced(store.path(path), state)


def import_notes(store: ProjectStore, content: Content) -> None:
    """Import the model and the contribution log if they are newer, and add the log of sent updates."""
    if _later(store, MODEL_NOTE, content, "fetched_at") and (model := content(MODEL)):
        write_unsynced(store.path(MODEL), model)
        write_unsynced(store.path(MODEL_NOTE), content(MODEL_NOTE))
    if _later(store, TURNS, content, "last", "made", "over"):
        write_unsynced(store.path(TURNS), content(TURNS))
    known = set(store.read(SENT).split(b"\n"))
    if missing := [line for line in content(SENT).split(b"\n") if line and line not in known]:
        _append(store.path(SENT), b"\n%s\n" % b"\n".join(missing))


def _append(path: str, content: bytes) -> None:
    try:
        append(path, content)
    except OSError as error:
        remedy = "Free space or point --history at a folder that can be written"
        raise HistoryError(f"cannot write {path}: {error.strerror}", remedy) from error


def _later(store: ProjectStore, path: str, content: Content, *fields: str) -> bool:
    return _moment(content(path), fields) > _moment(store.read(path), fields)


def _moment(content: bytes, fields: tuple[str, ...]) -> tuple[float, ...]:
    """Return these numbers of a JSON object, or (), which sorts first, if any is missing."""
    with suppress(ValueError, LookupError, TypeError, RecursionError, OverflowError):
        values = json.loads(content)
        return tuple(float(values[field]) for field in fields)
    return ()


LARGEST_TOTAL = 1 << 30  # bytes of records per import


class SyncState(NamedTuple):
    """The commits of the ref last imported and last seen at the remote, and when the remote was asked."""

    commit: str = ""
    remote: str = ""  # "" while the remote has no such ref, or was never reached
    fetched_at: float = 0.0  # seconds since the epoch
    tried_at: float = 0.0


class ImportResult(NamedTuple):
    """The content of the ref, how many of its records are new here, and warnings about skipped ones."""

    shared: SharedHistory
    added: int = 0
    warnings: tuple[str, ...] = ()
    remote: str = ""  # the last known commit of the remote


def load_sync_state(store: ProjectStore) -> SyncState:
    """Return the saved sync state, empty if the file is absent or damaged."""
    try:
        fields = json.loads(store.read(TRAVEL) or b"{}")
        times = float(fields.get("fetched_at", 0)), float(fields.get("tried_at", 0))
        return SyncState(str(fields.get("commit", "")), str(fields.get("remote", "")), *times)
    except MALFORMED:
        return SyncState()


def save_sync_state(store: ProjectStore, seen: SyncState) -> None:
    """Replace the saved sync state."""
    write_unsynced(store.path(TRAVEL), json.dumps(seen._asdict()).encode())


def import_ref(store: ProjectStore, channel: GitChannel) -> ImportResult:
    """Import from this clone's ref the records, key and caches that the store lacks."""
    with open_objects(channel.root) as objects:
        if isinstance(objects, Unavailable):
            raise HistoryError(f"the history cannot be read, {objects.reason}", "Install git")
        shared = read_shared(objects, channel.part)
        if not shared.commit:
            return ImportResult(shared)
        seen, floor = load_sync_state(store), max(shared.floor, read_floor(store))
        _take_key_and_floor(store, shared.key, floor)
        local = _above(store, floor)
        if shared.commit != seen.commit:
            content = _content_of(objects, shared.caches)
            if local <= shared.records.keys() or not store.read(SUMMARY):
                import_learned(store, content)
            import_notes(store, content)
        taken = _take_records(store, objects, shared, {name for name in shared.records if name > floor} - local)
    save_sync_state(store, seen._replace(commit=shared.commit))
    return taken


def read_floor(store: ProjectStore) -> str:
    """Return the newest pruned record, "" if none was pruned."""
    text = store.read("floor").decode("ascii", "replace").strip()
    return text if is_record_name(text) else ""


def complete_records(store: ProjectStore) -> set[str]:
    """Return the record files that are not empty: a power failure may leave empty ones."""
    names = set()
    for name in store.log.files():
        with suppress(OSError):
            if os.path.getsize(store.path(f"builds/{name}")):
                names.add(name)
    return names


def _above(store: ProjectStore, floor: str) -> set[str]:
    """Delete the store's records up to the floor, which were pruned for everyone, and return the others."""
    local = complete_records(store)
    doomed = {name for name in local if name <= floor}
    for name in doomed:
        remove(store.path(f"builds/{name}"))
    return local - doomed


def _take_key_and_floor(store: ProjectStore, key: str, floor: str) -> None:
    """Adopt the shared key and floor: with two keys a project would have two pseudonyms and two names per build."""
    for name, text in (("key", key), ("floor", floor)):
        if text and store.read(name).decode("ascii", "replace").strip() != text:
            store.write(name, f"{text}\n".encode())


def _content_of(objects: ObjectReader, caches: Mapping[str, str]) -> Content:
    """Return a reader of the ref's caches by their path in a store."""
    oids = {TRAVELLING[name]: oid for name, oid in caches.items()}

    def content(path: str) -> bytes:
        blob = objects.read(oids[path], LARGEST_CACHE) if path in oids else Unavailable("is not shared")
        return blob.content if isinstance(blob, GitObject) and blob.kind == "blob" else b""

    return content


def _take_records(store: ProjectStore, objects: ObjectReader, shared: SharedHistory, names: set[str]) -> ImportResult:
    """Write these records into the store. Oversized ones cause a warning and are dropped at the next publish."""
    added, total, refused = 0, 0, {}
    warnings = list(_describe_ignored(shared.ignored))
    for name in sorted(names, reverse=True):
        blob = objects.read(shared.records[name], LARGEST_RECORD)
        if isinstance(blob, Unavailable):
            raise HistoryError(f"{name} of {REF} {blob.reason}", f"Run: git update-ref -d {REF}, and fetch again")
        if isinstance(blob, ObjectTooLarge) or blob.kind != "blob":
            refused[name] = blob.reason if isinstance(blob, ObjectTooLarge) else f"is a {blob.kind}"
            continue
        total += len(blob.content)
        if total > LARGEST_TOTAL:
            warnings.append(f"{REF} has more than {LARGEST_TOTAL >> 20} MB: older records are left there")
            break
        write_unsynced(store.path(f"builds/{name}"), blob.content)
        added += 1
    warnings += [f"{name} of {REF} is refused: it {why}" for name, why in list(refused.items())[:3]]
    kept = {name: oid for name, oid in shared.records.items() if name not in refused}
    return ImportResult(shared._replace(records=kept), added, tuple(warnings))


def _describe_ignored(ignored: tuple[str, ...]) -> tuple[str, ...]:
    count = f"{len(ignored)} {'entry' if len(ignored) == 1 else 'entries'}"
    return (f"{count} of {REF} belong to no history and are ignored, first {ignored[0]}",) if ignored else ()


class MergeResult(NamedTuple):
    """How many records were added, already known or pruned before, and why others were refused."""

    added: int = 0
    known: int = 0
    pruned: int = 0
    refused: tuple[str, ...] = ()


def merge_folder(store: ProjectStore, folder: str) -> MergeResult:
    """Add the records of a folder: a history, a clone that has one, or the records themselves."""
    candidates = (
        os.path.join(folder, "builds"),
        os.path.join(folder, ".fedstep", "builds"),
        os.path.join(common_folder(folder), "fedstep", "builds"),
        folder,
    )
    source = next((path for path in candidates if any(map(is_record_name, list_folder(path)))), "")
    if not source:
        raise UsageError(f"{folder} holds no records", "Give the folder of a history, or a ref of this repository")
    records = set(filter(is_record_name, list_folder(source)))
    if os.path.basename(source) == "builds":
        _take_over(store, ProjectStore(os.path.dirname(source)), records)
    return _merge_all(store, records, lambda name: _bytes_of(os.path.join(source, name)))


def _take_over(store: ProjectStore, other: ProjectStore, records: Set[str]) -> None:
    """Import the learned state of the other history if its records are a proper superset of those here."""

    def content(path: str) -> bytes:
        read = _bytes_of(other.path(path))
        return b"" if isinstance(read, Unavailable) else read

    local, key = complete_records(store), parse_key(content("key").decode("ascii", "replace").strip())
    if key and not local and not load_sync_state(store).commit:  # a ref has one key for all that share it
        store.write("key", f"{key}\n".encode())
    if local < records and store.read("key").decode("ascii", "replace").strip() == key:
        import_learned(store, content)
        import_notes(store, content)


def merge_ref(store: ProjectStore, root: str, ref: str, part: str) -> MergeResult:
    """Add the records of a ref or commit of the repository at `root`."""
    if not ref.isprintable() or ref.startswith("-"):
        raise UsageError(f"{ref[:80]!r} is no ref", "Give a folder or a ref of this repository")
    with open_objects(root) as objects:
        if isinstance(objects, Unavailable):
            raise HistoryError(f"{ref} cannot be read, {objects.reason}", "Install git")
        shared = read_shared(objects, part, ref)
        if not shared.commit:
            raise UsageError(f"{ref} is neither a folder nor a ref of this repository", "Fetch it first")
        if not shared.records:
            raise UsageError(f"{ref} holds no records", "Give the folder of a history, or its ref")

        def content(name: str) -> bytes | Unavailable:
            blob = objects.read(shared.records[name], LARGEST_RECORD)
            return blob.content if isinstance(blob, GitObject) else Unavailable(blob.reason)

        return _merge_all(store, shared.records, content)


def _merge_all(store: ProjectStore, names: Iterable[str], content: Callable[[str], bytes | Unavailable]) -> MergeResult:
    here, floor = {build_name(name) for name in store.log.files()}, read_floor(store)
    added, known, pruned, refused = 0, 0, 0, []
    for name in sorted(filter(is_record_name, names)):
        if build_name(name) in here:
            known += 1
        elif name <= floor:
            pruned += 1
        elif isinstance(record := content(name), Unavailable):
            refused.append(f"{name} is left out: it {record.reason}")
        else:
            write_unsynced(store.path(f"builds/{name}"), record)
            here.add(build_name(name))
            added += 1
    return MergeResult(added, known, pruned, tuple(refused))


def _bytes_of(path: str) -> bytes | Unavailable:
    """Return the bytes of a regular file that is not too large; links, pipes and devices are not opened."""
    try:
        about = os.lstat(path)
        if not stat.S_ISREG(about.st_mode):
            return Unavailable("is no file")
        if about.st_size > LARGEST_RECORD:
            return Unavailable(f"has {about.st_size} bytes, more than the {LARGEST_RECORD} allowed")
        with open(path, "rb") as file:
            return file.read(LARGEST_RECORD)
    except OSError as error:
        return Unavailable(f"cannot be read ({error.strerror})")
