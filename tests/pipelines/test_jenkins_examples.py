"""The pipelines of the documentation, run as they stand there: Declarative and Scripted."""

import re

import pytest

from tests.helpers.jenkins import EXAMPLES, ROOT, controller, keep_environment

QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture
def jenkins(repository, tmp_path):
    keep_environment(repository)
    return controller(tmp_path, repository)


class TestPipelines:
    def test_declarative_pipeline_predicts_tests_and_trains(self, jenkins):
        """The Declarative pipeline predicts, runs the tests and trains."""
        (result,) = jenkins({"jenkinsfile": str(EXAMPLES / "Jenkinsfile"), "environment": QUICK})
        assert "error" not in result, result
        _, tests, trained = result["told"]
        assert tests["sh"] == "pytest --junit-xml=report.xml"
        assert "1 passed" in tests["output"]
        assert trained["sh"] == "fedstep train"
        assert "FEDSTEP_STATUS=local" in trained["output"]
        assert "1 report file" in trained["talk"]
        assert re.fullmatch(r"fedstep: took .*, no test failed", result["description"])

    def test_scripted_pipeline_fails_on_a_regression_by_name(self, jenkins, repository):
        """The Scripted pipeline lets a regression fail the build and says which test."""
        (repository / "test_shop.py").write_text("def test_adds():\n    assert 1 + 1 == 3\n")
        (result,) = jenkins({"jenkinsfile": str(EXAMPLES / "Jenkinsfile.scripted"), "environment": QUICK})
        assert "error" not in result, result
        assert [said["sh"].partition(" ")[2] for said in result["told"] if "sh" in said] == [
            "predict", "--junit-xml=report.xml", "triage", "train"
        ]  # fmt: skip
        assert result["result"] == "FAILURE"
        (line,) = [said["echo"] for said in result["told"] if "echo" in said]
        assert re.fullmatch(r"(regression|unsure): test_shop#test_adds", line)
        assert "1 failed" in result["description"]


class TestPages:
    def test_the_pages_show_the_pipelines_that_run_here(self):
        page = (ROOT / "docs/how-to/jenkins.md").read_text(encoding="utf-8")
        for example in EXAMPLES.glob("Jenkinsfile*"):
            assert example.read_text(encoding="utf-8").strip() in page, example.name
