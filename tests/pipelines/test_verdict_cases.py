"""The verdict on every surface, for real: a flake, a new test, an infrastructure failure, and the ratchet.

What fails and what is quarantined is judged in the tests of each surface.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.jenkins import controller, talk, train, triage
from tests.pipelines.conftest import ActRun
from tests.pipelines.test_actions_triage import JUDGE
from tests.pipelines.test_gitlab import VERDICT, run, shop  # noqa: F401  # `run` and `shop` are fixtures

FLAKED = '<flakyFailure message="timed out">TimeoutError</flakyFailure>'
STOPPED = "Run pytest\n##[error]The runner has received a shutdown signal. This can happen when it is stopped.\n"


class Case(NamedTuple):
    """A report of the known tests and one that is there once more, with the options as variables."""

    test: str
    outcome: str  # the children of its case
    variables: dict[str, str]
    passes: bool
    says: str

    def report(self) -> str:
        cases = [("test_adds", ""), ("test_waits", ""), (self.test, self.outcome)]
        written = "".join(
            f'<testcase classname="tests.test_cart" name="{name}" time="0.5">{inner}</testcase>'
            for name, inner in dict(cases).items()
        )
        return f'<testsuite name="shop">{written}</testsuite>'


CASES = {
    "flaky": Case("test_sleeps", FLAKED, {}, True, "it passed when it was run again"),
    "newly flaky": Case("test_waits", FLAKED, {"FEDSTEP_NEW_FLAKES": "fail"}, False, "newly flaky or failing"),
    "new": Case("test_added", FLAKED, {}, False, "1 in tests that this change adds"),
    "infrastructure": Case("test_sleeps", "", {"FEDSTEP_LOG": "job.log"}, False, "infrastructure: runner lost"),
    "killed": Case("test_sleeps", "", {"FEDSTEP_EXIT_CODE": "137"}, False, "infrastructure: out of memory"),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


class TestEverySurface:
    @EVERY_CASE
    def test_github_by_act(self, act: Callable[..., ActRun], fedstep: str, repository: Path, case: Case) -> None:
        """The first job of the workflow trains on the report of the fixture, the second one judges."""
        (repository / "now.xml").write_text(case.report())
        (repository / "job.log").write_text(STOPPED)
        ran = act(JUDGE, COMMAND=fedstep, REPORTS="now.xml", FAIL_ON="regressions", **case.variables)
        assert ran.outputs("triage")["verdict"] == ("passed" if case.passes else "failed"), ran.log
        assert (ran.code == 0) == case.passes
        assert case.says in ran.summary().replace("`", "")

    @EVERY_CASE
    def test_jenkins_by_groovy(self, repository: Path, tmp_path: Path, fedstep: str, case: Case) -> None:
        """The first build trains, the second one judges."""
        jenkins = controller(tmp_path, repository)
        jenkins(train(command=fedstep, junit="report.xml"))
        (repository / "now.xml").write_text(case.report())
        (repository / "job.log").write_text(STOPPED)
        judged = triage(command=fedstep, junit="now.xml", failOn="regressions")
        (result,) = jenkins(judged | {"environment": {"BUILD_NUMBER": "2", **case.variables}})
        assert ("error" not in result) == case.passes, talk(result)
        assert case.says in " ".join(talk(result).split())

    @EVERY_CASE
    def test_gitlab_by_its_script(self, run: Callable, shop: Path, case: Case) -> None:  # noqa: F811
        """The job of the page; in place of pytest it copies a report."""
        text = VERDICT.read_text().replace("pytest --junit-xml=report.xml || true", "cp now.xml report.xml")
        (shop / "now.xml").write_text(Case("test_sleeps", "", {}, True, "").report())
        first = run(text)
        assert first.code == 0, first.log
        (shop / "now.xml").write_text(case.report())
        (shop / "job.log").write_text(STOPPED)
        job = run(text, **case.variables)
        assert (job.code == 0) == case.passes, job.log
        assert case.says in re.sub(r"\s+", " ", job.log)

    def test_pytest_itself(self, tmp_path: Path, fedstep: str) -> None:
        """A quarantined failure is an expected one; a new test that fails is not, and the report has both."""
        (tmp_path / "test_cart.py").write_text("def test_old(): assert 0\ndef test_new(): assert 0\n")
        add = [fedstep, "quarantine", "add", "test_cart#test_old", "--owner", "ada", "--reason", "#7"]
        subprocess.run(add, cwd=tmp_path, check=True, timeout=60)
        command = [str(Path(fedstep).with_name("pytest")), "-p", "no:cacheprovider", "--rootdir", "."]
        ran = subprocess.run(
            [*command, "--fedstep-quarantine"], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 1
        assert "1 failed, 1 xfailed" in ran.stdout
