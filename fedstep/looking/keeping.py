"""What a doctor sees of the history folder: whether it can be kept, what is in it, what waits in it."""

import os
from pathlib import Path

from fedstep.errors import HistoryError
from fedstep.features.schema import schema
from fedstep.federation.kept import Kept
from fedstep.federation.outbox import DAMAGED, SUFFIX
from fedstep.history.home import Home
from fedstep.history.log import list_folder, remove
from fedstep.history.memory import Remembered
from fedstep.report.diagnosis import OK, PROBLEM, WARNING, Check
from fedstep.report.units import count, size, span

__all__ = ["check_builds", "check_folder", "check_model", "check_outbox"]

FEWEST_BUILDS = 3  # before a time is predicted
OLD_MODEL = 30 * 86_400  # seconds


def check_folder(home: Home) -> Check:
    """Whether the folder is there, can be written, and has a key that can be used."""
    if not os.path.lexists(home.folder):
        above = Path(home.folder).parent
        if not os.access(above, os.W_OK):
            return Check("History", PROBLEM, f"{home.folder} cannot be made", "Point --history at another folder")
        return Check("History", WARNING, f"{home.folder} is not there yet", "fedstep train after your tests makes it")
    try:
        if home.read("key"):
            home.key()
        files = list_folder(home.folder)
        home.write(".doctor", b"")
        remove(home.path(".doctor"))
    except HistoryError as error:
        return Check("History", PROBLEM, str(error.args[0]), error.remedy)
    taken = sum(path.stat().st_size for path in Path(home.folder).rglob("*") if path.is_file())
    return Check("History", OK, f"{home.folder}: {size(taken)} in {count(len(files), 'entry', 'entries')}, writable")


def check_builds(remembered: Remembered, in_ci: bool) -> Check:
    """How much of the project's past is known."""
    summary = remembered.summary
    says = f"{count(summary.count, 'build')} and {count(len(summary.tests.ids), 'test')} known"
    if remembered.warnings:
        more = f" ({len(remembered.warnings) - 1} more)" if len(remembered.warnings) > 1 else ""
        return Check("Builds", WARNING, f"{says}; {remembered.warnings[0]}{more}", "Delete the files that it names")
    if summary.count >= FEWEST_BUILDS:
        return Check("Builds", OK, says)
    kept = "Keep the history folder from build to build: a cache, or the workspace"
    learn = "fedstep train --junit GLOB after each build, or fedstep backfill FOLDER"
    return Check("Builds", WARNING, f"{says}; times are predicted from {FEWEST_BUILDS} on", kept if in_ci else learn)


def check_model(kept: Kept, now: float, url: str) -> Check:
    """Which model answers, and whether it is of this schema."""
    ours = f"feature schema {schema().digest}"
    if kept.warning:
        return Check("Model", PROBLEM, f"{kept.warning}; {ours}", f"fedstep pull --aggregator {url or 'URL'}")
    if not kept.url:
        return Check("Model", OK, f"the starter model, shipped with fedstep; {ours}")
    age = max(0.0, now - kept.fetched_at)
    says = f"production {kept.model.production_version} from {kept.url}, pulled {span(age)} ago; {ours}"
    old = age > OLD_MODEL
    return Check("Model", WARNING if old else OK, says, f"fedstep pull --aggregator {kept.url}" if old else "")


def check_outbox(home: Home, url: str) -> Check:
    """What waits to be sent."""
    names = list_folder(home.outbox)
    waiting = sum(name.endswith(SUFFIX) for name in names)
    damaged = sum(name.endswith(DAMAGED) for name in names)
    says = f"{count(waiting, 'update')} waiting" + (f", {damaged:,} damaged and set aside" if damaged else "")
    fix = f"fedstep push --aggregator {url or 'URL'}" if waiting else f"rm {home.outbox}/*{DAMAGED}" if damaged else ""
    return Check("Outbox", WARNING if waiting or damaged else OK, says, fix)
