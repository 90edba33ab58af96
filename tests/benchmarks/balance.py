"""How evenly shards run on real times, beside the algorithms of pytest-split (`pip install pytest-split`).

python -m tests.benchmarks.balance ../shared/corpora

Makespan over ideal: the time of the longest machine, over the larger of the mean of the machines and the longest test.
Each build is divided by what was known before it. pytest-split keeps the last time of each test. "With the fixed time":
each machine, and the ideal one, takes also what the job took beside its tests, where that was recorded; the forecast is
the time of the slowest machine that `fedstep plan` tells.
"""

import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from fedstep.evaluation.corpus import find_projects
from fedstep.evaluation.replay import recorded_builds
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record
from fedstep.pipeline.selection import NamedTest, predict_seconds
from fedstep.pipeline.shards import fixed_seconds, plan_shards
from fedstep.types import Build, Duration, FinishedBuild, Outcome

MACHINES = (4, 8, 16)
FIRST, MOST = 10, 25  # builds before the first divided one, and of a stream that are divided
FEWEST_TESTS = 20
Times = Mapping[str, float]


def main() -> None:
    """Print makespan / ideal of each stream and the mean over streams, for 4, 8 and 16 machines."""
    corpora, found = Path(sys.argv[1]), {}
    with tempfile.TemporaryDirectory() as folder:
        for archive in sorted((corpora / "junit").glob("*.tar.gz")):
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
        for project in find_projects([corpora / "verdicts", Path(folder)], ("results", "folders")):
            if not project.name.startswith("abb"):  # its times are constant
                found[project.name] = score_stream(recorded_builds(project))
                print(project.name, found[project.name], flush=True)
    names = dict.fromkeys(name for scores in found.values() for name in scores)
    for name in names:
        known = [scores[name] for scores in found.values() if name in scores]
        means = [statistics.mean(column) for column in zip(*known, strict=True)]
        print(f"{name}, {len(known)} streams: {' / '.join(f'{mean:.3f}' for mean in means)}")


class DividedBuild(NamedTuple):
    """A build that is divided: its real times, and what was known before it."""

    real: Times
    summary: Summary
    last: Times
    fixed: float  # seconds that the job took beside its tests, 0 where that is not known


def score_stream(builds: list[FinishedBuild]) -> Mapping[str, list[float]]:
    """The mean makespan / ideal of each algorithm over builds of one stream, by number of machines."""
    scores: dict[str, dict[int, list[float]]] = {}
    for one in replay(builds):
        real, summary = one.real, one.summary
        named = [NamedTest(test, test, (test,) if test in summary.tests else ()) for test in real]
        for machines in MACHINES:
            plan, shards = plan_shards(real, predict_seconds(named, summary.tests), machines, "test")
            places = {"fedstep": plan.shard_of, **pytest_split(real, one.last, machines)}
            ideal = max(sum(real.values()) / machines, max(real.values()))
            found: dict[str, float] = {}
            for name, place in places.items():
                slowest = makespan(place, real, machines)
                found[name] = slowest / ideal
                if one.fixed:
                    found[f"{name}, with the fixed time"] = (slowest + one.fixed) / (ideal + one.fixed)
            learned = fixed_seconds(summary.builds)
            if one.fixed and isinstance(learned, float):
                slowest = makespan(plan.shard_of, real, machines) + one.fixed
                longest = max(shard.seconds for shard in shards)
                found["error of the forecast, with the fixed time"] = abs(longest + learned - slowest) / slowest
                found["error of the forecast, without it"] = abs(longest - slowest) / slowest
            for name, value in found.items():
                scores.setdefault(name, {}).setdefault(machines, []).append(value)
    return {name: [round(statistics.mean(by[n]), 3) for n in MACHINES] for name, by in scores.items()}


def replay(builds: list[FinishedBuild]) -> Iterator[DividedBuild]:
    """Yield some of the builds, each with the history and the last times before it."""
    summary, last = Summary(), dict[str, float]()
    every = max(1, (len(builds) - FIRST) // MOST)
    for number, finished in enumerate(builds):
        runs = finished.reports.tests
        real = {run.test: run.seconds for run in runs if run.outcome != Outcome.SKIPPED and run.seconds >= 0}
        if number >= FIRST and number % every == 0 and len(real) >= FEWEST_TESTS and any(real.values()):
            job = finished.duration.seconds if isinstance(finished.duration, Duration) else 0.0
            yield DividedBuild(real, summary, last, max(0.0, job - sum(real.values())))
        build = Build(f"{number:032x}", *finished)
        summary = apply_record(summary, build.name, make_record(build, "", ""))
        last |= real


def pytest_split(real: Times, last: Times, machines: int) -> Mapping[str, Callable[[str], int]]:
    """The group of each test by both algorithms of pytest-split, from 1."""
    from pytest_split.algorithms import Algorithms

    items = [SimpleNamespace(nodeid=test) for test in real]
    known = {test: last[test] for test in real if test in last} or {"none": 1.0}
    places = {}
    for algorithm in Algorithms:
        groups = algorithm.value(machines, items, known)
        where = {item.nodeid: number for number, group in enumerate(groups, 1) for item in group.selected}
        places[f"pytest-split {algorithm.name}"] = where.__getitem__
    return places


def makespan(place: Callable[[str], int], real: Times, machines: int) -> float:
    """The time of the longest machine in seconds, without its fixed time."""
    loads = [0.0] * (machines + 1)
    for test, seconds in real.items():
        loads[place(test)] += seconds
    return max(loads)


if __name__ == "__main__":
    main()
