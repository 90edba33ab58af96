"""Facts about what git is asked to send of a history on a ref."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fedstep.history.git_ref import _send_only_new_objects

ENVIRONMENT = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
FORGETFUL_GIT = '#!/bin/sh\nunset GIT_SHALLOW_FILE\nexec "{git}" "$@"\n'


def _git(folder: Path, *arguments: str) -> str:
    command = ("git", "-c", "user.name=b", "-c", "user.email=b@example.org", "-C", str(folder), *arguments)
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "first"
    _git(tmp_path, "init", "-q", "-b", "main", str(folder))
    _git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    _git(folder, "commit", "-q", "--allow-empty", "-m", "two")
    (folder / ".git" / "fedstep").mkdir()
    return folder


def _variables(folder: Path, known: str) -> dict[str, str]:
    with _send_only_new_objects(str(folder), str(folder / ".git" / "fedstep"), known) as variables:
        return dict(variables)


class TestSendOnlyNewObjects:
    def test_known_commit_is_listed_as_shallow_for_one_call(self, clone: Path) -> None:
        home = clone / ".git" / "fedstep"
        known = _git(clone, "rev-parse", "HEAD").strip()
        with _send_only_new_objects(str(clone), str(home), known) as variables:
            assert Path(variables["GIT_SHALLOW_FILE"]).read_text() == f"{known}\n"
        assert list(home.iterdir()) == []

    def test_shallow_clone_keeps_what_is_cut_off(self, clone: Path, tmp_path: Path) -> None:
        shallow = tmp_path / "shallow"
        _git(tmp_path, "clone", "-q", "--depth", "1", f"file://{clone}", str(shallow))
        (shallow / ".git" / "fedstep").mkdir()
        known = _git(shallow, "rev-parse", "HEAD").strip()
        with _send_only_new_objects(str(shallow), str(shallow / ".git" / "fedstep"), known) as variables:
            assert Path(variables["GIT_SHALLOW_FILE"]).read_text() == f"{known}\n" * 2

    def test_nothing_is_said_without_a_known_commit(self, clone: Path) -> None:
        assert _variables(clone, "") == {}

    @pytest.mark.parametrize("depth", [0, 1])
    def test_git_that_ignores_the_variable_gets_none(
        self, clone: Path, tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such a git would send everything; the plain call does the same."""
        known = _git(clone, "rev-parse", "HEAD").strip()
        if depth:
            (clone / ".git" / "shallow").write_text(f"{known}\n")
        wrapper = tmp_path / "bin" / "git"
        wrapper.parent.mkdir()
        wrapper.write_text(FORGETFUL_GIT.format(git=shutil.which("git")))
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
        assert _variables(clone, known) == {}
