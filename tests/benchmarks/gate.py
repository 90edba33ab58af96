"""The error rates of the gate by simulation, and what poison does to production. Prints one line a figure.

python -m tests.benchmarks.gate
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from fedstep.server.gate import Active, Gate, Verdict, Vote, judge
from tests.benchmarks.federation import POISONS, Plan, poisoned, run

PROJECTS = 20
MANY = Active(PROJECTS, PROJECTS)
Draw = Callable[[Random], float]


@dataclass(frozen=True)
class Lies:
    """A share of the votes, all cast by the same projects, that say what is asked of them."""

    share: float
    difference: float


HONEST = Lies(0.0, 0.0)


def normal(mean: float, spread: float = 0.1) -> Draw:
    """Votes of an honest snapshot or of a damaged one, in units of the bound."""
    return lambda dice: max(-1.0, min(1.0, dice.gauss(mean, spread)))


def partly(share: float, damage: float) -> Draw:
    """A damage that only a share of the builds feels."""
    return lambda dice: damage if dice.random() < share else max(-1.0, min(1.0, dice.gauss(0.0, 0.1)))


def tried(draw: Draw, dice: Random, lies: Lies = HONEST, spent: float = 0.0, every: int = 1) -> Verdict:
    """One trial, looked at after so many votes each time, until it ends."""
    votes: list[Vote] = []
    while True:
        votes += [_vote(draw, dice, lies) for _ in range(every)]
        verdict = judge(votes, MANY, spent, Gate())
        if verdict.outcome != "open":
            return verdict


def rates(draw: Draw, lies: Lies = HONEST, trials: int = 300, spent: float = 0.0, every: int = 1) -> dict[str, float]:
    """The shares of trials promoted and rejected, and the median number of votes they took."""
    verdicts = [tried(draw, Random(seed), lies, spent, every) for seed in range(trials)]
    return {
        "promoted": _share(verdicts, "promoted"),
        "rejected": _share(verdicts, "rejected"),
        "median votes": statistics.median(verdict.votes for verdict in verdicts),
    }


def chain(worse: Callable[[int, float], float], seed: int, length: int = 20, every: int = 1) -> float:
    """The loss that the promotions of a row of snapshots add up to, each worse by `worse(turn, spent)`."""
    dice, spent, lost = Random(seed), 0.0, 0.0
    for turn in range(length):
        step = worse(turn, spent)
        verdict = tried(normal(step), dice, spent=spent, every=every)
        if verdict.outcome == "promoted":
            lost, spent = lost + step, verdict.spent
    return lost


CHAINS: dict[str, Callable[[int, float], float]] = {
    "each 0.02 worse": lambda _turn, _spent: 0.02,
    "each 0.05 worse": lambda _turn, _spent: 0.05,
    "each 0.10 worse": lambda _turn, _spent: 0.10,
    "as much worse as is left": lambda _turn, spent: 0.15 - spent,
    "worse and better in turn": lambda turn, _spent: 0.08 if turn % 2 == 0 else -0.08,
}


def _vote(draw: Draw, dice: Random, lies: Lies) -> Vote:
    liars = round(lies.share * PROJECTS)
    if dice.random() < lies.share:
        return Vote(f"p{dice.randrange(liars)}", f"o{dice.randrange(liars)}", lies.difference)
    number = dice.randrange(liars, PROJECTS)
    return Vote(f"p{number}", f"o{number}", draw(dice))


def _share(verdicts: Sequence[Verdict], outcome: str) -> float:
    return sum(verdict.outcome == outcome for verdict in verdicts) / len(verdicts)


def main() -> None:
    """Prints the figures; minutes."""
    cases: dict[str, Callable[[], object]] = {
        "honest, as good as production": partial(rates, normal(0.0)),
        "honest, 0.05 better": partial(rates, normal(-0.05)),
        "damaged by the margin": partial(rates, normal(0.15)),
        "damaged by 0.30": partial(rates, normal(0.30)),
        "honest, 20 % lie that it is worse": partial(rates, normal(0.0), Lies(0.2, 1.0)),
        "damaged by 0.20, 20 % lie that it is better": partial(rates, normal(0.20), Lies(0.2, -1.0)),
        "damaged by 0.30, 20 % lie that it is better": partial(rates, normal(0.30), Lies(0.2, -1.0)),
        "damaged for 20 % of the builds": partial(rates, partly(0.2, 1.0)),
        "damaged for 40 % of the builds": partial(rates, partly(0.4, 1.0)),
        "better by 0.10, the margin spent": partial(rates, normal(-0.10), spent=0.15),
    }
    for name, figures in cases.items():
        print(f"{name}: {figures()}", flush=True)
    for name, worse in CHAINS.items():
        lost = [chain(worse, seed, every=20) for seed in range(10)]
        print(
            f"twenty in a row, {name}: lost {max(lost):.3f} at most, median {statistics.median(lost):.3f}", flush=True
        )
    clean = run(Plan())
    print(f"auc, clean: {clean}", flush=True)
    for poison in POISONS:
        for share in (0.1, 0.2):
            found = run(poisoned(poison, share))
            print(f"auc, {poison} {share:.0%}: {found.production - clean.production:+.4f} {found}", flush=True)


if __name__ == "__main__":
    main()
