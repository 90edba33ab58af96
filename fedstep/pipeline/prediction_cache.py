"""Cache what a prediction needs of the history: the recent builds, and the tests most likely to flake.

The tests most likely to flake do not depend on the next change: they are known once a build has been learned. Reading
the ranking instead of 5,000 tests halves the time of a prediction. The cache is used only while every file that it was
made from is unchanged.
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
    """The history without its tests, the number of tests, and the tests most likely to flake."""

    summary: Summary  # with an empty table of tests when it comes from the cache
    tests_known: int
    flakiest: tuple[TestRisk, ...]
    warnings: tuple[str, ...] = ()


def load_prediction(store: ProjectStore, cached: CachedModel, predictor: Predictor) -> CachedPrediction:
    """Return the cached prediction if it is still valid for this history and model, else compute it."""
    try:
        content = store.read(OUTLOOK)
        fields = json.loads(content) if content else {}
        if fields.get("stamp") == _stamp(store, cached):
            summary = Summary(count=fields["count"], builds=unpack_builds(fields["builds"]))
            return CachedPrediction(
                summary, fields["tests_known"], tuple(_unpack_risk(risk) for risk in fields["flakiest"])
            )
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # damaged: computed here, and written again by the next `train`
    return compute_prediction(store, predictor)


def compute_prediction(store: ProjectStore, predictor: Predictor) -> CachedPrediction:
    """Compute the prediction from the history itself."""
    loaded = load_summary(store)
    summary = loaded.summary
    flakiest = predictor.flakiest(summary, FLAKIEST)
    return CachedPrediction(summary, len(summary.tests), flakiest, loaded.warnings)


def save_prediction(store: ProjectStore, cached: CachedModel, predictor: Predictor) -> CachedPrediction:
    """Compute and store what later predictions read. Raises HistoryError if it cannot be written."""
    fresh = compute_prediction(store, predictor)
    content = {
        "stamp": _stamp(store, cached),
        "count": fresh.summary.count,
        "tests_known": fresh.tests_known,
        "builds": pack_builds(fresh.summary.builds),
        "flakiest": [risk._asdict() for risk in fresh.flakiest],
    }
    store.write(OUTLOOK, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())
    return fresh


def _stamp(store: ProjectStore, cached: CachedModel) -> str:
    """Return a name for all that the cache is made from: version, schema, model, local weights and records."""
    parts = (*store.log.files(), __version__, schema().digest, cached.url, cached.model.created)
    versions = f"{cached.model.production_version} {crc32(store.read(MODEL))} {crc32(store.read(CORRECTION))}"
    return f"{crc32(' '.join(parts).encode())} {len(parts)} {versions}"


def _unpack_risk(fields: dict[str, object]) -> TestRisk:
    reasons = tuple(FeatureContribution(*reason) for reason in fields["reasons"])  # type: ignore[attr-defined]
    return TestRisk(**{**fields, "reasons": reasons})  # type: ignore[arg-type]
