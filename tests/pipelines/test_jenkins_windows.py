"""step.bat, run by the cmd.exe of Wine; fedstep and Python are stand-ins, for Wine has neither."""

import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pip._vendor.distlib
import pytest

from tests.helpers.jenkins import LIBRARY

pytestmark = pytest.mark.full

SCRIPT = LIBRARY / "resources/org/fedstep/step.bat"
LAUNCHER = Path(pip._vendor.distlib.__file__).with_name("t64.exe")  # what pip installs as fedstep.exe on Windows
PACKAGE = "fedstep[train]==0.1.0"
FEDSTEP = """@echo off
>>"{seen}" echo %*
if not "%FEDSTEP_DOTENV%"=="" >"%FEDSTEP_DOTENV%" echo FEDSTEP_STATUS=ok
if not "%FEDSTEP_FINDINGS%"=="" >"%FEDSTEP_FINDINGS%" echo {{}}
echo some talk
exit %CODE%
"""
PYTHON = """@echo off
>>"{seen}" echo %*
if not "%4"=="venv" exit %CODE%
if not exist %6\\Scripts mkdir %6\\Scripts
copy /y %1 %6\\Scripts\\python.exe
exit 0
"""


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """The environment of a Windows that is made for these tests, and ends with them."""
    if not shutil.which("wine"):
        pytest.skip("NOT RUN: no wine here; sudo apt-get install --no-install-recommends wine")
    folder = tmp_path_factory.mktemp("wine")
    quiet = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "WINEPREFIX": str(folder / "prefix"), **quiet}
    subprocess.run(["wine", "cmd", "/c", "ver"], env=env, check=True, capture_output=True, timeout=300)
    yield env
    subprocess.run(["wineserver", "-k"], env=env, check=False, timeout=60)


@pytest.fixture
def agent(wine, tmp_path):
    """A function that runs step.bat in a workspace; keyword arguments are its variables."""
    program(tmp_path, "fedstep", FEDSTEP)
    program(tmp_path, "python", PYTHON)
    workspace = tmp_path / "a workspace"
    workspace.mkdir()
    script = tmp_path / "step.bat"
    script.write_bytes(SCRIPT.read_bytes().replace(b"\n", b"\r\n"))

    def run(**variables):
        given = {"WORKSPACE": windows(workspace), "FEDSTEP_STRICT": "false", "CODE": "0"} | variables
        return subprocess.run(
            ["wine", "cmd", "/c", windows(script)],
            env=wine | given, cwd=workspace, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


def windows(path):
    return "Z:" + str(path).replace("/", "\\")


def program(folder, name, text):
    """NAME.exe that runs a batch file, made as pip makes the commands of a package: a launcher, a line, an archive."""
    batch = folder / f"{name}.cmd"
    batch.write_text(text.format(seen=windows(folder / "seen")), newline="\r\n")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", "")
    line = f"#!cmd.exe /d /c {windows(batch)}\n"
    (folder / f"{name}.exe").write_bytes(LAUNCHER.read_bytes() + line.encode() + archive.getvalue())


def seen(folder):
    """The arguments of each call, from the program on."""
    return [line.strip().rpartition('.exe" ')[2] for line in (folder / "seen").read_text().splitlines()]


class TestBatchFile:
    def test_reports_arrive_as_written_and_stdout_has_results(self, agent, tmp_path):
        """The reports arrive as they were written, and only results are on standard output."""
        globs = {"WITH_JUNIT_0": "**/TEST-*.xml", "WITH_JUNIT_12": "a & b (x) ^z.xml"}
        done = agent(WITH_COMMAND=windows(tmp_path / "fedstep.exe"), WITH_SUBCOMMAND="train", **globs)
        assert done.returncode == 0, done.stderr
        assert seen(tmp_path) == ['train --junit "**/TEST-*.xml" --junit "a & b (x) ^z.xml"']
        assert done.stdout.splitlines() == ["FEDSTEP_STATUS=ok", "{}"]
        assert "some talk" in done.stderr
        assert list((tmp_path / "a workspace@tmp").iterdir()) == [], "nothing is left behind"

    def test_failing_command_is_one_warning_unless_strict(self, agent, tmp_path):
        """A command that fails is one warning, and its exit code only if strict."""
        given = {"WITH_COMMAND": windows(tmp_path / "fedstep.exe"), "WITH_SUBCOMMAND": "predict", "CODE": "5"}
        polite, strict = agent(**given), agent(**given, FEDSTEP_STRICT="true")
        assert (polite.returncode, strict.returncode) == (0, 5)
        for done in (polite, strict):
            assert done.stdout.splitlines()[-1] == "FEDSTEP_STATUS=degraded"
            assert done.stderr.count("WARNING: fedstep predict did not finish") == 1

    @pytest.mark.parametrize("strict", ["false", "true"])
    def test_a_verdict_is_told_and_fails_no_step(self, agent, tmp_path, strict):
        """`failOn`: 1 from triage is the verdict, which fedstepTriage reads; other codes and steps are faults."""
        given = {"WITH_COMMAND": windows(tmp_path / "fedstep.exe"), "FEDSTEP_FAIL_ON": "regressions"}
        given |= {"FEDSTEP_STRICT": strict}
        verdict = agent(**given, WITH_SUBCOMMAND="triage", CODE="1")
        assert verdict.returncode == 0
        assert verdict.stdout.splitlines() == ["FEDSTEP_STATUS=ok", "{}"]
        assert "WARNING" not in verdict.stderr
        for subcommand, code in (("triage", "3"), ("train", "1")):
            fault = agent(**given, WITH_SUBCOMMAND=subcommand, CODE=code)
            assert fault.returncode == (int(code) if strict == "true" else 0)
            assert fault.stdout.splitlines()[-1] == "FEDSTEP_STATUS=degraded"
            assert fault.stderr.count(f"WARNING: fedstep {subcommand} did not finish") == 1

    def test_it_installs_once_a_package_and_says_so_when_it_cannot(self, agent, tmp_path):
        given = {"WITH_PYTHON": windows(tmp_path / "python.exe"), "WITH_SUBCOMMAND": "predict", "WITH_PACKAGE": PACKAGE}
        assert agent(**given).returncode == 0
        assert [line.split()[2] for line in seen(tmp_path)] == ["venv", "pip", "fedstep"]
        assert PACKAGE in seen(tmp_path)[1]
        assert agent(**given).returncode == 0
        assert seen(tmp_path)[3:] == ["-I -m fedstep predict"], "the second build installs nothing"
        broken = given | {"WITH_PACKAGE": "fedstep==99", "CODE": "1"}
        polite, strict = agent(**broken), agent(**broken, FEDSTEP_STRICT="true")
        assert (polite.returncode, strict.returncode) == (0, 6)
        assert polite.stdout.splitlines() == ["FEDSTEP_STATUS=degraded"]
        assert polite.stderr.count("WARNING: fedstep could not be installed") == 1
