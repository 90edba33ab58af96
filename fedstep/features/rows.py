"""The examples of a build: the features of each prediction that its result labels, as known before it ran."""

from collections.abc import Callable, Mapping, Sequence

from fedstep.features.duration import Estimate, duration_features
from fedstep.features.failure import failure_features
from fedstep.features.flaky import flaky_columns, row_indices, row_of
from fedstep.features.triage_features import triage_values
from fedstep.history.builds import PastBuild, PlannedBuild
from fedstep.history.flakiness import informative_runs, is_incident
from fedstep.history.records import Example
from fedstep.history.summary import Summary
from fedstep.history.test_table import index_tests, with_tests
from fedstep.ingest.change_impact import group_of
from fedstep.schema.schema import schema
from fedstep.types import Build, BuildOutcome, Duration, Unavailable

FARTHEST = 50.0  # spreads; targets are clipped, so that one absurd time cannot spoil a tracker permanently


def build_examples(
    summary: Summary, build: Build, planned: PlannedBuild, due: Callable[[str, int], bool]
) -> Mapping[str, tuple[Example, ...]]:
    """Return the examples by task, from the summary before the build.

    `due(test, runs)` tells whether a test gives a flaky example: at most one per horizon.
    """
    return {
        "flaky": flaky_examples(summary, build, due),
        "triage": triage_examples(summary, build, planned),
        "build-failure": (failure_example(summary.builds, planned, build.name, build.outcome),),
        "build-duration": _duration_rows(summary, build, planned),
    }


def private_test_features(test: str) -> tuple[str, ...]:
    """Return the private features of a test: its id and its class."""
    return (f"test={test}", f"class={group_of(test)}")


def private_build_features(planned: PlannedBuild) -> tuple[str, ...]:
    """Return the private features of a build: its branch, job and author, where known."""
    named = (("branch", planned.branch), ("job", planned.stream), ("author", planned.author))
    return tuple(f"{kind}={value}" for kind, value in named if value)


def flaky_examples(summary: Summary, build: Build, due: Callable[[str, int], bool]) -> tuple[Example, ...]:
    """Return an example for each test that ran and is due."""
    ran = [run.test for run in informative_runs(build.reports.tests)]
    tests = with_tests(summary.tests, ran)
    by_id = index_tests(tests)
    chosen = [by_id[test] for test in ran if due(test, by_id[test].runs)]
    if not chosen:
        return ()
    columns, rows, task = flaky_columns(tests), row_indices(tests), schema().tasks["flaky"]
    return tuple(
        Example(
            stats.test,
            stats.runs,
            *task.encode(row_of(columns, rows[stats.test])),
            private_test_features(stats.test),
        )
        for stats in chosen
    )


def triage_examples(summary: Summary, build: Build, planned: PlannedBuild) -> tuple[Example, ...]:
    """Return an example for each failure; none in an incident."""
    if is_incident(build.reports.tests):
        return ()
    tests = with_tests(summary.tests, (run.test for run in build.failures()))
    by_id, task = index_tests(tests), schema().tasks["triage"]
    return tuple(
        Example(run.test, by_id[run.test].runs, *task.encode(values), private_test_features(run.test))
        for run, values in triage_values(tests, build, last_commit(summary.builds, planned.stream))
    )


def last_commit(builds: tuple[PastBuild, ...], stream: str) -> str:
    """Return the commit of the newest build of the stream, "" without one."""
    return next((build.commit for build in reversed(builds) if build.stream == stream), "")


def failure_example(past: Sequence[PastBuild], planned: PlannedBuild, name: str, outcome: str) -> Example:
    """Return the example of one build; its target is 1 if the build did not pass."""
    row = schema().tasks["build-failure"].encode(failure_features(past, planned))
    return Example(name, 0, *row, private_build_features(planned), float(outcome != BuildOutcome.PASSED))


def duration_example(
    past: Sequence[PastBuild], planned: PlannedBuild, name: str, seconds: float
) -> tuple[Estimate, Example] | Unavailable:
    """Return the running estimate and the example of one build; Unavailable without a known build before it.

    Private features are omitted: the estimate already covers branch and author, and they cost accuracy.
    """
    found = duration_features(past, planned)
    if isinstance(found, Unavailable):
        return found
    estimate, raw = found
    target = max(-FARTHEST, min(FARTHEST, estimate.departure(seconds)))
    return estimate, Example(name, 0, *schema().tasks["build-duration"].encode(raw), (), target)


def _duration_rows(summary: Summary, build: Build, planned: PlannedBuild) -> tuple[Example, ...]:
    if not isinstance(build.duration, Duration) or build.duration.seconds <= 0:
        return ()
    found = duration_example(summary.builds, planned, build.name, build.duration.seconds)
    return () if isinstance(found, Unavailable) else (found[1],)
