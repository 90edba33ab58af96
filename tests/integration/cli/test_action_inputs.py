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
