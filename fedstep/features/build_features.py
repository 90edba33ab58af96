"""The features of a build, for its duration and its risk of failure, and the examples that its result labels."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, islice, takewhile
from math import asinh, exp, inf, isfinite, log, log1p, sinh
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

from fedstep.features.test_features import flaky_examples, triage_examples
from fedstep.history.records import Example
from fedstep.history.summary import PastBuild, PlannedBuild, Summary, job_alone
from fedstep.ingest.ci import is_later_attempt
from fedstep.schema.schema import Raw, schema
from fedstep.types import NO_SECONDS, Build, BuildOutcome, Duration, Unavailable

_BEFORE_FIRST = (0.0, "")  # stands for a build before the first
SATURDAY = 5
SCHEDULED = "schedule"
DAY_HOURS = 24.0
NUMBERED = 20  # newest builds whose times tell how long a run may take
PLAIN_LEVELS = ("last", "last-3", "last-5", "last-20", "passed", "last-branch")  # of builds that there may be none of
WINDOW = 150  # builds of the stream; an older one weighs less than exp(-150 / 50)


class SimilarityWeights(NamedTuple):
    """Each build's distances from the planned one, by kind, and the weight that follows from them."""

    distances: Mapping[str, Sequence[float]]
    base: Sequence[float]  # each build's weight, in (0, 1]

    def weights(self, view: Mapping[str, float] = MappingProxyType({})) -> Sequence[float]:
        """Return each build's weight, above 0; a view raises the costs of some distances by so many nats."""
        weights = self.base
        for name, cost in view.items():
            if any(self.distances[name]):
                pairs = zip(weights, self.distances[name], strict=True)
                weights = [weight * exp(-cost * distance) if distance else weight for weight, distance in pairs]
        return weights


def weigh_by_similarity(
    builds: Sequence[PastBuild], now: PlannedBuild, costs: Mapping[str, float], running: float | None = None
) -> SimilarityWeights:
    """Return each build's similarity to the planned one, oldest first; `costs` are nats per unit of each distance.

    `running` builds run when the planned one starts, None where that is not known.
    """
    distances = {**_distances(builds, now), "running": _running_apart(builds, running)}
    # Skip distances that are 0 for all builds: half of them are in most projects.
    columns = [map(cost.__mul__, map(float, distances[name])) for name, cost in costs.items() if any(distances[name])]
    if not columns:
        return SimilarityWeights(distances, [1.0] * len(builds))
    return SimilarityWeights(distances, [exp(-nats) for nats in map(sum, zip(*columns, strict=True))])


def finished_builds(past: Sequence[PastBuild], now: PlannedBuild) -> list[PastBuild]:
    """Return the newest 150 builds of the same stream that ended before `now` starts, in the given order.

    A build that a timer started is compared with older ones of its kind, too: one a week among a hundred others.
    """
    stream, start = now.stream, now.started_at
    ended = (build for build in reversed(past) if build.stream == stream and build.finished_at <= start)
    newest = list(islice(ended, WINDOW))
    if now.event == SCHEDULED:
        newest += (build for build in ended if build.event == SCHEDULED)
    return newest[::-1]


def builds_of_namesakes(past: Sequence[PastBuild], now: PlannedBuild) -> list[PastBuild]:
    """Return what `finished_builds` does, of all cells and workflows with this job that are timed as `now` will be."""
    job, source, start = job_alone(now.stream), f"|{now.stream.rpartition('|')[2]}", now.started_at
    ended = (build for build in reversed(past) if build.finished_at <= start and build.stream.endswith(source))
    return list(islice((build for build in ended if job_alone(build.stream) == job), WINDOW))[::-1]


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
    index = bisect_left(ends, target)
    if index < len(ends) and _middle_of_weight(ends, weights, index) < target:
        index += 1
    if index >= len(values):
        return values[-1]
    if not index:
        return values[0]
    left, right = _middle_of_weight(ends, weights, index - 1), _middle_of_weight(ends, weights, index)
    return values[index - 1] + (values[index] - values[index - 1]) * (target - left) / (right - left)


def _middle_of_weight(ends: Sequence[float], weights: Sequence[float], index: int) -> float:
    return ends[index] - weights[index] / 2


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value, in any order.

    >>> median([3.0, 1.0])
    2.0
    """
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _distances(builds: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, Sequence[float]]:
    lines, files, weekend = _log_size(now.lines), _log_size(now.files), _weekend(now.weekday)
    before, previous = _outcomes_before(builds, now), ["", *(build.outcome for build in builds)]
    event, is_pr, is_again = now.event, now.is_pr, is_later_attempt(now.run)
    return {
        "age": _ages(builds, now),
        "branch": [build.branch != now.branch for build in builds],
        "kind": [build.event != event or build.is_pr != is_pr for build in builds],
        "base": [build.base_branch != now.base_branch for build in builds],
        "author": [build.author != now.author for build in builds],
        "again": [is_later_attempt(build.run) != is_again for build in builds],
        "lines": _apart([_log_size(build.lines) for build in builds], lines),
        "files": _apart([_log_size(build.files) for build in builds], files),
        "hour": _hours_apart([build.hour for build in builds], now.hour),
        "weekend": [_weekend(build.weekday) != weekend for build in builds],
        "before": [outcome != before[-1] for outcome in before[:-1]],
        "previous": [outcome != previous[-1] for outcome in previous[:-1]],
        "kinds": [_kinds_apart(build.kinds, now.kinds) for build in builds],
    }


def _ages(builds: Sequence[PastBuild], now: PlannedBuild) -> Sequence[float]:
    """Return how many newer builds there are; of one that a timer started, before another one, how many of these."""
    ages = list(range(len(builds)))
    if now.event == SCHEDULED:
        for rank, age in enumerate([age for age in ages if builds[-1 - age].event == SCHEDULED]):
            ages[age] = rank
    return ages[::-1]


def _outcomes_before(builds: Sequence[PastBuild], now: PlannedBuild) -> list[str]:
    """Return the outcome of the previous build on the branch, "" if there is none or it was still running.

    The list has one entry per build and a last one for the planned build.
    """
    latest: dict[str, tuple[float, str]] = {}
    outcomes = []
    for build in builds:
        ended, outcome = latest.get(build.branch, _BEFORE_FIRST)
        outcomes.append(outcome if ended <= build.started_at else "")
        latest[build.branch] = (build.finished_at, build.outcome)
    ended, outcome = latest.get(now.branch, _BEFORE_FIRST)
    return [*outcomes, outcome if ended <= now.started_at else ""]


@lru_cache(maxsize=4096)
def _log_size(count: float | None) -> float | None:
    return None if count is None else log1p(max(count, 0.0))


def _apart(sizes: Sequence[float | None], size: float | None) -> Sequence[float]:
    if size is None:
        return [float(other is not None) for other in sizes]
    return [1.0 if other is None else abs(other - size) for other in sizes]


def _hours_apart(hours: Sequence[float | None], hour: float | None) -> Sequence[float]:
    """Return the distance of each hour around the clock, 0 for an unknown hour."""
    if hour is None:
        return [0.0] * len(hours)
    apart = [0.0 if other is None else abs(other - hour) % DAY_HOURS for other in hours]
    return [min(distance, DAY_HOURS - distance) for distance in apart]


@lru_cache(maxsize=4096)
def _kinds_apart(first: str, second: str) -> float:
    """Return the Jaccard distance of two sets of kinds of files, from 0 to 1; 0 where neither is known."""
    kinds, others = set(first.split()), set(second.split())
    return 1.0 - len(kinds & others) / len(kinds | others) if kinds or others else 0.0


def running_builds(known: Sequence[PastBuild], past: Sequence[PastBuild], now: PlannedBuild) -> float | None:
    """Return how many builds of the job are running when `now` starts; None if its CI does not number the runs.

    `known` are the finished builds of the stream, of those in `past`. A number that no finished build of the job has,
    however it was timed, belongs to a run that has not finished, or that was never recorded. It was never recorded if a
    run with a higher number started longer ago than any of the newest builds took.
    """
    if now.number is None or all(build.number is None for build in known):
        return None
    job, start = now.stream.rpartition("|")[0], now.started_at
    numbers = {build.number for build in past if build.finished_at <= start and build.stream.rpartition("|")[0] == job}
    newest = known[-NUMBERED:]
    longest = max(build.finished_at - build.started_at for build in newest)
    old = [build.number or 0 for build in newest if build.started_at < now.started_at - longest]
    first = max(max(old, default=now.number - 1) + 1, now.number - WINDOW)
    return float(sum(run_number not in numbers for run_number in range(first, now.number)))


def _running_apart(builds: Sequence[PastBuild], running: float | None) -> Sequence[float]:
    """Return how far the number of builds that ran when each started is from `running`, in logarithms."""
    if running is None:
        return [0.0] * len(builds)
    starts = sorted(build.started_at for build in builds)
    ends = sorted(build.finished_at for build in builds)
    counts = (max(bisect_left(starts, build.started_at) - bisect_right(ends, build.started_at), 0) for build in builds)
    return [abs(log1p(count) - log1p(running)) for count in counts]


def _weekend(weekday: int | None) -> bool:
    return weekday is not None and weekday >= SATURDAY


NARROWEST, WIDEST = 0.02, 1.0  # bounds of the spread: 2 % and a factor of e
UNSEEN_SPREAD = 0.5  # of a job with one build; so covers -3 to +4 spreads about 90 % of recorded second builds
FARTHEST = 50.0  # spreads; so that one absurd time cannot spoil a tracker permanently
BEYOND, BEYOND_YOUNG = 1.2, 5.0  # of the shortest and longest build, and more for few builds: where an interval ends
COMPRESSION = 1.5
MOST_DEPARTURE = 20.0  # of the logarithm of a duration from its estimate: a factor of 500 million
JENKINS_BUILDS = 3
YOUNG = 80  # builds; a younger stream changes faster, so an age costs twice as much at half of them
NO_BUILD = Unavailable("no finished build of this job with a known duration")

# Nats of similarity lost per unit of each distance; tuned on ten recorded projects, confirmed on nine.
DURATION_COSTS = {
    "age": 1 / 40,
    "branch": 2.0,
    "kind": 3.0,
    "base": 0.5,
    "author": 1.8,
    "again": 3.0,  # chosen on the runs of a tenth project, pulumi: only there attempts are known
    "lines": 0.4,
    "files": 0.1,
    "hour": 0.04,
    "before": 0.3,
    "previous": 0.2,
}
# Other medians of the same builds: the distances whose costs differ from the estimate's, and by how many nats.
DURATION_VIEWS: Mapping[str, Mapping[str, float]] = {
    "newest": {"age": 1 / 5 - 1 / 40},
    "any-age": {"age": 1 / 120 - 1 / 40},
    "any-branch": {"branch": -2.0},
    "same-branch": {"branch": 3.0},
    "same-author": {"author": 3.0},
    "same-size": {"lines": 0.7},
    "same-hour": {"hour": 0.2},
    "same-weekend": {"weekend": 1.0},
    "same-kinds": {"kinds": 2.0},
    "same-running": {"running": 2.0},
    "same-kinds-running": {"kinds": 2.0, "running": 2.0},
}


# A changed level: most of the newest builds missed all of these estimates by about as much.
UNMOVED = ("same-kinds", "same-running", "same-kinds-running")  # and the running estimate: they follow slowly
LEAST_SINCE, MOST_SINCE = 3, 16  # builds since: fewer may be outliers, and after more the estimates have followed
LEAST_CHANGE = log(1.2)
LEAST_USUAL = 0.03  # a usual error, in logarithms: 3 %
USUAL_BUILDS = range(10, 61)  # builds before those that tell how much is usually missed
CHANGE_EVIDENCE = 9.0  # usual errors that a change must save; chosen on sixteen recorded projects, confirmed on three
MOST_SAVED = 6.0  # ... of one build
LEAST_NEAR = 0.75  # of the builds since that must be nearer to the new level: the others failed early, for example


class Estimate(NamedTuple):
    """The running estimate, which the task corrects in units of its spread.

    In spreads, stable and variable projects weigh the same in a shared task, and one interval width fits both.
    """

    seconds: float
    spread: float  # typical error in log(seconds): 0.1 is 10 %
    builds: int = 0  # number of finished builds of the stream behind it
    shortest: float = 0.0  # of the builds behind it, in seconds
    longest: float = inf

    def departure(self, seconds: float) -> float:
        """Return the target of a build: by how many spreads its duration missed the estimate."""
        return log(seconds / self.seconds) / self.spread

    def corrected(self, margin: float) -> float:
        """Return the duration in seconds at a departure of `margin` spreads."""
        return self.seconds * exp(max(-MOST_DEPARTURE, min(MOST_DEPARTURE, self.spread * margin)))

    def interval(self, margin: float, ends: tuple[float, float]) -> tuple[float, float, float]:
        """Return the low end, the duration expected at `margin`, and the high end, in seconds.

        `ends` are in spreads from the margin. No end is far beyond what the builds took: a job of which half the builds
        fail early has a large spread, and its slow builds take no longer for it.
        """
        low, seconds, high = (self.corrected(margin + spreads) for spreads in (ends[0], 0.0, ends[1]))
        beyond = BEYOND + BEYOND_YOUNG / max(self.builds, 1)
        return min(max(low, self.shortest / beyond), seconds), seconds, max(min(high, self.longest * beyond), seconds)


def duration_features(past: Sequence[PastBuild], now: PlannedBuild) -> tuple[Estimate, Raw] | Unavailable:
    """Return the stream's running estimate and the raw values of the task `build-duration`.

    The target of a row is `estimate.departure(seconds)`. The first build of a stream is estimated by the job's other
    matrix cells, and by jobs of this name in other workflows. Unavailable without a finished, timed build of these.
    """
    known = _timed(finished_builds(past, now))
    own = len(known)
    known = known or _timed(builds_of_namesakes(past, now))
    if not known:
        return NO_BUILD
    running = running_builds(known, past, now)
    times, close = [log(build.seconds) for build in known], weigh_by_similarity(known, now, _costs(len(known)), running)
    order = sorted(range(len(times)), key=times.__getitem__)
    by_time = itemgetter(*order, order[0])  # one extra: itemgetter with a single index returns no tuple
    ascending = by_time(times)[:-1]

    def weighted(weights: Sequence[float]) -> Sequence[float]:
        ordered: Sequence[float] = by_time(weights)
        return ordered[:-1]

    shape = _distribution(ascending, weighted(close.base))
    center, spread = shape.center, shape.spread
    change = find_change(known)
    moved = None
    if since := change or followed_change(known, times):
        after = [*(time + since.log_factor for time in times[: -since.builds]), *times[-since.builds :]]
        order = sorted(range(len(after)), key=after.__getitem__)
        moved = _distribution([after[index] for index in order], [close.base[index] for index in order])
        spread = min(spread, moved.spread)  # that of two levels together would say nothing
    spread = max(spread, UNSEEN_SPREAD / max(own, 1))
    levels = {"low": shape.low, "high": shape.high, **_plain_levels(known, times, now.branch)}
    if change and moved:
        levels["moved"] = moved.center
    for name, view in DURATION_VIEWS.items():
        weights = close.weights(view)
        levels[name] = center if weights is close.base else quantile(ascending, weighted(weights), 0.5)
    departures = {name: compress((value - center) / spread) for name, value in levels.items()}
    raw: dict[str, float | None] = {**dict.fromkeys((*PLAIN_LEVELS, "moved")), **departures}
    return Estimate(exp(center), spread, own, exp(ascending[0]), exp(ascending[-1])), raw


def _timed(builds: Iterable[PastBuild]) -> list[PastBuild]:
    return [build for build in builds if isfinite(build.seconds) and build.seconds > 0]


class _Distribution(NamedTuple):
    """The weighted median and quartiles of some values, and their spread."""

    low: float
    center: float
    high: float
    spread: float


def _distribution(ascending: Sequence[float], weights: Sequence[float]) -> _Distribution:
    lowest, low, center, high, highest = quantiles(ascending, weights, (0.1, 0.25, 0.5, 0.75, 0.9))
    return _Distribution(low, center, high, _spread(high - low, highest - lowest))


class LevelChange(NamedTuple):
    """The newest `builds` of a stream take exp(log_factor) times as long as the builds before led to expect."""

    builds: int
    log_factor: float


def find_change(known: Sequence[PastBuild]) -> LevelChange | None:
    """Return the change of level that explains the newest builds best; None where none does by CHANGE_EVIDENCE.

    Three in four builds since, the newest and the oldest among them, must be nearer to the new level than to the
    expected one, so that no outlier makes a change. A generalised likelihood ratio for Laplace errors: Basseville and
    Nikiforov, "Detection of Abrupt Changes", 1993.
    """
    if not known or not abs(known[-1].missed) > LEAST_CHANGE / 2:  # nearer to the expected level than to a new one
        return None
    before = [abs(build.missed) for build in known[:-MOST_SINCE] if isfinite(build.missed)][-USUAL_BUILDS[-1] :]
    if len(before) < USUAL_BUILDS[0]:
        return None
    usual = max(sum(before) / len(before), LEAST_USUAL)
    since: list[float] = []
    best, change = CHANGE_EVIDENCE, None
    for build in islice(reversed(known), MOST_SINCE):
        if not isfinite(build.missed):
            break
        since.append(build.missed)
        level = median(since)
        near = [abs(missed - level) < abs(missed) for missed in since]
        most = near[0] and near[-1] and sum(near) >= LEAST_NEAR * len(near)
        if len(since) < LEAST_SINCE or not most or abs(level) < LEAST_CHANGE:
            continue
        saved = sum(_bounded(missed / usual) - _bounded((missed - level) / usual) for missed in since)
        if saved >= best:
            best, change = saved, LevelChange(len(since), level)
    return change and _with_earlier(change, known)


def followed_change(known: Sequence[PastBuild], times: Sequence[float]) -> LevelChange | None:
    """Return the newest change that lasted so long that the estimates followed it; None where its level is over.

    `times` are the logarithms of the durations. The two levels make the spread too wide as long as the builds before
    the change are among the known ones.
    """
    for newer in range(MOST_SINCE // 2, len(known) - USUAL_BUILDS[0], MOST_SINCE // 2):
        change = find_change(known[:-newer])
        if change is None or change.builds < MOST_SINCE:
            continue
        level = median(times[-newer - change.builds : -newer])
        stayed = abs(median(times[-newer:]) - level) < abs(change.log_factor) / 2
        return change._replace(builds=change.builds + newer) if stayed else None
    return None


def _with_earlier(change: LevelChange, known: Sequence[PastBuild]) -> LevelChange:
    """Return the change with the builds right before it that are nearer to its level, too."""
    earlier = reversed(known[: -change.builds])
    near = takewhile(lambda build: abs(build.missed - change.log_factor) < abs(build.missed), earlier)
    return change._replace(builds=change.builds + sum(1 for _ in near))


def _bounded(errors: float) -> float:
    return min(abs(errors), MOST_SAVED)


def missed_by(estimate: Estimate, example: Example) -> float:
    """Return by how much a build's duration missed the nearest of the slow estimates, in its logarithm.

    0 where it lies between them: then one of them may have been right.
    """
    task, values = schema().tasks["build-duration"], dict(zip(example.indices, example.values, strict=True))
    gaps = [example.target, *(example.target - expand(values.get(task.first(name), 0.0)) for name in UNMOVED)]
    return 0.0 if min(gaps) < 0.0 < max(gaps) else min(gaps, key=abs) * estimate.spread


def jenkins_estimate(past: Sequence[PastBuild], now: PlannedBuild) -> float | Unavailable:
    """Return the seconds that Jenkins >= 2.407 shows (LazyBuildMixIn.getEstimatedDurationCandidates).

    The mean of the three most recent finished builds at UNSTABLE or better, filled from the most recent at FAILURE.
    """
    known = _timed(finished_builds(past, now))
    good = [build.seconds for build in known if build.outcome in ("passed", "unstable")]
    failed = [build.seconds for build in known if build.outcome == "failed"]
    chosen = (good[::-1] + failed[::-1])[:JENKINS_BUILDS]
    return sum(chosen) / len(chosen) if chosen else NO_BUILD


def _costs(builds: int) -> Mapping[str, float]:
    """Return the costs, that of age higher in a young stream: its first builds ran while its CI was set up."""
    return {**DURATION_COSTS, "age": DURATION_COSTS["age"] * max(1.0, YOUNG / builds)}


def _plain_levels(known: Sequence[PastBuild], times: Sequence[float], branch: str) -> Mapping[str, float]:
    passed = [time for build, time in zip(known, times, strict=True) if build.outcome == "passed"]
    on_branch = [time for build, time in zip(known, times, strict=True) if build.branch == branch] if branch else []
    levels = (times[-1:], times[-3:], times[-5:], times[-20:], passed[-10:], on_branch[-1:])
    return {name: median(values) for name, values in zip(PLAIN_LEVELS, levels, strict=True) if values}


def _spread(quarters: float, tenths: float) -> float:
    """Return half of the mean of two interquantile ranges, each scaled to quartiles, within bounds."""
    return min(max(quarters / 4 + tenths / 8, NARROWEST), WIDEST)


def compress(spreads: float) -> float:
    """Return a departure on a scale on which large ones are about 1 in size, so that none outweighs a batch.

    The inverse hyperbolic sine keeps small departures linear, and loses nothing of large ones: see `expand`.
    """
    return asinh(min(max(spreads, -FARTHEST), FARTHEST)) / COMPRESSION


def expand(value: float) -> float:
    """Return the departure in spreads that `compress` made a value of."""
    return sinh(COMPRESSION * value)


PRIOR, PRIOR_BUILDS = 0.3, 2.0  # before anything is known: two builds at the failure rate of an average project
OWN_BUILDS = 0.2  # weight of the project's own rate among the similar builds
FARTHEST_LOG_ODDS = 5.0  # nats

# Nats of similarity lost per unit of each distance; tuned on ten recorded projects, confirmed on nine.
FAILURE_COSTS = {
    "age": 1 / 50,
    "branch": 2.0,
    "kind": 3.0,
    "base": 1.5,
    "author": 1.5,
    "again": 2.0,  # likewise
    "lines": 0.2,
    "files": 0.3,
    "before": 0.8,
    "previous": 0.5,
}
# Failure rates of the same builds with some distances costing more or less.
FAILURE_VIEWS: Mapping[str, Mapping[str, float]] = {
    "newest": {"age": 1 / 8 - 1 / 50},
    "any-age": {"age": 1 / 200 - 1 / 50},
    "same-branch": {"branch": 3.0},
    "any-branch": {"branch": -2.0},
    "any-kind": {"kind": -3.0},
    "same-author": {"author": 2.5},
    "same-size": {"files": 0.9},
    "same-hour": {"hour": 0.2},
    "same-before": {"before": 1.5},
    "same-previous": {"previous": 1.0},
    "same-kinds": {"kinds": 2.0},
    "same-running": {"running": 2.0},
    "same-kinds-running": {"kinds": 2.0, "running": 2.0},
}


def failure_features(past: Sequence[PastBuild], now: PlannedBuild) -> Raw:
    """Return the raw values of the task `build-failure`: halved log-odds of failing, and plain facts.

    `similar` is the rate among similar builds; every other rate is its difference from `similar`.
    """
    known = finished_builds(past, now)
    failed = [float(build.outcome != "passed") for build in known]
    running = running_builds(known, past, now)
    close = weigh_by_similarity(known, now, FAILURE_COSTS, running)
    own = _rate(failed, [1.0] * len(failed), PRIOR, PRIOR_BUILDS)
    similar = _log_odds(_rate(failed, close.weights(), own, OWN_BUILDS))
    rates = {name: _rate(failed, close.weights(view), own, OWN_BUILDS) for name, view in FAILURE_VIEWS.items()}
    departures = {name: (_log_odds(rate) - similar) / 2 for name, rate in rates.items()}
    return {
        "bias": 1.0,
        "similar": similar / 2,
        "own": (_log_odds(own) - similar) / 2,
        **departures,
        **_facts(known, now),
        "running": running,
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
    return min(max(log(rate / (1 - rate)), -FARTHEST_LOG_ODDS), FARTHEST_LOG_ODDS)


def _run(builds: Sequence[PastBuild], passed: bool) -> float:
    """Count the newest consecutive builds that passed, or that did not."""
    return float(sum(1 for _ in takewhile(lambda build: (build.outcome == "passed") == passed, reversed(builds))))


class BuildExamples(NamedTuple):
    """What a record has of a build beside its facts: the examples by task, and how its duration was missed."""

    rows: Mapping[str, tuple[Example, ...]]
    missed: float = NO_SECONDS  # `missed_by`; NO_SECONDS where nothing was estimated


def build_examples(
    summary: Summary,
    build: Build,
    planned: PlannedBuild,
    due: Callable[[str, int], bool],
    word_weights: Sequence[float] = (),
) -> BuildExamples:
    """Return the examples by task, from the summary before the build.

    `due(test, runs)` tells whether a test gives a flaky example: at most one per horizon. `word_weights` as in
    `triage_values`.
    """
    rows: dict[str, tuple[Example, ...]] = {
        "flaky": flaky_examples(summary, build, due),
        "triage": triage_examples(summary, build, planned, word_weights),
        "build-failure": (failure_example(summary.builds, planned, build.name, build.outcome),),
        "build-duration": (),
    }
    if not isinstance(build.duration, Duration) or build.duration.seconds <= 0:
        return BuildExamples(rows)
    timed = duration_example(summary.builds, planned, build.name, build.duration.seconds)
    if isinstance(timed, Unavailable):
        return BuildExamples(rows)
    estimate, example = timed
    return BuildExamples({**rows, "build-duration": (example,)}, missed_by(estimate, example))


def private_build_features(planned: PlannedBuild) -> tuple[str, ...]:
    """Return the private features of a build: its branch, job and author, where known."""
    named = (("branch", planned.branch), ("job", planned.stream), ("author", planned.author))
    return tuple(f"{kind}={value}" for kind, value in named if value)


def failure_example(past: Sequence[PastBuild], planned: PlannedBuild, name: str, outcome: str) -> Example:
    """Return the example of one build; its target is 1 if the build did not pass."""
    row = schema().tasks["build-failure"].encode(failure_features(past, planned))
    return Example(name, 0, *row, private_build_features(planned), float(outcome != BuildOutcome.PASSED))


def duration_example(
    past: Sequence[PastBuild], planned: PlannedBuild, name: str, seconds: float
) -> tuple[Estimate, Example] | Unavailable:
    """Return the running estimate and the example of one build; Unavailable without a known build before it.

    Private features are omitted: the estimate already covers branch and author, and they cost accuracy.
    """
    features = duration_features(past, planned)
    if isinstance(features, Unavailable):
        return features
    estimate, raw = features
    target = max(-FARTHEST, min(FARTHEST, estimate.departure(seconds)))
    return estimate, Example(name, 0, *schema().tasks["build-duration"].encode(raw), (), target)
