"""Jobs of a matrix that publish at once to a real remote: whether anything is lost, and what it takes.

python -m tests.benchmarks.history_race [ROUNDS] [JOBS]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "GIT_CONFIG_NOSYSTEM": "1"}
LONGEST = 120.0  # seconds for one job
JOB = """
import json, sys, time
from random import Random
from fedstep.types import BuildOutcome
from fedstep.history.records import BuildRecord
from fedstep.history.project_store import ProjectStore
from fedstep.history.git_sync import WAITS, open_channel, publish, fetch_and_import
root, job, number, gate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
home, channel = ProjectStore(f"{root}/.git/fedstep"), open_channel(root, "")
fetch_and_import(home, channel, 60, time.time())
home.prepare()
at = 1_790_000_000.0 + 600 * number + job
name = home.keyed_hash("build", str(number), str(job))
home.log.append(BuildRecord(name, at, at + 9, 9.0, "unit||mark", BuildOutcome.PASSED))
while time.time() < gate:
    time.sleep(0.001)
draw, began = Random(job * 1000 + number), time.perf_counter()
done = publish(home, channel, 0, at, 60, [wait * (0.5 + draw.random()) for wait in WAITS])
print(json.dumps([done.attempts, time.perf_counter() - began]))
"""


@dataclass(frozen=True)
class Round:
    """One round: the attempts and seconds of each job, and the records that the remote has afterwards."""

    attempts: tuple[int, ...]
    seconds: tuple[float, ...]
    records: int


def git(folder: Path, *arguments: str) -> str:
    """What git printed in this folder."""
    command = ("git", "-c", "user.name=b", "-c", "user.email=b@example.org", "-C", str(folder), *arguments)
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=60).stdout


def new_remote(folder: Path) -> Path:
    """A bare repository with one commit on main."""
    remote, first = folder / "remote.git", folder / "first"
    git(folder, "init", "-q", "--bare", "-b", "main", str(remote))
    git(folder, "init", "-q", "-b", "main", str(first))
    git(first, "commit", "-q", "--allow-empty", "-m", "start")
    git(first, "push", "-q", str(remote), "main")
    return remote


def clones(folder: Path, remote: Path, count: int) -> tuple[Path, ...]:
    """Fresh clones, as jobs on other machines have them; half of them shallow."""
    made = tuple(folder / f"job-{number}" for number in range(count))
    for number, clone in enumerate(made):
        depth = ("--depth", "1") if number % 2 else ()
        git(folder, "clone", "-q", *depth, remote.as_uri(), str(clone))
    return made


def race(remote: Path, jobs: Sequence[Path], number: int) -> Round:
    """All jobs publish a build each at the same moment."""
    gate = time.time() + 1.5
    running = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(clone), str(job), str(number), str(gate)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for job, clone in enumerate(jobs)
    ]
    told = []
    for process in running:
        out, _ = process.communicate(timeout=LONGEST)
        if process.returncode:
            raise RuntimeError(f"a job of round {number} failed")
        told.append(json.loads(out))
    return Round(tuple(t[0] for t in told), tuple(t[1] for t in told), len(records(remote)))


def records(remote: Path) -> set[str]:
    """The record files that the remote's ref has."""
    names = git(remote, "ls-tree", "-r", "--name-only", "refs/fedstep/history").splitlines()
    return {name.rpartition("/")[2] for name in names if name.endswith(".rec")}


def main() -> None:
    rounds, jobs = map(int, (sys.argv[1:] + ["50", "4"][len(sys.argv) - 1 :])[:2])
    done = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        remote = new_remote(folder)
        places = clones(folder, remote, jobs)
        for number in range(rounds):
            done.append(race(remote, places, number))
            assert done[-1].records == jobs * (number + 1), f"round {number}: a record was lost"
        git(remote, "fsck", "--connectivity-only")
    attempts = [count for one in done for count in one.attempts]
    seconds = [spent for one in done for spent in one.seconds]
    print(f"{rounds} rounds of {jobs} jobs: {rounds * jobs} records published, {done[-1].records} there, 0 lost")
    print(f"attempts a job: median {statistics.median(attempts):g}, most {max(attempts)}")
    print(f"seconds a job: median {statistics.median(seconds):.2f}, most {max(seconds):.2f}")


if __name__ == "__main__":
    main()
