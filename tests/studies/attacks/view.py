"""What an attacker gets to see of the attacked, protection by protection, made by the code of production."""

import random
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from fedstep.federation.messages import NOISE as SHARED_NOISE
from fedstep.federation.messages import PrivacyGuarantee, unpack_update
from fedstep.federation.secagg.shares import (
    LEVELS,
    derive_pad,
    derive_task_seeds,
    noise_deviation,
    scale_deviations,
    split_update,
)
from fedstep.federation.secagg.shares import ShareNoise as Drawn
from fedstep.model.labels import LabelledExample
from fedstep.model.training import learn_shared
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import (
    AggregationRules,
    TaskDelta,
    aggregate,
    apply_step,
    default_rules,
)
from fedstep.server.aggregation.inputs import AggregationInput, CurrentModels, ModelVersion, StoredUpdate, Trial
from fedstep.server.aggregation.step import iter_task_deltas, to_numpy
from fedstep.server.aggregation.vectors import FloatArray
from fedstep.server.differential_privacy import LIFE, GaussianNoise, calibrate_budget, next_private_version
from fedstep.server.gate import Gate
from fedstep.server.secagg.rounds import sum_masks, sum_vectors, unmask_sum
from tests.studies.attacks.scene import TASK, AttackScene, Member, Real

BUFFER, FEWEST = 10, 5  # updates of a plain aggregation; projects of a sum of shares
EPSILON, DELTA, RELEASES = 8.0, 1e-6, 52


class View(NamedTuple):
    """A change of the task's coefficients as the attacker sees it, and what he wants to know: the rows of one member.

    `members` are all whose rows are in it, the attacked first; `rows` of the attacked are in it, and no others of it.
    """

    vector: Real
    members: tuple[Member, ...]
    rows: tuple[LabelledExample, ...]


class Protection(NamedTuple):
    """How many members are in what is seen, and how it is made of them."""

    name: str
    members: int
    see: Callable[[Sequence[Member], random.Random], Real]
    one_row: bool = False


def fitting(protections: Sequence[Protection], scene: AttackScene) -> Sequence[Protection]:
    """Those that the scene has members enough for: a sum of fewer would bear a wrong name."""
    most = min(len(scene.own), len(scene.attacked))
    return [one for one in protections if one.members <= most]


def views(protection: Protection, members: Sequence[Member], scene: AttackScene, purpose: str) -> list[View]:
    """The views of the scene, of members drawn from these, each attacked in its turn."""
    draw = scene.draw(protection.name, purpose)
    found = []
    for number in range(scene.views):
        first = members[number % len(members)]
        others = draw.sample([one for one in members if one is not first], k=_others(protection, members))
        chosen = (first, *others)
        rows = first.rows[:1] if protection.one_row else first.rows
        found.append(View(protection.see(chosen, draw), chosen, rows))
    return found


def _others(protection: Protection, members: Sequence[Member]) -> int:
    return min(protection.members, len(members)) - 1


def _one_row(members: Sequence[Member], _: random.Random) -> Real:
    """Learned from a single row and not clipped: no protection at all."""
    start = schema().tasks[TASK].start()
    return np.array(learn_shared(TASK, start, members[0].rows[:1]), np.float64) - np.array(start, np.float64)


def _update(members: Sequence[Member], _: random.Random) -> Real:
    return members[0].delta()


def shares_of(count: int, noise: float = SHARED_NOISE, note: str = "") -> Protection:
    """The sum that leader and helper put together of the shares of so many."""

    def see(members: Sequence[Member], draw: random.Random) -> Real:
        return sums_of([one.body for one in members], draw, noise=noise)[:-1] * (schema().tasks[TASK].clip / LEVELS)

    return Protection(f"shares of {count}{note}", count, see)


def sums_of(bodies: Sequence[bytes], draw: random.Random, task: str = TASK, noise: float = SHARED_NOISE) -> Real:
    """The sum of shares of these updates, in steps of the grid; the last number is that of the scores.

    Each is noised so that a sum of so many has this noise, in units of the task's bound.
    """
    size, bounds = schema().tasks[task].size(), {name: one.clip for name, one in schema().tasks.items()}
    drawn = Drawn(scale_deviations(noise_deviation(noise, len(bodies)), schema()), b"")
    halves = [
        split_update(unpack_update(body), bounds, draw.randbytes(32), drawn._replace(secret=draw.randbytes(32)))
        for body in bodies
    ]
    masked = sum_vectors((half.vectors[task].tobytes() for half, _ in halves), size + 1)
    pads = sum_masks((derive_task_seeds(half)[task] for _, half in halves), size + 1)
    return unmask_sum(masked, pads, len(bodies), size, drawn.deviations[task]).astype(np.float64)


def _fold(members: Sequence[Member], _: random.Random) -> Real:
    """The difference of two versions, the second of which is the first after an aggregation of plain updates."""
    start, rules = to_numpy(schema().tasks[TASK].start()), default_rules(schema())[TASK]
    folded = [part for one in members for _, part in iter_task_deltas(StoredUpdate(one.body), 0)]
    return pulled(start, aggregate(start, folded, rules), rules)


def _fold_of_one_row(members: Sequence[Member], draw: random.Random) -> Real:
    start, free = to_numpy(schema().tasks[TASK].start()), AggregationRules(inf, longer=inf)
    delta = _one_row(members, draw).astype(np.float32)
    return pulled(start, aggregate(start, [TaskDelta("", "", 0, delta)], free), free)


def pulled(before: FloatArray, after: FloatArray, rules: AggregationRules) -> Real:
    """The step between two versions, without what the rules, which everybody knows, have forgotten."""
    kept = apply_step(before, np.zeros(len(before)), rules)
    step: Real = (after.astype(np.float64) - kept) / rules.rate
    step[np.abs(step) < 1e-6] = 0.0  # what rounding to C floats leaves
    return step


def noise_of(releases: int, draw: random.Random) -> GaussianNoise:
    """The noise of epsilon 8, spent in so many releases."""
    multiplier = calibrate_budget(PrivacyGuarantee(EPSILON, DELTA, releases, 7.0)).multiplier
    return GaussianNoise(multiplier, draw.randrange, LIFE / releases)


def private_moment(
    bodies: Sequence[bytes], trial: Trial | None = None, names: Sequence[str] = (TASK,)
) -> AggregationInput:
    """The updates of as many projects, about to be aggregated into the first version of the tasks with these names."""
    tasks = {name: schema().tasks[name].start() for name in names}
    task = ModelVersion(0, 0, 0.0, tasks, dict.fromkeys(names, 0))
    stored = tuple(StoredUpdate(body, project=str(number)) for number, body in enumerate(bodies))
    trials: Mapping[str, Trial] = {TASK: trial} if trial else {}
    return AggregationInput(CurrentModels(task, tasks, trials), 1, {}, {}, 0.0, stored, {})


def _noised(releases: int) -> Callable[[Sequence[Member], random.Random], Real]:
    def see(members: Sequence[Member], draw: random.Random) -> Real:
        rules = {TASK: default_rules(schema())[TASK]}
        moment = private_moment([one.body for one in members])
        made = next_private_version(moment, rules, Gate(), noise_of(releases, draw))
        return pulled(
            to_numpy(moment.current.candidate.vectors[TASK]), to_numpy(made.version.vectors[TASK]), rules[TASK]
        )

    return see


def _masked(members: Sequence[Member], draw: random.Random) -> Real:
    """All that a leader has of one update: numbers modulo 2^64."""
    half, _ = split_update(unpack_update(members[0].body), {TASK: schema().tasks[TASK].clip}, draw.randbytes(32))
    return _signed(half.vectors[TASK].tobytes())


def _seeded(members: Sequence[Member], draw: random.Random) -> Real:
    """All that a helper has of one update: the pad that its seed gives."""
    _, half = split_update(unpack_update(members[0].body), {TASK: schema().tasks[TASK].clip}, draw.randbytes(32))
    return _signed(derive_pad(derive_task_seeds(half)[TASK], schema().tasks[TASK].size() + 1))


def _signed(residues: bytes) -> Real:
    """Numbers modulo 2^64 as ones around zero, without that of the score."""
    return np.frombuffer(residues, "<i8")[:-1].astype(np.float64) / 2.0**63


OFF = Protection("off", 1, _one_row, one_row=True)
SHARES = shares_of(FEWEST)
NOISE = Protection(f"epsilon {EPSILON:g}", FEWEST, _noised(RELEASES))
PROTECTIONS = (OFF, Protection("default", 1, _update), SHARES, NOISE)
PULLED = (
    Protection("off", 1, _fold_of_one_row, one_row=True),
    Protection("default", BUFFER, _fold),
    SHARES,
    NOISE,
)
LEADER = Protection("leader's half", 1, _masked)
HELPER = Protection("helper's half", 1, _seeded)
CURVE = (
    shares_of(FEWEST, 0.0, ", no noise"),
    shares_of(10),
    shares_of(20),
    Protection(f"epsilon {EPSILON:g} in 1 release", FEWEST, _noised(1)),
)
