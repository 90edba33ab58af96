"""The stage of attacks on builds: recorded builds, cut into participants; as in `scene`, half of them are attacked."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from fedstep.errors import InputError
from fedstep.evaluation.corpus import find_projects, in_order, iter_builds
from fedstep.evaluation.replay import build_steps
from fedstep.evaluation.simulated_federation import key_by, label_rows
from fedstep.federation.messages import Model, pack_update, unpack_update
from fedstep.federation.update_builder import make_update
from fedstep.history.summary import PastBuild
from fedstep.model.labels import LabelledExample
from fedstep.model.state import ExampleQueue
from fedstep.model.training import learn_shared
from fedstep.schema.schema import schema
from fedstep.types import Unavailable
from tests.studies.attacks.scene import Real

HEADS = ("build-failure", "build-duration")
MOST_BUILDS = 320  # of one recorded project, its first ones
MOST_BUILDERS = 10  # of one recorded project: no project may be most of the scene
Steps: TypeAlias = Mapping[str, Real]  # by task a change of its coefficients


class Lesson(NamedTuple):
    """By task the row of one build with its outcome, and the step that it would have taught alone, not clipped."""

    rows: Mapping[str, LabelledExample]
    taught: Steps


class Builder(NamedTuple):
    """A participant: the builds of the batch that it sends, as bytes too, and others of the same days that it keeps."""

    project: str
    sent: tuple[Lesson, ...]
    rest: tuple[Lesson, ...]
    body: bytes

    def deltas(self) -> Steps:
        """The changes of the coefficients in its update."""
        return {task: np.array(delta, np.float64) for task, delta in unpack_update(self.body).deltas.items()}


@dataclass(frozen=True, slots=True)
class BuildScene:
    """Participants in two disjoint groups of projects: the attacker's own, and the attacked. Else as `Scene`."""

    own: tuple[Builder, ...]
    attacked: tuple[Builder, ...]
    seed: int
    views: int

    def draw(self, *purpose: object) -> random.Random:
        """Chance for one purpose: the same each time."""
        return random.Random(f"{self.seed} {purpose}")


def make_build_scene(places: Sequence[Path], seed: int, views: int = 200) -> BuildScene:
    """The scene of all `builds.csv` below the places. Raises InputError where there are too few builds for it."""
    draw = random.Random(f"{seed} builds")
    found = [tuple(_builders(one.name, one.path, draw)) for one in find_projects(places, ("builds",))]
    kept = [builders for builders in found if builders]
    draw.shuffle(kept)
    own, attacked = (tuple(chain.from_iterable(part)) for part in (kept[::2], kept[1::2]))
    if min(len(own), len(attacked)) < 2:
        raise InputError("too few recorded builds to attack", "Name folders with two projects of 100 builds or more")
    return BuildScene(own, attacked, seed, views)


def _builders(name: str, path: Path, draw: random.Random) -> Iterator[Builder]:
    """Each has twice a batch of builds that followed each other, and sends half of them."""
    size = schema().tasks[HEADS[0]].minimum_rows
    lessons = _lessons(path)
    starts = range(0, len(lessons) - 2 * size + 1, 2 * size)
    for start in draw.sample(starts, min(MOST_BUILDERS, len(starts))):
        inside = set(draw.sample(range(start, start + 2 * size), size))
        sent = tuple(lessons[number] for number in sorted(inside))
        rest = tuple(lessons[number] for number in range(start, start + 2 * size) if number not in inside)
        if body := _body_of(f"{name} {start}", sent):
            yield Builder(name, sent, rest, body)


def _lessons(path: Path) -> list[Lesson]:
    """What each of the project's first builds teaches; none of a build that a task has no row of."""
    usable = (build for build in in_order(iter_builds(path)) if isinstance(build, PastBuild))
    builds = tuple(islice(usable, MOST_BUILDS))
    rows = {task: {ripe.example.subject: ripe for ripe in label_rows(build_steps(builds, task))} for task in HEADS}
    common = rows[HEADS[0]].keys() & rows[HEADS[1]].keys()
    return [_lesson({task: rows[task][number] for task in HEADS}) for number in sorted(common, key=int)]


def _lesson(rows: Mapping[str, LabelledExample]) -> Lesson:
    start = {task: schema().tasks[task].start() for task in rows}
    learned = {task: learn_shared(task, start[task], [row]) for task, row in rows.items()}
    return Lesson(rows, {task: np.array(learned[task], np.float64) - np.array(start[task]) for task in rows})


def _body_of(name: str, sent: Sequence[Lesson]) -> bytes:
    """The bytes of the update that production makes of these builds; b"" where not all are in it."""
    start = {task: schema().tasks[task].start() for task in HEADS}
    waiting = {task: tuple(one.rows[task] for one in sent) for task in HEADS}
    update, left = make_update(
        ExampleQueue(waiting=waiting), Model(schema().digest, 0, 0, "", start, start), key_by(name)
    )
    return b"" if isinstance(update, Unavailable) or any(left.waiting.values()) else pack_update(update)
