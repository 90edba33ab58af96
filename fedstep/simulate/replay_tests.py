"""The steps of the two heads about tests: recorded reports through the production rooms, in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import nan
from typing import NamedTuple
from zlib import crc32

from fedstep.build.record import Build, Duration, Evidence
from fedstep.features.builds import Planned
from fedstep.features.flaky import flaky_values
from fedstep.features.plan import plan, stream_of
from fedstep.features.rows import flaky_rows, test_private, triage_rows
from fedstep.features.schema import schema
from fedstep.history.entry import Row, entry_of
from fedstep.history.summary import Summary, fold
from fedstep.history.tests import with_tests
from fedstep.model.labels import Ripe, is_due, numbered, ripen
from fedstep.simulate.cases import Case, Known, Step
from fedstep.simulate.guesses import chances_of_flaking

__all__ = ["Truth", "test_steps"]


class Truth(NamedTuple):
    """What really happened, for scoring alone: by build and test whether the failure was a flake; by test, ever."""

    kinds: Mapping[tuple[str, str], bool] | None = None
    tests: Mapping[str, bool] | None = None


@dataclass(slots=True)
class _Replay:
    """The project at one moment."""

    head: str
    truth: Truth
    summary: Summary = field(default_factory=Summary)
    pending: list[Row] = field(default_factory=list)
    keys: dict[tuple[str, int], int] = field(default_factory=dict)  # of the cases whose rows are pending
    asked_at: dict[int, int] = field(default_factory=dict)  # by key, the number of the case's build
    builds: list[str] = field(default_factory=list)  # folded in, by the name that the recorder gave
    running: list[tuple[float, int, "_Started"]] = field(default_factory=list)
    cases: int = 0


class _Started(NamedTuple):
    build: Build
    planned: Planned
    rows: tuple[Row, ...]
    first_key: int


def test_steps(builds: Iterable[Evidence], head: str, truth: Truth) -> Iterator[Step]:
    """A step for each build, given in the order of starts.

    What is said of tests is said when their reports are there: known are the builds that ended before this one did.
    With a truth by test, only the last step is scored: what is said of every test when the history is over.
    """
    replay = _Replay(head, truth)
    number = -1
    for number, evidence in enumerate(builds):
        known = _finish(replay, evidence.finished_at)
        yield Step(number, known, _start(replay, number, evidence))
    known = _finish(replay, float("inf"))
    yield Step(number + 1, known, tuple(_last_words(replay)) if truth.tests is not None else ())


test_steps.__test__ = False  # type: ignore[attr-defined]  # pytest: no test


def _start(replay: _Replay, number: int, evidence: Evidence) -> tuple[Case, ...]:
    """The cases of a build that starts now; it goes on running."""
    ci = evidence.situation.ci
    build = Build(
        f"{number:032x}",
        evidence.situation,
        evidence.finished_at,
        evidence.duration,
        evidence.outcome,
        evidence.reports,
    )
    source = build.duration.source if isinstance(build.duration, Duration) else ""
    planned = plan(build.situation, stream_of(ci, source), "")
    rows = ROWS[replay.head](replay.summary, build, planned)
    guesses = _guesses(replay, rows)
    first = replay.cases
    cases = tuple(
        Case(
            first + n, planned.stream, row, _kind(replay, ci.run, row.subject), guess, scored=replay.truth.tests is None
        )
        for n, (row, guess) in enumerate(zip(rows, guesses, strict=True))
    )
    replay.cases += len(rows)
    replay.asked_at |= {case.key: number for case in cases}
    heappush(replay.running, (evidence.finished_at, number, _Started(build, planned, rows, first)))
    return cases


def _finish(replay: _Replay, now: float) -> tuple[Known, ...]:
    """Fold in the builds that have ended by now; the labels that this reveals."""
    known: list[Known] = []
    while replay.running and replay.running[0][0] <= now:
        _, _, (build, planned, rows, first) = heappop(replay.running)
        replay.summary = fold(replay.summary, build.name, entry_of(build, planned.stream, ""))
        replay.builds.append(build.situation.ci.run)
        fresh = numbered(rows, replay.summary.tests)
        replay.keys |= {(row.subject, row.run): first + n for n, row in enumerate(fresh)}
        ripe, replay.pending = ripen(replay.head, (*replay.pending, *fresh), replay.summary.tests)
        known += [_known(replay, one) for one in ripe]
        waiting = {(row.subject, row.run) for row in replay.pending}
        replay.keys = {place: key for place, key in replay.keys.items() if place in waiting}
    return tuple(known)


def _known(replay: _Replay, ripe: Ripe) -> Known:
    key = replay.keys[ripe.row.subject, ripe.row.run]
    return Known(key, ripe.label, ripe.weight, _flaked(replay, ripe.row.subject, replay.asked_at[key]))


def _kind(replay: _Replay, build: str, test: str) -> float:
    """Whether this failure was a flake, where that is the question and the truth is known."""
    kinds = replay.truth.kinds
    return float(kinds.get((build, test), nan)) if replay.head == "triage" and kinds is not None else nan


def _flaked(replay: _Replay, test: str, since: int) -> float:
    """Whether the test flaked in a build since then, where that is the question and the truth is known."""
    kinds = replay.truth.kinds
    if replay.head != "flaky" or kinds is None:
        return nan
    return float(any(kinds.get((build, test), False) for build in replay.builds[since:]))


def _guesses(replay: _Replay, rows: Sequence[Row]) -> Sequence[Mapping[str, float]]:
    if not rows:
        return ()
    tests = [row.subject for row in rows]
    return chances_of_flaking(with_tests(replay.summary.tests, tests), tests)


def _last_words(replay: _Replay) -> Iterator[Case]:
    """A case for every test, scored by whether it is known to be flaky."""
    table, head = replay.summary.tests, schema().heads["flaky"]
    guesses = chances_of_flaking(table, table.ids)
    for number, values in enumerate(flaky_values(table)):
        test = table.ids[number]
        row = Row(test, table.runs[number], *head.encode(values), test_private(test))
        truth = float((replay.truth.tests or {}).get(test, nan))
        yield Case(replay.cases + number, "", row, truth, guesses[number])


def _due(test: str, runs: int) -> bool:
    return is_due(crc32(test.encode()), runs, schema().heads["flaky"].horizon)


ROWS: dict[str, Callable[[Summary, Build, Planned], tuple[Row, ...]]] = {
    "flaky": lambda summary, build, _: flaky_rows(summary, build, _due),
    "triage": triage_rows,
}
