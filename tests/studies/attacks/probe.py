"""A curious aggregator puts a version on trial that differs in one word: the evaluations tell who uses the word.

With "earlier batches" an evaluation is made on those, too, as in a project that has sent before; the question is then
whether any of them has the word. They are other members of the same recorded project.
"""

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
from sklearn.metrics import roc_auc_score

from fedstep.evaluation.simulated_federation import key_by
from fedstep.federation.messages import Update, Vector, unpack_update
from fedstep.federation.secagg.shares import LEVELS, SCORE_LIMIT
from fedstep.federation.update_builder import KEPT, make_update, score_trial
from fedstep.model.state import ExampleQueue
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.inputs import Trial
from fedstep.server.differential_privacy import next_private_version
from fedstep.server.gate import Gate
from tests.helpers.narrow import expect
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.scene import TASK, AttackScene, Member, Real, body_of, head_model, word_columns, words_of
from tests.studies.attacks.view import NOISE, OFF, RELEASES, SHARES, noise_of, private_moment, sums_of
from tests.studies.attacks.words import usual_words

WORDS = 12
EARLIER = "default, earlier batches"
SHIFT = 2.0  # of the word's coefficient
Vote = Callable[[Sequence[Member], Vector, random.Random], float]


def attack_by_probes(scene: AttackScene) -> Iterator[Finding]:
    """AUC of the evaluation's size for "the project's batch has the word"; guessing goes by how usual the word is."""
    usual = usual_words(scene.own)
    probes = _probes(usual)
    attacked = scene.draw("probe").sample(scene.attacked, min(len(scene.attacked), max(4, scene.views // 5)))
    ways: tuple[tuple[str, int, Vote], ...] = (
        (OFF.name, 1, _of_one_row),
        ("default", 1, _of_a_batch),
        (SHARES.name, SHARES.members, _of_a_sum),
        (NOISE.name, NOISE.members, _of_noise),
        (EARLIER, 1, _of_batches),
    )
    for name, members, vote in ways:
        draw, found = scene.draw("probe", name), []
        for first in attacked:
            rows = first.rows[:1] if name == OFF.name else first.rows
            others = [one for one in scene.attacked if one is not first]
            earlier = [one for one in others if one.project == first.project][:KEPT] if name == EARLIER else []
            has = words_of([*rows, *chain.from_iterable(one.rows for one in earlier)])
            for place in probes:
                asked = (first, *(earlier or draw.sample(others, min(members - 1, len(others)))))
                found.append((has[place], abs(vote(asked, _shifted(place), draw)), usual[place]))
        truth, votes, rates = zip(*found, strict=True)
        if len(set(truth)) > 1:
            aucs = (float(roc_auc_score(truth, said)) for said in (votes, rates))
            yield Finding("probe", "AUC of words", name, *aucs)


def _probes(usual: Real) -> Sequence[int]:
    """The words that are the most like a coin: of others one knows beforehand what projects do."""
    return [int(place) for place in np.argsort(np.abs(usual - 0.5), kind="stable")[:WORDS]]


def _shifted(place: int) -> Vector:
    trial = array("f", schema().tasks[TASK].start())
    trial[int(word_columns()[place])] += SHIFT
    return trial


def _of_one_row(members: Sequence[Member], trial: Vector, _: random.Random) -> float:
    return score_trial(TASK, head_model(trial), members[0].rows[:1]).difference


def _of_a_batch(members: Sequence[Member], trial: Vector, _: random.Random) -> float:
    return unpack_update(_bodies(members[:1], trial)[0]).scores[TASK].difference


def _of_batches(members: Sequence[Member], trial: Vector, _: random.Random) -> float:
    """The evaluation of the first, which has sent the batches of the others before production was made."""
    first, *earlier = members
    queue, then = ExampleQueue(), head_model()
    then = then._replace(production={TASK: _shifted(0)})
    for one in earlier:
        queue = make_update(queue._replace(waiting={TASK: one.rows}), then, key_by(first.name))[1]
    made = make_update(queue._replace(waiting={TASK: first.rows}), head_model(trial), key_by(first.name))
    return expect(Update, made[0]).scores[TASK].difference


def _of_a_sum(members: Sequence[Member], trial: Vector, draw: random.Random) -> float:
    return float(sums_of(_bodies(members, trial), draw)[-1]) / LEVELS * SCORE_LIMIT


def _of_noise(members: Sequence[Member], trial: Vector, draw: random.Random) -> float:
    moment = private_moment(_bodies(members, trial), Trial(TASK, 1, 0, 0.0, trial))
    made = next_private_version(moment, {TASK: default_rules(schema())[TASK]}, Gate(), noise_of(RELEASES, draw))
    return made.releases[TASK].total


def _bodies(members: Sequence[Member], trial: Vector) -> list[bytes]:
    return [body_of(one.name, one.rows, head_model(trial)) for one in members]
