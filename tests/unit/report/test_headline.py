"""A finding in one line."""

from collections.abc import Callable

import pytest

from fedstep.report.json import headline
from fedstep.results import ModelUsed, Prediction, ReportCounts, TrainReport, TriageReport
from fedstep.types import Unavailable

Findings = tuple[Prediction, TriageReport, TrainReport]


class TestHeadline:
    def test_prediction_is_time_jenkins_estimate_risk_and_flaky(
        self,
        ordinary: Findings,
    ) -> None:
        """A prediction is the time with Jenkins' own beside it, the risk and the number of flaky tests."""
        assert headline(ordinary[0]) == (
            "expected 4 min 10 s (3 min 32 s – 5 min 05 s; Jenkins estimate: 4 min 41 s), "
            "18 % likely to fail, 2 tests likely to flake"
        )

    def test_a_triage_counts_its_verdicts(self, ordinary: Findings) -> None:
        assert headline(ordinary[1]) == "2 failed: 1 likely regression, 1 likely flaky"

    def test_a_training_is_what_it_took_and_what_was_expected(self, ordinary: Findings) -> None:
        line = headline(ordinary[2]._replace(incident=False))
        assert line == (
            "took 4 min 22 s, expected 4 min 10 s (3 min 32 s – 5 min 05 s; Jenkins estimate: 4 min 41 s), "
            "2 failed: 1 likely regression, 1 likely flaky"
        )

    def test_an_incident_says_nothing_of_single_failures(self, ordinary: Findings) -> None:
        assert headline(ordinary[2]).endswith(", 2 failed at once: an incident")

    def test_what_is_not_known_is_left_out(self) -> None:
        nothing = Unavailable("nothing is known")
        assert headline(Prediction("local", nothing, nothing, (), ModelUsed())) == "build time not known yet"
        assert headline(TriageReport("local", (), ModelUsed(), ReportCounts())) == "no test was read"

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_no_name_gets_into_it(self, named: Callable[[str], Findings], hostile: str, number: int) -> None:
        assert headline(named(hostile)[number]) == headline(named("plain")[number])
