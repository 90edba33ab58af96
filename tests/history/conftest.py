"""Small histories for the tests of this room."""

from pathlib import Path

import pytest

from fedstep.history.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A prepared, empty home."""
    made = Home(tmp_path / "home")
    made.prepare()
    return made
