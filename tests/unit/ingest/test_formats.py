"""Every report in tests/data/formats gives what its table says, and each format keeps its failures."""

import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pytest

from fedstep.ingest import xml
from fedstep.ingest.junit import iter_cases, read_reports, summarize
from fedstep.types import Dropped, Outcome, Reports, TestRun

FOLDER = Path(__file__).parents[2] / "data" / "formats"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
ROOT = "/home/ada/shop"
TRX = ("Failed", "Error", "Timeout", "Aborted", "Disconnected", "InProgress", "LeftOut")
SILENT = {  # failures of which the report says nothing; of Go's subtests the parent has no line of its own
    "boost-report.xml": ["shop/cart#rounds", "shop/cart#breaks"],
    **{name: ["example.com/shop/shop#TestPrices"] for name in ("go.json", "go.json.gz")},
    "ktap-kunit.log": ["stock#stock_rounds"],
    "perl.tap": ["#rounds"],
    "pytest-nunit.xml": ["test_cart.py#test_cart.py::test_stock"],
    "trx-all-outcomes.trx": [f"Shop.CartTests#{name}" for name in TRX],
    "trx-crash-beside-failure.trx": ["Shop.CartTests#Adds"],
}


def _read(*names: str) -> Reports:
    return read_reports([(name, lambda name=name: (FOLDER / name).open("rb")) for name in names], ROOT)


def _read_text(text: str | bytes, name: str = "r.json") -> Reports:
    content = text if isinstance(text, bytes) else text.encode()
    return read_reports([(name, lambda: io.BytesIO(content))], ROOT)


def _outcomes(reports: Reports) -> dict[str, str]:
    return {run.test: str(run.outcome) for run in reports.tests}


def _lost(reports: Reports) -> list[str]:
    return [item.reason for item in reports.dropped if not item.kept]


def _last_attempts(name: str) -> list[TestRun]:
    """Return the cases of a file, of a test with numbered attempts the last one."""
    with (FOLDER / name).open("rb") as stream:
        runs = [item for item in iter_cases(stream, name, ROOT) if isinstance(item, TestRun)]
    numbered = {run.test: run for run in runs if run.attempt}
    return [run for run in runs if not run.attempt] + list(numbered.values())


class TestSamples:
    @pytest.mark.parametrize("name", EXPECTED)
    def test_a_sample_gives_the_expected_tests(self, name: str) -> None:
        """Dialect, outcome of each test and what is lost are those of the table."""
        row = EXPECTED[name]
        (reading,) = summarize([(name, lambda: (FOLDER / name).open("rb"))], ROOT)
        assert reading.dialect == row["dialect"]
        assert {run.test: str(run.outcome) for run in reading.tests} == row["tests"]
        assert [item.reason for item in reading.dropped if not item.kept] == row["lost"]
        assert _outcomes(_read(name)) == row["tests"]

    @pytest.mark.parametrize("name", [name for name, row in EXPECTED.items() if "totals" in row])
    def test_totals_are_those_that_the_tool_printed(self, name: str) -> None:
        """The cases, counted as the tool counts them, are what it printed at its end."""
        counts = Counter(run.outcome for run in _last_attempts(name) if not run.test.endswith("#<init>"))
        passed = counts[Outcome.PASSED] + counts[Outcome.FLAKED]
        failed = counts[Outcome.FAILED] + counts[Outcome.CONFIRMED]
        assert [passed, failed, counts[Outcome.SKIPPED]] == EXPECTED[name]["totals"]

    def test_every_sample_is_in_the_table_and_in_the_readme(self) -> None:
        """The table, the README and the folder name the same files."""
        names = {path.name for path in FOLDER.iterdir()} - {"expected.json", "README.md", ".gitattributes"}
        readme = (FOLDER / "README.md").read_text(encoding="utf-8")
        assert names == set(EXPECTED)
        assert [name for name in names if f"| `{name}` |" not in readme] == []

    @pytest.mark.parametrize("name", [name for name in EXPECTED if not name.endswith(".gz")])
    def test_a_report_that_is_cut_never_looks_whole(self, name: str) -> None:
        """Either all failures are there, or it is said that something is missing."""
        content = (FOLDER / name).read_bytes().rstrip()
        failures = {test for test, outcome in _outcomes(_read(name)).items() if outcome in "fck"}
        for size in (len(content) // 4, len(content) // 2, 3 * len(content) // 4, len(content) - 2):
            part = _read_text(content[:size], name)
            assert part.dropped or failures <= set(_outcomes(part))

    @pytest.mark.parametrize("name", EXPECTED)
    def test_a_failure_has_the_message_of_its_report(self, name: str) -> None:
        """Whatever the format, the verdict shows why a test failed; some reports do not tell it."""
        silent = [run.test for run in _read(name).tests if run.outcome in "fc" and not run.message]
        assert silent == SILENT.get(name, [])


class TestTapMessages:
    @pytest.mark.parametrize(
        ("below", "message"),
        [
            (
                "  ---\n    name: AssertionError\n    error: |-\n      no bank\n    stack: |-\n      name: x\n  ...\n",
                "no bank",
            ),
            (  # AVA has the values in a block of its own, whose keys are not those of the point
                "  ---\n    name: AssertionError\n    details:\n      'Difference:': |-\n        - 1\n        + 2\n"
                "    message: ''\n  ...\n",
                "AssertionError: - 1 + 2",
            ),
            ("  ---\n    operator: equal\n    expected: 2\n    actual:   1\n  ...\n", "expected 2, actual 1"),
            ("#   Failed test 'adds'\n#   at t/cart.t line 5.\n#          got: '4'\n", "got: '4'"),
            ("# tests 1\n# fail 1\n", ""),
        ],
    )
    def test_what_stands_below_a_failed_point_is_its_message(self, below: str, message: str) -> None:
        """As node-tap, AVA, tape and Perl write it; sums at the end are none."""
        (run,) = _read_text(f"TAP version 13\nnot ok 1 - adds\n{below}1..1\n", "r.tap").tests
        assert run.message.endswith(message) if message else run.message == ""


class TestCrashedRuns:
    @pytest.mark.parametrize(
        "name", ["trx-crashed-host.trx", "trx-aborted.trx", "trx-no-results.trx", "trx-crash-beside-failure.trx"]
    )
    def test_a_trx_run_that_failed_is_a_failed_test(self, name: str) -> None:
        """What failed the run, and is no test, is a failed test `<init>` of its assembly."""
        assert "f" in {outcome for test, outcome in _outcomes(_read(name)).items() if test.endswith("#<init>")}

    @pytest.mark.parametrize("name", ["trx-xunit-echo.trx", "trx-completed.trx", "trx-all-outcomes.trx"])
    def test_a_trx_run_that_failed_by_its_tests_is_not(self, name: str) -> None:
        """A run whose tests explain its outcome has no further failure."""
        assert not [test for test in _outcomes(_read(name)) if test.endswith("#<init>")]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("jest", '{"numFailedTests":0,"numTotalTests":0,"success":false,"testResults":[],"openHandles":[]}'),
            ("rspec", '{"examples":[],"summary":{"example_count":0,"errors_outside_of_examples_count":2}}'),
            ("playwright", '{"config":{},"suites":[],"errors":[{"message":"Error: no tests found"}],"stats":{}}'),
            ("go", '{"Action":"fail","Package":"go","Elapsed":0.1}'),
            ("go", '{"Action":"output","Package":"go","Output":"panic: x"}\n{"Action":"fail","Package":"go"}'),
            ("tap", "TAP version 14\n1..3\nok 1 - a\nBail out! no database\n"),
            ("tap", "1..3\nok 1 - a\nok 2 - b\n"),
            ("dart", '{"protocolVersion":"0.1.1","type":"start"}\n{"type":"done","success":false}'),
            ("ctrf", '{"results":{"tool":{"name":"ctrf"},"summary":{"tests":0,"failed":3},"tests":[]}}'),
        ],
    )
    def test_a_run_that_failed_without_a_test_is_a_failed_test(self, name: str, text: str) -> None:
        """A runner that could not run is not a build that passed."""
        assert _outcomes(_read_text(text)).get(f"{name}#<init>") == "f"

    def test_go_tests_that_ran_when_their_package_failed_failed(self) -> None:
        """A test that exits or panics has no end of its own."""
        events = [
            {"Action": "run", "Package": "p", "Test": "TestExits"},
            {"Action": "output", "Package": "p", "Test": "TestExits", "Output": "panic: no stock\n"},
            {"Action": "fail", "Package": "p"},
        ]
        reports = _read_text("\n".join(map(json.dumps, events)))
        assert _outcomes(reports) == {"p#TestExits": "f"}
        assert reports.tests[0].failure_type == "panic"

    @pytest.mark.parametrize(
        ("output", "told"),
        [("=== RUN   TestA\n", "the test process exited inside this test"), ("--- FAIL: TestA (0.00s)\n", "")],
    )
    def test_a_go_test_that_exits_says_so(self, output: str, told: str) -> None:
        """Go itself ends the test with "fail", and writes nothing after os.Exit."""
        events = [
            {"Action": "run", "Package": "p", "Test": "TestA"},
            {"Action": "output", "Package": "p", "Test": "TestA", "Output": output},
            {"Action": "fail", "Package": "p", "Test": "TestA"},
        ]
        assert _read_text("\n".join(map(json.dumps, events))).tests[0].message == told


class TestAttempts:
    @pytest.mark.parametrize(
        ("name", "test", "outcome"),
        [
            ("jest.json", "jest/stock.test.js#cart flips", "k"),
            ("jest.json", "jest/stock.test.js#cart breaks", "c"),
            ("vitest.json", "vitest/cart.test.js#cart > flips", "k"),
            ("mocha.json", "mocha/cart.spec.js#cart flips", "k"),
            ("playwright.json", "cart.pw.spec.js#[a] cart › flips", "k"),
            ("playwright.json", "cart.pw.spec.js#[a] cart › known bug", "p"),
            ("ctrf-pytest.json", "pyt/test_cart.py#TestFlips::test_flips", "k"),
            ("go-count.json", "example.com/shop/flip#TestFlips", "k"),
            ("dart.json", "test/cart_test.dart#cart flips", "k"),
        ],
    )
    def test_what_the_report_calls_a_retry_is_an_attempt(self, name: str, test: str, outcome: str) -> None:
        """Numbered attempts, `retries`, `invocations` and `currentRetry` are evidence of a flake."""
        assert _outcomes(_read(name))[test] == outcome

    def test_results_of_allure_with_one_history_are_attempts(self) -> None:
        """Allure writes each attempt into a file of its own."""
        reports = _read("allure-pytest-flips-1-result.json", "allure-pytest-flips-2-result.json")
        assert _outcomes(reports) == {"test_cart.TestFlips#test_flips": "k"}

    def test_parameters_of_allure_are_variants(self) -> None:
        """The same test in two projects of Playwright is two tests."""
        reports = _read("allure-playwright-a-result.json", "allure-playwright-b-result.json")
        assert list(_outcomes(reports)) == ["cart.pw.spec.js › cart#[a] adds", "cart.pw.spec.js › cart#[b] adds"]

    def test_equal_names_in_two_files_are_two_tests(self) -> None:
        """Jest's files are part of the test."""
        names = _outcomes(_read("jest.json"))
        assert {"jest/cart.test.js#cart adds", "jest/stock.test.js#cart adds"} <= set(names)


class TestNode:
    SUITE = "<testsuites><testsuite name='parent' tests='1' failures='{}'>{}</testsuite><!-- fail {} --></testsuites>"

    def test_a_test_to_do_may_fail(self) -> None:
        """Node does not fail for it."""
        case = "<testcase name='a' classname='test'><skipped type='todo'/><failure message='no'/></testcase>"
        assert _outcomes(_read_text(self.SUITE.format(1, case, 0), "r.xml")) == {"parent#a": "s"}

    def test_a_parent_that_failed_after_its_subtests_is_not_lost(self) -> None:
        """Node's JUnit report makes a suite of a parent, and tells its failure in the totals only."""
        reports = _read_text(self.SUITE.format(0, "<testcase name='a' classname='test'/>", 1), "r.xml")
        assert _outcomes(reports) == {"parent#a": "p", "node#<init>": "f"}

    def test_totals_that_the_cases_explain_add_nothing(self) -> None:
        """A failed case is what the totals count."""
        case = "<testcase name='a' classname='test'><failure message='no'/></testcase>"
        assert _outcomes(_read_text(self.SUITE.format(1, case, 2), "r.xml")) == {"parent#a": "f"}


class TestGzip:
    def test_gzipped_files_one_after_the_other_are_one(self) -> None:
        """What `cat a.gz b.gz` makes is one stream."""
        first, second = b'{"Action":"run","Package":"p","Test":"T"}\n', b'{"Action":"pass","Package":"p","Test":"T"}\n'
        assert _outcomes(_read_text(gzip.compress(first) + gzip.compress(second))) == {"p#T": "p"}

    def test_a_gzipped_report_that_is_cut_is_lost_in_part(self) -> None:
        """The cases before the cut are kept, and the cut is noted."""
        reports = _read("truncated.xml.gz")
        assert len(reports.tests) == 7
        assert "the gzipped file ends too early; the cases before are kept" in [item.reason for item in reports.dropped]

    def test_a_gzipped_file_is_a_copy_of_the_plain_one(self) -> None:
        """The digest is that of the content; nothing is lost, so the build may have passed."""
        reports = _read("go.json", "go.json.gz")
        assert _lost(reports) == []
        assert reports.dropped[-1].reason == "the same bytes as go.json, counted once"

    @pytest.mark.slow
    def test_a_bomb_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that unpacks to more than 512 MB is read up to there; to 32 MB takes a sixteenth of the time."""
        assert xml.MAX_UNPACKED_BYTES == 512 << 20
        monkeypatch.setattr(xml, "MAX_UNPACKED_BYTES", 32 << 20)
        bomb = gzip.compress(b"<testsuite>" + b" " * (4 << 20), 9)
        many = bomb + gzip.compress(b" " * (8 << 20)) * 4
        assert "more than 32 MB" in _read_text(many, "r.xml").dropped[-1].reason


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "advice"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "git lfs pull"),
            (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
            (b"<html><body>login</body></html>", "web page"),
            (b"PK\3\4aaaa", "unpack"),
            (b"\xfd7zXZ\0aaa", "gzip"),
            (b"<result><suites/></result>", "backfill"),
            (b"<testng-results/>", "junitreports"),
            (b"<Catch2TestRun name='a'/>", "-r junit"),
            (b"<coverage/>", "coverage, no tests"),
            (b'{"runs":[],"version":"2.1.0"}', "SARIF"),
            (b'{"meta":{"protocolVersion":"1"}}', "--format json"),
            (b'{"meta":{"protocolVersion":"1"}}\n{"source":{}}', "--format json"),
            (b'{"exitcode":1,"tests":[]}', "--junit-xml"),
            (b'{"tests":1,"name":"AllTests","testsuites":[]}', "--gtest_output=xml"),
            (b"<unittest-results tests='1'/>", "UnitTest++"),
            (b'<testsuites xmlns="http://check.sourceforge.net/ns"><suite/></testsuites>', "CK_TAP_LOG_FILE_NAME"),
            (b'{"pytest_version":"9","$report_type":"SessionStart"}\n{"a":1}', "--junit-xml"),
            (b'{"type":"suite","event":"started","test_count":1}\n{"type":"test"}', "cargo-nextest"),
            (b'{"id":{"started":{}},"children":[]}\n{"id":{}}', "bazel-testlogs"),
            (b'{"a":1}\n{"b":2}\n', "lines of JSON"),
            (b'{"a":1,\n"b":', "ends too early"),
            (b"[]", "no features or tests"),
            (b'{"a":1}', "JUnit report, or CTRF"),
            (b"=== RUN   TestA\n--- PASS: TestA\n", "go test -json"),
            (b"", "empty"),
        ],
    )
    def test_a_refusal_names_what_to_give_instead(self, content: bytes, advice: str) -> None:
        """Each known foreign format is named."""
        reports = _read_text(content)
        assert reports.tests == ()
        assert advice in reports.dropped[0].reason

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"results":{"tests":[{"name":"a","status":"sideways"}]}}', "sideways"),
            ('{"numTotalTests":2,"openHandles":[],"testResults":[]}', "announces 2 tests, 0 stand here"),
            ('{"uuid":"1","name":"a","status":"unknown"}', "unknown"),
            ('{"Action":"run","Package":"p","Test":"T"}\n{"Action":"pa', "not JSON"),
            ('{"Action":"run","Package":"p","Test":"T"}\n', "stops inside this test"),
            ("<assembly name='a'><collection><test name='a' result='Odd'/></collection></assembly>", "'Odd'"),
            ("<test-run><test-suite><test-case name='a' result='Odd'/></test-suite></test-run>", "'Odd'"),
            ("<Site><Testing><Test Status='odd'><Name>a</Name></Test></Testing></Site>", "'odd'"),
        ],
    )
    def test_a_case_that_cannot_be_used_is_named(self, text: str, reason: str) -> None:
        """What is lost is said."""
        assert any(reason in lost for lost in _lost(_read_text(text)))


class TestTimes:
    @pytest.mark.parametrize(
        ("name", "test", "seconds"),
        [
            ("jest.json", "jest/cart.test.js#cart rounds", 0.005),
            ("playwright.json", "cart.pw.spec.js#[a] cart › adds", 0.007),
            ("rspec.json", "spec.cart_spec#Cart rounds", 0.052374148),
            ("cucumber-jvm.json", "Cart#adds", 0.0035),
            ("dart.json", "test/cart_test.dart#cart adds", 0.01),
            ("xunit-2.xml", "Shop.CartTests#Adds", 0.0021),
            ("nunit-3.xml", "Shop.CartTests#Adds", 0.0021),
            ("allure-1.xml", "shop.CartTest#adds", 0.25),
            ("boost-log.xml", "shop/cart#adds", 89e-6),
            ("qt-5.xml", "Cart#adds", 62.463e-6),
            ("bats.tap", "#adds", 0.031),
        ],
    )
    def test_times_are_seconds_whatever_the_tool_writes(self, name: str, test: str, seconds: float) -> None:
        """Milliseconds, microseconds and nanoseconds become seconds."""
        runs = {run.test: run for run in _read(name).tests}
        assert runs[test].seconds == pytest.approx(seconds)


class TestPlaces:
    @pytest.mark.parametrize(
        ("name", "test", "place"),
        [
            ("playwright.json", "cart.pw.spec.js#[a] cart › adds", ("pw/cart.pw.spec.js", 3)),
            ("rspec.json", "spec.cart_spec#Cart adds", ("spec/cart_spec.rb", 2)),
            ("cucumber-js.json", "cart#adds", ("features/cart.feature", 5)),
            ("dart.json", "test/cart_test.dart#cart adds", ("test/cart_test.dart", 6)),
            ("flutter.json", "test/widget_test.dart#counter increments", ("test/widget_test.dart", 12)),
            ("xunit-3.xml", "Shop.CartTests#Adds", ("CartTests.cs", 7)),
        ],
    )
    def test_file_and_line_are_kept_where_they_are_told(self, name: str, test: str, place: tuple[str, int]) -> None:
        """They lead to the source of a test."""
        runs = {run.test: run for run in _read(name).tests}
        assert (runs[test].file, runs[test].line) == place


class TestDropped:
    def test_a_dropped_item_names_its_file(self) -> None:
        """Messages name the file that they are about."""
        items: list[Dropped] = [item for name in EXPECTED for item in _read(name).dropped]
        assert all(item.source.partition(":")[0] in EXPECTED for item in items)


class TestJestAndVitest:
    @pytest.mark.parametrize(
        ("test", "outcome", "message"),
        [
            (
                {"status": "passed", "invocations": 2, "retryReasons": ["Error: no bank"]},
                "k",
                "Error: no bank",
            ),
            (
                {"status": "failed", "failureMessages": ["Error: STACK_TRACE_ERROR\n    at task (file:///a.js:1:2)"]},
                "f",
                "Timeout: the test, or a hook of it, took longer than its limit",
            ),
        ],
    )
    def test_a_retry_and_a_time_limit_have_a_message(self, test: dict[str, object], outcome: str, message: str) -> None:
        """Jest has that of a flake among the reasons; Vitest loses that of a time limit."""
        told = {"ancestorTitles": [], "title": "pays", "fullName": "pays", "failureMessages": [], **test}
        files = [{"name": "a.test.js", "status": test["status"], "assertionResults": [told]}]
        (run,) = _read_text(json.dumps({"testResults": files, "numTotalTests": 1})).tests
        assert (run.outcome, run.message) == (outcome, message)
