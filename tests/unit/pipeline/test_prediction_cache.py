"""The outlook: a prediction from the cache is the prediction, and a cache that no longer fits is not used."""

import shutil
from pathlib import Path

import pytest

from fedstep.federation.model_cache import load_model
from fedstep.history.project_store import ProjectStore
from fedstep.model.calibration import PlattScaling
from fedstep.pipeline.operations import evaluate_build, load_predictor, record_build
from fedstep.pipeline.prediction_cache import load_prediction, save_prediction, work_out
from fedstep.pipeline.train import learn
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
def home(grown: Path, tmp_path: Path) -> ProjectStore:
    """A copy of it."""
    return ProjectStore(str(shutil.copytree(grown, tmp_path / "home")))


def grow(home: ProjectStore, first: int, last: int) -> None:
    for evidence in list(drawn_builds(120, last))[first:]:
        kept = load_model(home)
        record_build(home, evaluate_build(home, evidence, kept), lambda _runs: {})
    learn(home, load_model(home))


class TestCachedPrediction:
    def test_the_cache_says_what_the_history_says(self, home: ProjectStore) -> None:
        kept = load_model(home)
        forecaster = load_predictor(home, kept)
        # Sure enough that some test is listed, whatever the key of this history makes of its rows.
        forecaster = forecaster._replace(
            correction=forecaster.correction._replace(platt={"flaky": PlattScaling(offset=2.0)})
        )
        worked_out = work_out(home, forecaster)
        save_prediction(home, kept, forecaster)
        cached = load_prediction(home, kept, forecaster)
        assert cached.summary.tests.ids == [], "it came from the cache"
        assert cached.flakiest == worked_out.flakiest != ()
        assert cached.tests_known == worked_out.tests_known == 120
        assert cached.summary.count == worked_out.summary.count
        assert repr(cached.summary.builds) == repr(worked_out.summary.builds)

    @pytest.mark.parametrize("change", ["record", "correction", "model", "damage"])
    def test_a_cache_that_no_longer_fits_is_not_used(self, home: ProjectStore, change: str) -> None:
        kept = load_model(home)
        forecaster = load_predictor(home, kept)
        save_prediction(home, kept, forecaster)
        if change == "record":
            grow(home, 45, 46)
        else:
            file = {"correction": "correction.json", "model": "model.safetensors", "damage": "outlook.json"}[change]
            home.write(file, home.read(file)[:-3] + b"x")
        fresh = load_prediction(home, kept, forecaster)
        assert len(fresh.summary.tests.ids) == 120, "it was worked out"
        assert fresh.summary.count == (46 if change == "record" else 45)
