"""The outlook: a prediction from the cache is the prediction, and a cache that no longer fits is not used."""

import shutil
from pathlib import Path

import pytest

from fedstep.federation.kept import kept_model
from fedstep.history.home import Home
from fedstep.model.calibration import Platt
from fedstep.outlook import keep_outlook, outlook, work_out
from fedstep.steps import forecaster_for, observe, record
from fedstep.training import learn
from tests.benchmarks.project import drawn_builds


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a history that has learned 45 builds."""
    folder = tmp_path_factory.mktemp("grown")
    made = Home(str(folder))
    made.prepare()
    grow(made, 0, 45)
    return folder


@pytest.fixture
def home(grown: Path, tmp_path: Path) -> Home:
    """A copy of it."""
    return Home(str(shutil.copytree(grown, tmp_path / "home")))


def grow(home: Home, first: int, last: int) -> None:
    for evidence in list(drawn_builds(120, last))[first:]:
        kept = kept_model(home)
        record(home, observe(home, evidence, kept), lambda _runs: {})
    learn(home, kept_model(home))


class TestCachedPrediction:
    def test_the_cache_says_what_the_history_says(self, home: Home) -> None:
        kept = kept_model(home)
        forecaster = forecaster_for(home, kept)
        # Sure enough that some test is listed, whatever the key of this history makes of its rows.
        forecaster = forecaster._replace(correction=forecaster.correction._replace(platt={"flaky": Platt(offset=2.0)}))
        worked_out = work_out(home, forecaster)
        keep_outlook(home, kept, forecaster)
        cached = outlook(home, kept, forecaster)
        assert cached.summary.tests.ids == [], "it came from the cache"
        assert cached.flakiest == worked_out.flakiest != ()
        assert cached.tests_known == worked_out.tests_known == 120
        assert cached.summary.count == worked_out.summary.count
        assert repr(cached.summary.builds) == repr(worked_out.summary.builds)

    @pytest.mark.parametrize("change", ["record", "correction", "model", "damage"])
    def test_a_cache_that_no_longer_fits_is_not_used(self, home: Home, change: str) -> None:
        kept = kept_model(home)
        forecaster = forecaster_for(home, kept)
        keep_outlook(home, kept, forecaster)
        if change == "record":
            grow(home, 45, 46)
        else:
            file = {"correction": "correction.json", "model": "model.safetensors", "damage": "outlook.json"}[change]
            home.write(file, home.read(file)[:-3] + b"x")
        fresh = outlook(home, kept, forecaster)
        assert len(fresh.summary.tests.ids) == 120, "it was worked out"
        assert fresh.summary.count == (46 if change == "record" else 45)
