"""What people decided about tests, in files of the repository: known failures and accepted times.

`.fedstep-mutes.toml` is the mute list: failures, each with an owner and an end date. `.fedstep-acks.toml` has the
acknowledged changes of time. They are in the repository and not in the history: a CI's history is a cache that a
developer's machine cannot write to, and a file is reviewed as any other change.
"""

import os
import re
from collections.abc import Container, Iterator, Mapping
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from fedstep.errors import MALFORMED, FedstepError, InputError
from fedstep.files import check_regular, read_bounded
from fedstep.ingest.test_identity import earlier_ids
from fedstep.types import TimeChange

MUTES_FILE = ".fedstep-mutes.toml"
LARGEST_FILE = 1 << 20  # bytes; about 5,000 entries
NEW_IS_NOT_MUTED = "has no history: the mute list does not count for it yet"
QUARANTINED = "quarantined by "  # how the pytest plugin begins the reason of such a failure
KEYS = ("test", "owner", "reason", "until")
EXAMPLE = 'Write [[mute]] with test = "...", owner = "...", reason = "..." and until = 2030-12-31'


class Mute(NamedTuple):
    """One entry of the mute list."""

    test: str  # identity or pattern: * and ? match any characters
    owner: str
    reason: str
    until: str  # ISO date: the last day on which the entry is valid


class Mutes(NamedTuple):
    """The entries that are valid today, and one sentence for each that is not."""

    entries: tuple[Mute, ...] = ()
    complaints: tuple[str, ...] = ()


class MuteList(NamedTuple):
    """A mute list, and why its file could not be used."""

    mutes: Mutes = Mutes()
    problems: tuple[FedstepError, ...] = ()


def read_mutes(root: str, today: str) -> MuteList:
    """Return the mute list at the repository root, empty where there is none, with the error of an unusable file."""
    try:
        content = read_bounded(os.path.join(root, MUTES_FILE), LARGEST_FILE)
    except FileNotFoundError:
        return MuteList()
    except OSError as error:
        return MuteList(problems=(InputError(f"{MUTES_FILE} cannot be read, nothing is muted: {error.strerror}"),))
    try:
        return MuteList(parse_mutes(content, today))
    except InputError as error:
        return MuteList(problems=(error,))


def parse_mutes(content: bytes, today: str) -> Mutes:
    """Return the entries of a mute list; `today` is an ISO date. Raise InputError for another kind of file.

    An entry is valid if it names a test, an owner, a reason and a date that is not over.
    """
    import tomllib  # 15 ms, which only projects with a mute list pay

    if len(content) > LARGEST_FILE:
        raise InputError(
            f"{MUTES_FILE} is larger than {LARGEST_FILE >> 20} MiB, nothing is muted", "Delete what is fixed"
        )
    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{MUTES_FILE} is no TOML, nothing is muted: {error}", EXAMPLE) from error
    listed = table.get("mute", [])
    if set(table) - {"mute"} or not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise InputError(f"{MUTES_FILE} is no list of [[mute]] tables, nothing is muted", EXAMPLE)
    mutes = [_parse_entry(item) for item in listed]
    complaints = [
        _find_complaint(position, mute, _unknown_keys(item), today)
        for position, (mute, item) in enumerate(zip(mutes, listed, strict=True), 1)
    ]
    valid = (mute for mute, complaint in zip(mutes, complaints, strict=True) if not complaint)
    return Mutes(tuple(valid), tuple(filter(None, complaints)))


def find_mute(test: str, mutes: Mutes, taken: Container[str] = ()) -> tuple[Mute, ...]:
    """Return the first entry that matches this test's identity, alone in a tuple; an empty tuple where none does.

    An entry also matches the tests that had its id before their suite or variant became a part of theirs, unless it is
    one of `taken`: the ids that other tests have.

    >>> find_mute("shop.CartTest#pays", Mutes((Mute("shop.*#pays", "ada", "#7", "2030-12-31"),)))[0].owner
    'ada'
    """
    names = (test, *(earlier for earlier in earlier_ids(test) if earlier not in taken))
    return tuple(mute for mute in mutes.entries if any(_matches(mute.test, name) for name in names))[:1]


def _matches(pattern: str, test: str) -> bool:
    return pattern == test or fnmatchcase(test, _pattern(pattern))


def add_mute(root: str, mute: Mute) -> None:
    """Append an entry to the list at the repository root, and leave the rest of the file as it is.

    Raises:
        InputError: The file cannot be written.
    """
    texts = (f"{key} = {quote_toml(value)}\n" for key, value in zip(KEYS[:3], mute[:3], strict=True))
    path = os.path.join(root, MUTES_FILE)
    try:
        check_regular(path)
        with open(path, "a+", encoding="utf-8") as file:
            file.seek(0)
            before = file.read()
            gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
            file.write(f"{gap}[[mute]]\n{''.join(texts)}until = {mute.until}\n")
    except OSError as error:
        raise InputError(f"{MUTES_FILE} cannot be written: {error.strerror}") from error


def quote_toml(text: str) -> str:
    """Return the text as a basic string of TOML: JSON's, but for DEL and for surrogates, which no TOML can have."""
    from json import dumps

    whole = text.encode("utf-8", "backslashreplace").decode()
    return dumps(whole, ensure_ascii=False).replace("\x7f", "\\u007f")


def remove_mute(root: str, test: str) -> bool:
    """Delete the entries of this test or pattern; return whether there was one. Other entries stay as they are.

    Raises:
        InputError: The file cannot be read or written, or is no TOML.
    """
    import tomllib

    path = os.path.join(root, MUTES_FILE)
    try:
        check_regular(path)
        content = read_bounded(path, LARGEST_FILE).decode()
        head, *blocks = re.split(r"(?m)^(?=\[\[mute\]\])", content)
        kept = [block for block in blocks if tomllib.loads(block)["mute"][0].get("test") != test]
        if len(kept) < len(blocks):
            with open(path, "w", encoding="utf-8") as file:
                file.write(head + "".join(kept))
        return len(kept) < len(blocks)
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise InputError(f"{MUTES_FILE} cannot be changed: {error}", EXAMPLE) from error


def _pattern(text: str) -> str:
    """Return the pattern with brackets escaped: they enclose a test's parameters, not a set of characters."""
    return text.replace("[", "[[]")


def _parse_entry(item: Mapping[str, object]) -> Mute:
    """Return the entry with "" for what is missing or of another type. A date may be a TOML date or a string."""
    until = item.get("until")
    day = until.isoformat()[:10] if isinstance(until, date | datetime) else _parse_day(until)
    test, owner, reason = (str(item[key]).strip() if isinstance(item.get(key), str) else "" for key in KEYS[:3])
    return Mute(test, owner, reason, day)


def _parse_day(text: object) -> str:
    try:
        return date.fromisoformat(text).isoformat() if isinstance(text, str) else ""
    except ValueError:
        return ""


def _unknown_keys(item: Mapping[str, object]) -> str:
    return ", ".join(sorted(set(item) - set(KEYS)))


def _find_complaint(position: int, mute: Mute, unknown: str, today: str) -> str:
    """Return why an entry is not valid; "" when it is."""
    owner = f" of {mute.owner}" if mute.owner else ""
    entry = f"{MUTES_FILE}: entry {position}, {mute.test or 'without a test'}{owner},"
    missing = ", ".join(_missing(mute))
    if missing or unknown:
        wrong = f"it has no {missing}" if missing else f"it has the unknown key {unknown}"
        return f"{entry} does not count: {wrong}. An entry needs test, owner, reason and until (YYYY-MM-DD)"
    if mute.until < today:
        return f"{entry} ended on {mute.until} and counts no longer. Fix the test and delete the entry, or renew it"
    return ""


def _missing(mute: Mute) -> Iterator[str]:
    return (key for key, value in zip(KEYS, mute, strict=True) if not value)


ACKS_FILE = ".fedstep-acks.toml"


class Acknowledgement(NamedTuple):
    """One entry: a test or job whose time was accepted on a day."""

    subject: str
    on: str  # ISO date; changes that began later are new
    note: str = ""


def read_acknowledgements(root: str) -> tuple[Acknowledgement, ...]:
    """Return the entries at the repository root, none without a file. Raise InputError if it cannot be used."""
    import tomllib  # 15 ms, which only projects with such a file pay

    try:
        entries = tomllib.loads(read_bounded(os.path.join(root, ACKS_FILE), LARGEST_FILE).decode()).get("ack", [])
        return tuple(Acknowledgement(str(ack["subject"]), str(ack["on"]), str(ack.get("note", ""))) for ack in entries)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"{ACKS_FILE} cannot be read: {error.strerror}") from error
    except MALFORMED as error:
        remedy = 'Write [[ack]] with subject = "..." and on = "2030-12-31", or run fedstep ack'
        raise InputError(f"{ACKS_FILE} is no list of [[ack]] tables: {error}", remedy) from error


def add_acknowledgement(root: str, entry: Acknowledgement) -> None:
    """Append an entry to the file. Raise InputError if it cannot be written."""
    fields = (f"{name} = {quote_toml(value)}\n" for name, value in entry._asdict().items() if value)
    try:
        path = os.path.join(root, ACKS_FILE)
        check_regular(path)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"\n[[ack]]\n{''.join(fields)}")
    except OSError as error:
        raise InputError(f"{ACKS_FILE} cannot be written: {error.strerror}") from error


def is_acknowledged(change: TimeChange, entries: tuple[Acknowledgement, ...]) -> bool:
    """Return whether an entry accepts this change: one for its subject, from the day on which it was found or later."""
    found_on = date.fromtimestamp(change.found_at).isoformat()
    return any(entry.subject == change.subject and entry.on >= found_on for entry in entries)
