"""The attacks: what a malicious project sends instead of what it learned, and how attackers are spread."""

from collections.abc import Mapping, Sequence

import numpy as np

from tests.studies.poisoning.federation import DAY, EPOCH, FOLD_SECONDS, Attack, Plan, Turn
from tests.studies.poisoning.world import FACTS, Array

FOLD = 10  # updates
POPULATION = 50  # projects
TARGET = FACTS + 1  # the first word, or the last fact where a task has no words


def _alie(turn: Turn) -> Array:
    """A little is enough: Baruch et al., NeurIPS 2019, with the shift that 10 of 50 attackers may choose unnoticed."""
    others = np.array(turn.others)
    shifted: Array = others.mean(axis=0) - 0.25 * others.std(axis=0)
    return shifted


def _ipm(turn: Turn) -> Array:
    """Inner-product manipulation: Xie et al., UAI 2020."""
    mean: Array = np.mean(turn.others, axis=0)
    return -1.5 * mean


def _labels(turn: Turn) -> Array:
    flipped = -turn.labels if turn.task.is_regression else 1.0 - turn.labels
    return turn.task.learn(turn.candidate, turn.rows, flipped)


def _gauss(turn: Turn) -> Array:
    noise = turn.random.normal(size=turn.honest.shape)
    return noise * turn.task.clip / np.linalg.norm(noise)


def _word(turn: Turn) -> Array:
    delta = np.zeros_like(turn.honest)
    target = min(TARGET, turn.task.size - 1)
    delta[target] = -turn.task.clip * np.sign(turn.task.weights[target])
    return delta


def _drift(turn: Turn) -> Array:
    push: Array = -turn.task.weights * np.linalg.norm(turn.honest) / np.linalg.norm(turn.task.weights)
    return turn.honest + 0.5 * push


ATTACKS: Mapping[str, Attack] = {
    "sign flip": lambda turn: -turn.honest,
    "scaled": lambda turn: -100.0 * turn.honest,
    "label flip": _labels,
    "Gaussian": _gauss,
    "a little is enough": _alie,
    "inner product": _ipm,
    "one word": _word,
    "slow drift": _drift,
}


def spread(share: float, attack: str, vote: float | None = -1.0, from_starter: bool = False, folds: int = 60) -> Plan:
    """Return the plan of a federation of `POPULATION` projects, a share of which attacks; ten send each time."""
    hostile = round(share * POPULATION)
    return Plan(
        lambda random, _: list(map(int, random.choice(POPULATION, FOLD, replace=False))),
        POPULATION - hostile,
        POPULATION,
        ATTACKS[attack] if hostile else None,
        vote,
        folds,
        from_starter,
    )


def one_owner(from_starter: bool) -> Plan:
    """Return the plan of an owner of 200 projects, half of what is sent, beside 40 honest ones."""

    def senders(random: np.random.Generator, _: int) -> Sequence[int]:
        return [*map(int, random.choice(40, FOLD, replace=False)), *map(int, random.choice(range(40, 240), FOLD))]

    return Plan(
        senders,
        40,
        240,
        ATTACKS["sign flip"],
        from_starter=from_starter,
        owner=lambda project: f"owner-{min(project, 40)}",
    )


def frequent(honest: int, from_starter: bool, each: int = FOLD) -> Plan:
    """Return the plan of a project that sends ten updates an aggregation beside `honest` others."""

    def senders(random: np.random.Generator, _: int) -> Sequence[int]:
        count = min(each, honest)
        return [*map(int, random.choice(honest, count, replace=False)), *[honest] * FOLD]

    return Plan(senders, honest, honest + 1, ATTACKS["sign flip"], from_starter=from_starter)


def four(from_starter: bool) -> Plan:
    """Return the plan of three honest projects and an attacker, each as busy as the others."""
    return Plan(
        lambda _random, _fold: [project for project in range(4) for _ in range(2)],
        3,
        4,
        ATTACKS["sign flip"],
        from_starter=from_starter,
    )


def quiet(from_starter: bool, before: int = 60, after: int = 40) -> Plan:
    """Return the plan of 40 honest projects that fall silent, and after eight days one attacker that sends alone."""

    def senders(random: np.random.Generator, fold: int) -> Sequence[int]:
        return list(map(int, random.choice(40, FOLD, replace=False))) if fold < before else [40] * FOLD

    return Plan(
        senders,
        40,
        41,
        ATTACKS["sign flip"],
        folds=before + after,
        from_starter=from_starter,
        at=lambda fold: EPOCH + fold * FOLD_SECONDS + (8 * DAY if fold >= before else 0.0),
    )
