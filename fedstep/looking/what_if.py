"""What would change a verdict: the model asked again about the same test after a single change."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, repeat
from typing import NamedTuple

from fedstep.build.record import NO_SECONDS, BuildOutcome, Outcome, TestRun
from fedstep.features.flaky import flaky_columns, row_of, typical_seconds
from fedstep.features.parts import Part, Raw, Value, Words
from fedstep.features.schema import schema
from fedstep.history.entry import Entry
from fedstep.history.summary import Summary
from fedstep.history.tests import NEVER, TestTable, fold_tests
from fedstep.report.explained import WhatIf

__all__ = ["Subject", "what_ifs"]

PASSES = (1, 2, 3, 5, 8, 12, 20, 30, 45, 70, 100, 150, 200)
FEW_PASSES = 20  # told of where no number of passes would change the verdict
MOST_WORDS = 3
WITHOUT = "without the word"
QUICK = 0.1  # seconds
WORTH_TELLING = 0.005  # of the probability

Chance = Callable[[Raw], float]
"""The probability for raw values of the flaky head by part name."""


class Subject(NamedTuple):
    """The test in question: the history, its row in the table of tests, its raw values as they are."""

    summary: Summary
    number: int
    values: Raw

    @property
    def table(self) -> TestTable:
        """The table of all tests."""
        return self.summary.tests


def what_ifs(subject: Subject, chance: Chance, is_named: Callable[[float], bool]) -> tuple[WhatIf, ...]:
    """Single changes, each with the probability that the model would give: more runs first, then other features.

    While a run is added all other tests stay as they are.
    """
    named = is_named(chance(subject.values))
    changes = chain(_passes(subject, chance, is_named, named), _failures(subject, chance), _features(subject, chance))
    return tuple(WhatIf(says, probability, is_named(probability)) for says, probability in changes)


def _passes(
    subject: Subject, chance: Chance, is_named: Callable[[float], bool], named: bool
) -> Iterator[tuple[str, float]]:
    """After the first number of passes that changes the verdict; where none does, after a few.

    A table of 5,000 tests takes 20 ms: not every number is tried. Between the last that did not change it and the first
    that did, halving finds one that does where one pass fewer does not.
    """
    run, known = _runner(subject), {0: subject.table}

    def after(passes: int) -> float:
        start = max(number for number in known if number <= passes)
        *_, known[passes] = accumulate(repeat(Outcome.PASSED, passes - start), run, initial=known[start])
        return chance(_values(known[passes], subject.number))

    right = next((passes for passes in PASSES if is_named(after(passes)) != named), 0)
    left = max((passes for passes in PASSES if passes < right), default=0)
    while right - left > 1:
        middle = (left + right) // 2
        left, right = (middle, right) if is_named(after(middle)) == named else (left, middle)
    passes = right or FEW_PASSES
    yield f"after {passes} more {'pass' if passes == 1 else 'passes'}", after(passes)


def _failures(subject: Subject, chance: Chance) -> Iterator[tuple[str, float]]:
    cases = (
        ("after one failure", (Outcome.FAILED,)),
        ("after one failure and a pass, nothing related changed", (Outcome.FAILED, Outcome.PASSED)),
        ("after a failure that passes when it is rerun (a gold flip)", (Outcome.FLAKED,)),
    )
    for says, outcomes in cases:
        *_, last = accumulate(outcomes, _runner(subject), initial=subject.table)
        yield says, chance(_values(last, subject.number))


def _features(subject: Subject, chance: Chance) -> Iterator[tuple[str, float]]:
    before, parts = chance(subject.values), schema().heads["flaky"].parts
    found = chain.from_iterable(_of_part(subject, chance, part, subject.values[part.name]) for part in parts)
    return (
        (says, chance_then)
        for says, chance_then in found
        if abs(chance_then - before) >= WORTH_TELLING and not (says.startswith(WITHOUT) and chance_then > before)
    )


def _of_part(subject: Subject, chance: Chance, part: Part, value: Value) -> Iterator[tuple[str, float]]:
    """Without each of the words that would leave it lowest; of two other parts what would be best."""
    if isinstance(part, Words) and isinstance(value, Sequence) and not isinstance(value, str):
        listed, where = tuple(part.index), "name" if part.name == "name" else "source"
        without = (
            (chance({**subject.values, part.name: tuple(other for other in value if other != word)}), word)
            for word in value
        )
        for lower, word in sorted(without)[:MOST_WORDS]:
            yield f"{WITHOUT} {listed[word]} in its {where}", lower
    elif part.name == "classmates-flip-rate" and value:
        yield "if no other test of its class flipped", chance({**subject.values, part.name: 0.0})
    elif part.name == "seconds" and isinstance(value, float) and value > QUICK:
        yield f"if it took {QUICK:g} s", chance({**subject.values, part.name: QUICK})


def _runner(subject: Subject) -> Callable[[TestTable, Outcome], TestTable]:
    """A function from a table to the table after one more run of the test, in the stream in which it failed last."""
    test = subject.table.ids[subject.number]
    seconds = typical_seconds(subject.table, subject.number) or NO_SECONDS
    stream = subject.table.failed_in[subject.number]

    def run(table: TestTable, outcome: Outcome) -> TestTable:
        runs = (TestRun(test, outcome, seconds),)
        entry = Entry("", 0.0, 0.0, NO_SECONDS, stream, BuildOutcome.PASSED, change_known=True, tests=runs)
        return fold_tests(table, entry, NEVER, subject.summary.count)

    return run


def _values(table: TestTable, number: int) -> Raw:
    return row_of(flaky_columns(table), number)
