"""Labels that become known later: an example is learned once, when its horizon is over, whatever its label.

Learning positives when they show and negatives when they are due would inflate every probability.
"""

from collections.abc import Iterable, Sequence
from math import isnan
from typing import NamedTuple

from fedstep.history.flakiness import Flip
from fedstep.history.records import Example
from fedstep.history.test_table import TestStats, TestTable, index_tests
from fedstep.schema.schema import schema

SILVER_WEIGHT = 0.5  # a silver flip may be a regression that was fixed elsewhere
UNSEEN_WEIGHT = 0.5  # of a failure of a test that was never seen to flip: half of its flakes are labelled regressions


class LabelledExample(NamedTuple):
    """An example with its label, 0 or 1 or log(seconds / estimate), and its weight in learning."""

    example: Example
    label: float
    weight: float = 1.0


def is_due(test_hash: int, runs: int, horizon: int) -> bool:
    """Return whether the test gives an example at this run: once a horizon, staggered by its hash.

    >>> [run for run in range(60) if is_due(7, run, 20)]
    [7, 27, 47]
    """
    return runs % horizon == test_hash % horizon


def renumber_runs(examples: Iterable[Example], tests: TestTable) -> list[Example]:
    """Return the examples of the build applied last, each with the index that its run has in this table.

    It differs from the index in the record where a concurrent build was applied in between, or where the table was made
    again from the records that pruning has left.
    """
    by_id = index_tests(tests)
    pairs = ((example, by_id.get(example.subject)) for example in examples)
    return [example if stats is None else example._replace(run=stats.runs - 1) for example, stats in pairs]


def resolve_labels(
    task: str, examples: Iterable[Example], tests: TestTable
) -> tuple[list[LabelledExample], list[Example]]:
    """Return the examples whose label is known by now, and those that have to wait.

    Of a test that waits only the first example is kept. Examples of forgotten tests are in neither list.
    """
    horizon = schema().tasks[task].horizon
    by_id = index_tests(tests) if horizon else {}
    labelled: list[LabelledExample] = []
    waiting: dict[str, Example] = {}
    for example in examples:
        if not isnan(example.target):
            labelled.append(LabelledExample(example, example.target))
        elif stats := by_id.get(example.subject):
            if stats.runs < example.run + horizon or _is_unjudged(task, example, stats):
                waiting.setdefault(example.subject, example)
            else:
                labelled.append(_label(task, example, stats))
    return labelled, list(waiting.values())


def _is_unjudged(task: str, example: Example, stats: TestStats) -> bool:
    """Return whether the example is a failure that no run has judged: only the next one in its own stream does."""
    newest = stats.last_failure == example.run
    return task == "triage" and newest and (stats.streak > 0 or stats.runs == example.run + 1)


def follows_proof(example: Example, stats: TestStats) -> bool:
    """Return whether the failure continues a proven flake: its spell is settled, and no later run judges it.

    It is learned as a break, which is careful (decision 0079), but that is no truth to score a prediction by.
    """
    index = len(stats.revealed) - (stats.runs - example.run)
    if index < 1 or stats.revealed[index] != Flip.NONE:
        return False
    before = stats.recent[:index]
    first = len(before.rstrip("fc"))
    return first < index and stats.revealed[first] == Flip.GOLD


def _label(task: str, example: Example, stats: TestStats) -> LabelledExample:
    letters = stats.revealed
    start = max(0, len(letters) - (stats.runs - example.run))
    flips = letters[start : start + schema().tasks[task].horizon]
    is_gold = Flip.GOLD in flips
    is_silver = Flip.SILVER in flips and not is_gold
    weight = SILVER_WEIGHT if is_silver and task == "flaky" else 1.0
    if task == "triage" and not is_gold and schema().tasks[task].first("flipped") not in example.indices:
        weight = UNSEEN_WEIGHT
    return LabelledExample(example, float(is_gold or is_silver), weight)


def count_subjects(examples: Sequence[LabelledExample]) -> int:
    """Return how many distinct tests or builds the examples are about."""
    return len({labelled.example.subject for labelled in examples})
