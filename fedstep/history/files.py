"""The files of a home, one line each: what it is, and what becomes of it where two copies of a history meet."""

from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "BACKLOG",
    "CORRECTION",
    "FILES",
    "IMPORTED",
    "LEARNED",
    "LOCK",
    "MODEL",
    "MODEL_NOTE",
    "OUTLOOK",
    "SENT",
    "SUMMARY",
    "TRAVEL",
    "TRAVELLING",
    "TURNS",
    "File",
]

BACKLOG, CORRECTION, SUMMARY, OUTLOOK = "backlog.json", "correction.json", "summary.json", "outlook.json"
MODEL, MODEL_NOTE, TURNS, SENT = "model.safetensors", "model.json", "contributed.json", "sent/log.jsonl"
TRAVEL, IMPORTED, LOCK = "travel.json", "imported", "learning.lock"


class File(NamedTuple):
    """A file or folder of a home, and how another machine's copy of it is taken over ("": not at all)."""

    path: str
    what: str
    taken: str = ""  # theirs, union; together: all of them or none; newer: the one that was asked for later
    alias: str = ""  # its name in the ref, where it has another one there


FILES = (
    File("key", "the project's secret", "theirs"),
    File("floor", "up to which record all are pruned", "newer"),
    File("builds", "the records, which everything else is learned from", "union"),
    File(BACKLOG, "rows without a label yet, and rows not yet sent", "together"),
    File(CORRECTION, "what the project has learned for itself", "together"),
    File(SUMMARY, "what the records say of each test", "together"),
    File(OUTLOOK, "what predictions start from", "together"),
    File(MODEL, "the model last pulled", "newer"),
    File(MODEL_NOTE, "where and when it was pulled", "newer"),
    File(TURNS, "what was given to an aggregator with differential privacy", "newer"),
    File(SENT, "everything that was ever sent", "union", alias="sent.jsonl"),
    File("sent", "beside it the bytes of the last ones"),
    File("outbox", "updates that are not acknowledged yet"),
    File(TRAVEL, "what is known of the ref"),
    File(IMPORTED, "what past builds were learned from"),
    File("marks", "when jobs began"),
    File(LOCK, "held by whoever learns"),
    File(".gitignore", "hides all this from git"),
)
LEARNED = tuple(file.path for file in FILES if file.taken == "together")
TRAVELLING = MappingProxyType(
    {file.alias or file.path: file.path for file in FILES if file.taken and file.path not in ("key", "floor", "builds")}
)
"""Beside key, floor and records: the name in the ref of each file that travels, and its path in the home."""
