"""Tells whether a build from elsewhere was recorded by `fedstep train` when it ran, under another name."""

import re
from bisect import bisect_left, bisect_right
from functools import lru_cache

from fedstep.build.record import Dropped, Evidence
from fedstep.history.entry import Entry
from fedstep.history.log import Log

__all__ = ["Twins"]

VENDORS = ("github", "gitlab", "jenkins")
SLACK = 60.0  # seconds by which the clocks of a runner and of its server may differ


class Twins:
    """The records of a log that no import made. A name holds a digest of the reports, which a server may not have."""

    def __init__(self, log: Log, files: list[str]) -> None:
        self.files = files
        self.read = lru_cache(maxsize=32)(log.read)

    def has(self, evidence: Evidence) -> bool:
        """Whether a step of the same job, matrix cell and branch was recorded while this build ran."""
        ci = evidence.situation.ci
        if not self.files or ci.vendor not in VENDORS:
            return False
        first = bisect_left(self.files, _place(evidence.situation.started_at - SLACK))
        last = bisect_right(self.files, _place(evidence.finished_at + SLACK))
        records = (self.read(file) for file in self.files[first:last])
        return any(not isinstance(one, Dropped) and _is_twin(one, evidence) for one in records)


def _place(seconds: float) -> str:
    return f"{max(0, round(seconds * 1000)):014d}"


def _is_twin(entry: Entry, evidence: Evidence) -> bool:
    ci = evidence.situation.ci
    job, cell, _ = [*entry.stream.rsplit("|", 2), "", ""][:3]
    # A cell is what the workflow's author calls it: compared by its words, {"os": "linux"} is linux.
    return job == ci.job and entry.branch == ci.branch and _words(ci.cell) <= _words(cell)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", text.lower()))
