"""Features of the build-duration task: the running estimate and what the task corrects it by."""

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log
from operator import itemgetter
from typing import NamedTuple

from fedstep.features.similarity import finished_builds, median, quantile, quantiles, weigh_by_similarity
from fedstep.history.builds import PastBuild, PlannedBuild
from fedstep.schema.encoders import Raw
from fedstep.types import Unavailable

NARROWEST, WIDEST = 0.02, 1.0  # bounds of the spread: 2 % and a factor of e
FARTHEST = 3.0  # spreads
JENKINS_BUILDS = 3
YOUNG = 80  # builds; a younger stream changes faster, so an age costs twice as much at half of them
NO_BUILD = Unavailable("no finished build of this job with a known duration")

# Nats of similarity lost per unit of each distance; tuned on ten recorded projects, confirmed on nine.
COSTS = {
    "age": 1 / 40,
    "branch": 2.0,
    "kind": 3.0,
    "base": 0.5,
    "author": 1.8,
    "lines": 0.4,
    "files": 0.1,
    "hour": 0.04,
    "before": 0.3,
    "previous": 0.2,
}
# Other medians of the same builds: the distance whose cost differs from the estimate, and by how many nats.
VIEWS = {
    "newest": ("age", 1 / 5 - 1 / 40),
    "any-age": ("age", 1 / 120 - 1 / 40),
    "any-branch": ("branch", -2.0),
    "same-branch": ("branch", 3.0),
    "same-author": ("author", 3.0),
    "same-size": ("lines", 0.7),
    "same-hour": ("hour", 0.2),
    "same-weekend": ("weekend", 1.0),
}


class Estimate(NamedTuple):
    """The running estimate, which the task corrects in units of its spread.

    In spreads, stable and variable projects weigh the same in a shared task, and one interval width fits both.
    """

    seconds: float
    spread: float  # typical error in log(seconds): 0.1 is 10 %
    builds: int  # number of finished builds behind it

    def departure(self, seconds: float) -> float:
        """Return the target of a build: by how many spreads its duration missed the estimate."""
        return log(seconds / self.seconds) / self.spread

    def corrected(self, margin: float) -> float:
        """Return the duration in seconds at a departure of `margin` spreads."""
        return self.seconds * exp(self.spread * margin)


def duration_features(past: Sequence[PastBuild], now: PlannedBuild) -> tuple[Estimate, Raw] | Unavailable:
    """Return the stream's running estimate and the raw values of the task `build-duration`.

    The target of a row is `estimate.departure(seconds)`. Unavailable without a finished, timed build of the stream.
    """
    known = [build for build in finished_builds(past, now) if isfinite(build.seconds) and build.seconds > 0]
    if not known:
        return NO_BUILD
    times, close = [log(build.seconds) for build in known], weigh_by_similarity(known, now, _costs(len(known)))
    order = sorted(range(len(times)), key=times.__getitem__)
    by_time = itemgetter(*order, order[0])  # one extra: itemgetter with a single index returns no tuple
    ascending = by_time(times)[:-1]

    def weighted(view: str = "", cost: float = 0.0) -> Sequence[float]:
        ordered: Sequence[float] = by_time(close.weights(view, cost))
        return ordered[:-1]

    lowest, low, center, high, highest = quantiles(ascending, weighted(), (0.1, 0.25, 0.5, 0.75, 0.9))
    spread = _spread(high - low, highest - lowest)
    levels = {"low": low, "high": high, **_plain_levels(known, times)}
    levels |= {name: quantile(ascending, weighted(*view), 0.5) for name, view in VIEWS.items()}
    departures = {name: _bounded((value - center) / spread) for name, value in levels.items()}
    return Estimate(exp(center), spread, len(known)), {"passed": None, **departures}  # no build may have passed


def jenkins_estimate(past: Sequence[PastBuild], now: PlannedBuild) -> float | Unavailable:
    """Return the seconds that Jenkins >= 2.407 shows (LazyBuildMixIn.getEstimatedDurationCandidates).

    The mean of the three most recent finished builds at UNSTABLE or better, filled from the most recent at FAILURE.
    """
    known = [build for build in finished_builds(past, now) if isfinite(build.seconds) and build.seconds > 0]
    good = [build.seconds for build in known if build.outcome in ("passed", "unstable")]
    failed = [build.seconds for build in known if build.outcome == "failed"]
    chosen = (good[::-1] + failed[::-1])[:JENKINS_BUILDS]
    return sum(chosen) / len(chosen) if chosen else NO_BUILD


def _costs(builds: int) -> Mapping[str, float]:
    """Return `COSTS` with a higher cost of age in a young stream: its first builds ran while its CI was set up."""
    return {**COSTS, "age": COSTS["age"] * max(1.0, YOUNG / builds)}


def _plain_levels(known: Sequence[PastBuild], times: Sequence[float]) -> Mapping[str, float]:
    passed = [time for build, time in zip(known, times, strict=True) if build.outcome == "passed"]
    levels = {"last": times[-1:], "last-5": times[-5:], "passed": passed[-10:]}
    return {name: median(values) for name, values in levels.items() if values}


def _spread(quarters: float, tenths: float) -> float:
    """Return half of the mean of two interquantile ranges, each scaled to quartiles, within bounds."""
    return min(max(quarters / 4 + tenths / 8, NARROWEST), WIDEST)


def _bounded(spreads: float) -> float:
    """Clip to `FARTHEST` and halve, so that large values are about 1 in size."""
    return min(max(spreads, -FARTHEST), FARTHEST) / 2
