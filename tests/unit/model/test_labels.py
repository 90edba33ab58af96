"""Facts about labels that ripen."""

import math
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.history.records import BuildRecord, Example
from fedstep.history.summary import Summary, apply_record
from fedstep.history.test_table import TestTable
from fedstep.model.labels import (
    SILVER_WEIGHT,
    UNSEEN_WEIGHT,
    LabelledExample,
    count_subjects,
    follows_proof,
    is_due,
    renumber_runs,
    resolve_labels,
)
from fedstep.schema.schema import schema
from fedstep.types import BuildOutcome, FileChange, Outcome, TestRun

TEST = "a.BTest#t"
HORIZON = 20


def table_of(letters: str, streams: str = "", commits: str = "") -> TestTable:
    summary = Summary()
    for number, letter in enumerate(letters):
        stream = streams[number] if streams else "unit||mark"
        at = 1_700_000_000.0 + 600 * number
        run = TestRun(TEST, Outcome(letter))
        entry = BuildRecord(
            f"{number:032x}", at, at + 9, 9.0, stream, BuildOutcome.PASSED,
            commit=commits[number] if commits else str(number),
            change_known=True, files=(FileChange("docs/x.md"),), tests=(run,),
        )  # fmt: skip
        summary = apply_record(summary, str(number), entry)
    return summary.tests


def row(run: int, subject: str = TEST, target: float = math.nan) -> Example:
    return Example(subject, run, (0,), (1.0,), (), target)


def label(task: str, letters: str, run: int) -> LabelledExample:
    ripe, waiting = resolve_labels(task, [row(run)], table_of(letters))
    assert waiting == []
    return ripe[0]


class TestFlakyRows:
    @pytest.mark.parametrize("letters", ["p" * HORIZON, "k" + "p" * 19, "p" * 19 + "k"])
    def test_flaky_row_ripens_when_its_horizon_is_over(self, letters: str) -> None:
        """A flaky row ripens when its horizon is over, whatever its label."""
        for known in range(1, HORIZON):
            ripe, waiting = resolve_labels("flaky", [row(0)], table_of(letters[:known]))
            assert (ripe, waiting) == ([], [row(0)])
        assert label("flaky", letters, 0).label == float("k" in letters)

    def test_a_flip_before_the_row_says_nothing_about_it(self) -> None:
        assert label("flaky", "pk" + "p" * 20, 2).label == 0.0
        assert label("flaky", "pfp" + "p" * 20, 3).label == 0.0

    def test_silver_flip_weighs_less_than_gold_or_negative(self) -> None:
        """A silver flip weighs less than a gold one and a negative."""
        assert label("flaky", "pf" + "p" * 19, 1) == LabelledExample(row(1), 1.0, SILVER_WEIGHT)
        assert label("flaky", "pk" + "p" * 19, 1) == LabelledExample(row(1), 1.0, 1.0)
        assert label("flaky", "pc" + "p" * 19, 1) == LabelledExample(row(1), 0.0, 1.0)
        assert label("flaky", "pfpk" + "p" * 17, 1).weight == 1.0


class TestFailureRows:
    def test_a_failure_is_judged_by_the_run_after_it(self) -> None:
        assert resolve_labels("triage", [row(1)], table_of("pf")) == ([], [row(1)])
        assert label("triage", "pfp", 1) == LabelledExample(row(1), 1.0, UNSEEN_WEIGHT)
        assert label("triage", "pff", 1) == LabelledExample(row(1), 0.0, UNSEEN_WEIGHT)

    def test_a_test_never_seen_to_flip_teaches_half(self) -> None:
        """Half of the flakes among such failures are labelled regressions; a pass on the same commit is no guess."""
        seen = row(1)._replace(indices=(0, schema().tasks["triage"].first("flipped")), values=(1.0, 1.0))
        for letters in ("pfp", "pff", "pkp"):
            ripe, _ = resolve_labels("triage", [seen], table_of(letters))
            assert [one.weight for one in ripe] == [1.0]
        assert label("triage", "pkp", 1).weight == 1.0

    def test_a_gold_flake_stays_one_when_the_next_run_flakes_too(self) -> None:
        assert label("triage", "pkk", 1) == LabelledExample(row(1), 1.0, 1.0)
        assert label("triage", "pfk", 1) == LabelledExample(row(1), 1.0, UNSEEN_WEIGHT)

    def test_a_failure_that_continues_a_proven_flake_is_not_judged(self) -> None:
        """It passed and failed on commit a; whether it flaked on b nothing tells: it is learned, but not scored."""
        table = table_of("pffp", commits="aabc")
        ripe, waiting = resolve_labels("triage", [row(1)], table)
        assert (ripe, waiting) == ([LabelledExample(row(1), 1.0)], [])
        assert [follows_proof(row(run), table[TEST]) for run in (1, 2)] == [False, True]
        assert not follows_proof(row(2), table_of("pffp")[TEST]), "without a proof, two in a row are a break"

    def test_pass_in_another_cell_does_not_judge_a_failure(self) -> None:
        """A failure in one cell of a matrix is not judged by a pass in another."""
        assert resolve_labels("triage", [row(1)], table_of("pfp", streams="aab")) == ([], [row(1)])
        ripe, waiting = resolve_labels("triage", [row(1)], table_of("pfpp", streams="aaba"))
        assert (ripe, waiting) == ([LabelledExample(row(1), 1.0, UNSEEN_WEIGHT)], [])


class TestRipening:
    def test_a_row_with_a_target_is_ripe_at_once(self) -> None:
        assert resolve_labels("build-failure", [row(0, "b", 1.0)], {}) == (
            [LabelledExample(row(0, "b", 1.0), 1.0)],
            [],
        )

    def test_a_forgotten_test_leaves_no_row(self) -> None:
        assert resolve_labels("flaky", [row(0, "gone#t")], table_of("p")) == ([], [])


class TestSampling:
    def test_a_test_that_waits_gives_no_second_row(self) -> None:
        assert resolve_labels("flaky", [row(0), row(1)], table_of("pp")) == ([], [row(0)])

    def test_a_row_has_the_number_of_its_run_in_the_table(self) -> None:
        assert renumber_runs([row(480), row(7, "build")], table_of("ppp")) == [row(2), row(7, "build")]

    @given(st.integers(0, 2**32), st.integers(0, 500))
    def test_a_test_is_due_once_a_horizon(self, hashed: int, start: int) -> None:
        assert sum(is_due(hashed, run, HORIZON) for run in range(start, start + HORIZON)) == 1

    def test_a_build_of_five_thousand_tests_gives_about_250_rows(self) -> None:
        horizon = schema().tasks["flaky"].horizon
        due = sum(is_due(crc32(f"org.acme.C{n}Test#t".encode()), 40, horizon) for n in range(5000))
        assert 200 <= due <= 300

    def test_groups_are_distinct_subjects(self) -> None:
        assert (
            count_subjects(
                [LabelledExample(row(0), 1.0), LabelledExample(row(20), 0.0), LabelledExample(row(0, "b"), 0.0)]
            )
            == 2
        )
