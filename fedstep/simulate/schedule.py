"""In which order the builds of many projects happen: each stream is stretched over the same time."""

import random
from collections.abc import Iterator, Sequence
from heapq import merge

from fedstep.simulate.cases import Step, read_steps
from fedstep.simulate.extract import Extracted

__all__ = ["interleaved"]


def interleaved(projects: Sequence[Extracted], seed: int | None = None) -> Iterator[tuple[str, Step]]:
    """Every step with its project's name, in the order of a common time from 0 to 1.

    Without a seed the n-th of N steps happens at (n + 1/2) / N, with one at the n-th of N drawn times; a project's own
    order is kept either way. One step of each project is in memory.
    """
    streams = (_placed(project, number, seed) for number, project in enumerate(projects))
    return ((projects[number].project, step) for _, number, step in merge(*streams, key=lambda item: item[:2]))


def _placed(project: Extracted, number: int, seed: int | None) -> Iterator[tuple[float, int, Step]]:
    times = (
        _regular(project.steps) if seed is None else _drawn(project.steps, random.Random(f"{seed} {project.project}"))
    )
    return zip(times, iter(lambda: number, None), read_steps(project.path), strict=False)


def _regular(count: int) -> Iterator[float]:
    return ((number + 0.5) / count for number in range(count))


def _drawn(count: int, draw: random.Random) -> Iterator[float]:
    """Ascending times, uniform in [0, 1], one after the other: the smallest of the k that are left."""
    time = 0.0
    for left in range(count, 0, -1):
        time += (1.0 - time) * (1.0 - draw.random() ** (1.0 / left))
        yield time
