"""What each tool's report means beyond its counts: names that stay, attempts that meet, files that are copies."""

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.cases import RULES
from fedstep.ingest.change_impact import count_tests
from fedstep.ingest.jenkins_compat import JenkinsCount, JenkinsCounter
from fedstep.ingest.json_reports import DIALECTS, MAX_JSON_BYTES
from fedstep.ingest.junit import Document, FileReading, read_reports, summarize
from fedstep.ingest.line_reports import LINE_DIALECTS
from fedstep.ingest.xml import read_blocks
from fedstep.types import Dropped, Outcome, Reports, TestRun, Unavailable
from tests.helpers.narrow import expect

FOLDER = Path(__file__).parents[2] / "data" / "junit"
ROOT = "/home/ada/shop"


def _file(name: str):
    return name, lambda: (FOLDER / name).open("rb")


def _text(name: str, text: str):
    return name, lambda: io.BytesIO(text.encode())


def read(*names: str, root: str = ROOT) -> Reports:
    return read_reports([_file(name) for name in names], root)


def outcomes(*names: str) -> dict[str, str]:
    return {run.test: run.outcome for run in read(*names).tests}


def counted(text: str) -> JenkinsCount | Unavailable:
    return JenkinsCounter().count("r.xml", lambda: [text.encode()])


class TestAttempts:
    def test_playwrights_projects_are_tests_of_their_own(self):
        tests = outcomes("playwright-projects.xml")
        assert tests["cart.pw.spec.js#[a] cart › rounds"] == Outcome.CONFIRMED
        assert tests["cart.pw.spec.js#[b] cart › rounds"] == Outcome.CONFIRMED

    def test_what_an_attempt_of_playwright_left_tells_of_it(self):
        """Without `includeRetries` a flake looks passed, but for that; what `test.fail()` expects leaves it, too."""
        tests = outcomes("playwright-projects.xml")
        assert tests["cart.pw.spec.js#[a] cart › flips"] == Outcome.FLAKED
        assert tests["cart.pw.spec.js#[a] cart › is known to fail"] == Outcome.PASSED

    def test_one_failed_attempt_of_playwright_is_not_confirmed(self):
        """It leaves the same as an attempt before a passed one."""
        text = (FOLDER / "playwright-projects.xml").read_text(encoding="utf-8")
        once = re.sub(r"\[\[ATTACHMENT\|[^\n]*-retry1/[^\n]*\n", "", text)
        (run,) = [
            run for run in read_reports([_text("r.xml", once)], ROOT).tests if run.test.endswith("[a] cart › rounds")
        ]
        assert run.outcome == Outcome.FAILED

    def test_playwrights_retries_are_attempts(self):
        tests = outcomes("playwright-retries.xml")
        assert tests["cart.pw.spec.js#[a] cart › rounds"] == Outcome.CONFIRMED
        assert tests["cart.pw.spec.js#[a] cart › flips"] == Outcome.FLAKED

    def test_bazels_attempts_in_two_files_are_one_flake(self):
        assert outcomes("bazel.xml", "bazel-attempt-2.xml") == {"shop/cart_test#shop/cart_test": Outcome.FLAKED}

    @pytest.mark.parametrize(
        "names", [("ant.xml", "ant-broken-class.xml", "ant-merged.xml"), ("robot-xunit.xml", "robot-output.xml")]
    )
    def test_a_second_file_that_repeats_the_first_confirms_nothing(self, names):
        assert outcomes(*names) == outcomes(*names[:-1]) == outcomes(*reversed(names))

    def test_a_copy_adds_the_file_and_line_that_the_first_lacks(self):
        runs = {run.test: run for run in read("robot-xunit.xml", "robot-output.xml").tests}
        assert (runs["Shop.Cart#Empties"].file, runs["Shop.Cart#Empties"].line) == ("cart.robot", 2)


class TestTools:
    def test_trx_classes_come_from_definitions_else_from_names(self):
        """TRX results have their classes from the definitions, else from their names."""
        runs = {run.test: run for run in read("dotnet.trx").tests}
        assert list(runs) == [
            "Shop.CartTests#Adds",
            "Shop.CartTests#Rounds",
            "Shop.CartTests#Ships",
            "Shop.CartTests#Prices (1,2)",
            "Shop.CartTests#Prices (2,3)",
            'Shop.StockTests#Counts(unit: "a.b")',
            "Shop.StockTests#Waits",
        ]
        assert runs["Shop.CartTests#Rounds"].failure_type == "System.DivideByZeroException"
        assert runs['Shop.StockTests#Counts(unit: "a.b")'].seconds == 86_400.5

    def test_a_trx_file_that_is_cut_keeps_the_results_before(self):
        whole = (FOLDER / "dotnet.trx").read_text(encoding="utf-8")
        reports = read_reports([_text("t.trx", whole[: whole.index('executionId="e7"')])])
        assert [run.test for run in reports.tests] == [
            "Shop.CartTests#Adds", "#Rounds", "#Ships", "#Prices (1,2)", "#Prices (2,3)"
        ]  # fmt: skip
        assert [item.reason for item in reports.dropped] == ["the file ends too early; the cases before are kept"]

    def test_xcode_repetitions_are_attempts_on_one_device_too(self):
        runs = {run.test: run for run in read("xcresult.json").tests}
        assert runs["ShopTests.CartTests#testFlips"].outcome == Outcome.FLAKED
        assert runs["ShopTests.CartTests#testBreaks"].outcome == Outcome.CONFIRMED
        assert runs["ShopTests.CartTests#testRounds"].failure_type == "XCTAssertEqual"
        assert {"ShopTests.Prices#Positive prices(1)", "ShopTests.Prices#Positive prices(-1)"} <= set(runs)

    def test_robot_3_tells_start_and_end_instead_of_seconds(self):
        status = 'status="FAIL" starttime="20260105 09:00:00.000" endtime="20260105 09:00:01.250"'
        text = (
            '<robot><suite id="s1" name="Shop"><test name="Adds"><kw><status status="PASS"/></kw><status '
            f"{status}/></test>"
        )
        (run,) = read_reports([_text("o.xml", text + "</suite></robot>")]).tests
        assert (run.test, run.outcome, run.seconds) == ("Shop#Adds", Outcome.FAILED, 1.25)

    def test_names_lose_the_root_in_the_notation_of_either_system(self):
        windows = r"<testcase classname='c' name='reads D:\a\shop\data\x.txt and d:/A/Shop/y, not D:\a\shopping\z'/>"
        (run,) = read_reports([_text("r.xml", windows)], r"D:\a\shop").tests
        assert run.test == r"c#reads data/x.txt and y, not D:\a\shopping\z"

    def test_a_suite_that_could_not_start_is_one_failed_test(self):
        assert outcomes("suite-error.xml") == {"shop.StockTest#<init>": "f", "shop.CartTest#adds": "p"}


class TestRefusals:
    @pytest.mark.parametrize(("name", "says"), [("coverage.xml", "no tests"), ("failsafe-summary.xml", "TEST-*.xml")])
    def test_a_refusal_says_what_to_give_instead(self, name, says):
        assert says in read(name).dropped[0].reason

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"{" + b'"testNodes": [' * 200_000, "not JSON"),
            (b'{"testNodes": ' + b"[" * 200_000, "not JSON"),
            (b'{"testNodes": {}}', "JSON, but not"),
            (b'{"testNodes": [' + b" " * MAX_JSON_BYTES + b"]}", "JSON of more than 32 MB"),
            (b'\xef\xbb\xbf\n {"a": 1}', "JSON, but not"),
        ],
    )
    def test_json_that_is_deep_large_or_of_another_kind_is_refused(self, content, reason):
        reports = read_reports([("x.json", lambda: io.BytesIO(content))])
        assert (reports.tests, reports.files) == ((), 0)
        assert reports.dropped[0].reason.startswith(reason)


nodes = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {"nodeType": st.sampled_from(["Test Case", "Repetition", "Device", "Arguments", "Unit test bundle", "x"])},
            optional={
                "children": st.lists(inner, max_size=3),
                "name": inner,
                "result": st.sampled_from(["Passed", "Failed", "unknown"]) | inner,
                "durationInSeconds": st.floats() | st.booleans() | inner,
                "nodeIdentifier": st.text(max_size=5) | inner,
            },
        )
    ),
    max_leaves=20,
)


FRAGMENTS = [
    "<TestRun>", "<robot>", "<Results>", "<UnitTestResult testName='A.B' testId='1' outcome='Passed'>",
    "</UnitTestResult>", "<InnerResults>", "</InnerResults>", "<ErrorInfo>", "<Message>a", "</Message>",
    "<UnitTest id='1'>", "<TestMethod/>",
    "<TestMethod className='A'/>", "</TestRun>", "<suite id='s' name='S'>", "<suite name='no id'>", "</suite>",
    "</test>",
    "<test id='t' name='T' line='x'>", "<status status='PASS' elapsed='-1'/>", "<status status='FAIL' starttime='x'>",
    "</status>", "</robot>", "<kw>", "</kw>", "<testcase name='n'/>", "{", "\x01",
]  # fmt: skip


class TestAnyInput:
    @given(nodes)
    def test_any_tree_of_nodes_gives_runs_and_notes_and_never_raises(self, node):
        content = json.dumps({"testNodes": [node]}).encode()
        reports = read_reports([("x.json", lambda: io.BytesIO(content))])
        assert reports.files == 1
        assert all(run.test for run in reports.tests)

    @pytest.mark.slow
    @pytest.mark.parametrize("root", [b"<TestRun>", b"<robot>", b"<robot><test name='t'>", b"<testsuite>"])
    def test_deep_nesting_stops_in_every_format(self, root):
        (reading,) = summarize([("r.xml", lambda: io.BytesIO(root + b"<x>" * 300_000))])
        assert "250,000 nested" in reading.dropped[-1].reason
        assert reading.jenkins == JenkinsCount(1, 1, 0) or isinstance(reading.jenkins, Unavailable)

    @given(st.lists(st.sampled_from(FRAGMENTS)).map("".join))
    def test_any_foreign_format_gives_runs_and_notes(self, text):
        """Any pieces of foreign formats give runs and notes and never raise."""
        (reading,) = summarize([_text("r.xml", text)])
        assert isinstance(reading, FileReading)
        assert all(isinstance(item, TestRun) for item in reading.tests)
        assert all(isinstance(item, Dropped) for item in reading.dropped)
        assert reading.tests == read_reports([_text("r.xml", text)]).tests


class TestJenkinsCounts:
    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("<testsuite><testcase name='a'><failure/></testcase><testcase name='a'/></testsuite>", (2, 1, 0)),
            ("<testsuite><testcase name='a'><failure/><skipped/></testcase></testsuite>", (1, 0, 1)),
            ("<testsuite><testcase name='a' status='notrun'/></testsuite>", (1, 0, 0)),
            ("<testsuite><testcase name='a'><flakyFailure/></testcase></testsuite>", (1, 0, 0)),
            ("<testsuite><error/><error/><testcase name='a'/></testsuite>", (2, 1, 0)),
            ("<testsuite><x><testcase name='a'/></x></testsuite>", (0, 0, 0)),
            ("<testsuites><testsuite><testsuite><testcase name='a'/></testsuite></testsuite></testsuites>", (1, 0, 0)),
            ("<anything><testcase name='a'/></anything>", (1, 0, 0)),
            ("<testsuite><testcase name='a'/>", (1, 1, 0)),
            ("", (1, 1, 0)),
        ],
    )
    def test_jenkins_counts_by_its_own_rules(self, text, count):
        assert counted(text) == count

    def test_jenkins_discards_a_repeated_suite_in_another_file(self):
        """Jenkins discards a suite of the same name and time, also in another file."""
        suite = "<testsuite name='s' timestamp='{}'><testcase name='a'/></testsuite>"
        counter = JenkinsCounter()

        def tests(at: str) -> int:
            return expect(JenkinsCount, counter.count("r.xml", lambda: [suite.format(at).encode()])).tests

        assert [tests(at) for at in ("09:00", "09:00", "10:00")] == [1, 0, 1]


class TestDialects:
    def test_every_dialect_of_the_rules_has_a_sample(self):
        samples: set[str] = set()
        for folder in (FOLDER, FOLDER.parent / "formats"):
            expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
            samples |= {row["dialect"] for row in expected.values()}
        others = {dialect.tool for dialect in (*DIALECTS, *LINE_DIALECTS)}
        assert {name for name, _ in RULES} | others == samples - {""}

    def test_dialect_is_known_after_the_first_case(self):
        """A document can be iterated, with its dialect known after the first case."""
        with (FOLDER / "vitest.xml").open("rb") as stream:
            document = Document(lambda: read_blocks(stream), "vitest.xml", "")
            next(iter(document))
            assert document.signature.is_named("vitest tests")


STRANGERS = {
    "ginkgo": (
        '<testsuites><testsuite name="Shop Suite" package="/w/shop"><testcase name="[It] Cart adds [slow]" '
        'classname="Shop Suite" status="passed" time="0.5"><system-err>Enter</system-err></testcase>'
        '<testcase name="[It] Cart panics" classname="Shop Suite" status="panicked" time="0.5">'
        '<error message="boom" type="panicked">boom\ngoroutine 1</error></testcase></testsuite></testsuites>',
        [("p", "Shop Suite#[It] Cart adds [slow]", ""), ("f", "Shop Suite#[It] Cart panics", "boom")],
    ),
    "bats": (
        '<testsuites time="0.1"><testsuite name="cart.bats"><testcase classname="cart.bats" name="breaks" time="0.03">'
        '<failure type="failure">(in test file cart.bats, line 9)\n  `[ 1 -eq 2 ]\' failed</failure></testcase>'
        '<testcase classname="cart.bats" name="skips" time="0"><skipped>not now</skipped></testcase>'
        "</testsuite></testsuites>",
        [
            ("f", "cart.bats#breaks", "(in test file cart.bats, line 9)\n`[ 1 -eq 2 ]' failed"),
            ("s", "cart.bats#skips", ""),
        ],
    ),
    "shellspec": (
        '<testsuites name=""><testsuite id="0" name="spec/cart_spec.sh"><testcase classname="spec/cart_spec.sh" '
        'name="cart breaks" time="0.01"><failure message="The output should equal 2">expected: 2</failure></testcase>'
        "</testsuite></testsuites>",
        [("f", "spec/cart_spec.sh#cart breaks", "The output should equal 2")],
    ),
    "swift testing": (
        '<testsuites><testsuite name="TestResults"><testcase classname="ShopTests.CartTests" name="breaks(_:)" '
        'time="0.0002"><failure message="Expectation failed: 1 == 2" /></testcase></testsuite></testsuites>',
        [("f", "ShopTests.CartTests#breaks(_:)", "Expectation failed: 1 == 2")],
    ),
    "exunit": (  # the file has a line, which moves with each change above it
        '<testsuites><testsuite name="Elixir.Shop.CartTest"><testcase classname="Elixir.Shop.CartTest" '
        'name="test adds" time="0.01" file="test/shop/cart_test.exs:5"/></testsuite></testsuites>',
        [("p", "Elixir.Shop.CartTest#test adds", "")],
    ),
    "busted": (
        '<testsuites><testsuite name="Run 1 of 1" package="busted"><testcase classname="spec/cart_spec.lua:5" '
        'name="cart adds" time="0.01"/></testsuite></testsuites>',
        [("p", "spec/cart_spec.lua#cart adds", "")],
    ),
    "tasty": (
        '<testsuites><testsuite name="Shop"><testsuite name="Cart"><testcase name="breaks" time="0.01" '
        'classname="Shop.Cart"><failure>expected: 2\n but got: 1</failure></testcase></testsuite></testsuite>'
        "</testsuites>",
        [("f", "Shop.Cart#breaks", "expected: 2\nbut got: 1")],
    ),
    "newman": (
        '<testsuites name="Shop API"><testsuite name="cart / add"><testcase name="Status" time="0.9" classname="API"/>'
        '</testsuite><testsuite name="cart / remove"><testcase name="Status" time="0.3" classname="API"/></testsuite>'
        "</testsuites>",
        [("p", "cart / add::API#Status", ""), ("p", "cart / remove::API#Status", "")],
    ),
    "go-junit-report": (
        '<testsuites><testsuite name="example.com/a"><testcase name="[build failed]" classname="example.com/a" '
        'time="0.000"><error message="Build error">a/a.go:3:1: syntax error</error></testcase></testsuite>'
        '<testsuite name="example.com/b"><testcase name="Failure" classname="example.com/b" time="0.000">'
        '<error message="Runtime error">panic: boom</error></testcase></testsuite></testsuites>',
        [
            ("f", "example.com/a#<init>", "a/a.go:3:1: syntax error"),
            ("f", "example.com/b#<init>", "panic: boom"),
        ],
    ),
    "ctest": (  # what a program of Unity prints is in its output alone
        '<testsuite name="(empty)" disabled="0"><testcase name="hex" classname="hex" time="0.04" status="fail">'
        '<failure message=""/><system-out>a.c:70:adds:PASS\na.c:64:rounds:FAIL: Expected 3 Was 4\n\nFAIL\n'
        "</system-out></testcase></testsuite>",
        [("f", "hex#hex", "a.c:64:rounds:FAIL: Expected 3 Was 4\nFAIL")],
    ),
    "ctest without a word": (
        '<testsuite name="(empty)" disabled="0"><testcase name="hex" classname="hex" time="0.04" status="fail">'
        '<failure message=""/><system-out>starting\nreading\nwriting\n</system-out></testcase></testsuite>',
        [("f", "hex#hex", "its output has no word of a failure, as after a crash or at a time limit\nwriting")],
    ),
    "a file of Node": (
        '<testsuites><testsuite name="s" tests="1" failures="0"><testcase name="a" time="0.1" classname="test"/>'
        '</testsuite><testcase name="/home/ada/shop/a.test.js" time="0.5" classname="test"><failure '
        'type="testCodeFailure" message="test failed">[Error: test failed] { code: \'ERR_TEST_FAILURE\', '
        "cause: 'test failed', exitCode: 9, signal: null }</failure></testcase>"
        '<testcase name="/home/ada/shop/b.test.js" time="0.5" classname="test"><failure type="testCodeFailure" '
        "message=\"test failed\">[Error: test failed] { code: 'ERR_TEST_FAILURE', cause: 'test failed', "
        "exitCode: null, signal: 'SIGKILL' }</failure></testcase></testsuites>",
        [
            ("p", "s#a", ""),
            ("f", "a.test.js#<init>", "the file ended with exit code 9"),
            ("f", "b.test.js#<init>", "the file ended with signal 'SIGKILL'"),
        ],
    ),
    "unittest-xml-reporting": (  # where all subtests passed, the case is called `test_prices`
        '<testsuite name="test_shop.TestCart-20261130155013" file="test_shop.py"><testcase classname="test_shop.Test" '
        'name="test_prices [odd] (n=2)" file="test_shop.py" line="12"><failure message="2 == 2"/></testcase>'
        '<testcase classname="test_shop.Test" name="test_prices (n=3)" file="test_shop.py" line="12">'
        '<failure message="3 == 3"/></testcase></testsuite>',
        [("f", "test_shop.Test#test_prices", "[odd] (n=2): 2 == 2")],
    ),
    "cargo-nextest": (
        '<testsuites name="nextest-run"><testsuite name="shop"><testcase name="tests::exits" classname="shop">'
        '<failure type="test failure with exit code 3"/><system-out>running 1 test\n</system-out></testcase>'
        "</testsuite></testsuites>",
        [("f", "shop#tests::exits", "test failure with exit code 3")],
    ),
    "catch2, an expected failure": (
        '<testsuites><testsuite name="t" errors="0" failures="0" tests="9" hostname="tbd"><testcase name="a" '
        'classname="t.global"><skipped message="TEST_CASE tagged with !mayfail"/><failure message="1 == 2"/>'
        '</testcase><testcase name="b" classname="t.global"/></testsuite></testsuites>',
        [("s", "t.global#a", "1 == 2"), ("p", "t.global#b", "")],
    ),
    "phpunit, a risky test": (
        '<testsuites><testsuite name="Cart" warnings="0" tests="1" errors="1" failures="0"><testcase name="testAdds" '
        'class="Cart" assertions="0"><error type="PHPUnit\\Framework\\RiskyTestError">no assertions</error>'
        "</testcase></testsuite></testsuites>",
        [("s", "Cart#testAdds", "no assertions")],
    ),
    "googletest": (  # the line of its file moves: it is no kind of failure
        '<testsuites name="AllTests"><testsuite name="Cart"><testcase name="Adds" status="run" result="completed" '
        'classname="Cart"><failure message="cart.cc:3&#10;Expected equality of these values:&#10;  3&#10;  1 + 1" '
        'type=""/></testcase></testsuite></testsuites>',
        [("f", "Cart#Adds", "Expected equality of these values: 3, 1 + 1")],
    ),
    "nunit 2 without outcomes": (
        '<test-results name="Shop.dll"><test-suite name="Shop.dll" executed="True"><results>'
        '<test-case name="Shop.Cart.Adds" executed="True" time="0.1"/><test-case name="Shop.Cart.Ships" executed='
        '"False"/><test-case name="Shop.Cart.Rounds" executed="True" time="0.1"><failure><message>no</message>'
        "</failure></test-case></results></test-suite></test-results>",
        [("p", "Shop.Cart#Adds", ""), ("s", "Shop.Cart#Ships", ""), ("f", "Shop.Cart#Rounds", "no")],
    ),
    "ctest without a program": (
        '<testsuite name="(empty)" disabled="0"><testcase name="hex" classname="hex" time="0" status="notrun">'
        '<skipped message="Unable to find executable"/></testcase></testsuite>',
        [("f", "hex#hex", "Unable to find executable")],
    ),
    "output beside a message": (
        '<testsuite><testcase name="a" classname="A"><failure message="1 != 2"/><system-out>failed to x</system-out>'
        "</testcase></testsuite>",
        [("f", "A#a", "1 != 2")],
    ),
}


class TestStrangers:
    @pytest.mark.parametrize(("document", "expected"), STRANGERS.values(), ids=STRANGERS)
    def test_a_strangers_report_reads_as_a_person_reads_it(
        self, document: str, expected: list[tuple[str, str, str]]
    ) -> None:
        """Outcome, id and message of tools that no sample file is of."""
        runs = read_reports([_text("report.xml", document)], ROOT).tests
        assert [(run.outcome, run.test, run.message) for run in runs] == expected


class TestOutsideOfSuites:
    def test_failures_outside_of_the_suites_are_not_missing_in_them(self) -> None:
        """Node's tests without `describe` are in no suite: each build with a failed one was told to be repaired."""
        failed = '<testcase name="b" classname="test" time="0.1"><failure message="no"/></testcase>'
        suite = (
            '<testsuite name="s" tests="1" failures="0"><testcase name="a" classname="test" time="0.1"/></testsuite>'
        )
        assert read_reports([_text("r.xml", f"<testsuites>{suite}{failed}</testsuites>")], ROOT).dropped == ()


# What Surefire 3.5.4 wrote for JUnit 5, shortened: its totals are those of the last class inside, or of the last rerun.
SUREFIRE = (
    '<testsuite xsi:noNamespaceSchemaLocation="https://maven.apache.org/surefire.xsd" name="shop.CartTest" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" tests="{tests}" errors="{errors}" failures="0">{cases}'
    "</testsuite>"
)
SUREFIRE_CASES = (
    '<testcase name="" classname="shop.CartTest" time="0.1"><error message="no database" type="E">E: no</error>'
    '<rerunError message="no database" type="E"><stackTrace>E: no</stackTrace></rerunError></testcase>'
    '<testcase name="adds" classname="shop.CartTest" time="0.1"/>'
    '<testcase name="deep" classname="shop.CartTest$Inner" time="0.1"/>'
)


class TestSurefire:
    def test_a_class_whose_fixture_failed_has_no_nameless_test(self) -> None:
        """@BeforeAll and @AfterAll fail in a case without a name."""
        document = SUREFIRE.format(tests=3, errors=1, cases=SUREFIRE_CASES)
        first, *_ = read_reports([_text("TEST-shop.CartTest.xml", document)], ROOT).tests
        assert (first.test, first.outcome, first.message) == ("shop.CartTest#<init>", "c", "no database")

    @pytest.mark.parametrize(("tests", "errors"), [(0, 0), (1, 1)])
    def test_totals_of_a_part_are_no_repair(self, tests: int, errors: int) -> None:
        """Each build with a nested class or a rerun was told to be repaired."""
        document = SUREFIRE.format(tests=tests, errors=errors, cases=SUREFIRE_CASES)
        assert read_reports([_text("TEST-shop.CartTest.xml", document)], ROOT).dropped == ()

    @pytest.mark.parametrize(("cases", "tests", "errors"), [(SUREFIRE_CASES, 4, 1), ("", 1, 1)])
    def test_totals_above_the_cases_are_told(self, cases: str, tests: int, errors: int) -> None:
        """A case is missing, or the only failure."""
        document = SUREFIRE.format(tests=tests, errors=errors, cases=cases)
        (note,) = read_reports([_text("TEST-shop.CartTest.xml", document)], ROOT).dropped
        assert note.reason.startswith(f"it announces {tests} tests")


class TestHooks:
    def test_a_hook_of_mocha_has_one_name_and_is_no_test(self):
        """Its name says for which test it failed, which differs from build to build."""
        tests = outcomes("mocha-hooks.xml")
        hooks = ['test/mocha/cart.js#database "before all" hook', 'test/mocha/cart.js#each "before each" hook']
        assert [test for test in tests if "hook" in test] == hooks
        assert count_tests(list(tests)) == len(tests) - 2
        assert not any(item.is_warning for item in read("mocha-hooks.xml").dropped)

    def test_a_describe_of_vitest_whose_hook_failed_did_not_start(self):
        tests = outcomes("vitest-hook.xml")
        assert tests["test/vitest/cart.test.mjs::database#<init>"] == Outcome.FAILED
        assert "test/vitest/cart.test.mjs#database" not in tests

    def test_a_module_of_exunit_has_the_message_of_its_setup(self):
        """Its formatter has it in a structure of the language alone."""
        run = next(run for run in read("exunit.xml").tests if run.test == "Elixir.DbTest#test reads")
        assert (run.failure_type, run.message) == ("RuntimeError", "RuntimeError: connection refused")


class TestNamesOfOtherRunners:
    def test_the_exit_code_of_prove_is_no_second_failure(self):
        """It is not 0 because a test point failed; without one, the file failed."""
        failed = [run.test for run in read("tap-formatter-junit.xml").tests if run.outcome == Outcome.FAILED]
        assert failed == ["cart_t#waits for the bank", "db_t#<init>"]
        assert read("tap-formatter-junit.xml").dropped == ()

    def test_numbers_of_bats_and_minitest_are_no_part_of_a_name(self):
        """They move when a test is added."""
        assert "retry.bats#pays the bank" in outcomes("bats.xml")
        assert "Minitest::Result#rounds up" in outcomes("minitest-reporters.xml")

    def test_minitests_kind_of_a_failure_is_not_its_name(self):
        runs = {run.test: run.failure_type for run in read("minitest-reporters.xml").tests if run.failure_type}
        assert not any(test.endswith(f"#{kind}") for test, kind in runs.items())

    def test_a_place_on_a_line_of_its_own_is_no_message(self):
        run = next(run for run in read("tasty.xml").tests if "bank" in run.test)
        assert run.message == "bank timed out"

    def test_a_crashed_worker_of_xdist_is_one_failure_with_one_cause(self):
        """Nothing is lost, and which worker it was says nothing."""
        reports = read("pytest-crashed-worker.xml")
        (run,) = [run for run in reports.tests if run.failure_type == "crashed"]
        assert run.message == "a worker crashed while running 'test_cart.py::test_exits'"
        assert [item.kept for item in reports.dropped] == [True]
