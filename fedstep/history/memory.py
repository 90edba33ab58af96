"""Reads and writes the caches of the log, and brings them up to date with records they have not seen."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from fedstep.build.record import Dropped
from fedstep.errors import HistoryError
from fedstep.history.entry import Entry
from fedstep.history.files import SUMMARY
from fedstep.history.home import Home
from fedstep.history.log import build_of
from fedstep.history.summary import Summary, fold, load_summary, save_summary

__all__ = ["Remembered", "forget_pruned", "generation", "read_summary", "recall", "store_summary", "unseen"]


class Remembered(NamedTuple):
    """The summary with every readable record folded in, and what had to be skipped."""

    summary: Summary
    warnings: tuple[str, ...] = ()


def recall(home: Home) -> Remembered:
    """The summary as it is known now; records that the cache has not seen are folded in, in memory only."""
    summary, warnings = read_summary(home), []
    for name, entry in unseen(home, summary):
        if isinstance(entry, Dropped):
            warnings.append(f"{entry.source} is skipped: {entry.reason}")
            summary = replace(summary, seen=summary.seen | {name})
        else:
            summary = fold(summary, name, entry)
    return Remembered(summary, tuple(warnings))


def read_summary(home: Home) -> Summary:
    """The cached summary; an empty one where there is none, or none that can be used: it is made again."""
    try:
        content = home.read(SUMMARY)
        return load_summary(content) if content else Summary()
    except HistoryError:
        return Summary()


def store_summary(home: Home, summary: Summary) -> None:
    """Replace the cached summary."""
    home.write(SUMMARY, save_summary(summary))


def unseen(home: Home, summary: Summary) -> Iterator[tuple[str, Entry | Dropped]]:
    """The records that the summary does not know, oldest first, each read when it is asked for; a build counts once."""
    known = {build_of(name) for name in summary.seen}
    fresh = {build_of(name): name for name in reversed(home.log.files()) if build_of(name) not in known}
    return home.log.entries(sorted(fresh.values()))


def forget_pruned(home: Home, summary: Summary) -> Summary:
    """The summary without the names of files that were pruned: those older than the oldest that is left."""
    oldest = next(iter(home.log.files()), "")
    return replace(summary, seen=frozenset(name for name in summary.seen if name >= oldest))


def generation(summary: Summary) -> str:
    """A name for the set of records a cache was made from: caches of different generations do not fit."""
    return sha256("\n".join(sorted(summary.seen)).encode()).hexdigest()[:16]
