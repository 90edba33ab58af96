"""Facts about a history on a ref when jobs meet, are killed, or find what a killed one left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedstep.errors import HistoryError
from fedstep.history.git_ref import REF
from fedstep.history.records import BuildRecord
from tests.benchmarks.history_race import JOB, race
from tests.helpers.history import ENVIRONMENT, clone, git, recorded


class TestConcurrentJobs:
    @pytest.mark.slow
    def test_four_jobs_at_once_lose_nothing_in_three_rounds(self, remote, tmp_path):
        jobs = [clone(remote, tmp_path / f"job-{n}", *(("--depth", "1") if n % 2 else ())).root for n in range(4)]
        counts = [race(remote, jobs, number).records for number in range(3)]
        assert counts == [4, 8, 12]

    @pytest.mark.slow
    def test_jobs_killed_at_any_moment_leave_nothing_broken(self, remote, ada):
        ada.record(500)
        ada.publish()
        for number, delay in enumerate((0.0, 0.01, 0.03, 0.05, 0.08, 0.12)):
            before = len(ada.home.log.files())
            process = subprocess.Popen(
                [sys.executable, "-c", JOB, str(ada.root), "0", str(number), "0"],
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            while len(ada.home.log.files()) == before and process.poll() is None:
                time.sleep(0.002)
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for lock in (ada.root / ".git").rglob("*.lock"):  # of a git killed just now: it goes once it is old
            os.utime(lock, (time.time() - 120, time.time() - 120))
        ada.record(501)
        ada.publish()
        assert len(recorded(remote)) == 8
        assert recorded(remote) == ada.home.log.files()
        assert all(isinstance(entry, BuildRecord) for _, entry in ada.home.log.entries(ada.home.log.files()))
        for repository in (remote, ada.root):
            git(repository, "fsck", "--connectivity-only")


class TestRemains:
    def test_old_lock_of_a_killed_git_is_removed(self, ada, bob):
        """A lock that a killed git left is taken away once it is old."""
        bob.record(1)
        bob.publish()
        lock = ada.root / ".git" / f"{REF}.lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        with pytest.raises(HistoryError, match="lock"):
            ada.receive()
        os.utime(lock, (time.time() - 120, time.time() - 120))
        assert ada.receive().added == 1

    def test_a_record_without_its_bytes_is_fetched_again(self, ada, bob):
        name = ada.record(1)
        ada.publish()
        bob.receive()
        path = Path(bob.home.path(f"builds/{name}"))
        whole = path.read_bytes()
        path.write_bytes(b"")
        assert bob.receive().added == 1
        assert path.read_bytes() == whole

    def test_a_ref_that_is_only_half_there_is_never_published_over(self, remote, ada, bob):
        name = ada.record(1)
        ada.publish()
        bob.receive()
        oid = git(bob.root, "rev-parse", f"{REF}:2026-11/{name}").strip()
        (bob.root / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
        Path(bob.home.path(f"builds/{name}")).unlink()
        bob.record(2)
        with pytest.raises(HistoryError, match=rf"is not there.*git update-ref -d {REF}"):
            bob.publish()
        assert recorded(remote) == [name]
        git(bob.root, "update-ref", "-d", REF)
        bob.publish()
        assert len(recorded(remote)) == 2
