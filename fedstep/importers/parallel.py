"""Read past builds in several processes, in order and with a bounded look-ahead. Needs joblib; Dask is optional."""

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

ITEMS_PER_PROCESS = 4  # read ahead; what is read and not yet learned stays in memory
MIN_ITEMS = 40  # for which processes are started without --jobs: a start takes a second
SCHEDULER_TIMEOUT = 5  # seconds
_LETTERS = {outcome.value: outcome for outcome in Outcome}


class WorkerPool(NamedTuple):
    """The processes that read: of this machine, or of a Dask scheduler."""

    jobs: int = 0  # 0: as many as there are cores, from MIN_ITEMS items on
    scheduler: str = ""  # address of a Dask scheduler


class _PackedBuild(NamedTuple):
    """A build as it is sent between processes, its tests in columns: objects take longer to send than to parse."""

    finished: FinishedBuild
    tests: list[str]
    outcomes: str
    seconds: "array[float]"
    more: dict[int, tuple[Any, ...]]  # the other fields of the tests that have any


def read_all(source: ImportSource, pool: WorkerPool) -> Iterator[tuple[ImportItem, tuple[ReadResult, ...]]]:
    """Return each item of the source with the builds read from it, in the source's order.

    Raise UsageError where the scheduler cannot be reached, MissingExtra where joblib or Dask is not installed.
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
        # In batches: joblib's own generator goes on reading however slowly its results are consumed.
        while batch := tuple(islice(waiting, size)):
            with _block_interrupts():
                results = parallel(delayed(_read_packed)(item.read) for item in batch)
            for item, packed_builds in zip(batch, results, strict=True):
                yield item, tuple(map(_unpack, packed_builds))


@contextmanager
def _at(scheduler: str, jobs: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the settings of joblib.Parallel, and how many items are read ahead."""
    from joblib import parallel_config

    common: dict[str, Any] = {"pre_dispatch": "all", "batch_size": 1}
    if not scheduler:
        yield {**common, "n_jobs": jobs, "backend": "loky", "initializer": _ignore_interrupts}, jobs * ITEMS_PER_PROCESS
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
def _block_interrupts() -> Iterator[None]:
    """Delay Ctrl-C; a worker process that starts meanwhile inherits the mask and never interrupts an import."""
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C, which goes to the whole process group: the main process decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_packed(read: Any) -> tuple[Any, ...]:
    return tuple(_pack(result) if isinstance(result, FinishedBuild) else result for result in read())


def _pack(finished: FinishedBuild) -> _PackedBuild:
    tests = finished.reports.tests
    more = {n: run[3:] for n, run in enumerate(tests) if any(run[3:])}
    bare = finished._replace(reports=finished.reports._replace(tests=()))
    outcomes = "".join(run.outcome for run in tests)
    return _PackedBuild(bare, [run.test for run in tests], outcomes, array("d", [run.seconds for run in tests]), more)


def _unpack(packed: Any) -> ReadResult:
    if not isinstance(packed, _PackedBuild):
        return packed  # type: ignore[no-any-return]
    letters = map(_LETTERS.__getitem__, packed.outcomes)
    runs = list(map(TestRun, packed.tests, letters, packed.seconds))
    for index, more in packed.more.items():
        runs[index] = TestRun(*runs[index][:3], *more)
    return packed.finished._replace(reports=packed.finished.reports._replace(tests=tuple(runs)))
