"""The outlook: a prediction from the cache is the prediction, and a cache that no longer fits is not used."""

import shutil
from pathlib import Path

import pytest

from fedstep.federation.model_cache import load_model
from fedstep.history.project_store import ProjectStore
from fedstep.model.linear import PlattScaling
from fedstep.model.predictor import load_predictor
from fedstep.pipeline.predict import compute_prediction, load_prediction, save_prediction
from fedstep.pipeline.train import evaluate_build, learn, record_build
from tests.benchmarks.project import drawn_builds


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a history that has learned 45 builds."""
    folder = tmp_path_factory.mktemp("grown")
    made = ProjectStore(str(folder))
    made.prepare()
    grow(made, 0, 45)
    return folder


@pytest.fixture
def store(grown: Path, tmp_path: Path) -> ProjectStore:
    """A copy of it."""
    return ProjectStore(str(shutil.copytree(grown, tmp_path / "store")))


def grow(store: ProjectStore, first: int, last: int) -> None:
    for evidence in list(drawn_builds(120, last))[first:]:
        cached_model = load_model(store)
        record_build(store, evaluate_build(store, evidence, cached_model), lambda _runs: {})
    learn(store, load_model(store))


class TestCachedPrediction:
    @pytest.mark.slow
    def test_the_cache_says_what_the_history_says(self, store: ProjectStore) -> None:
        cached_model = load_model(store)
        predictor = load_predictor(store, cached_model.model.production)
        # Sure enough that some test is listed, whatever the key of this history makes of its rows.
        predictor = predictor._replace(
            correction=predictor.correction._replace(platt={"flaky": PlattScaling(offset=2.0)})
        )
        worked_out = compute_prediction(store, predictor)
        save_prediction(store, cached_model)
        cached = load_prediction(store, cached_model, predictor)
        assert cached.summary.tests == {}, "it came from the cache"
        assert cached.flakiest == worked_out.flakiest != ()
        assert cached.tests_known == worked_out.tests_known == 120
        assert cached.summary.count == worked_out.summary.count
        assert repr(cached.summary.builds) == repr(worked_out.summary.builds)

    @pytest.mark.slow
    @pytest.mark.parametrize("change", ["record", "correction", "model", "damage"])
    def test_a_cache_that_no_longer_fits_is_not_used(self, store: ProjectStore, change: str) -> None:
        cached_model = load_model(store)
        predictor = load_predictor(store, cached_model.model.production)
        save_prediction(store, cached_model)
        if change == "record":
            grow(store, 45, 46)
        else:
            file = {"correction": "correction.json", "model": "model.safetensors", "damage": "outlook.json"}[change]
            store.write(file, store.read(file)[:-3] + b"x")
        fresh = load_prediction(store, cached_model, predictor)
        assert len(fresh.summary.tests) == 120, "it was worked out"
        assert fresh.summary.count == (46 if change == "record" else 45)
