"""How many tests Jenkins' JUnit plugin counts in the same files, by its own rules, to explain differences.

Rules read in the plugin's SuiteResult, CaseResult and TestResult: `docs/reference/reports.md` has them in words.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple
from xml.parsers import expat

from fedstep.build.markup import DEEPEST, Damaged, Refused, Repairs, feed, too_deep
from fedstep.build.record import Absent

__all__ = ["UNREADABLE", "JenkinsCount", "JenkinsCounter"]

OTHER, SUITE, CASE = 0, 1, 2
MARKS = {"failure": 1, "error": 1, "skipped": 2}


class JenkinsCount(NamedTuple):
    """The tests of one file as Jenkins shows them: each attempt is one, and those that have not failed nor passed."""

    tests: int
    failed: int
    skipped: int


NOTHING = JenkinsCount(0, 0, 0)
UNREADABLE = JenkinsCount(1, 1, 0)  # Jenkins makes a failed test of a file that it cannot parse


class JenkinsCounter:
    """Counts file after file of one build: a suite that was there before, with the same time, is a copy."""

    def __init__(self) -> None:
        self._suites: dict[tuple[str, str | None], str | None] = {}

    def count(self, source: str, blocks: Callable[[], Iterable[bytes]]) -> JenkinsCount | Absent:
        """The counts of one file; Absent where its answer cannot be known: for a document type of the file's own."""
        reader = _Reader(source.rpartition("/")[2])
        try:
            for _ in feed(reader.parser, iter(blocks()), Repairs(), lambda: True):
                pass
        except Refused as refusal:
            return Absent(str(refusal))
        except (Damaged, ValueError, LookupError):
            return UNREADABLE if source.endswith(".xml") else Absent("Jenkins stops at a file that is not XML")
        counted = [suite.counted for suite in reader.suites if self._is_new(suite)]
        return JenkinsCount(*map(sum, zip(*counted, strict=True))) if counted else NOTHING

    def _is_new(self, suite: "_Suite") -> bool:
        known = (suite.name, suite.id)
        if known in self._suites:
            return self._suites[known] != suite.timestamp or suite.timestamp is None
        self._suites[known] = suite.timestamp
        return True


class _Suite(NamedTuple):
    name: str
    id: str | None
    timestamp: str | None
    counted: JenkinsCount


class _Reader:
    """Walks one document: suites in suites, cases in suites, marks in cases; nothing in between counts."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.suites: list[_Suite] = []
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler, self.parser.EndElementHandler = self._start, self._end
        self._kinds: list[int] = []
        self._open: list[tuple[dict[str, str], list[int]]] = []  # attributes; tests, failed, skipped, broken
        self._marks = 0

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        above = self._kinds[-1] if self._kinds else OTHER
        kind = OTHER
        if not self._kinds or (above == SUITE and local == "testsuite"):
            kind = SUITE
            self._open.append((attributes, [0, 0, 0, 0]))
        elif above == SUITE and local == "testcase":
            kind, self._marks = CASE, 0
        elif above == SUITE and local == "error":
            self._broken_suite()
        elif above == CASE:
            self._marks |= MARKS.get(local, 0)
        self._kinds.append(kind)
        if len(self._kinds) > DEEPEST:
            raise too_deep(self.parser)

    def _broken_suite(self) -> None:
        """However many errors a suite has, they are one more test."""
        counts = self._open[-1][1]
        if not counts[3]:
            counts[:] = counts[0] + 1, counts[1] + 1, counts[2], 1

    def _end(self, _name: str) -> None:
        kind = self._kinds.pop()
        if kind == CASE:
            counts = self._open[-1][1]
            counts[0] += 1
            counts[1] += self._marks == 1
            counts[2] += self._marks > 1
        elif kind == SUITE:
            attributes, counts = self._open.pop()
            if counts[0]:
                self._finish(attributes, JenkinsCount(*counts[:3]))

    def _finish(self, attributes: dict[str, str], count: JenkinsCount) -> None:
        name = attributes.get("name", f"({self.file})")
        package = attributes.get("package", "") if "name" in attributes else ""
        full = f"{package}.{name}" if package else name
        self.suites.append(_Suite(full, attributes.get("id"), attributes.get("timestamp"), count))
