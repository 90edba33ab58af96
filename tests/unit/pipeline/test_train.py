"""What a finished build is said to have come to."""

import pytest

from fedstep.pipeline.train import build_outcome
from fedstep.types import BuildOutcome, CiRun, Outcome, Reports, TestRun

FAILING = Reports(tests=(TestRun("a#b", Outcome.FAILED, 1.0),))
PASSING = Reports(tests=(TestRun("a#b", Outcome.PASSED, 1.0),))


class TestOutcome:
    @pytest.mark.parametrize(
        ("ci", "reports", "outcome"),
        [
            (CiRun(outcome=BuildOutcome.PASSED), FAILING, BuildOutcome.PASSED),
            (CiRun(outcome=BuildOutcome.PASSED, outcome_so_far=True), FAILING, BuildOutcome.FAILED),
            (CiRun(outcome=BuildOutcome.PASSED, outcome_so_far=True), PASSING, BuildOutcome.PASSED),
            (CiRun(outcome=BuildOutcome.PASSED, outcome_so_far=True), Reports(), BuildOutcome.PASSED),
            (CiRun(outcome=BuildOutcome.FAILED, outcome_so_far=True), PASSING, BuildOutcome.FAILED),
            (CiRun(), FAILING, BuildOutcome.FAILED),
        ],
    )
    def test_a_success_so_far_does_not_outweigh_failing_tests(
        self, ci: CiRun, reports: Reports, outcome: BuildOutcome
    ) -> None:
        """Drone says success until a step has failed; a CI that speaks after the tests is believed."""
        assert build_outcome(ci, reports) == outcome
