"""`--format json` reads back as what went in."""

import json
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.report.json import prediction_json, training_json, triage_json
from fedstep.results import Interval, ModelUsed, Prediction, Risk, TestRisk, TrainReport, TriageReport

Findings = tuple[Prediction, TriageReport, TrainReport]


def refused(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


def written(findings: Findings) -> list[str]:
    prediction, triage, training = findings
    return [prediction_json(prediction), triage_json(triage), training_json(training)]


def assert_read_back(findings: Findings, name: str) -> None:
    told = name.encode("utf-8", "backslashreplace").decode()
    for text in written(findings):
        assert text.isascii()
        assert "##" not in text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())
        assert json.loads(text)["warnings"] == [told]
    assert json.loads(written(findings)[0])["flaky"][0]["test"] == told
    assert json.loads(written(findings)[1])["failures"][0]["failure_type"] == told


class TestHostileNames:
    def test_a_hostile_name_reads_back(self, named: Callable[[str], Findings], hostile: str) -> None:
        assert_read_back(named(hostile), hostile)

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=100))
    def test_any_name_reads_back(self, named: Callable[[str], Findings], name: str) -> None:
        assert_read_back(named(name), name)


class TestValues:
    @given(st.floats(), st.floats(), st.floats())
    def test_no_number_is_nan_or_infinite(self, seconds: float, probability: float, age: float) -> None:
        finding = Prediction(
            "ok",
            Interval(seconds, seconds, seconds, "mark", seconds),
            Risk(probability),
            (TestRisk("a", probability),),
            ModelUsed("production", 1, age),
        )
        json.loads(prediction_json(finding), parse_constant=refused)

    def test_keys_and_values_are_stable(self, ordinary: Findings) -> None:
        prediction, triage, training = map(json.loads, written(ordinary))
        assert prediction["duration"] == {
            "seconds": 250.4,
            "low": 212.0,
            "high": 305.0,
            "source": "jenkins",
            "jenkins_seconds": 281.0,
            "reasons": [],
        }
        assert prediction["flaky"][0]["reasons"][1] == {"says": "its source uses sleep", "contribution": 0.41}
        assert triage["failures"][1]["verdict"] == "regression"
        assert triage["reports"]["dropped"][1] == {
            "source": "target/TEST-b.xml",
            "reason": "control character",
            "kept": True,
        }
        assert training["exchange"]["sent"] == [{"bytes": 3120, "rows": {"flaky": 32, "build-duration": 8}}]
        assert training["rows"] == {"scored": 71, "ripened": 71, "learned": 71, "waiting": 310}

    def test_absence_is_null_with_its_reason(self, nothing_known: Findings) -> None:
        prediction, _, training = map(json.loads, written(nothing_known))
        assert prediction["duration"] == {"seconds": None, "reason": "no build of this project is known yet"}
        assert training["exchange"] == {"url": None, "reason": "no aggregator is configured"}
