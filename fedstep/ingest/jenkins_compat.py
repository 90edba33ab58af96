"""How many tests Jenkins' JUnit plugin counts in the same files, by its own rules, to explain differences.

The rules are those of the plugin's SuiteResult, CaseResult and TestResult; `docs/reference/reports.md` lists them.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from fedstep.ingest.xml import MAX_DEPTH, DamagedDocument, RejectedDocument, Repairs, Tokenizer
from fedstep.types import Unavailable

OTHER, SUITE, CASE = 0, 1, 2
MARKS = {"failure": 1, "error": 1, "skipped": 2}


class JenkinsCount(NamedTuple):
    """The tests of one file as Jenkins shows them: each attempt is one, and those that have not failed nor passed."""

    tests: int
    failed: int
    skipped: int


NOTHING = JenkinsCount(0, 0, 0)
UNREADABLE = JenkinsCount(1, 1, 0)  # Jenkins makes a failed test of a file that it cannot parse


class CountedSuite(NamedTuple):
    """A suite that has tests, and how many."""

    name: str
    id: str | None
    timestamp: str | None
    counted: JenkinsCount


class JenkinsCounter:
    """Count file after file of one build: a suite that was there before, with the same time, is a copy."""

    def __init__(self) -> None:
        self._timestamps: dict[tuple[str, str | None], str | None] = {}  # by the suite's name and id

    def count(self, source: str, blocks: Callable[[], Iterable[bytes]]) -> JenkinsCount | Unavailable:
        """Return the counts of one file; Unavailable for a file with a DTD of its own."""
        tokenizer = Tokenizer(encoding=None)
        handler = JenkinsHandler(tokenizer, source.rpartition("/")[2])
        try:
            for _ in tokenizer.read(iter(blocks()), Repairs()):
                pass
        except RejectedDocument as rejection:
            return Unavailable(str(rejection))
        except (DamagedDocument, ValueError, LookupError):
            return UNREADABLE if source.endswith(".xml") else Unavailable("Jenkins stops at a file that is not XML")
        counts = [suite.counted for suite in handler.suites if self._is_new(suite)]
        return JenkinsCount(*map(sum, zip(*counts, strict=True))) if counts else NOTHING

    def _is_new(self, suite: CountedSuite) -> bool:
        key = (suite.name, suite.id)
        if key in self._timestamps:
            return self._timestamps[key] != suite.timestamp or suite.timestamp is None
        self._timestamps[key] = suite.timestamp
        return True


class OpenSuite:
    """The attributes of a suite that is read, and what was counted in it so far."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.tests = self.failed = self.skipped = 0
        self.is_broken = False

    def count_error(self) -> None:
        """Count one more failed test for a suite with errors of its own, however many it has."""
        if not self.is_broken:
            self.tests, self.failed, self.is_broken = self.tests + 1, self.failed + 1, True

    def count_case(self, marks: int) -> None:
        """Count a case: failed where it has no other mark, skipped where it has that one."""
        self.tests += 1
        self.failed += marks == MARKS["failure"]
        self.skipped += marks >= MARKS["skipped"]

    def finish(self, file: str) -> CountedSuite:
        """Return the suite; one without a name has that of its file."""
        name = self.attributes.get("name", f"({file})")
        package = self.attributes.get("package", "") if "name" in self.attributes else ""
        full_name = f"{package}.{name}" if package else name
        counted = JenkinsCount(self.tests, self.failed, self.skipped)
        return CountedSuite(full_name, self.attributes.get("id"), self.attributes.get("timestamp"), counted)


class JenkinsHandler:
    """Handle one document: suites in suites, cases in suites, marks in cases; nothing in between counts."""

    def __init__(self, tokenizer: Tokenizer, file: str) -> None:
        self.suites: list[CountedSuite] = []
        self._tokenizer, self._file = tokenizer, file
        self._kinds: list[int] = []  # of the open elements
        self._open_suites: list[OpenSuite] = []
        self._marks = 0
        tokenizer.set_handlers(self._start, self._end)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local_name = name.rpartition(":")[2]
        parent = self._kinds[-1] if self._kinds else OTHER
        kind = OTHER
        if not self._kinds or (parent == SUITE and local_name == "testsuite"):
            kind = SUITE
            self._open_suites.append(OpenSuite(attributes))
        elif parent == SUITE and local_name == "testcase":
            kind, self._marks = CASE, 0
        elif parent == SUITE and local_name == "error":
            self._open_suites[-1].count_error()
        elif parent == CASE:
            self._marks |= MARKS.get(local_name, 0)
        self._kinds.append(kind)
        if len(self._kinds) > MAX_DEPTH:
            raise self._tokenizer.too_deep()

    def _end(self, _name: str) -> None:
        kind = self._kinds.pop()
        if kind == CASE:
            self._open_suites[-1].count_case(self._marks)
        elif kind == SUITE and (suite := self._open_suites.pop()).tests:
            self.suites.append(suite.finish(self._file))
