"""Repositories that know nothing of whoever runs the tests."""

import os
from pathlib import Path

import pytest

from tests.helpers.git import commit, git


@pytest.fixture
def no_user_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "a.txt")
    return folder


@pytest.fixture
def clone(repo: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", str(repo), "clone")
    return tmp_path / "clone"
