"""The past runs of one test, from the log: how each ended, how long it took, and what it revealed."""

from collections.abc import Collection, Iterator

from fedstep.build.record import Dropped, Outcome, TestRun
from fedstep.history.entry import Entry
from fedstep.history.home import Home
from fedstep.history.log import build_of
from fedstep.history.tests import NOTHING, evidence
from fedstep.report.explained import SeenRun

__all__ = ["past_runs"]

MOST_RUNS = 60
MOST_RECORDS = 300  # read at most: a record of 5,000 tests takes 15 ms


def past_runs(home: Home, ids: Collection[str], revealed: str) -> tuple[SeenRun, ...]:
    """The newest runs of the test, oldest first; records that cannot be read are left out.

    `ids` are its id and the one before a rename: no build has both. `revealed` is what the table of tests has beside
    its last outcomes, a letter a run that is evidence.
    """
    runs: list[SeenRun] = []
    letters = list(revealed)
    for entry, run, counts in _newest(home, ids):
        metal = letters.pop() if counts and letters else NOTHING
        runs.append(_seen(entry, run, metal, incident=not counts and run.outcome != Outcome.SKIPPED))
    return tuple(reversed(runs))


def _newest(home: Home, ids: Collection[str]) -> Iterator[tuple[Entry, TestRun, bool]]:
    """The newest records in which the test is, with its run, and whether that is evidence."""
    files = {build_of(name): name for name in home.log.files()}  # a build that is there twice counts once
    left = MOST_RUNS
    for _, entry in home.log.entries(sorted(files.values(), reverse=True)[:MOST_RECORDS]):
        run = None if isinstance(entry, Dropped) else next((run for run in entry.tests if run.test in ids), None)
        if run is None or isinstance(entry, Dropped):
            continue
        yield entry, run, any(one.test == run.test for one in evidence(entry.tests))
        left -= 1
        if not left:
            return


def _seen(entry: Entry, run: TestRun, metal: str, incident: bool) -> SeenRun:
    return SeenRun(
        entry.finished_at, str(run.outcome), run.seconds, metal, entry.branch, entry.commit, run.failure_type, incident
    )
