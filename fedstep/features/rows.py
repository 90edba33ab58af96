"""The rows of a build: the features of every prediction it is evidence for, as they stood before it ran."""

from collections.abc import Callable, Mapping, Sequence

from fedstep.build.record import Absent, Build, BuildOutcome, Duration
from fedstep.features.builds import PastBuild, Planned
from fedstep.features.duration import Estimate, duration_features
from fedstep.features.failure import failure_features
from fedstep.features.flaky import flaky_columns, group_of, row_of
from fedstep.features.schema import schema
from fedstep.features.triage import triage_values
from fedstep.history.entry import Row
from fedstep.history.summary import Summary
from fedstep.history.tests import evidence, is_incident, numbers, with_tests

__all__ = [
    "build_private",
    "duration_row",
    "failure_row",
    "flaky_rows",
    "last_commit",
    "rows_of_build",
    "test_private",
    "triage_rows",
]

FARTHEST = 50.0  # spreads; a target is held inside, so that one absurd time cannot throw a tracker off for good


def rows_of_build(
    summary: Summary, build: Build, planned: Planned, due: Callable[[str, int], bool]
) -> Mapping[str, tuple[Row, ...]]:
    """The rows by head, with the summary as it stood before the build.

    `due(test, runs)`: whether a test gives a flaky row. It gives one at most until the next horizon.
    """
    return {
        "flaky": flaky_rows(summary, build, due),
        "triage": triage_rows(summary, build, planned),
        "build-failure": (failure_row(summary.builds, planned, build.name, build.outcome),),
        "build-duration": _duration_rows(summary, build, planned),
    }


def test_private(test: str) -> tuple[str, ...]:
    """The private features of a test: itself and its class."""
    return (f"test={test}", f"class={group_of(test)}")


def build_private(planned: Planned) -> tuple[str, ...]:
    """The private features of a build: its branch, its job and its author, where known."""
    named = (("branch", planned.branch), ("job", planned.stream), ("author", planned.author))
    return tuple(f"{kind}={value}" for kind, value in named if value)


def flaky_rows(summary: Summary, build: Build, due: Callable[[str, int], bool]) -> tuple[Row, ...]:
    """A row for each test that ran and is due."""
    ran = [run.test for run in evidence(build.reports.tests)]
    table = with_tests(summary.tests, ran)
    places = numbers(table)
    chosen = [places[test] for test in ran if due(test, table.runs[places[test]])]
    if not chosen:
        return ()
    columns = flaky_columns(table)
    head = schema().heads["flaky"]
    return tuple(
        Row(table.ids[n], table.runs[n], *head.encode(row_of(columns, n)), test_private(table.ids[n])) for n in chosen
    )


def triage_rows(summary: Summary, build: Build, planned: Planned) -> tuple[Row, ...]:
    """A row for each failure; none in an incident."""
    if is_incident(build.reports.tests):
        return ()
    table = with_tests(summary.tests, (run.test for run in build.failures()))
    places = numbers(table)
    head = schema().heads["triage"]
    return tuple(
        Row(run.test, table.runs[places[run.test]], *head.encode(values), test_private(run.test))
        for run, values in triage_values(table, build, last_commit(summary.builds, planned.stream))
    )


def last_commit(builds: tuple[PastBuild, ...], stream: str) -> str:
    """The commit of the newest build of the stream, "" where there is none."""
    return next((build.commit for build in reversed(builds) if build.stream == stream), "")


def failure_row(past: Sequence[PastBuild], planned: Planned, name: str, outcome: str) -> Row:
    """The row of one build: whether it does not pass."""
    row = schema().heads["build-failure"].encode(failure_features(past, planned))
    return Row(name, 0, *row, build_private(planned), float(outcome != BuildOutcome.PASSED))


def duration_row(
    past: Sequence[PastBuild], planned: Planned, name: str, seconds: float
) -> tuple[Estimate, Row] | Absent:
    """The running estimate and the row of one build that took so long; Absent where nothing is known before it.

    Without private features: what a branch or author adds is in the estimate already, and they cost accuracy.
    """
    found = duration_features(past, planned)
    if isinstance(found, Absent):
        return found
    estimate, raw = found
    target = max(-FARTHEST, min(FARTHEST, estimate.departure(seconds)))
    return estimate, Row(name, 0, *schema().heads["build-duration"].encode(raw), (), target)


def _duration_rows(summary: Summary, build: Build, planned: Planned) -> tuple[Row, ...]:
    if not isinstance(build.duration, Duration) or build.duration.seconds <= 0:
        return ()
    found = duration_row(summary.builds, planned, build.name, build.duration.seconds)
    return () if isinstance(found, Absent) else (found[1],)
