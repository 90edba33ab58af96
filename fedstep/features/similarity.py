"""How much each past build resembles the one about to start, and weighted quantiles of what is known of them."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from math import exp, log1p
from typing import NamedTuple

from fedstep.history.builds import PastBuild, PlannedBuild

_NONE = (0.0, "")  # a build that never was


SATURDAY = 5
DAY_HOURS = 24.0
WINDOW = 150  # builds of the stream; an older one weighs less than exp(-150 / 50)


class SimilarityWeights(NamedTuple):
    """How far each of some builds is from the planned one, by kind of distance, and what that leaves of its weight."""

    distances: Mapping[str, Sequence[float]]
    base: Sequence[float]  # each build's weight, in (0, 1]

    def weights(self, view: str = "", cost: float = 0.0) -> Sequence[float]:
        """Each build's weight, in (0, ...); a view makes one kind of distance dearer, or cheaper, by `cost` nats."""
        if not view or not any(self.distances[view]):
            return self.base
        pairs = zip(self.base, self.distances[view], strict=True)
        return [weight * exp(-cost * distance) if distance else weight for weight, distance in pairs]


def weigh_by_similarity(
    builds: Sequence[PastBuild], now: PlannedBuild, costs: Mapping[str, float]
) -> SimilarityWeights:
    """How much each build, oldest first, resembles the planned one: a unit of each distance costs so many nats."""
    distances = _distances(builds, now)
    # A distance that is nowhere costs nothing: in most projects half of them are.
    columns = [map(cost.__mul__, map(float, distances[name])) for name, cost in costs.items() if any(distances[name])]
    if not columns:
        return SimilarityWeights(distances, [1.0] * len(builds))
    return SimilarityWeights(distances, [exp(-nats) for nats in map(sum, zip(*columns, strict=True))])


def finished_builds(past: Sequence[PastBuild], now: PlannedBuild) -> list[PastBuild]:
    """The builds of the same stream that had ended when `now` starts, at most 150, in the given order."""
    stream, start = now.stream, now.started_at
    newest = (build for build in reversed(past) if build.stream == stream and build.finished_at <= start)
    return list(islice(newest, WINDOW))[::-1]


def quantiles(values: Sequence[float], weights: Sequence[float], shares: Iterable[float]) -> list[float]:
    """The weighted quantiles of ascending values: each stands at the middle of its weight, linear in between.

    >>> quantiles([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], (0.0, 0.5))
    [1.0, 2.0]
    """
    ends = list(accumulate(weights))
    return [_quantile(values, weights, ends, share * ends[-1]) for share in shares]


def quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """One of `quantiles`."""
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
    """The median of at least one value, in any order.

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
    """How the build before it on its branch had ended; "" for the first one, and where it was still running.

    One for each build, and for the planned one.
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
    """Around the clock; an hour that is not known is near every other."""
    if hour is None:
        return [0.0] * len(hours)
    apart = [0.0 if one is None else abs(one - hour) % DAY_HOURS for one in hours]
    return [min(one, DAY_HOURS - one) for one in apart]


def _weekend(weekday: int | None) -> bool:
    return weekday is not None and weekday >= SATURDAY
