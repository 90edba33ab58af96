"""What all readers of reports share: which tool wrote a report, and how its test cases are collected.

Attributes hold seconds in any locale, paths in either notation, identities and kinds of failures. `junit_parser`,
`xml_reports`, `json_reports` and `line_reports` have the readers.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple

from fedstep.ingest.failure_text import COLOUR, FailureText, read_failure
from fedstep.ingest.test_identity import MAX_NAME, make_identity
from fedstep.ingest.xml import Tokenizer
from fedstep.types import MAX_SECONDS, NO_SECONDS, Dropped, Outcome, TestRun

MAX_TYPE, MAX_TEXT = 100, 400  # characters
MAX_REPEATED = 100  # Dropped with the same reason in one file; the others are told as a number
NAMELESS = "a test case without name and class"
UNNAMED = "<unnamed>"  # the name of the failures without one in a suite
UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME = re.compile(r"(-?\d[\d.,]*|-?[.,]\d+)([a-z]*)")
EXCEPTION = re.compile(r"[\w.$\\]*(?:Error|Exception|Failure|Failed|Timeout|Warning)\b")
PLACE = re.compile(r"[^\s:]{1,300}\.\w{1,5}:\d{1,9}(?::\d{1,9})?(?::\s+|\n\s*)")  # GoogleTest's messages begin with it
HOOK = re.compile(r'"(?:before|after) (?:all|each)" hook(?=: | (?:for|in) ")')  # Mocha's, and the test it failed for
FRAMEWORK = re.compile(r"net(?:coreapp|standard)?\d[\w.-]*", re.I)  # a folder of .NET's output: net8.0, net48
THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3})+")


class Signature(NamedTuple):
    """What identifies the tool: its name, or else the root element and the attributes of the first suite and case."""

    root: str = ""
    top: Mapping[str, str] = {}
    suite: Mapping[str, str] = {}
    case: Mapping[str, str] = {}
    tool: str = ""  # of a report that is no XML

    def is_named(self, name: str) -> bool:
        """Return whether the report has this name."""
        return self.top.get("name") == name

    def has(self, *attributes: str) -> bool:
        """Tell whether the first test case has all these attributes."""
        return all(attribute in self.case for attribute in attributes)


NO_SIGNATURE = Signature()

CONTAINER_TEST = re.compile(r"(?:Command|File (?:Existence|Content)|Metadata|Licenses)(?: Test)?(?:: |$)")
# What the `time` of a case is multiplied with, for tools that do not write seconds into their JUnit report.
TIME_UNITS: Mapping[str, float] = {"container-structure-test": 1e-9}  # nanoseconds.xml
ROBOT_XUNIT = ("name", "tests", "errors", "failures", "skipped", "time", "timestamp")

# The first that holds is taken. Each is what the tool itself writes, as the samples in tests/data/junit show.
RULES: tuple[tuple[str, Callable[[Signature], bool]], ...] = (
    ("CppUnit", lambda s: s.root == "TestRun" and not s.top),
    ("TRX", lambda s: s.root == "TestRun"),
    ("Robot Framework output", lambda s: s.root == "robot"),
    ("xUnit.net", lambda s: s.root in ("assemblies", "assembly")),
    ("NUnit", lambda s: s.root in ("test-run", "test-results") or (s.root == "test-suite" and "type" in s.top)),
    ("Allure 1", lambda s: s.root == "test-suite"),
    ("CTest dashboard", lambda s: s.root == "Site"),
    ("Boost", lambda s: s.root in ("TestLog", "TestResult")),
    ("Qt", lambda s: s.root == "TestCase"),
    ("pytest", lambda s: s.is_named("pytest tests") or s.suite.get("name") == "pytest"),
    ("Jest", lambda s: s.is_named("jest tests")),
    ("Vitest", lambda s: s.is_named("vitest tests")),
    ("Bun", lambda s: s.is_named("bun test")),
    ("Deno", lambda s: s.is_named("deno test")),
    ("cargo-nextest", lambda s: s.is_named("nextest-run")),
    ("container-structure-test", lambda s: _is_container_test(s)),  # it is defined below
    (
        "Cypress",
        lambda s: s.is_named("Mocha Tests") and "cypress" in s.suite.get("file", "").replace("\\", "/").split("/"),
    ),
    ("Mocha", lambda s: s.is_named("Mocha Tests")),
    ("Playwright", lambda s: tuple(s.top)[:2] == ("id", "name") and "skipped" in s.top),
    ("Karma", lambda s: s.root == "testsuite" and s.suite.get("id") == "0" and "package" in s.suite),
    ("Node", lambda s: s.root == "testsuites" and not s.top and s.case.get("classname") == "test"),
    ("GoogleTest", lambda s: s.is_named("AllTests") or s.has("status", "result")),
    ("Catch2", lambda s: s.suite.get("hostname") == "tbd"),
    ("doctest", lambda s: "doctest_version" in s.suite),
    (
        "Bazel",
        lambda s: s.has("duration", "status") or (s.has("duration") and s.case["duration"] == s.case.get("time")),
    ),
    ("CTest", lambda s: s.has("status") and "disabled" in s.suite and s.case.get("name") == s.case.get("classname")),
    ("Behave", lambda s: s.has("status") and s.case.get("status", "").islower() and "hostname" in s.suite),
    ("Pester", lambda s: s.is_named("Pester")),
    ("minitest", lambda s: s.has("assertions") and s.case.get("file", "").endswith(".rb")),
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
    "testng-results": "TestNG; give its junitreports/*.xml",
    "failsafe-summary": "Failsafe's summary; give its TEST-*.xml",
    "result": "Jenkins' own junitResult.xml; give the files that its junit step read, or use `fedstep backfill`",
    "html": "a web page; give the report that it shows, as JUnit XML",
    "testExecutions": "SonarQube's generic format; give the JUnit report that it was made of",
    "Catch2TestRun": "Catch2's own format; use `-r junit`",
    "Catch": "Catch2's own format; use `-r junit`",
    "doctest": "doctest's own format; use `-r=junit`",
    "unittest-results": "UnitTest++'s own format; give a JUnit report",
    "stream": "TeamCity's or TestNG's; give the JUnit report",
    "coverage": "coverage, no tests",
    "report": "coverage, no tests",
    "CoverageSession": "coverage, no tests",
    "checkstyle": "Checkstyle, no tests",
    "pmd": "PMD, no tests",
    "BugCollection": "SpotBugs, no tests",
    "issues": "Android Lint, no tests",
}
# By the first bytes of a file that is neither XML nor JSON nor TAP.
ADVICE_BY_BYTES = (
    (b"version https://git-lfs", "a pointer of Git LFS; run `git lfs pull` before, or set `lfs: true` on the checkout"),
    (b"PK\3\4", "a zip archive; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first, or use gzip"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first, or use gzip"),
    (b"=== RUN", "the text of `go test -v`; use `go test -json`"),
    (b"ok  \t", "the text of `go test`; use `go test -json`"),
    (b"\xb3", "a stream of subunit; use `subunit2junitxml`"),
)


def identify_tool(signature: Signature) -> str:
    """Return the tool that wrote a report: "JUnit" where that cannot be told, "" for no report."""
    return signature.tool or next((name for name, rule in RULES if rule(signature)), "")


def advise_by_bytes(head: bytes) -> str:
    """Return what a file with this beginning is and what to give instead, where that is known."""
    return next((text for beginning, text in ADVICE_BY_BYTES if head.startswith(beginning)), "")


def advise(root: str) -> str:
    """Return what a file with this root element is and what to give instead, where that is known: "; it is ..."."""
    return f"; it is {ADVICE[root]}" if root in ADVICE else ""


def _cucumber_ruby(signature: Signature) -> bool:
    return tuple(signature.suite)[:4] == ("failures", "errors", "skipped", "tests")


def _is_container_test(signature: Signature) -> bool:
    is_named = CONTAINER_TEST.match(signature.case.get("name", ""))
    return signature.root == "testsuites" and tuple(signature.case) == ("name", "time") and is_named is not None


class CaseCollector:
    """Collect the test cases of one report, and what was wrong with them, in the order of the report.

    `root` is the folder below which paths become relative; `tokenizer` knows the line that is read.
    """

    def __init__(self, source: str, root: str, tokenizer: Tokenizer) -> None:
        self.source, self.root = source, root.replace("\\", "/").rstrip("/")
        self.count = 0  # cases, usable or not
        self.items: list[TestRun | Dropped] = []  # stays the same list: a reader may keep its `append`
        self._tokenizer = tokenizer
        self._repeated: Counter[tuple[str, bool]] = Counter()
        self._path = _path_pattern(self.root)
        self.folder = self.root.rpartition("/")[2]  # found in a name faster than a path in either notation

    def take(self) -> list[TestRun | Dropped]:
        """Return what was collected since the last call."""
        items = self.items.copy()
        self.items.clear()
        return items

    def add(
        self,
        group: str,
        name: str,
        outcome: Outcome,
        seconds: float = NO_SECONDS,
        failure_type: str | None = None,
        file: str = "",
        line: int = 0,
        *,
        suite: str = "",
        variant: str = "",
        attempt: int = 0,
        text: str = "",
    ) -> None:
        """Add one case.

        Args:
            group: The class, or the file of a test without one.
            name: The name of the test in its class.
            outcome: The outcome of this case.
            seconds: A time outside 0 to MAX_SECONDS is noted, and the case counts without one.
            failure_type: The exception of a failed test; by default that in its text, else the first word there.
            file: The source file.
            line: From 1, 0 where unknown.
            suite: The suite or file that holds the case, where that is not `group`.
            variant: The browser, project or build variant, without its version: it is a part of the test's identity.
            attempt: Which attempt at the test this is, from 1, where the report numbers attempts: cases of one test
                with different numbers are attempts at it.
            text: The text of a failure, with its stack where the report has one; of a failed test alone.
        """
        self.count += 1
        if outcome in (Outcome.PASSED, Outcome.SKIPPED):
            failure_type = text = ""
        if not name and not group:
            self.drop(NAMELESS)
            if outcome in (Outcome.PASSED, Outcome.SKIPPED):
                return
            group, name = suite, UNNAMED
        name = self._path.sub(_below_root, name) if self.root else name
        name = name_of_hook(name) if failure_type != "" or text else name
        group = relative_path(group, self.root)
        test = make_identity(f"{group}#[{variant}] {name}" if variant else f"{group}#{name}")
        relative = relative_path(file, self.root)[:MAX_NAME]
        suite = relative_path(suite, self.root)[:MAX_NAME]
        seconds = self.valid_seconds(seconds)
        word = (failure_word(text) if failure_type is None else failure_type)[:MAX_TYPE]
        failure = read_failure(test, word, "", text) if text else FailureText()
        self.items.append(TestRun(test, outcome, seconds, word, relative, line, suite, max(0, attempt), *failure))

    def outcome_of(self, word: str, outcomes: Mapping[str, Outcome], what: str) -> Outcome | None:
        """Return what a tool's word for the outcome of a case means; None for an unknown one, which is noted.

        Args:
            word: As the report has it.
            outcomes: The words that the tool has.
            what: The case and where the word stands: "a test with the status".
        """
        if word not in outcomes:
            self.drop(f"{what} {word[:40]!r}")
        return outcomes.get(word)

    def valid_seconds(self, seconds: float) -> float:
        """Return the seconds, NO_SECONDS for what is no duration of a test; that is noted."""
        if 0 <= seconds <= MAX_SECONDS or seconds != seconds:
            return seconds
        self.note(explain_time(f"{seconds:g}"), kept=True)
        return NO_SECONDS

    def drop(self, reason: str) -> None:
        """Note a case that cannot be used, at this place of the file."""
        self.note(reason, kept=False)

    def note(self, reason: str, kept: bool) -> None:
        """Note what is wrong at this place of the file; `kept`: the case is used all the same."""
        self._repeated[reason, kept] += 1
        if self._repeated[reason, kept] <= MAX_REPEATED:
            self.items.append(Dropped(f"{self.source}:{self._tokenizer.line}", reason, kept))

    def repeated_notes(self) -> list[Dropped]:
        """Return one Dropped for each reason that came too often to be noted case by case."""
        more = ((reason, kept, count - MAX_REPEATED) for (reason, kept), count in self._repeated.items())
        return [Dropped(f"{self.source}:*", f"{n} more: {reason}", kept) for reason, kept, n in more if n > 0]

    def identify(self, prefix: str, name: str) -> str:
        """Return the identity of the test `name` of a class: on one line, short, without paths of this machine."""
        if self.folder and self.folder in name:
            name = self._path.sub(_below_root, name)
        return make_identity(prefix + name)


def parse_seconds(text: str, unit: float = 1.0) -> float:
    """Return the seconds that `text` means in any locale, as `1,234.5`, `1.234,5`, `0,5` or `12 ms`; NaN for none.

    A number without a unit is multiplied with `unit`. A time above MAX_SECONDS is none.
    A single comma is decimal: Surefire wrote `0,005` in some locales, and thousands always with decimals.
    """
    try:  # not by _parse_number: the call would take 3 % of the time of reading a report
        value = float(text) * unit
    except ValueError:
        value = _parse_localized(text) * unit
    return value if 0 <= value <= MAX_SECONDS else NO_SECONDS


def explain_time(text: str) -> str:
    """Return why `text` is no duration of a test; a number of which that is guessed is named as such."""
    is_long = MAX_SECONDS < _parse_number(text) < inf
    reason = "is longer than 7 days, probably milliseconds or nanoseconds" if is_long else "is not a duration"
    return f"time {text[:40]!r} {reason}"


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _parse_localized(text)


def _parse_localized(text: str) -> float:
    compact = re.sub(r"[\s'’_]", "", text[:60].lower()).replace("\u066b", ".").replace("\u066c", ",").replace("µ", "u")
    time = TIME.fullmatch(compact)
    if not time or time[2] not in UNITS:
        return NO_SECONDS
    digits = time[1]
    decimal_mark = max(".,", key=digits.rfind)
    digits = digits.replace("," if decimal_mark == "." else ".", "")
    if digits.count(decimal_mark) > 1:  # it separates thousands
        return float(digits.replace(decimal_mark, "")) if THOUSANDS.fullmatch(time[1]) else NO_SECONDS
    return float(digits.replace(decimal_mark, ".")) * UNITS[time[2]]


def failure_word(message: str) -> str:
    r"""Return the exception in the beginning of `message`, else its first word, at most 100 characters.

    >>> failure_word('failed on setup with "TypeError: no"'), failure_word("cart.cpp:3\nExpected equality")
    ('TypeError', 'Expected')
    """
    message = COLOUR.sub("", message[:MAX_TEXT]).lstrip()
    if match := PLACE.match(message):
        message = message[match.end() :]
    exception = EXCEPTION.search(message)
    return (exception[0] if exception else next(iter(message.split()), "").rstrip(":,"))[:MAX_TYPE]


def name_of_hook(name: str) -> str:
    """Return the name of a failed hook of Mocha without the test that it failed for, which differs from run to run.

    >>> name_of_hook('cart "before each" hook for "adds"'), name_of_hook("cart adds")
    ('cart "before each" hook', 'cart adds')
    """
    ends = [match.end() for match in HOOK.finditer(name)]
    return name[: ends[-1]] if ends and (name.startswith(":", ends[-1]) or name.endswith('"')) else name


def relative_path(path: str, root: str) -> str:
    r"""Return `path` with "/" as separator, and relative to `root` where it is below it.

    >>> relative_path(r"D:\a\repo\src\x.py", "d:/a/repo")
    'src/x.py'
    """
    path = path.replace("\\", "/")
    path = re.sub("^file:///?(?=[A-Za-z]:|/)", "", path)
    if root and (path.startswith(f"{root}/") or (root[1:2] == ":" and path.lower().startswith(f"{root}/".lower()))):
        path = path[len(root) + 1 :]
    return path.removeprefix("./")


def assembly_of(path: str) -> str:
    r"""Return the file name of a .NET assembly, with the framework that it was built for where its path has it.

    >>> assembly_of(r"C:\shop\bin\Debug\net8.0\Shop.Tests.dll")
    'Shop.Tests.dll (net8.0)'
    """
    *folders, name = re.split(r"[\\/]", path)
    framework = next((folder for folder in reversed(folders) if FRAMEWORK.fullmatch(folder)), "")
    return f"{name} ({framework})" if framework else name


def _path_pattern(root: str) -> re.Pattern[str]:
    """Return a pattern for a path below `root` in a text, in either notation of folders."""
    folders = r"[\\/]".join(map(re.escape, root.split("/")))
    return re.compile(rf"(?<![\w/.\\-]){folders}[\\/]([\w.\\/@+-]*)", re.I if root[1:2] == ":" else 0)


def _below_root(path: re.Match[str]) -> str:
    """Return what is left of a path that `_path_pattern` matched, with "/" as separator."""
    return path[1].replace("\\", "/")


def parse_integer(text: str) -> int:
    """Return the number that `text` is, of at most 9 digits; 0 where it is none."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0
