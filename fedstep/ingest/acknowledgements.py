"""The acknowledged changes of time of a repository, `.fedstep-acks.toml`: they are known and not reported any more.

In the repository and not in the history: a CI's history is a cache that a developer's machine cannot write to, and a
file is reviewed as any other change.
"""

import os
from datetime import date
from typing import NamedTuple

from fedstep.errors import InputError
from fedstep.ingest.mutes import quote_toml
from fedstep.types import TimeChange

ACKS_FILE = ".fedstep-acks.toml"
LARGEST = 1 << 20  # bytes


class Acknowledgement(NamedTuple):
    """One entry: a test or job whose time was accepted on a day."""

    subject: str
    on: str  # ISO date; changes that began later are new
    note: str = ""


def read_acknowledgements(root: str) -> tuple[Acknowledgement, ...]:
    """Return the entries at the repository root, none without a file. Raise InputError if it cannot be used."""
    import tomllib  # 15 ms, which only projects with such a file pay

    try:
        with open(os.path.join(root, ACKS_FILE), "rb") as file:
            entries = tomllib.loads(file.read(LARGEST).decode()).get("ack", [])
        return tuple(Acknowledgement(str(one["subject"]), str(one["on"]), str(one.get("note", ""))) for one in entries)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"{ACKS_FILE} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        remedy = 'Write [[ack]] with subject = "..." and on = "2030-12-31", or run fedstep ack'
        raise InputError(f"{ACKS_FILE} is no list of [[ack]] tables: {error}", remedy) from error


def add_acknowledgement(root: str, entry: Acknowledgement) -> None:
    """Append an entry to the file. Raise InputError if it cannot be written."""
    fields = (f"{name} = {quote_toml(value)}\n" for name, value in entry._asdict().items() if value)
    try:
        with open(os.path.join(root, ACKS_FILE), "a", encoding="utf-8") as file:
            file.write(f"\n[[ack]]\n{''.join(fields)}")
    except OSError as error:
        raise InputError(f"{ACKS_FILE} cannot be written: {error.strerror}") from error


def is_acknowledged(change: TimeChange, entries: tuple[Acknowledgement, ...]) -> bool:
    """Return whether an entry accepts this change: one for its subject, from the day on which it was found or later."""
    found = date.fromtimestamp(change.found_at).isoformat()
    return any(entry.subject == change.subject and entry.on >= found for entry in entries)
