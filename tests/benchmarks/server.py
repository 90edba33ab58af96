"""A real aggregator process for benchmarks, and the sizes of what a project posts to it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import HttpResponse, RetryPolicy, requests_transport
from fedstep.history.project_store import ProjectStore
from fedstep.pipeline.train import train
from tests.benchmarks.project import drawn_builds
from tests.helpers.lifetime import bound

TOKEN = "a-token-of-the-benchmarks-alone"


@contextmanager
def aggregator(folder: Path) -> Iterator[str]:
    """The URL of an aggregator on a free loopback port; the process is stopped at the end."""
    log = folder / "aggregator.log"
    process = started(log, "--store", f"sqlite:///{folder / 'a.db'}")
    try:
        yield address(process, log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def started(log: Path, *options: str, before: Sequence[str] = (), token: str = "") -> "subprocess.Popen[bytes]":
    """The process of `fedstep serve` on a free loopback port; `before` is a program that starts it, such as taskset."""
    command = [*before, *bound(sys.executable, "-P", "-m", "fedstep", "serve", "--port", "0", *options)]
    with log.open("wb") as sink:
        return subprocess.Popen(command, stderr=sink, stdout=sink, env={**os.environ, "FEDSTEP_TOKENS": token})


def address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Its URL, once it listens. Raises RuntimeError with its log where it does not."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"aggregator on (http://127\.0\.0\.1:\d+),", log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(log.read_text())


def sent_sizes(folder: Path, tests: int) -> list[int]:
    """The bytes of every body that 25 builds of a drawn project post."""
    sizes: list[int] = []
    home = ProjectStore(str(folder / "history"))
    home.prepare()
    with aggregator(folder) as url:
        real = requests_transport(url)

        def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
            sizes.append(len(body))
            return real(method, path, headers, body, timeout)

        peer = AggregatorLink(url, send, RetryPolicy())
        for evidence in drawn_builds(tests, 25):
            train(home, evidence, lambda _runs: {}, peer, evidence.finished_at, 500)
    return sizes
