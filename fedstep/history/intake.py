"""Taking in what a ref holds: records, key, floor and caches become files of the home."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from fedstep.build.gitobjects import Objects, Stored, TooLarge, open_objects
from fedstep.build.record import Absent
from fedstep.errors import HistoryError
from fedstep.history.files import SUMMARY, TRAVEL, TRAVELLING
from fedstep.history.gitref import Channel
from fedstep.history.home import Home
from fedstep.history.log import is_record, remove, write_copy
from fedstep.history.shared import LARGEST_CACHE, LARGEST_RECORD, REF, Shared, read_shared
from fedstep.history.takeover import Content, take_learned, take_notes

__all__ = ["Seen", "Taken", "keep_seen", "known_floor", "load_seen", "take_in", "whole_records"]

LARGEST_TOTAL = 1 << 30  # bytes of records taken in at once


class Seen(NamedTuple):
    """What this home knows of its ref: the commits taken in and last seen at the remote, and when it was asked."""

    commit: str = ""
    remote: str = ""  # "" while the remote has no such ref, or was never reached
    fetched_at: float = 0.0  # seconds since the epoch
    tried_at: float = 0.0


class Taken(NamedTuple):
    """What the ref holds now, how many of its records are new here, and what was left out."""

    shared: Shared
    added: int = 0
    warnings: tuple[str, ...] = ()
    remote: str = ""  # the commit that the remote has, as far as is known


def load_seen(home: Home) -> Seen:
    """What is known of the ref; nothing where the file is not there or damaged."""
    try:
        fields = json.loads(home.read(TRAVEL) or b"{}")
        times = float(fields.get("fetched_at", 0)), float(fields.get("tried_at", 0))
        return Seen(str(fields.get("commit", "")), str(fields.get("remote", "")), *times)
    except (ValueError, TypeError, AttributeError):
        return Seen()


def keep_seen(home: Home, seen: Seen) -> None:
    """Replace what is known of the ref."""
    write_copy(home.path(TRAVEL), json.dumps(seen._asdict()).encode())


def take_in(home: Home, channel: Channel) -> Taken:
    """What the ref of this clone holds; the home gets every record, the key and the caches that it lacks."""
    with open_objects(channel.root) as objects:
        if isinstance(objects, Absent):
            raise HistoryError(f"the history cannot be read, {objects.reason}", "Install git")
        shared = read_shared(objects, channel.part)
        if not shared.commit:
            return Taken(shared)
        seen, floor = load_seen(home), max(shared.floor, known_floor(home))
        _take_key_and_floor(home, shared.key, floor)
        local = _above(home, floor)
        if shared.commit != seen.commit:
            content = _content_of(objects, shared.caches)
            if local <= shared.records.keys() or not home.read(SUMMARY):
                take_learned(home, content)
            take_notes(home, content)
        taken = _take_records(home, objects, shared, {name for name in shared.records if name > floor} - local)
    keep_seen(home, seen._replace(commit=shared.commit))
    return taken


def known_floor(home: Home) -> str:
    """The newest record that was pruned, "" where none was."""
    text = home.read("floor").decode("ascii", "replace").strip()
    return text if is_record(text) else ""


def whole_records(home: Home) -> set[str]:
    """The record files that are not empty: a power cut may leave a name without its bytes."""
    names = set()
    for name in home.log.files():
        with suppress(OSError):
            if os.path.getsize(home.path(f"builds/{name}")):
                names.add(name)
    return names


def _above(home: Home, floor: str) -> set[str]:
    """The records of the home above the floor; the others are deleted: they were pruned for everyone."""
    local = whole_records(home)
    doomed = {name for name in local if name <= floor}
    for name in doomed:
        remove(home.path(f"builds/{name}"))
    return local - doomed


def _take_key_and_floor(home: Home, key: str, floor: str) -> None:
    """The key that is shared wins: else two machines would have two pseudonyms, and name one build twice."""
    for name, text in (("key", key), ("floor", floor)):
        if text and home.read(name).decode("ascii", "replace").strip() != text:
            home.write(name, f"{text}\n".encode())


def _content_of(objects: Objects, caches: Mapping[str, str]) -> Content:
    """What the ref holds of each file that travels, by its path in a home."""
    oids = {TRAVELLING[name]: oid for name, oid in caches.items()}

    def content(path: str) -> bytes:
        found = objects.read(oids[path], LARGEST_CACHE) if path in oids else Absent("is not shared")
        return found.content if isinstance(found, Stored) and found.kind == "blob" else b""

    return content


def _take_records(home: Home, objects: Objects, shared: Shared, names: set[str]) -> Taken:
    """Write these records into the home. What is too large is said, and goes from the ref when it is next published."""
    added, total, refused = 0, 0, {}
    warnings = list(_told(shared.ignored))
    for name in sorted(names, reverse=True):
        found = objects.read(shared.records[name], LARGEST_RECORD)
        if isinstance(found, Absent):
            raise HistoryError(f"{name} of {REF} {found.reason}", f"Run: git update-ref -d {REF}, and fetch again")
        if isinstance(found, TooLarge) or found.kind != "blob":
            refused[name] = found.reason if isinstance(found, TooLarge) else f"is a {found.kind}"
            continue
        total += len(found.content)
        if total > LARGEST_TOTAL:
            warnings.append(f"{REF} has more than {LARGEST_TOTAL >> 20} MB: older records are left there")
            break
        write_copy(home.path(f"builds/{name}"), found.content)
        added += 1
    warnings += [f"{name} of {REF} is refused: it {why}" for name, why in list(refused.items())[:3]]
    kept = {name: oid for name, oid in shared.records.items() if name not in refused}
    return Taken(shared._replace(records=kept), added, tuple(warnings))


def _told(ignored: tuple[str, ...]) -> tuple[str, ...]:
    count = f"{len(ignored)} {'entry' if len(ignored) == 1 else 'entries'}"
    return (f"{count} of {REF} belong to no history and are ignored, first {ignored[0]}",) if ignored else ()
