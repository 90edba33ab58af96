"""A real aggregator process for benchmarks, and the sizes of what a project posts to it."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedstep.federation.exchange import Aggregator
from fedstep.federation.patience import Patience
from fedstep.federation.transport import Answer, requests_send
from fedstep.history.home import Home
from fedstep.training import train
from tests.benchmarks.project import drawn_builds


@contextmanager
def aggregator(folder: Path) -> Iterator[str]:
    """The URL of an aggregator on a free loopback port; the process is stopped at the end."""
    log = folder / "aggregator.log"
    command = [sys.executable, "-P", "-m", "fedstep", "serve", "--port", "0", "--store", f"sqlite:///{folder / 'a.db'}"]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stderr=sink, stdout=sink)
    try:
        yield _address(log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def sent_sizes(folder: Path, tests: int) -> list[int]:
    """The bytes of every body that 25 builds of a drawn project post."""
    sizes: list[int] = []
    home = Home(str(folder / "history"))
    home.prepare()
    with aggregator(folder) as url:
        real = requests_send(url)

        def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
            sizes.append(len(body))
            return real(method, path, headers, body, timeout)

        peer = Aggregator(url, send, Patience())
        for evidence in drawn_builds(tests, 25):
            train(home, evidence, lambda _runs: {}, peer, evidence.finished_at, 500)
    return sizes


def _address(log: Path) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise RuntimeError(log.read_text())
