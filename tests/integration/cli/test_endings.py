"""Whatever the machine lacks, a step ends in one line and exit 0, without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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

    def test_no_home_and_no_reports(self, tmp_path: Path) -> None:
        """The outcome of a build without reports and without a word of the CI is unknown, and nothing is recorded."""
        circle = "CIRCLECI=true CIRCLE_WORKFLOW_ID=1 CIRCLE_BUILD_NUM=1 CIRCLE_JOB=t"
        script = f"unset HOME; {circle} {FEDSTEP} train --junit 'nothing/*.xml' --format json"
        code, lines = ended(f'{script} | grep -q \'"outcome": "unknown"\'', tmp_path)
        assert code == 0
        assert any("nothing/*.xml: this glob matches no file" in line for line in lines)
        assert not list(tmp_path.glob(".fedstep/builds/*"))
