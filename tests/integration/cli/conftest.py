"""A history that was really learned, once a worker, and copies of it in fresh repositories."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, aggregator, bare_env, forty_tests, junit, new_checkout, template
from tests.helpers.prefork import POOR

RECORDED = 12


@pytest.fixture(scope="session", autouse=True)
def _tidy() -> Iterator[None]:
    """The template repository goes when the tests end."""
    yield
    template().cleanup()
    template.cache_clear()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recorded builds, an hour apart: every third fails, and each takes a little longer."""
    folder = tmp_path_factory.mktemp("recorded")
    for number in range(RECORDED):
        told = {
            "build": str(number),
            "job": "test",
            "branch": "main",
            "event": "push",
            "started_at": time.time() - 3600 * (RECORDED + 1 - number),
            "seconds": 60 + number,
            "commit": f"{number + 1:040x}",
            "author": "ada@example.org",
            "changes": [{"path": "shop/cart.py", "added": number, "deleted": 1}],
        }
        build = folder / f"{number:03d}"
        build.mkdir()
        (build / "build.json").write_text(json.dumps(told))
        (build / "report.xml").write_text(junit(forty_tests(number)))
    return folder


@pytest.fixture(scope="session")
def learned_history(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Path:
    """A history that has learned them. It knows no aggregator; its batches of builds are full and wait."""
    place = new_checkout(tmp_path_factory.mktemp("learned") / "repo")
    ran = place.run("backfill", str(recorded))
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"{RECORDED} builds recorded, 0 known already")
    return place.history


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An aggregator that aggregates every update at once."""
    with aggregator(tmp_path_factory.mktemp("hub"), "--buffer-size", "1") as url:
        yield url


@pytest.fixture(scope="session")
def connected_history(tmp_path_factory: pytest.TempPathFactory, learned_history: Path, hub: str) -> Path:
    """The same history after its first pull: the next build that is learned fills the outbox."""
    place = new_checkout(tmp_path_factory.mktemp("connected") / "repo", learned_history)
    assert place.run("pull", "--aggregator", hub).code == 0
    return place.history


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A repository that fedstep has never seen."""
    return new_checkout(tmp_path / "repo")


@pytest.fixture
def experienced(tmp_path: Path, learned_history: Path) -> Checkout:
    """A repository with a history."""
    return new_checkout(tmp_path / "repo", learned_history)


@pytest.fixture
def connected(tmp_path: Path, connected_history: Path) -> Checkout:
    """A repository with a history and a pulled model; its next train makes an update."""
    return new_checkout(tmp_path / "repo", connected_history)


@pytest.fixture
def bare(tmp_path: Path, learned_history: Path) -> Checkout:
    """A folder with a history that is no repository."""
    root = tmp_path / "folder"
    shutil.copytree(learned_history, root / ".fedstep")
    return Checkout(root, bare_env(tmp_path / "home"))


@pytest.fixture(scope="session")
def without_sklearn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Checkout], Checkout]:
    """The same checkout on a machine where scikit-learn is not installed."""
    stub = tmp_path_factory.mktemp("stub") / POOR
    (stub / "sklearn").mkdir(parents=True)
    (stub / "sklearn" / "__init__.py").write_text("raise ImportError('not here', name='sklearn')\n")
    return lambda place: place.with_env(PYTHONPATH=str(stub))


@pytest.fixture
def github(tmp_path: Path) -> Callable[[Checkout], Checkout]:
    """The same checkout as a push build on GitHub Actions, with its files for outputs and summary."""

    def on_github(place: Checkout) -> Checkout:
        for name in ("output", "summary"):
            (tmp_path / name).touch()
        return place.with_env(
            CI="true",
            GITHUB_ACTIONS="true",
            GITHUB_RUN_ID="42",
            GITHUB_RUN_ATTEMPT="1",
            GITHUB_JOB="test",
            GITHUB_REF_NAME="main",
            GITHUB_EVENT_NAME="push",
            GITHUB_OUTPUT=str(tmp_path / "output"),
            GITHUB_STEP_SUMMARY=str(tmp_path / "summary"),
        )

    return on_github
