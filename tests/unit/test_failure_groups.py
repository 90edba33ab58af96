"""Failures with one cause are one entry, and each entry says what it is."""

from fedstep.model.linear import LocalWeights
from fedstep.model.predictor import Predictor
from fedstep.model.state import LocalModel
from fedstep.report.text import triage_text
from fedstep.results import FailureVerdict, ModelUsed, ReportCounts, TriageReport, group_failures
from fedstep.schema.schema import schema
from fedstep.types import Build, TestRun
from tests.unit.model.test_predictor import STREAM, TESTS, build, known

START = {name: task.start() for name, task in schema().tasks.items()}


def failure(test: str, verdict: str = "unsure", kind: str = "new", signature: str = "") -> FailureVerdict:
    return FailureVerdict(test, 0.5, verdict=verdict, kind=kind, signature=signature, message="assert 200 == 401")


class TestGroups:
    def test_72_failures_of_one_bug_are_one_entry(self) -> None:
        """One line with its count, in the terminal too."""
        failures = tuple(failure(f"shop.T#t{number}", signature="a" * 16) for number in range(72))
        report = TriageReport("ok", failures, ModelUsed(), ReportCounts())
        (group,) = report.groups
        assert len(group.failures) == 72
        text = triage_text(report)
        assert "72 tests with one cause" in text
        assert "assert 200 == 401" in text
        assert text.count("shop.T#") < 6

    def test_without_a_signature_each_stands_alone(self) -> None:
        """A report without texts says nothing about causes."""
        assert len(group_failures((failure("a#x"), failure("a#y")), incident=False)) == 2

    def test_the_most_urgent_come_first(self) -> None:
        """A likely regression before an unsure failure, something new before what has been failing."""
        groups = group_failures(
            (failure("a#f", "flaky", "flake"), failure("a#old", "unsure", "failing"), failure("a#new", "unsure")),
            incident=False,
        )
        assert [group.first.test for group in groups] == ["a#new", "a#old", "a#f"]

    def test_in_an_incident_every_group_is_one(self) -> None:
        """It says nothing about single tests."""
        (group,) = group_failures((failure("a#x"),), incident=True)
        assert group.kind == "incident"


class TestKinds:
    def judge(self, *letters: str, last: str = "f") -> FailureVerdict:
        """The verdict of the first test, after builds with these letters, by a model that trusts its past."""
        predictor = Predictor(START, LocalModel({"triage": LocalWeights({}, {f"test={TESTS[0]}": 9.0})}))
        builds = (self.signed(number, letter, "old") for number, letter in enumerate(letters))
        (verdict,) = predictor.failures(known(*builds), self.signed(len(letters), "f", last), STREAM)
        return verdict

    def signed(self, number: int, letter: str, signature: str) -> Build:
        whole = build(number, letter + "p" * 19)
        first, *others = whole.reports.tests
        run = first._replace(signature=signature) if letter in "fck" else first
        tests: tuple[TestRun, ...] = (run, *others)
        return whole._replace(reports=whole.reports._replace(tests=tests))

    def test_a_first_failure_is_new(self) -> None:
        """Its history has no flip."""
        assert self.judge(*"pppp").kind == "new"

    def test_one_that_goes_on_failing_says_since_when(self) -> None:
        """With the commits between which it began."""
        predictor = Predictor(START, LocalModel())
        builds = (self.signed(number, letter, "old") for number, letter in enumerate("ppcc"))
        (verdict,) = predictor.failures(known(*builds), self.signed(4, "f", "old"), STREAM)
        assert verdict.kind == "failing"
        assert verdict.since == (2, "c2", "c1")

    def test_a_known_flake_is_one_until_it_fails_otherwise(self) -> None:
        """The same test with another message and stack may be another bug."""
        assert self.judge(*"pkpkp", last="old").kind == "flake"
        assert self.judge(*"pkpkp", last="another").kind == "new-way"
