"""The order of testhunch 0.6.0 (PyPI, Apache-2.0) on the histories with regressions, beside ours.

In an environment with Python 3.12 or newer: `pip install testhunch`, then python -m tests.benchmarks.peer_order
FOLDER..., each a folder with unpacked archives of tests/data/regressions, or with a results.csv. Both get the same
builds in the same order, and the cost of a test is the time that fedstep expects of it. A test that testhunch does not
know comes first.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fedstep.evaluation.corpus import CorpusProject, find_projects
from fedstep.evaluation.ordering import OrderedTest, order_recorded_tests
from fedstep.evaluation.replay import recorded_builds, recorded_kinds, recorded_words
from fedstep.evaluation.scores import score_order
from fedstep.types import Change, FinishedBuild, Outcome, TestRun

BUDGETS = (0.1, 0.25, 0.5)


def main() -> None:
    """Print the means over projects: APFDc, and the share of builds that show a failure in part of the time."""
    scores: dict[str, list[list[float]]] = {"fedstep": [], "testhunch": [], "path+co+recent": []}
    for project in find_projects(list(map(Path, sys.argv[1:])), ("folders", "results")):
        builds = recorded_builds(project)
        rows = dict(ours(project, builds))
        theirs = dict(rank_by_testhunch(builds, set(rows)))
        for name, kept in scores.items():
            kept.append(score(rows, theirs, name))
        print(project.name, {name: [round(one, 3) for one in kept[-1]] for name, kept in scores.items()}, flush=True)
    print("mean of", len(scores["fedstep"]), "projects: APFDc, median time to the first failure, caught in", *BUDGETS)
    for name, kept in scores.items():
        print(f"{name}: {' '.join(f'{statistics.mean(column):.3f}' for column in zip(*kept, strict=True))}")


def ours(project: CorpusProject, builds: Sequence[FinishedBuild]) -> Iterator[tuple[int, list[OrderedTest]]]:
    """The tests of each build with regressions, in the order of its report, by the number of the build."""
    kinds = recorded_kinds(project.beside("truth.csv")) if project.kind == "folders" else None
    found = order_recorded_tests(builds, kinds, recorded_words(project))
    for number, rows in groupby(found, key=lambda row: row.build):
        yield number, list(rows)


def ran(build: FinishedBuild) -> list[TestRun]:
    """The tests of a build that were not skipped."""
    return [run for run in build.reports.tests if run.outcome != Outcome.SKIPPED]


def rank_by_testhunch(builds: Sequence[FinishedBuild], wanted: set[int]) -> Iterator[tuple[int, list[float]]]:
    """The score of each test of the wanted builds, larger first, from testhunch's own store and ranking."""
    from testhunch import models, prioritize
    from testhunch.store import open_store

    with tempfile.TemporaryDirectory() as folder:
        store: Any = open_store(f"sqlite:///{folder}/history.db")
        store.migrate()
        for number, build in enumerate(builds):
            change = build.situation.change
            paths = [file.path for file in change.files] if isinstance(change, Change) else []
            name = f"{number:040x}"
            if number in wanted:
                ranked = prioritize.rank(store.history("project"), paths, name)
                places = {one.key: -float(place) for place, one in enumerate(ranked)}
                yield number, [places.get(run.test, 1.0) for run in ran(build)]
            results = tuple(
                models.CaseResult(
                    key=run.test,
                    name=run.test,
                    suite=None,
                    file=test_file(run.test),
                    status=models.Status.FAILED if run.outcome in "fc" else models.Status.PASSED,
                    duration_ms=round(1000 * run.seconds) if run.seconds >= 0 else None,
                    message=None,
                )
                for run in {run.test: run for run in ran(build)}.values()
            )
            changes = tuple(models.FileChange(path, "M") for path in paths)
            store.ingest(models.RunInput("project", name, name, results, "main", None, changes))


def test_file(test: str) -> str:
    """The path of a test's module: testhunch would take it from the class, which pytest ends with its own classes."""
    from fedstep.ingest.change_impact import file_of

    return f"{file_of(test)}.py"


def score(rows: dict[int, list[OrderedTest]], theirs: dict[int, list[float]], name: str) -> list[float]:
    """APFDc, median share of the time to the first failure, and the shares caught within the budgets, of a project."""
    apfdc, firsts = [], []
    for number, tests in rows.items():
        own = {"fedstep": [one.score for one in tests], "testhunch": theirs[number]}
        values = own[name] if name in own else [one.others[name] for one in tests]
        order = sorted(range(len(tests)), key=lambda place: -values[place])
        cost = np.array([tests[place].others["seconds"] for place in order])
        area, _, first = score_order(cost, np.array([tests[place].failed for place in order]))
        apfdc.append(area)
        firsts.append(first)
    caught = [statistics.mean(first <= budget for first in firsts) for budget in BUDGETS]
    return [statistics.mean(apfdc), statistics.median(firsts), *caught]


if __name__ == "__main__":
    main()
