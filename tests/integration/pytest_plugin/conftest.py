"""Projects whose tests pytest runs in a process of its own, with our plugin and a history that knows their flakes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = '''
import pathlib
import pytest

def first_time(name):
    """Whether this is the first call with this name in this folder."""
    try:
        pathlib.Path(__file__).with_name(name + ".tried").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def test_flaky():
    if first_time("flaky"):
        raise TimeoutError("bank")

@pytest.mark.parametrize("number", range(40))
def test_fine(number):
    pass
'''


def report(build: int) -> str:
    """Build by build: test_flaky and test_flaky_too fail in every third, and pass when they are run again."""
    cases = [f'<testcase classname="test_shop" name="test_fine[{n}]" time="0.01"/>' for n in range(40)]
    cases.append('<testcase classname="test_shop" name="test_broken" time="0.01"/>')
    for name, turn in (("test_flaky", 1), ("test_flaky_too", 2)):
        inside = '<flakyFailure message="TimeoutError: bank"/>' if build % 3 == turn else ""
        cases.append(f'<testcase classname="test_shop" name="{name}" time="0.01">{inside}</testcase>')
    return f'<testsuite name="shop">{"".join(cases)}</testsuite>'


def git(root: Path, *arguments: str) -> None:
    author = {f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(("git", *arguments), cwd=root, env={**os.environ, **author}, check=True, timeout=20)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of sixteen builds, learned once."""
    place = tmp_path_factory.mktemp("learned")
    git(place, "init", "-q", "-b", "main", ".")
    for number in range(16):
        build = place / "recorded" / f"{number:03d}"
        build.mkdir(parents=True)
        told = {"build": str(number), "job": "test", "branch": "main", "seconds": 60, "commit": f"{number + 1:040x}"}
        told |= {"started_at": time.time() - 3600 * (20 - number), "changes": [{"path": "a.md"}]}
        (build / "build.json").write_text(json.dumps(told))
        (build / "report.xml").write_text(report(number))
    command = (sys.executable, "-P", "-m", "fedstep", "backfill", "recorded")
    subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=120)
    return place / ".fedstep"


@pytest.fixture
def shop(pytester: pytest.Pytester, learned: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Runs pytest with our plugin on test_shop.py, in a repository whose last change is far from it."""
    for variable in [name for name in os.environ if name.startswith(("FEDSTEP_", "GITHUB_", "PYTEST_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    shutil.copytree(learned, pytester.path / ".fedstep")

    def run(more: str, *options: str, tests: str = TESTS) -> pytest.RunResult:
        (pytester.path / "test_shop.py").write_text(tests + more)
        (pytester.path / ".gitignore").write_text("*.tried\n__pycache__\n*.xml\n")
        git(pytester.path, "init", "-q", "-b", "main", ".")
        git(pytester.path, "add", ".")
        git(pytester.path, "commit", "-q", "-m", "shop")
        (pytester.path / "notes.md").write_text("far away\n")
        git(pytester.path, "add", ".")
        git(pytester.path, "commit", "-q", "-m", "notes")
        return pytester.runpytest_subprocess("-p", "fedstep.pytest_plugin.plugin", "-p", "no:cacheprovider", *options)

    return run
