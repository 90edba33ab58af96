"""Render what was read, repaired and refused in report files, and why: `fedstep reports`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum, isnan
from typing import NamedTuple

from fedstep.ingest.jenkins_compat import UNREADABLE
from fedstep.ingest.junit import FileReading
from fedstep.report.json import encode_object
from fedstep.report.markdown import code, more, table
from fedstep.report.markdown import page as markdown_page
from fedstep.report.text import WIDTH, join_lines, pad, wrap
from fedstep.report.units import columns, count, shorten, span, visible
from fedstep.types import Dropped, Outcome, TestRun, Unavailable

HEADS = ("File", "Dialect", "Tests", "Pass", "Fail", "Skip", "Flaky", "Time", "Repaired", "Refused")
MOST_LINES = 50  # of repairs or refusals in text; JSON has all
MOST_FILES = 500


@dataclass(frozen=True, slots=True)
class ReportSurvey:
    """The readings of all files, and the tests of the build that they make together, each once."""

    files: tuple[FileReading, ...]
    tests: tuple[TestRun, ...]


class _Counts(NamedTuple):
    tests: int
    passed: int
    failed: int
    skipped: int
    flaky: int
    seconds: float


def survey_text(survey: ReportSurvey) -> str:
    """Return the table, where Jenkins counts differ, and what was repaired or refused; at most 100 columns."""
    rows = [*_rows(survey.files[:MOST_FILES]), _total(survey)]
    widths = [max(map(columns, column)) for column in zip(HEADS, *rows, strict=True)]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    lines = [_line(row, widths) for row in (HEADS, *rows)]
    if len(survey.files) > MOST_FILES:
        lines.insert(-1, f"... {count(len(survey.files) - MOST_FILES, 'more file')}, in --format json")
    for title, texts in _sections(survey.files):
        lines += ["", f"{title}:", *(line for text in texts for line in wrap(visible(text, 4 * WIDTH), 2))]
    return join_lines(lines)


def survey_markdown(survey: ReportSurvey) -> str:
    """Return the survey for a step summary."""
    rows = [(code(row[0]), *row[1:]) for row in _rows(survey.files[:MOST_FILES])]
    parts = [table(HEADS, [*rows, _total(survey)]), *more(len(survey.files) - MOST_FILES)]
    for title, texts in _sections(survey.files):
        parts += [f"### {title}", table(("",), [(code(text),) for text in texts])]
    return markdown_page("## fedstep: test reports", *parts)


def survey_json(survey: ReportSurvey) -> str:
    """Return one JSON object; lines end with a newline."""
    total = _json_counts(_counts(survey.tests))
    return encode_object({"files": [_json_file(file) for file in survey.files], "total": total})


def _rows(files: Sequence[FileReading]) -> Iterator[tuple[str, ...]]:
    for file in files:
        repaired, refused = _split(file)
        name = visible(file.source)
        yield (name, file.dialect or "none", *_numbers(_counts(file.tests)), str(len(repaired)), str(len(refused)))


def _total(survey: ReportSurvey) -> tuple[str, ...]:
    """Return the total; attempts at one test in several files count once, as in `train`."""
    lost = [_split(file) for file in survey.files]
    ends = (str(sum(len(pair[side]) for pair in lost)) for side in (0, 1))
    return (count(len(survey.files), "file"), "", *_numbers(_counts(survey.tests)), *ends)


def _numbers(counts: _Counts) -> tuple[str, ...]:
    *numbers, seconds = counts
    return (*(f"{figure:,}" for figure in numbers), span(seconds))


def _counts(tests: Sequence[TestRun]) -> _Counts:
    letters = [run.outcome for run in tests]
    passed, skipped, flaky = map(letters.count, (Outcome.PASSED, Outcome.SKIPPED, Outcome.FLAKED))
    seconds = fsum(run.seconds for run in tests if not isnan(run.seconds))
    return _Counts(len(tests), passed, len(tests) - passed - skipped - flaky, skipped, flaky, seconds)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Align names to the left and numbers to the right."""
    cells = [pad(shorten(cell, width), width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    return "  ".join([*cells, *(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))])


def _sections(files: Sequence[FileReading]) -> Iterator[tuple[str, list[str]]]:
    split = [_split(file) for file in files]
    for title, texts in (
        ("Jenkins counts otherwise", [line for file in files for line in _jenkins(file)]),
        ("Repaired", [f"{drop.source}: {drop.reason}" for repaired, _ in split for drop in repaired]),
        ("Refused", [f"{drop.source}: {drop.reason}" for _, refused in split for drop in refused]),
    ):
        if texts:
            rest = len(texts) - MOST_LINES
            yield title, texts[:MOST_LINES] + ([f"... {rest:,} more, in --format json"] if rest > 0 else [])


def _jenkins(file: FileReading) -> Iterator[str]:
    """Yield what Jenkins shows for the file and why, where it differs. Jenkins counts flaky tests as passed."""
    theirs, own_counts = file.jenkins, _counts(file.tests)
    if isinstance(theirs, Unavailable) or tuple(theirs) == (own_counts.tests, own_counts.failed, own_counts.skipped):
        return
    if theirs is UNREADABLE:
        why = "it cannot parse the file, and makes a failed test of that"
    elif theirs.tests == file.cases > own_counts.tests:
        why = f"it counts each of {file.cases:,} cases, also several of one test"
    elif theirs.tests < own_counts.tests:
        why = "it drops a suite that repeats the name and time of another"
    else:
        why = "it knows fewer marks of a test that failed or was skipped"
    yield f"{file.source}: {count(theirs.tests, 'test')}, {theirs.failed:,} failed, {theirs.skipped:,} skipped; {why}"


def _split(file: FileReading) -> tuple[list[Dropped], list[Dropped]]:
    """Return what was repaired and what was refused."""
    return [drop for drop in file.dropped if drop.kept], [drop for drop in file.dropped if not drop.kept]


def _json_file(file: FileReading) -> dict[str, object]:
    repaired, refused = ([{"source": drop.source, "reason": drop.reason} for drop in part] for part in _split(file))
    jenkins = {"reason": file.jenkins.reason} if isinstance(file.jenkins, Unavailable) else file.jenkins._asdict()
    return {
        "file": file.source,
        "dialect": file.dialect,
        **_json_counts(_counts(file.tests)),
        "attempts": file.cases,
        "jenkins": jenkins,
        "repaired": repaired,
        "refused": refused,
    }


def _json_counts(counts: _Counts) -> dict[str, object]:
    return {**counts._asdict(), "seconds": round(counts.seconds, 3)}
