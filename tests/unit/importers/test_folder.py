"""Facts about folders of recorded builds."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import load_summary
from fedstep.importers.backfill_run import backfill
from fedstep.importers.base import BuildFilter
from fedstep.importers.recorded_builds import find_build_folders, open_folder, read_folder
from fedstep.types import BuildOutcome, Change, Dropped, Duration, FinishedBuild, Outcome
from tests.helpers.builds import CASE, FLAKE, write_build

BAD = [
    {"started_at": "yesterday"},
    {"started_at": None},
    {"seconds": 0},
    {"seconds": "soon"},
    {"seconds": 1e300},
    {"changes": [{"added": 1}]},
    {"changes": ["x"]},
    {"changes": 5},
    {"attempt": "first"},
]


class TestBuildFolder:
    def test_a_recorded_build_is_evidence(self, tmp_path: Path) -> None:
        found = read_folder(write_build(tmp_path, 3, CASE.format(1, "") + CASE.format(2, FLAKE)))
        assert isinstance(found, FinishedBuild)
        assert found.duration == Duration(103.0, "recorded")
        assert found.finished_at - found.situation.started_at == 103.0
        assert [run.outcome for run in found.reports.tests] == [Outcome.PASSED, Outcome.FLAKED]
        change = found.situation.change
        assert isinstance(change, Change)
        assert (change.commit, change.tree, change.files[0].added) == (f"{3:040x}", f"{3:040x}", 3)
        assert (found.situation.ci.run, found.situation.ci.branch) == ("acme-00003", "main")

    def test_without_an_outcome_the_tests_decide(self, tmp_path: Path) -> None:
        failed = read_folder(write_build(tmp_path, 1, CASE.format(1, "<failure/>"), outcome=""))
        passed = read_folder(write_build(tmp_path, 2, CASE.format(1, ""), outcome="who knows"))
        assert isinstance(failed, FinishedBuild)
        assert isinstance(passed, FinishedBuild)
        assert (failed.outcome, passed.outcome) == (BuildOutcome.FAILED, BuildOutcome.PASSED)

    @pytest.mark.parametrize("changed", BAD)
    def test_a_bad_build_is_named_with_its_reason(self, tmp_path: Path, changed: dict[str, object]) -> None:
        at = write_build(tmp_path, 1, "", **changed)
        found = read_folder(at)
        assert isinstance(found, Dropped)
        assert found.source == str(at / "build.json")
        assert found.reason.startswith("cannot be read (")

    @given(st.binary(max_size=60) | st.sampled_from([b"[]", b"5", b"{}", b"[" * 100_000]))
    def test_any_bytes_in_a_build_json_are_dropped(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        folder = tmp_path_factory.mktemp("any")
        (folder / "build.json").write_bytes(content)
        assert isinstance(read_folder(folder), Dropped)
        assert find_build_folders(folder) == (folder,)


class TestFolders:
    def test_folders_come_in_the_order_in_which_their_builds_ended(self, tmp_path: Path) -> None:
        long_one, short_one = write_build(tmp_path, 1, seconds=200_000.0), write_build(tmp_path, 2)
        bad = write_build(tmp_path / "deep", 9, started_at="?")
        assert find_build_folders(tmp_path) == (bad, short_one, long_one)

    def test_a_backfill_learns_each_build_once_and_names_the_bad_one(self, tmp_path: Path) -> None:
        draw = random.Random(1)
        for number in range(1, 29):
            cases = "".join(CASE.format(n, FLAKE if n == 3 and draw.random() < 0.4 else "") for n in range(6))
            write_build(tmp_path / "acme", number, cases, **({"seconds": None} if number == 5 else {}))
        home = ProjectStore(str(tmp_path / "home"))
        home.prepare()
        first = backfill(home, open_folder(tmp_path / "acme", BuildFilter()))
        assert (first.recorded, first.known, first.tests) == (27, 0, 27 * 6)
        assert first.rows > 27
        assert len(first.warnings) == 1
        assert "00005/build.json cannot be read" in first.warnings[0]
        summary = load_summary(home).summary
        assert summary.count == 27
        assert summary.tests["org.acme.3Test#works"].flips > 3
        again = backfill(home, open_folder(tmp_path / "acme", BuildFilter()))
        assert (again.recorded, again.known, again.rows) == (0, 27, 0)
        assert load_summary(home).summary.count == 27
