"""`fedstep.Project`: which repository, history and environment it uses, and that problems are in its reports."""

from collections.abc import Callable
from pathlib import Path

import pytest

import fedstep
from fedstep import Project
from fedstep.errors import UsageError
from fedstep.types import Duration, Unavailable
from tests.helpers.cli import Checkout, forty_tests, junit, new_checkout

NOW = 1_790_000_000.0
CI = {"CI": "true", "FEDSTEP_CI_RUN": "1", "FEDSTEP_CI_JOB": "test", "FEDSTEP_CI_BRANCH": "main"}
Build = Callable[..., Project]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a repository of two commits without a history."""
    return new_checkout(tmp_path / "repo")


@pytest.fixture
def project(checkout: Checkout) -> Build:
    """Return a function that makes a project of the checkout; keyword arguments are variables of the CI."""

    def make(at: float = NOW, **variables: str) -> Project:
        return Project.discover(checkout.root, environment=variables, clock=lambda: at)

    return make


def write_report(checkout: Checkout, number: int = 1) -> None:
    """Write a report of forty tests as `report.xml`."""
    (checkout.root / "report.xml").write_text(junit(forty_tests(number)))


class TestDiscovery:
    def test_a_folder_inside_belongs_to_its_repository(self, checkout: Checkout) -> None:
        (checkout.root / "a" / "b").mkdir(parents=True)
        context = Project.discover(checkout.root / "a" / "b", environment={}).context()
        assert context.root == str(checkout.root)
        assert context.folder == str(checkout.root / "a" / "b")

    def test_argument_beats_variable_beats_file(self, checkout: Checkout) -> None:
        (checkout.root / ".fedstep.toml").write_text('history = "of-file"\n')
        found = [
            Project.discover(checkout.root, environment={}),
            Project.discover(checkout.root, environment={"FEDSTEP_HISTORY": "of-variable"}),
            Project.discover(checkout.root, environment={"FEDSTEP_HISTORY": "of-variable"}, history="given"),
        ]
        assert [one.history for one in found] == ["of-file", "of-variable", "given"]

    def test_variables_of_the_process_are_not_read_if_given(
        self, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEDSTEP_HISTORY", "of-process")
        assert Project.discover(checkout.root, environment={}).history in ("", ".fedstep")
        assert Project.discover(checkout.root).history == "of-process"

    @pytest.mark.parametrize("part", ["../other", "/etc", "a/../../b"])
    def test_a_part_outside_the_repository_is_refused(self, checkout: Checkout, part: str) -> None:
        with pytest.raises(UsageError):
            Project.discover(checkout.root, environment={}, part=part)

    def test_parts_have_histories_of_their_own(self, checkout: Checkout) -> None:
        folders = {
            Project.discover(checkout.root, environment={}, part=part).context().store.folder
            for part in ("", "api", "web")
        }
        assert len(folders) == 3


class TestPrediction:
    def test_without_a_history_the_report_says_so(self, project: Build) -> None:
        """A first run is no fault: the report says what is missing and what to do."""
        prediction = project().predict()
        assert prediction.status == "local"
        assert isinstance(prediction.duration, Unavailable)
        assert any("no build of this project is known" in warning for warning in prediction.warnings)

    def test_predicting_on_a_developers_machine_writes_nothing(self, project: Build, checkout: Checkout) -> None:
        project().predict()
        assert not checkout.history.exists()

    def test_in_ci_the_start_of_the_job_is_recorded_once(self, project: Build, checkout: Checkout) -> None:
        project(NOW, **CI).predict()
        project(NOW + 50, **CI).predict()
        (mark,) = (checkout.history / "marks").iterdir()
        assert mark.read_text().split()[0] == f"{NOW:.3f}"

    def test_the_start_is_not_recorded_if_not_asked_for(self, project: Build, checkout: Checkout) -> None:
        project(NOW, **CI).predict(record_start=False)
        assert not (checkout.history / "marks").exists()


class TestTriage:
    def test_each_failure_is_judged_and_nothing_is_written(self, project: Build, checkout: Checkout) -> None:
        write_report(checkout, 3)
        report = project().triage(["report.xml"])
        assert [failure.test for failure in report.failures] == ["shop.test_cart#test_7"]
        assert 0 <= report.failures[0].flaky_probability <= 1
        assert not checkout.history.exists()

    def test_a_glob_without_a_match_is_a_problem(self, project: Build) -> None:
        report = project().triage(["nothing-*.xml"])
        assert report.status == "degraded"
        assert any("nothing-*.xml" in warning for warning in report.warnings)


class TestTraining:
    def test_a_build_is_recorded_with_its_time(self, project: Build, checkout: Checkout) -> None:
        """From the start that `predict` recorded to the moment of `train`, by the given clock."""
        write_report(checkout)
        project(NOW, **CI).predict()
        report = project(NOW + 90, **CI).train(["report.xml"])
        assert report.duration == Duration(90.0, "mark")
        assert len(checkout.builds()) == 1

    def test_the_given_outcome_is_recorded(self, project: Build, checkout: Checkout) -> None:
        write_report(checkout)
        report = project(NOW, **CI).train(["report.xml"], outcome=fedstep.BuildOutcome.UNSTABLE)
        assert report.outcome == "unstable"

    def test_what_was_trained_is_known_afterwards(self, project: Build, checkout: Checkout) -> None:
        for number in range(1, 4):
            write_report(checkout, number)
            variables = {**CI, "FEDSTEP_CI_RUN": str(number)}
            project(NOW + number * 3600, **variables).train(["report.xml"])
        prediction = project(NOW + 20_000, **CI).predict()
        assert (prediction.builds_known, prediction.tests_known) == (3, 40)

    def test_a_fork_is_judged_and_not_recorded(self, project: Build, checkout: Checkout) -> None:
        write_report(checkout)
        fork = {"CIRCLECI": "true", "CIRCLE_WORKFLOW_ID": "w", "CIRCLE_JOB": "test", "CIRCLE_PR_USERNAME": "stranger"}
        report = project(NOW, **fork).train(["report.xml"])
        assert any("fork" in warning for warning in report.warnings)
        assert checkout.builds() == []


class TestExplanation:
    def test_a_part_of_the_name_is_enough(self, project: Build, checkout: Checkout) -> None:
        write_report(checkout)
        project(NOW, **CI).train(["report.xml"])
        assert project().explain("test_17").test == "shop.test_cart#test_17"

    def test_an_ambiguous_name_is_a_usage_error(self, project: Build, checkout: Checkout) -> None:
        write_report(checkout)
        project(NOW, **CI).train(["report.xml"])
        with pytest.raises(UsageError):
            project().explain("cart#test")


class TestReports:
    def test_a_file_that_is_no_report_is_an_input_error(self, tmp_path: Path) -> None:
        (tmp_path / "page.xml").write_text("<html></html>")
        with pytest.raises(fedstep.InputError, match=r"page\.xml"):
            fedstep.read_junit(tmp_path / "page.xml")

    def test_runs_have_the_outcomes_of_the_report(self, checkout: Checkout) -> None:
        write_report(checkout, 3)
        outcomes = [run.outcome for run in fedstep.read_junit(checkout.root / "report.xml")]
        assert (outcomes.count(fedstep.Outcome.PASSED), outcomes.count(fedstep.Outcome.FAILED)) == (39, 1)

    def test_a_folder_without_git_has_no_known_change(self, tmp_path: Path) -> None:
        prediction = Project.discover(tmp_path, environment={}, clock=lambda: NOW).predict()
        assert any("change is unknown" in warning for warning in prediction.warnings)
