"""Replay a recorded project into the file of its steps, for one task."""

import csv
import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, merge
from math import exp, isfinite, log
from pathlib import Path

from fedstep.errors import MALFORMED
from fedstep.evaluation.corpus import (
    BuildStep,
    Case,
    CorpusProject,
    KnownLabel,
    as_planned,
    in_order,
    iter_builds,
    read_results,
    read_steps,
    read_tests,
    write_steps,
)
from fedstep.evaluation.ordering import SourceWordsOf, order_recorded_tests
from fedstep.evaluation.replay_tests import NO_WORDS, KnownWords, Truth, predict_test_times, rerun_steps, test_steps
from fedstep.features.build_features import (
    Estimate,
    duration_example,
    failure_example,
    finished_builds,
    jenkins_estimate,
    median,
    missed_by,
)
from fedstep.history.records import make_record
from fedstep.history.summary import MAXIMUM_BUILDS, PastBuild, PlannedBuild, past_build, stream_name
from fedstep.history.word_index import split_words
from fedstep.importers.recorded_builds import find_build_folders, read_folder
from fedstep.ingest.ci import parse_time
from fedstep.schema.schema import sub_words
from fedstep.types import Build, Change, Dropped, FileChange, FinishedBuild, Unavailable

PACE = 0.3  # of the exponential average: weight of the newest build


LATELY = 20  # builds


Past = tuple[PastBuild, ...]


def build_steps(builds: Iterable[PastBuild], task: str) -> Iterator[BuildStep]:
    """Yield a step per build, given in the order of starts, and a last one in which the last labels become known."""
    running: list[tuple[float, int, PastBuild]] = []
    past: deque[PastBuild] = deque(maxlen=MAXIMUM_BUILDS)
    labels: dict[int, float] = {}
    build_index = -1
    for build_index, build in enumerate(builds):
        known = []
        while running and running[0][0] <= build.started_at:
            _, key, done = heappop(running)
            past.append(done)
            known += [KnownLabel(key, labels.pop(key))] if key in labels else []
        case = MAKERS[task](tuple(past), build, build_index)
        if not isinstance(case, Unavailable):
            labels[build_index] = case.row.target
            if task == "build-duration":
                build = build._replace(missed=missed_by(Estimate(*case.estimate), case.row))
        heappush(running, (build.finished_at, build_index, build))
        yield BuildStep(build_index, tuple(known), () if isinstance(case, Unavailable) else (case,))
    yield BuildStep(build_index + 1, tuple(KnownLabel(key, label) for key, label in labels.items()), ())


def _duration_case(past: Past, build: PastBuild, build_index: int) -> Case | Unavailable:
    planned = as_planned(build)
    estimated = duration_example(past, planned, str(build_index), build.seconds)
    if isinstance(estimated, Unavailable):
        return estimated
    estimate, row = estimated
    return Case(
        build_index,
        build.stream,
        row,
        build.seconds,
        estimate_times(past, planned),
        estimate,
    )


def _failure_case(past: Past, build: PastBuild, build_index: int) -> Case | Unavailable:
    planned = as_planned(build)
    row = failure_example(past, planned, str(build_index), build.outcome)
    return Case(build_index, build.stream, row, row.target, chances_of_failure(past, planned), scored=bool(past))


MAKERS: dict[str, Callable[[Past, PastBuild, int], Case | Unavailable]] = {
    "build-duration": _duration_case,
    "build-failure": _failure_case,
}


MOST_NAMED = 20  # bad rows that are listed; all are counted
TEST_TASKS = ("flaky", "triage")


@dataclass(frozen=True, slots=True)
class Extracted:
    """A project's file of steps, their number, and the records that could not be used."""

    project: str
    path: Path
    steps: int
    dropped: int = 0
    named: tuple[Dropped, ...] = ()


@dataclass(slots=True)
class _Bin:
    """A collector of unusable rows that passes usable ones on."""

    count: int = 0
    named: list[Dropped] = field(default_factory=list)

    def sift(self, items: Iterator[object]) -> Iterator[object]:
        for item in items:
            if not isinstance(item, Dropped):
                yield item
                continue
            self.count += 1
            if len(self.named) < MOST_NAMED:
                self.named.append(item)


def extract(
    project: CorpusProject, task: str, reruns: CorpusProject | None, path: Path, word_weights: Sequence[float] = ()
) -> Extracted:
    """Write the project's steps for this task to `path`.

    `reruns` is the table of its tests' reruns: of the flaky task the truth, of triage the words of their source alone.
    `word_weights` as in `triage_values`; they must not be learned from this project.
    """
    dropped = _Bin()
    if project.kind in TESTED and task in TEST_TASKS:
        steps = _steps_of_tests(project, task, reruns, _evidence(project, dropped), word_weights)
    else:
        steps = READERS[project.kind](project, task, dropped)
    count = write_steps(path, steps)
    return Extracted(project.name, path, count, dropped.count, tuple(dropped.named))


def time_tests(project: CorpusProject, path: Path) -> Extracted:
    """Write what is expected of every timed test run of the project, one line a run, to `path`."""
    dropped, count = _Bin(), 0
    with path.open("w", encoding="utf-8") as file:
        for run in predict_test_times(_evidence(project, dropped)):
            file.write(json.dumps([run.build, run.seconds, run.expected, run.median_20], separators=(",", ":")) + "\n")
            count += 1
    return Extracted(project.name, path, count, dropped.count, tuple(dropped.named))


def order_project(project: CorpusProject, path: Path) -> Extracted:
    """Write the order of the tests of every build with real failures, one line a test, to `path`."""
    dropped, count = _Bin(), 0
    kinds = recorded_kinds(project.beside("truth.csv")) if project.kind == "folders" else None
    with path.open("w", encoding="utf-8") as file:
        for ordered_test in order_recorded_tests(_evidence(project, dropped), kinds, recorded_words(project)):
            file.write(json.dumps(ordered_test, separators=(",", ":")) + "\n")
            count += 1
    return Extracted(project.name, path, count, dropped.count, tuple(dropped.named))


def recorded_words(project: CorpusProject) -> SourceWordsOf | None:
    """Return a function from a build to the words of the tests whose source is recorded with it, by test."""
    recorded = sorted(project.path.glob("*/sources.json"))
    by_build = {json.loads(path.with_name("build.json").read_bytes())["build"]: path for path in recorded}

    def read(build: str) -> Mapping[str, tuple[str, ...]]:
        sources = json.loads(by_build[build].read_bytes())["tests"] if build in by_build else {}
        return {test: split_words(names.split()) for test, names in sources.items()}

    return read if by_build else None


def _evidence(project: CorpusProject, dropped: _Bin) -> Iterator[FinishedBuild]:
    """Yield the builds of a project with reports, in the order of starts."""
    if project.kind == "results":
        items: Iterator[FinishedBuild | Dropped] = read_results(project.path)
    else:
        items = map(read_folder, sorted(find_build_folders(project.path), key=_read_start))
    return with_own_commits(item for item in dropped.sift(items) if isinstance(item, FinishedBuild))


def with_own_commits(builds: Iterable[FinishedBuild]) -> Iterator[FinishedBuild]:
    """Yield the builds; one with another change than an earlier build of the commit that it states has none.

    Recordings of reverts state the commit that the revert was made on. Taken for the code that ran, each of their
    regressions is proof of a flake: the test passed on that commit. A second attempt built what the first one did,
    whatever change is recorded with it.
    """
    changes: dict[str, tuple[FileChange, ...]] = {}
    for build in builds:
        change, attempt = build.situation.change, build.situation.ci.attempt
        if (
            isinstance(change, Change)
            and attempt < 2
            and changes.setdefault(change.commit, change.files) != change.files
        ):
            situation = build.situation._replace(change=change._replace(commit="", tree=""))
            yield build._replace(situation=situation)
        else:
            yield build


def recorded_builds(project: CorpusProject) -> list[FinishedBuild]:
    """Return the builds of a project with reports, in the order of starts, without what cannot be read."""
    return list(_evidence(project, _Bin()))


def _from_builds(project: CorpusProject, task: str, dropped: _Bin) -> Iterator[BuildStep]:
    builds = (build for build in dropped.sift(in_order(iter_builds(project.path))) if isinstance(build, PastBuild))
    return build_steps(builds, task)


def _from_folders(project: CorpusProject, task: str, dropped: _Bin) -> Iterator[BuildStep]:
    return build_steps(map(_past, _evidence(project, dropped)), task)


def _from_tests(project: CorpusProject, _task: str, _dropped: _Bin) -> Iterator[BuildStep]:
    return rerun_steps(read_tests(project.path))


TESTED = ("folders", "results")  # kinds of projects with reports of tests
READERS: Mapping[str, Callable[[CorpusProject, str, _Bin], Iterator[BuildStep]]] = {
    "builds": _from_builds,
    "folders": _from_folders,
    "tests": _from_tests,
}


def _steps_of_tests(
    project: CorpusProject,
    task: str,
    reruns: CorpusProject | None,
    builds: Iterable[FinishedBuild],
    word_weights: Sequence[float],
) -> Iterator[BuildStep]:
    kinds = recorded_kinds(project.beside("truth.csv")) if project.kind == "folders" else None
    tests = tuple(read_tests(reruns.path)) if reruns else ()
    if task == "triage":
        sources = {test.test: sub_words(test.identifiers) for test in tests}
        return test_steps(builds, task, Truth(kinds), KnownWords(word_weights, sources))
    truth = Truth(kinds, {test.test: test.flaky for test in tests} if reruns else None)
    return test_steps(builds, task, truth, NO_WORDS)


def _read_start(folder: Path) -> float:
    """Return when the build started, in seconds since the epoch, or 0 where that cannot be read."""
    try:
        started = parse_time(str(json.loads((folder / "build.json").read_bytes())["started_at"]))
    except (OSError, *MALFORMED):
        return 0.0
    return started if isinstance(started, float) else 0.0


def _past(evidence: FinishedBuild) -> PastBuild:
    ci, duration = evidence.situation.ci, evidence.duration
    build = Build("", evidence.situation, evidence.finished_at, duration, evidence.outcome, evidence.reports)
    author = evidence.situation.change.author if isinstance(evidence.situation.change, Change) else ""
    return past_build(make_record(build, stream_name(ci, "recorded"), author))


def recorded_kinds(path: Path) -> Mapping[tuple[str, str], bool] | None:
    """Return whether each failure was a flake, by build and test, or None where that is not recorded."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["build"], row["test"]): row["kind"] == "flake" for row in csv.DictReader(file)}


def interleave(projects: Sequence[Extracted], seed: int | None = None) -> Iterator[tuple[str, BuildStep]]:
    """Yield every step with its project's name, in the order of a common time from 0 to 1.

    Without a seed the n-th of N steps happens at (n + 1/2) / N, with one at the n-th of N drawn times; a project's own
    order is kept either way. One step of each project is in memory.
    """
    streams = (_place_steps(project, index, seed) for index, project in enumerate(projects))
    return ((projects[index].project, step) for _, index, step in merge(*streams, key=lambda item: item[:2]))


def _place_steps(project: Extracted, index: int, seed: int | None) -> Iterator[tuple[float, int, BuildStep]]:
    times = _space(project.steps) if seed is None else _draw(project.steps, random.Random(f"{seed} {project.project}"))
    return zip(times, iter(lambda: index, None), read_steps(project.path), strict=False)


def _space(count: int) -> Iterator[float]:
    return ((index + 0.5) / count for index in range(count))


def _draw(count: int, draw: random.Random) -> Iterator[float]:
    """Yield ascending times, uniform in [0, 1]: each is the smallest of the k that are left."""
    time = 0.0
    for left in range(count, 0, -1):
        time += (1.0 - time) * (1.0 - draw.random() ** (1.0 / left))
        yield time


def _share_failed(builds: Sequence[PastBuild]) -> float:
    return sum(build.outcome != "passed" for build in builds) / len(builds) if builds else 0.0


def _average(seconds: Sequence[float]) -> float:
    level = log(seconds[0])
    for duration in seconds[1:]:
        level += PACE * (log(duration) - level)
    return exp(level)


def estimate_times(past: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, float]:
    """Return seconds by name: Jenkins' estimate, last build, median of 20, exponential average of logs."""
    builds = finished_builds(past, now)
    known = [build.seconds for build in builds if isfinite(build.seconds) and build.seconds > 0]
    if not known:
        return {}
    jenkins = jenkins_estimate(builds, now)
    guesses = {} if isinstance(jenkins, Unavailable) else {"jenkins": jenkins}
    return {**guesses, "last": known[-1], "median-20": median(known[-LATELY:]), "average": _average(known)}


def chances_of_failure(past: Sequence[PastBuild], now: PlannedBuild) -> Mapping[str, float]:
    """Return chances by name: last outcome, failure rate of the last 20 builds, and that of the same branch."""
    known = finished_builds(past, now)
    branch = [build for build in known if build.branch == now.branch]
    rate = _share_failed(known[-LATELY:])
    return {
        "last": _share_failed(known[-1:]),
        "rate-20": rate,
        "branch-rate-20": _share_failed(branch[-LATELY:]) if branch else rate,
    }
