"""Our order of ABB's IOF/ROL beside that of RETECS (Spieker et al., 2017), cycle by cycle.

python -m tests.benchmarks.published_order PUBLISHED.csv STREAM [RETECS IOFROL.csv]

PUBLISHED.csv has the APFD of RETECS for each cycle, as Bagherzadeh, Kahani and Briand published it:
github.com/moji1/tp_rl, commit 6a392a7, experiments/RL-BS1. The names of the two files there are swapped: the 320
cycles, 32,260 runs and 9,289 failures of RLBS1-paintcontrol-additional-features.csv are those of IOF/ROL. STREAM is the
folder of its results.csv.gz. Every run of a cycle has a rank there, also of tests that ran several times; runs of one
test share the mean of their ranks here. Cycles in which RETECS was scored, with failures and six runs or more, are
compared.

With RETECS, a checkout of its program (github.com/DawnandGloaming/retecs, MIT), and IOFROL.csv, data/iofrol.csv of
moji1/tp_rl, the program also runs here, with three seeds, and the same cycles are scored by its own NAPFD with the
whole and with half of the time of each cycle, as Spieker et al. did. That takes some minutes.
"""

import csv
import gzip
import importlib
import json
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fedstep.evaluation.corpus import find_projects
from fedstep.evaluation.ordering import order_recorded_tests
from fedstep.evaluation.replay import recorded_builds
from fedstep.types import Outcome

PUBLISHED = {"RETECS": "apfd", "its sorting heuristic": "heur_sort_apfd", "random": "heur_random_apfd"}
Runs = Sequence[tuple[str, bool]]  # the test, and whether it failed


def main() -> None:
    """Print the mean APFD over the cycles that both have, and with the program of RETECS the NAPFD of both."""
    published, folder = read_published(Path(sys.argv[1])), Path(sys.argv[2])
    runs, orders = read_runs(folder / "results.csv.gz"), order_cycles(folder)
    cycles = sorted(orders.keys() & published.keys(), key=int)
    print(f"mean APFD over {len(cycles)} cycles")
    print(f"fedstep: {statistics.mean(apfd(runs[cycle], orders[cycle]) for cycle in cycles):.3f}")
    for name, column in PUBLISHED.items():
        print(f"{name}: {statistics.mean(float(published[cycle][column]) for cycle in cycles):.3f}")
    if len(sys.argv) > 3:
        compare_programs(Path(sys.argv[3]), read_table(Path(sys.argv[4])), orders, cycles)


def order_cycles(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Return the scores of the tests in fedstep's order, by cycle."""
    (project,) = find_projects([folder], ("results",))
    builds = recorded_builds(project)
    orders = {}
    for number, rows in groupby(order_recorded_tests(builds, None), key=lambda row: row.build):
        tests = [run.test.rpartition("#")[2] for run in builds[number].reports.tests if run.outcome != Outcome.SKIPPED]
        orders[builds[number].situation.ci.run] = {test: row.score for test, row in zip(tests, rows, strict=True)}
    return orders


class Run(NamedTuple):
    """One run of a test in a cycle, as RETECS knows it."""

    test: str
    milliseconds: int
    last_run: datetime
    last_results: Sequence[int]  # of earlier runs, the newest first; 1: failed
    failed: bool


def read_table(path: Path) -> Mapping[str, Sequence[Run]]:
    """Return the runs of each cycle."""
    cycles: dict[str, list[Run]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter=";"):
            when, results = datetime.fromisoformat(row["LastRun"]), json.loads(row["LastResults"])
            cycles[row["Cycle"]].append(Run(row["Name"], int(row["Duration"]), when, results, row["Verdict"] == "1"))
    return cycles


def compare_programs(
    checkout: Path, table: Mapping[str, Sequence[Run]], orders: Mapping[str, Mapping[str, float]], cycles: Sequence[str]
) -> None:
    """Print the mean NAPFD of fedstep and of RETECS with the whole and half of the time of each cycle."""
    for share in (1.0, 0.5):
        print(f"mean NAPFD over the same cycles, with {share:.0%} of their time")
        own = (napfd(sorted(table[one], key=lambda run: -orders[one][run.test]), share) for one in cycles)
        print(f"fedstep: {statistics.mean(own):.3f}")
        for agent, reward in (("network", "tcfail"), ("tableau", "timerank"), ("heur_sort", "tcfail")):
            means = []
            for seed in (1, 2, 3) if agent != "heur_sort" else (1,):
                found = run_retecs(checkout, agent, reward, table, share, seed)
                means.append(statistics.mean(found[one] for one in cycles))
            print(f"RETECS, {agent} and {reward}: {' '.join(f'{mean:.3f}' for mean in means)}", flush=True)


def napfd(runs: Sequence[Run], share: float) -> float:
    """Return RETECS' NAPFD of runs in this order: one that does not fit into the time that is left is passed over."""
    left, ranks, place = share * sum(run.milliseconds for run in runs), list[int](), 1
    for run in runs:
        if run.milliseconds <= left:
            left -= run.milliseconds
            ranks += [place] * run.failed
            place += 1
    failures = sum(run.failed for run in runs)
    found = len(ranks) / failures
    return found - sum(ranks) / (failures * len(runs)) + found / (2 * len(runs))


def import_program(checkout: Path) -> Sequence[Any]:
    """Return the modules of RETECS. What it imports for other data and for charts is not needed."""
    unused = {name: ModuleType(name) for name in ("pandas", "plot_stats")}
    sys.modules |= unused
    sys.path.insert(0, str(checkout))
    try:
        return [importlib.import_module(name) for name in ("agents", "retecs", "reward", "scenarios")]
    finally:
        sys.path.remove(str(checkout))
        for name in unused:
            del sys.modules[name]


def run_retecs(
    checkout: Path, agent: str, reward: str, table: Mapping[str, Sequence[Run]], share: float, seed: int
) -> Mapping[str, float]:
    """Return the NAPFD that the program reaches in each cycle, with the settings of its command line."""
    agents, retecs, rewards, scenarios = import_program(checkout)
    random.seed(seed)
    np.random.seed(seed)  # the program draws from it
    history = retecs.DEFAULT_HISTORY_LENGTH
    made: Any = {
        "network": lambda: agents.NetworkAgent(2 + history, 1, retecs.DEFAULT_NO_HIDDEN_NODES, history),
        "tableau": lambda: agents.TableauAgent(
            retecs.DEFAULT_LEARNING_RATE, 2 + history, retecs.DEFAULT_NO_ACTIONS, retecs.DEFAULT_EPSILON, history
        ),
        "heur_sort": lambda: agents.HeuristicSortAgent(history),
    }[agent]()
    found = {}
    for cycle, runs in table.items():
        cases = [
            {"Id": place, "Duration": run.milliseconds, "CalcPrio": 0, "LastRun": run.last_run}
            | {"LastResults": list(run.last_results)}
            for place, run in enumerate(runs)
        ]
        failures = {place: int(run.failed) for place, run in enumerate(runs)}
        available = share * sum(run.milliseconds for run in runs)
        scenario = scenarios.VirtualScenario(available, cases, failures, cycle)
        result = retecs.process_scenario(made, scenario, retecs.preprocess_discrete)
        made.reward(getattr(rewards, reward)(result, scenario))
        found[cycle] = result[3]
    return found


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
