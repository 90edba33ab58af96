"""The verdict on every surface, for real: failing, flaky, new and muted tests, infrastructure, and the ratchet."""

import re
import subprocess
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.jenkins import controller, talk, train, triage
from tests.pipelines.conftest import ActRun, clean_environment
from tests.pipelines.test_actions_triage import JUDGE
from tests.pipelines.test_gitlab import VERDICT, run, shop  # noqa: F401  # `run` and `shop` are fixtures

FAILED = '<failure message="assert 200 == 401">AssertionError</failure>'
FLAKED = '<flakyFailure message="timed out">TimeoutError</flakyFailure>'
STOPPED = "Run pytest\n##[error]The runner has received a shutdown signal. This can happen when it is stopped.\n"


class Case(NamedTuple):
    """A report of the known tests and one that is there once more, with the options as variables."""

    test: str
    outcome: str  # the children of its case
    variables: dict[str, str]
    passes: bool
    says: str
    before: str = ""  # the children of its case in the build that was learned from
    muted: str = ""  # the name, or a pattern, on the mute list

    def report(self, outcome: str | None = None) -> str:
        """The report of the build that is judged, or of one in which the test had this outcome."""
        cases = [("test_adds", ""), ("test_waits", ""), (self.test, self.outcome if outcome is None else outcome)]
        written = "".join(
            f'<testcase classname="tests.test_cart" name="{name}" time="0.5">{inner}</testcase>'
            for name, inner in dict(cases).items()
        )
        return f'<testsuite name="shop">{written}</testsuite>'

    def prepare(self, folder: Path, fedstep: str) -> None:
        """Write the report, the log of a runner that was stopped, and the mute list."""
        (folder / "now.xml").write_text(self.report())
        (folder / "job.log").write_text(STOPPED)
        if self.before:
            (folder / "report.xml").write_text(self.report(self.before))
        if self.muted:
            add = [fedstep, "quarantine", "add", f"tests.test_cart#{self.muted}", "--owner", "ada", "--reason", "#7"]
            subprocess.run(add, cwd=folder, check=True, timeout=60)


RATCHET = {"FEDSTEP_NEW_FLAKES": "fail"}
CASES = {
    "failing": Case("test_waits", FAILED, {}, False, "1 failure not forgiven"),
    "muted": Case("test_waits", FAILED, {}, True, "quarantined by ada until", muted="test_waits"),
    "flaky": Case("test_sleeps", FLAKED, {}, True, "it passed when it was run again"),
    "newly flaky": Case("test_waits", FLAKED, RATCHET, False, "newly flaky or failing"),
    "known flake": Case("test_waits", FLAKED, RATCHET, True, "a known flake", before=FLAKED),
    "new": Case("test_added", FLAKED, {}, False, "1 in tests without history"),
    "new and muted": Case("test_added", FAILED, {}, False, "1 in tests without history", muted="test_*"),
    "infrastructure": Case("test_sleeps", "", {"FEDSTEP_LOG": "job.log"}, False, "infrastructure: runner lost"),
    "killed": Case("test_sleeps", "", {"FEDSTEP_EXIT_CODE": "137"}, False, "infrastructure: killed"),
}
IN_FULL = CASES.keys() - {"failing", "known flake"}


def cases_but(in_full: Collection[str], cases: Mapping[str, NamedTuple]) -> pytest.MarkDecorator:
    """Return the mark that gives a test each of the cases; those in `in_full` are marked `full`."""
    parameters = [
        pytest.param(case, id=name, marks=[pytest.mark.full] * (name in in_full)) for name, case in cases.items()
    ]
    return pytest.mark.parametrize("case", parameters)


SOME_CASES = cases_but(IN_FULL, CASES)


class TestEverySurface:
    @SOME_CASES
    def test_github_by_act(self, act: Callable[..., ActRun], fedstep: str, repository: Path, case: Case) -> None:
        """The first job of the workflow trains on the report of the fixture, the second one judges."""
        case.prepare(repository, fedstep)
        ran = act(JUDGE, COMMAND=fedstep, REPORTS="now.xml", FAIL_ON="regressions", **case.variables)
        assert ran.outputs("triage")["verdict"] == ("passed" if case.passes else "failed"), ran.log
        assert (ran.code == 0) == case.passes
        assert case.says in ran.summary().replace("`", "")

    @SOME_CASES
    def test_jenkins_by_groovy(self, repository: Path, tmp_path: Path, fedstep: str, case: Case) -> None:
        """The first build trains, the second one judges."""
        jenkins = controller(tmp_path, repository)
        case.prepare(repository, fedstep)
        jenkins(train(command=fedstep, junit="report.xml"))
        judged = triage(command=fedstep, junit="now.xml", failOn="regressions")
        (result,) = jenkins(judged | {"environment": {"BUILD_NUMBER": "2", **case.variables}})
        assert ("error" not in result) == case.passes, talk(result)
        assert case.says in " ".join(talk(result).split())

    @SOME_CASES
    def test_gitlab_by_its_script(self, run: Callable, shop: Path, fedstep: str, case: Case) -> None:  # noqa: F811
        """The job of the page; in place of pytest it copies a report."""
        text = VERDICT.read_text().replace("pytest --junit-xml=report.xml || true", "cp now.xml report.xml")
        (shop / "now.xml").write_text(Case("test_sleeps", "", {}, True, "").report())
        if case.before:
            (shop / "now.xml").write_text(case.report(case.before))
        run(text)
        case.prepare(shop, fedstep)
        job = run(text, **case.variables)
        assert (job.code == 0) == case.passes, job.log
        assert case.says in re.sub(r"\s+", " ", job.log)


ONCE = "from pathlib import Path\n    seen = Path('once').exists()\n    Path('once').touch()\n    assert seen"
BROKEN = "assert 200 == 401"


class PytestCase(NamedTuple):
    """What the known test does in the session that is judged, and how that and the verdict end."""

    body: str
    session: int
    verdict: int
    says: str
    variables: tuple[tuple[str, str], ...] = ()
    muted: bool = False
    new: bool = False


PYTEST_CASES = {
    "failing": PytestCase(BROKEN, 1, 1, "1 failure not forgiven"),
    "muted": PytestCase(BROKEN, 0, 0, "quarantined by ada until", muted=True),
    "flaky": PytestCase(ONCE, 0, 0, "it passed when it was run again"),
    "newly flaky": PytestCase(ONCE, 0, 1, "newly flaky or failing", tuple(RATCHET.items())),
    "new": PytestCase(ONCE, 0, 1, "1 in tests without history", new=True),
    "new and muted": PytestCase(BROKEN, 1, 1, "1 in tests without history", muted=True, new=True),
    "infrastructure": PytestCase("import os; os._exit(137)", 137, 1, "infrastructure, run the job again", muted=True),
}


PYTEST_IN_FULL = {"newly flaky", "new and muted", "infrastructure"}


class TestPytest:
    @cases_but(PYTEST_IN_FULL, PYTEST_CASES)
    def test_a_real_session_is_judged(self, tmp_path: Path, fedstep: str, case: PytestCase) -> None:
        """The first session passes and is learned from; the second one has the failure, and reruns it once."""
        name = "test_new" if case.new else "test_known"
        if case.muted:
            add = [fedstep, "quarantine", "add", "test_cart#test_*", "--owner", "ada", "--reason", "#7"]
            subprocess.run(add, cwd=tmp_path, check=True, timeout=60)

        def session(body: str) -> subprocess.CompletedProcess[str]:
            (tmp_path / "r.xml").unlink(missing_ok=True)
            old = "" if name == "test_known" else "def test_known(): pass\n"
            new = f"def {name}():\n    {body}\n" if body != "pass" or not case.new else ""
            (tmp_path / "test_cart.py").write_text(f"{old}{new}def test_other(): pass\n")
            command = [str(Path(fedstep).with_name("pytest")), "-p", "no:cacheprovider", "--rootdir", "."]
            options = ["--fedstep-quarantine", "--reruns", "1", "--fedstep-record", "r.xml"]
            return subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120)

        assert session("pass").returncode == 0
        subprocess.run(
            [fedstep, "train", "--junit", "r.xml"], cwd=tmp_path, check=True, capture_output=True, timeout=120
        )
        ran = session(case.body)
        assert ran.returncode == case.session, ran.stdout
        judge = [fedstep, "verdict", "--junit", "r.xml", "--exit-code", str(ran.returncode)]
        env = clean_environment() | dict(case.variables)
        judged = subprocess.run(judge, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=120)
        assert judged.returncode == case.verdict, judged.stdout
        assert case.says in " ".join(judged.stdout.split())
