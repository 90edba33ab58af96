"""A disk that is full, a database that another process holds, SIGTERM under load: what was promised is kept."""

import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
import requests

from fedstep.federation.messages import Model, pack_update, shape
from fedstep.schema.schema import schema
from tests.benchmarks.accounts import accounts
from tests.benchmarks.senders import Senders, drawn
from tests.benchmarks.server import address, started

OWN_MOUNTS = ("unshare", "--map-root-user", "--mount")


class Serving(NamedTuple):
    """A running aggregator; `folder` is where its store is, seen from this process."""

    url: str
    process: "subprocess.Popen[bytes]"
    folder: Path

    def store_beside(self, place: Path) -> str:
        """The URL of a copy: SQLite follows links, also those that lead out of the other's file system."""
        for file in self.folder.glob("a.db*"):
            shutil.copy(file, place / f"copy-of-{file.name}")
        return f"sqlite:///{place / 'copy-of-a.db'}"


@contextmanager
def serving(tmp_path: Path, *before: str, seen: str = "") -> Iterator[Serving]:
    """`fedstep serve`, stopped by its pid; `seen` is the prefix that leads into its file system."""
    folder = tmp_path / "disk"
    folder.mkdir(exist_ok=True)
    log = tmp_path / "log"
    process = started(log, "--store", f"sqlite:///{folder / 'a.db'}", "--buffer-size", "1000", before=before)
    try:
        url = address(process, log)
        yield Serving(url, process, Path(seen.format(pid=process.pid) + str(folder)))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def of_a_file_size(tmp_path: Path) -> Iterator[tuple[Serving, Callable[[], None], Callable[[], None]]]:
    """A server whose files must not grow from `fill` on, until `free`: the kernel refuses the write."""
    with serving(tmp_path) as server:

        def limit(most: int) -> None:
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        yield server, lambda: limit((server.folder / "a.db-wal").stat().st_size), lambda: limit(resource.RLIM_INFINITY)


@contextmanager
def of_a_file_system(tmp_path: Path) -> Iterator[tuple[Serving, Callable[[], None], Callable[[], None]]]:
    """A server on a file system of its own, of 4 MB, which goes when it goes."""
    script = 'mount -t tmpfs -o size=4m none "$0" && exec "$@"'
    if subprocess.run([*OWN_MOUNTS, "sh", "-c", script, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("no mount here, so no file system that fills up: run as root, in a container with SYS_ADMIN")
    before = (*OWN_MOUNTS, "sh", "-c", script, str(tmp_path / "disk"))
    with serving(tmp_path, *before, seen="/proc/{pid}/root") as server:
        ballast = server.folder / "ballast"

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass

        yield server, fill, ballast.unlink


class TestFullDisk:
    @pytest.mark.parametrize("small_disk", [of_a_file_size, of_a_file_system])
    def test_full_disk_acknowledges_and_loses_nothing_and_recovers(self, tmp_path, small_disk):
        """On a full disk, nothing is acknowledged, nothing is lost, and it goes on by itself."""
        bodies = dict(made(number) for number in range(60))
        with small_disk(tmp_path) as (server, fill, free):
            numbers = iter(bodies)
            promised = {
                number: receipt(post(server, number, bodies[number])) for number in [next(numbers) for _ in "123"]
            }
            fill()
            for number in numbers:
                answer = post(server, number, bodies[number])
                if answer.status_code != 202:
                    break
                promised[number] = receipt(answer)
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:fedstep:problem:store")
            assert int(answer.headers["Retry-After"]) > 0
            assert requests.get(f"{server.url}/healthz", timeout=30).status_code == 200
            free()
            promised |= {number: receipt(post(server, number, bodies[number])) for number in bodies.keys() - promised}
            assert {number: receipt(post(server, number, bodies[number])) for number in promised} == promised
            assert accounts(server.store_beside(tmp_path), bodies, promised).wrong == ()


class TestLockedDatabase:
    def test_senders_wait_for_a_database_that_is_held_long(self, tmp_path):
        """Senders wait for a database that another process holds for long."""
        bodies = dict(made(number) for number in range(3))
        first, second, third = bodies
        with serving(tmp_path) as server:
            promised = {first: receipt(post(server, first, bodies[first]))}
            with closing(sqlite3.connect(server.folder / "a.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                answer = post(server, second, bodies[second])
                assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
                other.execute("COMMIT")
            promised |= {number: receipt(post(server, number, bodies[number])) for number in (second, third)}
            assert accounts(server.store_beside(tmp_path), bodies, promised).wrong == ()


class TestReplacedStore:
    @pytest.mark.parametrize("removed", ["a.db", "a.db-wal"])
    def test_nothing_is_acknowledged_into_a_removed_file(self, tmp_path, removed):
        """SQLite would go on to write into files that no longer have a name."""
        bodies = dict(made(number) for number in range(2))
        first, second = bodies
        with serving(tmp_path) as server:
            receipt(post(server, first, bodies[first]))
            (server.folder / removed).rename(tmp_path / "removed")
            answer = post(server, second, bodies[second])
            assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
            time.sleep(1.1)  # the last test write counts for a second
            assert requests.get(f"{server.url}/readyz", timeout=30).status_code == 503

    def test_nothing_is_acknowledged_beside_another_store(self, tmp_path):
        """A backup that is put in its place while it runs."""
        bodies = dict(made(number) for number in range(2))
        first, second = bodies
        with serving(tmp_path) as server:
            receipt(post(server, first, bodies[first]))
            with (
                closing(sqlite3.connect(server.folder / "a.db")) as store,
                closing(sqlite3.connect(tmp_path / "backup.db")) as backup,
            ):
                store.backup(backup)
            (tmp_path / "backup.db").replace(server.folder / "a.db")
            assert post(server, second, bodies[second]).status_code == 503


class TestSignals:
    def test_sigterm_under_load_keeps_acknowledged_and_exits_0(self, tmp_path):
        """SIGTERM under load keeps what was acknowledged and ends with 0."""
        senders = Senders(6, seed=5)
        senders.start()
        with serving(tmp_path) as server:
            senders.url = server.url
            while len(senders.receipts) < 12:
                assert server.process.poll() is None
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
            senders.url = ""
            assert accounts(server.store_beside(tmp_path), senders.sent, dict(senders.receipts)).wrong == ()
        with serving(tmp_path) as again:
            senders.url = again.url
            senders.finish(60.0)
            assert senders.wrong == []
            assert accounts(again.store_beside(tmp_path), senders.sent, senders.receipts).wrong == ()


def made(number: int) -> tuple[str, bytes]:
    """The id and the body of an update."""
    update = drawn(Random(number), number, 0, Model(shape(schema()).digest, 0, 0, "", {}, {}))
    return update.id, pack_update(update)


def post(server: Serving, number: str, body: bytes) -> requests.Response:
    return requests.post(f"{server.url}/v1/updates", body, headers={"Idempotency-Key": number}, timeout=60)


def receipt(answer: requests.Response) -> str:
    assert answer.status_code == 202, answer.text
    return str(answer.json()["receipt"])
