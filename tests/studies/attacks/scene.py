"""The stage of all attacks: recorded tests, cut into participants; some the attacker has, the others are attacked."""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import InputError
from fedstep.evaluation.corpus import CorpusProject, find_projects
from fedstep.evaluation.replay import extract
from fedstep.evaluation.simulated_federation import key_by, lessons
from fedstep.federation.messages import Model, Vector, pack_update, unpack_update
from fedstep.federation.update_builder import make_update
from fedstep.ingest.change_impact import group_of
from fedstep.model.labels import LabelledExample
from fedstep.model.state import ExampleQueue
from fedstep.schema.schema import schema
from fedstep.types import Unavailable

TASK = "flaky"  # the one task that words act on
MOST_MEMBERS = 10  # of one recorded project: no project may be most of the scene
Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Member:
    """A participant: the recorded project that it is cut from, the batch it sends, as bytes too, and what it keeps."""

    name: str
    project: str
    rows: tuple[LabelledExample, ...]
    rest: tuple[LabelledExample, ...]
    body: bytes

    def delta(self) -> Real:
        """The change of the coefficients in its update."""
        return np.array(unpack_update(self.body).deltas[TASK], np.float64)


@dataclass(frozen=True, slots=True)
class AttackScene:
    """Recorded projects, and their members in two disjoint groups of projects: the attacker's own, and the attacked.

    `views` is how many an attack gets of each kind, `seed` decides all that is drawn.
    """

    projects: tuple[CorpusProject, ...]
    own: tuple[Member, ...]
    attacked: tuple[Member, ...]
    seed: int
    views: int

    def draw(self, *purpose: object) -> random.Random:
        """Chance for one purpose: the same each time."""
        return random.Random(f"{self.seed} {purpose}")


def make_scene(places: Sequence[Path], seed: int, views: int = 40) -> AttackScene:
    """The scene of all `tests.csv` below the places. Raises InputError where there are too few tests for it."""
    projects, draw = find_projects(places, ("tests",)), random.Random(f"{seed} scene")
    with tempfile.TemporaryDirectory(prefix="fedstep-attacks-") as folder:
        rows = {one.name: _weighed(lessons(extract(one, TASK, None, Path(folder) / "steps.jsonl"))) for one in projects}
    members = {name: tuple(_members(name, rows[name], draw)) for name in sorted(rows)}
    names = [name for name in members if members[name]]
    draw.shuffle(names)
    own, attacked = (tuple(chain.from_iterable(members[name] for name in part)) for part in (names[::2], names[1::2]))
    if min(len(own), len(attacked)) < 2:
        raise InputError("too few recorded tests to attack", "Name folders with two projects of 200 tests or more")
    return AttackScene(projects, own, attacked, seed, views)


def word_columns() -> NDArray[np.intp]:
    """The coordinates of words, of names and of source, in ascending order."""
    lists = schema().tasks[TASK].word_lists()
    return np.concatenate([np.arange(start, start + len(words.names())) for start, words in lists])


def presence(rows: Sequence[LabelledExample]) -> NDArray[np.bool_]:
    """Row by row which words it has, in the order of `word_columns`."""
    table = np.zeros((len(rows), schema().tasks[TASK].size()), bool)
    for place, ripe in enumerate(rows):
        table[place, list(ripe.example.indices)] = True
    return table[:, word_columns()]


def words_of(rows: Sequence[LabelledExample]) -> NDArray[np.bool_]:
    """Which words any of the rows has."""
    return np.asarray(presence(rows).any(axis=0))


def head_model(trial: "Vector | None" = None) -> Model:
    """The model that everyone has pulled: the schema's start, and where given a version on trial."""
    start = {TASK: schema().tasks[TASK].start()}
    tried = ({TASK: 1}, {TASK: trial}) if trial is not None else ({}, {})
    return Model(schema().digest, 0, 0, "", start, start, *tried)


def body_of(name: str, rows: Sequence[LabelledExample], model: Model) -> bytes:
    """The bytes of the update that production makes of these rows; b"" where they are no full batch."""
    update, _ = make_update(ExampleQueue(waiting={TASK: tuple(rows)}), model, key_by(name))
    return b"" if isinstance(update, Unavailable) else pack_update(update)


def _weighed(rows: Sequence[LabelledExample]) -> tuple[LabelledExample, ...]:
    """The rows as a project weighs them; recorded reruns have weights that even out projects."""
    return tuple(ripe._replace(weight=1.0) for ripe in rows)


def _members(name: str, rows: Sequence[LabelledExample], draw: random.Random) -> Iterator[Member]:
    """Members of whole classes: each has twice a batch of tests, and sends half of them."""
    size, ordered = schema().tasks[TASK].minimum_rows, _by_class(rows, draw)
    for start in range(0, min(len(ordered), 2 * size * MOST_MEMBERS) - 2 * size + 1, 2 * size):
        tests = draw.sample(ordered[start : start + 2 * size], 2 * size)
        sent, rest = tuple(tests[:size]), tuple(tests[size:])
        if body := body_of(f"{name} {start}", sent, head_model()):
            yield Member(f"{name} {start}", name, sent, rest, body)


def _by_class(rows: Sequence[LabelledExample], draw: random.Random) -> list[LabelledExample]:
    classes: Mapping[str, list[LabelledExample]] = {group_of(ripe.example.subject): [] for ripe in rows}
    for ripe in rows:
        classes[group_of(ripe.example.subject)].append(ripe)
    names = sorted(classes)
    draw.shuffle(names)
    return [ripe for name in names for ripe in classes[name]]
