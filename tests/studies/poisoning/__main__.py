"""Attack simulated federations and compare production with that of the same federation without an attack.

    python -m tests.studies.poisoning RESULTS [--seeds N] [--more-seeds N] [--first N]

Each run appends a line to RESULTS, so that several processes can share the seeds. `--table` prints the table of
docs/explanation/threat-model.md from such a file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import click

from tests.studies.command import run_command
from tests.studies.poisoning.attacks import ATTACKS, four, frequent, one_owner, quiet, spread
from tests.studies.poisoning.federation import Plan, run

FOLDS = 80
CLOSE, LOCATIONS = 0.02, ("zero", "starter")
TASKS = ("flaky", "triage", "build-failure", "build-duration")
Line = Mapping[str, object]


def plans(share: float, from_starter: bool) -> Mapping[str, Plan]:
    """Return the plans of a share of attackers, by name."""
    if share == 0.0:
        return {"none": spread(0.0, "sign flip", from_starter=from_starter, folds=FOLDS)}
    by_attack = {name: spread(share, name, -1.0, from_starter, FOLDS) for name in ATTACKS}
    honest = spread(share, "sign flip", None, from_starter, FOLDS)
    blocking = spread(share, "sign flip", 1.0, from_starter, FOLDS)
    if share != 0.2:
        return {name: by_attack[name] for name in ("sign flip", "scaled", "one word", "slow drift")}
    return {**by_attack, "sign flip, honest votes": honest, "sign flip, votes against": blocking}


def shapes(from_starter: bool) -> Mapping[str, Plan]:
    """Return the plans whose attackers are not spread evenly, by name."""
    return {
        "one owner of 200 projects": one_owner(from_starter),
        "one project, ten updates a fold, beside 40": frequent(40, from_starter),
        "one project, ten updates a fold, beside 3": frequent(3, from_starter),
        "one of four": four(from_starter),
        "one alone after a quiet week": quiet(from_starter),
    }


def without_attack(plan: Plan) -> Plan:
    """Return the same federation, in which the attackers send nothing."""

    def senders(random: object, fold: int) -> Sequence[int]:
        return [project for project in plan.senders(random, fold) if project < plan.honest]  # type: ignore[arg-type]

    return Plan(senders, plan.honest, plan.projects, folds=plan.folds, from_starter=plan.from_starter, at=plan.at)


def _cases(seeds: range, more: int) -> Iterator[tuple[int, str, str, str, Plan]]:
    for number, seed in enumerate(seeds):
        for location in LOCATIONS:
            starter = location == "starter"
            for share in (0.0, 0.2, 0.3, 0.1) if number < more else (0.0, 0.2):
                yield from (
                    (seed, location, f"{share:.0%}", name, plan) for name, plan in plans(share, starter).items()
                )
                if share == 0.2 and number < more:
                    for name, plan in shapes(starter).items():
                        yield seed, location, "alone", name, plan
                        yield seed, location, "alone, none", name, without_attack(plan)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--seeds", default=20, show_default=True, help="Seeds without attackers and with 20 % of them.")
@click.option("--more-seeds", default=5, show_default=True, help="Seeds with 10 and 30 %, and of single attackers.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--table", "only_table", is_flag=True, help="Print the table of the results that are there.")
def main(results: Path, seeds: int, more_seeds: int, first: int, only_table: bool) -> None:
    """Run the attacks and print a table."""
    if not only_table:
        with results.open("a", encoding="utf-8") as file:
            for seed, location, share, name, plan in _cases(range(first, first + seeds), more_seeds):
                trace = run(plan, seed)
                end = {"production": trace.production, "candidate": trace.candidate}
                line = {
                    "seed": seed,
                    "from": location,
                    "share": share,
                    "attack": name,
                    **{track: {task: values[-1] for task, values in by.items()} for track, by in end.items()},
                    "lowest": {task: min(values) for task, values in trace.production.items()},
                    "start": trace.start,
                    "promotions": trace.promotions,
                    "admitted": trace.admitted,
                }
                file.write(f"{json.dumps(line)}\n")
                file.flush()
    lines = [json.loads(text) for text in results.read_text(encoding="utf-8").splitlines()]
    print("\n".join(table(lines)))


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the rows of the table: by attack the worst gaps of each task, and how many seeds are close."""
    yield "| attackers | attack | from | seeds | " + " | ".join(TASKS) + " | below the start |"
    yield "|---|---|---|---|" + "---|" * len(TASKS) + "---|"
    keys = dict.fromkeys((str(line["share"]), str(line["attack"]), str(line["from"])) for line in lines)
    for share, attack, location in sorted(keys, key=lambda key: (key[0], list(keys).index(key))):
        if share.endswith("none") or share == "0%":
            continue
        cells, below, count = [], 0.0, 0
        for task in TASKS:
            gaps, lower = _compare(lines, share, attack, location, task)
            count, below = len(gaps), min(below, *lower)
            close = sum(gap >= -CLOSE for gap in gaps)
            cells.append(f"{median(gaps):+.3f}, {close} of {count}" if gaps else "")
        yield f"| {share} | {attack} | {location} | {count} | {' | '.join(cells)} | {below:+.3f} |"


def _compare(
    lines: Sequence[Line], share: str, attack: str, location: str, task: str
) -> tuple[list[float], list[float]]:
    """Return, by seed, the score of production less that without an attack, and less that of the start."""
    wanted = "alone, none" if share == "alone" else "0%"
    reference = {
        line["seed"]: _score(line, "production", task)
        for line in lines
        if line["share"] == wanted and line["from"] == location and line["attack"] in (attack, "none")
    }
    attacked = [line for line in lines if (line["share"], line["attack"], line["from"]) == (share, attack, location)]
    gaps = [
        _score(line, "production", task) - reference[line["seed"]] for line in attacked if line["seed"] in reference
    ]
    return gaps, [_score(line, "lowest", task) - _score(line, "start", task) for line in attacked]


def _score(line: Line, name: str, task: str) -> float:
    scores = line[name]
    assert isinstance(scores, dict)
    return float(scores[task])


if __name__ == "__main__":
    run_command(main)
