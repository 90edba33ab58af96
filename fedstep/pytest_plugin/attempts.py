"""Record the attempts at each test of a pytest session, each in the phases setup, call and teardown."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

import pytest

from fedstep.ingest.change_impact import NOT_STARTED, split_node


@dataclass(slots=True)
class Attempt:
    """One attempt at a test, updated with each phase."""

    outcome: str = "passed"  # passed, failed, skipped
    seconds: float = 0.0
    message: str = ""  # of the first failure: "AssertionError: 3 != 4"
    failed_reports: int = 0  # as pytest counts failures: call and teardown are two


@dataclass(slots=True)
class TestAttempts:
    """One test and its attempts in order."""

    node_id: str
    file: str  # from pytest's root
    line: int  # 1-based, 0 where unknown
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Return whether it failed and did not pass in its last attempt."""
        return self.attempts[-1].outcome != "passed" and any(attempt.outcome == "failed" for attempt in self.attempts)


class SessionAttempts:
    """All tests of a session by node id, in the order in which they began."""

    def __init__(self) -> None:
        self.tests: dict[str, TestAttempts] = {}
        self.uncollected: dict[str, str] = {}  # messages by node id, "" for a skip; xdist reports each once a worker
        self._open: dict[tuple[str, str], Attempt] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take one phase of one attempt in."""
        test = self.tests.setdefault(report.nodeid, TestAttempts(report.nodeid, *_place(report)))
        key = (report.nodeid, str(getattr(report, "worker_id", "")))  # `--dist each` runs a test in several workers
        if report.when == "setup" or key not in self._open:
            self._open[key] = Attempt()
            test.attempts.append(self._open[key])
        _note(self._open[key], report)

    def add_collection(self, report: pytest.CollectReport) -> None:
        """Keep the error of a file or folder that could not be collected, or that it skips itself."""
        if not report.passed:
            self.uncollected.setdefault(report.nodeid, _message(report) if report.failed else "")

    def add_internal_error(self, text: str) -> None:
        """Keep the error that ends the session, as of a file that calls `sys.exit`, by pytest's name for it."""
        self.uncollected.setdefault("internal", next(reversed(text.strip().splitlines()), "failed")[:200])

    def failures(self) -> tuple[str, ...]:
        """Return the node ids of the tests that failed and did not pass in their last attempt."""
        return tuple(node_id for node_id, test in self.tests.items() if test.failed)

    def __iter__(self) -> Iterator[TestAttempts]:
        return iter(self.tests.values())


def _place(report: pytest.TestReport) -> tuple[str, int]:
    file, line, _ = report.location
    return file, 0 if line is None else line + 1


def _note(attempt: Attempt, report: pytest.TestReport) -> None:
    """pytest-rerunfailures gives the outcome `rerun` to a failure that it is about to run again."""
    attempt.seconds += max(0.0, report.duration)
    outcome = "rerun" if getattr(report, "fedstep_quarantined", False) else str(report.outcome)  # failed, not counted
    if outcome in ("failed", "rerun"):
        attempt.outcome = "failed"
        attempt.message = attempt.message or _message(report)
        attempt.failed_reports += outcome == "failed"
    elif outcome == "skipped" and attempt.outcome == "passed":
        attempt.outcome = "skipped"


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the exception and the start of its message; a report may have any object as its `longrepr`."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(getattr(crash, "message", "") or report.longrepr or "failed")
    return next(iter(text.strip().splitlines()), "failed")[:200]


_NONE: Mapping[str, str] = {}
_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n<testsuite name="fedstep">\n'
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def record_of(
    tests: Iterable[TestAttempts], folder: str = "", prefix: str = "", uncollected: Mapping[str, str] = _NONE
) -> str:
    """Return the JUnit XML. `folder` is pytest's root within the repository; `prefix` is that of `--junit-prefix`.

    A failure that passed later is a `flakyFailure`; one that never passed is a `failure`, and a `rerunFailure` for each
    further attempt. The time is that of the last attempt. What could not be collected is an error, and a file that
    skips itself is skipped, as in pytest's own report.
    """
    lines = "".join(_case(test, folder, prefix) for test in tests if test.attempts)
    lines += "".join(_format_uncollected(node_id, message) for node_id, message in uncollected.items())
    return f"{_HEAD}{lines}</testsuite>\n</testsuites>\n"


def write_record(path: str, text: str) -> None:
    """Write the document, whole or not at all. Raises OSError."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    scratch = f"{path}.{os.getpid()}.tmp"
    try:
        with open(scratch, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.remove(scratch)


def _case(test: TestAttempts, folder: str, prefix: str) -> str:
    group, name = split_node(test.node_id, prefix)
    location = {"file": os.path.normpath(os.path.join(folder, test.file)).replace(os.sep, "/"), "line": str(test.line)}
    case_attributes = {"classname": group, "name": name, "time": f"{test.attempts[-1].seconds:.3f}"}
    case_attributes |= location if test.line else {}
    attributes = " ".join(f"{key}={_quote(value)}" for key, value in case_attributes.items())
    inside = "".join(_outcomes(test.attempts))
    return f"<testcase {attributes}>{inside}</testcase>\n" if inside else f"<testcase {attributes}/>\n"


def _format_uncollected(node_id: str, message: str) -> str:
    """Return the case of what could not be collected, whose name in the report of `--junit-xml` is read as this one."""
    module = node_id.removesuffix(".py").replace("/", ".")
    group, name = ("pytest", module) if module == "internal" else (module, NOT_STARTED)
    inside = f"<error message={_quote(f'collection failure: {message}')}/>" if message else "<skipped/>"
    return f'<testcase classname={_quote(group)} name={_quote(name)} time="0.000">{inside}</testcase>\n'


def _outcomes(attempts: list[Attempt]) -> Iterator[str]:
    """Yield the elements inside a test case; none for a test that passed at once."""
    failures = [attempt for attempt in attempts if attempt.outcome == "failed"]
    if not failures:
        if all(attempt.outcome == "skipped" for attempt in attempts):
            yield "<skipped/>"
        return
    if any(attempt.outcome == "passed" for attempt in attempts):
        first, others = "flakyFailure", "flakyFailure"
    else:
        first, others = "failure", "rerunFailure"
    for index, failure in enumerate(failures):
        yield f"<{others if index else first} message={_quote(failure.message)}/>"


def _quote(text: str) -> str:
    """Quote an attribute's value; characters that XML does not allow become escapes."""
    return quoteattr(_NO_XML.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text))
