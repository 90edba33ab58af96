"""Records past builds in time order and learns from them as if each had just run."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click

from fedstep.build.record import Dropped, Evidence, TestRun
from fedstep.federation.kept import kept_model
from fedstep.history.home import Home
from fedstep.importers.folder import build_folders, read_folder
from fedstep.outlook import keep_outlook
from fedstep.steps import forecaster_for, observe, record
from fedstep.training import learn

__all__ = ["Backfilled", "backfill_folder"]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What went in: builds recorded now, builds known before, test results read, rows learned; and what did not."""

    recorded: int = 0
    known: int = 0
    tests: int = 0
    rows: int = 0
    warnings: tuple[str, ...] = ()


def backfill_folder(home: Home, folder: str) -> Backfilled:
    """Record and learn every build below the folder, in the order in which they ended; a build counts once.

    Needs scikit-learn. One build at a time is in memory.
    """
    total = Backfilled()
    with click.progressbar(build_folders(Path(folder)), label="builds", file=sys.stderr) as bar:
        for path in bar:
            found = read_folder(path)
            total = _warned(total, found) if isinstance(found, Dropped) else _backfilled(total, home, found)
    kept = kept_model(home)
    keep_outlook(home, kept, forecaster_for(home, kept))
    return total


def _warned(total: Backfilled, dropped: Dropped) -> Backfilled:
    return replace(total, warnings=(*total.warnings, f"{dropped.source} {dropped.reason}"))


def _backfilled(total: Backfilled, home: Home, evidence: Evidence) -> Backfilled:
    kept, tests = kept_model(home), total.tests + len(evidence.reports.tests)
    if not record(home, observe(home, evidence, kept), _no_words):
        return replace(total, known=total.known + 1, tests=tests)
    learned = learn(home, kept, refit=False)
    return Backfilled(
        total.recorded + 1, total.known, tests, total.rows + learned.rows.learned, (*total.warnings, *learned.warnings)
    )


def _no_words(_runs: tuple[TestRun, ...]) -> Mapping[str, tuple[str, ...]]:
    """Recorded builds come without their sources."""
    return {}
