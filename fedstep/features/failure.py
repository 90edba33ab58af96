"""Features of the build-failure task, as known before the build starts."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import log

from fedstep.features.similarity import finished_builds, weigh_by_similarity
from fedstep.history.builds import PastBuild, PlannedBuild
from fedstep.schema.encoders import Raw

PRIOR, PRIOR_BUILDS = 0.3, 2.0  # before anything is known: two builds at the failure rate of an average project
OWN_BUILDS = 0.2  # weight of the project's own rate among the similar builds
FARTHEST = 5.0  # nats

# Nats of similarity lost per unit of each distance; tuned on ten recorded projects, confirmed on nine.
COSTS = {
    "age": 1 / 50,
    "branch": 2.0,
    "kind": 3.0,
    "base": 1.5,
    "author": 1.5,
    "lines": 0.2,
    "files": 0.3,
    "before": 0.8,
    "previous": 0.5,
}
# Failure rates of the same builds with one distance costing more or less.
VIEWS = {
    "newest": ("age", 1 / 8 - 1 / 50),
    "any-age": ("age", 1 / 200 - 1 / 50),
    "same-branch": ("branch", 3.0),
    "any-branch": ("branch", -2.0),
    "any-kind": ("kind", -3.0),
    "same-author": ("author", 2.5),
    "same-size": ("files", 0.9),
    "same-hour": ("hour", 0.2),
    "same-before": ("before", 1.5),
    "same-previous": ("previous", 1.0),
}


def failure_features(past: Sequence[PastBuild], now: PlannedBuild) -> Raw:
    """Return the raw values of the task `build-failure`: halved log-odds of failing, and plain facts.

    `similar` is the rate among similar builds; every other rate is its difference from `similar`.
    """
    known = finished_builds(past, now)
    failed = [float(build.outcome != "passed") for build in known]
    close = weigh_by_similarity(known, now, COSTS)
    own = _rate(failed, [1.0] * len(failed), PRIOR, PRIOR_BUILDS)
    similar = _log_odds(_rate(failed, close.weights(), own, OWN_BUILDS))
    rates = {name: _rate(failed, close.weights(*view), own, OWN_BUILDS) for name, view in VIEWS.items()}
    departures = {name: (_log_odds(rate) - similar) / 2 for name, rate in rates.items()}
    return {
        "bias": 1.0,
        "similar": similar / 2,
        "own": (_log_odds(own) - similar) / 2,
        **departures,
        **_facts(known, now),
    }


def _facts(known: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, float | str | None]:
    branch = [build for build in known if build.branch == now.branch] if now.branch else []
    return {
        "runs": float(len(known)),
        "failing": _run(known, passed=False),
        "passing": _run(known, passed=True),
        "last-outcome": known[-1].outcome if known else "none",
        "branch-runs": float(len(branch)),
        "branch-failing": _run(branch, passed=False),
        "branch-passing": _run(branch, passed=True),
        "branch-outcome": branch[-1].outcome if branch else "none",
        "branch-gap": now.started_at - branch[-1].started_at if branch else None,
        "hour": now.hour,
        "files": now.files,
        "lines": now.lines,
    }


def _rate(failed: Sequence[float], weights: Sequence[float], prior: float, prior_builds: float) -> float:
    hits = sum(fail * weight for fail, weight in zip(failed, weights, strict=True))
    return (hits + prior * prior_builds) / (sum(weights) + prior_builds)


def _log_odds(rate: float) -> float:
    return min(max(log(rate / (1 - rate)), -FARTHEST), FARTHEST)


def _run(builds: Sequence[PastBuild], passed: bool) -> float:
    """Count the newest consecutive builds that passed, or that did not."""
    return float(sum(1 for _ in takewhile(lambda build: (build.outcome == "passed") == passed, reversed(builds))))
