"""Was this build in it? As for a test, by a classifier that has seen shadow updates of other projects.

The attacker knows all of the candidate, what was known before it started, how long it took and how it ended, and
weighs what he sees by how updates of his own projects vary.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from fedstep.federation.messages import NOISE as SHARED_NOISE
from fedstep.federation.secagg.shares import LEVELS
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.step import to_numpy
from fedstep.server.differential_privacy import next_private_version
from fedstep.server.gate import Gate
from tests.studies.attacks.build_scene import HEADS, Builder, BuildScene, Lesson, Steps
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.scene import Real
from tests.studies.attacks.view import FEWEST, RELEASES, noise_of, private_moment, pulled, sums_of

SMALLEST = 1e-9
RIDGE = 0.1  # of the mean variance: a hundred updates do not tell how 110 coordinates go together


class Way(NamedTuple):
    """How many builders are in what is seen, how many builds of the first are, and how it is made."""

    name: str
    members: int
    see: Callable[[Sequence[Builder], random.Random], Steps]
    builds: int = 8


class Usual(NamedTuple):
    """What updates are like where nobody knows whose they are: the mean, and the inverse of the covariance."""

    mean: Real
    precision: Real


def attack_builds(scene: BuildScene) -> Iterator[Finding]:
    """AUC of "in" against "of the same project and days, and not in"; guessing is a half."""
    most = min(len(scene.own), len(scene.attacked))
    for way in WAYS:
        if way.members <= most:
            yield build_finding(way, scene)


def build_finding(way: Way, scene: BuildScene) -> Finding:
    """Trained on the attacker's own builders, tried on the attacked ones; no project is in both."""
    usual = {task: _usual(np.array([one.deltas()[task] for one in scene.own])) for task in HEADS}
    shadows = _candidates(way, scene.own, scene, usual)
    signs, truth = _candidates(way, scene.attacked, scene, usual)
    learner = GradientBoostingClassifier(n_estimators=60, max_depth=3, subsample=0.5, random_state=scene.seed)
    said = learner.fit(*shadows).predict_proba(signs)[:, 1]
    return Finding("build-membership", "AUC", way.name, float(roc_auc_score(truth, said)), 0.5)


def _usual(updates: Real) -> Usual:
    covariance = np.cov(updates.T)
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance) or 1.0
    precision = np.asarray(np.linalg.inv(covariance + ridge * np.eye(len(covariance))), np.float64)
    return Usual(np.asarray(updates.mean(axis=0), np.float64), precision)


def _candidates(
    way: Way, builders: Sequence[Builder], scene: BuildScene, usual: Mapping[str, Usual]
) -> tuple[Real, Real]:
    """The signs of each candidate in so many views, each of another builder in turn, and whether it is in."""
    draw, signs, truth = scene.draw(way.name, builders is scene.own), [], []
    for number in range(scene.views):
        first = builders[number % len(builders)]
        others = draw.sample([one for one in builders if one is not first], way.members - 1)
        seen = way.see((first, *others), draw)
        inside = first.sent[: way.builds]
        signs += [_signs(seen, one, usual, way.members) for one in (*inside, *first.rest)]
        truth += [1.0] * len(inside) + [0.0] * len(first.rest)
    return np.array(signs), np.array(truth)


def _signs(seen: Steps, candidate: Lesson, usual: Mapping[str, Usual], members: int) -> list[float]:
    """What speaks for a build: how the view lies to the step that the build would have taught alone."""
    likely, signs = 0.0, []
    for task, step in candidate.taught.items():
        pull = step @ usual[task].precision
        found, expected = float(pull @ (seen[task] - members * usual[task].mean)), float(pull @ step)
        size = max(expected, SMALLEST)
        signs += [*_compared(seen[task], step), found / size, found / size**0.5, size]
        likely += found
    return [*signs, likely]  # the log-likelihood ratio of both tasks, where updates are Gaussian, up to its constant


def _compared(seen: Real, step: Real) -> tuple[float, ...]:
    """Cosine, the length along the step, what is left without it, and the coordinates of the step that moved so."""
    length, whole = float(np.linalg.norm(step)), float(np.linalg.norm(seen))
    along = float(seen @ step) / max(length * length, SMALLEST)
    left = (float(np.linalg.norm(seen - step)) - whole) / max(length, SMALLEST)
    there = np.abs(step) > SMALLEST
    parts = seen[there] / step[there] if there.any() else np.zeros(1)
    counts = float(np.mean(np.abs(parts) > SMALLEST)), float(np.mean(parts > 0))
    sizes = float(parts.min()), float(np.median(parts)), float(parts.max())
    return (along * length / max(whole, SMALLEST), along, left, *counts, *sizes, length, whole)


def _one_build(members: Sequence[Builder], _: random.Random) -> Steps:
    return members[0].sent[0].taught


def _update(members: Sequence[Builder], _: random.Random) -> Steps:
    return members[0].deltas()


def _sum(members: Sequence[Builder], draw: random.Random, noise: float = SHARED_NOISE) -> Steps:
    bodies = [one.body for one in members]
    return {task: sums_of(bodies, draw, task, noise)[:-1] * (schema().tasks[task].clip / LEVELS) for task in HEADS}


def _noised(members: Sequence[Builder], draw: random.Random, releases: int) -> Steps:
    rules = {task: default_rules(schema())[task] for task in HEADS}
    moment = private_moment([one.body for one in members], names=HEADS)
    after = next_private_version(moment, rules, Gate(), noise_of(releases, draw)).version.vectors
    before = moment.current.candidate.vectors
    return {task: pulled(to_numpy(before[task]), to_numpy(after[task]), rules[task]) for task in HEADS}


WAYS = (
    Way("off", 1, _one_build, builds=1),
    Way("default", 1, _update),
    *(Way(f"shares of {count}", count, _sum) for count in (FEWEST, 10, 20)),
    Way(f"shares of {FEWEST}, no noise", FEWEST, partial(_sum, noise=0.0)),
    Way("epsilon 8", FEWEST, partial(_noised, releases=RELEASES)),
    Way("epsilon 8 in 1 release", FEWEST, partial(_noised, releases=1)),
)
