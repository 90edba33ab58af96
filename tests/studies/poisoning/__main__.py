"""Attack simulated federations and compare production with that of the same federation without an attack.

    python -m tests.studies.poisoning RESULTS [--seeds N] [--share 20%] [--from zero] [--task flaky]

Each run appends a line to RESULTS; runs that are there are not made again, so that a study can be interrupted.
`--table` prints the table of docs/explanation/threat-model.md from such a file. The tables of the store are kept in
memory; with `--store sqlite` all goes through `Store`, with the same results (test_poisoning.py) in thrice the time.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from tests.studies.command import run_command
from tests.studies.poisoning.attacks import ATTACKS, four, frequent, one_owner, quiet, spread
from tests.studies.poisoning.federation import LOOK, Plan, run
from tests.studies.poisoning.world import RATES

FOLDS = 100
CLOSE, LOCATIONS = 0.02, ("zero", "starter")
CLOSE_TO_CANDIDATE, CLOSE_AT = 0.01, 60  # production without an attack, after so many aggregations
SHARES = ("0%", "20%", "30%", "10%", "alone")
TASKS = tuple(RATES)
MEMORY = "memory"
Line = Mapping[str, object]


class Case(NamedTuple):
    """What distinguishes the runs of one seed."""

    location: str
    share: str
    attack: str
    plan: Plan


def plans(share: float, from_starter: bool) -> Mapping[str, Plan]:
    """Return the plans of a share of attackers, by name."""
    if share == 0.0:
        return {"none": spread(0.0, "sign flip", from_starter=from_starter, folds=FOLDS)}
    by_attack = {name: spread(share, name, -1.0, from_starter, FOLDS) for name in ATTACKS}
    honest = spread(share, "sign flip", None, from_starter, FOLDS)
    blocking = spread(share, "sign flip", 1.0, from_starter, FOLDS)
    return {**by_attack, "sign flip, honest evaluations": honest, "sign flip, evaluations against": blocking}


def shapes(from_starter: bool) -> Mapping[str, Plan]:
    """Return the plans whose attackers are not spread evenly, by name."""
    return {
        "one owner of 200 projects": one_owner(from_starter),
        "one project, ten updates an aggregation, beside 40": frequent(40, from_starter),
        "one project, ten updates an aggregation, beside 3": frequent(3, from_starter),
        "one of four": four(from_starter),
        "one alone after a quiet week": quiet(from_starter),
    }


def without_attack(plan: Plan) -> Plan:
    """Return the same federation, in which the attackers send nothing."""

    def senders(random: object, fold: int) -> Sequence[int]:
        return [project for project in plan.senders(random, fold) if project < plan.honest]  # type: ignore[arg-type]

    return Plan(senders, plan.honest, plan.projects, folds=plan.folds, from_starter=plan.from_starter, at=plan.at)


def cases(shares: Collection[str], locations: Collection[str]) -> Iterator[Case]:
    """Yield the runs of one seed."""
    for location in locations:
        starter = location == "starter"
        for share in shares:
            if share != "alone":
                number = float(share.removesuffix("%")) / 100
                yield from (Case(location, share, name, plan) for name, plan in plans(number, starter).items())
                continue
            for name, plan in shapes(starter).items():
                yield Case(location, share, name, plan)
                yield Case(location, "alone, none", name, without_attack(plan))


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--seeds", default=20, show_default=True, help="Number of seeds.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--share", "shares", multiple=True, default=SHARES, type=click.Choice(SHARES), help="Attackers.")
@click.option("--from", "locations", multiple=True, default=LOCATIONS, type=click.Choice(LOCATIONS), help="Start.")
@click.option("--task", "tasks", multiple=True, default=TASKS, type=click.Choice(TASKS), help="Tasks.")
@click.option("--store", default=MEMORY, show_default=True, type=click.Choice((MEMORY, "sqlite")), help="Of the runs.")
@click.option("--flakes", type=click.FloatRange(0.001, 0.5), help="Share of flaky examples, in a file of its own.")
@click.option("--table", "only_table", is_flag=True, help="Print the table of the results that are there.")
def main(
    results: Path,
    seeds: int,
    first: int,
    shares: Sequence[str],
    locations: Sequence[str],
    tasks: Sequence[str],
    store: str,
    flakes: float | None,
    only_table: bool,
) -> None:
    """Run the attacks and print a table."""
    lines = _read(results)
    for seed in () if only_table else range(first, first + seeds):
        for case in cases(shares, locations):
            known = {task for line in lines if _is_of(line, case, seed) for task in _scores(line, "production")}
            missing = [task for task in tasks if task not in known]
            if missing:
                lines.append(_run(case, seed, missing, store == MEMORY, flakes))
                with results.open("a", encoding="utf-8") as file:
                    file.write(f"{json.dumps(lines[-1])}\n")
    print("\n".join(table(lines)))


def _read(results: Path) -> list[Line]:
    if not results.exists():
        return []
    return [json.loads(text) for text in results.read_text(encoding="utf-8").splitlines()]


def _is_of(line: Line, case: Case, seed: int) -> bool:
    return (line["seed"], line["from"], line["share"], line["attack"]) == (seed, *case[:3])


def _run(case: Case, seed: int, tasks: Sequence[str], in_memory: bool, flakes: float | None) -> Line:
    trace = run(case.plan, seed, tasks=tasks, in_memory=in_memory, flakes=flakes)
    return {
        "seed": seed,
        "from": case.location,
        "share": case.share,
        "attack": case.attack,
        "production": _rounded(trace.production),
        "candidate": _rounded(trace.candidate),
        "start": trace.start,
        "promotions": {task: len(trace.promoted(task)) for task in tasks},
        "admitted": {task: trace.admitted(task) for task in tasks},
    }


def _rounded(scores: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
    return {task: [round(value, 4) for value in values] for task, values in scores.items()}


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the rows of the table: by attack the median gap of each task, and how many seeds are close."""
    yield "| attackers | attack | from | " + " | ".join(TASKS) + " | below the start |"
    yield "|---|---|---|" + "---|" * len(TASKS) + "---|"
    keys = list(dict.fromkeys((str(line["share"]), str(line["attack"]), str(line["from"])) for line in lines))
    for share, attack, location in sorted(keys, key=lambda key: (key[2] == "starter", key[0])):
        if share.endswith("none"):
            continue
        cells, below = [], 0.0
        for task in TASKS:
            own = [line for line in lines if line["from"] == location and task in _scores(line, "production")]
            attacked = [line for line in own if (line["share"], line["attack"]) == (share, attack)]
            if share == "0%":
                gaps, most = [_lag(line, task) for line in attacked], CLOSE_TO_CANDIDATE
            else:
                gaps, most = _compare(own, attacked, share, attack, task), CLOSE
            below = min(below, *(min(_series(line, "production", task)) - _start(line, task) for line in attacked), 0.0)
            close = sum(gap >= -most for gap in gaps)
            cells.append(f"{median(gaps):+.3f}, {close} of {len(gaps)}" if gaps else "")
        yield f"| {share} | {attack} | {location} | {' | '.join(cells)} | {below:+.3f} |"


def _lag(line: Line, task: str) -> float:
    """Return the score of production less that of the candidate after `CLOSE_AT` aggregations."""
    place = CLOSE_AT // LOOK - 1
    return _series(line, "production", task)[place] - _series(line, "candidate", task)[place]


def _compare(own: Sequence[Line], attacked: Sequence[Line], share: str, attack: str, task: str) -> list[float]:
    """Return, by seed, the score of production less that without an attack."""
    wanted = ("alone, none", attack) if share == "alone" else ("0%", "none")
    reference = {
        line["seed"]: _series(line, "production", task)[-1] for line in own if (line["share"], line["attack"]) == wanted
    }
    return [
        _series(line, "production", task)[-1] - reference[line["seed"]]
        for line in attacked
        if line["seed"] in reference
    ]


def _scores(line: Line, name: str) -> Mapping[str, Sequence[float]]:
    scores = line[name]
    assert isinstance(scores, dict)
    return scores


def _series(line: Line, name: str, task: str) -> Sequence[float]:
    return _scores(line, name)[task]


def _start(line: Line, task: str) -> float:
    starts = line["start"]
    assert isinstance(starts, dict)
    return float(starts[task])


if __name__ == "__main__":
    run_command(main)
