"""What a session of pytest has seen of each test: its attempts, each in the phases setup, call and teardown."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

__all__ = ["Attempt", "Attempted", "Attempts", "identity"]


@dataclass(slots=True)
class Attempt:
    """One attempt at a test, while its phases come in."""

    outcome: str = "passed"  # passed, failed, skipped
    seconds: float = 0.0
    message: str = ""  # of the first failure: "AssertionError: 3 != 4"
    failed_reports: int = 0  # as pytest counts failures: call and teardown are two


@dataclass(slots=True)
class Attempted:
    """One test and its attempts in order."""

    node_id: str
    file: str  # from pytest's root
    line: int  # 1-based, 0 where unknown
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether it failed, and did not pass in its last attempt."""
        return self.attempts[-1].outcome != "passed" and any(attempt.outcome == "failed" for attempt in self.attempts)


class Attempts:
    """All tests of a session by node id, in the order in which they began."""

    def __init__(self) -> None:
        self.tests: dict[str, Attempted] = {}
        self._open: dict[tuple[str, str], Attempt] = {}

    def add(self, report: pytest.TestReport) -> None:
        """Take one phase of one attempt in."""
        test = self.tests.setdefault(report.nodeid, Attempted(report.nodeid, *_place(report)))
        key = (report.nodeid, str(getattr(report, "worker_id", "")))  # `--dist each` runs a test in several workers
        if report.when == "setup" or key not in self._open:
            self._open[key] = Attempt()
            test.attempts.append(self._open[key])
        _note(self._open[key], report)

    def failures(self) -> tuple[str, ...]:
        """The node ids of the tests that failed and did not pass in their last attempt."""
        return tuple(node_id for node_id, test in self.tests.items() if test.failed)

    def __iter__(self) -> Iterator[Attempted]:
        return iter(self.tests.values())


def identity(node_id: str, prefix: str = "") -> tuple[str, str]:
    """Class and name of a test as in the reports of pytest's `--junit-xml`, from which histories are learned.

    >>> identity("shop/test_cart.py::TestCart::test_pay[a::b]")
    ('shop.test_cart.TestCart', 'test_pay[a::b]')
    """
    address, bracket, parameters = node_id.partition("[")
    path, *names = address.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    *classes, name = names or [""]
    return ".".join(filter(None, (prefix, module, *classes))), f"{name}{bracket}{parameters}"


def _place(report: pytest.TestReport) -> tuple[str, int]:
    file, line, _ = report.location
    return file, 0 if line is None else line + 1


def _note(attempt: Attempt, report: pytest.TestReport) -> None:
    """pytest-rerunfailures gives the outcome `rerun` to a failure that it is about to run again."""
    attempt.seconds += max(0.0, report.duration)
    outcome = str(report.outcome)
    if outcome in ("failed", "rerun"):
        attempt.outcome = "failed"
        attempt.message = attempt.message or _message(report)
        attempt.failed_reports += outcome == "failed"
    elif outcome == "skipped" and attempt.outcome == "passed":
        attempt.outcome = "skipped"


def _message(report: pytest.TestReport) -> str:
    """The exception and the beginning of what it says; a report may have any object as its `longrepr`."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(getattr(crash, "message", "") or report.longrepr or "failed")
    return next(iter(text.strip().splitlines()), "failed")[:200]
