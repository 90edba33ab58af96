"""Predict the next build: its duration, its risk of failure, and the tests most likely to flake.

The first of the three steps of a build, and the place to start reading: `predict` before the build, `triage` for its
failures, `train` after it. Every function takes values and a `ProjectStore`; `fedstep.project` reads the environment.

What a prediction needs of the history is cached: the recent builds, and the tests most likely to flake, which do not
depend on the next change. Reading the ranking instead of 5,000 tests halves the time of a prediction. The cache is used
only while every file that it was made from is unchanged.
"""

import json
from collections.abc import Callable
from typing import NamedTuple
from zlib import crc32

from fedstep import __version__
from fedstep.errors import MALFORMED, HistoryError
from fedstep.federation.model_cache import CachedModel
from fedstep.history.project_store import CORRECTION, MODEL, OUTLOOK, ProjectStore, with_types
from fedstep.history.summary import Summary, load_summary, pack_builds, plan_build, unpack_builds, usual_stream
from fedstep.ingest.change_impact import count_tests
from fedstep.model.predictor import Predictor, load_predictor
from fedstep.pipeline.context import change_problems, describe_model, empty_history_notices, input_notices, local_status
from fedstep.results import FeatureContribution, Prediction, Problems, TestRisk
from fedstep.schema.schema import schema
from fedstep.types import BuildContext, Change, Unavailable


def predict(
    store: ProjectStore, build_context: Callable[[], BuildContext], cached: CachedModel, problems: Problems = ()
) -> Prediction:
    """Return what to expect of the build that `build_context` describes, with the `problems` survived so far.

    `build_context` is called last: git computes the change in other processes while this one reads the history.
    """
    predictor = load_predictor(store, cached.model.production)
    known = load_prediction(store, cached, predictor)
    context = build_context()
    planned = plan_build(context, usual_stream(known.summary.builds, context.ci), author_key(store, context))
    problems = (*problems, *change_problems(context.change))
    return Prediction(
        status=local_status(cached, problems),
        duration=predictor.duration(known.summary, planned),
        risk=predictor.failure(known.summary, planned),
        flaky=known.flakiest,
        suspects=known.suspects,
        model=describe_model(cached, context.started_at),
        base=_describe_change(context.change),
        warnings=(
            *map(str, problems),
            *empty_history_notices(known.summary.count, problems),
            *known.warnings,
            *input_notices(context.change, cached),
        ),
        builds_known=known.summary.count,
        tests_known=known.tests_known,
        problems=problems,
    )


def author_key(store: ProjectStore, context: BuildContext) -> str:
    """Return a keyed hash of the change's author, "" where the author or the project's key is not known."""
    change = context.change
    if not isinstance(change, Change) or not change.author or not store.read("key"):
        return ""
    try:
        return store.keyed_hash("author", change.author)[:16]
    except HistoryError:  # a damaged key stops `train`, which reports it; a prediction does without
        return ""


def _describe_change(change: Change | Unavailable) -> str:
    if isinstance(change, Unavailable):
        return change.reason
    files = len(change.files)
    return f"{files} {'file' if files == 1 else 'files'} changed against {change.base}" if change.base else ""


FLAKIEST = 10  # tests named in a prediction as likely to flake ...
SUSPECTS = 5  # ... and as worth a look


class CachedPrediction(NamedTuple):
    """The history without its tests, the number of tests, and the tests most likely to flake."""

    summary: Summary  # with an empty table of tests when it comes from the cache
    tests_known: int
    flakiest: tuple[TestRisk, ...]  # of those that were seen to flip
    suspects: tuple[TestRisk, ...]  # of those that were not
    warnings: tuple[str, ...] = ()


def load_prediction(store: ProjectStore, cached: CachedModel, predictor: Predictor) -> CachedPrediction:
    """Return the cached prediction if it is still valid for this history and model, else compute it."""
    try:
        content = store.read(OUTLOOK)
        fields = json.loads(content) if content else {}
        if fields.get("stamp") == _stamp(store, cached):
            summary = Summary(count=int(fields["count"]), builds=unpack_builds(fields["builds"]))
            flakiest, suspects = (tuple(map(_unpack_risk, fields[name])) for name in ("flakiest", "suspects"))
            return CachedPrediction(summary, int(fields["tests_known"]), flakiest, suspects)
    except (HistoryError, *MALFORMED):
        pass  # damaged: computed here, and written again by the next `train`
    return compute_prediction(store, predictor)


def compute_prediction(store: ProjectStore, predictor: Predictor) -> CachedPrediction:
    """Compute the prediction from the history itself."""
    loaded = load_summary(store)
    summary = loaded.summary
    flakiest, suspects = predictor.flakiest(summary, FLAKIEST), predictor.suspects(summary, SUSPECTS)
    return CachedPrediction(summary, count_tests(summary.tests), flakiest, suspects, loaded.warnings)


def save_prediction(store: ProjectStore, cached: CachedModel) -> CachedPrediction:
    """Compute and store what later predictions read. Raises HistoryError if it cannot be written."""
    fresh = compute_prediction(store, load_predictor(store, cached.model.production))
    content = {
        "stamp": _stamp(store, cached),
        "count": fresh.summary.count,
        "tests_known": fresh.tests_known,
        "builds": pack_builds(fresh.summary.builds),
        "flakiest": [risk._asdict() for risk in fresh.flakiest],
        "suspects": [risk._asdict() for risk in fresh.suspects],
    }
    store.write(OUTLOOK, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())
    return fresh


def _stamp(store: ProjectStore, cached: CachedModel) -> str:
    """Return a name for all that the cache is made from: version, schema, model, local weights and records."""
    parts = (*store.log.files(), __version__, schema().digest, cached.url, cached.model.created)
    versions = f"{cached.model.production_version} {_checksum(store, MODEL)} {_checksum(store, CORRECTION)}"
    return f"{crc32(' '.join(parts).encode())} {len(parts)} {versions}"


def _checksum(store: ProjectStore, name: str) -> int:
    """Return a checksum of a file, -1 for one that cannot be read and is therefore not used."""
    try:
        return crc32(store.read(name))
    except HistoryError:
        return -1


def _unpack_risk(fields: dict[str, object]) -> TestRisk:
    reasons = tuple(with_types(FeatureContribution(*reason)) for reason in fields["reasons"])  # type: ignore[attr-defined]
    also = tuple(map(str, fields["also"]))  # type: ignore[call-overload]
    return with_types(TestRisk(**{**fields, "reasons": reasons, "also": also}))  # type: ignore[arg-type]
