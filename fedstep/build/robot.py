"""Robot Framework's output.xml: the same tests, by the same names, as its xunit file; with their source and line.

Formats of Robot Framework 3 (times as start and end) to 7 (elapsed seconds), by its schema/result.xsd.
"""

from datetime import datetime
from xml.parsers import expat

from fedstep.build.attributes import LONGEST_NAME, LONGEST_TEXT, failure_word, seconds
from fedstep.build.markup import DEEPEST, too_deep
from fedstep.build.record import NO_SECONDS, Outcome
from fedstep.build.sink import Sink

__all__ = ["Robot"]

OUTCOMES = {"PASS": Outcome.PASSED, "FAIL": Outcome.FAILED, "SKIP": Outcome.SKIPPED, "NOT RUN": Outcome.SKIPPED}
DEEPEST_SUITE = 100
CLOCK = "%Y%m%d %H:%M:%S.%f"


class Robot:
    """Reads one file: takes over `parser`, and gives every test to `sink`."""

    def __init__(self, parser: expat.XMLParserType, sink: Sink) -> None:
        self.parser, self.sink = parser, sink
        self._suites: list[tuple[str, str]] = []  # name and source
        self._test: dict[str, str] = {}
        self._status: dict[str, str] = {}
        self._text = ""
        self._depth = 0  # of elements open inside the test
        self._outside = 0  # elements open outside tests
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end

    def finish(self) -> None:
        """Nothing waits: every test was handed out at its end."""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth + self._outside > DEEPEST:
            raise too_deep(self.parser)
        if self._test:
            self._depth += 1
            if name == "status" and self._depth == 1:
                self._status, self._text = attributes, ""
                self.parser.CharacterDataHandler = self._read_text
        elif name == "test":
            self._test, self._status, self._depth, self._text = {"name": "", **attributes}, {}, 0, ""
        else:
            self._outside += 1
            if name == "suite":
                self._suites.append((attributes.get("name", "")[:LONGEST_NAME], attributes.get("source", "")))

    def _end(self, name: str) -> None:
        if self._test and self._depth == 0 and name == "test":
            self._finish_test(self._test, self._status)
            self._test = {}
        elif self._test:
            self._depth -= 1
            self.parser.CharacterDataHandler = None
        else:
            self._outside -= 1
            if name == "suite":
                self._suites.pop()

    def _read_text(self, text: str) -> None:
        self._text = (self._text + text).lstrip()[:LONGEST_TEXT]

    def _finish_test(self, test: dict[str, str], status: dict[str, str]) -> None:
        outcome = OUTCOMES.get(status.get("status", ""))
        if outcome is None:
            self.sink.drop(f"a test with the status {status.get('status', '')[:40]!r}")
            return
        group = ".".join(suite for suite, _ in self._suites[-DEEPEST_SUITE:])
        source = next((source for _, source in reversed(self._suites) if source), "")
        word = failure_word(self._text) if outcome == Outcome.FAILED else ""
        line = test.get("line", "")
        number = int(line) if line.isdecimal() and len(line) < 10 else 0
        self.sink.add(group, test["name"], outcome, _seconds(status), word, source, number)


def _seconds(status: dict[str, str]) -> float:
    """To the millisecond, as in the xunit file."""
    if "elapsed" in status:
        return round(seconds(status["elapsed"]), 3)
    try:
        began, ended = (datetime.strptime(status[key], CLOCK) for key in ("starttime", "endtime"))
    except (KeyError, ValueError):
        return NO_SECONDS
    return max(0.0, round((ended - began).total_seconds(), 3))
