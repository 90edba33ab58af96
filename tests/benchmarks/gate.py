"""The error rates of the gate by simulation, and what poison does to production. Prints one line a figure.

python -m tests.benchmarks.gate
"""

import statistics
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from random import Random

from fedstep.federation.messages import PrivacyGuarantee, TrialScore, Update
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, CurrentModels, ModelVersion, StoredUpdate, Trial
from fedstep.server.differential_privacy import LIFE, GaussianNoise, calibrate_budget, next_private_version
from fedstep.server.gate import (
    ActiveCounts,
    Evaluation,
    EvaluationSum,
    EvaluationSums,
    Gate,
    UpdateEvaluations,
    Verdict,
)
from tests.benchmarks.federation import POISONS, Plan, poisoned, run

GATE = Gate()
PROJECTS = 20
MANY = ActiveCounts(PROJECTS, PROJECTS)
Draw = Callable[[Random], float]


@dataclass(frozen=True)
class Lies:
    """A share of the evaluations, all sent by the same projects, that say what is asked of them."""

    share: float
    difference: float


HONEST = Lies(0.0, 0.0)


def normal(mean: float, spread: float = 0.1) -> Draw:
    """Evaluations of an honest version or of a damaged one, in units of the bound."""
    return lambda dice: max(-1.0, min(1.0, dice.gauss(mean, spread)))


def partly(share: float, damage: float, rest: float = 0.0) -> Draw:
    """A damage that only a share of the builds feels; `rest` is what the others report."""
    return lambda dice: damage if dice.random() < share else max(-1.0, min(1.0, dice.gauss(rest, 0.1)))


def of_batches(draw: Draw, batches: int) -> Draw:
    """Evaluations that are the mean of so many batches, of which `draw` has one; only the mean is clipped."""
    return lambda dice: max(-1.0, min(1.0, statistics.fmean(draw(dice) for _ in range(batches))))


def tried(
    draw: Draw, dice: Random, lies: Lies = HONEST, spent: float = 0.0, every: int = 1, gate: Gate = GATE
) -> Verdict:
    """One trial, looked at after so many evaluations each time, until it ends."""
    votes: list[Evaluation] = []
    while True:
        votes += [_vote(draw, dice, lies) for _ in range(every)]
        verdict = gate.decide(UpdateEvaluations(votes, MANY), spent)
        if verdict.outcome != "open":
            return verdict


def rates(
    draw: Draw,
    lies: Lies = HONEST,
    trials: int = 300,
    spent: float = 0.0,
    every: int = 1,
    gate: Gate = GATE,
) -> dict[str, float]:
    """The shares of trials promoted and rejected, and the median number of evaluations they took."""
    verdicts = [tried(draw, Random(seed), lies, spent, every, gate) for seed in range(trials)]
    return {
        "promoted": _share(verdicts, "promoted"),
        "rejected": _share(verdicts, "rejected"),
        "median votes": statistics.median(verdict.evaluations for verdict in verdicts),
    }


@cache
def multiplier(promise: PrivacyGuarantee) -> float:
    """The noise of a promise, in units of a project's bound."""
    return calibrate_budget(promise).multiplier


def noised_trial(draw: Draw, seed: int, projects: int = 100, most: int = 400) -> tuple[Verdict, int]:
    """How a trial ends with the usual promise of differential privacy, and after how many periods.

    Every project evaluates in each, and brings a delta as long as its bound, as most do. Raises AssertionError where
    the trial is open after `most`.
    """
    promise, dice = PrivacyGuarantee(8.0, 1e-6, 52, 7.0), Random(seed)
    noise, rules = (
        GaussianNoise(multiplier(promise), dice.randrange, LIFE / promise.releases),
        {"flaky": AggregationRules(1.0)},
    )
    zero, delta = array("f", [0.0] * 4), array("f", [0.5] * 4)
    task, snapshot = ModelVersion(2, 0, 0.0, {"flaky": zero}, {"flaky": 0}), Trial("flaky", 1, 0, 0.0, delta)
    current = CurrentModels(task, {"flaky": zero}, {"flaky": snapshot})
    moment = AggregationInput(current, 3, {}, {}, 0.0, (), {})
    told: tuple[EvaluationSum, ...] = ()
    for period in range(1, most + 1):
        votes = (TrialScore(1, draw(dice)) for _ in range(projects))
        updates = (Update("", 2, f"{n:032x}", str(n), {}, {"flaky": delta}, {"flaky": v}) for n, v in enumerate(votes))
        buffered = tuple(StoredUpdate(b"", project=update.project, known=update) for update in updates)
        made = next_private_version(
            replace(moment, buffered=buffered, evidence={"flaky": EvaluationSums(told)}), rules, GATE, noise
        )
        told = (*told, made.releases["flaky"])
        if made.decisions:
            return made.decisions[0].verdict, period
    raise AssertionError("the trial never ended")


def noised_rates(draw: Draw, trials: int = 100) -> dict[str, float]:
    """The shares of trials promoted and rejected with differential privacy, and the median number of periods."""
    ended = [noised_trial(draw, seed) for seed in range(trials)]
    verdicts = [verdict for verdict, _ in ended]
    return {
        "promoted": _share(verdicts, "promoted"),
        "rejected": _share(verdicts, "rejected"),
        "median periods": statistics.median(periods for _, periods in ended),
        "nine of ten within": sorted(periods for _, periods in ended)[trials * 9 // 10 - 1],
    }


def chain(worse: Callable[[int, float], float], seed: int, length: int = 20, every: int = 1) -> float:
    """The loss that the promotions of a row of versions add up to, each worse by `worse(turn, spent)`."""
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
    "each 0.01 worse": lambda _turn, _spent: 0.01,
    "worse and better in turn": lambda turn, _spent: 0.08 if turn % 2 == 0 else -0.08,
}


def _vote(draw: Draw, dice: Random, lies: Lies) -> Evaluation:
    liars = round(lies.share * PROJECTS)
    if dice.random() < lies.share:
        return Evaluation(f"p{dice.randrange(liars)}", f"o{dice.randrange(liars)}", lies.difference)
    number = dice.randrange(liars, PROJECTS)
    return Evaluation(f"p{number}", f"o{number}", draw(dice))


def _share(verdicts: Sequence[Verdict], outcome: str) -> float:
    return sum(verdict.outcome == outcome for verdict in verdicts) / len(verdicts)


def main() -> None:
    """Prints the figures; minutes."""
    cases: dict[str, Callable[[], object]] = {
        "as good as production": partial(rates, normal(0.0)),
        "0.05 better": partial(rates, normal(-0.05)),
        "0.10 better": partial(rates, normal(-0.10)),
        "0.05 worse": partial(rates, normal(0.05)),
        "0.15 worse": partial(rates, normal(0.15)),
        "0.10 better, 20 % lie that it is worse": partial(rates, normal(-0.10), Lies(0.2, 1.0)),
        "0.05 worse, 20 % lie that it is better": partial(rates, normal(0.05), Lies(0.2, -1.0)),
        "0.15 worse, 20 % lie that it is better": partial(rates, normal(0.15), Lies(0.2, -1.0)),
        "20 % of the builds lose 1.0": partial(rates, partly(0.2, 1.0)),
        "40 % of the builds lose 1.0, the others gain 0.05": partial(rates, partly(0.4, 1.0, -0.05)),
        "50 % of the builds lose 1.0, the others gain 0.05": partial(rates, partly(0.5, 1.0, -0.05)),
    }
    for share, damage in ((0.1, 10.0), (0.05, 20.0)):
        cases |= {
            f"{share:.0%} of batches lose {damage:.0f}, the others gain 0.20, {count} in an evaluation": partial(
                rates, of_batches(partly(share, damage, -0.2), count)
            )
            for count in (1, 9)
        }
    for name, figures in cases.items():
        print(f"{name}: {figures()}", flush=True)
    for mean in (0.0, -0.05, 0.15, 0.30, 0.50):
        print(f"100 projects, epsilon 8, worse by {mean:.2f}: {noised_rates(normal(mean))}", flush=True)
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
