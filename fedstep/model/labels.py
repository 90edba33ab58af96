"""Labels that ripen: a row is learned once, when its horizon is over, whatever its label.

Learning positives when they show and negatives when they are due would inflate every probability.
"""

from collections.abc import Iterable, Sequence
from math import isnan
from typing import NamedTuple

from fedstep.features.schema import schema
from fedstep.history.entry import Row
from fedstep.history.tests import TestTable

__all__ = ["SILVER_WEIGHT", "Ripe", "is_due", "ripen"]

SILVER_WEIGHT = 0.5  # a silver flip may be a regression that was fixed elsewhere


class Ripe(NamedTuple):
    """A row with its label: 0 or 1, or log(seconds / estimate); and how much it counts."""

    row: Row
    label: float
    weight: float = 1.0


def is_due(test_hash: int, runs: int, horizon: int) -> bool:
    """Whether the test gives a row at this run: once a horizon, staggered by its hash.

    >>> [run for run in range(60) if is_due(7, run, 20)]
    [7, 27, 47]
    """
    return runs % horizon == test_hash % horizon


def ripen(head: str, rows: Iterable[Row], table: TestTable) -> tuple[list[Ripe], list[Row]]:
    """The rows whose label is known by now, and those that have to wait. Rows of forgotten tests are in neither."""
    horizon = schema().heads[head].horizon
    numbers = {test: number for number, test in enumerate(table.ids)}
    ripe: list[Ripe] = []
    waiting: list[Row] = []
    for row in rows:
        if not isnan(row.target):
            ripe.append(Ripe(row, row.target))
        elif row.subject not in numbers:
            continue
        elif table.runs[numbers[row.subject]] < row.run + horizon + _grace(head):
            waiting.append(row)
        else:
            ripe.append(_labelled(head, row, table, numbers[row.subject]))
    return ripe, waiting


def _grace(head: str) -> int:
    """A failure is judged by the run after it, so a triage row needs one run more than its own."""
    return 1 if head == "triage" else 0


def _labelled(head: str, row: Row, table: TestTable, number: int) -> Ripe:
    flip, gold = table.last_flip[number], table.last_gold[number]
    if head == "triage":
        flipped, certain = flip == row.run, gold == row.run
    else:
        flipped, certain = flip >= row.run, gold >= row.run
    return Ripe(row, float(flipped), 1.0 if certain or not flipped else SILVER_WEIGHT)


def groups(rows: Sequence[Ripe]) -> int:
    """How many distinct subjects the rows are about; rows about builds count one each."""
    return len({ripe.row.subject or (index,) for index, ripe in enumerate(rows)})
