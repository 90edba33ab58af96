"""Microseconds of CPU that an update of 16 kB takes of each thread, beside a server that reads it and does nothing.

python -m tests.benchmarks.cost  (Linux alone tells threads apart)
"""

import json
import statistics
import subprocess
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path

from fedstep.federation.messages import unpack_update
from tests.benchmarks.load import full_update
from tests.benchmarks.server import address
from tests.benchmarks.throughput import MEMORY, TURNS, asking, serving, serving_nothing

STEADY, FOR = 2.0, 3.0  # seconds of load before anything is measured, and then
READ = 2000  # times that one update is read
Start = Callable[[Path], "subprocess.Popen[bytes]"]


def costs() -> dict[str, Sequence[int]]:
    """The medians of runs in turn; threads in the order in which they began: answering, writing, aggregating."""
    turns = [(_by_thread(serving_nothing), _by_thread(serving)) for _ in range(TURNS)]
    return {
        "the bare server": _medians([bare for bare, _ in turns]),
        "threads that answer, write and fold": _medians([ours for _, ours in turns]),
        "to read an update, warm": [round(_reading())],
    }


def _medians(turns: Sequence[Sequence[float]]) -> Sequence[int]:
    return [round(statistics.median(column)) for column in zip(*turns, strict=False)]  # a last thread comes late


def _by_thread(start: Start) -> Sequence[float]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        process = start(Path(folder))
        try:
            asked = subprocess.Popen(asking(address(process, Path(folder) / "log")), stdout=subprocess.PIPE)
            time.sleep(STEADY)
            before, began = _spent(process.pid), time.perf_counter()
            time.sleep(FOR)
            after, seconds = _spent(process.pid), time.perf_counter() - began
            rate = json.loads(asked.communicate(timeout=60)[0])["rate"]
        finally:
            process.terminate()
            process.wait(30)
    return [(after[thread] - before.get(thread, 0.0)) / seconds / rate for thread in sorted(after)]


def _spent(pid: int) -> dict[int, float]:
    """Microseconds of CPU so far by thread, of the process or of the one that it is there to start."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    tasks = Path(f"/proc/{below[0] if below else pid}/task").iterdir()
    return {int(task.name): int((task / "schedstat").read_text().split()[0]) / 1000 for task in tasks}


def _reading() -> float:
    body = full_update(0)
    return 1e6 * min(timeit.repeat(lambda: unpack_update(body), number=READ)) / READ


if __name__ == "__main__":
    print(json.dumps(costs(), indent=1))
