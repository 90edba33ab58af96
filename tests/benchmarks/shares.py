"""Secure aggregation against the plain mode: the client's split, the bytes, and how fast shares are taken.

python -m tests.benchmarks.shares
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedstep.federation.messages import NOISE, TrialScore, Update, pack_update
from fedstep.federation.secagg.shares import ShareNoise, noise_deviation, pack_share, scale_deviations, split_update
from fedstep.schema.schema import Numeric, Schema, Task, schema
from tests.benchmarks.timing import Figure
from tests.helpers.lifetime import bound

COORDINATES = 2048  # of a share; a plain update of equal size has twice as many
POSTS, CONNECTIONS, TURNS = 2000, 32, 5
SERVE = """
import sys
from fedstep.server import Settings, create_app
from fedstep.server.mode import BufferPolicy
from fedstep.server.mode import PLAIN
from fedstep.server.app import serve
from fedstep.server.secagg.leader import SecureAggregation
from tests.benchmarks.shares import flat
role, store, size = sys.argv[1:]
never = BufferPolicy(updates=10**9, seconds=1e9)
mode = SecureAggregation("http://127.0.0.1:1", "x" * 16) if role == "leader" else PLAIN
settings = Settings(port=0, store=store, buffer=never, mode=mode)
serve(settings, lambda url: print(url, flush=True), lambda given: create_app(given, flat(int(size))))
"""


def flat(size: int) -> Schema:
    """A schema of one task with so many coordinates."""
    return Schema((Task("flaky", tuple(Numeric(f"f{number}") for number in range(size)), 1.0, 50, 20, 20),))


def share_figures() -> list[Figure]:
    """Milliseconds and bytes of a client's two messages, and the ratio of shares to plain updates taken a second."""
    return [split_figure(5.0), bytes_figure(2.1), throughput_figure(0.5)]


def split_figure(target: float, runs: int = 51) -> Figure:
    """From an update of every task to the bytes of both shares, in time of the processor: others do not slow it."""
    update, bounds = dense(schema()), {name: task.clip for name, task in schema().tasks.items()}
    noise, took = scale_deviations(noise_deviation(NOISE, 5), schema()), []
    for _ in range(runs):
        began = time.process_time()
        for half in split_update(update, bounds, os.urandom(32), ShareNoise(noise, os.urandom(32))):
            pack_share(half)
        took.append(1000 * (time.process_time() - began))
    value = round(statistics.median(took), 2)
    return _figure("split an update in two", value, "ms", target, "CPU time", value <= target)


def bytes_figure(target: float) -> Figure:
    """Both messages, uncompressed, against the numbers of the dense update as C floats."""
    bounds = {name: task.clip for name, task in schema().tasks.items()}
    both = sum(len(pack_share(half)) for half in split_update(dense(schema()), bounds, bytes(32)))
    floats = 4 * sum(task.size() for task in schema().tasks.values())
    value = round(both / floats, 3)
    return _figure(
        f"two halves, {both} bytes", value, "times the dense update", target, f"{floats} bytes", both <= target * floats
    )


def throughput_figure(target: float) -> Figure:
    """Masked updates a second that a leader stores, against plain ones of equal size, each on its own server."""
    ratios, rates = [], []
    for _ in range(TURNS):
        plain = _rate("alone", "/v1/updates", 2 * COORDINATES, _plain_body)
        shares = _rate("leader", "/v1/shares", COORDINATES, _masked_body)
        ratios.append(shares / plain)
        rates.append((round(shares), round(plain)))
    value = round(statistics.median(ratios), 3)
    found = _figure(
        "shares taken, 16 kB", value, "times the plain updates", target, "plain updates of 16 kB", value >= target
    )
    return {**found, "per_second": rates}


def dense(ours: Schema, number: int = 0) -> Update:
    """An update of every task in which every number is used, with a score for each."""
    tasks = ours.tasks
    deltas = {
        name: array("f", [task.clip / task.size() * (1 + n % 7) / 8 for n in range(task.size())])
        for name, task in tasks.items()
    }
    scores = {name: TrialScore(119, 0.1) for name in tasks}
    return Update(ours.digest, 0, f"{number:032x}", f"{number:032x}", dict.fromkeys(tasks, 64), deltas, scores)


def _plain_body(size: int) -> bytes:
    return pack_update(dense(flat(size)))


def _masked_body(size: int) -> bytes:
    return pack_share(split_update(dense(flat(size)), {"flaky": 1.0}, bytes(32))[0])


def _rate(role: str, path: str, size: int, body_of: object) -> float:
    """Posts a second, from 32 connections that send without a pause."""
    body = body_of(size)  # type: ignore[operator]
    blank = b"0" * 32
    names = [f"{number:032x}".encode() for number in range(1, POSTS + 1)]
    posts = [_request(path, name, body.replace(blank, name)) for name in names]
    with tempfile.TemporaryDirectory() as folder, _serving(folder, role, size) as port:
        began = time.perf_counter()
        asyncio.run(_send_all(port, posts))
        return POSTS / (time.perf_counter() - began)


def _request(path: str, name: bytes, body: bytes) -> bytes:
    task = (
        f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {name.decode()}\r\n\r\n"
    )
    return task.encode() + body


async def _send_all(port: int, posts: Sequence[bytes]) -> None:
    left = iter(posts)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for post in left:
            writer.write(post)
            task = await reader.readuntil(b"\r\n\r\n")
            assert b" 202 " in task.split(b"\r\n")[0], task
            length = next(line for line in task.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


@contextmanager
def _serving(folder: str, role: str, size: int) -> Iterator[int]:
    """The port of a server of this role, which never aggregates; it is stopped at the end."""
    command = bound(sys.executable, "-c", SERVE, role, f"sqlite:///{folder}/a.db", size)
    with (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout
    try:
        url = process.stdout.readline().decode().strip()
        if not url:
            raise RuntimeError((Path(folder) / "log").read_text())
        yield int(url.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(timeout=30)


def _figure(name: str, value: float, unit: str, target: float, yardstick: str, met: bool) -> Figure:
    return {"name": name, "value": value, "unit": unit, "target": target, "yardstick": yardstick, "met": met}


if __name__ == "__main__":
    for figure in share_figures():
        print(figure)
