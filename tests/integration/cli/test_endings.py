"""Whatever the machine lacks, a step ends in one line and exit 0, without a traceback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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

    @pytest.mark.parametrize(
        ("command", "code", "at_once"),
        [("predict", 0, True), ("shard --total 2 --names n.txt", 0, True), ("order", 2, False), ("status", 0, False)],
    )
    def test_a_short_command_that_succeeded_ends_at_once(
        self, tmp_path: Path, command: str, code: int, at_once: bool
    ) -> None:
        """Nothing is freed, which takes a tenth of its time; an error, or a command with threads, ends as usual."""
        (tmp_path / "n.txt").write_text("a#b\n")
        code_of_main = "import atexit; atexit.register(print, 'freed'); from fedstep.__main__ import main; main()"
        arguments = [sys.executable, "-c", code_of_main, *command.split()]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, "freed" in done.stdout) == (code, not at_once)
        assert not at_once or done.stdout

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


class TestPermissions:
    """A user who may not read or write what is there: root without its right to pass over permissions is one."""

    USER = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-all " if os.getuid() == 0 else ""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """A folder with a report, one that cannot be read, and one in a folder that cannot be read."""
        if self.USER and not shutil.which("setpriv"):
            pytest.skip("without setpriv root reads everything: permissions are not tried")
        for number, name in enumerate(("r.xml", "out/hidden.xml", "out/secret/r.xml", "other/ok.xml")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            text = f'<testsuite name="s"><testcase classname="c" name="t{number}" time="0.1"/></testsuite>'
            (tmp_path / name).write_text(text)
        (tmp_path / "out/hidden.xml").chmod(0)
        (tmp_path / "out/secret").chmod(0)
        return tmp_path

    @pytest.fixture(autouse=True)
    def clean(self, tmp_path: Path) -> Iterator[None]:
        """Let pytest remove the folders again."""
        yield
        for path in (tmp_path, tmp_path / "out/secret", tmp_path / ".fedstep"):
            if path.exists():
                path.chmod(0o755)

    @pytest.mark.parametrize("command", ["triage", "train"])
    @pytest.mark.parametrize(
        ("pattern", "says"),
        [
            ("out/hidden.xml", "out/hidden.xml: cannot be read: Permission denied"),
            ("out/*.xml", "out/hidden.xml: cannot be read: Permission denied"),
            ("out/secret", "out/secret: this folder cannot be read, reports in it are not seen"),
            ("out/secret/r.xml", "out/secret/r.xml: a folder on the way to it cannot be read: Permission denied"),
            ("out/secret/*.xml", "out/secret/*.xml: "),
            ("**/*.xml", "out/secret: this folder cannot be read, reports in it are not seen"),
            ("**/r.xml", "out/secret: this folder cannot be read, reports in it are not seen"),
        ],
    )
    def test_reports_that_may_not_be_read(
        self, place: Path, without_sklearn: Callable[[Checkout], Checkout], command: str, pattern: str, says: str
    ) -> None:
        """Reports are read before anything is learned."""
        poor = without_sklearn(Checkout(place)).env  # which starts in a third of the time
        code, lines = ended(f"unset HOME; {self.USER}{FEDSTEP} {command} --junit '{pattern}'", place, **poor)
        assert code == 0
        assert sum(says in line for line in lines) == 1, lines

    def test_what_can_be_read_beside_them_counts(self, place: Path) -> None:
        """A folder that may hold anything is named; a report that cannot be read is lost."""
        script = f"{self.USER}{FEDSTEP} train --junit '**/[ro]*.xml' --format json | grep -q '\"outcome\": \"passed\"'"
        assert ended(script, place)[0] == 0

    @pytest.mark.parametrize("command", ["predict", "train --junit r.xml", "triage --junit r.xml", "status"])
    @pytest.mark.parametrize(("folder", "mode"), [(".fedstep", 0o000), (".fedstep", 0o555), (".", 0o555)])
    def test_a_history_that_may_not_be_written(self, place: Path, command: str, folder: str, mode: int) -> None:
        (place / folder).mkdir(exist_ok=True)
        (place / folder).chmod(mode)
        variables = "unset HOME; export GITHUB_ACTIONS=true GITHUB_RUN_ID=1 GITHUB_JOB=t; "
        code, lines = ended(f"{variables}{self.USER}{FEDSTEP} {command}", place)
        said = [line for line in lines if line.startswith("fedstep: cannot ")]
        assert code == 0
        assert len(said) == command.startswith(("predict", "train")) or mode == 0, lines
        assert len(said) <= 1

    def test_a_history_that_is_a_file(self, place: Path) -> None:
        (place / ".fedstep").write_text("")
        code, lines = ended(f"{FEDSTEP} train --junit r.xml", place)
        assert (code, len(lines), "cannot write" in lines[0]) == (0, 1, True)


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
