"""Reads past builds in several processes, in order and with a bounded look-ahead. Needs joblib, or Dask besides."""

import os
import signal
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, NamedTuple

from fedstep.errors import MissingExtra, UsageError
from fedstep.importers.base import ImportItem, ImportSource, ReadResult
from fedstep.types import FinishedBuild, Outcome, TestRun

ITEMS_PER_PROCESS = 4  # things a process is given at once: what is read and not yet learned stays in memory
MIN_ITEMS = 40  # things from which on other processes are started unasked: a start takes a second
SCHEDULER_TIMEOUT = 5  # seconds that a scheduler may take to answer
_LETTERS = {outcome.value: outcome for outcome in Outcome}


class WorkerPool(NamedTuple):
    """Who reads: so many processes of this machine (0: as many as it has cores, where it is worth it), or Dask's."""

    jobs: int = 0
    scheduler: str = ""  # address of a Dask scheduler


class _PackedBuild(NamedTuple):
    """A build on its way between processes, its tests in columns: an object a test would cost more than its parsing."""

    evidence: FinishedBuild
    tests: list[str]
    outcomes: str
    seconds: "array[float]"
    more: dict[int, tuple[str, str, int]]


def read_all(source: ImportSource, pool: WorkerPool) -> Iterator[tuple[ImportItem, tuple[ReadResult, ...]]]:
    """Everything of the source with what it gave, in the source's order.

    Raises UsageError where the scheduler cannot be reached, MissingExtra where joblib or Dask is not installed.
    """
    jobs = _jobs(source, pool)
    if not source.apart or (jobs == 1 and not pool.scheduler):
        return ((items, items.read()) for items in source.items)
    return _read_apart(source.items, jobs, pool.scheduler)


def _jobs(source: ImportSource, pool: WorkerPool) -> int:
    if pool.jobs:
        return pool.jobs
    return len(os.sched_getaffinity(0)) if source.total >= MIN_ITEMS and hasattr(os, "sched_getaffinity") else 1


def _read_apart(
    items: Iterable[ImportItem], jobs: int, scheduler: str
) -> Iterator[tuple[ImportItem, tuple[ReadResult, ...]]]:
    try:
        from joblib import Parallel, delayed
    except ImportError as error:
        raise MissingExtra("joblib is not installed", "Run: pip install 'fedstep[train]'; or give --jobs 1") from error
    waiting = iter(items)
    with _at(scheduler, jobs) as (settings, size), Parallel(**settings, return_as="generator") as parallel:
        # By hand in batches: joblib's own generator goes on reading however slowly its results are taken.
        while batch := tuple(islice(waiting, size)):
            with _interrupts_wait():
                found = parallel(delayed(_packed)(one.read) for one in batch)
            for one, parcels in zip(batch, found, strict=True):
                yield one, tuple(map(_unpacked, parcels))


@contextmanager
def _at(scheduler: str, jobs: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Settings of Parallel, and how many things are read ahead."""
    from joblib import parallel_config

    common: dict[str, Any] = {"pre_dispatch": "all", "batch_size": 1}
    if not scheduler:
        yield {**common, "n_jobs": jobs, "backend": "loky", "initializer": _leave_interrupts}, jobs * ITEMS_PER_PROCESS
        return
    with closing(_client(scheduler)) as client:
        if not (cores := sum(client.ncores().values())):
            raise UsageError("the Dask scheduler has no workers", "Start some with `dask worker ADDRESS`")
        with parallel_config(backend="dask", client=client):
            yield common, cores * ITEMS_PER_PROCESS


def _client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("Dask is not installed", "Run: pip install 'fedstep[dask]'") from error
    try:
        return Client(scheduler, timeout=SCHEDULER_TIMEOUT, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        remedy = "Start one with `dask scheduler`, and give its address, like tcp://10.0.0.5:8786"
        raise UsageError(f"no Dask scheduler answers at {scheduler[:200]}", remedy) from error


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C comes a moment later; a worker that starts meanwhile inherits that, and never breaks off an import."""
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def _leave_interrupts() -> None:
    """Ctrl-C goes to the whole process group; the process that asked decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _packed(read: Any) -> tuple[Any, ...]:
    return tuple(_pack(found) if isinstance(found, FinishedBuild) else found for found in read())


def _pack(evidence: FinishedBuild) -> _PackedBuild:
    tests = evidence.reports.tests
    more = {n: run[3:] for n, run in enumerate(tests) if run.failure_type or run.file or run.line}
    bare = evidence._replace(reports=evidence.reports._replace(tests=()))
    outcomes = "".join(run.outcome for run in tests)
    return _PackedBuild(bare, [run.test for run in tests], outcomes, array("d", [run.seconds for run in tests]), more)


def _unpacked(parcel: Any) -> ReadResult:
    if not isinstance(parcel, _PackedBuild):
        return parcel  # type: ignore[no-any-return]
    letters = map(_LETTERS.__getitem__, parcel.outcomes)
    runs = list(map(TestRun, parcel.tests, letters, parcel.seconds))
    for number, (kind, file, line) in parcel.more.items():
        runs[number] = runs[number]._replace(failure_type=kind, file=file, line=line)
    return parcel.evidence._replace(reports=parcel.evidence.reports._replace(tests=tuple(runs)))
