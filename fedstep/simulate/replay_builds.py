"""The steps of the two build heads: each build as it was known before it started, with finished builds alone."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from fedstep.build.record import Absent
from fedstep.features.builds import PastBuild
from fedstep.features.rows import duration_row, failure_row
from fedstep.forecast import FEWEST_BUILDS
from fedstep.history.summary import MAXIMUM_BUILDS
from fedstep.simulate.cases import Case, Known, Step
from fedstep.simulate.guesses import chances_of_failure, times
from fedstep.simulate.tables import planned_of

__all__ = ["MAKERS", "build_steps"]

Past = tuple[PastBuild, ...]


def build_steps(builds: Iterable[PastBuild], head: str) -> Iterator[Step]:
    """A step for each build, given in the order of starts; at the end one in which the last labels become known."""
    running: list[tuple[float, int, PastBuild]] = []
    past: deque[PastBuild] = deque(maxlen=MAXIMUM_BUILDS)
    labels: dict[int, float] = {}
    number = -1
    for number, build in enumerate(builds):
        known = []
        while running and running[0][0] <= build.started_at:
            _, key, done = heappop(running)
            past.append(done)
            known += [Known(key, labels.pop(key))] if key in labels else []
        case = MAKERS[head](tuple(past), build, number)
        if not isinstance(case, Absent):
            labels[number] = case.row.target
        heappush(running, (build.finished_at, number, build))
        yield Step(number, tuple(known), () if isinstance(case, Absent) else (case,))
    yield Step(number + 1, tuple(Known(key, label) for key, label in labels.items()), ())


def _duration_case(past: Past, build: PastBuild, number: int) -> Case | Absent:
    planned = planned_of(build)
    found = duration_row(past, planned, str(number), build.seconds)
    if isinstance(found, Absent):
        return found
    estimate, row = found
    scored = estimate.builds >= FEWEST_BUILDS
    return Case(
        number, build.stream, row, build.seconds, times(past, planned), (estimate.seconds, estimate.spread), scored
    )


def _failure_case(past: Past, build: PastBuild, number: int) -> Case | Absent:
    planned = planned_of(build)
    row = failure_row(past, planned, str(number), build.outcome)
    return Case(
        number, build.stream, row, row.target, chances_of_failure(past, planned), scored=len(past) >= FEWEST_BUILDS
    )


MAKERS: dict[str, Callable[[Past, PastBuild, int], Case | Absent]] = {
    "build-duration": _duration_case,
    "build-failure": _failure_case,
}
