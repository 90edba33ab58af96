"""Past and planned builds, and the summary: a cache of what prediction needs from the log, as JSON by column.

It names tests and files, and stays in the project's history.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import pairwise, takewhile
from math import isfinite
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, HistoryError
from fedstep.history.cofailures import CofailureTable, apply_failures, pack_cofailures, unpack_cofailures
from fedstep.history.flakiness import PreviousBuilds, apply_test_runs
from fedstep.history.project_store import SUMMARY, ProjectStore, build_name, with_types
from fedstep.history.records import BuildRecord, Forecast
from fedstep.history.test_table import NEVER, TestStats, TestTable, check_column, name_words, pack_tests, unpack_tests
from fedstep.ingest.change_impact import file_kind, is_build_file
from fedstep.ingest.ci import is_later_attempt, job_run
from fedstep.schema.schema import schema
from fedstep.types import (
    NO_SECONDS,
    NO_SELECTIONS,
    BuildContext,
    Change,
    CiRun,
    Dropped,
    FileChange,
    Outcome,
    SelectionTally,
)


class PlannedBuild(NamedTuple):
    """A build that is about to start. Strings are opaque and only compared; "" and None stand for unknown."""

    stream: str  # workflow, job, matrix cell and source of the duration: only times of one stream are comparable
    started_at: float  # seconds since the epoch
    branch: str = ""
    base_branch: str = ""
    event: str = ""  # push, pull_request, schedule, manual, tag or other
    author: str = ""
    commit: str = ""
    is_pr: bool | None = None
    hour: float | None = None  # of the day, UTC
    weekday: int | None = None  # 0: Monday
    files: float | None = None  # changed files
    lines: float | None = None  # lines added and deleted
    build_file_touched: bool | None = None
    kinds: str = ""  # of the changed files, in alphabetical order: "docs source-python"
    number: int | None = None  # of the run in its workflow
    run: str = ""  # as in BuildRecord


class PastBuild(NamedTuple):
    """A finished build. It repeats the fields of PlannedBuild because a NamedTuple cannot inherit fields."""

    stream: str
    started_at: float
    finished_at: float
    outcome: str  # passed, unstable, failed; anything else counts as not passed
    seconds: float = NO_SECONDS
    branch: str = ""
    base_branch: str = ""
    event: str = ""
    author: str = ""
    commit: str = ""
    is_pr: bool | None = None
    hour: float | None = None
    weekday: int | None = None
    files: float | None = None
    lines: float | None = None
    build_file_touched: bool | None = None
    kinds: str = ""  # of the changed files, in alphabetical order: "docs source-python"
    number: int | None = None  # of the run in its workflow
    missed: float = NO_SECONDS  # as in BuildRecord
    run: str = ""  # as in BuildRecord
    test_seconds: float = NO_SECONDS  # the sum of its tests' times
    workflow: str = ""  # as in BuildRecord


def plan_build(situation: BuildContext, stream: str, author: str) -> PlannedBuild:
    """Return the planned build; `author` is the keyed hash of the change's author."""
    ci, change = situation.ci, situation.change
    known = change if isinstance(change, Change) else None
    hour, weekday = split_time(situation.started_at)
    size = measure_change(known.files if known else None)
    return PlannedBuild(
        stream=stream,
        started_at=situation.started_at,
        branch=ci.branch,
        base_branch=ci.base_branch,
        event=ci.event,
        author=author if known else "",
        commit=known.commit if known else "",
        is_pr=ci.event == "pull_request" if ci.event else None,
        hour=hour,
        weekday=weekday,
        **size._asdict(),
        number=ci.number,
        run=job_run(ci),
    )


def split_time(seconds: float) -> tuple[float, int]:
    """Return the hour of the day (UTC, fractional) and the weekday (0 is Monday) of seconds since the epoch."""
    day = seconds / 86_400
    return day % 1 * 24, int(day + 3) % 7


class ChangeSize(NamedTuple):
    """How large a change is and what it touches; None and "" for an unknown change."""

    files: float | None = None
    lines: float | None = None  # added and deleted
    build_file_touched: bool | None = None
    kinds: str = ""


def measure_change(files: Sequence[FileChange] | None) -> ChangeSize:
    """Return the size of a change and the kinds of its files."""
    if files is None:
        return ChangeSize()
    lines = sum(file.added + file.deleted for file in files)
    kinds = " ".join(sorted({file_kind(file.path) for file in files}))
    return ChangeSize(float(len(files)), float(lines), any(is_build_file(file.path) for file in files), kinds)


def job_alone(stream: str) -> str:
    """Return the job of a stream without its workflow and matrix cell.

    >>> job_alone("CI/unit|py3.11|github")
    'unit'
    """
    return stream.partition("|")[0].rpartition("/")[2]


MOST_RUNS_BETWEEN = 100  # that were not recorded, between the newest build of a stream and one that continues it


def stream_name(ci: CiRun, source: str, builds: Sequence[PastBuild] = ()) -> str:
    """Return the stream of a job run: workflow, job, matrix cell and duration source. Only equal streams are compared.

    Earlier versions named it without the workflow. A stream of `builds` with such a name goes on, for one workflow.
    """
    job = f"{ci.workflow}/{ci.job}" if ci.workflow else ci.job
    if ci.workflow and not any(build.stream.startswith(f"{job}|") for build in builds):
        earlier = [build for build in builds if build.stream.startswith(f"{ci.job}|")]
        if earlier and _continues(earlier, ci):
            job = ci.job
    return "|".join((job, ci.cell, source))


def _continues(earlier: Sequence[PastBuild], ci: CiRun) -> bool:
    """Return whether a job run belongs to the workflow of builds that were recorded without one, or with this one.

    The runs of one workflow are numbered in the order of their ids; two workflows that shared a stream are told by it.
    """
    if workflows := Counter(build.workflow for build in earlier if build.workflow):
        return ci.workflow == workflows.most_common(1)[0][0]
    numbers = {int(run): build.number for build in earlier if (run := build.run.partition("/")[0]).isdecimal()}
    known = [run_number for _, run_number in sorted(numbers.items()) if run_number is not None]
    if ci.number is None or not known:
        return True
    ascending = all(earlier_number < following for earlier_number, following in pairwise(known))
    return ascending and 0 <= ci.number - known[-1] <= MOST_RUNS_BETWEEN


def usual_stream(builds: Sequence[PastBuild], ci: CiRun) -> str:
    """Return the stream to predict: this job's newest, else (locally) the most frequent of the last 50 builds.

    The first build of a matrix cell or workflow will be timed as the others with this job are.

    A build without times, as of modules that could not be imported, is of a stream of its own: it is taken last.
    """
    own = stream_name(ci, "", builds)
    own_streams = [build.stream for build in builds if build.stream.startswith(own)]
    if own_streams:
        return next((stream for stream in reversed(own_streams) if not stream.endswith("|")), own_streams[-1])
    if ci.vendor != "local":
        timed = (build.stream for build in reversed(builds) if build.stream[-1:] != "|")
        return next((own + stream.rpartition("|")[2] for stream in timed if job_alone(stream) == job_alone(own)), own)
    lately = [build.stream for build in builds[-50:]]
    of_job = [stream for stream in lately if ci.job and f"/{own}" in stream]  # of any workflow
    return next((stream for stream, _ in Counter(of_job or lately).most_common(1)), own)


FORMAT = 1
MAXIMUM_BUILDS = 400  # past builds kept for the build tasks
MAXIMUM_FIRST_FAILURES = 200  # builds from which a selection learns what it would have caught
FORGET_AFTER = 500  # builds in which a test did not run before it is forgotten


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything known before the next build. `seen` names the applied record files."""

    seen: frozenset[str] = frozenset()
    count: int = 0  # builds applied, ever
    tests: TestTable = field(default_factory=dict)  # by id
    builds: tuple[PastBuild, ...] = ()  # oldest first
    cofailures: CofailureTable = field(default_factory=dict)
    first_failures: tuple[float, ...] = ()  # `Forecast.first_failure` of builds that had one, oldest first
    selections: SelectionTally = NO_SELECTIONS


def apply_record(summary: Summary, file: str, record: BuildRecord) -> Summary:
    """Return the summary after one more record."""
    tests = apply_test_runs(summary.tests, record, _previous(summary, record), summary.count)
    selections = apply_left_out(summary.selections, record, tests)
    return Summary(
        seen=summary.seen | {file},
        count=summary.count + 1,
        tests=_forget(tests, summary.count - FORGET_AFTER, selections.left_out),
        builds=(*summary.builds, past_build(record))[-MAXIMUM_BUILDS:],
        cofailures=apply_failures(summary.cofailures, record, summary.tests),
        first_failures=(*summary.first_failures, *_first_failure(record))[-MAXIMUM_FIRST_FAILURES:],
        selections=selections,
    )


def _first_failure(record: BuildRecord) -> tuple[float, ...]:
    share = record.forecast.first_failure if isinstance(record.forecast, Forecast) else NO_SECONDS
    return (share,) if isfinite(share) else ()


def apply_left_out(tally: SelectionTally, record: BuildRecord, tests: TestTable) -> SelectionTally:
    """Return the tally after one more build; `tests` is the table of tests after it.

    The escapes are an upper bound: a test may have begun to fail in the build that shows it.
    """
    if not tally.left_out and not record.left_out:
        return tally
    ran = {run.test for run in record.tests if run.outcome != Outcome.SKIPPED}
    began = set(record.forecast.began) if isinstance(record.forecast, Forecast) else set()
    escaped = not began.isdisjoint(tally.left_out)
    waiting = tuple(test for test in tally.left_out if test in tests and test not in ran)
    tally = tally._replace(escaped=tally.escaped + escaped, left_out=waiting)
    chosen = record.left_out
    if not chosen:
        return tally
    if chosen.shadow:
        return tally._replace(
            shadow_builds=tally.shadow_builds + 1,
            shadow_seconds=round(tally.shadow_seconds + chosen.seconds, 3),
            shadow_red=tally.shadow_red + bool(began),
            shadow_green=tally.shadow_green + (bool(began) and began.issubset(chosen.tests)),
        )
    return tally._replace(
        builds=tally.builds + 1,
        saved_seconds=round(tally.saved_seconds + chosen.seconds, 3),
        caught=tally.caught + (bool(began) and not escaped),
        left_out=tuple(dict.fromkeys((*waiting, *(test for test in chosen.tests if test in tests)))),
    )


def _previous(summary: Summary, record: BuildRecord) -> PreviousBuilds:
    """Return the previous builds of the stream with which the record's tests are compared."""
    builds, build = summary.builds, past_build(record)
    first = summary.count - len(builds)
    places = [n for n in reversed(range(len(builds))) if builds[n].stream == record.stream]
    if not places:
        return PreviousBuilds()
    if is_same_run(builds[places[0]], build):
        beside = takewhile(lambda n: is_same_run(builds[n], build), places)
        return PreviousBuilds(same_run=first + min(beside))
    return PreviousBuilds(first + places[0] if is_same_code(builds[places[0]], build) else NEVER)


def is_same_run(build: PastBuild | PlannedBuild, other: PastBuild | PlannedBuild) -> bool:
    """Return whether two builds of a stream are of one run of its job: cells that are not told apart, and no reruns."""
    return build.run != "" and build.run == other.run


def is_same_code(build: PastBuild | PlannedBuild, other: PastBuild | PlannedBuild) -> bool:
    """Return whether two builds ran the same code: one commit, and one size of change where that can be compared.

    A work tree that is built with a change of its own (a patch, a merge before the build) may state the commit that it
    is based on. Sizes are comparable between builds of one event; on one branch, one that is not known says nothing,
    and neither does one that differs where the CI says that the later build, `other`, is another attempt.
    """
    if not build.commit or build.commit != other.commit:
        return False
    if (build.files, build.lines) == (other.files, other.lines):
        return True
    comparable = build.event == other.event and build.files is not None and other.files is not None
    return build.branch == other.branch and not (comparable and not is_later_attempt(other.run))


def past_build(record: BuildRecord) -> PastBuild:
    """Return the fields of a record that the build tasks use."""
    hour, weekday = split_time(record.started_at)
    size = measure_change(record.files if record.change_known else None)
    return PastBuild(
        stream=record.stream,
        started_at=record.started_at,
        finished_at=record.finished_at,
        seconds=record.seconds,
        outcome=record.outcome.value,
        branch=record.branch,
        base_branch=record.base_branch,
        event=record.event,
        author=record.author,
        commit=record.commit,
        is_pr=record.event == "pull_request" if record.event else None,
        hour=hour,
        weekday=weekday,
        **size._asdict(),
        number=record.number,
        missed=record.missed,
        run=record.run,
        test_seconds=sum(run.seconds for run in record.tests if run.seconds > 0) or NO_SECONDS,
        workflow=record.workflow,
    )


def _forget(tests: dict[str, TestStats], before: int, left_out: Collection[str]) -> dict[str, TestStats]:
    """Return the table without the tests that did not run since the build with this index, were it not left out."""
    if before <= 0:
        return tests
    kept = set(left_out)
    return {test: stats for test, stats in tests.items() if stats.last_build >= before or test in kept}


def encode_summary(summary: Summary) -> bytes:
    """Encode the summary as JSON, tests and builds by column."""
    content = {
        "format": FORMAT,
        "schema": schema().digest,
        "words": _words_digest(),
        "seen": sorted(summary.seen),
        "count": summary.count,
        "tests": {name: _sparse(column) for name, column in pack_tests(summary.tests).items()},
        "builds": pack_builds(summary.builds),
        "cofailures": pack_cofailures(summary.cofailures),
        "first_failures": list(summary.first_failures),
        "selections": list(summary.selections),
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def decode_summary(content: bytes) -> Summary:
    """Decode a summary. Raise HistoryError if it is damaged or of another format.

    Of the schema it holds nothing but the numbers of words. Applying 500 builds of 5,000 tests takes half a minute.
    """
    try:
        fields = json.loads(content)
        if fields["format"] != FORMAT:
            raise HistoryError("the summary was made by another version of fedstep")
        tests = unpack_tests({name: _dense(name, column) for name, column in fields["tests"].items()})
        if fields["schema"] != schema().digest and fields.get("words") != _words_digest():
            _renumber_words(tests)
        return Summary(
            frozenset(map(str, fields["seen"])),
            int(fields["count"]),
            tests,
            unpack_builds(fields["builds"]),
            unpack_cofailures(fields.get("cofailures", {})),
            tuple(map(float, fields.get("first_failures", ()))),
            _unpack_tally(fields.get("selections", ())),
        )
    except MALFORMED as error:
        raise HistoryError("the summary is damaged") from error


def _renumber_words(tests: TestTable) -> None:
    """Give all tests the words of their names in this schema; those of their sources are read again by `train`."""
    for stats in tests.values():
        stats.name_words, stats.source_words = name_words(stats.test), None


def _words_digest() -> str:
    """Return a name for the words that have a number in the stats of tests."""
    words = [tuple(schema().words(part).index) for part in ("name", "source")]
    return sha256(repr(words).encode()).hexdigest()[:16]


def _unpack_tally(fields: Sequence[Any]) -> SelectionTally:
    """Return the tally of a summary. Raise TypeError or ValueError for other values."""
    values: list[Any] = list(fields or NO_SELECTIONS)
    return with_types(SelectionTally._make((*values[:-1], tuple(map(str, values[-1])))))


def pack_builds(builds: Sequence[PastBuild]) -> dict[str, list[object]]:
    """Return the builds as JSON values by column."""
    return {name: [_plain(getattr(build, name)) for build in builds] for name in PastBuild._fields}


def unpack_builds(columns: dict[str, Sequence[Any]]) -> tuple[PastBuild, ...]:
    """Return the builds of `pack_builds`' columns."""
    for name in {"seconds", "missed", "test_seconds"}.intersection(columns):
        columns[name] = [NO_SECONDS if value is None else value for value in columns[name]]
    rows = zip(*columns.values(), strict=True)
    return tuple(with_types(PastBuild(**dict(zip(columns, row, strict=True)))) for row in rows)


def _sparse(column: list[Any]) -> object:
    """Encode a column that mostly has one value as that value and the exceptions, since most tests are alike."""
    if not column or any(isinstance(value, list) for value in column):
        return column
    usual, count = Counter(column).most_common(1)[0]
    if count < len(column) / 2:
        return column
    exceptions = [(index, value) for index, value in enumerate(column) if value != usual]
    return {"length": len(column), "usual": usual, "at": [n for n, _ in exceptions], "is": [v for _, v in exceptions]}


def _dense(name: str, column: Any) -> list[Any]:
    """Return the values of a column. Raise TypeError or ValueError for one that is not of the column's kind."""
    check_column(name, column if isinstance(column, list) else [column["usual"], *column["is"]])
    if isinstance(column, list):
        return column
    values = [column["usual"]] * int(column["length"])
    for index, value in zip(column["at"], column["is"], strict=True):
        values[index] = value
    return values


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not isfinite(value) else value


class LoadedSummary(NamedTuple):
    """The summary with every readable record applied, and warnings about skipped ones."""

    summary: Summary
    warnings: tuple[str, ...] = ()


Progress = Callable[[int, int], None]
"""Called with the number of builds that were read and of those to read."""


def say_nothing(*_numbers: int) -> None:
    """Report no progress."""


def load_summary(store: ProjectStore) -> LoadedSummary:
    """Return the cached summary with the records applied that it has not seen; the cache is not changed."""
    summary, warnings = read_summary(store), []
    for name, record in unprocessed_records(store, summary):
        if isinstance(record, Dropped):
            warnings.append(f"{record.source} is skipped: {record.reason}")
            summary = replace(summary, seen=summary.seen | {name})
        else:
            summary = apply_record(summary, name, record)
    return LoadedSummary(summary, tuple(warnings))


def read_summary(store: ProjectStore) -> Summary:
    """Return the cached summary, or an empty one if there is no valid one."""
    try:
        content = store.read(SUMMARY)
        return decode_summary(content) if content else Summary()
    except HistoryError:
        return Summary()


def save_summary(store: ProjectStore, summary: Summary) -> None:
    """Replace the cached summary."""
    store.write(SUMMARY, encode_summary(summary))


def unprocessed_records(store: ProjectStore, summary: Summary) -> Iterator[tuple[str, BuildRecord | Dropped]]:
    """Iterate lazily over the records that the summary does not know, oldest first, one per build."""
    known = {build_name(name) for name in summary.seen}
    fresh = {build_name(name): name for name in reversed(store.log.files()) if build_name(name) not in known}
    return store.log.entries(sorted(fresh.values()))


def forget_pruned(store: ProjectStore, summary: Summary) -> Summary:
    """Return the summary without the names of pruned files: those older than the oldest that is left."""
    oldest = next(iter(store.log.files()), "")
    return replace(summary, seen=frozenset(name for name in summary.seen if name >= oldest))


def cache_key(summary: Summary) -> str:
    """Return a name for the set of records behind a cache; caches of different generations do not match."""
    return sha256("\n".join(sorted(summary.seen)).encode()).hexdigest()[:16]


def repeats_last(builds: Sequence[PastBuild], planned: PlannedBuild) -> bool:
    """Return whether the build runs the same code as the newest build of its stream."""
    newest = _newest(builds, planned.stream)
    return newest is not None and is_same_code(newest, planned) and not is_same_run(newest, planned)


def shares_run(builds: Sequence[PastBuild], planned: PlannedBuild) -> bool:
    """Return whether the newest build of the stream is of the same run of the job."""
    newest = _newest(builds, planned.stream)
    return newest is not None and is_same_run(newest, planned)


def _newest(builds: Sequence[PastBuild], stream: str) -> PastBuild | None:
    return next((build for build in reversed(builds) if build.stream == stream), None)
