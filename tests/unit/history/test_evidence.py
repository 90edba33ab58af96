"""Facts about evidence: what speaks for a flake is positive, and more of it never speaks less."""

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.history.flakiness import (
    change_evidence,
    change_shares,
    companion_evidence,
    count_companions,
    failure_context,
    new_companion_evidence,
    past_evidence,
    project_baseline,
    repeat_evidence,
)
from fedstep.history.test_table import TestStats
from fedstep.ingest.change_impact import analyze_change
from fedstep.types import FileChange, Outcome, TestRun

QUIET = [f"org.p{n}.A{n}Test#t" for n in range(20)]


def past(flips: float, spells: float, mates: float = 0.0) -> float:
    ids = [*QUIET, "org.foo.BarTest#a", "org.foo.BarTest#b"]
    flipped = [0.0] * 20 + [flips, mates]
    base = project_baseline(ids, flipped, [*flipped[:20], spells, mates], [50.0] * 22)
    return past_evidence(base, "org.foo.BarTest#a", flips, spells, 50.0)


class TestFlips:
    def test_flips_speak_for_a_flake_and_a_quiet_past_against_one(self) -> None:
        assert past(0, 0) < 0 < past(1, 1) < past(5, 5)

    def test_spells_that_were_no_flips_count_less_than_flips(self) -> None:
        base = project_baseline(QUIET, *([0.0] * 20, [0.0] * 20, [50.0] * 20))
        none, spells, flips = (
            past_evidence(base, QUIET[0], *counts, 50.0) for counts in ((0.0, 0.0), (0.0, 2.0), (2.0, 2.0))
        )
        assert none < spells < flips

    def test_flips_of_class_mates_speak_for_a_flake(self) -> None:
        assert past(0, 0) < past(0, 0, mates=4)

    def test_a_broken_test_stays_broken_and_a_flake_does_not(self) -> None:
        assert repeat_evidence(0, 0, 50) == 0.0
        assert repeat_evidence(2, 0, 50) < repeat_evidence(1, 0, 50) < 0
        assert repeat_evidence(1, 40, 50) == 0.0


class TestChanges:
    @pytest.mark.parametrize(("path", "classes"), [("src/org/foo/Bar.java", 100), ("src/org/foo/Else.java", 100)])
    def test_change_naming_one_class_says_more_than_all_classes(self, path: str, classes: int) -> None:
        """A change that names one class of many says more than one that names all."""
        change = analyze_change([FileChange(path)])
        relation = change.relation("org.foo.BarTest#a")
        many = change_shares(change, ["org.foo.BarTest", *(f"org.p{n}.A{n}Test" for n in range(classes))])
        alone = change_shares(change, ["org.foo.BarTest"])
        assert change_evidence(relation, many) < -1.0
        assert -0.4 < change_evidence(relation, alone) < 0.0

    def test_change_elsewhere_speaks_for_a_flake(self) -> None:
        """A change elsewhere speaks for a flake, and an unknown one for nothing."""
        shares = change_shares(analyze_change(()), ["a"])
        assert change_evidence("elsewhere", shares) == change_evidence("nothing", shares) > 0.0
        assert change_evidence(None, shares) == 0.0
        assert change_evidence("build-file", shares) < 0.0

    def test_companions_are_counted_by_package_and_class(self) -> None:
        counts = count_companions(["org.foo.A#x", "org.foo.A#y", "org.foo.B#x", "org.bar.C#x"])
        assert (counts["org/foo", ""], counts["org/foo", "org.foo.A#"], counts["org/bar", ""]) == (3, 2, 1)
        assert companion_evidence(0) == 0.0
        assert companion_evidence(9) == companion_evidence(4) < companion_evidence(1) < 0.0

    @pytest.mark.parametrize(("test", "relation"), [("#adds", None), ("shop.cart#adds", "elsewhere")])
    def test_where_a_test_without_a_class_is_nobody_knows(self, test: str, relation: str | None) -> None:
        """'This change touches other files only' was said of tests in TAP, and counted for a flake."""
        context = failure_context({test: TestStats(test)}, [TestRun(test, Outcome.FAILED)], [FileChange("docs/a.md")])
        assert context.relation(test) == relation

    @pytest.mark.parametrize("test", ["#adds", "cart#adds", "shop.cart#adds"])
    def test_a_test_that_fails_alone_has_no_companion(self, test: str) -> None:
        """A test without a class, as in TAP, was its own: 'other tests of its package began to fail with it'."""
        assert failure_context({test: TestStats(test)}, [TestRun(test, Outcome.FAILED)], None).companions(test) == 0.0

    def test_companions_say_more_while_nothing_else_is_known(self) -> None:
        """In the build in which a test fails one companion says more than once a later run judges the failure."""
        assert new_companion_evidence(0) == 0.0
        assert new_companion_evidence(1) < companion_evidence(1)
        assert new_companion_evidence(1) < new_companion_evidence(0, class_mates=1) < 0.0
        assert new_companion_evidence(0, class_mates=9) == new_companion_evidence(0, class_mates=1)


class TestAnyPast:
    @given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=8))
    def test_evidence_of_any_past_is_finite(self, tests: list[tuple[float, float, float]]) -> None:
        ids = [f"a.B{n % 2}Test#t{n}" for n in range(len(tests))]
        base = project_baseline(ids, *(list(column) for column in zip(*tests, strict=True)))
        assert all(isfinite(past_evidence(base, test, *row)) for test, row in zip(ids, tests, strict=True))
