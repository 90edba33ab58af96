"""Gives the rows of renamed tests to their new ids."""

from collections.abc import Sequence

from fedstep.history.entry import Entry
from fedstep.history.identity import renames
from fedstep.history.table import NEVER, TestTable, name_words

__all__ = ["follow"]


def follow(table: TestTable, rows: dict[str, int], entry: Entry, new: Sequence[str]) -> None:
    """Give the rows of tests that were renamed to their new ids; an id that was left stands for its row.

    Both the table, which is being made, and `rows`, the row of each id, are brought up to date.
    """
    ran = {run.test for run in entry.tests}
    # Gone is what ran together with these, and not what only another job runs.
    latest = {table.seen[rows[test]] for test in ran if test in rows} or {max(table.seen, default=NEVER)}
    gone = [test for test, last in zip(table.ids, table.seen, strict=True) if last in latest and test not in ran]
    if not gone:
        return
    left = {former: number for number, former in enumerate(table.former) if former}
    returning = {test: table.ids[left[test]] for test in new if test in left and table.ids[left[test]] not in ran}
    for old, test in renames(table.ids, ran, gone, entry.files, returning).items():
        number = rows[test] = rows.pop(old)
        table.ids[number], table.former[number] = test, old
        table.name_words[number] = name_words(test)
    rows |= {test: rows[now] for test, now in returning.items() if now in rows}
