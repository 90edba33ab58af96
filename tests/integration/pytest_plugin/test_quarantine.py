"""`pytest --fedstep-quarantine`: failures of quarantined tests stay visible and fail nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedstep.project import read_junit

pytest_plugins = ["pytester"]

TESTS = """
import pytest
def test_flaky(): assert 200 == 401
@pytest.fixture
def broken(): raise OSError("no")
def test_setup(broken): pass
def test_passes(): pass
def test_real(): assert {real}
"""
MUTES = """
[[mute]]
test = "test_shop#test_flaky"
owner = "ada"
reason = "#7"
until = 2099-12-31
[[mute]]
test = "test_shop#test_setup"
owner = "ada"
reason = "#8"
until = 2099-12-31
[[mute]]
test = "test_shop#test_passes"
owner = "ada"
reason = "over"
until = 2020-01-01
"""


def run(folder: Path, *options: str, real: str = "True") -> subprocess.CompletedProcess[str]:
    (folder / "test_shop.py").write_text(TESTS.format(real=real))
    (folder / ".fedstep-mutes.toml").write_text(MUTES)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


class TestQuarantine:
    @pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
    def test_its_failures_are_shown_and_fail_nothing(self, tmp_path: Path, workers: tuple[str, ...]) -> None:
        """In the call and in the setup; an entry that is over is named."""
        ran = run(tmp_path, "--fedstep-quarantine", *workers)
        assert ran.returncode == 0, ran.stdout
        assert "2 failures of quarantined tests, not counted" in ran.stdout
        assert "2 xfailed" in ran.stdout
        assert "ended on 2020-01-01" in ran.stdout

    def test_any_other_failure_fails_the_session(self, tmp_path: Path) -> None:
        assert run(tmp_path, "--fedstep-quarantine", real="False").returncode == 1
        assert run(tmp_path).returncode == 1, "without the option nothing is forgiven"

    def test_the_reports_still_say_that_it_failed(self, tmp_path: Path) -> None:
        """A history that saw them as skipped could never release a test."""
        run(tmp_path, "--fedstep-quarantine", "--junit-xml", "r.xml", "--fedstep-record", "own.xml")
        for report in ("r.xml", "own.xml"):
            outcomes = {test.test.partition("#")[2]: test.outcome for test in read_junit(tmp_path / report)}
            assert outcomes["test_flaky"] == "f", report
            assert outcomes["test_passes"] == "p"

    @pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
    def test_a_test_that_the_change_adds_counts(
        self, shop: Callable[..., pytest.RunResult], pytester: pytest.Pytester, workers: tuple[str, ...]
    ) -> None:
        """A pattern that forgives the known ones does not forgive it: whoever wrote it did not know the test."""
        mute = 'test = "test_shop#*"\nowner = "ada"\nreason = "#7"\nuntil = 2099-12-31\n'
        (pytester.path / ".fedstep-mutes.toml").write_text(f"[[mute]]\n{mute}")
        added = "def test_added():\n    assert 1 == 2\n"
        plugins = ("-p", "xdist.plugin") if workers else ()
        ran = shop(added, "--fedstep-quarantine", *plugins, *workers)
        ran.assert_outcomes(failed=1, xfailed=1, passed=40)
        ran.stdout.fnmatch_lines(["test_shop.py::test_added has no history: the mute list does not count for it yet"])
        assert ran.ret == 1

    def test_without_a_history_it_says_that_new_ones_are_forgiven(self, tmp_path: Path) -> None:
        """Nothing is known of any test then."""
        assert (
            "no test of this project is known yet: a new one is forgiven, too"
            in run(tmp_path, "--fedstep-quarantine").stdout
        )
