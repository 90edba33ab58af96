"""Whose update is it? One whose project is known is compared with another that has no name on it."""

from collections.abc import Iterator, Sequence

import numpy as np

from tests.studies.attacks.finding import Finding
from tests.studies.attacks.scene import AttackScene, Member, Real, word_columns
from tests.studies.attacks.view import PROTECTIONS, Protection
from tests.studies.attacks.words import SMALLEST, SPARSE, usual_words

MOST_CANDIDATES = 7


def attack_identity(scene: AttackScene) -> Iterator[Finding]:
    """Rank-1 accuracy among projects of which one is in the view; guessing is one in as many."""
    for protection in PROTECTIONS:
        yield identity_finding("identify", protection, scene)


def identity_finding(attack: str, protection: Protection, scene: AttackScene) -> Finding:
    """The attacker has an earlier update of each candidate; in the view is a later one of exactly one of them."""
    draw = scene.draw(attack, protection.name)
    rarity = -np.log(np.maximum(usual_words(scene.own), 0.01))
    by_project: dict[str, list[Member]] = {}
    for one in (*scene.own, *scene.attacked):
        by_project.setdefault(one.project, []).append(one)
    named = sorted(name for name, members in by_project.items() if len(members) > 1)
    hits, chances = [], []
    for number in range(scene.views):
        target = named[number % len(named)]
        others = draw.sample(sorted(by_project.keys() - {target}), len(by_project) - 1)
        fill, rivals = others[: protection.members - 1], others[protection.members - 1 :][: MOST_CANDIDATES - 1]
        known, sent = draw.sample(by_project[target], 2)
        seen = protection.see((sent, *(draw.choice(by_project[name]) for name in fill)), draw)
        candidates = [known, *(draw.choice(by_project[name]) for name in rivals)]
        hits.append(_is_nearest(seen, candidates, rarity))
        chances.append(1.0 / len(candidates))
    return Finding(attack, "rank-1 accuracy", protection.name, float(np.mean(hits)), float(np.mean(chances)))


def _is_nearest(seen: Real, candidates: Sequence[Member], rarity: Real) -> bool:
    """Whether the first candidate's earlier update is the nearest to what is seen."""
    ours = _print(seen, rarity)
    near = [float(ours @ _print(one.delta(), rarity)) for one in candidates]
    return int(np.argmax(near)) == 0


def _print(vector: Real, rarity: Real) -> Real:
    """The words that moved, rare ones first, as a vector of length 1; in noise, how far they moved."""
    moved = vector[word_columns()]
    sparse = np.mean(np.abs(moved) > SMALLEST) < SPARSE
    weighed: Real = rarity * ((np.abs(moved) > SMALLEST) if sparse else moved)
    return weighed / (float(np.linalg.norm(weighed)) or 1.0)
