"""Our order of ABB's IOF/ROL beside that of RETECS (Spieker et al., 2017), cycle by cycle.

python -m tests.benchmarks.published_order PUBLISHED.csv STREAM

PUBLISHED.csv has the APFD of RETECS for each cycle, as Bagherzadeh, Kahani and Briand published it:
github.com/moji1/tp_rl, commit 6a392a7, experiments/RL-BS1. The names of the two files there are swapped: the 320
cycles, 32,260 runs and 9,289 failures of RLBS1-paintcontrol-additional-features.csv are those of IOF/ROL. STREAM is the
folder of its results.csv.gz. Every run of a cycle has a rank there, also of tests that ran several times; runs of one
test share the mean of their ranks here. Cycles in which RETECS was scored, with failures and six runs or more, are
compared.
"""

import csv
import gzip
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from fedstep.evaluation.corpus import find_projects
from fedstep.evaluation.ordering import order_recorded_tests
from fedstep.evaluation.replay import recorded_builds
from fedstep.types import Outcome

PUBLISHED = {"RETECS": "apfd", "its sorting heuristic": "heur_sort_apfd", "random": "heur_random_apfd"}
Runs = Sequence[tuple[str, bool]]  # the test, and whether it failed


def main() -> None:
    """Print the mean APFD over the cycles that both have."""
    published, folder = read_published(Path(sys.argv[1])), Path(sys.argv[2])
    runs = read_runs(folder / "results.csv.gz")
    (project,) = find_projects([folder], ("results",))
    builds = recorded_builds(project)
    scores: dict[str, list[float]] = defaultdict(list)
    for number, rows in groupby(order_recorded_tests(builds, None), key=lambda row: row.build):
        cycle = builds[number].situation.ci.run
        if cycle not in published:
            continue
        tests = [run.test.rpartition("#")[2] for run in builds[number].reports.tests if run.outcome != Outcome.SKIPPED]
        order = {test: row.score for test, row in zip(tests, rows, strict=True)}
        scores["fedstep"].append(apfd(runs[cycle], order))
        for name, column in PUBLISHED.items():
            scores[name].append(float(published[cycle][column]))
    for name, values in scores.items():
        print(f"{name}: {statistics.mean(values):.3f} over {len(values)} cycles")


def read_published(path: Path) -> Mapping[str, Mapping[str, str]]:
    """Return the rows of the cycles that were scored."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["cycle"]: row for row in csv.DictReader(file, delimiter=";") if row["apfd"]}


def read_runs(path: Path) -> Mapping[str, Runs]:
    """Return the runs of each cycle."""
    runs: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runs[row["build"]].append((row["test"], row["outcome"] != "passed"))
    return runs


def apfd(runs: Runs, scores: Mapping[str, float]) -> float:
    """Return the average percentage of faults detected; each failed run is a fault, and the largest score is first."""
    left, ranks = list(range(1, len(runs) + 1)), list[float]()
    for _, equal in groupby(sorted(runs, key=lambda run: -scores[run[0]]), key=lambda run: scores[run[0]]):
        failed = [one for _, one in equal]
        places, left = left[: len(failed)], left[len(failed) :]
        ranks += [statistics.mean(places)] * sum(failed)
    return 1.0 - sum(ranks) / (len(runs) * len(ranks)) + 1.0 / (2 * len(runs))


if __name__ == "__main__":
    main()
