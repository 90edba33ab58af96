"""Inputs of the actions are text: a line break in one adds no output."""

import subprocess
from pathlib import Path

STEP = Path(__file__).parents[3] / "actions/common/step.sh"


class TestInputs:
    def test_line_break_in_an_input_adds_no_output(self, tmp_path: Path):
        output = tmp_path / "output"
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "RUNNER_TEMP": str(tmp_path),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_WORKFLOW": "ci\nstatus=ok",
            "GITHUB_JOB": "test",
            "GITHUB_RUN_ID": "1",
            "GITHUB_RUN_ATTEMPT": "1",
            "FEDSTEP_CI_CELL": "null",
            "FEDSTEP_HISTORY": ".fedstep",
            "FEDSTEP_STRICT": "false",
            "WITH_COMMAND": "fedstep",
            "WITH_JOB": "test\nstatus=pwned\r\nenvironment=/evil",
        }
        subprocess.run(("bash", str(STEP), "plan"), env=variables, check=False, capture_output=True, timeout=60)
        names = [line.partition("=")[0] for line in output.read_text().splitlines()]
        assert set(names) <= {"prefix", "restore", "started"}
        assert len(names) == len(set(names))

    def test_line_break_in_a_package_or_message_is_no_command(self, tmp_path: Path):
        """The runner takes each line of the log that begins with two colons for a command, also after a lone return."""
        says = tmp_path / "says"
        says.write_text("#!/bin/sh\nprintf 'fedstep: no\\r::add-mask::a\\n::add-mask::a\\n' >&2\nexit 6\n")
        says.chmod(0o755)
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "RUNNER_TEMP": str(tmp_path),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "FEDSTEP_AGGREGATOR": "http://127.0.0.1:9",
            "FEDSTEP_CI_CELL": "null",
            "FEDSTEP_STRICT": "false",
            "WITH_ENVIRONMENT": str(tmp_path / "environment"),
            "WITH_FIND_LINKS": "",
            "WITH_JUNIT": "",
            "WITH_PYTHON": "false",
        }
        told = ""
        for command, package in (("", "fedstep\n::add-mask::a\r::add-mask::a"), (str(says), "fedstep")):
            given = {**variables, "WITH_COMMAND": command, "WITH_PACKAGE": package}
            ran = subprocess.run(("bash", str(STEP), "triage"), env=given, check=False, capture_output=True, timeout=60)
            (tmp_path / "fedstep/not-installed").unlink(missing_ok=True)
            told += ran.stdout.decode()
        assert "::warning title=fedstep::" in told
        assert [line for line in told.splitlines() if line.startswith("::add-mask")] == []
