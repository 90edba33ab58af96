"""How many updates an aggregator on one core takes, beside a server that reads them and does nothing; how many pulls.

python -m tests.benchmarks.throughput
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.server import TOKEN, address, started
from tests.benchmarks.timing import Figure

CONNECTIONS, SECONDS, TURNS = 32, 5.0, 3
MEMORY = Path("/dev/shm")
ANY = str(10**9)  # updates: rates and quotas are looked at, and not reached
# Folds as large as this many updates need: ten at once are for a small federation.
OPTIONS = (
    "--buffer-size",
    "1000",
    "--owner-rate",
    ANY,
    "--owner-quota",
    ANY,
    "--project-rate",
    ANY,
    "--project-quota",
    ANY,
    "--read-rate",
    "0",
)
BARE = """
import socket
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

async def answer(request: Request) -> Response:
    await request.body()
    return Response(b"", 202)

app = Starlette(routes=[Route("/v1/updates", answer, methods=["POST"])])
server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
with socket.create_server(("127.0.0.1", 0), backlog=2048) as door:
    print(f"aggregator on http://127.0.0.1:{door.getsockname()[1]},", flush=True)
    server.run([door])
"""


def figures() -> list[Figure]:
    """Accepting in memory against the bare server, in turns; then durably, the median of as many runs."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as memory:
        pairs = [(_rate(_aggregator(Path(memory) / str(turn))), _rate(_bare(Path(memory)))) for turn in range(TURNS)]
    ratio = statistics.median(ours["rate"] / bare["rate"] for ours, bare in pairs)
    with tempfile.TemporaryDirectory() as disk:
        runs = [_rate(_aggregator(Path(disk) / f"store-{turn}")) for turn in range(TURNS)]
        pulls = _rate(_aggregator(Path(disk) / "model"), "model")
    durable = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return [
        {
            "name": "accepting 16 kB updates in memory",
            "value": round(ratio, 3),
            "unit": "times the yardstick",
            "target": 0.5,
            "yardstick": "bare uvicorn + starlette that reads the body",
            "met": ratio >= 0.5,
            "updates_per_second": [ours["rate"] for ours, _ in pairs],
            "yardstick_per_second": [bare["rate"] for _, bare in pairs],
        },
        _durable("rate", "updates a second", 1000.0, durable["rate"] >= 1000.0, durable),
        {
            "name": "pulling the model, gzipped",
            "value": pulls["rate"],
            "unit": "answers a second",
            "target": 1000.0,
            "yardstick": "one core",
            "met": pulls["rate"] >= 1000.0,
            "p99_ms": pulls["p99_ms"],
        },
        _durable("p99_ms", "ms, the 99th percentile", 50.0, durable["p99_ms"] < 50.0, durable),
    ]


def _durable(key: str, unit: str, target: float, met: bool, found: Mapping[str, float]) -> Figure:
    return {
        "name": f"16 kB updates durable on SQLite, {CONNECTIONS} connections, {key}",
        "value": found[key],
        "unit": unit,
        "target": target,
        "yardstick": "the disk of the run",
        "met": met,
        "p50_ms": found["p50_ms"],
    }


def serving(folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    """An aggregator on a core of its own, with its store in the folder; `options` take precedence over OPTIONS."""
    words = ("--store", f"sqlite:///{folder / 'a.db'}", *OPTIONS, *options)
    return started(folder / "log", *words, before=_pinned(0), token=TOKEN)


def serving_nothing(folder: Path) -> "subprocess.Popen[bytes]":
    """The bare server on the same core, with its log in the folder."""
    with (folder / "log").open("wb") as sink:
        return subprocess.Popen([*_pinned(0), sys.executable, "-c", BARE], stdout=sink, stderr=sink)


def asking(url: str, what: str = "updates") -> Sequence[str]:
    """The command that keeps a server busy, on another core."""
    parts = urlsplit(url)
    words = [what, str(parts.hostname), str(parts.port), str(CONNECTIONS), str(SECONDS), TOKEN]
    return [*_pinned(1), sys.executable, "-m", "tests.benchmarks.load", *words]


@contextmanager
def _aggregator(folder: Path) -> Iterator[str]:
    folder.mkdir()
    yield from _until_asked(serving(folder), folder / "log")
    shutil.rmtree(folder)


@contextmanager
def _bare(folder: Path) -> Iterator[str]:
    yield from _until_asked(serving_nothing(folder), folder / "log")


def _until_asked(process: "subprocess.Popen[bytes]", log: Path) -> Iterator[str]:
    try:
        yield address(process, log)
    finally:
        process.terminate()
        process.wait(30)


def _rate(server: AbstractContextManager[str], what: str = "updates") -> Mapping[str, float]:
    """What the client measured. Raises RuntimeError where not every answer was a 202, or a model."""
    with server as url:
        done = subprocess.run(asking(url, what), stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS + 60)
    found = json.loads(done.stdout)
    if set(found["statuses"]) != {"202" if what == "updates" else "200"}:
        raise RuntimeError(f"not every request was served: {found['statuses']}")
    return {name: float(found[name]) for name in ("rate", "p50_ms", "p99_ms")}


def _pinned(core: int) -> Sequence[str]:
    """What starts a program on one core; nothing where the machine has no way to say so."""
    return ("taskset", "-c", str(core)) if shutil.which("taskset") else ()


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
