"""A client that keeps connections busy, on a core of its own. Prints what it measured as JSON.

python -m tests.benchmarks.load updates|model HOST PORT CONNECTIONS SECONDS TOKEN
"""

import asyncio
import json
import re
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import uvloop

from fedstep.federation.messages import Update, pack_update, shape
from fedstep.federation.update_builder import clip_update
from fedstep.schema.schema import schema

SIZE = 1 << 14  # bytes of a body
TEMPLATES = 64
HEX = 32  # digits of an id
WARM = 1.0  # seconds before anything is counted
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


def full_update(number: int) -> bytes:
    """An update with every coordinate of every task, in SIZE bytes: the header is filled up with spaces."""
    dice = Random(number)
    deltas = {
        task.name: clip_update(array("f", (dice.gauss(0, 1) for _ in range(task.size()))), 0.99 * task.clip)
        for task in schema().tasks.values()
    }
    rows = dict.fromkeys(deltas, 64)
    body = pack_update(Update(shape(schema()).digest, 0, f"{number:032x}", f"{number:032x}", rows, deltas))
    header = 8 + int.from_bytes(body[:8], "little")
    room = SIZE - len(body)
    return (header - 8 + room).to_bytes(8, "little") + body[8:header] + b" " * room + body[header:]


class Requests(Protocol):
    """What is asked, one request after the other."""

    def next(self) -> bytes: ...


class Pulls:
    """The newest model, gzipped, by somebody who has none."""

    def __init__(self, host: str, token: str) -> None:
        head = f"GET /v1/model HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        self._request = f"{head}Accept-Encoding: gzip\r\n\r\n".encode()

    def next(self) -> bytes:
        """The bytes of the request, always the same."""
        return self._request


class Templates:
    """Updates with room for an id in two places; each that is made has another id."""

    def __init__(self, host: str, token: str) -> None:
        self._pieces, self._made, self._run = [], 0, f"{time.time_ns():016x}"
        for number in range(TEMPLATES):
            own = f"{number:032x}".encode()
            body = full_update(number)
            start = body.index(b'"id":"' + own) + 6
            head = (
                f"POST /v1/updates HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\nIdempotency-Key: "
            )
            self._pieces.append((head.encode(), b"\r\n\r\n" + body[:start], body[start + HEX :]))

    def next(self) -> bytes:
        """The bytes of a request that was never made before."""
        self._made += 1
        number = f"{self._run}{self._made:016x}".encode()
        first, second, last = self._pieces[self._made % TEMPLATES]
        return b"".join((first, number, second, number, last))


@dataclass
class Run:
    """What is measured between two moments of `time.perf_counter`."""

    begins: float
    ends: float
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def count(self, asked: float, now: float, status: str) -> None:
        """Counts an answer, if the run has begun and is not over."""
        if self.begins <= asked and now <= self.ends:
            self.seconds.append(now - asked)
            self.statuses[status] += 1

    def as_json(self) -> dict[str, object]:
        """Answers a second, milliseconds by percentile, answers by status. Raises RuntimeError where none came."""
        last = sorted(self.seconds)
        if not last:
            raise RuntimeError(f"no answer in {self.ends - self.begins:g} s")
        return {
            "rate": round(len(last) / (self.ends - self.begins), 1),
            "p50_ms": round(1000 * last[len(last) // 2], 2),
            "p95_ms": round(1000 * last[len(last) * 95 // 100], 2),
            "p99_ms": round(1000 * last[len(last) * 99 // 100], 2),
            "statuses": dict(self.statuses),
        }


class Connection(asyncio.Protocol):
    """One that asks, waits for the answer, and asks again until the run is over."""

    def __init__(self, requests: Requests, run: Run) -> None:
        self._requests, self._run = requests, run
        self._heard, self._asked = b"", 0.0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, found, body = self._heard.partition(b"\r\n\r\n")
        if not found or len(body) < int(LENGTH.findall(head)[0]):
            return
        now, self._heard = time.perf_counter(), b""
        self._run.count(self._asked, now, head[9:12].decode())
        if now < self._run.ends:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(exc)

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._requests.next())


async def loaded(what: str, host: str, port: int, connections: int, seconds: float, token: str) -> Run:
    """What so many connections measured after a second of warming up."""
    requests, now = KINDS[what](host, token), time.perf_counter()
    run, loop = Run(now + WARM, now + WARM + seconds), asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(requests, run), host, port) for _ in range(connections)]
    await asyncio.wait_for(asyncio.gather(*(connection.closed for _, connection in opened)), WARM + seconds + 30.0)
    return run


KINDS: Mapping[str, Callable[[str, str], Requests]] = {"updates": Templates, "model": Pulls}

if __name__ == "__main__":
    what, where, port, connections, seconds, token = sys.argv[1:]
    found = uvloop.run(loaded(what, where, int(port), int(connections), float(seconds), token))
    print(json.dumps(found.as_json()))
