"""Every surface against every failure: exit 0, one warning, the pipeline's own output, nothing half-written."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from fedstep.federation.model_cache import load_starter_bytes
from fedstep.history.project_store import RecordLog
from fedstep.history.records import BuildRecord
from tests.helpers.cli import Checkout, answering, by_method, forty_tests, new_checkout, server
from tests.helpers.faults import CASES
from tests.helpers.surfaces import SURFACES, Ended, Job, prepared

# One of each surface and of each failure; the whole product is for `make test-full`.
SHORT = {
    *(("train", "expired certificate"), ("push", "garbage"), ("pull", "hanging"), ("action train", "proxy")),
    *(("jenkins train", "down"), ("gitlab", "500"), ("any CI", "429"), ("push", "413")),
    *(
        ("predict", "damaged caches"),
        ("triage", "damaged model"),
        ("predict", "damaged key"),
        ("hook", "damaged record"),
    ),
    *(
        ("action predict", "full disk"),
        ("action triage", "down"),
        ("jenkins predict", "read-only"),
        ("plugin", "read-only"),
    ),
    *(("predict", "a year ahead"), ("triage", "a year behind"), ("train", "full disk"), ("train", "no scikit-learn")),
}
STEPS = {"any CI": 2}  # it predicts, and learns
PAIRS = [
    pytest.param(surface, failure, marks=() if (surface, failure) in SHORT else pytest.mark.full)
    for failure in CASES
    for surface in SURFACES
]


@pytest.fixture(scope="session")
def waiting_history(tmp_path_factory: pytest.TempPathFactory, connected_history: Path) -> Path:
    """A history with an update in its outbox, and one build more."""
    place = new_checkout(tmp_path_factory.mktemp("waiting") / "repo", connected_history)
    model = answering("200 OK", load_starter_bytes(), "Content-Type: application/octet-stream")
    with server(by_method(GET=model, POST=answering("503 Service Unavailable"))) as url:
        assert place.run("train", "--junit", place.report(forty_tests(12)), "--aggregator", url).code == 0
    assert len(place.outbox()) == 1
    return place.history


@pytest.fixture
def job(tmp_path: Path, connected_history: Path, waiting_history: Path, hub: str, surface: str) -> Job:
    """A job whose next train makes an update, and whose push has one; its aggregator works."""
    place = new_checkout(tmp_path / "repo", waiting_history if surface == "push" else connected_history)
    return prepared(place, tmp_path / "outside", hub, surface)


def assert_warned(ended: Ended, words: Sequence[str], steps: int) -> None:
    """A warning that has these words, and at most one a step; none where there are no words."""
    assert bool(words) <= len(ended.warnings) <= bool(words) * steps, ended.out + ended.err
    assert [warning for warning in ended.warnings if not all(word in warning for word in words)] == []


def assert_whole(place: Checkout, damaged: str) -> None:
    """No scratch file anywhere, every record can be read, and the next prediction is made."""
    place.no_leftovers()
    assert [path.name for path in place.root.iterdir() if path.name.startswith(".fedstep.")] == []
    log = RecordLog(str(place.history / "builds"))
    unread = [name for name in log.files() if not isinstance(log.read(name), BuildRecord)]
    assert unread == [damaged] * bool(damaged)
    assert len(log.files()) in (12, 13)


class TestFaults:
    @pytest.mark.parametrize(("surface", "failure"), PAIRS)
    def test_a_failure_costs_one_warning_and_nothing_else(self, job: Job, surface: str, failure: str) -> None:
        around, touched, words = CASES[failure]
        with around(job) as broken:
            ended = SURFACES[surface](broken)
        assert ended.code == 0, ended.out + ended.err
        assert "Traceback" not in ended.out + ended.err
        assert_warned(ended, words if surface in touched else (), STEPS.get(surface, 1))
        assert_whole(job.place, getattr(broken, "damaged", ""))

    def test_short_list_has_every_surface_and_every_failure(self) -> None:
        """Every surface and every failure has its turn in the short list."""
        assert {surface for surface, _ in SHORT} == set(SURFACES)
        assert {failure for _, failure in SHORT} == set(CASES)
