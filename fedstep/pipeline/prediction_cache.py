"""What a prediction needs of the history and nothing more, kept ready by whoever learned last.

Which tests are likely to flake does not depend on the change that is about to be pushed: it is known when a build has
been learned. Reading the ranking instead of 5,000 tests halves a prediction's time. A cache: it is used only while
every file that it was made from is the same.
"""

import json
from typing import NamedTuple
from zlib import crc32

from fedstep import __version__
from fedstep.federation.model_cache import CachedModel
from fedstep.history.project_store import CORRECTION, MODEL, OUTLOOK, ProjectStore
from fedstep.history.summary import Summary, load_summary, pack_builds, unpack_builds
from fedstep.model.predictor import Predictor
from fedstep.results import FeatureContribution, TestRisk
from fedstep.schema.schema import schema

FLAKIEST = 10  # tests named in a prediction


class CachedPrediction(NamedTuple):
    """The history without its tests, how many there are, and the ones most likely to flake."""

    summary: Summary  # with an empty table of tests when it comes from the cache
    tests_known: int
    flakiest: tuple[TestRisk, ...]
    warnings: tuple[str, ...] = ()


def load_prediction(home: ProjectStore, kept: CachedModel, forecaster: Predictor) -> CachedPrediction:
    """The outlook of this history with this model: from the cache where it still holds, else worked out."""
    try:
        content = home.read(OUTLOOK)
        fields = json.loads(content) if content else {}
        if fields.get("stamp") == _stamp(home, kept):
            summary = Summary(count=fields["count"], builds=unpack_builds(fields["builds"]))
            return CachedPrediction(
                summary, fields["tests_known"], tuple(_risk(fields_) for fields_ in fields["flakiest"])
            )
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # damaged: it is worked out, and made again by the next train
    return work_out(home, forecaster)


def work_out(home: ProjectStore, forecaster: Predictor) -> CachedPrediction:
    """The outlook from the history itself."""
    remembered = load_summary(home)
    summary = remembered.summary
    flakiest = forecaster.flakiest(summary, FLAKIEST)
    return CachedPrediction(summary, len(summary.tests.ids), flakiest, remembered.warnings)


def save_prediction(home: ProjectStore, kept: CachedModel, forecaster: Predictor) -> CachedPrediction:
    """Work the outlook out and keep it for the predictions to come. HistoryError where it cannot be written."""
    fresh = work_out(home, forecaster)
    content = {
        "stamp": _stamp(home, kept),
        "count": fresh.summary.count,
        "tests_known": fresh.tests_known,
        "builds": pack_builds(fresh.summary.builds),
        "flakiest": [risk._asdict() for risk in fresh.flakiest],
    }
    home.write(OUTLOOK, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())
    return fresh


def _stamp(home: ProjectStore, kept: CachedModel) -> str:
    """A name for everything an outlook is made from: version, schema, model, what was learned, and the records."""
    parts = (*home.log.files(), __version__, schema().digest, kept.url, kept.model.created)
    versions = f"{kept.model.production_version} {crc32(home.read(MODEL))} {crc32(home.read(CORRECTION))}"
    return f"{crc32(' '.join(parts).encode())} {len(parts)} {versions}"


def _risk(fields: dict[str, object]) -> TestRisk:
    reasons = tuple(FeatureContribution(*reason) for reason in fields["reasons"])  # type: ignore[attr-defined]
    return TestRisk(**{**fields, "reasons": reasons})  # type: ignore[arg-type]
