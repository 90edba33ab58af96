"""Facts about the tables of recorded CI."""

import gzip
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fedstep.evaluation.corpus import as_planned, in_order, read_builds, read_tests
from fedstep.history.summary import PastBuild, PlannedBuild
from fedstep.types import Dropped

BUILDS = """job,started_at,seconds,outcome,branch,is_pr,lines_added,lines_deleted,files_changed,hour
unit,2026-01-02T03:00:00Z,60,passed,main,0,3,4,2,
unit,2026-01-01T03:00:00Z,90,failed,topic,1,,,,3.5
unit,2026-01-03T03:00:00Z,soon,passed,main,0,,,,
unit,2026-01-03T03:00:00Z,-5,passed,main,0,,,,
"""
GAPS = """seconds_since_previous,seconds,outcome
,10,passed
100,20,passed
50,30,failed
"""
TESTS = """test,flaky,failing_runs,passing_runs,seconds,tokens
a.B#x,1,25,75,0.5,sleep wait
a.B#y,0,3,97,,assert
"""


class TestBuilds:
    def test_builds_are_read_by_start_and_bad_rows_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "builds.csv").write_text(BUILDS)
        builds, dropped = read_builds(tmp_path / "builds.csv")
        assert [(build.seconds, build.outcome, build.is_pr) for build in builds] == [
            (90, "failed", True),
            (60, "passed", False),
        ]
        assert (builds[1].lines, builds[1].files, builds[1].hour, builds[1].weekday) == (7.0, 2.0, 3.0, 4)
        assert (builds[0].lines, builds[0].files, builds[0].hour) == (None, None, 3.5)
        assert [item.source for item in dropped] == ["builds.csv:4", "builds.csv:5"]

    def test_gaps_stand_for_a_clock_that_is_not_told(self, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "builds.csv.gz", "wt") as file:
            file.write(GAPS)
        builds, dropped = read_builds(tmp_path / "builds.csv.gz")
        assert dropped == ()
        assert [build.started_at for build in builds] == [0.0, 100.0, 150.0]
        assert builds[0].hour is None
        assert builds[0].weekday is None

    def test_what_is_planned_knows_neither_outcome_nor_time(self, tmp_path: Path) -> None:
        (tmp_path / "builds.csv").write_text(BUILDS)
        planned = as_planned(read_builds(tmp_path / "builds.csv")[0][0])
        assert type(planned) is PlannedBuild
        assert planned.branch == "topic"
        assert not hasattr(planned, "outcome")
        assert not hasattr(planned, "seconds")

    def test_rerun_tests_have_the_rate_that_was_measured(self, tmp_path: Path) -> None:
        (tmp_path / "tests.csv").write_text(TESTS)
        flaky, steady = read_tests(tmp_path / "tests.csv")
        assert (flaky.failure_rate, flaky.seconds, flaky.identifiers) == (0.25, 0.5, ("sleep", "wait"))
        assert (steady.failure_rate, steady.flaky) == (0.0, False)
        assert math.isnan(steady.seconds)


class TestOrder:
    @given(st.lists(st.integers(0, 200), max_size=60), st.integers(1, 20))
    def test_rows_are_ordered_by_start_and_each_loss_is_reported(self, starts: list[int], window: int) -> None:
        """Rows come in the order of starts, and none is lost without a warning."""
        builds = [PastBuild("unit", float(start), start + 1.0, "passed") for start in starts]
        out = list(in_order(builds, window))
        kept = [one.started_at for one in out if isinstance(one, PastBuild)]
        assert kept == sorted(kept)
        assert len(out) == len(starts)
        assert window < len(starts) or kept == sorted(starts)

    def test_a_row_far_below_its_place_is_dropped_by_name(self) -> None:
        builds = [PastBuild("unit", float(start), start + 1.0, "passed") for start in (5, 6, 7, 8, 9, 1)]
        dropped = [one for one in in_order(builds, 2) if isinstance(one, Dropped)]
        assert [one.source for one in dropped] == ["build started at 1"]
