"""One participant in ten lies: how far does that move the ranking of tests of projects that took no part?"""

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from fedstep.federation.messages import NOISE as SHARED_NOISE
from fedstep.federation.messages import Model, Update, pack_update, unpack_update
from fedstep.federation.secagg.shares import LEVELS, draw_gaussian, noise_deviation
from fedstep.model.linear import margin
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import (
    AggregationRules,
    TaskDelta,
    aggregate,
    default_rules,
)
from fedstep.server.aggregation.inputs import CurrentModels, ModelState, ModelVersion
from fedstep.server.aggregation.step import TaskSum, advance_by_sums, to_float_array, to_numpy
from fedstep.server.aggregation.vectors import norm
from fedstep.server.differential_privacy import next_private_version
from fedstep.server.secagg.rounds import unmask_sum
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.scene import TASK, AttackScene, Member, Real, body_of
from tests.studies.attacks.view import BUFFER, NOISE, OFF, RELEASES, SHARES, noise_of, private_moment

PASSES = 3  # over all members
LOUD = 100.0  # times an honest delta, where nothing stops it
BOUNDLESS = 1e12  # not infinite: where the lies have won, honest deltas are of length 0
Step = Callable[[Real, Sequence[Real]], Real]


def clip_delta(delta: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """Return the delta in double precision, shrunk to an L2 norm of at most `bound`, as an honest client does."""
    length = norm(delta)
    return delta.astype(np.float64) * min(1.0, bound / length if length else 1.0)


def attack_with_lies(scene: AttackScene) -> Iterator[Finding]:
    """The AUC of the task with one liar in each aggregation of ten, and the same without; no gate is before it."""
    for name, step in (
        (OFF.name, _unprotected),
        ("default", _plain),
        (SHARES.name, partial(_shared, draw=scene.draw("liar noise"))),
        (NOISE.name, partial(_noised, draw=scene.draw("liar"))),
    ):
        lied, honest = (_ranked(_learned(scene, step, lies), scene.own) for lies in (True, False))
        yield Finding("liar", "held-out AUC", name, lied, honest)


def _learned(scene: AttackScene, step: Step, lies: bool) -> Real:
    """The task after all aggregations; in each the first one, if it lies, says the opposite of its rows."""
    task, draw = np.array(schema().tasks[TASK].start(), np.float64), scene.draw("liar folds")
    for _ in range(PASSES):
        members = draw.sample(scene.attacked, len(scene.attacked))
        for start in range(0, len(members), BUFFER):
            fold = [_delta(one, task) for one in members[start : start + BUFFER]]
            if len(fold) >= SHARES.members:
                task = step(task, [-LOUD * members[start].delta(), *fold[1:]] if lies else fold)
    return task


def _delta(member: Member, task: Real) -> Real:
    vector = {TASK: array("f", task)}
    body = body_of(member.name, member.rows, Model(schema().digest, 0, 0, "", vector, vector))
    return np.array(unpack_update(body).deltas[TASK], np.float64)


def _unprotected(task: Real, fold: Sequence[Real]) -> Real:
    return _folded(task, fold, AggregationRules(BOUNDLESS, longer=inf))


def _plain(task: Real, fold: Sequence[Real]) -> Real:
    """The liar sends as much as the door lets in; the rules of the aggregation do the rest."""
    return _folded(task, [clip_delta(one, schema().tasks[TASK].clip) for one in fold], default_rules(schema())[TASK])


def _folded(task: Real, fold: Sequence[Real], rules: AggregationRules) -> Real:
    parts = [TaskDelta(str(number), str(number), 0, one.astype(np.float32)) for number, one in enumerate(fold)]
    return np.array(aggregate(task.astype(np.float32), parts, rules), np.float64)


def _shared(task: Real, fold: Sequence[Real], draw: random.Random) -> Real:
    """Nobody sees a length: a liar takes what the sum of all may have, less what the others need of it.

    The others noise what they send.
    """
    clip = schema().tasks[TASK].clip
    room = len(fold) * clip - float(sum(norm(one) for one in fold[1:]))
    deviation, size = noise_deviation(SHARED_NOISE, SHARES.members), len(task)
    noise = np.sum([draw_gaussian(deviation, draw.randbytes(32), TASK, size) for _ in fold[1:]], axis=0)
    steps = np.rint(np.sum([clip_delta(fold[0], room), *fold[1:]], axis=0) * LEVELS / clip + noise).astype(np.int64)
    found = unmask_sum(steps.view(np.uint64), np.zeros(size, np.uint64), len(fold), size, deviation)
    standing = ModelState(_current(task), 1, {}, {}, 0.0)
    senders = [("", str(number)) for number in range(len(fold))]
    made = advance_by_sums(standing, {TASK: TaskSum(found, 1.0 / LEVELS, senders)}, {}, default_rules(schema()), None)
    return np.array(to_numpy(made.version.vectors[TASK]), np.float64)


def _noised(task: Real, fold: Sequence[Real], draw: random.Random) -> Real:
    bodies = [_body(number, one) for number, one in enumerate(fold)]
    moment = replace(private_moment(bodies), current=_current(task))
    made = next_private_version(moment, {TASK: default_rules(schema())[TASK]}, None, noise_of(RELEASES, draw))
    return np.array(to_numpy(made.version.vectors[TASK]), np.float64)


def _current(task: Real) -> CurrentModels:
    vectors = {TASK: to_float_array(task.astype(np.float32))}
    return CurrentModels(ModelVersion(0, 0, 0.0, vectors, {TASK: 0}), vectors, {})


def _body(number: int, delta: Real) -> bytes:
    """What the door lets in of it."""
    within = array("f", clip_delta(delta, schema().tasks[TASK].clip))
    return pack_update(Update(schema().digest, 0, f"{number:032x}", f"{number:032x}", {TASK: 32}, {TASK: within}))


def _ranked(task: Real, members: Sequence[Member]) -> float:
    """The AUC over the tests of projects that took no part."""
    rows = [ripe for one in members for ripe in (*one.rows, *one.rest)]
    truth, weights = [ripe.label > 0.5 for ripe in rows], task.tolist()
    if len(set(truth)) < 2:
        return 0.5
    return float(roc_auc_score(truth, [margin(weights, ripe.example.indices, ripe.example.values) for ripe in rows]))
