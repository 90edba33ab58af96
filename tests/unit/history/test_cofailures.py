"""Which tests began to fail with which files: counted once a spell, bounded, and stored without loss."""

import json
from collections.abc import Sequence

from fedstep.history.cofailures import (
    MOST_KEPT,
    MOST_PATHS,
    Cofailures,
    CofailureTable,
    apply_failures,
    changed_places,
    pack_cofailures,
    unpack_cofailures,
)
from fedstep.history.records import BuildRecord
from fedstep.history.test_table import TestStats, new_test
from fedstep.types import NO_SECONDS, BuildOutcome, FileChange, Outcome, TestRun

PAY, SUM = "tests.test_pay#test_pay", "tests.test_cart#test_sum"


def record(paths: Sequence[str], *failing: str) -> BuildRecord:
    runs = tuple(TestRun(test, Outcome.FAILED if test in failing else Outcome.PASSED) for test in (PAY, SUM))
    files = tuple(map(FileChange, paths))
    return BuildRecord("b", 0.0, 1.0, NO_SECONDS, "job", BuildOutcome.FAILED, files=files, tests=runs)


def failing_already(test: str) -> dict[str, TestStats]:
    stats = new_test(test)
    stats.runs, stats.streak = 3, 1
    return {test: stats}


class TestCounts:
    def test_a_failure_counts_for_its_files_and_folders(self) -> None:
        """A later change without a failure counts as a change."""
        table = apply_failures({}, record(["shop/cart.py"], PAY), {})
        table = apply_failures(table, record(["shop/cart.py", "docs/index.md"]), {})
        assert table == {"shop/cart.py": Cofailures(2, {PAY: 1}), "shop/": Cofailures(2, {PAY: 1})}

    def test_a_test_that_goes_on_failing_counts_once(self) -> None:
        """Otherwise a test that is broken for a week would seem to belong to every file."""
        assert apply_failures({}, record(["shop/cart.py"], PAY), failing_already(PAY)) == {}

    def test_a_large_change_says_nothing_about_its_files(self) -> None:
        """A formatter that touches everything is no evidence."""
        assert changed_places(f"a/{n}.py" for n in range(MOST_PATHS + 1)) == []

    def test_the_table_is_bounded_and_forgets_the_oldest(self) -> None:
        """The files whose failures are longest ago go first."""
        table: CofailureTable = {}
        for number in range(MOST_KEPT // 2 + 5):
            table = apply_failures(table, record([f"d{number}/a.py"], PAY), {})
        assert len(table) == MOST_KEPT
        assert "d0/" not in table
        assert f"d{MOST_KEPT // 2 + 4}/" in table

    def test_it_is_stored_without_loss(self) -> None:
        """JSON keeps counts and names."""
        table = apply_failures({}, record(["shop/cart.py"], PAY, SUM), {})
        assert unpack_cofailures(json.loads(json.dumps(pack_cofailures(table)))) == table
