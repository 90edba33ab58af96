"""Small histories for the tests of this room."""

from pathlib import Path

import pytest

from fedstep.history.project_store import ProjectStore
from tests.helpers.history import Clone, clone, new_remote


@pytest.fixture
def home(tmp_path: Path) -> ProjectStore:
    """A prepared, empty home."""
    made = ProjectStore(str(tmp_path / "home"))
    made.prepare()
    return made


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A bare repository."""
    return new_remote(tmp_path)


@pytest.fixture
def ada(remote: Path, tmp_path: Path) -> Clone:
    """A clone of it."""
    return clone(remote, tmp_path / "ada")


@pytest.fixture
def bob(remote: Path, tmp_path: Path) -> Clone:
    """Another clone of it."""
    return clone(remote, tmp_path / "bob")
