"""The GitLab component and its examples, run by gitlab-ci-local: another reading of the same files than ours."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.gitlab import TEMPLATES
from tests.pipelines.conftest import HERE, ROOT, clean_environment

pytestmark = [pytest.mark.full, pytest.mark.slow]
CLIENT = "gitlab-ci-local@4.62.0"  # the newest that runs on Node.js 20
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command of gitlab-ci-local, from the npm registry."""
    folder = tmp_path_factory.mktemp("client")
    for program in ("npm", "rsync"):
        if not shutil.which(program):
            pytest.skip(f"NOT RUN: {program} is missing, which gitlab-ci-local needs; `make test-full` installs rsync")
    npm = ("npm", "install", "--no-fund", "--no-audit", "--no-save", "--prefix", str(folder), CLIENT)
    ran = subprocess.run(npm, capture_output=True, text=True, timeout=300, cwd=folder)
    if ran.returncode:
        pytest.skip(f"NOT RUN: gitlab-ci-local is not installed: {ran.stderr[-300:]}")
    return str(folder / "node_modules/.bin/gitlab-ci-local")


@pytest.fixture
def run(client: str, repository: Path, fedstep: str) -> Run:
    """Runs a job of an example; keyword arguments are variables of the project."""
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(repository))
    (repository / "templates").mkdir()
    for path in TEMPLATES.glob("*.yml"):
        shutil.copyfile(path, repository / "templates" / path.name)

    def go(example: str, *jobs: str, more: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        text = (HERE / "examples" / example).read_text() + more
        text = re.sub(r"component: \S+/(\w+)@v1", r"local: templates/\1.yml", text)  # it can reach no server
        (repository / ".gitlab-ci.yml").write_text(text)
        for words in (("add", "-A"), ("commit", "-q", "--allow-empty", "-m", "Change")):
            subprocess.run([*git, *words], check=True, timeout=20)
        given = {"FEDSTEP_WITH_COMMAND": fedstep, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
        flags = [word for name, value in given.items() for word in ("--variable", f"{name}={value}")]
        environment = clean_environment()
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        return subprocess.run(
            [client, "--force-shell-executor", *flags, *jobs],
            cwd=repository, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return go


class TestPage:
    def test_the_job_of_the_page_runs_after_that_of_the_tests(self, run: Run, repository: Path) -> None:
        """That of docs/how-to/report.md, in the same folder; test_report_page compares the key of its cache."""
        page = (ROOT / "docs/how-to/report.md").read_text(encoding="utf-8")
        job = "\n" + page[page.index("pages:\n  stage: deploy") :].partition("```")[0]
        tested = run("gitlab.yml", "test", more=job)
        assert tested.returncode == 0, tested.stdout + tested.stderr
        made = run("gitlab.yml", "pages", more=job, CI_JOB_STARTED_AT="")
        assert made.returncode == 0, made.stdout + made.stderr
        index = (repository / "public/index.html").read_text()
        assert "1 build, 1 test" in index


class TestExamples:
    def test_the_first_example_predicts_tests_and_learns(self, run: Run, repository: Path) -> None:
        first = run("gitlab.yml", "test")
        assert first.returncode == 0, first.stdout + first.stderr
        assert "Failure risk" in first.stdout.partition("pytest --junit-xml")[0]
        second = run("gitlab.yml", "test")
        assert "1 build and 1 test known" in second.stdout
        told = (repository / "fedstep.env").read_text()
        assert "FEDSTEP_STATUS=local" in told

    def test_a_prediction_before_all_other_jobs_reaches_them(self, run: Run) -> None:
        done = run("gitlab-predict.yml", "--needs", "estimate", CI_JOB_STARTED_AT="")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "The tests will take about" in done.stdout
        assert "Failure risk" in done.stdout

    def test_the_verdict_fails_the_job_or_forgives(self, run: Run, repository: Path, fedstep: str) -> None:
        (repository / "test_shop.py").write_text("def test_waits():\n    assert False\n")
        failed = run("gitlab-verdict.yml", "test")
        assert failed.returncode == 1
        assert "1 failure not forgiven" in failed.stdout
        assert "from 1 outcome" in failed.stdout, "after_script ran"
        add = [fedstep, "quarantine", "add", "test_shop#test_waits", "--owner", "ada", "--reason", "#123"]
        subprocess.run(add, cwd=repository, check=True, timeout=60)
        passed = run("gitlab-verdict.yml", "test")
        assert passed.returncode == 0, passed.stdout + passed.stderr
        assert "Forgiven" in passed.stdout
