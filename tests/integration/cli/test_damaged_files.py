"""Files of a history that somebody else wrote: whatever is in them, commands end with what is left of it, and soon."""

import json
import os
from array import array
from contextlib import suppress
from pathlib import Path

import pytest

import fedstep
from fedstep.federation.messages import Model, pack_model, unpack_model
from fedstep.federation.model_cache import load_model, load_starter_model
from fedstep.history.project_store import ProjectStore
from tests.helpers.cli import Checkout, forty_tests, new_checkout

DEEP = b"[" * 100_000
CACHES = ("outlook.json", "correction.json", "backlog.json", "summary.json", "travel.json", "contributed.json")
KINDS = ("deep", "text", "number", "pipe", "zeros", "huge", "empty object", "infinite", "folder")


def damage(path: Path, kind: str) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    contents = {"deep": DEEP, "text": b'"text"', "number": b"1e999", "empty object": b"{}", "infinite": b"[Infinity]"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.write_bytes(b"\0" * 100)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(contents[kind])


def spoiled(value: object, other: object) -> object:
    """A JSON document with every leaf replaced."""
    if isinstance(value, dict):
        return {
            name: inner if name in ("format", "schema", "stamp", "generation") else spoiled(inner, other)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [spoiled(inner, other) for inner in value]
    return other


@pytest.fixture
def place(tmp_path: Path, learned_history: Path) -> Checkout:
    place = new_checkout(tmp_path / "repo", learned_history)
    project = fedstep.Project.discover(place.root, environment={})
    project.train([str(place.root / place.report(forty_tests(3)))])
    return place


def use(place: Checkout) -> None:
    """Predict, triage and train with this history; none may raise."""
    project = fedstep.Project.discover(place.root, environment={})
    prediction = project.predict()
    assert prediction.status in ("ok", "local", "degraded")
    report = [str(place.root / place.report(forty_tests(4)))]
    project.triage(report)
    with suppress(fedstep.HistoryError):  # the history cannot be written: said, and exit code 4 where it is asked for
        project.train(report)


class TestCaches:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", CACHES)
    def test_whatever_is_in_a_cache_commands_go_on(self, name: str, kind: str, place: Checkout):
        damage(place.history / name, kind)
        use(place)

    @pytest.mark.parametrize("other", ["text", 1e308, -1, None, [], {}, True, 10**400])
    @pytest.mark.parametrize("name", CACHES[:4])
    def test_leaves_of_another_kind_are_noticed(self, name: str, other: object, place: Checkout):
        path = place.history / name
        path.write_text(json.dumps(spoiled(json.loads(path.read_bytes()), other)))
        use(place)


class TestModels:
    @pytest.mark.parametrize("kind", ["pipe", "huge", "folder", "text"])
    def test_a_model_that_is_no_file_is_replaced_by_the_starter(self, kind: str, place: Checkout):
        damage(place.history / "model.safetensors", kind)
        assert "starter model" in load_model(ProjectStore(str(place.history))).warning
        use(place)

    @pytest.mark.parametrize("value", [1e6, 3e38, -3e38, 1000.5])
    def test_absurd_coefficients_are_not_used(self, value: float, place: Checkout):
        """They are finite, and would overflow later; the starter model answers, and a warning says so."""
        starter = load_starter_model()
        absurd = {name: array("f", [value]) + vector[1:] for name, vector in starter.production.items()}
        body = pack_model(starter._replace(production=absurd))
        (place.history / "model.safetensors").write_bytes(body)
        (place.history / "model.json").write_text('{"url": "http://127.0.0.1:9", "fetched_at": 1, "etag": ""}')
        cached = load_model(ProjectStore(str(place.history)))
        assert "beyond 1000" in cached.warning
        assert cached.model == starter
        use(place)

    @pytest.mark.parametrize("value", [1000.0, -1000.0])
    def test_largest_coefficients_are_predicted_with(self, value: float, place: Checkout):
        starter = load_starter_model()
        large = {name: array("f", [value] * len(vector)) for name, vector in starter.production.items()}
        model: Model = unpack_model(pack_model(starter._replace(production=large, candidate=large)))
        (place.history / "model.safetensors").write_bytes(pack_model(model))
        assert not load_model(ProjectStore(str(place.history))).warning
        use(place)


class TestConfiguration:
    @pytest.mark.parametrize("kind", ["pipe", "huge", "folder", "deep"])
    def test_configuration_that_is_no_file_is_an_error(self, kind: str, tmp_path: Path):
        """One sentence, and exit code 2."""
        place = new_checkout(tmp_path / "repo")
        damage(place.root / ".fedstep.toml", kind)
        ran = place.run("predict")
        assert ran.code == 2
        assert ".fedstep.toml" in ran.err

    def test_link_to_an_endless_device_is_an_error(self, tmp_path: Path):
        place = new_checkout(tmp_path / "repo")
        (place.root / "pyproject.toml").symlink_to("/dev/zero")
        ran = place.run("status")
        assert (ran.code, "not a regular file" in ran.err) == (2, True)
