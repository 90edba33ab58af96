"""Run every console command of docs/tutorial/start.md in a new project, and compare what it prints."""

import doctest
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """import pathlib
import time


def test_adds():
    assert 1 + 1 == 2


def test_waits():
    time.sleep(0.1)


def test_asks_the_bank():
    tries = pathlib.Path(".tries")
    tried = tries.exists()
    tries.touch()
    assert tried, "the bank is slow"
"""
NUMBER = re.compile(r"\d+(\.\d+)?")
PLACE = re.compile(r"/\S*/your-project")
LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def consoles(page: str) -> list[tuple[str, str]]:
    """The commands of a page's consoles, and what each one shows."""
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = (each.partition("\n") for block in blocks for each in block.split("$ ")[1:])
    return [(command, output) for command, _, output in shown]


def shows(expected: str, told: str) -> bool:
    """Whether the output is the expected one: numbers and the place may differ, `...` is anything."""
    wanted, got = (NUMBER.sub("0", PLACE.sub("/your-project", text)) for text in (expected, told))
    return doctest.OutputChecker().check_output(wanted, got, LENIENT)


class TestConsoles:
    @pytest.mark.full
    def test_every_command_shows_what_the_page_says(self, tmp_path, fedstep):
        """Every command of the first ten minutes shows what the page says."""
        project = tmp_path / "your-project"
        project.mkdir()
        (project / "test_shop.py").write_text(TESTS)
        path = f"{Path(fedstep).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
        env = {
            "PATH": path,
            "HOME": str(tmp_path),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(project))
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "Begin")):
            subprocess.run([*git, *words], check=True, timeout=20)
        steps = consoles((ROOT / "docs/tutorial/start.md").read_text(encoding="utf-8"))
        assert len(steps) == 8
        for command, expected in steps:
            ran = subprocess.run(
                ["sh", "-c", command], cwd=project, env=env, capture_output=True, text=True, timeout=300
            )
            assert ran.stderr == "", command
            assert shows(expected, ran.stdout), f"$ {command}\n{ran.stdout}"

    def test_a_page_that_shows_something_else_is_found(self):
        assert shows("Build  1.5 s\n...\nStatus  local\n", "Build 22 s\nx\ny\nStatus local\n")
        assert not shows("Build  1.5 s\nStatus  local\n", "Build 22 s\nx\nStatus local\n")
        assert not shows("Tests  3 passed\n", "Tests 3 failed\n")
