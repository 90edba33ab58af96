"""Past builds recorded in a folder: one sub-folder per build, with a build.json and JUnit reports beside it."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fedstep.importers.base import BuildFilter, ImportItem, ImportSource, ReadResult, select_newest
from fedstep.ingest.ci import parse_outcome, parse_time
from fedstep.ingest.junit import expand, read_reports
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Dropped,
    Duration,
    FileChange,
    FinishedBuild,
    Unavailable,
)

SOURCE = "recorded"  # the source of the durations
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def find_build_folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders at or below `folder` that have a build.json, in the order in which the builds ended."""
    return tuple(
        sorted((path.parent for path in folder.glob("**/build.json")), key=lambda path: (_end_time(path), path))
    )


def open_folder(folder: Path, build_filter: BuildFilter) -> ImportSource:
    """Return the recorded builds below the folder, oldest first, with the times and jobs of their build.json."""
    items = (ImportItem(_end_time(path), partial(_read, path)) for path in find_build_folders(folder))
    chosen = select_newest((item for item in items if not 0 < item.after < build_filter.since), build_filter)
    return ImportSource(len(chosen), chosen, apart=True)


def _read(folder: Path) -> tuple[ReadResult, ...]:
    return (read_folder(folder),)


def read_folder(folder: Path) -> FinishedBuild | Dropped:
    """Return one recorded build, or why it cannot be used."""
    try:
        fields = json.loads((folder / "build.json").read_bytes())
        started, seconds = _times(fields)
        ci, files = _ci(fields), tuple(_file(change) for change in fields.get("changes") or ())
        words = tuple(map(str, fields.get("words") or ()))
    except _UNREADABLE as error:
        return Dropped(str(folder / "build.json"), f"cannot be read ({type(error).__name__}: {error})")
    reports = read_reports(expand(["**/*.xml"], folder), "")
    change = Change(_text(fields, "commit"), "", _text(fields, "author"), files, base="the first parent", words=words)
    situation = BuildContext(ci, change._replace(tree=change.commit), started)
    told = parse_outcome(_text(fields, "outcome"))
    outcome = told if isinstance(told, BuildOutcome) else reports.outcome()
    if outcome == BuildOutcome.UNKNOWN:
        return Dropped(str(folder), "neither build.json nor a report tells how the build went")
    return FinishedBuild(
        situation=situation,
        finished_at=started + seconds,
        duration=Duration(seconds, SOURCE),
        outcome=outcome,
        reports=reports._replace(digest=""),
    )


def _end_time(folder: Path) -> float:
    """Return when the build ended, in seconds since the epoch; 0 where that cannot be read."""
    try:
        return sum(_times(json.loads((folder / "build.json").read_bytes())))
    except _UNREADABLE:
        return 0.0


def _times(fields: Mapping[str, Any]) -> tuple[float, float]:
    """Return start and duration in seconds. Raise ValueError where one of them is unusable."""
    started, seconds = parse_time(str(fields["started_at"])), float(fields["seconds"])
    if isinstance(started, Unavailable):
        raise ValueError(f"started_at {started.reason}")
    if not 0 < seconds < 1e8:
        raise ValueError(f"seconds {seconds:g} is no duration")
    return started, seconds


def _ci(fields: Mapping[str, Any]) -> CiRun:
    return CiRun(
        vendor="recorded",
        run=_text(fields, "build"),
        attempt=int(fields.get("attempt", 1)),
        job=_text(fields, "job"),
        branch=_text(fields, "branch"),
        base_branch=_text(fields, "base_branch"),
        event=_text(fields, "event"),
    )


def _file(change: Mapping[str, Any]) -> FileChange:
    return FileChange(str(change["path"]), int(change.get("added", 0)), int(change.get("deleted", 0)))


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name) or "")
