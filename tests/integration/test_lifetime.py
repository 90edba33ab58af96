"""What a test starts ends with the test run, also with one that has no time to stop it."""

import shutil
import subprocess
import sys

import pytest

from tests.helpers.lifetime import bound
from tests.helpers.narrow import present

RUN = """
import subprocess, sys
from tests.helpers.lifetime import bound
subprocess.Popen(bound(sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"))
input()
"""


class TestBoundProcess:
    @pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not here: run `make tools` (util-linux)")
    def test_processes_of_a_killed_run_end_with_it(self):
        """What a killed test run had started ends with it."""
        with subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
            output = present(run.stdout)
            assert output.readline() == b"up\n"
            run.kill()
            assert output.read() == b"", "the end of file comes when the last of them has closed it"
        assert run.returncode == -9

    def test_command_keeps_its_pid_and_exit_code(self):
        """A bound command is the command itself, with its own pid and exit code."""
        with subprocess.Popen(
            bound(sys.executable, "-c", "import os; print(os.getpid()); raise SystemExit(7)"), stdout=subprocess.PIPE
        ) as one:
            assert int(present(one.stdout).read()) == one.pid
        assert one.returncode == 7
