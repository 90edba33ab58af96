"""Turns a recorded project into the file of its steps, for one head."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedstep.build.ci import parse_time
from fedstep.build.record import Build, Change, Dropped, Evidence
from fedstep.features.builds import PastBuild
from fedstep.features.plan import stream_of
from fedstep.history.entry import entry_of
from fedstep.history.summary import past_build
from fedstep.importers.folder import build_folders, read_folder
from fedstep.simulate.cases import Step, write_steps
from fedstep.simulate.corpus import Project
from fedstep.simulate.replay_builds import build_steps
from fedstep.simulate.replay_tests import Truth, test_steps
from fedstep.simulate.rerun import rerun_steps
from fedstep.simulate.results_table import read_results
from fedstep.simulate.tables import in_order, iter_builds, read_tests
from fedstep.simulate.test_times import predict_test_times

__all__ = ["Extracted", "extract", "time_tests"]

MOST_NAMED = 20  # bad rows that are told one by one; all are counted
TEST_HEADS = ("flaky", "triage")


@dataclass(frozen=True, slots=True)
class Extracted:
    """A project's file of steps, how many, and what of its records could not be used."""

    project: str
    path: Path
    steps: int
    dropped: int = 0
    named: tuple[Dropped, ...] = ()


@dataclass(slots=True)
class _Bin:
    """Where bad rows go while the good ones pass."""

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


def extract(project: Project, head: str, reruns: Project | None, path: Path) -> Extracted:
    """Write the project's steps for this head to `path`; `reruns`: the table of its tests' reruns."""
    dropped = _Bin()
    count = write_steps(path, READERS[project.kind](project, head, reruns, dropped))
    return Extracted(project.name, path, count, dropped.count, tuple(dropped.named))


def time_tests(project: Project, path: Path) -> Extracted:
    """Write what is expected of every timed test run of the project, one line a run, to `path`."""
    dropped, count = _Bin(), 0
    with path.open("w", encoding="utf-8") as file:
        for run in predict_test_times(_evidence(project, dropped)):
            file.write(json.dumps([run.build, run.seconds, run.expected, run.median_20], separators=(",", ":")) + "\n")
            count += 1
    return Extracted(project.name, path, count, dropped.count, tuple(dropped.named))


def _evidence(project: Project, dropped: _Bin) -> Iterator[Evidence]:
    """The builds of a project with reports, in the order of starts."""
    if project.kind == "results":
        items: Iterator[Evidence | Dropped] = read_results(project.path)
    else:
        items = map(read_folder, sorted(build_folders(project.path), key=_started))
    return (item for item in dropped.sift(items) if isinstance(item, Evidence))


def _from_builds(project: Project, head: str, _: Project | None, dropped: _Bin) -> Iterator[Step]:
    builds = (build for build in dropped.sift(in_order(iter_builds(project.path))) if isinstance(build, PastBuild))
    return build_steps(builds, head)


def _from_folders(project: Project, head: str, reruns: Project | None, dropped: _Bin) -> Iterator[Step]:
    builds = _evidence(project, dropped)
    if head in TEST_HEADS:
        return test_steps(builds, head, Truth(_kinds(project.beside("truth.csv")), _flaky(reruns)))
    return build_steps(map(_past, builds), head)


def _from_tests(project: Project, _head: str, _reruns: Project | None, _dropped: _Bin) -> Iterator[Step]:
    return rerun_steps(read_tests(project.path))


def _from_results(project: Project, head: str, _: Project | None, dropped: _Bin) -> Iterator[Step]:
    return test_steps(_evidence(project, dropped), head, Truth())


READERS: Mapping[str, Callable[[Project, str, Project | None, _Bin], Iterator[Step]]] = {
    "builds": _from_builds,
    "folders": _from_folders,
    "results": _from_results,
    "tests": _from_tests,
}


def _started(folder: Path) -> float:
    """When the build started, in seconds since the epoch; 0 where that cannot be read."""
    try:
        started = parse_time(str(json.loads((folder / "build.json").read_bytes())["started_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    return started if isinstance(started, float) else 0.0


def _past(evidence: Evidence) -> PastBuild:
    ci, duration = evidence.situation.ci, evidence.duration
    build = Build("", evidence.situation, evidence.finished_at, duration, evidence.outcome, evidence.reports)
    author = evidence.situation.change.author if isinstance(evidence.situation.change, Change) else ""
    return past_build(entry_of(build, stream_of(ci, "recorded"), author))


def _kinds(path: Path) -> Mapping[tuple[str, str], bool] | None:
    """By build and test whether the failure was a flake; None where nobody has written that down."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["build"], row["test"]): row["kind"] == "flake" for row in csv.DictReader(file)}


def _flaky(reruns: Project | None) -> Mapping[str, bool] | None:
    return {test.test: test.flaky for test in read_tests(reruns.path)} if reruns else None
