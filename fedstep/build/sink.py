"""Where a reader of a foreign format puts what it has read."""

from typing import Protocol

from fedstep.build.record import NO_SECONDS, Outcome

__all__ = ["Sink"]


class Sink(Protocol):
    """The receiver of test cases: `Cases` of `testcase.py`."""

    def add(
        self,
        group: str,
        name: str,
        outcome: Outcome,
        seconds: float = NO_SECONDS,
        failure_type: str = "",
        file: str = "",
        line: int = 0,
    ) -> None:
        """One attempt at the test `name` of the class or suite `group`."""

    def drop(self, reason: str) -> None:
        """Note a case that cannot be used, at this place of the file."""

    def begin(self, dialect: str) -> None:
        """The file is a report, of this dialect."""
