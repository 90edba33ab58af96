"""Facts about reading in several processes: the same builds in the same order, and never far ahead."""

import socket
from functools import partial
from pathlib import Path

import distributed
import pytest

from fedstep.errors import UsageError
from fedstep.importers.base import BuildFilter, ImportItem, ImportSource
from fedstep.importers.parallel import ITEMS_PER_PROCESS, WorkerPool, read_all
from fedstep.importers.recorded_builds import open_folder
from fedstep.types import Dropped, FinishedBuild
from tests.helpers.builds import CASE, FLAKE, write_build


def recorded(folder: Path, builds: int) -> ImportSource:
    for number in range(1, builds + 1):
        failing = '<failure type="E" message="m"/>'
        cases = CASE.format(1, FLAKE) + CASE.format(2, failing) + '<testcase classname="a" name="b" file="t.py"/>'
        write_build(folder, number, cases, **({"seconds": None} if number == 3 else {}))
    return open_folder(folder, BuildFilter())


def _touch(path: Path) -> tuple[FinishedBuild, ...]:
    path.touch()
    return ()


class TestProcesses:
    def test_two_processes_read_what_one_reads_in_the_same_order(self, tmp_path: Path) -> None:
        past = recorded(tmp_path, 20)
        alone, together = list(read_all(past, WorkerPool(1))), list(read_all(past, WorkerPool(2)))
        # No time is a time that is not equal to itself.
        assert repr(together) == repr(alone)
        assert sum(isinstance(found[0], FinishedBuild) for _, found in together) == 19
        assert isinstance(together[0][1][0], Dropped)

    @pytest.mark.slow
    def test_what_is_not_yet_taken_is_not_read_either(self, tmp_path: Path) -> None:
        pending = tuple(ImportItem(float(n), partial(_touch, tmp_path / str(n))) for n in range(40))
        reads = read_all(ImportSource(40, pending, apart=True), WorkerPool(2))
        next(reads)
        assert len(list(tmp_path.iterdir())) <= 2 * ITEMS_PER_PROCESS
        assert len(list(reads)) == 39
        assert len(list(tmp_path.iterdir())) == 40


class TestDask:
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # of distributed's own start
    def test_a_dask_cluster_reads_what_one_process_reads(self, tmp_path: Path) -> None:
        past = recorded(tmp_path, 12)
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        )
        with cluster:
            together = list(read_all(past, WorkerPool(scheduler=cluster.scheduler_address)))
        assert repr(together) == repr(list(read_all(past, WorkerPool(1))))

    @pytest.mark.slow
    def test_a_scheduler_that_does_not_answer_is_named(self, tmp_path: Path) -> None:
        past = recorded(tmp_path, 1)
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{held.getsockname()[1]}"
            with pytest.raises(UsageError, match=f"no Dask scheduler answers at {address}"):
                list(read_all(past, WorkerPool(scheduler=address)))
