"""The printed selectors, run by the real runners: each must run exactly the tests that failed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedstep import read_junit
from fedstep.report.rerun import selection
from fedstep.results import FailureVerdict
from fedstep.types import Outcome
from tests.helpers.jenkins import JAVA_HOME

pytestmark = [pytest.mark.full, pytest.mark.slow]
PACKAGES = ("jest@29", "jest-junit@16", "vitest@4", "mocha@11", "mocha-junit-reporter@2")
CART = """
test('top', () => { expect(1).toBe(2) });
test('  padded  name ', () => { expect(1).toBe(2) });
test('two\\nlines', () => { expect(1).toBe(2) });
test('tab\\there', () => { expect(1).toBe(2) });
test('caf\u00e9 \u2192 \U0001f600', () => { expect(1).toBe(2) });
test('50% of $HOME `x` "q" \\'s\\' \\\\ [a|b]', () => { expect(1).toBe(2) });
test('#1 issue', () => { expect(1).toBe(2) });
test('a # b', () => { expect(1).toBe(2) });
describe('cart', () => {
  test('pays', () => { expect(1).toBe(2) });
  test('pays twice', () => { expect(1).toBe(1) });
  test('does not pay', () => { expect(1).toBe(1) });
  describe('deep', () => {
    test('pays > less', () => { expect(1).toBe(2) });
    test('asks', () => { expect(1).toBe(1) });
    test.each([1, 2])('each %i', (n) => expect(n).toBe(1));
    test.each([['a b', 'c'], ['d', 'e']])('pair %s-%s', (a) => expect(a).toBe('d'));
  });
});
describe('', () => { test('nameless describe', () => expect(1).toBe(2)) });
describe('A.B::c', () => { test('x/y', () => expect(1).toBe(2)); test('x', () => {}) });
"""
FAILURES = 14  # of CART
MOCHA = """
const assert = require('assert');
const expect = (one) => ({ toBe: (other) => assert.equal(one, other) });
const test = Object.assign(it, { each: (rows) => (title, body) => rows.forEach((row) => it(
  [].concat(row).reduce((text, value) => text.replace(/%[is]/, value), title), () => body(...[].concat(row)))) });
"""
GO = {
    "go.mod": "module example.org/shop\ngo 1.19\n",
    "cart/cart_test.go": """package cart
import "testing"
func fails(t *testing.T) { t.Fatal("x") }
func passes(t *testing.T) {}
func TestPay(t *testing.T) { t.Fatal("x") }
func TestAsk(t *testing.T) {}
func TestSub(t *testing.T) {
	t.Run("a b", fails)
	t.Run("a", passes)
	t.Run("x/y", fails)
	t.Run("x/z", passes)
	t.Run("", fails)
	t.Run("same", passes)
	t.Run("same", fails)
	t.Run("caf\u00e9 $HOME 'q' [1]|(2)", fails)
	t.Run("ends/", fails)
	t.Run("deep", func(t *testing.T) {
		t.Run("one", fails)
		t.Run("two", passes)
		t.Run("three", func(t *testing.T) { t.Run("four", fails); t.Run("five", passes) })
	})
}
""",
    "bank/bank_test.go": """package bank
import "testing"
func TestPay(t *testing.T) {}
func TestSub(t *testing.T) { t.Run("a b", func(t *testing.T) {}) }
func TestAsk(t *testing.T) { t.Fatal("x") }
""",
}


def arguments(runner: str, failures: list[FailureVerdict], folder: Path) -> list[str]:
    """Return the printed lines, with paths resolved in the folder."""
    return list(selection(runner, failures, lambda path: (folder / path).exists()).lines)


def failures_of(report: Path) -> list[FailureVerdict]:
    """Return the failures of a report as the rerun list gets them."""
    runs = (run for run in read_junit(report) if run.outcome is Outcome.FAILED)
    return [FailureVerdict(run.test, 0.9, verdict="flaky", file=run.file) for run in runs]


def run_lines(lines: list[str], command: str, folder: Path) -> str:
    """Return the output of `xargs -r -L1 command` on the lines."""
    text = "".join(f"{line}\n" for line in lines)
    ran = subprocess.run(
        f"xargs -r -L1 {command}", shell=True, cwd=folder, input=text, capture_output=True, text=True, timeout=120
    )
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runners from the npm registry and their tests."""
    folder = tmp_path_factory.mktemp("javascript")
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: the selectors of jest, vitest and mocha are not run by the real runners")
    (folder / "package.json").write_text(json.dumps({"name": "selectors", "private": True}))
    npm = ("npm", "install", "--no-fund", "--no-audit", "--no-save", *PACKAGES)
    installed = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"npm installs nothing, so jest, vitest and mocha are not run: {installed.stderr[-300:]}")
    (folder / "src").mkdir()
    (folder / "src" / "cart.test.js").write_text(CART)
    (folder / "src" / "bank.test.js").write_text("describe('bank', () => { test('pays', () => {}); });")
    return folder


class TestJavascript:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"JEST_JUNIT_ANCESTOR_SEPARATOR": " › "},
            {"JEST_JUNIT_ANCESTOR_SEPARATOR": "."},
            {"JEST_JUNIT_ANCESTOR_SEPARATOR": "::", "JEST_JUNIT_ADD_FILE_ATTRIBUTE": "true"},
            {"JEST_JUNIT_CLASSNAME": "{filepath}", "JEST_JUNIT_TITLE": "{title}"},
            {
                "JEST_JUNIT_CLASSNAME": "{classname}",
                "JEST_JUNIT_TITLE": "{title}",
                "JEST_USE_PATH_FOR_SUITE_NAME": "true",
            },
            {"JEST_JUNIT_CLASSNAME": "{classname}-{title}", "JEST_JUNIT_TITLE": "{classname}-{title}"},
            {
                "JEST_JUNIT_CLASSNAME": "{suitename}.{classname}",
                "JEST_JUNIT_TITLE": "{title}",
                "JEST_JUNIT_ANCESTOR_SEPARATOR": "--",
            },
        ],
    )
    def test_jest_runs_the_failures(self, javascript: Path, settings: dict[str, str]) -> None:
        """All failures of the cart run again, whatever the settings of jest-junit; the passing ones do not."""
        report = javascript / "junit.xml"
        report.unlink(missing_ok=True)
        command = ("npx", "jest", "--ci", "src", "--reporters=jest-junit")
        subprocess.run(command, cwd=javascript, env={**os.environ, **settings}, capture_output=True, timeout=120)
        output = run_lines(arguments("jest", failures_of(report), javascript), "npx jest --ci", javascript)
        totals = re.search(r"Tests: +(.*)", output)
        assert totals is not None, output
        assert f"{FAILURES} failed" in totals[1]
        assert "passed" not in totals[1]

    def test_vitest_runs_the_failures(self, javascript: Path) -> None:
        command = ("npx", "vitest", "run", "--globals", "--reporter=junit", "--outputFile=vitest.xml", "src")
        subprocess.run(command, cwd=javascript, capture_output=True, timeout=120)
        lines = arguments("vitest", failures_of(javascript / "vitest.xml"), javascript)
        output = run_lines(lines, "npx vitest run --globals --reporter=json", javascript)
        totals = json.loads(output[output.index("{") : output.rindex("}") + 1])
        assert (totals["numFailedTests"], totals["numPassedTests"]) == (FAILURES, 0)

    @pytest.mark.parametrize(
        "reporter",
        [
            ("xunit",),
            ("mocha-junit-reporter",),
            ("mocha-junit-reporter", "testCaseSwitchClassnameAndName=true"),
            ("mocha-junit-reporter", "jenkinsMode=true,jenkinsClassnamePrefix=web"),
        ],
    )
    def test_mocha_runs_the_failures(self, javascript: Path, reporter: tuple[str, ...]) -> None:
        (javascript / "mocha.js").write_text(MOCHA + CART)
        options = ",".join(("mochaFile=mocha.xml,output=mocha.xml", *reporter[1:]))
        command = ("npx", "mocha", "--reporter", reporter[0], "--reporter-options", options, "mocha.js")
        subprocess.run(command, cwd=javascript, capture_output=True, timeout=120)
        lines = arguments("mocha", failures_of(javascript / "mocha.xml"), javascript)
        output = run_lines(lines, "npx mocha --spec mocha.js", javascript)
        assert re.findall(r"(\d+) (?:passing|failing)", output) == ["0", str(FAILURES)]


POM = """
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>org.example</groupId><artifactId>shop</artifactId><version>1</version>
<properties><maven.compiler.source>11</maven.compiler.source><maven.compiler.target>11</maven.compiler.target>
<project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
<dependencies>%s</dependencies><build><plugins><plugin><groupId>org.apache.maven.plugins</groupId>
<artifactId>maven-surefire-plugin</artifactId><version>2.22.3</version></plugin></plugins></build></project>
"""
JAVA = {
    "CartTest": """package shop; import org.junit.*; import static org.junit.Assert.*;
public class CartTest { @Test public void pays() { fail("x"); } @Test public void paysTwice() { } }""",
    "BankTest": """package shop; import java.util.*; import org.junit.*; import org.junit.runner.*;
import org.junit.runners.*; import static org.junit.Assert.*;
@RunWith(Parameterized.class) public class BankTest {
  @Parameterized.Parameters(name = "{0} of b") public static Collection<Object[]> all() {
    return Arrays.asList(new Object[][] {{1}, {2}}); }
  int number; public BankTest(int number) { this.number = number; }
  @Test public void asks() { assertEquals(1, number); } @Test public void asksMore() { } }""",
}
JUPITER = """package shop; import org.junit.jupiter.api.*; import org.junit.jupiter.params.*;
import org.junit.jupiter.params.provider.*; import static org.junit.jupiter.api.Assertions.*;
public class CartTest { @Test void pays() { fail("x"); } @Test void paysTwice() { }
  @ParameterizedTest(name = "{index} of {0}") @ValueSource(strings = {"a b", "c"})
  void asks(String n) { assertEquals("c", n); }
  @Test @DisplayName("a nice name") void shows() { fail("x"); }
  @Nested class Inner { @Test void deep() { fail("x"); } @Test void fine() { } } }"""
TESTNG = """package shop; import org.testng.annotations.*; import static org.testng.Assert.*;
public class CartTest { @Test public void pays() { fail("x"); } @Test public void paysTwice() { }
  @DataProvider public Object[][] all() { return new Object[][] {{1, "a b"}, {2, "c"}}; }
  @Test(dataProvider = "all") public void asks(int n, String s) { assertEquals(n, 1); } }"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
REPOSITORY = Path("/usr/share/maven-repo")
DEBIAN_MAVEN = "mvn -o -q -s /etc/maven/settings-debian.xml -Dmaven.repo.local=/usr/share/maven-repo test"


def rerun_by_maven(
    folder: Path, needs: tuple[tuple[str, str, str], ...], sources: dict[str, str]
) -> tuple[set[str], ...]:
    """Return the tests that fail under Surefire, and those that its second start with the selector runs."""
    for group, artifact, version in (*needs, ("org.apache.maven.plugins", "maven-surefire-plugin", "2.22.3")):
        if not (REPOSITORY / group.replace(".", "/") / artifact / version).is_dir():
            pytest.skip(
                f"NOT RUN: Debian's {artifact} {version} is missing: apt-get install maven-debian-helper junit5 testng"
            )
    (folder / "pom.xml").write_text(POM % "".join(DEPENDENCY.format(*one) for one in needs))
    java = folder / "src/test/java/shop"
    java.mkdir(parents=True)
    for name, text in sources.items():
        (java / f"{name}.java").write_text(text)
    reports = folder / "target/surefire-reports"
    subprocess.run(DEBIAN_MAVEN.split(), cwd=folder, capture_output=True, timeout=300)
    failures = [each for report in reports.glob("TEST-*.xml") for each in failures_of(report)]
    shutil.rmtree(reports)
    run_lines(arguments("maven", failures, folder), DEBIAN_MAVEN, folder)
    ran = {run.test for report in reports.glob("TEST-*.xml") for run in read_junit(report)}
    return {failure.test for failure in failures}, ran


class TestMaven:
    def test_surefire_runs_the_failures(self, tmp_path: Path) -> None:
        """One instance of a parametrized test runs, and no method whose name only begins alike."""
        failed, ran = rerun_by_maven(tmp_path, (("junit", "junit", "4.x"),), JAVA)
        assert len(failed) == 2
        assert ran == failed

    def test_of_the_junit_platform_all_instances_run(self, tmp_path: Path) -> None:
        """Nested classes and display names are found; no method beside the failed ones runs."""
        needs = tuple(("org.junit.jupiter", f"junit-jupiter-{part}", "5.9.2") for part in ("params", "engine"))
        failed, ran = rerun_by_maven(tmp_path, needs, {"CartTest": JUPITER})
        assert len(failed) == 4
        assert ran == failed | {"shop.CartTest#asks{String}[2]"}

    def test_testng_runs_the_failures(self, tmp_path: Path) -> None:
        failed, ran = rerun_by_maven(tmp_path, (("org.testng", "testng", "6.x"),), {"CartTest": TESTNG})
        assert failed == ran == {"shop.CartTest#pays", "shop.CartTest#asks"}


GRADLE_BUILD = """
apply plugin: 'java'
dependencies { testCompile files('/usr/share/java/junit4.jar', '/usr/share/java/hamcrest-core.jar') }
"""


class TestGradle:
    def test_gradle_runs_the_failures(self, tmp_path: Path) -> None:
        """One instance of a parametrized test runs, and no method whose name only begins alike."""
        if not (shutil.which("gradle") and Path("/usr/share/java/junit4.jar").exists()):
            pytest.skip("Debian's gradle and junit4 are missing: the selector of Gradle is not run")
        (tmp_path / "build.gradle").write_text(GRADLE_BUILD)
        (tmp_path / "settings.gradle").write_text("rootProject.name = 'shop'")
        sources = tmp_path / "src/test/java/shop"
        sources.mkdir(parents=True)
        for name, text in JAVA.items():
            (sources / f"{name}.java").write_text(text)
        reports = tmp_path / "build/test-results/test"
        gradle = f"gradle --offline --no-daemon -g {tmp_path / 'home'} test"
        env = {**os.environ, "JAVA_HOME": JAVA_HOME}
        subprocess.run(gradle.split(), cwd=tmp_path, env=env, capture_output=True, timeout=300)
        failures = [each for report in reports.glob("*.xml") for each in failures_of(report)]
        assert len(failures) == 2
        shutil.rmtree(reports)
        run_lines(arguments("gradle", failures, tmp_path), f"env JAVA_HOME={JAVA_HOME} {gradle}", tmp_path)
        names = sorted(run.test for report in reports.glob("*.xml") for run in read_junit(report))
        assert names == sorted(failure.test for failure in failures)


class TestPytest:
    def test_pytest_runs_the_failures(self, tmp_path: Path) -> None:
        """Ids of parameters have blanks, brackets, quotes, colons and letters of any language."""
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests/test_cart.py").write_text(
            "import pytest\n"
            "ids = ['a b', '[x]', 'a::b', \"it's\", 'caf\u00e9', '-x', '@y', 'a/b', '$HOME']\n"
            "@pytest.mark.parametrize('value', ids)\n"
            "def test_pays(value):\n    assert value == 'a/b'\n"
            "class TestBank:\n    class TestInner:\n        def test_asks(self):\n            assert 0\n"
        )
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        subprocess.run((*command, "--junit-xml=report.xml"), cwd=tmp_path, env=env, capture_output=True, timeout=120)
        failures = failures_of(tmp_path / "report.xml")
        assert len(failures) == 9
        lines = arguments("pytest", failures, tmp_path)
        output = run_lines(lines, f"env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {' '.join(command)}", tmp_path)
        assert "9 failed" in output
        assert "passed" not in output


class TestGo:
    def test_go_runs_the_failures(self, tmp_path: Path) -> None:
        """Neither the test of the same name in another package nor a sibling of a subtest runs, at any depth."""
        if not shutil.which("go"):
            pytest.skip("go is not installed: its selectors are not run by the real runner")
        for name, text in GO.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        command = ("go", "test", "-json", "./...")
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        (tmp_path / "report.json").write_text(ran.stdout)
        failures = failures_of(tmp_path / "report.json")
        assert len(failures) == 13
        output = run_lines(arguments("go", failures, tmp_path), "go test -json", tmp_path)
        events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        ended = [event for event in events if event["Action"] in ("pass", "fail") and "Test" in event]
        assert {event["Action"] for event in ended} == {"fail"}
        assert sorted({f"{event['Package']}#{event['Test']}" for event in ended}) == sorted(f.test for f in failures)
