"""What differential privacy costs: the shared head for flaky tests, learned with noise and without by as many projects.

The projects are drawn from recorded ones: each has some classes of one of them, and what the model is scored on is
held out whole. Mechanism, fold, updates and learning are those of production; the first model is empty.
"""

import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from math import isfinite
from pathlib import Path

from fedstep.build.record import Absent
from fedstep.errors import InputError
from fedstep.features.flaky import group_of
from fedstep.features.schema import schema
from fedstep.federation.batch import make_update
from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Model, Promise, pack_update
from fedstep.model.labels import Ripe
from fedstep.model.state import Backlog
from fedstep.server.accounting import budget_of
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.buffer import Folding
from fedstep.server.gate import Active
from fedstep.server.private_step import LIFE, Noise, next_private
from fedstep.server.records import Current, Made, Moment, Stored, Version
from fedstep.server.trial import next_version
from fedstep.simulate.corpus import find_projects
from fedstep.simulate.extract import Extracted, extract
from fedstep.simulate.global_only import lessons, predicted
from fedstep.simulate.scores import scoring_of
from fedstep.simulate.shared import keyed_by
from fedstep.simulate.tally import Tally

__all__ = ["PrivatePlan", "PrivateStudy", "run_private"]

HEAD = "flaky"
TESTS = 100  # of a project, and so the rows that it contributes in a period, each time all of them
MOST_ROWS = 3000  # of a recorded project: a larger one gives no more projects than this
TURNS = 4  # groups of recorded projects that are held out in turn
WHISPER = 1e-7  # noise of less than a step of the grid
WEEK = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class PrivatePlan:
    """What to study. With `epsilon` 0 the aggregation is plain; infinite, it has the bounds and no noise."""

    epsilon: float
    participants: int = 100
    releases: int = 5
    delta: float = 1e-6
    seed: int = 1


@dataclass(frozen=True, slots=True)
class PrivateStudy:
    """The mean AUC over the recorded projects held out, that of each, and the noise in units of a project's bound."""

    plan: PrivatePlan
    auc: float
    projects: Mapping[str, float]
    noise: float


def run_private(places: Sequence[Path], plans: Iterable[PrivatePlan]) -> Iterator[PrivateStudy]:
    """Learn as each plan says with each group of recorded projects held out, and score it. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="fedstep-private-") as folder:
        recorded = [
            extract(project, HEAD, None, Path(folder) / f"{number}.jsonl")
            for number, project in enumerate(find_projects(places, ("tests",)))
        ]
        rows = {one.project: lessons(one) for one in recorded}
        for plan in plans:
            yield _study(recorded, rows, plan)


def _study(recorded: Sequence[Extracted], rows: Mapping[str, Sequence[Ripe]], plan: PrivatePlan) -> PrivateStudy:
    noise = _noise(plan)
    turns = (_turn(recorded, rows, turn, plan, noise) for turn in range(min(TURNS, len(recorded))))
    tallies = dict(chain.from_iterable(turns))
    scores = scoring_of(HEAD, True).projects(tallies)
    aucs = {name: found["auc"] for name, found in scores.items() if "auc" in found}
    if not aucs:
        raise InputError("no project could be ranked", "One needs three flaky tests, and another one to learn from")
    return PrivateStudy(plan, sum(aucs.values()) / len(aucs), aucs, noise.multiplier if noise else 0.0)


def _noise(plan: PrivatePlan) -> Noise | None:
    if not plan.epsilon:
        return None
    promise = Promise(plan.epsilon, plan.delta, plan.releases, 7.0)
    multiplier = budget_of(promise).multiplier if isfinite(plan.epsilon) else WHISPER
    # not `secrets`: a study has to come out the same again, and hides nobody
    below = random.Random(f"{plan.seed} noise").randrange
    return Noise(multiplier, below, LIFE / plan.releases)


def _turn(
    recorded: Sequence[Extracted], rows: Mapping[str, Sequence[Ripe]], turn: int, plan: PrivatePlan, noise: Noise | None
) -> Iterator[tuple[str, Tally]]:
    """The predictions for every fourth project, by what the others have taught."""
    draw = random.Random(f"{plan.seed} {turn}")
    held_out = recorded[turn::TURNS]
    others = {one.project: rows[one.project] for one in recorded if one not in held_out}
    projects = _drawn(others, plan.participants, draw)
    weights = _learned(projects, plan.releases, noise, draw) if projects else schema().heads[HEAD].start()
    for one in held_out:
        tally = Tally()
        for prediction in predicted(HEAD, one, list(weights)):
            tally.add(prediction)
        yield one.project, tally


def _drawn(recorded: Mapping[str, Sequence[Ripe]], count: int, draw: random.Random) -> Sequence[Sequence[Ripe]]:
    """So many projects, more of a larger one: whole classes of it, none again before all were drawn."""
    pools: dict[str, list[Sequence[Ripe]]] = {name: [] for name, rows in recorded.items() if rows}
    names = sorted(pools)
    chosen = draw.choices(names, [min(MOST_ROWS, len(recorded[name])) for name in names], k=count) if names else ()
    return [_one(recorded[name], pools[name], draw) for name in chosen]


def _one(rows: Sequence[Ripe], pool: list[Sequence[Ripe]], draw: random.Random) -> Sequence[Ripe]:
    found: list[Ripe] = []
    while len(found) < min(TESTS, len(rows)):
        if not pool:
            pool += _shuffled(_classes(rows), draw)
        found += pool.pop()
    return found[:TESTS]


def _classes(rows: Sequence[Ripe]) -> list[Sequence[Ripe]]:
    classes: dict[str, list[Ripe]] = {}
    for ripe in rows:
        classes.setdefault(group_of(ripe.row.subject), []).append(ripe)
    return [classes[name] for name in sorted(classes)]


def _learned(projects: Sequence[Sequence[Ripe]], releases: int, noise: Noise | None, draw: random.Random) -> Vector:
    """The head after so many periods, in each of which every project contributes all its rows."""
    rules = {HEAD: default_rules(schema())[HEAD]}
    step = partial(next_private, noise=noise) if noise else next_version
    head = Version(0, 0, 0.0, {HEAD: schema().heads[HEAD].start()}, {HEAD: 0})
    several = len(projects) if noise else Folding().updates  # a period is one fold only where there is noise
    for period, first in product(range(releases), range(0, len(projects), several)):
        updates = tuple(_updates(projects[first : first + several], first, head, draw))
        moment = Moment(Current(head, head.vectors, {}), updates, {}, Active(0, 0), {}, {}, lambda _: (), period * WEEK)
        made: Made = step(moment, rules=rules, gate=None)
        head = made.version
    return head.vectors[HEAD]


def _updates(projects: Sequence[Sequence[Ripe]], first: int, head: Version, draw: random.Random) -> Iterator[Stored]:
    """What each of the projects sends; they have the numbers from `first` on."""
    model = Model(schema().digest, head.version, head.version, "", head.vectors, head.vectors)
    for number, rows in enumerate(projects, first):
        backlog = Backlog(waiting={HEAD: tuple(draw.sample(rows, len(rows)))})
        update, _ = make_update(backlog, model, keyed_by(f"project {number} {head.version}"))
        if not isinstance(update, Absent):
            yield Stored(pack_update(update), project=str(number))


def _shuffled(classes: list[Sequence[Ripe]], draw: random.Random) -> list[Sequence[Ripe]]:
    draw.shuffle(classes)
    return classes
