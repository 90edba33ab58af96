"""Builds without a readable report and without a word of the CI: how they went is unknown, and nothing is learned."""

import json
import os
import time
from pathlib import Path

import pytest

from fedstep import Project, read_junit
from tests.helpers.cli import Checkout, new_checkout

CIRCLE = {"CIRCLECI": "true", "CIRCLE_WORKFLOW_ID": "1", "CIRCLE_BUILD_NUM": "1", "CIRCLE_JOB": "t"}
CASE = '<testcase classname="c" name="t"/>'
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n"


@pytest.fixture
def place(tmp_path: Path) -> Checkout:
    return new_checkout(tmp_path / "repo")


def train(place: Checkout, *globs: str) -> tuple[str, int]:
    """Return the outcome of a build of CircleCI, which does not tell it, and how many builds were recorded."""
    project = Project.discover(place.root, environment=CIRCLE)
    report = project.train([str(place.root / pattern) for pattern in globs])
    return report.outcome.value, len(place.builds())


class TestUnknown:
    @pytest.mark.parametrize(
        "content",
        ["", "<testsuites/>", '<testsuite name="s" tests="0"/>', "<html><body>404</body></html>", LFS,
         f"<testsuite>{CASE}", f'<testsuite tests="2" failures="1">{CASE}</testsuite>', '{"numTotalTests":3}', "1..2\n",
         '{"Action":"start","Package":"p"}', "<testsuite><testcase/></testsuite>"],
    )  # fmt: skip
    def test_a_report_that_tells_nothing(self, place: Checkout, content: str) -> None:
        """Neither passed nor failed: a build that is recorded as passed teaches that its change was harmless."""
        (place.root / "r.xml").write_text(content)
        outcome, builds = train(place, "r.xml")
        assert outcome != "passed"
        assert builds == (outcome == "failed")  # a plan that is not fulfilled is a failure

    @pytest.mark.parametrize("pattern", ["nothing/*.xml", "gone.xml", "**/TEST-*.xml", "shop", "[a-z].xml"])
    def test_a_pattern_that_finds_nothing(self, place: Checkout, pattern: str) -> None:
        assert train(place, pattern) == ("unknown", 0)

    def test_a_report_of_another_day_only(self, place: Checkout) -> None:
        """Case 9: it is older than the mark that `predict` left."""
        (place.root / "r.xml").write_text(f'<testsuite name="s">{CASE}</testsuite>')
        os.utime(place.root / "r.xml", (time.time() - 3 * 86_400,) * 2)
        Project.discover(place.root, environment=CIRCLE).predict()
        assert train(place, "r.xml") == ("unknown", 0)

    def test_one_whole_report_is_enough_for_passed(self, place: Checkout) -> None:
        """Reports without tests beside it, as of packages that have none, take nothing away."""
        (place.root / "r.xml").write_text(f'<testsuite name="s">{CASE}</testsuite>')
        for name in ("a.xml", "b.xml"):
            (place.root / name).write_text("<testsuites/>")
        assert train(place, "*.xml") == ("passed", 1)


class TestMatrix:
    """Case 1: the cells of a matrix, whose reports are alike but for one outcome."""

    @pytest.mark.parametrize(
        ("cells", "variants"),
        [
            (("matrix/ubuntu/report.xml", "matrix/windows/report.xml"), ("[matrix/ubuntu] ", "[matrix/windows] ")),
            (("junit-3.11.xml", "junit-3.12.xml"), ("[junit-3.11] ", "[junit-3.12] ")),
            (("a/build/test-results/test/T.xml", "b/build/test-results/test/T.xml"), ("[a] ", "[b] ")),
            (("results (node 20)/r.xml", "results (node 22)/r.xml"), ("[results (node 20)] ", "[results (node 22)] ")),
            (("target/spark-3.5/r.xml", "target/spark-4.0/r.xml"), ("[spark-3.5] ", "[spark-4.0] ")),
        ],
    )  # fmt: skip
    def test_a_failure_in_one_cell_is_a_regression_there(
        self, place: Checkout, cells: tuple[str, str], variants: tuple[str, str]
    ) -> None:
        for path, inside in zip(cells, ("", '<failure message="no"/>'), strict=True):
            (place.root / path).parent.mkdir(parents=True, exist_ok=True)
            text = (
                f'<testsuite name="s"><testcase classname="Cart" name="adds" time="0.1">{inside}</testcase></testsuite>'
            )
            (place.root / path).write_text(text)
        paths = [str(place.root / path) for path in cells]
        triage = Project.discover(place.root, environment={}).triage(paths)
        assert [failure.test for failure in triage.failures] == [f"Cart#{variants[1]}adds"]
        assert triage.failures[0].flaky_probability < 0.9
        assert not triage.failures[0].passed_on_rerun
        assert [len(list(read_junit(path))) for path in paths] == [1, 1]

    def test_a_second_suite_takes_nothing_from_the_first(self, place: Checkout) -> None:
        """Decision 62, through the command: the first test keeps its id, and the failures of the second are its own."""
        for number, suites in enumerate((("web",), ("web",), ("web", "api!"), ("api!",), ("web", "api"))):
            parts = (
                f'<testsuite name="{suite.strip("!")}"><testcase classname="cart" name="adds" time="0.{number + 1}">'
                f"{'<failure/>' if '!' in suite else ''}</testcase></testsuite>"
                for suite in suites
            )
            (place.root / "r.xml").write_text(f"<testsuites>{''.join(parts)}</testsuites>")
            place.commit("a.txt", str(number))
            assert place.run("train", "--junit", "r.xml").code == 0
        first, second = (json.loads(place.run("explain", test, "--format", "json").out)
                         for test in ("cart#adds", "api::cart#adds"))  # fmt: skip
        assert [run["outcome"] for run in first["runs"]] == ["p"] * 4
        assert [run["outcome"] for run in second["runs"]] == ["f", "f", "p"]

    def test_cells_that_train_one_by_one_are_no_reruns(self, place: Checkout) -> None:
        """Decision 63: a matrix of GitHub without FEDSTEP_CI_CELL, whose second cell fails in each run."""
        said = ""
        for run in range(1, 5):
            place.commit("a.txt", str(run))
            job = place.with_env(GITHUB_ACTIONS="true", GITHUB_RUN_ID=str(run), GITHUB_JOB="test")
            for cell, failure in enumerate(("", "<failure/>")):
                case = f'<testcase classname="Cart" name="adds" time="0.{cell + run}">{failure}</testcase>'
                (place.root / "r.xml").write_text(f'<testsuite name="s">{case}</testsuite>')
                ran = job.run("train", "--junit", "r.xml", "--format", "json")
                said += ran.err
                for found in json.loads(ran.out)["failures"]:
                    assert found["flaky_probability"] < 0.9
        assert "set FEDSTEP_CI_CELL" in said
