"""Visual Studio's test results (.trx), as `dotnet test --logger trx` writes them: results first, their classes after.

Elements and outcomes as in the schema vstst.xsd of the namespace http://microsoft.com/schemas/VisualStudio/TeamTest/2010.
"""

import re
from typing import NamedTuple
from xml.parsers import expat

from fedstep.build.attributes import LONGEST_TEXT, LONGEST_TYPE, failure_word
from fedstep.build.markup import DEEPEST, too_deep
from fedstep.build.record import NO_SECONDS, Outcome
from fedstep.build.sink import Sink

__all__ = ["Trx"]

OUTCOMES = dict.fromkeys(("Passed", "PassedButRunAborted", "Warning", "Completed"), Outcome.PASSED)
OUTCOMES |= dict.fromkeys(("Failed", "Error", "Timeout", "Aborted"), Outcome.FAILED)
OUTCOMES |= dict.fromkeys(("NotExecuted", "NotRunnable", "Inconclusive", "Pending"), Outcome.SKIPPED)
OUTCOMES |= dict.fromkeys(("Disconnected", "InProgress"), Outcome.SKIPPED)
SPAN = re.compile(r"(?:(\d{1,6})\.)?(\d{1,4}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")  # [days.]hours:minutes:seconds


class _Result(NamedTuple):
    test_id: str
    name: str
    outcome: Outcome
    seconds: float
    failure_type: str


class Trx:
    """Reads one file: takes over `parser`, and gives the results to `sink` at its end, when their classes are known."""

    def __init__(self, parser: expat.XMLParserType, sink: Sink) -> None:
        self.parser, self.sink = parser, sink
        self._results: list[_Result] = []
        self._classes: dict[str, str] = {}
        self._open: list[dict[str, str]] = []  # results, nested where a test has rows
        self._test_id = self._text = ""
        self._in_error = False
        self._depth = 0
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end

    def finish(self) -> None:
        """Hand out what was read; a test without a definition has its class in its name, or none."""
        for result in self._results:
            group = self._classes.get(result.test_id, "")
            name = result.name.removeprefix(f"{group}.")
            if not group:
                group, name = _split(result.name)
            self.sink.add(group, name, result.outcome, result.seconds, result.failure_type)
        self._results.clear()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise too_deep(self.parser)
        match name.rpartition(":")[2]:
            case "UnitTestResult":
                self._open.append(attributes)
                self._text = ""
            case "InnerResults" if self._open:
                self._open[-1]["rows"] = "told one by one"
            case "ErrorInfo":
                self._in_error = True
            case "Message" if self._in_error and not self._text:
                self.parser.CharacterDataHandler = self._read_text
            case "UnitTest":
                self._test_id = attributes.get("id", "")
            case "TestMethod":
                self._classes[self._test_id] = attributes.get("className", "").partition(",")[0].strip()

    def _end(self, name: str) -> None:
        self._depth -= 1
        match name.rpartition(":")[2]:
            case "UnitTestResult" if self._open:
                self._finish_result(self._open.pop())
            case "ErrorInfo":
                self._in_error = False
            case "Message":
                self.parser.CharacterDataHandler = None
            case "TestRun":
                self.finish()

    def _read_text(self, text: str) -> None:
        self._text = (self._text + text).lstrip()[:LONGEST_TEXT]

    def _finish_result(self, result: dict[str, str]) -> None:
        if "rows" in result or result.get("resultType") == "DataDrivenTest":
            return
        outcome = OUTCOMES.get(result.get("outcome", ""))
        if outcome is None:
            self.sink.drop(f"a result with the outcome {result.get('outcome', '')[:40]!r}")
            return
        word = failure_word(self._text)[:LONGEST_TYPE] if outcome == Outcome.FAILED else ""
        named = result.get("testName", "")
        self._results.append(
            _Result(result.get("testId", ""), named, outcome, _seconds(result.get("duration", "")), word)
        )


def _seconds(span: str) -> float:
    found = SPAN.fullmatch(span)
    if not found:
        return NO_SECONDS
    return ((int(found[1] or 0) * 24 + int(found[2])) * 60 + int(found[3])) * 60.0 + float(found[4])


def _split(name: str) -> tuple[str, str]:
    """The class and the test of "Shop.CartTests.Adds(two: 2.5)"."""
    method, bracket, arguments = name.partition("(")
    group, _, bare = method.rpartition(".")
    return group, bare + bracket + arguments
