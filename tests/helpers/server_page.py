"""A store with a past (versions promoted, rejected and on trial, a rollback), and a real process that serves one."""

import re
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from fedstep.federation.messages import SchemaShape, TrialScore, Update, Vector, pack_update, shape
from fedstep.federation.model_cache import load_starter_bytes
from fedstep.model.linear import zeros
from fedstep.schema.schema import Schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.step import initial_vectors, next_version
from fedstep.server.gate import Gate
from fedstep.server.storage.store import Store
from fedstep.server.storage.update_repository import UpdateOffer
from tests.helpers.lifetime import bound
from tests.helpers.narrow import present

__all__ = ["NOW", "PROJECTS", "grow", "running"]

NOW = 1_790_000_000.0
DAY = 86_400.0
PROJECTS = 9
# of each round of a project each: how much worse the evaluations say that the version is
DIFFERENCES = (0.0, 0.0, 0.0, -0.1, -0.12, -0.1, 0.5, 0.4, 0.5, 0.03, -0.05, 0.0, -0.1, -0.15, 0.02, 0.0, 0.6, 0.5, 0.0)


def grow(url: str, ours: Schema, until: float = NOW, rounds: int = len(DIFFERENCES)) -> None:
    """Fills the store at `url` with a week of drawn updates, the same ones each time; the newest are of `until`."""
    dice, fits = Random(7), shape(ours)
    store = Store(url, fits)
    version = store.start(initial_vectors(load_starter_bytes(), fits), until - 8 * DAY)
    step = partial(next_version, rules=default_rules(ours), gate=Gate(distance=1, first_distance=1))
    for number in range(rounds):
        now = until - 6.4 * DAY * (rounds - 1 - number) / rounds
        current = store.current()
        trials = {name: trial.version for name, trial in current.trials.items()}
        offers = [
            _offer(dice, fits, version.version, trials, DIFFERENCES[number], project)
            for project in range(PROJECTS)
            for _ in range(1 + (project % 3) * 2)
        ]
        store.accept(offers, version.version, 100, now)
        version = present(store.aggregate(step, now))
        if number == 11:
            version = store.roll_back(version.version - 4, now + 60)
    store.close()


def _offer(
    dice: Random, fits: SchemaShape, base: int, trials: dict[str, int], worse: float, project: int
) -> UpdateOffer:
    deltas = {name: _delta(dice, size) for name, size in fits.sizes.items()}
    scores = {
        name: TrialScore(trial, array("f", [max(-1.0, min(1.0, dice.gauss(worse, 0.08)))])[0])
        for name, trial in trials.items()
    }
    identity = f"{dice.getrandbits(128):032x}"
    made = Update(
        fits.digest,
        base,
        identity,
        f"{project + 1:032x}",
        dict.fromkeys(deltas, 64),
        deltas,
        scores,
    )
    return UpdateOffer(identity, made.project, f"owner-{project}", base, pack_update(made), scores)


def _delta(dice: Random, size: int) -> Vector:
    delta = zeros(size)
    for place in dice.sample(range(size), min(size, 12)):
        delta[place] = dice.gauss(0, 0.02)
    return delta


@contextmanager
def running(store: str, log: Path) -> Iterator[str]:
    """The URL of `fedstep serve` on this store; stopped by its pid."""
    command = bound(sys.executable, "-m", "fedstep", "serve", "--store", store, "--port", "0", "--max-wait", "3600")
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            yield _url(server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(15)


def _url(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 30
    while not (found := re.search(r"http://[\w.:]+(?=,)", log.read_text())):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, "it did not listen inside 30 s"
        time.sleep(0.05)
    return found.group()
