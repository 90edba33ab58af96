"""Leave one project out: the shared model of all the others, which has learned nothing of the one that is scored."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from fedstep.features.schema import schema
from fedstep.model.labels import Ripe
from fedstep.model.state import Backlog
from fedstep.simulate.cases import Case, Step, read_steps
from fedstep.simulate.extract import Extracted
from fedstep.simulate.participant import Participant, Prediction
from fedstep.simulate.shared import Alone, Federation

__all__ = ["PASSES", "labelled", "lessons", "predicted", "train_global"]

# Passes over all rows, each batch one update: chosen with each project left out in turn.
PASSES = {"flaky": 5, "triage": 10, "build-failure": 3, "build-duration": 2}
MOST_ROWS = 3000  # of one project and head, drawn: no project may speak for all


def lessons(project: Extracted) -> tuple[Ripe, ...]:
    """Every row of the project whose label became known, in that order."""
    return labelled(read_steps(project.path))


def labelled(steps: Iterable[Step]) -> tuple[Ripe, ...]:
    """Every row of these steps whose label became known, in that order."""
    waiting: dict[int, Case] = {}
    rows: list[Ripe] = []
    for step in steps:
        rows += [Ripe(waiting.pop(one.key).row, one.label, one.weight) for one in step.known]
        waiting |= {case.key: case for case in step.cases}
    return tuple(rows)


def train_global(head: str, projects: Mapping[str, Sequence[Ripe]], seed: int) -> Sequence[float]:
    """The head learned from these projects alone: batches of one project each, updates through the aggregation.

    The weights are averaged over the second half of the passes (Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging", 1992).
    """
    draw, federation = random.Random(f"{seed} {head}"), Federation(head)
    kept: list[Sequence[float]] = []
    chosen = {name: _chosen(rows, draw) for name, rows in projects.items()}
    for number in range(PASSES[head]):
        _one_pass(head, federation, chosen, draw)
        if number >= PASSES[head] // 2:
            kept.append(federation.weights)
    return [float(weight) for weight in np.mean(kept, axis=0)]


def predicted(head: str, project: Extracted, weights: Sequence[float]) -> Iterator[Prediction]:
    """What this shared model alone says of every case of a project."""
    participant = Participant(project.project, head, Alone(head, weights), learns=False)
    for step in read_steps(project.path):
        yield from participant.live(step)


def _chosen(rows: Sequence[Ripe], draw: random.Random) -> Sequence[Ripe]:
    return rows if len(rows) <= MOST_ROWS else draw.sample(rows, MOST_ROWS)


def _one_pass(head: str, federation: Federation, projects: Mapping[str, Sequence[Ripe]], draw: random.Random) -> None:
    size = schema().heads[head].minimum_rows
    backlogs = dict.fromkeys(projects, Backlog())
    batches = [
        (name, batch) for name, rows in projects.items() for batch in _batches(draw.sample(rows, len(rows)), size)
    ]
    draw.shuffle(batches)
    for name, batch in batches:
        waiting = (*backlogs[name].waiting.get(head, ()), *batch)
        backlogs[name] = federation.offer(name, Backlog(waiting={head: waiting}))


def _batches(rows: Sequence[Ripe], size: int) -> Iterator[Sequence[Ripe]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
