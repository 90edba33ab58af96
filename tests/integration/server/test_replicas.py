"""Two real aggregators over one PostgreSQL, of which one is killed under load: every receipt is accounted for."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from threading import Event

import psycopg
import pytest

from fedstep.errors import FedstepError
from fedstep.federation.messages import Update, pack_update
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from tests.helpers.lifetime import bound
from tests.helpers.narrow import present
from tests.helpers.server_shares import pulled

PATIENCE = RetryPolicy(timeout=30.0, waits=(0.2, 0.5))
SENDERS, LONGEST = 6, 120.0  # seconds until everything is acknowledged and aggregated, on a busy machine


@contextmanager
def replica(database: str, folder: Path, name: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The URL and the process of `fedstep serve`, which is ended by its pid."""
    command = bound(
        sys.executable, "-P", "-m", "fedstep", "serve", "--port", "0", "--buffer-size", "5", "--max-wait", "0.5"
    )
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        server = subprocess.Popen([*command, "--store", database], stdout=sink, stderr=sink, cwd=folder)
    try:
        yield _address(log, server), server
    finally:
        server.terminate()
        server.wait(60)


def _address(log: Path, server: subprocess.Popen) -> str:
    end = time.monotonic() + 60
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert time.monotonic() < end, log.read_text()
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    return found[0]


def body(number: int, base: int) -> tuple[str, bytes]:
    """An update's id and its bytes."""
    delta = zeros(schema().tasks["build-duration"].size())
    delta[number % len(delta)] = 0.01
    project = f"{number % 40:032x}"
    tasks = {"build-duration": 8}, {"build-duration": delta}
    return f"{number:032x}", pack_update(Update(schema().digest, base, f"{number:032x}", project, *tasks))


def deliver(number: int, urls: tuple[str, ...], base: int, end: float) -> tuple[str, int]:
    """The receipt of an update and the version that came with it, after as many tries at either replica as it takes."""
    key, content = body(number, base)
    for url in islice(cycle(urls), number % 2, None):
        assert time.monotonic() < end, f"update {number} is not acknowledged"
        try:
            answer = requests_transport(url)("POST", "/v1/updates", {"Idempotency-Key": key}, content, 20.0)
        except FedstepError:
            continue
        if answer.status == 202:
            found = json.loads(answer.body)
            return found["receipt"], found["version"]
        assert answer.status == 503, answer.body
        time.sleep(0.1)
    raise AssertionError


def send(numbers: range, urls: tuple[str, ...], acknowledged: dict[str, str], enough: Event) -> None:
    """Sends one update after the other, each a second time to the other replica; `enough` once a third is through."""
    base, end = 0, time.monotonic() + LONGEST
    for sent, number in enumerate(numbers):
        receipt, base = deliver(number, urls, base, end)
        acknowledged[f"{number:032x}"] = receipt
        assert deliver(number, urls[::-1], base, end)[0] == receipt
        if sent >= len(numbers) // 3:
            enough.set()


def task(url: str) -> int:
    return pulled(url).candidate_version


class TestReplicas:
    @pytest.mark.parametrize("updates", [10, pytest.param(100, marks=pytest.mark.full)])
    def test_killed_replica_loses_or_double_counts_no_receipt(self, database, tmp_path, updates):
        """No receipt is lost or counted twice when one replica is killed."""
        acknowledged: dict[str, str] = {}
        with ExitStack() as stack:
            doomed, process = stack.enter_context(replica(database, tmp_path, "doomed"))
            other, _ = stack.enter_context(replica(database, tmp_path, "other"))
            enough, shares = Event(), [range(one * updates, (one + 1) * updates) for one in range(SENDERS)]
            with ThreadPoolExecutor(SENDERS) as pool:
                sending = [pool.submit(send, share, (doomed, other), acknowledged, enough) for share in shares]
                enough.wait(LONGEST)
                os.kill(process.pid, 9)
                after = task(other)
                for one in sending:
                    one.result()
            newest = _when_folded(database)
            assert newest > after, "the replica that is left goes on folding"
            end = time.monotonic() + LONGEST
            while task(other) < newest:
                assert time.monotonic() < end, "what was folded is not served"
                time.sleep(0.1)
        _account(database, acknowledged, SENDERS * updates)


def _when_folded(database: str) -> int:
    """The newest version, once nothing waits."""
    end = time.monotonic() + LONGEST
    with psycopg.connect(database, autocommit=True) as connection:
        while connection.execute("select count(*) from updates where aggregated_in is null").fetchone() != (0,):
            assert time.monotonic() < end, "something is not folded"
            time.sleep(0.1)
        return int(present(connection.execute("select max(version) from versions").fetchone())[0])


def _account(database: str, acknowledged: dict[str, str], sent: int) -> None:
    with psycopg.connect(database) as connection:
        kept = connection.execute("select id, aggregated_in from updates").fetchall()
        stored = connection.execute("select id, receipt from receipts").fetchall()
        versions = connection.execute("select version, parent, updates from versions order by version").fetchall()
    assert len(acknowledged) == sent
    assert dict(stored) == acknowledged
    assert sorted(key for key, _ in kept) == sorted(acknowledged)
    folds = Counter(folded for _, folded in kept)
    assert [(version, count) for version, _, count in versions if count] == sorted(folds.items())
    lineage = [(version, parent) for version, parent, _ in versions]
    assert lineage == [(0, None), *((number, number - 1) for number in range(1, len(versions)))]
