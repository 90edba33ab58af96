"""Which tests began to fail when a file or a folder changed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from fedstep.history.flakiness import is_incident
from fedstep.history.records import BuildRecord
from fedstep.history.test_table import TestTable

MOST_PATHS = 50  # of one change; a larger one says little about each of its files
MOST_KEPT = 3000  # files and folders; of more, those that failed longest ago are forgotten


class Cofailures(NamedTuple):
    """A file or folder since the first failure with it: how often it changed, and which tests began to fail then."""

    changes: int
    failed: Mapping[str, int]


CofailureTable = Mapping[str, Cofailures]  # by path; that of a folder ends with "/"


def changed_places(paths: Iterable[str]) -> list[str]:
    """Return the changed files and their folders, none for a change of more than 50 files.

    >>> changed_places(["src/cart.py"])
    ['src/cart.py', 'src/']
    """
    files = list(dict.fromkeys(paths))
    if len(files) > MOST_PATHS:
        return []
    return [*files, *dict.fromkeys(f"{path.rpartition('/')[0]}/" for path in files)]


def apply_failures(table: CofailureTable, record: BuildRecord, before: TestTable) -> CofailureTable:
    """Return the table after one more build; `before` is the table of tests before it.

    A test counts in the build in which it begins to fail, not while it goes on failing; nothing counts in an incident.
    """
    places = changed_places(file.path for file in record.files)
    if not places:
        return table
    began = list(_began_to_fail(record, before))
    after = dict(table)
    for path in places:
        known = after.get(path)
        if known is None and not began:
            continue
        failed = dict(known.failed) if known else {}
        for test in began:
            failed[test] = failed.get(test, 0) + 1
        if began:
            after.pop(path, None)  # the newest last
        after[path] = Cofailures((known.changes if known else 0) + 1, failed)
    for path in list(after)[: max(0, len(after) - MOST_KEPT)]:
        del after[path]
    return after


def _began_to_fail(record: BuildRecord, before: TestTable) -> Iterator[str]:
    if is_incident(record.tests):
        return
    for run in record.tests:
        if run.outcome in "fc":
            stats = before.get(run.test)
            if stats is None or not stats.streak:
                yield run.test


def pack_cofailures(table: CofailureTable) -> dict[str, list[object]]:
    """Return the table as JSON values."""
    return {path: [counts.changes, dict(counts.failed)] for path, counts in table.items()}


def unpack_cofailures(fields: Mapping[str, list[object]]) -> CofailureTable:
    """Return the table of `pack_cofailures`. Raise ValueError or TypeError for other values."""
    table = {}
    for path, (changes, failed) in fields.items():
        counts = {str(test): int(count) for test, count in dict(failed).items()}  # type: ignore[call-overload]
        table[str(path)] = Cofailures(int(changes), counts)  # type: ignore[call-overload]
    return table
