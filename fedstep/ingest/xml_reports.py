"""The handlers of XML reports that are no JUnit: one class for each tool, chosen by the root element.

TRX is what `dotnet test --logger trx` writes; elements and outcomes as in the schema vstst.xsd of the namespace
http://microsoft.com/schemas/VisualStudio/TeamTest/2010 and in the TrxLogger of microsoft/vstest. Robot Framework's
output.xml has the same tests, by the same names, as its xunit file, and their source and line; versions 3 (times as
start and end) to 7 (elapsed seconds), by its schema/result.xsd. xUnit.net: https://xunit.net/docs/format-xml-v2.
NUnit 3: https://docs.nunit.org/articles/nunit/technical-notes/usage/Test-Result-XML-Format.html; NUnit 2: the
Results.xsd of its distribution. CTest: Utilities/../cmCTestTestHandler.cxx of CMake (Test.xml, for a dashboard).
Boost.Test: its log and its report in the format XML. Qt: QXmlTestLogger of QtTest. Allure 1: allure.xsd of
allure-framework/allure-model. CppUnit: the XmlOutputter of its library.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, NamedTuple

from fedstep.ingest.cases import (
    MAX_TEXT,
    CaseCollector,
    Signature,
    assembly_of,
    failure_word,
    parse_integer,
    parse_seconds,
)
from fedstep.ingest.change_impact import NOT_STARTED
from fedstep.ingest.test_identity import MAX_NAME
from fedstep.ingest.xml import MAX_DEPTH, Tokenizer
from fedstep.types import NO_SECONDS, Outcome

MAX_SUITES = 100  # of the open ones in a test's name
PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED


class ForeignHandler:
    """Handle elements without their namespace, and keep the beginning of the text of those that are asked for.

    A subclass handles elements in `open` and `close`; `text` is what stood in the last element for which `open` called
    `read_text`.
    """

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        self.signature = signature
        self.text = ""
        self.collector = collector
        self._tokenizer = tokenizer
        self._case: dict[str, str] | None = None  # the attributes of the open test
        self._depth = -1  # below the root

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._tokenizer.too_deep()
        self.open(name.rpartition(":")[2], attributes)

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        self._depth -= 1
        self._tokenizer.set_text_handler(None)
        self.close(name.rpartition(":")[2])

    def finish(self) -> None:
        """Note the test that was open when the document stopped."""
        if self._case is not None:
            self.note_open_case()

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element whose name has no prefix."""
        raise NotImplementedError

    def close(self, name: str) -> None:
        """Handle the end of an element whose name has no prefix."""
        raise NotImplementedError

    def read_text(self) -> None:
        """Keep the text that follows, up to the next tag that ends."""
        self.text = ""
        self._tokenizer.set_text_handler(self._add_text)

    def _add_text(self, text: str) -> None:
        self.text = (self.text + text).lstrip()[:MAX_TEXT]

    def note_open_case(self) -> None:
        """Note a test that was open when the document stopped."""
        self.collector.drop("the report stops inside this test")


TRX_OUTCOMES = dict.fromkeys(("Passed", "PassedButRunAborted", "Warning", "Completed"), PASSED)
# The logger leaves out the attribute of an outcome that is the first of its enumeration, which is Error.
TRX_OUTCOMES |= dict.fromkeys(("Failed", "Error", "", "Timeout", "Aborted", "Disconnected", "InProgress"), FAILED)
TRX_OUTCOMES |= dict.fromkeys(("NotExecuted", "NotRunnable", "Inconclusive", "Pending", "Blocked"), SKIPPED)
TRX_OUTCOMES |= dict.fromkeys(("NotApplicable", "NotImpacted", "None", "Paused", "Unspecified"), SKIPPED)
TRX_RESULTS = re.compile(r"(?:Unit|Generic|Web|Manual|Load|Coded)?Test(?:Result|ResultAggregation)")
# xUnit's adapter writes each failed test to the run's messages, too.
TRX_ECHO = re.compile(r"^\[xUnit\.net [\d:.]+\].*\[FAIL\]")
# [days.]hours:minutes:seconds
TRX_DURATION = re.compile(r"(?:(\d{1,6})\.)?(\d{1,4}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")


MILLISECONDS = re.compile(r"\d{1,15}")


class _TrxResult(NamedTuple):
    test_id: str
    name: str
    outcome: Outcome
    seconds: float
    text: str


class TrxHandler(ForeignHandler):
    """Handle one TRX file. It has the results first and their classes after them, so they are added at its end."""

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._results: list[_TrxResult] = []
        self._classes: dict[str, str] = {}  # by the id of the test
        self._assemblies: dict[str, str] = {}  # the same
        self._open_results: list[dict[str, str]] = []  # nested where a test has rows of data
        self._test_id = self._assembly = ""
        self._is_in_error = False
        self._summary = self._run_info = ""  # outcomes
        self._run_failures: list[str] = []  # messages
        self._announced = 0  # results, by the counters
        self._seen = 0

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle results, their messages, the definitions of tests and the summary of the run."""
        match name:
            case "InnerResults" if self._open_results:
                self._open_results[-1]["rows"] = "each is a result of its own"
            case "ErrorInfo":
                self._is_in_error = True
            case "Message" if self._is_in_error and not self.text:
                self.read_text()
            case "UnitTest":
                self._test_id = attributes.get("id", "")
                storage = attributes.get("storage", "")
                self._assembly = self._assembly or re.split(r"[\\/]", storage)[-1]
                self._assemblies[self._test_id] = assembly_of(storage)
            case "TestMethod":
                self._classes[self._test_id] = attributes.get("className", "").partition(",")[0].strip()
            case "ResultSummary" | "Counters" | "RunInfo" | "Text":
                self._open_summary(name, attributes)
            case _ if TRX_RESULTS.fullmatch(name):
                self._open_results.append(attributes)
                self.text = ""

    def _open_summary(self, name: str, attributes: dict[str, str]) -> None:
        if name == "ResultSummary":
            self._summary = attributes.get("outcome", "")
        elif name == "Counters":
            self._announced = parse_integer(attributes.get("total", ""))
        elif name == "RunInfo":
            self._run_info = attributes.get("outcome", "")
        elif self._run_info:
            self.read_text()

    def close(self, name: str) -> None:
        """Finish the innermost result, message of the run, or the report."""
        match name:
            case "ErrorInfo":
                self._is_in_error = False
            case "RunInfo":
                if TRX_OUTCOMES.get(self._run_info) == FAILED and not TRX_ECHO.match(self.text):
                    self._run_failures.append(self.text)
                self._run_info = self.text = ""
            case "TestRun":
                self.finish()
            case _ if self._open_results and TRX_RESULTS.fullmatch(name):
                self._finish_result(self._open_results.pop())
                self.text = ""

    def finish(self) -> None:
        """Add what was read. A test without a definition has its class in its name, or none."""
        for _ in self._open_results:
            self.note_open_case()
        for result in self._results:
            group = self._classes.get(result.test_id, "")
            name = result.name.removeprefix(f"{group}.")
            if not group:
                group, name = _split_qualified_name(result.name)
            assembly = self._assemblies.get(result.test_id, "")
            self.collector.add(group, name, result.outcome, result.seconds, suite=assembly, text=result.text)
        self._add_run_failure()
        self._results.clear()
        self._open_results.clear()

    def _add_run_failure(self) -> None:
        """Add one failed test for a run that failed for another reason than a failed test, as a crashed host."""
        has_failed = TRX_OUTCOMES.get(self._summary) == FAILED and self._summary != ""
        explained = any(result.outcome == FAILED for result in self._results)
        if self._run_failures or (has_failed and not explained):
            text = next(iter(self._run_failures), "")
            failure_type = failure_word(text) if text else self._summary
            text = text or f"the outcome of the run is {self._summary}"
            self.collector.add(self._assembly or "TestRun", NOT_STARTED, FAILED, failure_type=failure_type, text=text)
        if self._announced > self._seen:
            self.collector.drop(f"the counters announce {self._announced} results, {self._seen} stand here")
        self._run_failures.clear()
        self._summary, self._announced = "", 0

    def _finish_result(self, result: dict[str, str]) -> None:
        self._seen += 1
        if "rows" in result or result.get("resultType") == "DataDrivenTest":
            return
        outcome = self.collector.outcome_of(result.get("outcome", ""), TRX_OUTCOMES, "a result with the outcome")
        if outcome is None:
            return
        seconds, test_id = _parse_trx_duration(result.get("duration", "")), result.get("testId", "")
        self._results.append(_TrxResult(test_id, result.get("testName", ""), outcome, seconds, self.text))


def _parse_trx_duration(text: str) -> float:
    duration = TRX_DURATION.fullmatch(text)
    if not duration:
        return NO_SECONDS
    days, hours, minutes, seconds = duration.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60.0 + float(seconds)


def _split_qualified_name(name: str) -> tuple[str, str]:
    """Return the class and the test of "Shop.CartTests.Adds(two: 2.5)"."""
    method, bracket, arguments = name.partition("(")
    group, _, bare = method.rpartition(".")
    return group, bare + bracket + arguments


ROBOT_OUTCOMES = {"PASS": PASSED, "FAIL": FAILED, "SKIP": SKIPPED, "NOT RUN": SKIPPED}
ROBOT_MERGED = re.compile(r"re-executed and results merged(.*?)Old status:\s*(\w+)", re.S)
ROBOT_TIME = "%Y%m%d %H:%M:%S.%f"


class RobotHandler(ForeignHandler):
    """Handle one output.xml of Robot Framework; each test is added at its end."""

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._suites: list[tuple[str, str]] = []  # name and source
        self._test: dict[str, str] = {}
        self._status: dict[str, str] = {}
        self._depth_in_test = 0

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle suites, tests and the status of a test, which is not that of its keywords."""
        if self._test:
            self._depth_in_test += 1
            if name == "status" and self._depth_in_test == 1:
                self._status = attributes
                self.read_text()
        elif name == "test":
            self._test, self._status, self._depth_in_test, self.text = {"name": "", **attributes}, {}, 0, ""
        elif name == "suite":
            self._suites.append((attributes.get("name", "")[:MAX_NAME], attributes.get("source", "")))

    def close(self, name: str) -> None:
        """Finish a test or leave a suite."""
        if self._test and self._depth_in_test == 0 and name == "test":
            self._finish_test(self._test, self._status)
            self._test = {}
        elif self._test:
            self._depth_in_test -= 1
        elif name == "suite" and self._suites:
            self._suites.pop()

    def finish(self) -> None:
        """Note the test that was open when the document stopped."""
        if self._test:
            self.note_open_case()

    def _finish_test(self, test: dict[str, str], status: dict[str, str]) -> None:
        outcome = self.collector.outcome_of(status.get("status", ""), ROBOT_OUTCOMES, "a test with the status")
        if outcome is None:
            return
        group = ".".join(suite for suite, _ in self._suites[-MAX_SUITES:])
        source = next((source for _, source in reversed(self._suites) if source), "")
        message, old_status = _split_merged(self.text)
        if old_status == "FAIL":
            outcome = {PASSED: Outcome.FLAKED, FAILED: Outcome.CONFIRMED}.get(outcome, outcome)
        failure_type = failure_word(message) if status.get("status") == "FAIL" else ""
        line = parse_integer(test.get("line", ""))
        text = message if failure_type else ""
        self.collector.add(group, test["name"], outcome, _robot_seconds(status), failure_type, source, line, text=text)


def _split_merged(text: str) -> tuple[str, str]:
    """Return the message of a test, and the status that it had before it was run again and `rebot --merge` was used."""
    plain = re.sub("<[^>]*>", " ", text) if text.startswith("*HTML*") else ""
    merged = ROBOT_MERGED.search(plain)
    if not merged:
        return text, ""
    return merged[1].partition("New message:")[2].strip(), merged[2]


def _robot_seconds(status: dict[str, str]) -> float:
    """Return the seconds to the millisecond, as in the xunit file."""
    if "elapsed" in status:
        return round(parse_seconds(status["elapsed"]), 3)
    try:
        start, end = (datetime.strptime(status[key], ROBOT_TIME) for key in ("starttime", "endtime"))
    except (KeyError, ValueError):
        return NO_SECONDS
    return max(0.0, round((end - start).total_seconds(), 3))


class XunitHandler(ForeignHandler):
    """Handle one report of xUnit.net 1, 2 or 3: its tests by the names that they have in a TRX file."""

    OUTCOMES: ClassVar[Mapping[str, Outcome]] = {"Pass": PASSED, "Fail": FAILED, "Skip": SKIPPED, "NotRun": SKIPPED}

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._assembly = self._exception = ""

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle assemblies, tests and failures; an error stands for a class or an assembly that failed to clean up."""
        match name:
            case "assembly":
                self._assembly = assembly_of(attributes.get("name", ""))[:MAX_NAME]  # with its framework
            case "test" | "error":
                self._case, self._exception, self.text = attributes, "", ""
            case "failure" if self._case is not None:
                self._exception = attributes.get("exception-type", "")
            case "message" if self._case is not None and not self.text:
                self.read_text()

    def close(self, name: str) -> None:
        """Add the test that ends."""
        if self._case is None:
            return
        failure_type = self._exception or failure_word(self.text)
        if name == "error":
            group = self._assembly.partition(" (")[0]
            add = self.collector.add
            add(group, NOT_STARTED, FAILED, failure_type=failure_type, suite=self._assembly, text=self.text)
        elif name == "test":
            self._add_test(self._case, failure_type)
        if name in ("error", "test"):
            self._case = None

    def _add_test(self, test: dict[str, str], failure_type: str) -> None:
        outcome = self.collector.outcome_of(test.get("result", ""), self.OUTCOMES, "a test with the result")
        if outcome is None:
            return
        group = test.get("type", "")
        name = test.get("name", "").removeprefix(f"{group}.") or test.get("method", "")
        seconds = parse_seconds(test["time"]) if "time" in test else NO_SECONDS
        file, line = test.get("source-file", ""), parse_integer(test.get("source-line", ""))
        details = seconds, failure_type, file, line
        self.collector.add(group, name, outcome, *details, suite=self._assembly, text=self.text)


class _NunitSuite(NamedTuple):
    attributes: dict[str, str]
    failures: int  # of the report, when it began
    text: str = ""  # of its own failure


class NunitHandler(ForeignHandler):
    """Handle one report of NUnit 2 or 3: its tests by the names that they have in a TRX file."""

    OUTCOMES: ClassVar[Mapping[str, Outcome]] = {
        **dict.fromkeys(("Passed", "Success", "Warning"), PASSED),
        **dict.fromkeys(("Failed", "Failure", "Error", "NotRunnable", "Invalid", "Cancelled"), FAILED),
        **dict.fromkeys(("Skipped", "Inconclusive", "Ignored"), SKIPPED),
    }

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._suites: list[_NunitSuite] = []
        self._failures = 0
        self._is_in_failure = self._case_failed = False  # the second: the open case has a failure

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle suites, cases and the message of a failure."""
        match name:
            case "test-suite":
                self._suites.append(_NunitSuite(attributes, self._failures))
            case "test-case":
                self._case, self.text, self._case_failed = attributes, "", False
            case "failure":
                self._is_in_failure = self._case_failed = True
            case "message" if self._is_in_failure:
                self.read_text()

    def close(self, name: str) -> None:
        """Add the case or the failed suite that ends."""
        match name:
            case "failure":
                self._is_in_failure = False
                if self._case is None and self._suites:
                    self._suites[-1] = self._suites[-1]._replace(text=self.text)
            case "test-case" if self._case is not None:
                self._add_case(self._case)
                self._case = None
            case "test-suite" if self._suites:
                self._finish_suite(self._suites.pop())

    def _add_case(self, case: dict[str, str]) -> None:
        word = case.get("result", "") or _nunit_2_result(case, self._case_failed)
        outcome = self.collector.outcome_of(word, self.OUTCOMES, "a test with the result")
        if outcome is None:
            return
        full_name = case.get("fullname") or case.get("name", "")
        group, name = _split_qualified_name(full_name)
        if "classname" in case:
            group = case["classname"]
            name = full_name.removeprefix(f"{group}.")
        time = case.get("duration") or case.get("time", "")
        seconds = parse_seconds(time) if time else NO_SECONDS
        self._failures += outcome == FAILED
        outermost = next((suite.attributes for suite in self._suites if suite.attributes), {})
        assembly = assembly_of(outermost.get("fullname") or outermost.get("name", ""))
        self.collector.add(group, name, outcome, seconds, suite=assembly, text=self.text)

    def _finish_suite(self, suite: _NunitSuite) -> None:
        """Add one failed test for a suite that failed although none of its tests did, as in its teardown."""
        result = suite.attributes.get("result", "")
        if self.OUTCOMES.get(result) == FAILED and self._failures == suite.failures:
            name = suite.attributes.get("fullname") or suite.attributes.get("name", "")
            self.collector.add(re.split(r"[\\/]", name)[-1], NOT_STARTED, FAILED, text=suite.text)
            self._failures += 1
        self.text = ""


def _nunit_2_result(case: Mapping[str, str], has_failed: bool) -> str:
    """Return the result of a case of NUnit 2.4 and before, which told it in two flags, or in the first alone."""
    executed = case.get("executed", "").lower()
    if executed == "false":
        return "Ignored"
    if executed == "true" and "success" not in case:
        return "Failure" if has_failed else "Success"
    return {"true": "Success", "false": "Failure"}.get(case.get("success", "").lower(), "")


class CtestHandler(ForeignHandler):
    """Handle one Test.xml of CTest, by the names that its JUnit report has."""

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._status = ""  # of the open test; "" outside
        self._values: dict[str, str] = {}
        self._measurement = ""

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle tests and their measurements."""
        if name == "Test" and "Status" in attributes:
            self._status, self._values = attributes["Status"] or "unknown", {}
        elif self._status and name == "NamedMeasurement":
            self._measurement = attributes.get("name", "")
        elif self._status and name in ("Name", "Value"):
            self.read_text()

    def close(self, name: str) -> None:
        """Keep a measurement, or add the test that ends."""
        if self._status and name in ("Name", "Value"):
            self._values.setdefault(self._measurement if name == "Value" else name, self.text.strip())
        elif name == "NamedMeasurement":
            self._measurement = ""
        elif self._status and name == "Test":
            self._add_test()
            self._status = ""

    def finish(self) -> None:
        """Note the test that was open when the document stopped."""
        if self._status:
            self.note_open_case()

    def _add_test(self) -> None:
        completion = self._values.get("Completion Status", "")
        name = self._values.get("Name", "")
        outcome = {"passed": PASSED, "failed": FAILED, "notrun": SKIPPED}.get(self._status)
        if self._status == "notrun" and completion.startswith("Unable to find"):
            outcome = FAILED  # as CTest prints it: its JUnit report calls it skipped
        if outcome is None:
            self.collector.drop(f"a test with the status {self._status[:40]!r}")
            return
        exit_code = self._values.get("Exit Code", "")  # "Failed", "Timeout", or a crash: "SEGFAULT"
        failure_type = failure_word(exit_code or completion) if outcome == FAILED else ""
        ended = (
            f"exit code {self._values['Exit Value']}" if exit_code == "Failed" and "Exit Value" in self._values else ""
        )
        seconds = parse_seconds(self._values.get("Execution Time", ""))
        text = (ended or exit_code or completion) if failure_type else ""
        self.collector.add(name, name, outcome, seconds, failure_type, text=text)


class CppunitHandler(ForeignHandler):
    """Handle one report of CppUnit's XmlOutputter: first the tests that failed, then the others, by number."""

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._values: dict[str, str] = {}  # of the open test
        self._is_open = False
        self._announced = self._seen = 0

    def open(self, name: str, attributes: dict[str, str]) -> None:  # noqa: ARG002
        """Handle tests and what is told of them."""
        if name in ("FailedTest", "Test"):
            self._is_open, self._values = True, {}
        self.read_text()

    def close(self, name: str) -> None:
        """Add the test that ends."""
        if name in ("FailedTest", "Test") and self._is_open:
            self._is_open = False
            self._add_test(name == "FailedTest")
        elif self._is_open:
            self._values[name] = self.text.strip()
        elif name == "Tests":
            self._announced = parse_integer(self.text.strip())
        elif name == "TestRun" and self._announced > self._seen:
            self.collector.drop(f"the statistics announce {self._announced} tests, {self._seen} stand here")

    def finish(self) -> None:
        """Note the test that was open when the document stopped."""
        if self._is_open:
            self.note_open_case()

    def _add_test(self, has_failed: bool) -> None:
        self._seen += 1
        message = self._values.get("Message", "")
        group, _, name = self._values.get("Name", "").rpartition("::")
        file, line = self._values.get("File", ""), parse_integer(self._values.get("Line", ""))
        if has_failed:
            kind = failure_word(message) or self._values.get("FailureType", "")
            self.collector.add(group, name, FAILED, failure_type=kind, file=file, line=line, text=message)
        else:
            self.collector.add(group, name, PASSED)


class BoostHandler(ForeignHandler):
    """Handle one log (TestLog) or report (TestResult) of Boost.Test in the format XML."""

    FAILURES: ClassVar[frozenset[str]] = frozenset({"Error", "FatalError", "Exception"})
    RESULTS: ClassVar[Mapping[str, Outcome]] = {
        **dict.fromkeys(("passed", "passed-with-warnings"), PASSED),
        **dict.fromkeys(("failed", "aborted", "timed-out"), FAILED),
        "skipped": SKIPPED,
    }

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._suites: list[str] = []
        self._failure = ""  # the element of the first failure of the open case
        self._failure_text = self._microseconds = ""

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle suites, cases and their entries."""
        if name == "TestSuite":
            self._suites.append(attributes.get("name", "")[:MAX_NAME])
        elif name == "TestCase":
            self._case, self._failure, self._failure_text, self._microseconds = attributes, "", "", ""
        elif name in self.FAILURES and not self._failure:
            self._failure = name
            self.read_text()
        elif name == "TestingTime":
            self.read_text()

    def close(self, name: str) -> None:
        """Add the case that ends, or the failure of a log that names no cases."""
        if name == "TestSuite" and self._suites:
            self._suites.pop()
        elif name == "TestingTime":
            self._microseconds = self.text
        elif name == self._failure and not self._failure_text:
            self._failure_text = self.text or name
        elif name == "LastCheckpoint" and self._failure:
            self._failure_text = self._failure_text or self._failure
        elif name == "TestCase" and self._case is not None:
            self._add_case(self._case)
            self._case, self._failure, self._failure_text = None, "", ""
        elif name == "TestLog":
            self.finish()

    def finish(self) -> None:
        """Add one failed test for failures outside of cases: a log below the level `test_suite` names none."""
        if self._case is not None:
            self.note_open_case()
        elif self._failure:
            self.collector.add("TestLog", NOT_STARTED, FAILED, text=self._failure_text)
            self.collector.note("failures without the names of their tests; use --log_level=all", kept=True)
            self._failure = ""

    def _add_case(self, case: dict[str, str]) -> None:
        outcome = self.collector.outcome_of(case.get("result", "passed"), self.RESULTS, "a test with the result")
        if outcome is None:
            return
        if self._failure:
            outcome = FAILED
        elif case.get("skipped") == "yes":
            outcome = SKIPPED
        seconds = parse_seconds(self._microseconds) / 1e6 if self._microseconds else NO_SECONDS
        group, line = "/".join(self._suites[-MAX_SUITES:]), parse_integer(case.get("line", ""))
        name, file = case.get("name", ""), case.get("file", "")
        self.collector.add(group, name, outcome, seconds, file=file, line=line, text=self._failure_text)


class QtHandler(ForeignHandler):
    """Handle one report of QtTest in the format XML; each row of data is a test."""

    OUTCOMES: ClassVar[Mapping[str, Outcome]] = {
        "pass": PASSED,
        **dict.fromkeys(("fail", "xpass"), FAILED),
        **dict.fromkeys(("skip", "bpass", "bfail", "bxpass", "bxfail", "bskip"), SKIPPED),
    }

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._class = self._function = self._outcome_word = self._tag = self._description = ""
        self._place: tuple[str, int] = ("", 0)
        self._results: dict[str, tuple[Outcome, str, tuple[str, int]]] = {}  # of the open function, by tag
        self._seconds = NO_SECONDS

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle functions, what happened in them, and times."""
        match name:
            case "TestCase":
                self._class = attributes.get("name", "")
            case "TestFunction":
                self._function, self._results, self._seconds = attributes.get("name", ""), {}, NO_SECONDS
            case "Incident" | "Message" if self._function:
                self._outcome_word, self._tag, self._description = attributes.get("type", ""), "", ""
                self._place = attributes.get("file", ""), parse_integer(attributes.get("line", ""))
            case "DataTag" | "Description":
                self.read_text()
            case "Duration" if self._function:
                self._seconds = parse_seconds(attributes.get("msecs", "")) / 1000

    def close(self, name: str) -> None:
        """Add what happened in the function that ends: the worst of each row."""
        match name:
            case "DataTag":
                self._tag = self.text.strip()
            case "Description":
                self._description = self.text
            case "Incident" | "Message":
                self._add_incident(name)
            case "TestFunction" if self._function:
                self._finish_function()

    def finish(self) -> None:
        """Note the function that was open when the document stopped; Qt flushes after each line, a crash ends it."""
        if self._function:
            self._finish_function()
            self.note_open_case()

    def _add_incident(self, element: str) -> None:
        word = self._outcome_word
        if element == "Message":  # Qt 5 tells a skip as a message, and a fatal one ends the program
            word = {"skip": "skip", "qfatal": "fail"}.get(word, "")
        outcome = self.OUTCOMES.get(word)
        if outcome is None:
            if word and word != "xfail":  # an expected failure is followed by the outcome of its row
                self.collector.drop(f"an incident of the type {word[:40]!r}")
            return
        known = self._results.get(self._tag)
        if known is None or (known[0] != FAILED and (outcome == FAILED or known[0] == PASSED)):
            self._results[self._tag] = outcome, self._description, self._place

    def _finish_function(self) -> None:
        for tag, (outcome, description, (file, line)) in self._results.items():
            seconds = self._seconds if len(self._results) == 1 else NO_SECONDS
            name = f"{self._function}({tag})" if tag else self._function
            self.collector.add(self._class, name, outcome, seconds, file=file, line=line, text=description)
        self._function = ""


class AllureHandler(ForeignHandler):
    """Handle one testsuite.xml of Allure 1."""

    OUTCOMES: ClassVar[Mapping[str, Outcome]] = {
        "passed": PASSED,
        **dict.fromkeys(("failed", "broken"), FAILED),
        **dict.fromkeys(("skipped", "canceled", "pending"), SKIPPED),
    }

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        super().__init__(tokenizer, collector, signature)
        self._suite = self._name = self._message = ""
        self._parameters: list[str] = []
        self._nested = 0  # open steps and attachments, which have names, too

    def open(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the suite, cases, their parameters and messages."""
        match name:
            case "test-case":
                self._case, self._name, self._message, self._parameters, self._nested = attributes, "", "", [], 0
            case "steps" | "attachments" | "labels":
                self._nested += 1
            case "name" | "message" if self._nested == 0:
                self.read_text()
            case "parameter" if self._case is not None and attributes.get("kind") == "argument":
                self._parameters.append(attributes.get("value", "")[:MAX_TEXT])

    def close(self, name: str) -> None:
        """Add the case that ends."""
        match name:
            case "steps" | "attachments" | "labels":
                self._nested -= 1
            case "name" if self._nested == 0 and self._case is None:
                self._suite = self._suite or self.text
            case "name" if self._nested == 0:
                self._name = self._name or self.text
            case "message" if self._nested == 0:
                self._message = self._message or self.text
            case "test-case" if self._case is not None:
                self._add_case(self._case)
                self._case = None

    def _add_case(self, case: dict[str, str]) -> None:
        outcome = self.collector.outcome_of(case.get("status", ""), self.OUTCOMES, "a test with the status")
        if outcome is None:
            return
        start, stop = case.get("start", ""), case.get("stop", "")  # milliseconds since the epoch
        is_timed = MILLISECONDS.fullmatch(start) and MILLISECONDS.fullmatch(stop)
        seconds = max(0, int(stop) - int(start)) / 1000 if is_timed else NO_SECONDS
        missing = [value for value in self._parameters if value and value not in self._name]
        name = f"{self._name}({', '.join(missing)})" if missing else self._name
        self.collector.add(self._suite, name, outcome, seconds, text=self._message)
