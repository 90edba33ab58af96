"""How long updates wait for their receipts while others read, beside the same updates without readers.

python -m tests.benchmarks.readers
"""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from tests.benchmarks.server import TOKEN, address
from tests.benchmarks.throughput import serving
from tests.benchmarks.timing import Figure

SENDERS, SECONDS, TURNS = 4, 5.0, 5
READS = 30  # a second, in all
PATHS = ("/v1/versions", "/", "/v1/model", "/v1/model?schema=")  # the last with a made-up schema
TARGET = 1.5


def reader_figures() -> list[Figure]:
    """Return how much longer updates take with readers, at the median and at the 95th percentile."""
    with tempfile.TemporaryDirectory() as folder:
        process = serving(Path(folder), "--buffer-size", "20")
        try:
            url = address(process, Path(folder) / "log")
            _send(url)  # versions to list, and a page to draw
            turns = [(_send(url), _send_beside_readers(url)) for _ in range(TURNS)]
        finally:
            process.terminate()
            process.wait(30)
    return [_figure(key, turns) for key in ("p50_ms", "p95_ms")]


def _figure(key: str, turns: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Figure:
    ratio = statistics.median(beside[key] / alone[key] for alone, beside in turns)
    return {
        "name": f"updates beside {READS} reads a second, {key}",
        "value": round(ratio, 2),
        "unit": "times the yardstick",
        "target": TARGET,
        "yardstick": "the same without readers",
        "met": ratio <= TARGET,
        "beside_readers": [beside[key] for _, beside in turns],
        "alone": [alone[key] for alone, _ in turns],
        "reads_per_second": [beside["reads"] for _, beside in turns],
    }


def _send(url: str) -> Mapping[str, float]:
    """Return what a client measured that sends updates. Raise RuntimeError where not every one was accepted."""
    parts = urlsplit(url)
    words = ["updates", str(parts.hostname), str(parts.port), str(SENDERS), str(SECONDS), TOKEN]
    command = [sys.executable, "-m", "tests.benchmarks.load", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS + 60)
    found = json.loads(done.stdout)
    if set(found["statuses"]) != {"202"}:
        raise RuntimeError(f"not every update was accepted: {found['statuses']}")
    return {name: float(found[name]) for name in ("p50_ms", "p95_ms")}


def _send_beside_readers(url: str) -> Mapping[str, float]:
    """Return the same of updates beside readers, and how much was read in a second."""
    command = [sys.executable, "-m", "tests.benchmarks.readers", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as readers:
        try:
            found = _send(url)
        finally:
            told, _ = readers.communicate("")  # they read until their standard input ends
    return {**found, "reads": float(told)}


def read(url: str, stop: Sequence[object]) -> float:
    """Read each path at its share of the rate until `stop` has an element; return the reads of a second."""
    counts: list[int] = []
    began = time.monotonic()
    threads = [Thread(target=lambda path=path: counts.append(_read_path(url, path, stop))) for path in PATHS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(sum(counts) / (time.monotonic() - began), 1)


def _read_path(url: str, path: str, stop: Sequence[object]) -> int:
    connection = http.client.HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port, timeout=60)
    count, due = 0, time.monotonic()
    while not stop:
        made_up = f"{time.time_ns() % 16**16:016x}" if path.endswith("=") else ""
        connection.request("GET", path + made_up, headers={"Authorization": f"Bearer {TOKEN}"})
        connection.getresponse().read()
        count, due = count + 1, due + len(PATHS) / READS
        time.sleep(max(0.0, due - time.monotonic()))
    connection.close()
    return count


def _read_until_closed(url: str) -> None:
    stop: list[object] = []
    ending = Thread(target=lambda: stop.append(sys.stdin.read()))
    ending.start()
    print(read(url, stop))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _read_until_closed(sys.argv[1])
    else:
        print(json.dumps(reader_figures(), indent=1))
