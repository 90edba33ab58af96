"""The recipe for any CI, run as it stands by the shells that CIs have."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedstep.ingest.ci_vendors import FEDSTEP_VARIABLES

RECIPE = Path(__file__).parent / "examples" / "any-ci.sh"
SHELLS = ("dash", pytest.param("bash", marks=pytest.mark.full))
FAILS = "def test_waits():\n    assert False\n"
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(repository: Path, tmp_path: Path) -> Run:
    """Starts the recipe in the repository; keyword arguments are variables."""
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(repository))
    for words in (("rm", "-q", "*.xml"), ("commit", "-q", "-m", "Write no reports")):
        subprocess.run([*git, *words], check=True, timeout=20)

    def go(shell: str, **more: str) -> "subprocess.Popen[str]":
        path = f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
        env = {"PATH": path, "HOME": str(tmp_path), "BUILD_NUMBER": "1", "BRANCH": "main"}
        env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **more}
        return subprocess.Popen(
            [shell, str(RECIPE)],
            cwd=repository,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return go


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def builds(repository: Path) -> int:
    return len(list((repository / ".fedstep").glob("builds/*")))


class TestRecipe:
    @pytest.mark.parametrize("shell", SHELLS)
    def test_the_recipe_predicts_runs_the_tests_and_learns(self, start, repository, shell):
        code, out, err = ended(start(shell))
        assert code == 0, err
        assert out.index("Build time") < out.index("1 passed") < out.index("Build         passed")
        assert builds(repository) == 1
        assert (repository / ".fedstep" / "marks").exists(), "the job is timed from its start"

    @pytest.mark.parametrize("shell", SHELLS)
    def test_failing_tests_are_learned_and_their_exit_code_stands(self, start, repository, shell):
        (repository / "test_shop.py").write_text(FAILS)
        code, out, err = ended(start(shell, FEDSTEP_AGGREGATOR="http://127.0.0.1:9", FEDSTEP_TIMEOUT="1"))
        assert code == 1
        assert "1 failed" in out
        assert "Build         failed" in out
        assert err.count("127.0.0.1:9") == 1
        assert builds(repository) == 1

    def test_without_fedstep_the_tests_run_all_the_same(self, start, tmp_path):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "pytest").symlink_to(Path(sys.executable).parent / "pytest")
        code, out, err = ended(start("dash", PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin"))
        assert code == 0
        assert "1 passed" in out
        assert err.count("fedstep: not found") == 2

    def test_a_job_that_is_stopped_teaches_nothing(self, start, repository):
        (repository / "test_shop.py").write_text(
            "import time, pathlib\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
        )
        with start("dash") as process:
            end = time.monotonic() + 60
            while not (repository / "begun").exists():
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGTERM)
            code, out, _ = ended(process)
        assert code == 143
        assert "Build         " not in out
        assert builds(repository) == 0


class TestPage:
    def test_the_page_has_the_recipe_and_every_variable(self):
        page = (RECIPE.parents[3] / "docs/how-to/any-ci.md").read_text()
        assert RECIPE.read_text() in page
        known = {
            name
            for field in FEDSTEP_VARIABLES
            if isinstance(field, tuple)
            for name in field
            if str(name).startswith("FEDSTEP_CI_")
        }
        assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == known
