"""The parser of one XML report: its root element chooses the handler, and JUnit's handler is here."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fedstep.ingest.cases import (
    MAX_TYPE,
    NAMELESS,
    NO_SIGNATURE,
    TIME_UNITS,
    UNNAMED,
    CaseCollector,
    Signature,
    advise,
    assembly_of,
    explain_time,
    failure_word,
    identify_tool,
    name_of_hook,
    parse_integer,
    parse_seconds,
    relative_path,
)
from fedstep.ingest.change_impact import NOT_STARTED
from fedstep.ingest.failure_text import COLLECTION, HALF, FailureText, find_message, read_failure
from fedstep.ingest.mutes import QUARANTINED
from fedstep.ingest.test_identity import MAX_NAME, identify_script, is_absolute, script_of, variant_of
from fedstep.ingest.xml import MAX_DEPTH, RejectedDocument, Tokenizer
from fedstep.ingest.xml_reports import (
    AllureHandler,
    BoostHandler,
    CppunitHandler,
    CtestHandler,
    ForeignHandler,
    NunitHandler,
    QtHandler,
    RobotHandler,
    TrxHandler,
    XunitHandler,
)
from fedstep.types import NO_SECONDS, Outcome, TestRun

FAILED, AGAIN, SKIPPED, TODO, MISSING, COLLECTED, EXPECTED, LEFT = 1, 2, 4, 8, 16, 32, 64, 128
TROUBLES = FAILED | AGAIN | COLLECTED
CTEST_MISSING = "Unable to find executable"  # CTest prints such a test as failed, and reports it as skipped
COLLECTIONS = (COLLECTION, "collection skipped")  # pytest's messages of a module without its tests
FAILED_IMPORT = "unittest.loader._FailedTest"
FIXTURE = re.compile(r"((?:setUp|tearDown)(?:Class|Module)) \((.+)\)")
SUBTEST = re.compile(r"([^\W\d]\w*) ((?:\[.*\] ?)?\(.*\)|\[.*\])", re.S)
JEST_SUITE = "Test suite failed to run"
GO_BROKEN = ("[build failed]", "[setup failed]")  # of go-junit-report; a package that panics has the error below
GO_ABORTED = ("Failure", "Runtime error")
# A file of Node that does not load, or whose process exits: its name is a test beside the suites.
NODE_FILE = re.compile(r"ERR_TEST_FAILURE'[^{}]*\b(?:(exitCode: \d+)|exitCode: null), (?:signal: null|(signal: '\w+'))")
PLACE = re.compile(r"(.*\.\w{1,5}):\d+")  # Busted's classes and ExUnit's files have a line, which moves
NUMBER_STARTS = frozenset("#0123456789(")  # "(init)" is the first case of TAP::Formatter::JUnit
NUMBERED = re.compile(r"(?:(\d{1,9}) - |#(\d{1,9}) )(\S.*)", re.S)  # a test point of TAP in JUnit's form
# Names whose number moves, too: of Bats' second file (1.8), and of the specs of minitest.
MOVING = {".bats": re.compile(r"begin \d{1,9} (\S.*)", re.S), "minitest": re.compile(r"test_\d{4,9}_(\S.*)", re.S)}
MOST_DESCRIBES = 50  # suites of Vitest inside one another
WATCHED = ("minitest", "Vitest")  # whose names are looked at one by one
# What attempts at a test of Playwright leave: without `includeRetries` nothing else tells of the earlier ones.
ATTACHMENT = re.compile(r"\[\[ATTACHMENT\|[^\[\]\n]*?(?:(-retry\d+)[\\/]|[\\/]error-context\.md\]\])")
CRASHED_WORKER = re.compile(r'failed on \w+ with "(worker) \S+ (crashed while running .*)"', re.S)  # of xdist
DUBIOUS = "Dubious, test returned "  # of prove: the exit code, which is not 0 where a test point failed
# What ExUnit's formatter writes of a module whose `setup_all` failed: "Invalid module", and its structure as the text.
EXUNIT_SETUP = re.compile(r'state: \{:failed, \[\{:\w+, %([\w.]+)\{(?:[^{}]*?\bmessage: "((?:[^"\\]|\\.)*)")?')
NODE_FAILURES = re.compile(r"fail (\d{1,9})")
MARKS = {"failure": FAILED, "error": FAILED, "skipped": SKIPPED, "disabled": SKIPPED}
MARKS |= dict.fromkeys(("flakyFailure", "flakyError", "rerunFailure", "rerunError"), AGAIN)
NO_CLASS = "\0"  # no class of an XML file has this name
# What `status` and `result` say without a child that does, as those of GoogleTest, CTest and Maestro.
NOT_RUN = {"notrun", "skipped", "disabled", "ignored", "suppressed", "canceled", "cancelled"} | {
    *("notexecuted", "not run", "untested", "inconclusive", "blocked", "pending")
}
NOT_PASSED = {"failed", "failure", "fail", "error", "broken", "timedout", "timeout"} | {
    *("aborted", "crashed", "crash", "killed", "interrupted")
}
MAX_SUITES = 8  # of the open ones in the name of a test without a class
NO_FAILURE = FailureText()
USUAL_ATTRIBUTES = 3  # classname, name and time: the case of a passed test, read in the shortest way
MAX_TIMESTAMPS = 1000  # of suites that are kept
ELEMENTS = frozenset(
    ("testsuites", "testsuite", "testcase", *MARKS, "properties", "property", "system-out", "system-err", "stackTrace")
)
BROWSERS = {"browser", "browserName", "browser.name"}  # properties of a suite
TOTALS = ("failures", "errors", "failed"), ("skipped", "disabled", "skip", "ignored")
# Tools whose totals differ from their cases: pytest counts subtests and no reruns, Jest leaves `todo` out of its
# totals and Mocha out of its cases what is skipped or did not run, Node counts the tests of its suites once, Ant no
# broken classes.
OTHER_TOTALS = frozenset(("pytest", "Jest", "Mocha", "Cypress", "Node", "Ant"))
ASSERTION_TOTALS = frozenset(("Catch2", "doctest"))  # they count assertions, of which a test has many
ATTEMPTS = {"attempt": 0, "retry": 1, "repetition": 1}  # attributes and properties of a case: the first attempt is 1
PASSED = Outcome.PASSED  # measured: an attribute of an enumeration costs 0.1 µs on Python 3.11
new_tuple = tuple.__new__  # a NamedTuple's own constructor is a Python function, three times as slow


class EnclosingSuite(NamedTuple):
    """An open `<testsuite>`."""

    name: str
    file: str
    depth: int  # open elements, itself included
    label: str = ""  # the names of all open suites
    variant: str = ""


NO_SUITE = EnclosingSuite("", "", 0)


class Announced(NamedTuple):
    """The totals of a report or suite."""

    tests: int
    failed: int | None  # None where only tests are counted
    skipped: int


class Difference(NamedTuple):
    """How the totals of a report and its cases differ, "" where they agree."""

    reason: str = ""
    lost_failures: bool = False  # it announces failures, and none was read


class Totals:
    """The tests and failures that a report announces, beside those that were read."""

    def __init__(self, signature: Signature) -> None:
        self.failed = 0  # cases that were read
        self.suite_errors = 0  # of those, the ones that are no test of their suite
        self.outside = 0  # of those, the ones in no suite, as the tests of Node that no `describe` is around
        self.top_errors = parse_integer(signature.top.get("errors", "")) if signature.root == "testsuites" else 0
        self._top = _read_announced(signature.top) if signature.root == "testsuites" else None
        self._suites: list[Announced] = []
        self._depth = 0  # of the outermost suites that announce something

    def add_suite(self, attributes: Mapping[str, str], depth: int) -> None:
        """Take what a suite announces, unless one around it did."""
        announced = _read_announced(attributes)
        if announced and (not self._suites or depth <= self._depth):
            self._suites.append(announced)
            self._depth = depth

    @property
    def is_unstarted(self) -> bool:
        """Return whether the report announces errors and no test."""
        return self._top is not None and not self._top.tests and self.top_errors > 0

    def difference(self, cases: int, tool: str) -> Difference:
        """Return how the totals and the cases differ.

        The totals are those of the root or the sums of the suites, whichever agree: some tools write one of them only.
        """
        sums = _sum(self._suites, self.outside) if self._suites else None
        candidates = [announced for announced in (self._top, sums) if announced]
        if any(self._agrees(announced, cases, tool) for announced in candidates) or not candidates:
            return Difference()
        candidate = candidates[0]
        if candidate.failed is None:
            return Difference(f"it announces {candidate.tests} tests, {cases} were read")
        reason = (
            f"it announces {candidate.tests} tests and {candidate.failed} failures, {cases} and {self.failed} were read"
        )
        return Difference(reason, not self.failed and all(announced.failed for announced in candidates))

    def _agrees(self, announced: Announced, cases: int, tool: str) -> bool:
        failed = self.failed if announced.failed is None else announced.failed
        is_at_least = announced.tests - announced.skipped <= cases
        if tool in ASSERTION_TOTALS:
            return not failed or self.failed > 0
        if tool == "Surefire":  # from 3 on its totals are those of the last class inside, or of the last rerun
            return is_at_least and (not failed or self.failed > 0)
        if (failed > 0) != (self.failed > 0):
            return False
        if tool in OTHER_TOTALS or self.suite_errors:
            return tool in ("pytest", "Mocha", "Cypress") or is_at_least
        return (announced.tests, failed) == (cases, self.failed)


def _sum(suites: Sequence[Announced], outside: int) -> Announced:
    """Return what the suites announce together with so many failures outside of them."""
    failed = [suite.failed for suite in suites if suite.failed is not None]
    tests, skipped = (sum(numbers) for numbers in zip(*((suite.tests, suite.skipped) for suite in suites), strict=True))
    return Announced(tests + outside, sum(failed) + outside if len(failed) == len(suites) else None, skipped)


def _read_announced(attributes: Mapping[str, str]) -> Announced | None:
    """Return what these attributes announce, None for nothing."""
    if "tests" not in attributes:
        return None
    failed, skipped = (sum(parse_integer(attributes.get(name, "")) for name in names) for names in TOTALS)
    counts_failures = any(name in attributes for name in TOTALS[0])
    return Announced(parse_integer(attributes["tests"]), failed if counts_failures else None, skipped)


def _label_suite(name: str, package: str) -> str:
    """Return the name of a suite with its package, or the assembly and framework that the package is for .NET.

    >>> _label_suite("CartTest", "shop"), _label_suite("Shop.dll", "/bin/net8.0/Shop.dll")
    ('shop.CartTest', 'Shop.dll (net8.0)')
    """
    if not package or package == name:
        return name
    if package.lower().endswith((".dll", ".exe")):
        return assembly_of(package)
    return name if not name or name.startswith(package) or is_absolute(package) else f"{package}.{name}"


def _other_class(case: Mapping[str, str]) -> str:
    """Return the class of a case that has no `classname`: PHPUnit and some others write it otherwise."""
    return case.get("class") or case.get("className") or ""


def _is_expected(attributes: Mapping[str, str]) -> bool:
    """Return whether this child of a case tells that a failure of it fails no build.

    Catch2 expects that what is tagged may fail, and PHPUnit 9 calls a test without assertions risky.
    """
    message, failure_type = attributes.get("message", ""), attributes.get("type", "")
    return message.startswith("TEST_CASE tagged with !") or failure_type.endswith("RiskyTestError")


def _without_line(path: str) -> str:
    """Return a path without the line behind it.

    >>> _without_line("spec/cart_spec.lua:5"), _without_line("shop.Cart")
    ('spec/cart_spec.lua', 'shop.Cart')
    """
    match = PLACE.fullmatch(path) if path[-1:].isdecimal() else None
    return match[1] if match else path


def attempt_of(name: str, value: str) -> int:
    """Return the attempt that an attribute or property means, from 1; 0 for none: "First Run", "Retry 1", "2"."""
    digits = re.search(r"\d{1,6}", value)
    if digits:
        return int(digits[0]) + ATTEMPTS[name]
    return 1 if name == "repetition" else 0


class JUnitHandler:
    """Handle one JUnit report of any tool; each case is added to `collector` at its end.

    A report of 100 MB has a million cases, and each costs a microsecond more for every ten simple operations: what
    most cases need is written out in `start`, `end` and `_finish_case`, and what few need is a method.
    """

    def __init__(self, tokenizer: Tokenizer, collector: CaseCollector, signature: Signature) -> None:
        self.signature = signature
        self.is_pytest = signature.is_named("pytest tests")
        self.declared = 0  # tests that the suites announce
        self.totals = Totals(signature)
        self.timestamps: set[str] = set()  # of the suites
        self.suite_starts: list[int] = []  # for each suite element, how many cases stood before it
        self._nameless = 0  # cases that were not kept
        self._is_node = signature.root == "testsuites" and not signature.top
        self._todo_failures = 0
        if self._is_node:
            tokenizer.set_comment_handler(self._read_comment)
        self._is_playwright = tuple(signature.top)[:2] == ("id", "name") and "skipped" in signature.top
        self._tokenizer, self._collector, self._append = tokenizer, collector, collector.items.append
        self._folder = collector.folder
        self._suites: list[EnclosingSuite] = []  # the open ones
        self._suite_file = self._label = ""  # of the innermost one
        self._depth = 0  # open elements that are no cases
        self._case: dict[str, str] | None = None  # the attributes of the open one
        self._has_case = False  # one was opened
        self._marks, self._failure_type = 0, ""  # of the open case
        self._message = self._failure_text = self._failure_end = ""
        self._is_reading_text = self._is_output = False
        self._class, self._prefix = NO_CLASS, ""  # of the last case, and how the names of its class begin
        self._is_numbered = False
        self._is_mocha = signature.is_named("Mocha Tests")
        self._root_file = ""
        self._tool = ""  # from the first case on
        self._describes: set[str] = set()  # of Vitest: the suites of the tests that were read
        self._suite_failed = 0  # failed tests before the last suite
        self._attempt = 0
        self._is_told = False  # an element inside the last case told something of it
        self._unit = 1.0  # seconds in the times of this tool

    @property
    def case_count(self) -> int:
        """Return how many cases were kept."""
        return self._collector.count - self._nameless

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        if name == "testcase":
            if self._case is not None:
                self._drop_open_case("a test case inside a test case")
            if not self._has_case:
                self._has_case, self.signature = True, self.signature._replace(case=attributes)
                self._tool = identify_tool(self.signature)
                self._unit = TIME_UNITS.get(self._tool, 1.0)
            self._case = attributes
            if self._is_told:
                self._forget_case()
        elif ":" in name:
            self.start(name.rpartition(":")[2], attributes)
        else:
            self._start_other(name, attributes)

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        if name == "testcase":
            case, self._case = self._case, None
            if case is not None:
                self._finish_case(case)
        elif ":" in name:
            self.end(name.rpartition(":")[2])
        else:
            self._end_other(name)

    def finish(self) -> None:
        """Note the case that was open when the document stopped."""
        if self._case is not None:
            self._drop_open_case("the report stops inside this test case")

    def _drop_open_case(self, reason: str) -> None:
        """Drop the open case for this reason; a failure that was seen is kept."""
        case, self._case = self._case, None
        if self._is_reading_text:
            self._stop_reading_text()
        if case is not None and self._marks & FAILED:
            self._finish_case(case)
        self._collector.drop(reason)

    def _forget_case(self) -> None:
        """Forget what the elements inside a case told."""
        self._is_told, self._marks, self._failure_type, self._attempt = False, 0, "", 0
        self._message = self._failure_text = self._failure_end = ""

    def _start_other(self, name: str, attributes: dict[str, str]) -> None:
        self._is_told = True
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._tokenizer.too_deep()
        if name == "testsuite":
            self._start_suite(attributes)
        elif self._case is not None and (mark := MARKS.get(name, 0)):
            if mark == SKIPPED and attributes.get("message", "").startswith(QUARANTINED):
                mark = FAILED  # by `pytest --fedstep-quarantine`: it failed, and the history has to know
            is_todo = (self._is_node and name == "skipped" and attributes.get("type") == "todo") or _is_expected(
                attributes
            )
            is_missing = name == "skipped" and attributes.get("message") == CTEST_MISSING
            if is_missing:
                self._message = CTEST_MISSING
            is_collected = attributes.get("message") in COLLECTIONS
            self._marks |= mark | TODO * is_todo | MISSING * is_missing | COLLECTED * is_collected
            if mark != SKIPPED and not self._failure_type:
                self._start_failure(attributes)
        elif name == "system-out" and self._case is not None:
            self._start_output()
        elif name == "property":
            self._read_property(attributes)
        elif name in ("error", "failure") and self._depth == (self._suites[-1].depth if self._suites else 1) + 1:
            self._fail_suite(attributes)

    def _end_other(self, name: str) -> None:
        self._depth -= 1
        if self._is_reading_text:
            self._stop_reading_text()
        if name == "testsuite" and self._suites:
            self._suites.pop()
            self._class = NO_CLASS
            innermost = self._suites[-1] if self._suites else NO_SUITE
            self._suite_file, self._label = innermost.file, innermost.label

    def _start_suite(self, attributes: dict[str, str]) -> None:
        if not self.signature.suite and not self._has_case:
            self.signature = self.signature._replace(suite=attributes)
        name = attributes.get("name", "")
        self._suite_file = attributes.get("file", "")[:MAX_NAME]
        if self._is_mocha and name == "Root Suite":  # it alone names the file of the suites that follow
            self._root_file = self._suite_file
        self._suite_file = self._suite_file or self._root_file
        parent = self._suites[-1] if self._suites else NO_SUITE
        own = _label_suite(name, attributes.get("package", ""))
        label = f"{parent.label}/{own}" if parent.label and own else parent.label or own
        self._label = label[:MAX_NAME]
        self._suites.append(EnclosingSuite(name[:MAX_NAME], self._suite_file, self._depth, self._label, parent.variant))
        self._class = NO_CLASS
        self._suite_failed = self.totals.failed
        self.suite_starts.append(self.case_count)
        self.totals.add_suite(attributes, len(self._suites))
        if (timestamp := attributes.get("timestamp")) and len(self.timestamps) < MAX_TIMESTAMPS:
            self.timestamps.add(timestamp)
        self.is_pytest = self.is_pytest or name == "pytest"
        if self._is_playwright:  # it runs the same tests in each of its projects, whose names it writes as hosts
            self._set_variant(attributes.get("hostname", "")[:MAX_TYPE])
        self.declared += parse_integer(attributes.get("tests", ""))

    def add_unstarted(self) -> None:
        """Add one failed test for a run of which nothing but errors is left, as where no package compiles."""
        if self.totals.is_unstarted and not self._collector.count:
            errors = self.totals.top_errors
            text = f"{errors} error{'s' * (errors != 1)} and no test, as where a package does not compile"
            self._collector.add("build", NOT_STARTED, Outcome.FAILED, failure_type="build failed", text=text)
            self.totals.failed += 1
            self.totals.suite_errors += 1

    def _set_variant(self, variant: str) -> None:
        self._suites[-1] = self._suites[-1]._replace(variant=variant)
        self._class = NO_CLASS

    def _read_property(self, attributes: dict[str, str]) -> None:
        """Take the browser of a suite, or the attempt of a case, from its properties."""
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if self._case is not None:
            if name in ATTEMPTS and value:
                self._attempt = attempt_of(name, value)
            elif name == "fail" and self._is_playwright:  # an attempt that failed as it should leaves an attachment
                self._marks |= EXPECTED
        elif name in BROWSERS and value and self._suites and not self._is_playwright:
            self._set_variant(variant_of(value))

    def _fail_suite(self, attributes: dict[str, str]) -> None:
        """Add one failed test for a suite that could not even start, as Jenkins does, or for the whole report."""
        message = attributes.get("message", "")
        failure_type = attributes.get("type", "") or failure_word(message)
        if message.startswith(DUBIOUS) and self.totals.failed > self._suite_failed:
            self.totals.suite_errors += 1
            return
        suite = self._suites[-1] if self._suites else NO_SUITE
        group = suite.name or self.signature.top.get("name", "")
        self._collector.add(group, NOT_STARTED, Outcome.FAILED, NO_SECONDS, failure_type, suite.file, text=message)
        self.totals.failed += 1
        self.totals.suite_errors += 1

    def _start_failure(self, attributes: dict[str, str]) -> None:
        self._message = attributes.get("message", "")[:HALF]
        self._failure_type = attributes.get("type", "").strip()[:MAX_TYPE] or failure_word(self._message)
        self._is_reading_text = True  # for the signature; Jest and gotestsum have even the message in the text
        self._tokenizer.set_text_handler(self._read_text)

    def _start_output(self) -> None:
        """Read the output of a failed case without a message, and what attempts at a test of Playwright left.

        nextest has a message as the type: "... with exit code 3".
        """
        is_failed = self._marks & FAILED
        if is_failed and " " in self._failure_type:
            self._message = self._message or self._failure_type
        if (is_failed and not self._message and not self._failure_text) or (self._is_playwright and not self._marks):
            self._is_output = self._is_reading_text = True  # CTest has nothing else
            self._tokenizer.set_text_handler(self._read_text)

    def _read_text(self, text: str) -> None:
        """Keep the start and the end of the text, whatever its length."""
        if len(self._failure_text) < HALF:
            self._failure_text = (self._failure_text + text[: 2 * HALF]).lstrip()
        else:
            self._failure_end += text[-HALF:]
            if len(self._failure_end) > 4 * HALF:
                self._failure_end = self._failure_end[-HALF:]

    def _stop_reading_text(self) -> None:
        self._tokenizer.set_text_handler(None)
        if self._is_output and not self._marks & FAILED:
            left = ATTACHMENT.findall(f"{self._failure_text}\n{self._failure_end}")
            self._marks |= AGAIN * any(left) | LEFT * bool(left)
            self._failure_text = self._failure_end = ""
        elif self._is_output:
            self._message = find_message(f"{self._failure_text}\n{self._failure_end}")
            self._failure_text = self._failure_end = ""
        else:
            self._failure_type = self._failure_type or failure_word(self._failure_text)
        self._is_reading_text = self._is_output = False

    def _finish_case(self, case: dict[str, str]) -> None:
        collector, get = self._collector, case.get
        collector.count += 1
        name, class_name, time = get("name", ""), get("classname") or _other_class(case), get("time")
        if not name and not class_name:
            if not self._keep_nameless():
                return
            name, class_name = UNNAMED, self._label
        file = self._file(case) if self._suite_file or "file" in case else ""
        if self._marks & TROUBLES:
            class_name, name, file, case = self._settle_place(class_name, name, file, case)
        if class_name != self._class:
            self._change_class(class_name, name, file)
        if self._is_numbered:
            name = self._without_number(name)
        test = self._prefix + name
        if len(test) > MAX_NAME or not test.isprintable() or (self._folder and self._folder in name):
            test = collector.identify(self._prefix, name)
        seconds = NO_SECONDS
        if time:
            seconds = parse_seconds(time, self._unit)
            if seconds != seconds:  # NaN
                collector.note(explain_time(time), kept=True)
        if self._is_told or len(case) != USUAL_ATTRIBUTES or "classname" not in case or not time:
            failure = self._failure(test) if self._failure_type or self._failure_text or self._message else NO_FAILURE
            line = self._line(case["line"]) if "line" in case else 0
            run = (seconds, self._failure_type, file, line, self._label, self._attempt_of(case), *failure)
            self._append(TestRun(test, self._outcome(case), *run))
        else:  # a passed one; the last two are those of NO_FAILURE, and to unpack it takes 3 %
            self._append(new_tuple(TestRun, (test, PASSED, seconds, "", file, 0, self._label, 0, "", "")))

    def _keep_nameless(self) -> bool:
        """Note a case without name and class, and return whether it is kept: a failure is.

        pytest writes an empty one where a worker of xdist crashes and its test is run again.
        """
        self._collector.note(NAMELESS, kept=self.is_pytest and not self._is_told)
        self._nameless += not self._marks & FAILED
        return bool(self._marks & FAILED)

    def _note_describes(self, name: str) -> None:
        """Note the suites of a test of Vitest, the innermost first; those of a known one are known."""
        for _ in range(MOST_DESCRIBES):
            name, separator, _ = name.rpartition(" > ")
            if not separator or name in self._describes:
                return
            self._describes.add(name)

    def _without_number(self, name: str) -> str:
        """Return a name without the number of its test point, which moves when one is added before it.

        TAP::Formatter::JUnit counts in each suite, perhaps behind a case "(init)", tap-xunit in the whole report.
        """
        if self._tool == "Vitest":
            self._note_describes(name)
        if moving := MOVING.get(self._tool) or (MOVING[".bats"] if self._class.endswith(".bats") else None):
            return match[1] if (match := moving.fullmatch(name)) else name
        numbered = NUMBERED.fullmatch(name)
        position = self.case_count - (self.suite_starts[-1] if self.suite_starts else 0)
        if numbered and int(numbered[1] or numbered[2]) in (position, position - 1, self.case_count):
            return numbered[3]
        return name

    def _settle_place(
        self, class_name: str, name: str, file: str, case: dict[str, str]
    ) -> tuple[str, str, str, dict[str, str]]:
        """Return class, name, file and attributes of the test that a failed case is of.

        A subtest of unittest-xml-reporting, and so of Django, has a case only where it failed. It is its test that
        failed, and which subtest it was becomes a part of the message.
        """
        if stand_in := self._stand_in(class_name, name):
            return *stand_in, "", {**case, "line": ""}
        if self._failure_type == name:  # of minitest-reporters
            self._failure_type = failure_word(self._message)
        if crashed := CRASHED_WORKER.fullmatch(self._message):  # which worker it was differs from run to run
            self._failure_type, self._message = "crashed", f"a {crashed[1]} {crashed[2]}"
        if self._message.startswith("Invalid module") and (cause := EXUNIT_SETUP.search(self._failure_text)):
            self._failure_type, self._failure_text, self._failure_end = cause[1], "", ""
            self._message = ": ".join(filter(None, cause.groups()))
        class_name, name = name_of_hook(class_name), name_of_hook(name)
        if file.endswith(".py") and (subtest := SUBTEST.fullmatch(name)):
            self._message = f"{subtest[2]}: {self._message}".rstrip(" :")
            name = subtest[1]
        return class_name, name, file, case

    def _stand_in(self, class_name: str, name: str) -> tuple[str, str] | None:
        """Return class and name of a case that stands for a module, class or file that could not begin; None if not.

        These are classes of Surefire whose fixture failed, pytest's and unittest's modules that cannot be imported, the
        `setUpClass` and the like of unittest, whose class would have the time of the run in its name, files of Jest,
        Vitest and Node, and packages of Go.
        """
        if not name or name in GO_BROKEN or (name, self._message) == GO_ABORTED:
            return class_name, NOT_STARTED  # without a name: @BeforeAll or @AfterAll of Surefire 3
        if self._is_node and not self._suites and (ended := NODE_FILE.search(self._failure_text)):
            self._message = f"the file ended with {ended[1] or ended[2]}".replace("exitCode:", "exit code").replace(
                ":", ""
            )
            return relative_path(name, self._collector.root), NOT_STARTED
        if class_name.startswith(FAILED_IMPORT):
            return f"{class_name.removeprefix(FAILED_IMPORT)}.{name}".lstrip("."), NOT_STARTED
        if fixture := FIXTURE.fullmatch(name):
            return fixture[2], fixture[1]
        if name in self._describes:
            return name, NOT_STARTED  # a `describe` of Vitest, whose hook failed
        is_file = class_name == JEST_SUITE or class_name == name == (self._suites[-1].name if self._suites else "")
        return (name, NOT_STARTED) if self._marks & COLLECTED or is_file else None

    def _attempt_of(self, case: dict[str, str]) -> int:
        """Return which attempt at its test this case is, 0 where the report does not say."""
        attempt = self._attempt or ("attempt" in case and attempt_of("attempt", case["attempt"]))
        return attempt or ("retry" in case and attempt_of("retry", case["retry"])) or 0

    def _failure(self, test: str) -> FailureText:
        end = self._failure_end[-HALF:]
        if len(end) == HALF:  # it begins inside a line, which is then no frame of a stack
            end = end.partition("\n")[2]
        text = f"{self._failure_text}\n{end}" if end else self._failure_text
        return read_failure(test, self._failure_type, self._message, text)

    def _file(self, case: dict[str, str]) -> str:
        return relative_path(_without_line(case.get("file") or self._suite_file), self._collector.root)[:MAX_NAME]

    def _change_class(self, class_name: str, name: str, file: str) -> None:
        """Set how the names of tests of this class begin, and whether they may be numbered: its first one tells."""
        self._is_numbered = name[:1] in NUMBER_STARTS or self._tool in WATCHED or class_name.endswith(".bats")
        suite = self._suites[-1] if self._suites else NO_SUITE
        script = script_of(file, relative_path(suite.name, self._collector.root))
        if script:  # the name tells, too, how its identity begins
            group = relative_path(class_name, self._collector.root)
            self._class, self._prefix = NO_CLASS, identify_script(script, group, name).removesuffix(name)
        elif not class_name or (self._is_node and class_name == "test"):  # Node calls every class "test"
            self._class, self._prefix = NO_CLASS, self._suite_prefix(file, class_name)
        else:
            group = relative_path(_without_line(class_name), self._collector.root)
            self._class, self._prefix = class_name, f"{group}#"
        if suite.variant:
            self._prefix += f"[{suite.variant}] "

    def _suite_prefix(self, file: str, class_name: str) -> str:
        """Return how the name of a test without a class of its own begins: with its file and its suites."""
        suites = [relative_path(suite.name, self._collector.root) for suite in self._suites[-MAX_SUITES:] if suite.name]
        if file and not is_absolute(file) and file not in suites:
            suites.insert(0, file)
        return ("/".join(suites) or class_name) + "#"

    def _read_comment(self, text: str) -> None:
        """Add a failed test where Node's totals have failures and no case has: those of parent tests are lost."""
        failures = NODE_FAILURES.fullmatch(text.strip())
        if failures and int(failures[1]) and self.totals.failed == self._todo_failures:
            self._collector.add("node", NOT_STARTED, Outcome.FAILED)
            self._nameless += 1

    def _outcome(self, case: dict[str, str]) -> Outcome:
        if self._marks & FAILED:
            self.totals.failed += 1
            self.totals.outside += not self._suites
            if self._marks & TODO:  # its tool does not count it as a failure
                self._todo_failures += 1
                return Outcome.SKIPPED
            if case.get("flaky", "").lower() == "true":  # Firebase Test Lab
                return Outcome.FLAKED
            return Outcome.CONFIRMED if self._marks & AGAIN else Outcome.FAILED
        if self._marks & (AGAIN | LEFT):
            return Outcome.FLAKED
        if self._marks & MISSING:
            return Outcome.FAILED
        marks = {case.get("status", "").lower(), case.get("result", "").lower()}
        if self._marks & SKIPPED or marks & NOT_RUN:
            return Outcome.SKIPPED
        if marks & NOT_PASSED:
            self.totals.failed += 1
            return Outcome.FAILED
        return PASSED

    def _line(self, text: str) -> int:
        if not text.isdecimal() or len(text) > 9:
            return 0
        return int(text) + self.is_pytest  # pytest's xunit1 counts from 0


Handler = JUnitHandler | ForeignHandler
HANDLERS: dict[str, Callable[[Tokenizer, CaseCollector, Signature], Handler]] = {
    **dict.fromkeys(("testsuites", "testsuite", "testcase"), JUnitHandler),
    "TestRun": TrxHandler,
    "robot": RobotHandler,
    **dict.fromkeys(("assemblies", "assembly"), XunitHandler),
    **dict.fromkeys(("test-run", "test-results", "test-suite"), NunitHandler),
    "Site": CtestHandler,
    **dict.fromkeys(("TestLog", "TestResult"), BoostHandler),
    "TestCase": QtHandler,
}


class ReportParser:
    """Parse one XML report; `handler` is chosen by its root element, and None before."""

    def __init__(self, source: str, root: str) -> None:
        self.tokenizer = Tokenizer()
        self.collector = CaseCollector(source, root, self.tokenizer)
        self.handler: Handler | None = None
        self.tokenizer.set_handlers(self._start_root, None)

    @property
    def signature(self) -> Signature:
        """Return the signature of what was read so far."""
        return self.handler.signature if self.handler else NO_SIGNATURE

    @property
    def elements(self) -> frozenset[str]:
        """Return the elements of this kind of report; none: all that stand in it."""
        return ELEMENTS if isinstance(self.handler, JUnitHandler) else frozenset()

    def has_root(self) -> bool:
        """Tell whether the root element of a report was read."""
        return self.handler is not None

    def _start_root(self, name: str, attributes: dict[str, str]) -> None:
        """Choose the handler, and let it handle this element and what follows."""
        local_name = name.rpartition(":")[2]
        if attributes.get("xmlns", "").startswith("http://check.sourceforge.net/"):
            raise RejectedDocument("not JUnit, though its root element is: it is Check's own; use CK_TAP_LOG_FILE_NAME")
        if local_name not in HANDLERS:
            root = name[:60]
            raise RejectedDocument(
                f"not a test report that is read here: its root element is <{root}>{advise(local_name)}"
            )
        make_handler = HANDLERS[local_name]
        if local_name == "test-suite" and "type" not in attributes:
            make_handler = AllureHandler  # NUnit and Allure 1 name their root alike
        elif local_name == "TestRun" and not attributes:
            make_handler = CppunitHandler  # that of TRX has a namespace and an id
        self.handler = make_handler(self.tokenizer, self.collector, Signature(local_name, attributes))
        self.tokenizer.set_handlers(self.handler.start, self.handler.end)
        self.handler.start(name, attributes)
