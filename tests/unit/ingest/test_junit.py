"""Every report in tests/data/junit gives the counts that its table promises, and dialects mean what they say."""

import io
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from fedstep.ingest.cases import failure_word, parse_seconds, relative_path
from fedstep.ingest.junit import expand, iter_cases, read_reports, summarize
from fedstep.ingest.xml import SEVERAL, join_documents
from fedstep.types import BuildOutcome, Dropped, Outcome, Reports, TestRun, Unavailable
from tests.helpers.narrow import expect

FOLDER = Path(__file__).parents[2] / "data" / "junit"

EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
ROOT = "D:/a/shop"


def read(*names: str, root: str = ROOT) -> Reports:
    return read_reports([_file(name) for name in names], root)


def _file(name: str):
    return name, lambda: (FOLDER / name).open("rb")


def _text(name: str, text: str):
    return name, lambda: io.BytesIO(text.encode())


def _runs(text: str) -> list[TestRun | Dropped]:
    return list(iter_cases(io.BytesIO(text.encode()), "r.xml"))


def _first(text: str, root: str = "") -> TestRun:
    return expect(TestRun, next(iter_cases(io.BytesIO(text.encode()), "r.xml", root)))


class TestSamples:
    @pytest.mark.parametrize("name", EXPECTED)
    def test_a_sample_gives_the_expected_counts(self, name):
        row = EXPECTED[name]
        reports = read(name, root=row.get("root", ROOT))
        assert Counter(run.outcome for run in reports.tests) == Counter(row["outcomes"])
        assert [item.kept for item in reports.dropped].count(False) == row["dropped"]
        assert [item.kept for item in reports.dropped].count(True) == row["kept"]

    @pytest.mark.parametrize("name", EXPECTED)
    def test_survey_finds_counts_dialect_and_what_jenkins_counts(self, name):
        """A survey finds the same counts, the dialect, and what Jenkins counts."""
        row = EXPECTED[name]
        (reading,) = summarize([_file(name)], row.get("root", ROOT))
        assert reading.tests == read(name, root=row.get("root", ROOT)).tests
        assert reading.dialect == row["dialect"]
        assert (None if isinstance(reading.jenkins, Unavailable) else list(reading.jenkins)) == row["jenkins"]

    def test_every_sample_is_in_the_table_and_in_the_readme(self):
        names = {path.name for path in FOLDER.iterdir() if path.suffix in (".xml", ".trx", ".json")} - {"expected.json"}
        readme = (FOLDER / "README.md").read_text(encoding="utf-8")
        assert names == set(EXPECTED)
        assert [name for name in names if f"| `{name}` |" not in readme] == []

    @pytest.mark.parametrize("name", EXPECTED)
    def test_a_dropped_item_names_its_file_and_a_reason(self, name):
        for item in read(name).dropped:
            assert item.source.startswith(name)
            assert item.reason

    def test_all_samples_together_count_only_reports(self):
        """All samples together count only the files that are reports."""
        reports = read(*EXPECTED)
        whole = [item for item in reports.dropped if not item.kept and ":" not in item.source]
        assert reports.files == len(EXPECTED) - len(whole)
        assert len({run.test for run in reports.tests}) == len(reports.tests)


class TestOutcomes:
    def test_failure_type_falls_back_to_message_or_text(self):
        """Failure types come from the type, else from the message or the text."""
        kinds = {
            run.test: run.failure_type for name in ("surefire-reruns.xml", "jest-junit.xml") for run in read(name).tests
        }
        assert kinds["shop.CartTest#connects"] == "java.net.ConnectException"
        assert kinds["src/cart.test.ts#cart sums"] == "TypeError"
        assert read("pytest-svcs.xml").tests[-1].failure_type == "TypeError"

    def test_a_text_after_an_empty_failure_is_not_its_type(self):
        text = "<testcase name='n'><failure/><system-out>TypeError</system-out></testcase>"
        assert _first(text).failure_type == ""

    def test_the_last_attempt_gives_the_seconds(self):
        runs = {run.test: run for run in read("gradle-retry.xml").tests}
        assert runs["shop.PriceTest#rounds()"].seconds == 0.1

    def test_failures_disguised_by_pytest_plugins_are_failures(self):
        """Attempts that pytest plugins disguise as passed are failures."""
        runs = {run.test: run.outcome for run in read("pytest-rerunfailures.xml").tests}
        assert runs["test_rr#test_flips"] == Outcome.FLAKED
        assert runs["test_rr#test_always_fails"] == Outcome.CONFIRMED

    def test_a_failed_call_and_its_failed_teardown_are_one_attempt(self):
        runs = {run.test: run.outcome for run in read("pytest-xunit1.xml").tests}
        assert runs["test_rr#test_fails_twice"] == Outcome.FAILED

    def test_pytest_xunit1_lines_count_from_one(self):
        assert next(run for run in read("pytest-xunit1.xml").tests if run.test == "test_rr#test_flips").line == 3


class TestNames:
    def test_repaired_names_stay_distinct(self):
        names = [run.test for run in read("control-characters.xml").tests]
        assert names[:3] == ["c#raw[#x1B]", "c#raw[#x00]", "c#reference[#x1B]"]
        assert names[3:] == ["c#ampersand[a & b]", "c#entity[&nbsp;<é]"]

    def test_a_repair_names_the_line_of_the_first(self):
        first = read("control-characters.xml").dropped[0]
        assert first.source == "control-characters.xml:3"

    @pytest.mark.parametrize(
        "name", ["utf-16.xml", "utf-16-no-bom.xml", "latin-1.xml", "wrong-encoding.xml", "utf-8-bom.xml"]
    )
    def test_names_survive_their_encoding(self, name):
        assert [run.test for run in read(name).tests] == ["c#grün", "c#café"]

    def test_paths_are_relative_to_the_root_with_forward_slashes(self):
        runs = read("windows-paths.xml").tests
        assert [run.test for run in runs] == ["src/cart.test.ts#adds", "src/price.test.ts#adds"]
        assert [(run.file, run.line) for run in runs] == [("src/cart.test.ts", 3), ("src/price.test.ts", 0)]

    def test_root_is_removed_only_where_a_path_starts(self):
        """A root inside a name is removed only where a path starts."""
        text = "<testcase classname='c' name='GET /api/app/x [/app/data/y.txt]'/>"
        assert _first(text, "/app").test == "c#GET /api/app/x [data/y.txt]"

    def test_long_names_are_capped_and_stay_distinct(self):
        first, second = (run.test for run in read("long-names.xml").tests)
        assert len(first) == len(second) == 1000
        assert first != second

    def test_names_are_on_one_line(self):
        assert _first("<testcase classname='c' name='a&#10;b'/>").test == "c#a#x0Ab"

    def test_a_missing_class_falls_back_to_file_and_suites(self):
        tests = [run.test for run in read("no-classname.xml").tests]
        assert tests == ["spec/cart_spec.rb/cart#adds", "price/rounding#adds", "#adds"]

    @pytest.mark.parametrize("attribute", ["classname", "class", "className"])
    def test_a_class_is_read_under_each_of_its_names(self, attribute: str) -> None:
        run = _runs(f"<testcase name='n' {attribute}='shop.Cart'/>")[0]
        assert isinstance(run, TestRun)
        assert run.test == "shop.Cart#n"

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["(init)", "1 - adds", "2 - 3 items"], ["(init)", "adds", "3 items"]),
            (["#1 adds", "#2 rounds"], ["adds", "rounds"]),
            (["7 - adds", "#9 rounds", "3", "4 + 4"], ["7 - adds", "#9 rounds", "3", "4 + 4"]),
        ],
    )
    def test_the_number_of_a_test_point_is_no_name(self, names: list[str], expected: list[str]) -> None:
        """A test that is added before it moves it; a number that is no position belongs to the name."""
        cases = "".join(f"<testcase name='{name}'/>" for name in names)
        runs = _runs(f"<testsuite name='t'>{cases}</testsuite>")
        assert [run.test for run in runs if isinstance(run, TestRun)] == [f"t#{name}" for name in expected]

    def test_equal_titles_in_two_node_suites_are_two_tests(self):
        assert {"lists/empty#has no head", "lists/full#has no head"} <= {run.test for run in read("node-20.xml").tests}


class TestCases:
    @pytest.mark.parametrize(
        ("children", "outcome"),
        [
            ("", Outcome.PASSED),
            ("<skipped/>", Outcome.SKIPPED),
            ("<failure/>", Outcome.FAILED),
            ("<error/>", Outcome.FAILED),
            ("<error/><skipped/>", Outcome.FAILED),
            ("<flakyFailure/>", Outcome.FLAKED),
            ("<flakyError/><flakyFailure/>", Outcome.FLAKED),
            ("<failure/><rerunFailure/>", Outcome.CONFIRMED),
            ("<error/><rerunError/><rerunFailure/>", Outcome.CONFIRMED),
            ("<failure/><flakyFailure/>", Outcome.CONFIRMED),
            ("<properties><property name='failure'/></properties><system-out>failure</system-out>", Outcome.PASSED),
        ],
    )
    def test_children_of_a_case_decide_its_outcome(self, children, outcome):
        assert _first(f"<testcase name='n'>{children}</testcase>").outcome == outcome

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1,234.5", 1234.5),
            ("1.234,5", 1234.5),
            ("0,5", 0.5),
            ("0,005", 0.005),
            ("1 ms", 0.001),
            ("1\u202f234,5", 1234.5),
        ],
    )
    def test_times_are_read_in_any_locale(self, text, value):
        assert parse_seconds(text) == pytest.approx(value)

    @pytest.mark.parametrize("text", ["-1", "NaN", "inf", "1e300", "soon", ".", ",", "1:30", "--1", "1.2.3,4,5"])
    def test_what_is_no_duration_is_no_seconds(self, text):
        assert math.isnan(parse_seconds(text))

    def test_failure_type_has_no_colours_and_at_most_100_characters(self):
        """A failure type has no colours and at most 100 characters."""
        assert failure_word("#x1B[31mValueError: red") == "ValueError"
        assert failure_word("") == ""
        assert len(failure_word("x" * 500)) == 100

    def test_a_path_outside_the_root_stays_as_it_is(self):
        assert relative_path("/home/a/shopping/x.py", "/home/a/shop") == "/home/a/shopping/x.py"


class TestSeveralFiles:
    def test_a_failure_here_and_a_pass_there_are_two_tests(self):
        """A test that fails in one file and passes in another is two tests, of which one failed."""
        passed, failed = "<testcase name='n' time='1'/>", "<testcase name='n' time='2'><failure/></testcase>"
        reports = read_reports([_text("a.xml", passed), _text("b.xml", failed)])
        assert [(run.test, run.outcome) for run in reports.tests] == [
            ("#[a] n", Outcome.PASSED), ("#[b] n", Outcome.FAILED)
        ]  # fmt: skip

    def test_failure_copied_into_a_second_file_is_not_confirmed(self):
        """A failure that was copied into a second file is not confirmed by it."""
        case = "<testcase name='n' time='2'><failure/></testcase>"
        reports = read_reports([_text("a.xml", case), _text("merged.xml", f"<testsuites>{case}</testsuites>")])
        assert [run.outcome for run in reports.tests] == [Outcome.FAILED]

    def test_the_same_bytes_twice_are_one_file(self):
        reports = read_reports([_text("a.xml", "<testcase name='n'/>"), _text("b.xml", "<testcase name='n'/>")])
        assert reports.files == 1
        assert reports.dropped == (Dropped("b.xml", "the same bytes as a.xml, counted once", kept=True),)
        assert reports.outcome() == BuildOutcome.PASSED, "two packages without tests have the same report, too"
        assert reports.digest == read_reports([_text("c.xml", "<testcase name='n'/>")]).digest

    def test_the_digest_does_not_depend_on_the_order_of_the_files(self):
        a, b = _text("a.xml", "<testcase name='a'/>"), _text("b.xml", "<testcase name='b'/>")
        assert read_reports([a, b]).digest == read_reports([b, a]).digest != read_reports([a]).digest
        assert read_reports([]).digest == ""

    def test_the_digest_is_of_all_bytes_even_where_reading_stopped(self):
        stop = "<testsuite><testcase name='a'/></testsuites>" + " " * 200_000
        assert read_reports([_text("a.xml", stop + "1")]).digest != read_reports([_text("a.xml", stop + "2")]).digest

    def test_unreadable_file_is_dropped_and_others_count(self):
        """A file that cannot be read is dropped, and the others count."""

        def missing():
            raise FileNotFoundError(2, "No such file or directory")

        reports = read_reports([("gone.xml", missing), _text("a.xml", "<testcase name='a'/>")])
        assert reports.dropped == (Dropped("gone.xml", "cannot be read: No such file or directory"),)
        assert len(reports.tests) == reports.files == 1

    def test_globs_become_sorted_files_each_once(self, tmp_path):
        for name in ("b/deep/TEST-x.xml", "a.xml", "b/TEST-a.xml", "b/notes.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("<testsuite/>")
        files = expand(["**/TEST-*.xml", "./*.xml", "a.xml", str(tmp_path / "a.xml")], tmp_path)
        assert [item[0] for item in files] == ["a.xml", "b/TEST-a.xml", "b/deep/TEST-x.xml"]
        assert read_reports(files).files == 1  # three files of the same bytes

    def test_a_glob_without_a_file_says_so(self, tmp_path):
        (tmp_path / "reports").mkdir()
        missed = expand(["reports", "**/*.xml"], tmp_path)
        assert [expect(Dropped, item).source for item in missed] == ["reports", "**/*.xml"]
        assert read_reports(missed).dropped == missed

    def test_a_million_notes_of_one_kind_are_told_as_a_number(self):
        items = _runs("<testsuite>" + "<testcase/>" * 250 + "</testsuite>")
        assert len(items) == 101
        assert items[-1] == Dropped("r.xml:*", "150 more: a test case without name and class")

    @pytest.mark.slow
    def test_many_attempts_at_one_test_are_read_in_linear_time(self):
        text = "<testsuite>" + "<testcase name='n'/>" * 100_000 + "</testsuite>"
        assert len(read_reports([_text("a.xml", text)]).tests) == 1


class TestSeveralDocuments:
    HEAD = '<?xml version="1.0" encoding="UTF-8"?>'

    @pytest.mark.parametrize("head", ["", HEAD, f"\n{HEAD}\n", f"{HEAD}<!DOCTYPE testsuites>"])
    def test_reports_in_one_file_are_all_read(self, head: str) -> None:
        """`cargo test` writes one for each of its programs: the tests of all but the first were lost."""
        one, other = (f'<testsuite name="s"><testcase classname="c" name="{n}"/></testsuite>' for n in "ab")
        read = read_reports([_text("r.xml", f"{self.HEAD}{one}{head}{other}{head}{one}")])
        assert ([run.test for run in read.tests], read.outcome()) == (["c#b", "c#a"], BuildOutcome.PASSED)
        assert [(item.kept, item.reason) for item in read.dropped] == [(True, f"{SEVERAL} (1 in this file)")]

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_a_declaration_is_found_across_blocks(self, size: int) -> None:
        text = f'<testsuite/>{self.HEAD}<!DOCTYPE x><testcase name="a < b"/>{self.HEAD}'.encode()
        blocks = (text[start : start + size] for start in range(0, len(text), size))
        joined = b"".join(join_documents(blocks))
        assert joined == b'<testsuites name="several reports"><testsuite/><testcase name="a < b"/></testsuites>'

    def test_a_second_report_that_is_cut_off_is_damaged(self) -> None:
        one = '<testsuite name="s"><testcase classname="c" name="{}"/></testsuite>'
        read = read_reports([_text("r.xml", f"{one.format('a')}{one.format('b')[:40]}")])
        assert ([run.test for run in read.tests], read.outcome()) == (["c#a"], BuildOutcome.UNKNOWN)

    def test_a_line_behind_the_report_is_no_damage(self) -> None:
        """Runners that print their report print more."""
        read = read_reports([_text("r.xml", '<testsuite><testcase name="a"/></testsuite>\nDone in 3 s & ready.\n')])
        assert (len(read.tests), read.outcome()) == (1, BuildOutcome.PASSED)


class TestAnnounced:
    def test_an_error_without_a_test_is_a_build_that_failed(self) -> None:
        """gotestsum writes it where a package does not compile; '0 tests and 1 failures' sounded like a lost report."""
        report = '<testsuites tests="0" failures="0" errors="1" time="0.16"></testsuites>'
        read = read_reports([_text("report.xml", report)])
        [run] = read.tests
        assert (run.test, run.message) == ("build#<init>", "1 error and no test, as where a package does not compile")
        assert (read.dropped, read.outcome()) == ((), BuildOutcome.FAILED)

    @pytest.mark.parametrize(
        ("suite", "case", "test"),
        [
            ("pytest", 'classname="" name="tests.cart"><error message="collection failure"', "tests.cart#<init>"),
            ("pytest", 'classname="" name="tests.cart"><skipped message="collection skipped"', "tests.cart#<init>"),
            ("u", 'classname="unittest.loader._FailedTest.tests" name="cart"><error message=""', "tests.cart#<init>"),
            (
                "unittest.suite._ErrorHolder-20261130",
                'classname="" name="setUpClass (tests.cart.Cart)"><error',
                "tests.cart.Cart#setUpClass",
            ),
            ("cart.test.js", 'classname="Test suite failed to run" name="cart.test.js"><error', "cart.test.js#<init>"),
            ("cart.test.js", 'classname="cart.test.js" name="cart.test.js"><failure', "cart.test.js#<init>"),
            ("shop", 'classname="adds" name="adds"><failure', "adds#adds"),
        ],
    )
    def test_what_could_not_be_loaded_is_named_by_its_place(self, suite: str, case: str, test: str) -> None:
        """unittest's had the time of the run in their name, and never a history; pytest's were of a class `pytest`."""
        report = f'<testsuites><testsuite name="{suite}"><testcase {case}/></testcase></testsuite></testsuites>'
        assert [run.test for run in read_reports([_text("r.xml", report)]).tests] == [test]
