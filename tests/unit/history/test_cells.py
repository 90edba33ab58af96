"""Cells of a matrix that the CI does not tell apart, and streams of one commit: neither is a rerun of the other."""

import pytest

from fedstep.features.test_features import triage_values
from fedstep.history.records import decode_record, encode_record, make_record
from fedstep.history.summary import Summary, apply_record, plan_build, repeats_last, shares_run
from fedstep.types import (
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    Outcome,
    Reports,
    TestRun,
)

TEST = "shop.Cart#adds"


def made(number: int, commit: str, run: str, letter: str, attempt: int = 1, stream: str = "unit||mark") -> Build:
    ci = CiRun("github", run, attempt, stream.partition("|")[0], stream.split("|")[1], "main", event="push")
    context = BuildContext(ci, Change(commit, "", "ann"), 1e9 + 600.0 * number)
    runs = (TestRun(TEST, Outcome(letter), 0.5), TestRun("shop.Cart#sums", Outcome.PASSED, 0.5))
    return Build(f"{number:032x}", context, 1e9 + 600.0 * number + 60, Duration(60.0, "mark"), BuildOutcome.FAILED,
                 Reports(runs, 1))  # fmt: skip


def after(*builds: tuple[str, str, str, int, str]) -> Summary:
    """Return the summary after builds, each as (commit, run, letter, attempt, stream)."""
    summary = Summary()
    for number, (commit, run, letter, attempt, stream) in enumerate(builds):
        record = make_record(made(number, commit, run, letter, attempt, stream), stream, "")
        summary = apply_record(summary, str(number), decode_record(encode_record(record)))
    return summary


def on_this_commit(summary: Summary, commit: str, run: str, attempt: int = 1, stream: str = "unit||mark") -> object:
    """Return how a failure of the test is told to have gone on its commit before."""
    build = made(99, commit, run, "f", attempt, stream)
    repeats = repeats_last(summary.builds, plan_build(build.situation, stream, ""))
    return dict(triage_values(summary.tests, build, stream * repeats))[build.reports.tests[0]]["same-commit"]


LINUX, WINDOWS, UNIT = "unit|linux|mark", "unit|windows|mark", "unit||mark"


class TestCellsThatAreNotTold:
    """Two cells of one job in one run, as `fedstep train` in a matrix of GitHub without FEDSTEP_CI_CELL."""

    @pytest.mark.parametrize("letters", ["pf", "fp", "pfp", "ffp", "fpf", "ppf"])
    def test_a_pass_beside_a_failure_is_no_flake(self, letters: str) -> None:
        builds = [("c1", "1", letter, 1, UNIT) for letter in letters]
        assert after(*builds).tests[TEST].flips == 0
        assert on_this_commit(after(*builds[:-1]), "c1", "1") == "unseen"

    @pytest.mark.parametrize("cells", ["pf", "fp", "pfp"])
    def test_neither_are_those_of_later_runs(self, cells: str) -> None:
        """A cell fails in each run: the pass of another cell, on the same commit or a later one, proves nothing."""
        builds = [(f"c{run}", str(run), letter, 1, UNIT) for run in range(1, 7) for letter in cells]
        stats = after(*builds).tests[TEST]
        assert (stats.flips, stats.flaked_100, stats.spells_100 <= 1.0) == (0, 0.0, True)

    @pytest.mark.parametrize(("attempt", "flips"), [(1, 0), (2, 1)])
    def test_an_attempt_has_the_same_code_with_another_change(self, attempt: int, flips: int) -> None:
        """A change of another size is another code, unless the CI says that the run is another attempt."""
        summary = after(("c0", "0", "p", 1, UNIT))
        for number, (run, again, letter, lines) in enumerate((("1", 1, "f", 4), ("2", attempt, "p", 9)), start=1):
            build = made(number, "c1", run, letter, again)
            change = Change("c1", "", "ann", (FileChange("docs/index.md", lines, 0),))
            build = build._replace(situation=build.situation._replace(change=change))
            summary = apply_record(summary, str(number), make_record(build, UNIT, ""))
        assert summary.tests[TEST].gold_100 == flips

    def test_a_rerun_is_another_attempt_or_run(self) -> None:
        for again in (("c1", "1", "p", 2, UNIT), ("c1", "2", "p", 1, UNIT)):
            summary = after(("c0", "0", "p", 1, UNIT), ("c1", "1", "f", 1, UNIT), again)
            assert summary.tests[TEST].gold_100 == 1.0

    def test_a_run_without_a_name_is_compared_by_its_commit(self) -> None:
        """A developer's machine names no run."""
        assert after(("c1", "", "p", 1, UNIT), ("c1", "", "f", 1, UNIT)).tests[TEST].flips == 1

    def test_two_steps_with_different_tests_are_no_cells(self) -> None:
        """Only tests that ran in both builds of a run may be of another cell."""
        record = make_record(made(0, "c1", "1", "p"), UNIT, "")
        other = make_record(made(1, "c1", "1", "p"), UNIT, "")._replace(tests=(TestRun("e2e#pays", Outcome.PASSED),))
        summary = apply_record(apply_record(Summary(), "0", record), "1", other)
        assert {stats.mixed for stats in summary.tests.values()} == {-1}

    def test_the_second_build_of_a_run_is_known_as_such(self) -> None:
        summary = after(("c1", "1", "p", 1, UNIT))
        assert shares_run(summary.builds, plan_build(made(9, "c1", "1", "p").situation, UNIT, ""))
        assert not shares_run(summary.builds, plan_build(made(9, "c1", "2", "p").situation, UNIT, ""))


class TestCellsThatAreTold:
    def test_a_pass_of_another_cell_is_no_pass_on_this_commit(self) -> None:
        """Windows failed, Linux passed, and Windows is run again: what it did before on this commit is fail."""
        summary = after(("c1", "1", "f", 1, WINDOWS), ("c1", "1", "p", 1, LINUX))
        assert on_this_commit(summary, "c1", "1", 2, WINDOWS) == "failed"
        assert on_this_commit(summary, "c1", "1", 2, LINUX) == "unseen"

    def test_a_cell_that_fails_again_and_again_is_no_flake(self) -> None:
        builds = [("c1", "1", letter, attempt, cell)
                  for attempt in (1, 2, 3) for cell, letter in ((WINDOWS, "f"), (LINUX, "p"))]  # fmt: skip
        assert after(("c0", "0", "p", 1, WINDOWS), ("c0", "0", "p", 1, LINUX), *builds).tests[TEST].flips == 0

    def test_a_cell_that_passes_when_run_again_is_a_flake(self) -> None:
        summary = after(("c0", "0", "p", 1, WINDOWS), ("c1", "1", "f", 1, WINDOWS), ("c1", "1", "p", 1, LINUX),
                        ("c1", "1", "p", 2, WINDOWS))  # fmt: skip
        assert summary.tests[TEST].gold_100 == 1.0
