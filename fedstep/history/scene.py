"""What a build's failures have in common, weighed: one scene a build, for the labels and for the features."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fedstep.build.record import FileChange
from fedstep.build.relation import Touched, group_of, package_of, touched
from fedstep.history.evidence import (
    Base,
    Shares,
    base_of,
    capacity,
    companions,
    of_change,
    of_companions,
    of_past,
    of_repeats,
    shares_of,
)
from fedstep.history.table import TestTable, numbers

__all__ = ["PACE", "Scene", "scene_of"]

PACE = 1 / 100  # of the decayed sums of flips and spells


class Scene(NamedTuple):
    """A build, seen from the table before it: what is usual, what the change touches, what else began to fail."""

    base: Base
    shares: Shares
    touched: Touched | None  # None: the change is not known
    fresh: Counter[tuple[str, str]]  # tests that begin to fail and never failed before

    def relation(self, test: str) -> str | None:
        """The relation of the change to the test, None where the change is not known."""
        return self.touched.relation(test) if self.touched else None

    def past(self, table: TestTable, number: int) -> float:
        """The evidence of how often the test flipped."""
        spells, runs = table.spells_100[number], capacity(table.runs[number], PACE)
        return of_past(self.base, table.ids[number], table.flipped_100[number], spells, runs)

    def repeats(self, table: TestTable, number: int, repeats: int) -> float:
        """The evidence of so many failures after the first of the test's open spell."""
        streak = table.streak[number]
        return of_repeats(repeats, table.failures[number] - streak, table.runs[number] - streak)

    def change(self, test: str) -> float:
        """The evidence of the change."""
        return of_change(self.relation(test), self.shares)

    def companions(self, test: str) -> float:
        """The evidence of the tests of other classes that begin to fail."""
        package = package_of(test)
        return of_companions(self.fresh[package, ""] - self.fresh[package, group_of(test)])


def scene_of(table: TestTable, failing: Iterable[str], files: Sequence[FileChange] | None) -> Scene:
    """The scene of a build in which these tests fail; the table has a row for each. `files` None: change not known."""
    rows = numbers(table)
    fresh = [test for test in failing if not table.streak[rows[test]] and not table.failures[rows[test]]]
    capacities = {runs: capacity(runs, PACE) for runs in set(table.runs)}
    base = base_of(table.ids, table.flipped_100, table.spells_100, [capacities[runs] for runs in table.runs])
    known = None if files is None else touched(files)
    return Scene(base, shares_of(known or touched(()), base.class_runs), known, companions(fresh))
