"""The yardsticks: what Jenkins, and the heuristics of flaky-test tools, would have said."""

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log

from fedstep.features.duration import jenkins_estimate
from fedstep.history.builds import PastBuild, PlannedBuild, finished_builds, median
from fedstep.history.test_table import NEVER, TestStats, TestTable
from fedstep.ingest.change_impact import group_of
from fedstep.types import Unavailable

LATELY = 20  # builds
PACE = 0.3  # of the exponential average: weight of the newest build


def times(past: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, float]:
    """Seconds by name: Jenkins' estimate, the last build, the median of 20, an exponential average of logs."""
    builds = finished_builds(past, now)
    known = [build.seconds for build in builds if isfinite(build.seconds) and build.seconds > 0]
    if not known:
        return {}
    jenkins = jenkins_estimate(builds, now)
    guesses = {} if isinstance(jenkins, Unavailable) else {"jenkins": jenkins}
    return {**guesses, "last": known[-1], "median-20": median(known[-LATELY:]), "average": _average(known)}


def chances_of_failure(past: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, float]:
    """Chances by name: the last outcome, the failure rate of the last 20 builds, and of those of the same branch."""
    known = finished_builds(past, now)
    branch = [build for build in known if build.branch == now.branch]
    rate = _failed(known[-LATELY:])
    return {
        "last": _failed(known[-1:]),
        "rate-20": rate,
        "branch-rate-20": _failed(branch[-LATELY:]) if branch else rate,
    }


def chances_of_flaking(table: TestTable, tests: Sequence[str]) -> Sequence[Mapping[str, float]]:
    """For each of the tests, all known to the table, chances by name.

    `flip-rate` of the test; `classmates`: flips of the others in its class; `last-verdict`: whether its newest failure
    was a flip; `class-rate`: failures in its class, itself included.
    """
    classes: dict[str, list[int]] = {}
    for test, stats in table.items():
        sums = classes.setdefault(group_of(test), [0, 0, 0])
        sums[:] = sums[0] + stats.runs, sums[1] + stats.flips, sums[2] + stats.failures
    return [_chances(table[test], classes[group_of(test)]) for test in tests]


def _chances(stats: TestStats, sums: Sequence[int]) -> Mapping[str, float]:
    runs, flips, failures = sums
    return {
        "flip-rate": stats.flips / max(stats.runs, 1),
        "classmates": (flips - stats.flips) / max(runs - stats.runs, 1),
        "last-verdict": float(stats.last_flip == stats.last_failure != NEVER),
        "class-rate": failures / max(runs, 1),
    }


def _failed(builds: Sequence[PastBuild]) -> float:
    return sum(build.outcome != "passed" for build in builds) / len(builds) if builds else 0.0


def _average(seconds: Sequence[float]) -> float:
    level = log(seconds[0])
    for one in seconds[1:]:
        level += PACE * (log(one) - level)
    return exp(level)
