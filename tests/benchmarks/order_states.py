"""The order of tests by what the fix did to the test that fails when it is taken back, beside the best simple order.

python -m tests.benchmarks.order_states FOLDER..., each with unpacked archives of tests/data/regressions. Tests that are
"new" with a fix were written for it; those that it "changed" existed before and were written for something near; it did
not touch the "other" ones. All builds count alike.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

from fedstep.evaluation.corpus import CorpusProject, find_projects
from fedstep.evaluation.ordering import OrderedTest
from fedstep.evaluation.replay import recorded_builds
from tests.benchmarks.peer_order import BUDGETS, ours, ran, score

GROUPS = {"new": "new", "changed": "changed", "same": "other", "later": "other"}
NAMES = ("fedstep", "path", "path+co+recent")

Builds = dict[int, list[OrderedTest]]


def main() -> None:
    """Print APFDc, the median time to the first failure, and the shares caught, by group and order."""
    groups: dict[str, Builds] = defaultdict(dict)
    for place, project in enumerate(find_projects(list(map(Path, sys.argv[1:])), ("folders",))):
        for group, builds in split(project).items():
            groups[group] |= {1_000_000 * place + number: rows for number, rows in builds.items()}
    print("failing tests of the group, builds: APFDc, median time to the first failure, caught in", *BUDGETS)
    for group, builds in sorted(groups.items()):
        for name in NAMES:
            figures = " ".join(f"{one:.3f}" for one in score(builds, {number: [] for number in builds}, name))
            print(f"{group}, {len(builds)} builds, {name}: {figures}")


def split(project: CorpusProject) -> dict[str, Builds]:
    """The tests of each build by group, of which only those of the group count as failed."""
    with project.beside("truth.csv").open(newline="", encoding="utf-8") as file:
        states = {(row["build"], row["test"]): GROUPS[row["before_fix"]] for row in csv.DictReader(file)}
    builds = recorded_builds(project)
    groups: dict[str, Builds] = defaultdict(dict)
    for number, rows in ours(project, builds):
        name = builds[number].situation.ci.run
        found = [
            states.get((name, run.test), "") if row.failed else ""
            for run, row in zip(ran(builds[number]), rows, strict=True)
        ]
        for group in set(found) - {""}:
            groups[group][number] = [row._replace(failed=one == group) for row, one in zip(rows, found, strict=True)]
    return groups


if __name__ == "__main__":
    main()
