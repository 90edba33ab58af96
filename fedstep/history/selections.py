"""What selections leave out of builds: noted when a build chooses its tests, counted once it is recorded.

A test that did not run neither passed nor failed. A failure that is seen only later, in a build in which it ran again,
has escaped the selections between.
"""

import json

from fedstep.history.project_store import ProjectStore, remove, write_unsynced
from fedstep.history.records import BuildRecord, Forecast
from fedstep.history.test_table import TestTable
from fedstep.types import LeftOut, Outcome, SelectionTally

FOLDER = "selections"


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


def note_selection(store: ProjectStore, run: str, tests: tuple[str, ...], shadow: bool, now: float) -> None:
    """Write down which tests a selection leaves out of this job run, for the train step at its end.

    Raise HistoryError if it cannot be written.
    """
    store.remove_outdated(FOLDER, lambda name: _noted_at(store, name), now)
    content = json.dumps([now, tests, shadow], separators=(",", ":")).encode()
    write_unsynced(store.path(f"{FOLDER}/{run}"), content)  # after a crash this job ends, too


def read_selection(store: ProjectStore, run: str) -> LeftOut | None:
    """Return what was noted in this job run, None without a valid note."""
    try:
        _, tests, shadow = json.loads(store.read(f"{FOLDER}/{run}") or "[]")
        return LeftOut(tuple(map(str, tests)), shadow=bool(shadow))
    except (ValueError, TypeError, RecursionError):
        return None


def forget_selection(store: ProjectStore, run: str) -> None:
    """Delete the note of a run."""
    remove(store.path(f"{FOLDER}/{run}"))


def _noted_at(store: ProjectStore, run: str) -> float | None:
    """Return when a note was written, its first value: the names behind it need not be read. None if it is damaged."""
    try:
        return float(store.read(f"{FOLDER}/{run}").removeprefix(b"[").partition(b",")[0])
    except ValueError:
        return None
