"""Facts about tables of recorded test results."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from fedstep.evaluation.corpus import read_results
from fedstep.types import BuildOutcome, Dropped, Duration, FinishedBuild, Unavailable

HEADER = "build,started_at,test,seconds,outcome\n"
RESULTS = (
    HEADER
    + """7,2026-01-01 03:00:00.500,a,0.5,passed
7,2026-01-01 03:00:00.500,b,1.5,failed
8,2026-01-01 04:00:00,a,0.4,passed
8,2026-01-01 04:00:00,b,,skipped
"""
)


def read(tmp_path: Path, text: str) -> list[FinishedBuild | Dropped]:
    (tmp_path / "results.csv").write_text(text)
    return list(read_results(tmp_path / "results.csv"))


def builds(items: list[FinishedBuild | Dropped]) -> list[FinishedBuild]:
    return [item for item in items if isinstance(item, FinishedBuild)]


def dropped(items: list[FinishedBuild | Dropped]) -> list[Dropped]:
    return [item for item in items if isinstance(item, Dropped)]


class TestReading:
    def test_neighbouring_rows_of_one_build_are_one_build(self, tmp_path: Path) -> None:
        first, second = builds(read(tmp_path, RESULTS))
        assert [(run.test, run.outcome, run.seconds) for run in first.reports.tests] == [
            ("a", "p", 0.5),
            ("b", "f", 1.5),
        ]
        assert (first.outcome, second.outcome) == (BuildOutcome.FAILED, BuildOutcome.PASSED)
        assert (first.duration, second.duration) == (Duration(2.0, "tests"), Duration(0.4, "tests"))
        assert first.situation.started_at % 3600 == 0.5
        assert first.finished_at == first.situation.started_at + 2.0
        assert second.reports.tests[1].seconds != second.reports.tests[1].seconds

    def test_a_packed_table_reads_the_same(self, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "results.csv.gz", "wt") as file:
            file.write(RESULTS)
        assert repr(list(read_results(tmp_path / "results.csv.gz"))) == repr(read(tmp_path, RESULTS))

    def test_a_build_that_comes_again_ran_again(self, tmp_path: Path) -> None:
        again = "7,2026-01-01 05:00:00,a,0.5,passed\n"
        assert [build.situation.ci.run for build in builds(read(tmp_path, RESULTS + again))] == ["7", "8", "7"]

    def test_a_test_repeated_in_one_build_with_both_outcomes_flaked(self, tmp_path: Path) -> None:
        retried = "1,2026-01-01 03:00:00,a,2,failed\n1,2026-01-01 03:05:00,a,3,passed\n"
        (build,) = builds(read(tmp_path, HEADER + retried))
        assert [(run.test, run.outcome, run.seconds) for run in build.reports.tests] == [("a", "k", 3.0)]
        assert (build.outcome, build.finished_at - build.situation.started_at) == (BuildOutcome.PASSED, 303.0)

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ("8,2026-01-01 04:00:00,c,soon,passed", "soon"),
            ("8,2026-01-01 04:00:00,c,-1,passed", "seconds -1"),
            ("8,2026-01-01 04:00:00,c,nan,passed", "seconds nan"),
            ("8,2026-01-01 04:00:00,c,inf,passed", "seconds inf"),
            ("8,2026-01-01 04:00:00,c,1,exploded", "exploded"),
            ("8,yesterday,c,1,passed", "yesterday"),
            ("8,2026-01-01 04:00:00,,1,passed", "no test"),
            (",2026-01-01 04:00:00,c,1,passed", "no build"),
            ("8,2026-01-01 04:00:00", "no test"),
        ],
    )
    def test_a_bad_row_is_named_and_the_rest_is_read(self, tmp_path: Path, row: str, reason: str) -> None:
        found = read(tmp_path, f"{RESULTS}{row}\n9,2026-01-01 06:00:00,a,0.4,passed\n")
        assert [build.situation.ci.run for build in builds(found)] == ["7", "8", "9"]
        (item,) = dropped(found)
        assert item.source == "results.csv:6"
        assert reason in item.reason

    def test_a_bad_row_inside_a_build_does_not_split_it(self, tmp_path: Path) -> None:
        bad = "1,2026-01-01 03:00:00,b,soon,passed\n"
        found = read(tmp_path, f"{HEADER}1,2026-01-01 03:00:00,a,1,passed\n{bad}1,2026-01-01 03:00:00,c,1,passed\n")
        (build,) = builds(found)
        assert [run.test for run in build.reports.tests] == ["a", "c"]
        assert len(dropped(found)) == 1

    def test_a_build_from_before_the_one_above_it_is_dropped(self, tmp_path: Path) -> None:
        found = read(tmp_path, RESULTS + "6,2025-01-01 03:00:00,a,0.5,passed\n")
        assert [build.situation.ci.run for build in builds(found)] == ["7", "8"]
        assert dropped(found) == [Dropped("results.csv: build 6", "started before the build above it")]

    def test_a_build_without_times_has_no_duration(self, tmp_path: Path) -> None:
        (build,) = builds(read(tmp_path, HEADER + "1,2026-01-01 03:00:00,a,,passed\n"))
        assert isinstance(build.duration, Unavailable)


class TestUnreadable:
    @pytest.mark.parametrize(
        "content",
        [
            gzip.compress(RESULTS.encode())[:60],
            b"no gzip at all",
            b"",
            gzip.compress(HEADER.encode() + b'1,2026-01-01 03:00:00,"' + b"x" * 200_000),
            gzip.compress(HEADER.encode() + b"1,2026-01-01 03:00:00,\xff\xfe,1,passed\n" * 3),
            gzip.compress(b"other,columns\n1,2\n"),
        ],
        ids=["cut", "no gzip", "empty", "endless cell", "no UTF-8", "other columns"],
    )
    def test_a_table_that_cannot_be_read_is_no_crash(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "results.csv.gz").write_bytes(content)
        found = list(read_results(tmp_path / "results.csv.gz"))
        assert builds(found) == []
        assert all(item.reason for item in dropped(found))
        assert found or not content

    def test_a_missing_table_is_named(self, tmp_path: Path) -> None:
        (item,) = read_results(tmp_path / "results.csv")
        assert isinstance(item, Dropped)
        assert "FileNotFoundError" in item.reason

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_number_of_builds(self, tmp_path: Path) -> None:
        peaks = []
        for count in (200, 1000):
            rows = (
                f"{n},2026-01-01 {n // 60 % 24:02}:{n % 60:02}:00,t{t},1,passed\n"
                for n in range(count)
                for t in range(20)
            )
            (tmp_path / "results.csv").write_text(HEADER + "".join(rows))
            tracemalloc.start()
            assert sum(1 for _ in read_results(tmp_path / "results.csv")) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] + 200_000
