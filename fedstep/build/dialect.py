"""Which tool wrote a report, guessed from its first elements; and what to do with files of other tools."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["NO_SIGNATURE", "Signature", "advice", "dialect"]


class Signature(NamedTuple):
    """The root element's name, and the attributes of the root, the first suite and the first test case."""

    root: str = ""
    top: Mapping[str, str] = {}
    suite: Mapping[str, str] = {}
    case: Mapping[str, str] = {}

    def named(self, name: str) -> bool:
        """Whether the report has this name."""
        return self.top.get("name") == name

    def has(self, *attributes: str) -> bool:
        """Whether the first test case has all these attributes."""
        return all(attribute in self.case for attribute in attributes)


NO_SIGNATURE = Signature()

ROBOT_XUNIT = ("name", "tests", "errors", "failures", "skipped", "time", "timestamp")

# The first that holds. Each is what the tool itself writes, as the samples in tests/data/junit show.
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
OTHERS = {
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


def dialect(signature: Signature) -> str:
    """The tool that wrote a report with this signature; "JUnit" where that cannot be told, "" for no report."""
    return next((name for name, rule in RULES if rule(signature)), "")


def advice(root: str) -> str:
    """What a file with this root element is and what to give instead, where we know it: "; it is ..."."""
    return f"; it is {OTHERS[root]}" if root in OTHERS else ""


def _cucumber_ruby(signature: Signature) -> bool:
    return tuple(signature.suite)[:4] == ("failures", "errors", "skipped", "tests")
