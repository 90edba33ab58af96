"""The similarity of each past build to the planned one, and weighted quantiles."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from math import exp, log1p
from typing import NamedTuple

from fedstep.history.builds import PastBuild, PlannedBuild

_NONE = (0.0, "")  # stands for a build before the first


SATURDAY = 5
DAY_HOURS = 24.0
WINDOW = 150  # builds of the stream; an older one weighs less than exp(-150 / 50)


class SimilarityWeights(NamedTuple):
    """Each build's distances from the planned one, by kind, and the weight that follows from them."""

    distances: Mapping[str, Sequence[float]]
    base: Sequence[float]  # each build's weight, in (0, 1]

    def weights(self, view: str = "", cost: float = 0.0) -> Sequence[float]:
        """Return each build's weight, above 0; a view raises the cost of one kind of distance by `cost` nats."""
        if not view or not any(self.distances[view]):
            return self.base
        pairs = zip(self.base, self.distances[view], strict=True)
        return [weight * exp(-cost * distance) if distance else weight for weight, distance in pairs]


def weigh_by_similarity(
    builds: Sequence[PastBuild], now: PlannedBuild, costs: Mapping[str, float]
) -> SimilarityWeights:
    """Return each build's similarity to the planned one, oldest first; `costs` are nats per unit of each distance."""
    distances = _distances(builds, now)
    # Skip distances that are 0 for all builds: half of them are in most projects.
    columns = [map(cost.__mul__, map(float, distances[name])) for name, cost in costs.items() if any(distances[name])]
    if not columns:
        return SimilarityWeights(distances, [1.0] * len(builds))
    return SimilarityWeights(distances, [exp(-nats) for nats in map(sum, zip(*columns, strict=True))])


def finished_builds(past: Sequence[PastBuild], now: PlannedBuild) -> list[PastBuild]:
    """Return the builds of the same stream that ended before `now` starts, at most 150, in the given order."""
    stream, start = now.stream, now.started_at
    newest = (build for build in reversed(past) if build.stream == stream and build.finished_at <= start)
    return list(islice(newest, WINDOW))[::-1]


def quantiles(values: Sequence[float], weights: Sequence[float], shares: Iterable[float]) -> list[float]:
    """Return weighted quantiles of ascending values, each at the middle of its weight, with linear interpolation.

    >>> quantiles([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], (0.0, 0.5))
    [1.0, 2.0]
    """
    ends = list(accumulate(weights))
    return [_quantile(values, weights, ends, share * ends[-1]) for share in shares]


def quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """Return one weighted quantile, as `quantiles` does."""
    return quantiles(values, weights, (share,))[0]


def _quantile(values: Sequence[float], weights: Sequence[float], ends: Sequence[float], target: float) -> float:
    place = bisect_left(ends, target)
    if place < len(ends) and _middle(ends, weights, place) < target:
        place += 1
    if place >= len(values):
        return values[-1]
    if not place:
        return values[0]
    left, right = _middle(ends, weights, place - 1), _middle(ends, weights, place)
    return values[place - 1] + (values[place] - values[place - 1]) * (target - left) / (right - left)


def _middle(ends: Sequence[float], weights: Sequence[float], place: int) -> float:
    return ends[place] - weights[place] / 2


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value, in any order.

    >>> median([3.0, 1.0])
    2.0
    """
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _distances(builds: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, Sequence[float]]:
    lines, files, weekend = _size(now.lines), _size(now.files), _weekend(now.weekday)
    before, previous = _outcomes_before(builds, now), ["", *(build.outcome for build in builds)]
    event, is_pr = now.event, now.is_pr
    return {
        "age": range(len(builds) - 1, -1, -1),
        "branch": [build.branch != now.branch for build in builds],
        "kind": [build.event != event or build.is_pr != is_pr for build in builds],
        "base": [build.base_branch != now.base_branch for build in builds],
        "author": [build.author != now.author for build in builds],
        "lines": _apart([_size(build.lines) for build in builds], lines),
        "files": _apart([_size(build.files) for build in builds], files),
        "hour": _hours_apart([build.hour for build in builds], now.hour),
        "weekend": [_weekend(build.weekday) != weekend for build in builds],
        "before": [outcome != before[-1] for outcome in before[:-1]],
        "previous": [outcome != previous[-1] for outcome in previous[:-1]],
    }


def _outcomes_before(builds: Sequence[PastBuild], now: PlannedBuild) -> list[str]:
    """Return the outcome of the previous build on the branch, "" if there is none or it was still running.

    The list has one entry per build and a last one for the planned build.
    """
    latest: dict[str, tuple[float, str]] = {}
    outcomes = []
    for build in builds:
        ended, outcome = latest.get(build.branch, _NONE)
        outcomes.append(outcome if ended <= build.started_at else "")
        latest[build.branch] = (build.finished_at, build.outcome)
    ended, outcome = latest.get(now.branch, _NONE)
    return [*outcomes, outcome if ended <= now.started_at else ""]


@lru_cache(maxsize=4096)
def _size(count: float | None) -> float | None:
    return None if count is None else log1p(max(count, 0.0))


def _apart(sizes: Sequence[float | None], size: float | None) -> Sequence[float]:
    if size is None:
        return [float(one is not None) for one in sizes]
    return [1.0 if one is None else abs(one - size) for one in sizes]


def _hours_apart(hours: Sequence[float | None], hour: float | None) -> Sequence[float]:
    """Return the distance of each hour around the clock, 0 for an unknown hour."""
    if hour is None:
        return [0.0] * len(hours)
    apart = [0.0 if one is None else abs(one - hour) % DAY_HOURS for one in hours]
    return [min(one, DAY_HOURS - one) for one in apart]


def _weekend(weekday: int | None) -> bool:
    return weekday is not None and weekday >= SATURDAY
