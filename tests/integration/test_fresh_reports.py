"""Reports that a runner has just written have the totals that it prints; a runner that is not installed is named."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


def _run(folder: Path, *command: str) -> str:
    """Run a runner, whose tests fail, and return all that it writes."""
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return ran.stdout + ran.stderr


def _number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _read(path: Path) -> Totals:
    with path.open("rb") as stream:
        runs = [item for item in iter_cases(stream, path.name, str(path.parent)) if isinstance(item, TestRun)]
    outcomes = [run.outcome for run in runs]
    return outcomes.count(Outcome.PASSED), outcomes.count(Outcome.FAILED), outcomes.count(Outcome.SKIPPED)


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


RUNNERS: dict[str, Callable[[Path], tuple[Path, Totals]]] = {
    "pytest": _pytest,
    "unittest-xml-reporting": _unittest,
    "node, JUnit": lambda folder: _node(folder, "junit", "report.xml"),
    "node, TAP": lambda folder: _node(folder, "tap", "report.tap"),
    "go test -json": _go,
    "RSpec": _rspec,
    "Test::More": _perl,
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
