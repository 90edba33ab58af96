"""Labels that ripen: a row is learned once, when its horizon is over, whatever its label.

Learning positives when they show and negatives when they are due would inflate every probability.
"""

from collections.abc import Iterable, Sequence
from math import isnan
from typing import NamedTuple

from fedstep.history.flakiness import GOLD, SILVER
from fedstep.history.records import Example
from fedstep.history.test_table import TestTable, numbers
from fedstep.schema.schema import schema

SILVER_WEIGHT = 0.5  # a silver flip may be a regression that was fixed elsewhere


class LabelledExample(NamedTuple):
    """A row with its label: 0 or 1, or log(seconds / estimate); and how much it counts."""

    row: Example
    label: float
    weight: float = 1.0


def is_due(test_hash: int, runs: int, horizon: int) -> bool:
    """Whether the test gives a row at this run: once a horizon, staggered by its hash.

    >>> [run for run in range(60) if is_due(7, run, 20)]
    [7, 27, 47]
    """
    return runs % horizon == test_hash % horizon


def renumber_runs(rows: Iterable[Example], table: TestTable) -> list[Example]:
    """The rows of the build folded in last, each with the number that its run has in this table.

    It differs from the number noted in the record where a concurrent build was folded in between, or where the table
    was made again from the records that pruning has left.
    """
    places = numbers(table)
    known = ((row, places.get(row.subject)) for row in rows)
    return [row if number is None else row._replace(run=table.runs[number] - 1) for row, number in known]


def resolve_labels(task: str, rows: Iterable[Example], table: TestTable) -> tuple[list[LabelledExample], list[Example]]:
    """The rows whose label is known by now, and those that have to wait: one a test, the first one given.

    Rows of forgotten tests are in neither.
    """
    horizon = schema().tasks[task].horizon
    places = numbers(table) if horizon else {}
    ripe: list[LabelledExample] = []
    waiting: dict[str, Example] = {}
    for row in rows:
        if not isnan(row.target):
            ripe.append(LabelledExample(row, row.target))
        elif row.subject not in places:
            continue
        elif table.runs[places[row.subject]] < row.run + horizon or _is_open(task, row, table, places[row.subject]):
            waiting.setdefault(row.subject, row)
        else:
            ripe.append(_labelled(task, row, table, places[row.subject]))
    return ripe, list(waiting.values())


def _is_open(task: str, row: Example, table: TestTable, number: int) -> bool:
    """A failure is judged by the run after it, in its own stream of a matrix: until then nothing is known of it."""
    newest = table.last_failure[number] == row.run
    return task == "triage" and newest and (table.streak[number] > 0 or table.runs[number] == row.run + 1)


def _labelled(task: str, row: Example, table: TestTable, number: int) -> LabelledExample:
    letters = table.revealed[number]
    place = max(0, len(letters) - (table.runs[number] - row.run))
    shown = letters[place : place + schema().tasks[task].horizon]
    silver = SILVER in shown and GOLD not in shown
    return LabelledExample(row, float(GOLD in shown or silver), SILVER_WEIGHT if silver and task == "flaky" else 1.0)


def count_subjects(rows: Sequence[LabelledExample]) -> int:
    """How many distinct tests or builds the rows are about."""
    return len({ripe.row.subject for ripe in rows})
