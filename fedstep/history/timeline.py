"""The timeline: builds beside what was predicted for them, and lasting changes of time. A cache of the log.

It holds what the project's page, digest and badges show, so that they read one file in place of every record.
"""

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, isfinite, log
from statistics import median
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, HistoryError
from fedstep.history.flakiness import is_incident
from fedstep.history.project_store import TIMELINE, ProjectStore, build_name, with_types
from fedstep.history.records import BuildRecord, Forecast
from fedstep.history.summary import Progress, say_nothing
from fedstep.history.test_table import TestTable, former_ids
from fedstep.history.time_changes import (
    Direction,
    LevelShift,
    TimeLevel,
    count_beginnings,
    pack_levels,
    unpack_levels,
)
from fedstep.types import NO_SECONDS, BuildOutcome, ChangedTest, Outcome, TimeChange, TimelineBuild, TimelineFailure

FORMAT = 1
MOST_BUILDS = 1000
MOST_CHANGES = 300
MOST_FAILURES = 50  # kept of one build; where more fail, it is most likely an incident
TEST_STEP, JOB_STEP = 1.5, 1.3  # least factor between two levels
SHORTEST_TIME = 0.05  # seconds; faster tests count as this fast: their times are noise
LEAST_DIFFERENCE = 0.1  # seconds that a test must gain or lose
MOST_CAUGHT_UP = 200
FEWEST_TESTS = 10  # with a usual time, before a build's common factor is computed
FEWEST_TOGETHER, SHARE_TOGETHER = 5, 0.005  # tests, and share of all, that change in one build by one cause


@dataclass(frozen=True, slots=True)
class Timeline:
    """The newest builds, the usual times of all tests and jobs, and the changes found, oldest first."""

    seen: frozenset[str] = frozenset()  # names of builds
    count: int = 0
    builds: tuple[TimelineBuild, ...] = ()
    tests: Mapping[str, TimeLevel] = field(default_factory=dict)
    jobs: Mapping[str, TimeLevel] = field(default_factory=dict)
    changes: tuple[TimeChange, ...] = ()

    def open_changes(self) -> tuple[TimeChange, ...]:
        """Return the changes to a slower time that have not gone back, newest first."""
        return tuple(change for change in reversed(self.changes) if change.is_slower and not change.resolved_at)

    def list_changes_of(self, build: str) -> tuple[TimeChange, ...]:
        """Return the changes that this build made certain."""
        return tuple(change for change in self.changes if change.found_in == build)


def apply_to_timeline(
    timeline: Timeline, record: BuildRecord, table: TestTable, flakes: Mapping[str, bool]
) -> Timeline:
    """Return the timeline after one more build, the same if it has that build; `timeline` stays as it is.

    Args:
        timeline: The timeline before.
        record: The build.
        table: The table of tests after it.
        flakes: Tests whose last failures are judged by now, and whether they were flakes.
    """
    if record.name in timeline.seen:
        return timeline
    build_index = timeline.count
    builds = (*_mark_judged(timeline.builds, flakes), _timeline_build(record, build_index))
    tests, new_changes = _observe_tests(timeline, record, table, build_index)
    jobs, slower_job = _observe_job(timeline, record, build_index)
    changes = _add_changes(timeline.changes, (*slower_job, *new_changes), (*timeline.builds, builds[-1]))
    return Timeline(
        seen=timeline.seen | {record.name},
        count=build_index + 1,
        builds=builds[-MOST_BUILDS:],
        tests=tests,
        jobs=jobs,
        changes=changes[-MOST_CHANGES:],
    )


def _timeline_build(record: BuildRecord, build_index: int) -> TimelineBuild:
    forecast = record.forecast if isinstance(record.forecast, Forecast) else Forecast()
    failed = [run for run in record.tests if run.outcome in "fck"]
    chance = forecast.flaky.get
    return TimelineBuild(
        number=build_index,
        name=record.name,
        stream=record.stream,
        started_at=record.started_at,
        finished_at=record.finished_at,
        seconds=record.seconds,
        outcome=record.outcome.value,
        branch=record.branch,
        commit=record.commit,
        tests=len(record.tests),
        failed=len(failed),
        incident=is_incident(record.tests),
        expected=forecast.seconds,
        low=forecast.low,
        high=forecast.high,
        jenkins=forecast.jenkins,
        risk=forecast.risk,
        version=forecast.version,
        failures=tuple(
            TimelineFailure(run.test, run.outcome.value, chance(run.test, NO_SECONDS)) for run in failed[:MOST_FAILURES]
        ),
    )


def _mark_judged(builds: tuple[TimelineBuild, ...], flakes: Mapping[str, bool]) -> tuple[TimelineBuild, ...]:
    """Return the builds with all failures of the judged tests marked that were not: those of the spell that ended."""
    if not flakes:
        return builds
    return tuple(
        build._replace(failures=tuple(_judge(failure, flakes) for failure in build.failures))
        if any(failure.test in flakes for failure in build.failures)
        else build
        for build in builds
    )


def _judge(failure: TimelineFailure, flakes: Mapping[str, bool]) -> TimelineFailure:
    is_known = failure.was_flake is not None or failure.test not in flakes
    return failure if is_known else failure._replace(was_flake=flakes[failure.test])


class _Found(NamedTuple):
    """A shift of a test or a job, or of many tests that began in the same build."""

    kind: str
    subject: str
    shift: LevelShift
    members: tuple[ChangedTest, ...] = ()


def _observe_tests(
    timeline: Timeline, record: BuildRecord, table: TestTable, build_index: int
) -> tuple[Mapping[str, TimeLevel], tuple[_Found, ...]]:
    """Return the usual times after the passed tests of a build, each divided by the build's common factor."""
    levels = {test: level for test, level in timeline.tests.items() if test in table}
    renamed = former_ids(table)
    for former, test in renamed.items():
        if former in timeline.tests and test not in levels:
            levels[test] = timeline.tests[former]
    times = {
        renamed.get(run.test, run.test): max(run.seconds, SHORTEST_TIME)
        for run in record.tests
        if run.outcome == Outcome.PASSED and run.seconds >= 0
    }
    factor = _common_factor(levels, times)
    shifts: list[tuple[str, LevelShift]] = []
    for test, seconds in times.items():
        level = levels[test].copy() if test in levels else TimeLevel()
        levels[test] = level
        if shift := level.observe(max(seconds / factor, SHORTEST_TIME), build_index, TEST_STEP):
            shift = shift._replace(before=shift.before * factor, after=shift.after * factor)
            if abs(shift.after - shift.before) >= LEAST_DIFFERENCE:
                shifts.append((test, shift))
    return levels, tuple(_gather(shifts, levels.values()))


def _gather(new_shifts: Iterable[tuple[str, LevelShift]], levels: Collection[TimeLevel]) -> Iterator[_Found]:
    """Yield the shifts of tests; many that began in the same build have one cause, and are one."""
    by_beginning: dict[tuple[Direction, int, bool], list[tuple[str, LevelShift]]] = {}
    for test, shift in new_shifts:
        by_beginning.setdefault((shift.direction, shift.first, shift.is_return), []).append((test, shift))
    for (direction, first, _), shifts in by_beginning.items():
        together = len(shifts) + count_beginnings(levels, direction)[first]
        if together < max(FEWEST_TOGETHER, SHARE_TOGETHER * len(levels)):
            yield from (_Found("test", test, shift) for test, shift in shifts)
            continue
        members = tuple(ChangedTest(test, shift.before, shift.after) for test, shift in shifts)
        yield _Found("test", shifts[0][0], shifts[0][1], members)


def _common_factor(levels: Mapping[str, TimeLevel], times: Mapping[str, float]) -> float:
    """Return by how much this build's tests together are slower than usual: a slow machine is no slow test."""
    ratios = [
        seconds / levels[test].usual
        for test, seconds in times.items()
        if test in levels and levels[test].usual > SHORTEST_TIME
    ]
    return exp(median(map(log, ratios))) if len(ratios) >= FEWEST_TESTS else 1.0


def _observe_job(
    timeline: Timeline, record: BuildRecord, build_index: int
) -> tuple[Mapping[str, TimeLevel], tuple[_Found, ...]]:
    """Return the usual times of the jobs after a build; one that did not pass is not comparable."""
    if record.outcome != BuildOutcome.PASSED or not record.seconds > 0:
        return timeline.jobs, ()
    level = timeline.jobs[record.stream].copy() if record.stream in timeline.jobs else TimeLevel()
    shift = level.observe(record.seconds, build_index, JOB_STEP)
    jobs = {**timeline.jobs, record.stream: level}
    return jobs, (_Found("job", record.stream, shift),) if shift else ()


def _add_changes(
    changes: tuple[TimeChange, ...], new_changes: Iterable[_Found], builds: Sequence[TimelineBuild]
) -> tuple[TimeChange, ...]:
    """Return the changes with new ones added; those that an opposite change takes back are resolved."""
    by_index = {build.number: build for build in builds}
    newest = builds[-1]
    for detected in new_changes:
        shift, is_slower = detected.shift, detected.shift.direction is Direction.SLOWER
        first, before = by_index.get(shift.first, newest), by_index.get(shift.last_before, newest)
        shifted = detected.members or (ChangedTest(detected.subject, shift.before, shift.after),)
        for each in shifted:
            changes = tuple(_take_back(change, detected.kind, each, shift, newest.finished_at) for change in changes)
        if shift.is_return and is_slower:
            continue  # it was faster for a few runs: that is no news of a slow test
        new = TimeChange(
            kind=detected.kind,
            subject=detected.subject,
            before=shift.before,
            after=shift.after,
            commit_before=before.commit,
            commit_after=first.commit,
            since=first.finished_at,
            found_at=newest.finished_at,
            found_in=newest.name,
        )
        index = next((n for n, change in enumerate(changes) if _is_together(change, new)), None)
        if index is None:
            changes = (*changes, _with_members(new, detected.members) if detected.members else new)
        else:  # it was named when the first of them were found
            changes = (
                *changes[:index],
                _with_members(
                    changes[index]._replace(together=changes[index].together + len(shifted)),
                    (*changes[index].members, *shifted),
                ),
                *changes[index + 1 :],
            )
    return changes


def _is_together(change: TimeChange, new: TimeChange) -> bool:
    """Return whether the change is of many tests, and a new one of a test began in the same build."""
    is_open = bool(change.members) and not change.resolved_at
    return is_open and new.kind == "test" and (change.is_slower, change.since) == (new.is_slower, new.since)


def _with_members(change: TimeChange, members: Sequence[ChangedTest]) -> TimeChange:
    """Return the change of these tests together, named by the one that changed most."""
    return change._replace(
        together=max(change.together, len(members)),
        subject=max(members, key=lambda member: abs(member.after - member.before)).test,
        before=sum(member.before for member in members),
        after=sum(member.after for member in members),
        members=tuple(members),
    )


def _take_back(change: TimeChange, kind: str, changed: ChangedTest, shift: LevelShift, now: float) -> TimeChange:
    """Return the change, resolved if this shift of its subject takes it back; of many tests when the last one does."""
    if change.resolved_at or change.kind != kind or change.is_slower == (shift.direction is Direction.SLOWER):
        return change
    known = next((each for each in change.members if each.test == changed.test), None)
    if known is None and (change.members or change.subject != changed.test):
        return change
    before = known.before if known else change.before
    step = TEST_STEP if kind == "test" else JOB_STEP
    if not (shift.is_return or (change.is_slower and changed.after < before * step)):
        return change
    rest = tuple(each for each in change.members if each.test != changed.test)
    return _with_members(change, rest) if rest else change._replace(resolved_at=now, members=())


def encode_timeline(timeline: Timeline) -> bytes:
    """Encode the timeline as zlib-compressed JSON by column."""
    content = {
        "format": FORMAT,
        "seen": sorted(timeline.seen),
        "count": timeline.count,
        "builds": _pack(timeline.builds, TimelineBuild._fields),
        "tests": {"test": list(timeline.tests), **pack_levels(list(timeline.tests.values()))},
        "jobs": {"job": list(timeline.jobs), **pack_levels(list(timeline.jobs.values()))},
        "changes": _pack(timeline.changes, TimeChange._fields),
    }
    return zlib.compress(json.dumps(content, separators=(",", ":"), allow_nan=False).encode(), 3)


def decode_timeline(content: bytes) -> Timeline:
    """Decode a timeline. Raise HistoryError if it is damaged or of another format.

    Columns that this version does not know are left out, and a column that is missing has its default: a newer or older
    fedstep may have written it.
    """
    try:
        fields = json.loads(zlib.decompress(content))
        if fields["format"] != FORMAT:
            raise HistoryError("the timeline was made by another version of fedstep")
        builds = (_as_build(row) for row in _unpack(fields["builds"], TimelineBuild._fields))
        changes = map(_as_change, _unpack(fields["changes"], TimeChange._fields))
        return Timeline(
            seen=frozenset(fields["seen"]),
            count=int(fields["count"]),
            builds=tuple(builds),
            tests=dict(zip(fields["tests"]["test"], unpack_levels(fields["tests"]), strict=True)),
            jobs=dict(zip(fields["jobs"]["job"], unpack_levels(fields["jobs"]), strict=True)),
            changes=tuple(changes),
        )
    except MALFORMED as error:
        raise HistoryError("the timeline is damaged") from error


_NUMBERS = ("seconds", "expected", "low", "high", "jenkins", "risk")


def _pack(rows: Sequence[NamedTuple], names: Sequence[str]) -> dict[str, list[object]]:
    return {name: [_plain(getattr(row, name)) for row in rows] for name in names}


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4) if isfinite(value) else None
    if isinstance(value, tuple):
        return [[_plain(item) for item in failure] for failure in value]
    return value


def _unpack(columns: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    known = [name for name in names if name in columns]
    return [dict(zip(known, row, strict=True)) for row in zip(*(columns[name] for name in known), strict=True)]


def _as_build(row: dict[str, Any]) -> TimelineBuild:
    numbers = {name: NO_SECONDS if row[name] is None else float(row[name]) for name in _NUMBERS if name in row}
    failures = tuple(
        with_types(TimelineFailure(test, outcome, NO_SECONDS if flaky is None else flaky, was_flake))
        for test, outcome, flaky, was_flake in row.get("failures", ())
    )
    return with_types(TimelineBuild(**{**row, **numbers, "failures": failures}))


def _as_change(row: dict[str, Any]) -> TimeChange:
    members = tuple(with_types(ChangedTest(*member)) for member in row.get("members", ()))
    return with_types(TimeChange(**{**row, "members": members}))


def read_timeline(store: ProjectStore) -> Timeline:
    """Return the cached timeline, or an empty one if there is no valid one."""
    try:
        content = store.read(TIMELINE)
        return decode_timeline(content) if content else Timeline()
    except HistoryError:
        return Timeline()


def save_timeline(store: ProjectStore, timeline: Timeline) -> None:
    """Replace the cached timeline."""
    store.write(TIMELINE, encode_timeline(timeline))


def catch_up_timeline(
    store: ProjectStore,
    timeline: Timeline,
    files: Iterable[str],
    table: TestTable,
    progress: Progress = say_nothing,
) -> Timeline:
    """Return the timeline with the records in these files that it lacks, and without the names of pruned ones.

    The records are in `table` already: one made before there was a timeline, or by a job that could not learn. At most
    MOST_CAUGHT_UP of them, the newest, because a record of 5,000 tests takes 40 ms.
    """
    names = {build_name(file): file for file in sorted(files)}
    timeline = replace(timeline, seen=timeline.seen & frozenset(map(build_name, store.log.files())))
    missing = [file for name, file in names.items() if name not in timeline.seen]
    newest = missing[-MOST_CAUGHT_UP:]
    for done, (_, record) in enumerate(store.log.entries(newest)):
        progress(done, len(newest))
        if isinstance(record, BuildRecord):
            timeline = apply_to_timeline(timeline, record, table, {})
    return replace(timeline, seen=timeline.seen | names.keys())
