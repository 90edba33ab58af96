"""Build records of the log and their encoding."""

import json
import sys
import zlib
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, groupby, pairwise
from math import isfinite, isinf, isnan
from types import MappingProxyType
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, HistoryError
from fedstep.ingest.ci import job_run
from fedstep.types import (
    MAX_SECONDS,
    NO_SECONDS,
    Build,
    BuildOutcome,
    Change,
    Duration,
    FileChange,
    LeftOut,
    Outcome,
    TestRun,
    Unavailable,
    fingerprint,
)

FORMAT = 1
LARGEST_RUN_NUMBER = 10**12
MAXIMUM_FILES = 500  # changed files kept of one build
MAXIMUM_BYTES = 64 << 20  # of one record, unpacked: a build of a million tests takes about 50 MB


class Example(NamedTuple):
    """The features of one prediction, as known before the build ran; the label follows later."""

    subject: str  # the test, or the name of the build
    run: int  # number of known runs of the test when the example was made
    indices: tuple[int, ...]  # into the task's coordinates
    values: tuple[float, ...]
    private: tuple[str, ...]  # names of private features: "class=org.foo.BarTest"
    target: float = NO_SECONDS  # a target known at once: 0/1, or log(seconds / estimate); else NO_SECONDS


class Forecast(NamedTuple):
    """What was predicted for a build before anything was learned from it."""

    seconds: float = NO_SECONDS  # expected duration; NO_SECONDS where none could be predicted
    low: float = NO_SECONDS  # ends of its 90 % interval
    high: float = NO_SECONDS
    jenkins: float = NO_SECONDS  # Jenkins' estimate
    risk: float = NO_SECONDS  # probability that the build does not pass; NO_SECONDS as above
    flaky: Mapping[str, float] = MappingProxyType({})  # failed test -> probability that the failure is flaky
    version: int = 0  # of the shared model; 0: the starter model
    first_failure: float = NO_SECONDS  # share of the test time until the first real failure, likely failures first
    began: tuple[str, ...] = ()  # tests that began to fail in this build and are not judged flaky


NO_FORECAST = Unavailable("nothing was predicted when this build was recorded")


class BuildRecord(NamedTuple):
    """A finished build, as stored in the history. Times are seconds since the epoch, UTC."""

    name: str
    started_at: float
    finished_at: float
    seconds: float  # NO_SECONDS where the duration is unknown
    stream: str  # workflow, job, matrix cell and source of the duration: builds of one stream are comparable
    outcome: BuildOutcome
    branch: str = ""
    base_branch: str = ""
    event: str = ""
    author: str = ""  # a keyed hash
    commit: str = ""
    change_known: bool = False
    files: tuple[FileChange, ...] = ()
    tests: tuple[TestRun, ...] = ()
    source_words: Mapping[str, tuple[str, ...]] = MappingProxyType({})  # test -> listed words of its source
    schema: str = ""  # digest of the schema of the rows
    rows: Mapping[str, tuple[Example, ...]] = MappingProxyType({})  # by task
    number: int | None = None  # of the run in its workflow
    forecast: Forecast | Unavailable = NO_FORECAST
    left_out: LeftOut | None = None  # None: no selection was made
    missed: float = NO_SECONDS  # by how much its time missed the slow estimates, in logarithms; NO_SECONDS: no estimate
    run: str = ""  # of the CI, as `job_run` writes it; "" where it is not known
    origins: tuple[str, ...] = ()  # of `tests`, as `fingerprint` writes them; () where they are not known
    workflow: str = ""  # as in CiRun; earlier records have none


def make_record(build: Build, stream: str, author: str) -> BuildRecord:
    """Return the record of a build, without examples and with at most MAXIMUM_FILES changed files."""
    ci, change, duration = build.situation.ci, build.situation.change, build.duration
    known = change if isinstance(change, Change) else None
    return BuildRecord(
        name=build.name,
        started_at=build.situation.started_at,
        finished_at=build.finished_at,
        seconds=duration.seconds if isinstance(duration, Duration) else NO_SECONDS,
        stream=stream,
        outcome=build.outcome,
        branch=ci.branch,
        base_branch=ci.base_branch,
        event=ci.event,
        author=author,
        commit=known.commit if known else "",
        change_known=known is not None,
        files=known.files[:MAXIMUM_FILES] if known else (),
        tests=build.reports.tests,
        number=ci.number,
        run=job_run(ci),
        origins=tuple(map(fingerprint, build.reports.origins)),
        workflow=ci.workflow,
    )


def encode_record(record: BuildRecord) -> bytes:
    """Encode the record as zlib-compressed JSON; equal records give equal bytes."""
    tests = record.tests
    fields = {
        "format": FORMAT,
        "name": record.name,
        "started_at": round(record.started_at, 3),
        "finished_at": round(record.finished_at, 3),
        "seconds": _number(record.seconds),
        "stream": record.stream,
        "outcome": record.outcome.value,
        "branch": record.branch,
        "base_branch": record.base_branch,
        "event": record.event,
        "author": record.author,
        "commit": record.commit,
        "number": record.number,
        "change_known": record.change_known,
        "files": [[file.path, file.added, file.deleted, file.renamed_from] for file in record.files],
        "tests": [run.test for run in tests],
        "outcomes": "".join(run.outcome for run in tests),
        "milliseconds": [-1 if isnan(run.seconds) else round(run.seconds * 1000) for run in tests],
        "failure_types": {run.test: run.failure_type for run in tests if run.failure_type},
        "signatures": {run.test: run.signature for run in tests if run.signature},
        "source_words": {test: list(words) for test, words in record.source_words.items()},
        "schema": record.schema,
        "rows": {task: [_pack_row(row) for row in rows] for task, rows in record.rows.items()},
    }
    # Keys that older versions of fedstep do not read.
    if isinstance(record.forecast, Forecast):
        fields["forecast"] = _pack_forecast(record.forecast)
    if record.left_out:  # likewise
        fields["left_out"] = [record.left_out.tests, round(record.left_out.seconds, 3), record.left_out.shadow]
    if isfinite(record.missed):
        fields["missed"] = _number(record.missed)
    if record.run:
        fields["run"] = record.run
    if record.workflow:
        fields["workflow"] = record.workflow
    if record.origins:  # those of one class follow each other, and are mostly equal
        fields["origins"] = [[origin, len(list(equal))] for origin, equal in groupby(record.origins)]
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return zlib.compress(text.encode(), 6)


def decode_record(packed: bytes) -> BuildRecord:
    """Decode a record. Raise HistoryError if it is truncated, damaged, too large or of another format."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, MAXIMUM_BYTES)
        if not unpacker.eof:
            raise HistoryError("the record is cut short or larger than 64 MB")
        return _record(json.loads(text))
    except MALFORMED as error:
        raise HistoryError("the record is damaged", "It is skipped; delete the file to silence this") from error


def _record(fields: Mapping[str, Any]) -> BuildRecord:
    if fields["format"] != FORMAT:
        raise HistoryError(f"the record has format {fields['format']}, this fedstep reads {FORMAT}", "Upgrade fedstep")
    tests = _unpack_runs(fields)
    return BuildRecord(
        name=str(fields["name"]),
        started_at=_finite(fields["started_at"]),
        finished_at=_finite(fields["finished_at"]),
        seconds=_seconds(fields["seconds"]),
        stream=str(fields["stream"]),
        outcome=BuildOutcome(fields["outcome"]),
        branch=str(fields["branch"]),
        base_branch=str(fields["base_branch"]),
        event=str(fields["event"]),
        author=str(fields["author"]),
        commit=str(fields["commit"]),
        change_known=bool(fields["change_known"]),
        files=tuple(
            FileChange(_text(path), int(added), int(deleted), _text(before))
            for path, added, deleted, before in fields["files"]
        ),
        tests=tests,
        source_words={test: tuple(map(_text, words)) for test, words in fields["source_words"].items()},
        schema=str(fields["schema"]),
        rows={task: tuple(_unpack_row(row) for row in rows) for task, rows in fields["rows"].items()},
        number=_run_number(fields.get("number")),  # older records have none
        forecast=_unpack_forecast(fields["forecast"]) if "forecast" in fields else NO_FORECAST,
        left_out=_unpack_left_out(*fields["left_out"]) if "left_out" in fields else None,
        missed=_seconds(fields.get("missed")),
        run=_text(fields.get("run", "")),
        origins=_unpack_origins(fields.get("origins", ()), len(tests)),
        workflow=_text(fields.get("workflow", "")),
    )


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def _unpack_runs(fields: Mapping[str, Any]) -> tuple[TestRun, ...]:
    """Return the runs of a record's tests. For 5,000 it takes 3 ms, with a conversion for each field of each run 10."""
    names, letters, times = tuple(map(_text, fields["tests"])), fields["outcomes"], fields["milliseconds"]
    if not len(names) == len(letters) == len(times):
        raise ValueError("the columns have different lengths")
    longest = 1000 * MAX_SECONDS  # older versions kept nanoseconds
    seconds = [ms / 1000 if 0 <= ms <= longest else NO_SECONDS for ms in times]
    kinds, signatures = fields["failure_types"], fields.get("signatures", {})  # older records have none
    known_runs = {*kinds, *signatures}
    return tuple(
        run._replace(failure_type=_text(kinds.get(run.test, "")), signature=_text(signatures.get(run.test, "")))
        if run.test in known_runs
        else run
        for run in map(TestRun, names, map(_OUTCOMES.__getitem__, letters), seconds)
    )


def _unpack_origins(pairs: Sequence[Sequence[Any]], count: int) -> tuple[str, ...]:
    """Return the origins of so many tests, none where the record has none. Raise ValueError for another number."""
    if pairs and sum(int(times) for _, times in pairs if int(times) > 0) != count:
        raise ValueError("the record has not one origin for each test")
    return tuple(chain.from_iterable([_text(origin)] * int(times) for origin, times in pairs))


_FORECAST_NUMBERS = (*Forecast._fields[:5], "first_failure")


def _pack_forecast(forecast: Forecast) -> dict[str, object]:
    flaky = {test: round(chance, 6) for test, chance in forecast.flaky.items()}
    numbers = {name: _number(getattr(forecast, name)) for name in _FORECAST_NUMBERS}
    return {**{name: value for name, value in numbers.items() if value is not None}, "flaky": flaky} | {
        name: value for name, value in (("version", forecast.version), ("began", forecast.began)) if value
    }


def _unpack_forecast(fields: Mapping[str, Any]) -> Forecast:
    numbers = {name: _seconds(fields.get(name)) for name in _FORECAST_NUMBERS}
    flaky = {_text(test): _finite(chance) for test, chance in fields["flaky"].items()}
    began = tuple(map(_text, fields.get("began", ())))
    return Forecast(**numbers, flaky=flaky, version=int(fields.get("version", 0)), began=began)


def _unpack_left_out(tests: Sequence[object], seconds: float, shadow: bool) -> LeftOut:
    return LeftOut(tuple(map(_text, tests)), max(0.0, _finite(seconds)), bool(shadow))


def _text(value: object) -> str:
    """Return the value. Raise TypeError if it is no string: it would fail later, where records are trusted."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError(f"{value} is no time")
    return float(value)


def _run_number(value: int | None) -> int | None:
    """Return the number of a run. Raise ValueError for one that no CI gives, TypeError for what is no number."""
    if value is not None and not 0 <= int(value) < LARGEST_RUN_NUMBER:
        raise ValueError(f"{value} is no number of a run")
    return None if value is None else int(value)


def _number(value: float) -> float | None:
    return None if isnan(value) else round(value, 6)


def _seconds(value: float | None) -> float:
    return NO_SECONDS if value is None else _finite(value)


def _pack_row(row: Example) -> list[object]:
    """Return the example as a JSON list."""
    values = [round(value, 6) for value in row.values]
    return [row.subject, row.run, row.indices, values, row.private, _number(row.target)]


def _unpack_row(fields: list[Any]) -> Example:
    """Return the example of `_pack_row`'s list."""
    subject, run, indices, values, private, target = fields
    features = tuple(map(int, indices)), tuple(map(float, values))
    return Example(_text(subject), int(run), *features, tuple(map(_text, private)), _seconds(target))


LARGEST = 1 << 28  # bytes of one column, unpacked


def pack_examples(rows: Sequence[Example]) -> dict[str, object]:
    """Return the examples as JSON values; indices and values are compressed little-endian numbers."""
    return {
        "subjects": [row.subject for row in rows],
        "runs": [row.run for row in rows],
        "private": [row.private for row in rows],
        "targets": [None if isnan(row.target) else row.target for row in rows],
        "sizes": [len(row.indices) for row in rows],
        "indices": _pack(array("I", chain.from_iterable(row.indices for row in rows))),
        "values": _pack(array("d", chain.from_iterable(row.values for row in rows))),
    }


def unpack_examples(columns: Mapping[str, Any]) -> tuple[Example, ...]:
    """Return the examples of `pack_examples`. Raise ValueError, KeyError, TypeError or zlib.error for other input."""
    indices, values = _unpack("I", columns["indices"]), _unpack("d", columns["values"])
    ends = list(accumulate(columns["sizes"], initial=0))
    if not len(indices) == len(values) == ends[-1]:
        raise ValueError("the columns have different lengths")
    targets = tuple(NO_SECONDS if target is None else float(target) for target in columns["targets"])
    if not isfinite(sum(values)) or any(map(isinf, targets)):
        raise ValueError("a number is not finite")
    named = zip(columns["subjects"], columns["runs"], pairwise(ends), columns["private"], targets, strict=True)
    return tuple(
        Example(str(subject), int(run), tuple(indices[start:end]), tuple(values[start:end]), tuple(private), target)
        for subject, run, (start, end), private, target in named
    )


def _pack(numbers: "array[Any]") -> str:
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(zlib.compress(numbers.tobytes(), 1)).decode()


def _unpack(code: str, text: str) -> "array[Any]":
    numbers = array(code)
    numbers.frombytes(zlib.decompressobj().decompress(b64decode(text), LARGEST))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
