"""The mute list of a repository, `.fedstep-mutes.toml`: failures that somebody has taken over until a date."""

import os
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from fedstep.errors import FedstepError, InputError

MUTES_FILE = ".fedstep-mutes.toml"
LARGEST_FILE = 1 << 20  # bytes; about 5,000 entries
KEYS = ("test", "owner", "reason", "until")
EXAMPLE = 'Write [[mute]] with test = "...", owner = "...", reason = "..." and until = 2030-12-31'


class Mute(NamedTuple):
    """One entry that counts: whose failures, who looks after them, why, and the last day on which it counts."""

    test: str  # identity or pattern: * and ? match any characters
    owner: str
    reason: str
    until: str  # ISO date


class Mutes(NamedTuple):
    """The entries that count today, and one sentence for each that does not."""

    entries: tuple[Mute, ...] = ()
    complaints: tuple[str, ...] = ()


class MuteList(NamedTuple):
    """A mute list, and why its file could not be used."""

    mutes: Mutes = Mutes()
    problems: tuple[FedstepError, ...] = ()


def read_mutes(root: str, today: str) -> MuteList:
    """The mute list at the repository root, empty where there is none; the error of a file that cannot be used."""
    try:
        with open(os.path.join(root, MUTES_FILE), "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return MuteList()
    except OSError as error:
        return MuteList(problems=(InputError(f"{MUTES_FILE} cannot be read, nothing is muted: {error.strerror}"),))
    try:
        return MuteList(parse_mutes(content, today))
    except InputError as error:
        return MuteList(problems=(error,))


def parse_mutes(content: bytes, today: str) -> Mutes:
    """The entries of a mute list. `today` is an ISO date. Raises InputError for what is no list of entries.

    An entry counts when it names a test, an owner, a reason and a date, up to and with that date.
    """
    import tomllib  # 15 ms, for those who have a list

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
    entries = [(number, _entry(item), _unknown(item)) for number, item in enumerate(listed, 1)]
    complaints = tuple(_complaint(number, mute, unknown, today) for number, mute, unknown in entries)
    counting = (mute for (_, mute, _), said in zip(entries, complaints, strict=True) if not said)
    return Mutes(tuple(counting), tuple(filter(None, complaints)))


def find_mute(test: str, mutes: Mutes) -> tuple[Mute, ...]:
    """The first entry that names this test, by its identity or by a pattern; none where no entry does.

    >>> find_mute("shop.CartTest#pays", Mutes((Mute("shop.*#pays", "ada", "#7", "2030-12-31"),)))[0].owner
    'ada'
    """
    return tuple(mute for mute in mutes.entries if mute.test == test or fnmatchcase(test, _pattern(mute.test)))[:1]


def _pattern(text: str) -> str:
    """Brackets are letters here: parameters of a test stand in them, and no set of characters."""
    return text.replace("[", "[[]")


def _entry(item: Mapping[str, object]) -> Mute:
    """What is written; "" for what is not there or of another type. TOML has dates of its own."""
    until = item.get("until")
    day = until.isoformat()[:10] if isinstance(until, date | datetime) else _day(until)
    test, owner, reason = (str(item[key]).strip() if isinstance(item.get(key), str) else "" for key in KEYS[:3])
    return Mute(test, owner, reason, day)


def _day(text: object) -> str:
    try:
        return date.fromisoformat(text).isoformat() if isinstance(text, str) else ""
    except ValueError:
        return ""


def _unknown(item: Mapping[str, object]) -> str:
    return ", ".join(sorted(set(item) - set(KEYS)))


def _complaint(number: int, mute: Mute, unknown: str, today: str) -> str:
    """Why an entry does not count; "" when it does."""
    whose = f" of {mute.owner}" if mute.owner else ""
    entry = f"{MUTES_FILE}: entry {number}, {mute.test or 'without a test'}{whose},"
    missing = ", ".join(_missing(mute))
    if missing or unknown:
        wrong = f"it has no {missing}" if missing else f"it has the unknown key {unknown}"
        return f"{entry} does not count: {wrong}. An entry needs test, owner, reason and until (YYYY-MM-DD)"
    if mute.until < today:
        return f"{entry} ended on {mute.until} and counts no longer. Fix the test and delete the entry, or renew it"
    return ""


def _missing(mute: Mute) -> Iterator[str]:
    return (key for key, value in zip(KEYS, mute, strict=True) if not value)
