"""The jobs of a workflow run on GitHub, and which of them made an artifact."""

import re
from typing import NamedTuple

from fedstep.build.ci import parse_time
from fedstep.importers.asker import Asker

__all__ = ["Job", "base_of", "cell_of", "owner_of", "read_jobs"]

RAN = ("success", "failure")
SLACK = 60.0  # seconds between the clock of a runner and that of the API


class Job(NamedTuple):
    """One job that ran to its end. Times are seconds since the epoch."""

    name: str  # as shown: the key in the workflow, and in a matrix "key (value, value)"
    conclusion: str  # success or failure
    started: float
    ended: float
    attempt: int


def read_jobs(asker: Asker, path: str) -> tuple[Job, ...]:
    """The jobs that passed or failed, of all attempts of a run. KeyError and the like for what is no list of jobs."""
    listed = (job for page in asker.pages(path) for job in page["jobs"] if job["conclusion"] in RAN)
    timed = ((job, parse_time(str(job["started_at"])), parse_time(str(job["completed_at"]))) for job in listed)
    return tuple(
        Job(str(job["name"])[:500], str(job["conclusion"]), started, ended, int(job.get("run_attempt") or 1))
        for job, started, ended in timed
        if isinstance(started, float) and isinstance(ended, float)
    )


def base_of(job: Job) -> str:
    """The job's name without its matrix cell: what GITHUB_JOB is, unless the workflow names the job otherwise.

    >>> base_of(Job("test (ubuntu, 3.12)", "success", 0.0, 1.0, 1))
    'test'
    """
    return _parts(job)[0]


def cell_of(job: Job) -> str:
    """The values of the job's matrix cell as GitHub shows them; "" where it has none.

    >>> cell_of(Job("test (ubuntu, 3.12)", "success", 0.0, 1.0, 1))
    'ubuntu, 3.12'
    """
    return _parts(job)[1]


def owner_of(artifact: str, created_at: float, jobs: tuple[Job, ...]) -> Job | None:
    """The job that made an artifact: the one that ran then, of several the one whose name it has; None in doubt."""
    then = [job for job in jobs if job.started - SLACK <= created_at <= job.ended + SLACK] or list(jobs)
    if len(then) == 1:
        return then[0]
    there = _words(artifact)
    scores = [(len(_words(job.name) & there), job) for job in then]
    best = max(score for score, _ in scores)
    winners = [job for score, job in scores if score == best]
    return winners[0] if best and len(winners) == 1 else None


def _parts(job: Job) -> tuple[str, str]:
    found = re.fullmatch(r"(.+?) \((.+)\)", job.name)
    return (found[1], found[2]) if found else (job.name, "")


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9.]+", name.lower()))
