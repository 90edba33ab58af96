"""What a start costs after the process was killed, beside a start on an empty store.

python -m tests.benchmarks.start
"""

import json
import re
import statistics
import tempfile
import time
import urllib.request
from array import array
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from fedstep.federation.messages import Update, pack_update, shape
from fedstep.schema.schema import schema
from fedstep.server.aggregation.step import initial_vectors
from fedstep.server.storage.store import Store
from fedstep.server.storage.update_repository import UpdateOffer
from tests.benchmarks.senders import Senders
from tests.benchmarks.server import address, started

UPDATES, PROJECTS, BATCH = 20_000, 500, 250
UNDER_LOAD = 2.0  # seconds before the kill
STARTS = 5
TARGET = 1.5
OPTIONS = ("--buffer-size", "1000", "--max-wait", "1000")
Seconds = Mapping[str, float]


def start_figure() -> Mapping[str, object]:
    """Compare the CPU seconds of a start after kill -9 under load with those of a start on an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        for place in (empty, full):
            place.mkdir()
        fill(full, UPDATES)
        megabytes = round((full / "a.db").stat().st_size / 1e6)
        kill_under_load(full)
        turns = [(start(full), start(empty)) for _ in range(STARTS)]
    ours = statistics.median(one["whole"] for one, _ in turns)
    bare = statistics.median(one["whole"] for _, one in turns)
    return {
        "name": f"start after kill -9, {UPDATES} updates",
        "value": round(ours / bare, 2),
        "unit": "times the yardstick",
        "target": TARGET,
        "yardstick": "start on an empty store, in CPU seconds",
        "met": ours / bare <= TARGET,
        "megabytes": megabytes,
        "cpu_seconds": round(ours, 2),
        "cpu_seconds_of_the_store": round(statistics.median(one["store"] for one, _ in turns), 2),
        "yardstick_cpu_seconds": round(bare, 2),
    }


def fill(folder: Path, count: int) -> None:
    """Store so many updates that have every coefficient, none of them aggregated yet."""
    ours = shape(schema())
    deltas = {name: array("f", [0.001] * size) for name, size in ours.sizes.items()}
    with closing(Store(f"sqlite:///{folder / 'a.db'}", ours)) as store:
        store.start(initial_vectors(b"", ours), time.time())
        for first in range(0, count, BATCH):
            offers = [_offer(number, ours.digest, deltas) for number in range(first, min(count, first + BATCH))]
            store.accept(offers, 0, 100, time.time())


def _offer(number: int, digest: str, deltas: Mapping[str, "array[float]"]) -> UpdateOffer:
    update = Update(digest, 0, f"{number:032x}", f"{number % PROJECTS:032x}", dict.fromkeys(deltas, 32), deltas, {})
    return UpdateOffer(update.id, update.project, "", 0, pack_update(update), {}, update)


def kill_under_load(folder: Path) -> None:
    """Start an aggregator on the store, send to it for a while, and kill it."""
    log, senders = folder / "log", Senders(4, 1)
    process = started(log, "--store", f"sqlite:///{folder / 'a.db'}", *OPTIONS)
    senders.start()
    try:
        senders.url = address(process, log)
        time.sleep(UNDER_LOAD)
    finally:
        process.kill()
        senders.url = ""
    process.wait(20)


def start(folder: Path, options: Sequence[str] = OPTIONS) -> Seconds:
    """Return the CPU seconds that a start took, by part, as the aggregator exports them; it is killed again."""
    log = folder / "log"
    process = started(log, "--store", f"sqlite:///{folder / 'a.db'}", *options)
    try:
        with urllib.request.urlopen(f"{address(process, log)}/metrics", timeout=60) as answer:
            text = answer.read().decode()
    finally:
        process.kill()
        process.wait(20)
    parts = re.findall(r'^fedstep_start_cpu_seconds\{part="(\w+)"\} (\S+)$', text, re.M)
    return {part: float(seconds) for part, seconds in parts}


if __name__ == "__main__":
    print(json.dumps(start_figure(), indent=1))
