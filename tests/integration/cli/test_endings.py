"""Whatever the machine lacks, a step ends in one line and exit 0, without a traceback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, forty_tests

FEDSTEP = f"{sys.executable} -m fedstep"


def ended(script: str, folder: Path, **environment: str) -> tuple[int, list[str]]:
    """Return the exit code of a shell script and the last line of its standard error."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
    done = subprocess.run(["/bin/sh", "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()


class TestEndings:
    @pytest.mark.parametrize("command", ["predict", "triage --junit r.xml", "train --junit r.xml"])
    @pytest.mark.parametrize(
        ("ending", "says"),
        [
            (">/dev/full", "the result cannot be printed: No space left on device"),
            (">&-", "standard output is closed, the result is not printed"),
            (">&- 2>&-", ""), (">/dev/null 2>/dev/full", ""), ("<&- >/dev/null", ""),
        ],
    )  # fmt: skip
    def test_streams_that_are_closed_or_full(self, tmp_path: Path, command: str, ending: str, says: str) -> None:
        (tmp_path / "r.xml").write_text('<testsuite name="s"><testcase classname="c" name="t"/></testsuite>')
        code, lines = ended(f"{FEDSTEP} {command} {ending}", tmp_path)
        assert code == 0
        assert sum(says in line for line in lines) == 1 if says else True

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        for command in ("predict", "train --junit r.xml"):
            code, lines = ended(f"mkdir gone; cd gone; rmdir ../gone; {FEDSTEP} {command}", tmp_path)
            assert (code, len(lines)) == (0, 1)
            assert "the working folder does not exist any more" in lines[0]

    @pytest.mark.parametrize("strict", [f"{FEDSTEP} train --strict", f"FEDSTEP_STRICT=true {FEDSTEP} train"])
    def test_strict_fails_in_a_folder_that_is_gone(self, tmp_path: Path, strict: str) -> None:
        """The option and its variable mean the same."""
        code, _ = ended(f"mkdir gone; cd gone; rmdir ../gone; {strict}", tmp_path)
        assert code == 1

    def test_no_home_and_no_reports(self, tmp_path: Path) -> None:
        """The outcome of a build without reports and without a word of the CI is unknown, and nothing is recorded."""
        circle = "CIRCLECI=true CIRCLE_WORKFLOW_ID=1 CIRCLE_BUILD_NUM=1 CIRCLE_JOB=t"
        script = f"unset HOME; {circle} {FEDSTEP} train --junit 'nothing/*.xml' --format json"
        code, lines = ended(f'{script} | grep -q \'"outcome": "unknown"\'', tmp_path)
        assert code == 0
        assert any("nothing/*.xml: this glob matches no file" in line for line in lines)
        assert not list(tmp_path.glob(".fedstep/builds/*"))


class TestReadOnly:
    """A workspace that is mounted read-only: also root can write nothing there."""

    @pytest.fixture
    def read_only(self, tmp_path: Path) -> str:
        """The beginning of a shell line that mounts the folder read-only, for this line alone."""
        unshare = shutil.which("unshare")
        line = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && cd {tmp_path} && "
        start = f"unshare {'-m' if os.getuid() == 0 else '-rm'} sh -c '{line}"
        tried = subprocess.run(f"{start} ! touch x'", shell=True, cwd="/", capture_output=True, timeout=60)
        if not unshare or tried.returncode or (tmp_path / "x").exists():
            pytest.skip("unshare cannot mount a folder read-only here: a read-only workspace is not tried")
        return start

    @pytest.mark.parametrize(
        ("command", "shows"),
        [("predict", "Build time"), ("triage --junit r.xml", "Verdict"), ("reports r.xml", "pytest"),
         ("train --junit r.xml", ""), ("status", "")],
    )  # fmt: skip
    @pytest.mark.parametrize("has_history", [False, True])
    def test_a_read_only_workspace(
        self, experienced: Checkout, read_only: str, command: str, shows: str, has_history: bool
    ) -> None:
        """One line says what could not be written, what was asked for is printed, and the step goes on."""
        experienced.report(forty_tests(7), "r.xml")
        if not has_history:
            shutil.rmtree(experienced.history)
        before = sorted(experienced.root.rglob("*"))
        script = f"{read_only} cd repo && {FEDSTEP} {command}'"
        env = {**experienced.env, "GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "77", "GITHUB_JOB": "test"}
        done = subprocess.run(script, shell=True, cwd="/", env=env, capture_output=True, text=True, timeout=120)
        failed = [line for line in done.stderr.splitlines() if "cannot write" in line and line.startswith("fedstep: ")]
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert shows in done.stdout
        assert len(failed) == (command.startswith(("predict", "train"))), done.stderr
        assert all("Read-only file system" in line for line in failed)
        assert sorted(experienced.root.rglob("*")) == before
