"""Measures build durations in two ways that `fedstep simulate` does not.

    python -m tests.studies.durations published FOLDER  # beside published models, on the builds of their test split
    python -m tests.studies.durations shifts FOLDER...  # builds until a changed level is followed

The folders hold recorded builds as `fedstep simulate` reads them. `published` replays the projects as a federation, and
then each one alone without its failed builds, which the published models never saw; `shifts` replays each one alone.
"""

import csv
import gzip
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import fmean, median, quantiles

import numpy as np

from fedstep.evaluation.corpus import find_projects, read_builds
from fedstep.evaluation.replay import build_steps
from fedstep.evaluation.simulated_federation import LocalOnly, SimulatedProject
from fedstep.evaluation.study import StudyPlan, run_study
from fedstep.history.summary import PastBuild

PUBLISHED = Path(__file__).parents[1] / "data/published/durations.csv.gz"
MODELS = ("xgboost", "lightgbm", "gradient_boosting")
OURS = ("fedstep", "fedstep_from_passed")
TASK = "build-duration"

STREAMS, FACTORS = 50, (0.5, 2.0, 5.0)
BEFORE, AFTER = 250, 150  # builds of a case around its shift
LEAST = 60  # builds of the stream before the shift
CLOSE = log(1.2)
IN_A_ROW = 3


def compare_published(folder: Path) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Each project's mean absolute error of Jenkins' estimate, and those of fedstep and each model relative to it."""
    study = run_study([folder], StudyPlan(TASK), lambda steps, *_: steps)
    with gzip.open(PUBLISHED, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    for project in find_projects([folder], ("builds",)):
        tally, from_passed = study.tallies[project.name], _predict_from_passed(read_builds(project.path)[0])
        place = {int(number): index for index, number in enumerate(tally.column("build_index"))}
        split = [row for row in rows if row["project"] == project.name and int(row["number"]) in place]
        chosen = [place[int(row["number"])] for row in split]
        truth = tally.column("truth")[chosen]
        jenkins = float(np.abs(tally.guesses()["jenkins"][chosen] - truth).mean())
        said = {model: np.array([float(row[model]) for row in split]) for model in MODELS}
        said["fedstep"] = tally.column("predicted")[chosen]
        said["fedstep_from_passed"] = np.array([from_passed[int(row["number"])] for row in split])
        yield project.name, jenkins, {name: float(np.abs(one - truth).mean()) / jenkins for name, one in said.items()}


def _predict_from_passed(builds: Sequence[PastBuild]) -> dict[int, float]:
    """Return the prediction of each passed build, by its number among all, from earlier passed builds alone."""
    passed = [number for number, build in enumerate(builds) if build.outcome == "passed"]
    return {passed[number]: seconds for number, seconds in _predicted([builds[number] for number in passed]).items()}


@dataclass(frozen=True)
class Shift:
    """A stream whose durations are multiplied by `factor` from a build on; `builds` are those around it."""

    stream: str
    factor: float
    builds: tuple[PastBuild, ...]
    first: int  # index of the build

    def shifted(self) -> tuple[PastBuild, ...]:
        """The builds with the longer or shorter times."""
        return tuple(
            build._replace(
                seconds=build.seconds * self.factor,
                finished_at=build.started_at + (build.finished_at - build.started_at) * self.factor,
            )
            if number >= self.first and build.stream == self.stream
            else build
            for number, build in enumerate(self.builds)
        )


def draw_shifts(folders: Sequence[Path], seed: int = 17) -> Iterator[Shift]:
    """Fifty shifts, each project in turn."""
    draw = random.Random(seed)
    places = []
    for project in find_projects(folders, ("builds",)):
        builds = read_builds(project.path)[0]
        for stream in sorted({build.stream for build in builds}):
            numbers = [number for number, build in enumerate(builds) if build.stream == stream]
            if len(numbers) >= 2 * LEAST:
                places.append((builds, stream, numbers))
    for number in range(STREAMS):
        builds, stream, numbers = places[number % len(places)]
        at = draw.choice(numbers[LEAST : -LEAST + 10])
        around = builds[max(0, at - BEFORE) : at + AFTER]
        yield Shift(stream, FACTORS[number % len(FACTORS)], around, min(at, BEFORE))


def builds_until_followed(shift: Shift) -> int:
    """Builds of the stream from the shift to the first of three in a row that are predicted within 20 %.

    What is right is what would be predicted without the shift, times its factor; the number of builds if none is.
    """
    without, shifted = (_predicted(builds) for builds in (shift.builds, shift.shifted()))
    numbers = [
        number
        for number in range(shift.first, len(shift.builds))
        if shift.builds[number].stream == shift.stream and number in without and number in shifted
    ]
    close = [abs(log(shifted[n] / without[n] / shift.factor)) < CLOSE for n in numbers]
    runs = (place for place in range(len(close) - IN_A_ROW + 1) if all(close[place : place + IN_A_ROW]))
    return next(runs, len(close))


def _predicted(builds: Sequence[PastBuild]) -> dict[int, float]:
    project = SimulatedProject("", TASK, LocalOnly(TASK))
    return {one.build_index: one.predicted for step in build_steps(builds, TASK) for one in project.live(step)}


def published_figures(folders: Sequence[Path]) -> Mapping[str, Mapping[str, object]]:
    """The median of the errors beside published models, and in how many projects they are below XGBoost's."""
    medians, wins = summarize([ratios for *_, ratios in compare_published(folders[0])])
    named = {f"wins_{name}": count for name, count in wins.items()}
    return {"summary": {**medians, **named}, "baselines": {"XGBoost": {"error": medians["xgboost"]}}}


def summarize(results: Sequence[Mapping[str, float]]) -> tuple[Mapping[str, float], Mapping[str, int]]:
    """The median ratio of each model over the projects, and in how many ours are better than XGBoost."""
    medians = {name: median(ratios[name] for ratios in results) for name in (*OURS, *MODELS)}
    return medians, {name: sum(ratios[name] < ratios["xgboost"] for ratios in results) for name in OURS}


def shift_figures(folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
    """The builds until a changed level is followed: the median, and what nine in ten take at most."""
    counts = [builds_until_followed(shift) for shift in draw_shifts(folders)]
    return {"summary": {"median": median(counts), "nine_in_ten": quantiles(counts, n=10)[-1], "mean": fmean(counts)}}


def main() -> None:
    what, *folders = sys.argv[1:]
    if what == "published":
        results = list(compare_published(Path(folders[0])))
        for project, jenkins, ratios in results:
            told = "  ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
            print(f"{project:30}  Jenkins {jenkins:.0f} s  {told}")
        medians, wins = summarize([ratios for *_, ratios in results])
        for name, ratio in medians.items():
            print(f"{name}: median error / Jenkins {ratio:.3f}")
        for name, count in wins.items():
            print(f"{name}: better than XGBoost in {count}")
    else:
        figures = shift_figures([Path(folder) for folder in folders])["summary"]
        print(f"median {figures['median']:.0f}, 90 % {figures['nine_in_ten']:.0f}, mean {figures['mean']:.1f}")


if __name__ == "__main__":
    main()
