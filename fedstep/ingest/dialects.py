"""The dialects of test reports: which tool wrote a report, and what a file is that is no report.

`xml_reports`, `json_reports` and `line_reports` have the readers of those that are no JUnit.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Signature(NamedTuple):
    """What identifies the tool: its name, or else the root element and the attributes of the first suite and case."""

    root: str = ""
    top: Mapping[str, str] = {}
    suite: Mapping[str, str] = {}
    case: Mapping[str, str] = {}
    tool: str = ""  # of a report that is no XML

    def named(self, name: str) -> bool:
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
    ("pytest", lambda s: s.named("pytest tests") or s.suite.get("name") == "pytest"),
    ("Jest", lambda s: s.named("jest tests")),
    ("Vitest", lambda s: s.named("vitest tests")),
    ("Bun", lambda s: s.named("bun test")),
    ("Deno", lambda s: s.named("deno test")),
    ("cargo-nextest", lambda s: s.named("nextest-run")),
    ("container-structure-test", lambda s: _is_container_test(s)),  # it is defined below
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
