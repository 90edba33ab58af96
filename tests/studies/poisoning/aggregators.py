"""Compare rules of robust aggregation: what each makes of the candidate under every attack, without a gate.

python -m tests.studies.poisoning.aggregators
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

import numpy as np

from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import AggregationRules, TaskDelta, aggregate, default_rules
from tests.studies.poisoning.attacks import ATTACKS, FOLD, POPULATION
from tests.studies.poisoning.federation import Turn
from tests.studies.poisoning.world import Array, draw_world

Rule = Callable[[Array, Sequence[Array], AggregationRules], Array]  # the next vector of a task, from its deltas


def present(task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
    """Return what the aggregator does."""
    parts = [TaskDelta(str(n), str(n), 0, delta.astype(np.float32)) for n, delta in enumerate(deltas)]
    return np.array(aggregate(task.astype(np.float32), parts, rules), np.float64)


def at_the_median(task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
    """Return what the aggregator would do with deltas clipped to the median of their lengths."""
    return present(task, deltas, replace(rules, longer=1.0))


def _moved(task: Array, mean_delta: Array, count: int, rules: AggregationRules) -> Array:
    rate = min(rules.rate, rules.together / count)
    return task * (1 - rules.decay) + rules.decay * np.array(rules.start) + rate * count * mean_delta


def plain_mean(task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
    """Return the vector moved by the plain sum."""
    return _moved(task, np.mean(deltas, axis=0), len(deltas), rules)


def trimmed_mean(task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
    """Return the vector moved by the coordinate-wise mean without a fifth on either side: Yin et al., ICML 2018."""
    ordered, cut = np.sort(np.array(deltas), axis=0), max(1, len(deltas) // 5)
    return _moved(task, ordered[cut:-cut].mean(axis=0), len(deltas), rules)


def geometric_median(points: Array, steps: int = 30) -> Array:
    """Return the smoothed geometric median by Weiszfeld's steps: Pillutla et al., IEEE TSP 2022."""
    centre: Array = points.mean(axis=0)
    for _ in range(steps):
        weights = 1.0 / np.maximum(1e-6, np.linalg.norm(points - centre, axis=1))
        centre = weights @ points / weights.sum()
    return centre


def rfa(task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
    """Return the vector moved by the geometric median."""
    return _moved(task, geometric_median(np.array(deltas)), len(deltas), rules)


class CenteredClipping:
    """Clip around the last step: Karimireddy et al., ICML 2021."""

    def __init__(self, bucket: int = 1) -> None:
        self._last: Array | None = None
        self._bucket, self._random = bucket, np.random.default_rng(0)

    def __call__(self, task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
        points = np.array(deltas)[self._random.permutation(len(deltas))]
        points = np.array([group.mean(axis=0) for group in np.array_split(points, len(points) // self._bucket)])
        centre = np.zeros(points.shape[1]) if self._last is None else self._last
        radius = float(np.median(np.linalg.norm(points - centre, axis=1)))
        for _ in range(3):
            away = points - centre
            lengths = np.linalg.norm(away, axis=1, keepdims=True)
            centre = centre + (away * np.minimum(1.0, radius / np.maximum(lengths, 1e-9))).mean(axis=0)
        self._last = centre
        return _moved(task, centre, len(deltas), rules)


class Agreement:
    """Weigh each delta by its agreement with a direction that is known, as FLTrust: Cao et al., NDSS 2021.

    There is no trusted data: the direction is the average of the earlier steps, at first the geometric median.
    """

    def __init__(self, memory: float = 0.9, floor: float = 0.0) -> None:
        self._direction: Array | None = None
        self._memory, self._floor = memory, floor

    def __call__(self, task: Array, deltas: Sequence[Array], rules: AggregationRules) -> Array:
        points = np.array(deltas)
        lengths = np.maximum(np.linalg.norm(points, axis=1), 1e-9)
        middle = float(np.median(lengths))
        points = points * np.minimum(1.0, 2 * middle / lengths)[:, None]
        centre = geometric_median(points)
        direction = centre if self._direction is None else self._direction + centre
        cosine = points @ direction / np.maximum(np.linalg.norm(points, axis=1) * np.linalg.norm(direction), 1e-12)
        weights = (cosine > self._floor).astype(float)
        self._direction = self._memory * direction
        if not weights.sum():
            return task
        return _moved(task, weights @ points / weights.sum(), len(deltas), rules)


RULES: Mapping[str, Callable[[], Rule]] = {
    "mean": lambda: plain_mean,
    "present": lambda: present,
    "clipped at the median": lambda: at_the_median,
    "trimmed mean": lambda: trimmed_mean,
    "geometric median": lambda: rfa,
    "centered clipping": CenteredClipping,
    "bucketing and centered clipping": partial(CenteredClipping, 2),
    "agreement": Agreement,
}


def final_scores(rule: Callable[[], Rule], attack: str, share: float, seed: int, folds: int = 100) -> dict[str, float]:
    """Return the score of each task's candidate after the aggregations."""
    world = draw_world(seed, POPULATION)
    known, found = default_rules(schema()), {}
    honest_count = POPULATION - round(share * POPULATION)
    for name, task in world.tasks.items():
        random, make = np.random.default_rng([seed, 1]), rule()
        start = world.start()[name]
        rules = AggregationRules(known[name].clip, known[name].rate, together=known[name].together, start=tuple(start))
        weights = start
        for _ in range(folds):
            projects = random.choice(POPULATION, FOLD, replace=False)
            drawn = [task.draw(random, project, task.batch) for project in projects]
            deltas = [task.learn(weights, rows, labels) for rows, labels in drawn]
            others = [delta for delta, project in zip(deltas, projects, strict=True) if project < honest_count]
            for index, (project, (rows, labels)) in enumerate(zip(projects, drawn, strict=True)):
                if project >= honest_count:
                    turn = Turn(task, weights, start, deltas[index], others or deltas, rows, labels, random)
                    deltas[index] = task.clipped(ATTACKS[attack](turn))
            weights = make(weights, deltas, rules)
        found[name] = task.score(weights, *world.held_out[name])
    return found


def main(seeds: int = 3) -> None:
    """Print, by rule and attack, the mean difference from the plain mean without an attack, for each task."""
    clean = [final_scores(RULES["mean"], "sign flip", 0.0, seed) for seed in range(seeds)]
    print("mean, no attack", {name: round(mean(one[name] for one in clean), 3) for name in clean[0]}, flush=True)
    for share in (0.0, 0.2):
        for attack in ATTACKS if share else ("sign flip",):
            for label, rule in RULES.items():
                made = [final_scores(rule, attack, share, seed) for seed in range(seeds)]
                gaps = {name: mean(a[name] - b[name] for a, b in zip(made, clean, strict=True)) for name in made[0]}
                print(
                    f"{share:.0%} {attack:20} {label:32}", " ".join(f"{gap:+.3f}" for gap in gaps.values()), flush=True
                )


if __name__ == "__main__":
    main()
