"""Records past builds in time order and learns from them as if each had just run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from fedstep.build.record import Dropped, TestRun
from fedstep.federation.kept import kept_model
from fedstep.history.home import Home
from fedstep.importers.folder import build_folders, read_folder
from fedstep.steps import Evidence, observe, record
from fedstep.training import learn

__all__ = ["Backfilled", "backfill_folder"]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What went in: builds recorded now, builds known before, test results read, rows learned; and what did not."""

    recorded: int
    known: int
    tests: int
    rows: int
    warnings: tuple[str, ...]


def backfill_folder(home: Home, folder: str) -> Backfilled:
    """Record and learn every build below the folder, oldest first. Needs scikit-learn; a build counts once."""
    found = [read_folder(path) for path in build_folders(Path(folder))]
    builds = sorted((item for item in found if isinstance(item, Evidence)), key=lambda item: item.situation.started_at)
    warnings = [f"{item.source} {item.reason}" for item in found if isinstance(item, Dropped)]
    recorded = rows = 0
    with click.progressbar(builds, label="builds", file=click.get_text_stream("stderr")) as bar:
        for evidence in bar:
            kept = kept_model(home)
            if record(home, observe(home, evidence, kept), _no_words):
                recorded += 1
                learned = learn(home, kept, refit=False)
                rows += learned.rows.learned
                warnings += learned.warnings
    tests = sum(len(evidence.reports.tests) for evidence in builds)
    return Backfilled(recorded, len(builds) - recorded, tests, rows, tuple(warnings))


def _no_words(_runs: tuple[TestRun, ...]) -> Mapping[str, tuple[str, ...]]:
    """Recorded builds come without their sources."""
    return {}
