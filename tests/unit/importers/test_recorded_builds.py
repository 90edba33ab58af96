"""Facts about tables of builds and of results."""

import csv
import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import InputError
from fedstep.history.summary import load_summary
from fedstep.importers.backfill_run import backfill
from fedstep.importers.base import BuildFilter, ImportSource
from fedstep.importers.recorded_builds import open_tables
from fedstep.types import BuildOutcome, Dropped, Duration, FinishedBuild, Outcome, Unavailable
from tests.helpers.importers import new_home

Rows = list[Mapping[str, object]]


def table(path: Path, rows: Rows) -> Path:
    """A table on disk, packed if its name says so."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def builds(*changed: Mapping[str, object]) -> Rows:
    return [
        {
            "build": number,
            "job": "single",
            "started_at": f"2026-01-{number:02d}T08:00:00Z",
            "seconds": 100.0,
            "outcome": "passed",
            "branch": "main",
            "is_pr": number % 2,
            "commit": f"c{number}",
            **one,
        }
        for number, one in enumerate(changed, 1)
    ]


def results(*outcomes: str, start: int = 1) -> Rows:
    """A build for each outcome, in each of which test 1 passes and test 2 ends so."""
    return [
        {
            "build": number,
            "started_at": f"2026-01-{number:02d} 08:00:00.5",
            "test": test,
            "seconds": 0.5,
            "outcome": outcome if test == 2 else "passed",
        }
        for number, outcome in enumerate(outcomes, start)
        for test in (1, 2)
    ]


def found(past: ImportSource) -> list[FinishedBuild]:
    everything = [one for pending in past.items for one in pending.read()]
    assert past.total == len(everything)
    assert all(isinstance(one, FinishedBuild) for one in everything), everything
    return [one for one in everything if isinstance(one, FinishedBuild)]


class TestBuildTable:
    def test_a_row_of_builds_is_a_build(self, tmp_path: Path) -> None:
        path = table(tmp_path / "builds.csv.gz", builds({}, {"outcome": "unstable"}, {"outcome": "canceled"}))
        first, second = found(open_tables(path, BuildFilter()))
        ci = first.situation.ci
        assert (ci.vendor, ci.run, ci.job, ci.branch, ci.event) == ("recorded", "1", "single", "main", "pull_request")
        assert (first.duration, first.outcome, second.outcome) == (
            Duration(100.0, "recorded"),
            BuildOutcome.PASSED,
            BuildOutcome.UNSTABLE,
        )
        assert first.finished_at - first.situation.started_at == 100.0

    def test_builds_come_in_order_whatever_the_order_of_rows(self, tmp_path: Path) -> None:
        """Builds come in the order of their ends, whatever the order of the rows."""
        path = table(tmp_path / "any-name.csv", builds({"seconds": 1e6}, {}, {}))
        assert [one.situation.ci.run for one in found(open_tables(path, BuildFilter()))] == ["2", "3", "1"]
        assert [one.situation.ci.run for one in found(open_tables(path, BuildFilter(limit=1)))] == ["1"]

    def test_a_row_that_cannot_be_read_is_named_by_its_line(self, tmp_path: Path) -> None:
        rows = builds({"seconds": "soon"}, {}, {"started_at": "?"}, {"outcome": "dubious"}, {"seconds": -1})
        past = open_tables(table(tmp_path / "builds.csv", rows), BuildFilter())
        assert [one.source for one in past.dropped] == ["builds.csv:2", "builds.csv:4", "builds.csv:5", "builds.csv:6"]
        assert len(found(past)) == 1

    def test_without_a_start_the_clock_is_the_sum_of_the_gaps(self, tmp_path: Path) -> None:
        rows: Rows = [
            {"build": n, "seconds": 10.0, "outcome": "passed", "is_pr": 0, "seconds_since_previous": 500.0}
            for n in (1, 2)
        ]
        first, second = found(open_tables(table(tmp_path / "builds.csv", rows), BuildFilter()))
        assert second.situation.started_at - first.situation.started_at == 500.0
        assert first.situation.ci.event == "push"
        assert isinstance(first.situation.change, Unavailable)


class TestResultTable:
    def test_rows_of_results_are_the_tests_of_a_build(self, tmp_path: Path) -> None:
        path = table(tmp_path / "results.csv", results("failed", "skipped", "passed"))
        first, second, third = found(open_tables(path, BuildFilter()))
        assert [run.outcome for run in first.reports.tests] == [Outcome.PASSED, Outcome.FAILED]
        assert [run.outcome for run in second.reports.tests] == [Outcome.PASSED, Outcome.SKIPPED]
        assert (first.outcome, third.outcome) == (BuildOutcome.FAILED, BuildOutcome.PASSED)
        assert first.duration == Duration(1.0, "tests"), "no wall time"
        assert first.finished_at == first.situation.started_at

    def test_test_with_both_outcomes_in_one_build_flaked(self, tmp_path: Path) -> None:
        """A test with both outcomes in one build flaked, and an unknown outcome is named."""
        rows = [*results("failed"), *results("passed"), {**results("odd")[1]}]
        (one,) = found(open_tables(table(tmp_path / "results.csv", rows), BuildFilter()))
        assert [run.outcome for run in one.reports.tests] == [Outcome.PASSED, Outcome.FLAKED]
        assert [item.reason for item in one.reports.dropped] == ["'odd' is no outcome of a test"]

    def test_both_tables_of_a_folder_are_joined_by_build(self, tmp_path: Path) -> None:
        table(tmp_path / "builds.csv", builds({}, {"outcome": "failed"}, {}))
        table(tmp_path / "results.csv.gz", results("passed", "failed"))
        joined = found(open_tables(tmp_path, BuildFilter()))
        assert [(one.situation.ci.run, one.outcome.value, len(one.reports.tests)) for one in joined] == [
            ("1", "passed", 2),
            ("2", "failed", 2),
            ("3", "passed", 0),
        ]
        assert joined[0].duration == Duration(100.0, "recorded")
        assert [one.situation.ci.job for one in joined] == ["single"] * 3

    @pytest.mark.parametrize(
        "rows",
        [[*results("passed", start=2), *results("passed")], [*results("passed", "passed"), *results("passed")]],
        ids=["not sorted", "not together"],
    )
    def test_results_out_of_order_are_an_error_that_says_what_to_do(self, tmp_path: Path, rows: Rows) -> None:
        with pytest.raises(InputError, match=r"out of order\. Sort the table by started_at"):
            open_tables(table(tmp_path / "results.csv", rows), BuildFilter())

    def test_a_build_that_comes_again_further_below_ran_again(self, tmp_path: Path) -> None:
        again = [{**row, "build": 1} for row in results("passed", start=3)]
        past = open_tables(table(tmp_path / "results.csv", [*results("failed", "passed"), *again]), BuildFilter())
        ran = found(past)
        assert [(one.situation.ci.run, one.situation.ci.attempt) for one in ran] == [("1", 1), ("2", 1), ("1", 2)]
        assert [one.outcome.value for one in ran] == ["failed", "passed", "passed"]
        assert len({one.reports.digest for one in ran}) == 3

    def test_only_the_wanted_builds_of_results_are_read(self, tmp_path: Path) -> None:
        path = table(tmp_path / "results.csv", results("passed", "passed", "passed", "passed"))
        assert [one.situation.ci.run for one in found(open_tables(path, BuildFilter(limit=2)))] == ["3", "4"]
        assert len(found(open_tables(path, BuildFilter(since=1767427200.0)))) == 2  # from January 3 on


class TestAnyTable:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("results.csv.gz", gzip.compress(b"build,started_at,test,outcome\n1,2026-01-01,a,passed\n" * 999)[:-40]),
            ("results.csv.gz", b"no gzip"),
            ("results.csv", b"build,started_at,test,outcome\n\xff\xfe,1,1,1\n"),
            ("results.csv", b"build,started_at,test,outcome\n1,2026-01-01," + b"x" * 200_000 + b",passed\n"),
            ("builds.csv", b"name,colour\nx,red\n"),
            ("builds.csv", b""),
        ],
        ids=["cut off", "no gzip", "no text", "a huge cell", "other columns", "empty"],
    )
    def test_a_table_that_cannot_be_read_is_named(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            found(open_tables(tmp_path / name, BuildFilter()))

    @given(st.lists(st.lists(st.text(max_size=8), min_size=5, max_size=5), max_size=6))
    def test_any_cells_are_read_or_named(
        self, tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]
    ) -> None:
        names = ("build", "started_at", "seconds", "outcome", "is_pr")
        rows: Rows = [dict(zip(names, row, strict=True)) for row in cells]
        path = table(tmp_path_factory.mktemp("any") / "builds.csv", [*builds({}), *rows])
        past = open_tables(path, BuildFilter())
        assert len(past.dropped) + past.total <= len(rows) + 1
        assert all(isinstance(one, Dropped) for one in past.dropped)
        assert len(found(past)) >= 1

    def test_a_table_is_learned_once(self, tmp_path: Path) -> None:
        path = table(tmp_path / "results.csv", results(*["passed", "failed", "passed"] * 8))
        home = new_home(tmp_path / "home")
        first, again = (backfill(home, open_tables(path, BuildFilter())) for _ in range(2))
        assert (first.recorded, first.tests) == (24, 48)
        assert (again.recorded, again.known) == (0, 24)
        assert load_summary(home).summary.tests["2"].flips > 3
