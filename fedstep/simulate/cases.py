"""A recorded history as a series of predictions to make and of labels that become known; no model is in it yet.

It is written to a file, one line a build, so that a history of any length takes no memory.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from math import isnan, nan
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fedstep.history.entry import Row

__all__ = ["Case", "Known", "Step", "read_steps", "write_steps"]


class Case(NamedTuple):
    """One prediction to make. `truth` is for scoring alone, NaN where only the label tells, later."""

    key: int
    stream: str
    row: Row
    truth: float = nan
    guesses: Mapping[str, float] = MappingProxyType({})  # what simpler predictors say: seconds or a chance
    estimate: tuple[float, float] = (0.0, 0.0)  # of a duration: the running estimate in seconds, and its spread
    scored: bool = True


class Known(NamedTuple):
    """The label of an earlier case. `truth` as there."""

    key: int
    label: float
    weight: float = 1.0
    truth: float = nan


class Step(NamedTuple):
    """The start of one build: what has become known since the last one, then what is predicted for this one."""

    number: int  # of the build in its project, from 0
    known: tuple[Known, ...]
    cases: tuple[Case, ...]


def write_steps(path: Path, steps: Iterable[Step]) -> int:
    """Write the steps; how many there are."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for step in steps:
            file.write(json.dumps(_packed(step), separators=(",", ":")) + "\n")
            count += 1
    return count


def read_steps(path: Path) -> Iterator[Step]:
    """The steps of `write_steps`, one at a time."""
    with path.open(encoding="utf-8") as file:
        yield from map(_unpacked, map(json.loads, file))


def _packed(step: Step) -> list[object]:
    known = [[one.key, one.label, one.weight, _plain(one.truth)] for one in step.known]
    return [step.number, known, [_packed_case(case) for case in step.cases]]


def _packed_case(case: Case) -> list[object]:
    row = case.row
    values = [round(value, 6) for value in row.values]  # as a record keeps them
    features = [row.subject, row.run, row.indices, values, row.private, _plain(row.target)]
    return [case.key, case.stream, features, _plain(case.truth), dict(case.guesses), case.estimate, case.scored]


def _unpacked(fields: list[Any]) -> Step:
    number, known, cases = fields
    return Step(
        number,
        tuple(Known(key, label, weight, _full(truth)) for key, label, weight, truth in known),
        tuple(map(_unpacked_case, cases)),
    )


def _unpacked_case(fields: list[Any]) -> Case:
    key, stream, features, truth, guesses, estimate, scored = fields
    subject, run, indices, values, private, target = features
    row = Row(subject, run, tuple(indices), tuple(values), tuple(private), _full(target))
    return Case(key, stream, row, _full(truth), guesses, tuple(estimate), scored)


def _plain(value: float) -> float | None:
    return None if isnan(value) else value


def _full(value: float | None) -> float:
    return nan if value is None else value
