"""Leader and helper as two real processes, and the updates that are split between them."""

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from fedstep.federation.client import FetchedModel, pull
from fedstep.federation.messages import Model, Update, shape
from fedstep.federation.transport import Endpoint, RetryPolicy, requests_transport
from fedstep.federation.update_builder import clip_update
from fedstep.schema.schema import schema
from tests.helpers.lifetime import bound
from tests.helpers.narrow import expect

PATIENCE = RetryPolicy(timeout=20.0, waits=(0.1, 0.2))
PEER_TOKEN = "only-leader-and-helper-know-it"


@contextmanager
def serving(folder: Path, *options: str, peer_token: str = PEER_TOKEN) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The URL and the process of `fedstep serve` with these options; it is stopped by its pid."""
    folder.mkdir(exist_ok=True)
    log = folder / f"log-{time.monotonic_ns()}"
    env = {**os.environ, "FEDSTEP_PEER_TOKEN": peer_token, "PYTHONSAFEPATH": "1"}
    words = bound(sys.executable, "-m", "fedstep", "serve", "--port", "0", "--from-zero", "--max-wait", "0.2", *options)
    with log.open("wb") as file, subprocess.Popen(words, stderr=file, stdout=file, cwd=folder, env=env) as server:
        try:
            wait_for(lambda: "aggregator on " in log.read_text() or server.poll() is not None, log.read_text)
            assert server.poll() is None, log.read_text()
            yield log.read_text().partition("aggregator on ")[2].partition(",")[0], server
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
            server.wait(30)
            assert "Traceback" not in log.read_text()


def helper(folder: Path, *options: str, peer_token: str = PEER_TOKEN):
    """A helper process."""
    return serving(folder / "helper", "--role", "helper", *options, peer_token=peer_token)


def leader(folder: Path, peer: str, *options: str):
    """A leader process that asks the helper at `peer`."""
    return serving(folder / "leader", "--role", "leader", "--peer", peer, *options)


def logged(folder: Path, words: str) -> bool:
    """Whether a process with this folder has logged these words."""
    return any(words in log.read_text() for log in folder.glob("log-*"))


def peer(url: str) -> Endpoint:
    """The way to a process."""
    return Endpoint(url, requests_transport(url))


def pulled(url: str) -> Model:
    """The model that it serves now."""
    return expect(FetchedModel, pull(url, "", requests_transport(url), shape(schema()), PATIENCE)).model


def wait_for(done: Callable[[], bool], why: Callable[[], object] = lambda: "it did not happen in time") -> None:
    """Returns when something is done."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, why()
        time.sleep(0.05)


def drawn(number: int, base: int = 0, project: int | None = None) -> Update:
    """An update of the two smaller tasks, each number another id and, unless given, another project."""
    dice, tasks = Random(number), schema().tasks
    deltas = {
        name: clip_update(array("f", (dice.gauss(0, 1) for _ in range(tasks[name].size()))), tasks[name].clip)
        for name in ("build-duration", "build-failure")
    }
    whose = f"{number if project is None else project:032x}"
    return Update(schema().digest, base, f"{number:032x}", whose, dict.fromkeys(deltas, 8), deltas)
