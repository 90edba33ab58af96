"""One participant in ten lies: how far does that move the ranking of tests of projects that took no part?"""

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
from sklearn.metrics import roc_auc_score

from fedstep.features.schema import schema
from fedstep.federation.bounds import NOISE as SHARED_NOISE
from fedstep.federation.noise import gaussian
from fedstep.federation.shares import LEVELS, deviation_of
from fedstep.federation.wire import Model, Update, pack_update, unpack_update
from fedstep.model.linear import margin
from fedstep.server.aggregation.fedbuff import (
    AggregationRules,
    Contribution,
    aggregate,
    clip_delta,
    default_rules,
)
from fedstep.server.aggregation.vectors import norm
from fedstep.server.lineage import narrow, wide
from fedstep.server.private_step import next_private
from fedstep.server.records import Current, Version
from fedstep.server.shared_sums import HeadSum, Standing, lifted, next_shared
from fedstep.simulate.attacks.finding import Finding
from fedstep.simulate.attacks.scene import HEAD, Member, Real, Scene, body_of
from fedstep.simulate.attacks.view import BUFFER, NOISE, OFF, RELEASES, SHARES, noise_of, private_moment

__all__ = ["attack_with_lies"]

PASSES = 3  # over all members
LOUD = 100.0  # times an honest delta, where nothing stops it
BOUNDLESS = 1e12  # not infinite: where the lies have won, honest deltas are of length 0
Step = Callable[[Real, Sequence[Real]], Real]


def attack_with_lies(scene: Scene) -> Iterator[Finding]:
    """The AUC of the head with one liar in each fold of ten, beside the same without; there is no gate before it."""
    for name, step in (
        (OFF.name, _unprotected),
        ("default", _plain),
        (SHARES.name, partial(_shared, draw=scene.draw("liar noise"))),
        (NOISE.name, partial(_noised, draw=scene.draw("liar"))),
    ):
        lied, honest = (_ranked(_learned(scene, step, lies), scene.own) for lies in (True, False))
        yield Finding("liar", "held-out AUC", name, lied, honest)


def _learned(scene: Scene, step: Step, lies: bool) -> Real:
    """The head after all folds; in each the first one says the opposite of what its rows said at first, if it lies."""
    head, draw = np.array(schema().heads[HEAD].start(), np.float64), scene.draw("liar folds")
    for _ in range(PASSES):
        members = draw.sample(scene.attacked, len(scene.attacked))
        for start in range(0, len(members), BUFFER):
            fold = [_delta(one, head) for one in members[start : start + BUFFER]]
            if len(fold) >= SHARES.members:
                head = step(head, [-LOUD * members[start].delta(), *fold[1:]] if lies else fold)
    return head


def _delta(member: Member, head: Real) -> Real:
    vector = {HEAD: array("f", head)}
    body = body_of(member.name, member.rows, Model(schema().digest, 0, 0, "", vector, vector))
    return np.array(unpack_update(body).deltas[HEAD], np.float64)


def _unprotected(head: Real, fold: Sequence[Real]) -> Real:
    return _folded(head, fold, AggregationRules(BOUNDLESS, longer=inf))


def _plain(head: Real, fold: Sequence[Real]) -> Real:
    """The liar sends as much as the door lets in; the rules of the fold do the rest."""
    return _folded(head, [clip_delta(one, schema().heads[HEAD].clip) for one in fold], default_rules(schema())[HEAD])


def _folded(head: Real, fold: Sequence[Real], rules: AggregationRules) -> Real:
    parts = [Contribution(str(number), str(number), 0, one.astype(np.float32)) for number, one in enumerate(fold)]
    return np.array(aggregate(head.astype(np.float32), parts, rules), np.float64)


def _shared(head: Real, fold: Sequence[Real], draw: random.Random) -> Real:
    """Nobody sees a length: a liar takes what the sum of all may have, less what the others need of it.

    The others noise what they send.
    """
    clip = schema().heads[HEAD].clip
    room = len(fold) * clip - float(sum(norm(one) for one in fold[1:]))
    deviation, size = deviation_of(SHARED_NOISE, SHARES.members), len(head)
    noise = np.sum([gaussian(deviation, draw.randbytes(32), HEAD, size) for _ in fold[1:]], axis=0)
    steps = np.rint(np.sum([clip_delta(fold[0], room), *fold[1:]], axis=0) * LEVELS / clip + noise).astype(np.int64)
    found = lifted(steps.view(np.uint64), np.zeros(size, np.uint64), len(fold), size, deviation)
    standing = Standing(_current(head), 1, {}, {}, {}, 0.0)
    senders = [("", str(number)) for number in range(len(fold))]
    made = next_shared(standing, {HEAD: HeadSum(found, 1.0 / LEVELS, senders=senders)}, default_rules(schema()), None)
    return np.array(wide(made.version.vectors[HEAD]), np.float64)


def _noised(head: Real, fold: Sequence[Real], draw: random.Random) -> Real:
    bodies = [_body(number, one) for number, one in enumerate(fold)]
    moment = replace(private_moment(bodies), current=_current(head))
    made = next_private(moment, {HEAD: default_rules(schema())[HEAD]}, None, noise_of(RELEASES, draw))
    return np.array(wide(made.version.vectors[HEAD]), np.float64)


def _current(head: Real) -> Current:
    vectors = {HEAD: narrow(head.astype(np.float32))}
    return Current(Version(0, 0, 0.0, vectors, {HEAD: 0}), vectors, {})


def _body(number: int, delta: Real) -> bytes:
    """What the door lets in of it."""
    within = array("f", clip_delta(delta, schema().heads[HEAD].clip))
    return pack_update(Update(schema().digest, 0, f"{number:032x}", f"{number:032x}", {HEAD: 32}, {HEAD: within}))


def _ranked(head: Real, members: Sequence[Member]) -> float:
    """The AUC over the tests of projects that took no part."""
    rows = [ripe for one in members for ripe in (*one.rows, *one.rest)]
    truth, weights = [ripe.label > 0.5 for ripe in rows], head.tolist()
    if len(set(truth)) < 2:
        return 0.5
    return float(roc_auc_score(truth, [margin(weights, ripe.row.indices, ripe.row.values) for ripe in rows]))
