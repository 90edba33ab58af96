"""The dialects of test reports: which tool wrote a report, and the handlers of those that are no JUnit.

TRX is what `dotnet test --logger trx` writes; elements and outcomes as in the schema vstst.xsd of the namespace
http://microsoft.com/schemas/VisualStudio/TeamTest/2010. Robot Framework's output.xml has the same tests, by the same
names, as its xunit file, and their source and line; versions 3 (times as start and end) to 7 (elapsed seconds), by its
schema/result.xsd. xcresult is the JSON of `xcrun xcresulttool get test-results tests`, a tree of plans, bundles, suites
and cases; node types and results as Apple names them in `xcresulttool help get test-results tests` of Xcode 16.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from fedstep.ingest.cases import MAX_NAME, MAX_TEXT, CaseCollector, failure_word, parse_integer, parse_seconds
from fedstep.ingest.xml import MAX_DEPTH, RejectedDocument, Tokenizer
from fedstep.types import NO_SECONDS, Outcome


class Signature(NamedTuple):
    """The root element's name, and the attributes of the root, the first suite and the first test case."""

    root: str = ""
    top: Mapping[str, str] = {}
    suite: Mapping[str, str] = {}
    case: Mapping[str, str] = {}

    def named(self, name: str) -> bool:
        """Return whether the report has this name."""
        return self.top.get("name") == name

    def has(self, *attributes: str) -> bool:
        """Tell whether the first test case has all these attributes."""
        return all(attribute in self.case for attribute in attributes)


NO_SIGNATURE = Signature()

ROBOT_XUNIT = ("name", "tests", "errors", "failures", "skipped", "time", "timestamp")

# The first that holds is taken. Each is what the tool itself writes, as the samples in tests/data/junit show.
RULES: tuple[tuple[str, Callable[[Signature], bool]], ...] = (
    ("TRX", lambda s: s.root == "TestRun"),
    ("Robot Framework output", lambda s: s.root == "robot"),
    ("xcresult", lambda s: s.root == "xcresult"),
    ("pytest", lambda s: s.named("pytest tests") or s.suite.get("name") == "pytest"),
    ("Jest", lambda s: s.named("jest tests")),
    ("Vitest", lambda s: s.named("vitest tests")),
    ("cargo-nextest", lambda s: s.named("nextest-run")),
    (
        "Cypress",
        lambda s: s.named("Mocha Tests") and "cypress" in s.suite.get("file", "").replace("\\", "/").split("/"),
    ),
    ("Mocha", lambda s: s.named("Mocha Tests")),
    ("Playwright", lambda s: tuple(s.top)[:2] == ("id", "name") and "skipped" in s.top),
    ("Karma", lambda s: s.root == "testsuite" and s.suite.get("id") == "0" and "package" in s.suite),
    ("Node", lambda s: s.root == "testsuites" and not s.top and s.case.get("classname") == "test"),
    ("GoogleTest", lambda s: s.named("AllTests") or s.has("status", "result")),
    ("Catch2", lambda s: s.suite.get("hostname") == "tbd"),
    (
        "Bazel",
        lambda s: s.has("duration", "status") or (s.has("duration") and s.case["duration"] == s.case.get("time")),
    ),
    ("CTest", lambda s: s.has("status") and "disabled" in s.suite and s.case.get("name") == s.case.get("classname")),
    ("Behave", lambda s: s.has("status") and s.case.get("status", "").islower() and "hostname" in s.suite),
    ("PHPUnit", lambda s: s.has("assertions") and ("class" in s.case or "warnings" in s.suite or s.has("file"))),
    ("minitest", lambda s: s.has("assertions")),
    ("RSpec", lambda s: s.suite.get("name", "").startswith("rspec")),
    ("Cucumber", lambda s: s.suite.get("name", "").lower() in ("cucumber", "cucumber-js") or _cucumber_ruby(s)),
    ("Karate", lambda s: s.suite.get("name", "").endswith(".feature")),
    (".NET", lambda s: s.suite.get("package", "").lower().endswith((".dll", ".exe"))),
    ("Surefire", lambda s: "maven.apache.org" in " ".join(s.suite.values())),
    ("Jasmine", lambda s: tuple(s.top)[:1] == ("disabled",) and "disabled" in s.suite),
    ("gotestsum", lambda s: tuple(s.suite)[:4] == ("tests", "failures", "time", "name")),
    ("Ant", lambda s: tuple(s.suite)[:3] == ("errors", "failures", "hostname")),
    ("Gradle", lambda s: tuple(s.suite)[:3] == ("name", "tests", "skipped") and "hostname" in s.suite),
    ("Robot Framework", lambda s: tuple(s.suite) == ROBOT_XUNIT and s.root == "testsuite"),
    ("JUnit", lambda s: bool(s.root)),
)
ADVICE = {  # by root element: what else a file may be, and what to give instead
    "test-run": "NUnit; use `dotnet test --logger trx`",
    "test-results": "NUnit 2; write NUnit 3 and use `--logger trx`",
    "assemblies": "xUnit.net; use `dotnet test --logger trx`",
    "testng-results": "TestNG; give its junitreports/*.xml",
    "Site": "CTest's dashboard; use `ctest --output-junit FILE`",
    "failsafe-summary": "Failsafe's summary; give its TEST-*.xml",
    "coverage": "coverage, no tests",
    "report": "coverage, no tests",
    "checkstyle": "Checkstyle, no tests",
}


def identify_tool(signature: Signature) -> str:
    """Return the tool that wrote a report: "JUnit" where that cannot be told, "" for no report."""
    return next((name for name, rule in RULES if rule(signature)), "")


def advise(root: str) -> str:
    """Return what a file with this root element is and what to give instead, where that is known: "; it is ..."."""
    return f"; it is {ADVICE[root]}" if root in ADVICE else ""


def _cucumber_ruby(signature: Signature) -> bool:
    return tuple(signature.suite)[:4] == ("failures", "errors", "skipped", "tests")


TRX_OUTCOMES = dict.fromkeys(("Passed", "PassedButRunAborted", "Warning", "Completed"), Outcome.PASSED)
TRX_OUTCOMES |= dict.fromkeys(("Failed", "Error", "Timeout", "Aborted"), Outcome.FAILED)
TRX_OUTCOMES |= dict.fromkeys(("NotExecuted", "NotRunnable", "Inconclusive", "Pending"), Outcome.SKIPPED)
TRX_OUTCOMES |= dict.fromkeys(("Disconnected", "InProgress"), Outcome.SKIPPED)
# [days.]hours:minutes:seconds
TRX_DURATION = re.compile(r"(?:(\d{1,6})\.)?(\d{1,4}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")


class _TrxResult(NamedTuple):
    test_id: str
    name: str
    outcome: Outcome
    seconds: float
    failure_type: str


class TrxHandler:
    """Handle one TRX file. It has the results first and their classes after them, so they are added at its end."""

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        self.signature = signature
        self._tokenizer, self._collector = tokenizer, collector
        self._results: list[_TrxResult] = []
        self._classes: dict[str, str] = {}  # by the id of the test
        self._open_results: list[dict[str, str]] = []  # nested where a test has rows of data
        self._test_id = self._text = ""
        self._is_in_error = False
        self._depth = -1  # below the root

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._tokenizer.too_deep()
        match name.rpartition(":")[2]:
            case "UnitTestResult":
                self._open_results.append(attributes)
                self._text = ""
            case "InnerResults" if self._open_results:
                self._open_results[-1]["rows"] = "each is a result of its own"
            case "ErrorInfo":
                self._is_in_error = True
            case "Message" if self._is_in_error and not self._text:
                self._tokenizer.set_text_handler(self._read_text)
            case "UnitTest":
                self._test_id = attributes.get("id", "")
            case "TestMethod":
                self._classes[self._test_id] = attributes.get("className", "").partition(",")[0].strip()

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        self._depth -= 1
        match name.rpartition(":")[2]:
            case "UnitTestResult" if self._open_results:
                self._finish_result(self._open_results.pop())
            case "ErrorInfo":
                self._is_in_error = False
            case "Message":
                self._tokenizer.set_text_handler(None)
            case "TestRun":
                self.finish()

    def finish(self) -> None:
        """Add what was read. A test without a definition has its class in its name, or none."""
        for result in self._results:
            group = self._classes.get(result.test_id, "")
            name = result.name.removeprefix(f"{group}.")
            if not group:
                group, name = _split_trx_name(result.name)
            self._collector.add(group, name, result.outcome, result.seconds, result.failure_type)
        self._results.clear()

    def _read_text(self, text: str) -> None:
        self._text = (self._text + text).lstrip()[:MAX_TEXT]

    def _finish_result(self, result: dict[str, str]) -> None:
        if "rows" in result or result.get("resultType") == "DataDrivenTest":
            return
        outcome = TRX_OUTCOMES.get(result.get("outcome", ""))
        if outcome is None:
            self._collector.drop(f"a result with the outcome {result.get('outcome', '')[:40]!r}")
            return
        failure_type = failure_word(self._text) if outcome == Outcome.FAILED else ""
        seconds = _parse_trx_duration(result.get("duration", ""))
        self._results.append(
            _TrxResult(result.get("testId", ""), result.get("testName", ""), outcome, seconds, failure_type)
        )


def _parse_trx_duration(text: str) -> float:
    duration = TRX_DURATION.fullmatch(text)
    if not duration:
        return NO_SECONDS
    days, hours, minutes, seconds = duration.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60.0 + float(seconds)


def _split_trx_name(name: str) -> tuple[str, str]:
    """Return the class and the test of "Shop.CartTests.Adds(two: 2.5)"."""
    method, bracket, arguments = name.partition("(")
    group, _, bare = method.rpartition(".")
    return group, bare + bracket + arguments


ROBOT_OUTCOMES = {
    "PASS": Outcome.PASSED,
    "FAIL": Outcome.FAILED,
    "SKIP": Outcome.SKIPPED,
    "NOT RUN": Outcome.SKIPPED,
}
ROBOT_MAX_SUITES = 100  # of the open ones in a test's name
ROBOT_TIME = "%Y%m%d %H:%M:%S.%f"


class RobotHandler:
    """Handle one output.xml of Robot Framework; each test is added at its end."""

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        self.signature = signature
        self._tokenizer, self._collector = tokenizer, collector
        self._suites: list[tuple[str, str]] = []  # name and source
        self._test: dict[str, str] = {}
        self._status: dict[str, str] = {}
        self._text = ""
        self._depth_in_test = 0
        self._depth_outside = -1  # elements open outside tests, below the root

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        if self._depth_in_test + self._depth_outside > MAX_DEPTH:
            raise self._tokenizer.too_deep()
        if self._test:
            self._depth_in_test += 1
            if name == "status" and self._depth_in_test == 1:
                self._status, self._text = attributes, ""
                self._tokenizer.set_text_handler(self._read_text)
        elif name == "test":
            self._test, self._status, self._depth_in_test, self._text = {"name": "", **attributes}, {}, 0, ""
        else:
            self._depth_outside += 1
            if name == "suite":
                self._suites.append((attributes.get("name", "")[:MAX_NAME], attributes.get("source", "")))

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        if self._test and self._depth_in_test == 0 and name == "test":
            self._finish_test(self._test, self._status)
            self._test = {}
        elif self._test:
            self._depth_in_test -= 1
            self._tokenizer.set_text_handler(None)
        else:
            self._depth_outside -= 1
            if name == "suite":
                self._suites.pop()

    def finish(self) -> None:
        """Do nothing: every test was added at its end."""

    def _read_text(self, text: str) -> None:
        self._text = (self._text + text).lstrip()[:MAX_TEXT]

    def _finish_test(self, test: dict[str, str], status: dict[str, str]) -> None:
        outcome = ROBOT_OUTCOMES.get(status.get("status", ""))
        if outcome is None:
            self._collector.drop(f"a test with the status {status.get('status', '')[:40]!r}")
            return
        group = ".".join(suite for suite, _ in self._suites[-ROBOT_MAX_SUITES:])
        source = next((source for _, source in reversed(self._suites) if source), "")
        failure_type = failure_word(self._text) if outcome == Outcome.FAILED else ""
        line = parse_integer(test.get("line", ""))
        self._collector.add(group, test["name"], outcome, _robot_seconds(status), failure_type, source, line)


def _robot_seconds(status: dict[str, str]) -> float:
    """Return the seconds to the millisecond, as in the xunit file."""
    if "elapsed" in status:
        return round(parse_seconds(status["elapsed"]), 3)
    try:
        start, end = (datetime.strptime(status[key], ROBOT_TIME) for key in ("starttime", "endtime"))
    except (KeyError, ValueError):
        return NO_SECONDS
    return max(0.0, round((end - start).total_seconds(), 3))


MAX_JSON_BYTES = 32 << 20  # a tree of objects takes about ten times as much memory
XCRESULT_BUNDLES = ("Unit test bundle", "UI test bundle")
XCRESULT_ATTEMPTS = ("Repetition", "Test Case Run")
XCRESULT_OUTCOMES = {
    "Passed": Outcome.PASSED,
    "Expected Failure": Outcome.PASSED,
    "Failed": Outcome.FAILED,
    "Skipped": Outcome.SKIPPED,
}
XCRESULT_PLACE = re.compile(r"^[^\s:]{1,200}:\d{1,9}: ")  # a message begins with file and line
Node = dict[str, Any]


class XcresultReader:
    """Read the JSON of one Xcode result."""

    def __init__(self, collector: CaseCollector) -> None:
        self._collector = collector

    def read(self, content: bytes) -> None:
        """Add every attempt of every test. Raises RejectedDocument where the JSON is of another kind, or damaged."""
        try:
            tree = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RejectedDocument(f"not JSON as xcresulttool writes it: {error}"[:200]) from None
        if not isinstance(tree, dict) or not isinstance(tree.get("testNodes"), list):
            raise RejectedDocument("JSON, but not of `xcresulttool get test-results tests`")
        for case, bundle in _iter_xcresult_cases(tree["testNodes"]):
            self._read_case(case, bundle)

    def _read_case(self, case: Node, bundle: str) -> None:
        """Add a test, or each of its arguments; an attempt that was repeated is one of several runs of it."""
        name = _text_of(case, "name")
        suite = _text_of(case, "nodeIdentifier").rpartition("/")[0].replace("/", ".")
        group = ".".join(filter(None, (bundle, suite)))
        for argument in _children_of_kind(case, "Arguments") or [case]:
            suffix = "" if argument is case else f"({_text_of(argument, 'name')})"
            for attempt in _xcresult_attempts(argument):
                outcome = XCRESULT_OUTCOMES.get(_text_of(attempt, "result"))
                if outcome is None:
                    self._collector.drop(f"a test with the result {_text_of(attempt, 'result')[:40]!r}")
                    continue
                failure_type = _xcresult_failure(attempt) if outcome == Outcome.FAILED else ""
                seconds = _xcresult_seconds(attempt)
                self._collector.add(group, name.removesuffix("()") + suffix, outcome, seconds, failure_type)


def _iter_xcresult_cases(nodes: list[Any]) -> Iterator[tuple[Node, str]]:
    """Yield the test cases in the order of the file, each with the name of its bundle."""
    remaining = [(node, "") for node in reversed(nodes)]
    while remaining:
        node, bundle = remaining.pop()
        if not isinstance(node, dict):
            continue
        kind = node.get("nodeType")
        if kind == "Test Case":
            yield node, bundle
        else:
            name = _text_of(node, "name") if kind in XCRESULT_BUNDLES else bundle
            remaining += ((child, name) for child in reversed(_children(node)))


def _xcresult_attempts(node: Node) -> list[Node]:
    """Return the runs of a test, each as a node with a result; on one device they are its children."""
    devices = _children_of_kind(node, "Device")
    parent = devices[0] if len(devices) == 1 else node
    return _children_of_kind(parent, *XCRESULT_ATTEMPTS) or [node]


def _xcresult_failure(node: Node) -> str:
    messages = _children_of_kind(node, "Failure Message")
    return failure_word(XCRESULT_PLACE.sub("", _text_of(messages[0], "name"))) if messages else ""


def _xcresult_seconds(node: Node) -> float:
    exact = node.get("durationInSeconds")
    if isinstance(exact, int | float) and not isinstance(exact, bool):
        return parse_seconds(repr(exact))
    rounded = _text_of(node, "duration")
    return parse_seconds(rounded) if rounded else NO_SECONDS


def _children_of_kind(node: Node, *kinds: str) -> list[Node]:
    return [child for child in _children(node) if isinstance(child, dict) and child.get("nodeType") in kinds]


def _children(node: Node) -> list[Any]:
    children = node.get("children")
    return children if isinstance(children, list) else []


def _text_of(node: Node, key: str) -> str:
    value = node.get(key)
    return value if isinstance(value, str) else ""
