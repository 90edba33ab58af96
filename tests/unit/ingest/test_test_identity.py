"""Which cases are one test, and which are attempts at it; the inputs follow public bug reports."""

import io
from collections import Counter
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.junit import read_reports
from fedstep.ingest.test_identity import REPEATING_TOOLS, earlier_ids, find_earlier, retry_of, variant_of
from fedstep.types import Outcome

FAILURE = "<failure type='E'/>"


def case(group: str, name: str, inside: str = "", **attributes: str) -> str:
    told = {"classname": group, "name": name, "time": "0.5", **attributes}
    return f"<testcase {' '.join(f'{key}={quoteattr(value)}' for key, value in told.items())}>{inside}</testcase>"


def suite(name: str, *inside: str, **attributes: str) -> str:
    told = " ".join(f"{key}={quoteattr(value)}" for key, value in {"name": name, **attributes}.items())
    return f"<testsuite {told}>{''.join(inside)}</testsuite>"


def root(*suites: str, **attributes: str) -> str:
    told = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items())
    return f"<testsuites {told}>{''.join(suites)}</testsuites>"


def outcomes(**reports: str) -> dict[str, str]:
    """Return the outcome of each test by its id; the reports are named by paths with "__" for "/"."""
    files = [
        (f"{path.replace('__', '/')}.xml", lambda text=text: io.BytesIO(text.encode()))
        for path, text in reports.items()
    ]
    return {run.test: run.outcome.value for run in read_reports(files).tests}


def property_of(name: str, value: str) -> str:
    return f"<properties><property name={quoteattr(name)} value={quoteattr(value)}/></properties>"


PASSED, FAILED = case("cart", "adds"), case("cart", "adds", FAILURE)


class TestSuites:
    @pytest.mark.parametrize(
        ("report", "tests"),
        [
            (root(suite("api", PASSED), suite("web", FAILED)), {"api::cart#adds": "p", "web::cart#adds": "f"}),
            (root(suite("a", suite("x", PASSED)), suite("b", suite("x", FAILED))),
             {"a/x::cart#adds": "p", "b/x::cart#adds": "f"}),
            (root(suite("x.org/a/cart", PASSED), suite("x.org/b/cart", FAILED)),
             {"x.org/a/cart#adds": "p", "x.org/b/cart#adds": "f"}),
            (root(suite("Chrome Headless 131.0.0.0 (Linux)", PASSED), suite("Firefox 108.0 (Linux)", FAILED)),
             {"Chrome Headless (Linux)::cart#adds": "p", "Firefox (Linux)::cart#adds": "f"}),
            (root(suite("lib 3.1", PASSED), suite("lib 3.2", FAILED)),
             {"lib 3.1::cart#adds": "p", "lib 3.2::cart#adds": "f"}),
            (root(suite("t.Cart-20260101120000", PASSED), suite("t.Cart-20260101120009", FAILED)), {"cart#adds": "f"}),
            (root(suite("cart", PASSED), suite("cart", FAILED)), {"cart#adds": "f"}),
            (root(suite("cart", PASSED, package="a"), suite("cart", FAILED, package="b")),
             {"a.cart::cart#adds": "p", "b.cart::cart#adds": "f"}),
            (root(suite("Shop.dll", PASSED, package="/b/net48/Shop.dll"),
                  suite("Shop.dll", FAILED, package="/b/net8.0/Shop.dll")),
             {"Shop.dll (net48)::cart#adds": "p", "Shop.dll (net8.0)::cart#adds": "f"}),
            (root(suite("s", case("cart", "adds", file="a/test_x.py"), case("cart", "adds", FAILURE, file="b/t.py"))),
             {"a/test_x.py::cart#adds": "p", "b/t.py::cart#adds": "f"}),
            (root(suite("s", case("cart", "adds", file="/1/x.py"), case("cart", "adds", FAILURE, file="/2/x.py"))),
             {"cart#adds": "f"}),
            (root(suite("s", PASSED, FAILED, PASSED)), {"cart#adds": "f"}),
            (root(suite("s", FAILED, PASSED)), {"cart#adds": "f"}),
            (root(suite("s", FAILED, FAILED)), {"cart#adds": "f"}),
        ],
    )  # fmt: skip
    def test_one_name_in_two_suites_is_two_tests(self, report, tests):
        assert outcomes(r=report) == tests

    @pytest.mark.parametrize(
        ("attributes", "file"),
        [
            ({"name": "packages/a/form.test.tsx"}, "packages/a/form.test.tsx"),
            ({"name": "Form", "file": "packages/a/form.spec.mjs"}, "packages/a/form.spec.mjs"),
            ({"name": "src\\form.test.ts"}, "src/form.test.ts"),
        ],
    )
    def test_a_test_of_javascript_belongs_to_its_file(self, attributes, file):
        name = attributes.pop("name")
        cases = case("Form renders", "Form renders"), case("Form", "submits"), case("submits", "Form submits twice")
        assert outcomes(r=root(suite(name, *cases, **attributes))) == {
            f"{file}#Form renders": "p", f"{file}::Form#submits": "p", f"{file}::submits#Form submits twice": "p"
        }  # fmt: skip

    def test_mochas_root_suite_names_the_file_of_those_behind(self):
        suites = (
            suite("Root Suite", file="cypress/e2e/a.cy.js"), suite("cart", case("adds", "cart adds")),
            suite("Root Suite", file="cypress/e2e/b.cy.js"), suite("cart", case("adds", "cart adds", FAILURE)),
        )  # fmt: skip
        assert outcomes(r=root(*suites, name="Mocha Tests")) == {
            "cypress/e2e/a.cy.js#cart adds": "p", "cypress/e2e/b.cy.js#cart adds": "f"
        }  # fmt: skip

    def test_a_browser_is_a_part_of_the_id_without_version(self):
        chrome, firefox = (property_of("browser", name) for name in ("chrome 106", "firefox 108.0"))
        assert outcomes(r=root(suite("s", chrome, PASSED), suite("s", firefox, FAILED))) == {
            "cart#[chrome] adds": "p", "cart#[firefox] adds": "f"
        }  # fmt: skip
        assert variant_of("Chrome Headless 131.0.1") == "chrome headless"


class TestFiles:
    @pytest.mark.parametrize(
        ("passed", "failed", "tests"),
        [
            ("matrix__ubuntu__report", "matrix__windows__report", ("[matrix/ubuntu] ", "[matrix/windows] ")),
            ("a__target__surefire-reports__TEST-x", "b__target__surefire-reports__TEST-x", ("[a] ", "[b] ")),
            ("build__test-results__testDebugUnitTest__TEST-x", "build__test-results__testReleaseUnitTest__TEST-x",
             ("[testDebugUnitTest] ", "[testReleaseUnitTest] ")),
            ("junit-chrome", "junit-firefox", ("[junit-chrome] ", "[junit-firefox] ")),
            ("report", "services__api__report", ("", "[services/api] ")),
        ],
    )  # fmt: skip
    def test_one_name_in_two_files_is_two_tests(self, passed, failed, tests):
        found = outcomes(**{passed: suite("s", PASSED), failed: suite("s", FAILED.replace("0.5", "0.7"))})
        assert found == {f"cart#{tests[0]}adds": "p", f"cart#{tests[1]}adds": "f"}

    @pytest.mark.parametrize(
        ("passed", "failed", "tests"),
        [
            ("reports-py311__junit", "reports-py312__junit", ("[reports-py311] ", "[reports-py312] ")),
            ("junit-1", "junit-2", ("[junit-1] ", "[junit-2] ")),
            ("junit (1)", "junit (2)", ("[junit (1)] ", "[junit (2)] ")),
            ("artifacts__unit-ubuntu-3.11__out__r", "artifacts__unit-macos-3.11__out__r",
             ("[unit-ubuntu-3.11] ", "[unit-macos-3.11] ")),
            ("results__chrome__TEST-cart", "results__firefox__TEST-cart", ("[chrome] ", "[firefox] ")),
            ("r-py311-attempt-1", "r-py312-attempt-1", ("[r-py311] ", "[r-py312] ")),
            ("py311__attempt-2__junit", "py312__attempt-1__junit", ("[py311] ", "[py312] ")),
            ("rerun-py311__junit", "rerun-py312__junit", ("[-py311] ", "[-py312] ")),
            ("junit-linux-x64", "junit-linux-arm64", ("[junit-linux-x64] ", "[junit-linux-arm64] ")),
            ("node-20.1.0__junit", "node-22.0.0__junit", ("[node-20.1.0] ", "[node-22.0.0] ")),
            ("shard-1__r", "shard-2__r", ("[shard-1] ", "[shard-2] ")),
            ("TEST-cart.jdk17", "TEST-cart.jdk21", ("[TEST-cart.jdk17] ", "[TEST-cart.jdk21] ")),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("times", [True, False])
    def test_cells_of_a_matrix_in_one_build_are_told_apart(self, passed, failed, tests, times):
        """Each of them has other passing tests, too; with and without times, by which copies are known."""
        alike = [case("cart", f"sums{number}") for number in range(3)]
        texts = [root(suite("pytest", *alike, one), name="pytest tests") for one in (PASSED, FAILED)]
        if not times:
            texts = [text.replace(' time="0.5"', "") for text in texts]
        found = outcomes(**dict(zip((passed, failed), texts, strict=True)))
        assert {test: letter for test, letter in found.items() if "adds" in test} == {
            f"cart#{tests[0]}adds": "p", f"cart#{tests[1]}adds": "f"
        }  # fmt: skip
        assert not {"k", "c"} & set(found.values())

    def test_files_that_nothing_tells_apart_have_one_failed_test(self):
        """Digests and times in file names change with every build: they are no part of an id."""
        for names in (
            ("r-0123456789abcdef0123", "r-fedcba98765432100123"),
            ("r-550e8400-e29b-41d4-a716-446655440000", "r-67e55044-10b1-426f-9247-bb680e5fe0c8"),
            ("r-2026-11-29_12_00_00", "r-2026-11-29_12_00_09"),
            ("r-a1b2c3d", "r-4e5f6a7b8"),
            ("runner_fv-az1-23_2026-11-29_12_00_00", "runner_fv-az7-8_2026-11-29_12_00_05[1]"),
        ):
            reports = dict(zip(names, (suite("s", PASSED), suite("s", FAILED)), strict=True))
            assert outcomes(**reports) == {"cart#adds": "f"}

    @pytest.mark.parametrize(
        ("first", "second"),
        [("report", "report-rerun"), ("report", "report-rerun-1"), ("attempt-1__r", "attempt-2__r"), ("r", "retry__r"),
         ("report", "rerun"), ("out__report", "out__rerun"),
         ("cart__test", "cart__test_attempts__attempt_1"), ("out__r.attempt1", "out__r.attempt2")],
    )  # fmt: skip
    def test_a_report_that_is_called_a_rerun_has_attempts(self, first, second):
        assert outcomes(**{first: suite("s", FAILED), second: suite("s", PASSED)}) == {"cart#adds": "k"}
        again = FAILED.replace("0.5", "0.7")
        assert outcomes(**{first: suite("s", FAILED), second: suite("s", again)}) == {"cart#adds": "c"}

    def test_the_words_of_a_retry_are_whole_words(self):
        assert retry_of("TEST-shop.RetryTest.xml") == ("TEST-shop.RetryTest", 0)
        assert retry_of("reports/retries/2/r.xml")[1] == 1

    def test_a_copy_is_one_test_unless_it_is_of_another_moment(self):
        cells = [suite("s", PASSED, timestamp=f"2026-01-02T03:04:0{second}") for second in (5, 9)]
        assert outcomes(a=cells[0] + " ", b=cells[0]) == {"cart#adds": "p"}
        assert outcomes(a=cells[0], b=cells[1]) == {"cart#[a] adds": "p", "cart#[b] adds": "p"}


class TestFrameworks:
    TRX = (
        '<TestRun id="1"><Results><UnitTestResult testId="1" testName="Shop.Cart.Adds" outcome="{}"/></Results>'
        '<TestDefinitions><UnitTest storage="/w/bin/debug/{}/shop.dll" id="1"><TestMethod className="Shop.Cart"/>'
        "</UnitTest></TestDefinitions></TestRun>"
    )
    XUNIT = (
        '<assemblies><assembly name="C:\\w\\{1}\\shop.dll"><collection><test name="Shop.Cart.Adds" type="Shop.Cart" '
        'result="{0}"/></collection></assembly></assemblies>'
    )
    NUNIT = (
        '<test-run><test-suite type="Assembly" name="shop.dll" fullname="/w/{1}/shop.dll"><test-case '
        'fullname="Shop.Cart.Adds" classname="Shop.Cart" result="{0}"/></test-suite></test-run>'
    )

    @pytest.mark.parametrize(
        ("form", "passed", "failed"),
        [(TRX, "Passed", "Failed"), (XUNIT, "Pass", "Fail"), (NUNIT, "Passed", "Failed")],
    )
    def test_a_target_framework_is_told_apart(self, form: str, passed: str, failed: str):
        """What is built for two frameworks runs the same tests twice: a failure in one is no flake."""
        found = outcomes(a=form.format(passed, "net8.0"), b=form.format(failed, "net48"))
        assert found == {"shop.dll (net8.0)::Shop.Cart#Adds": "p", "shop.dll (net48)::Shop.Cart#Adds": "f"}


class TestAttempts:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (case("cart", "adds", FAILURE, attempt="1"), case("cart", "adds", attempt="2")),
            (case("cart", "adds", FAILURE, retry="0"), case("cart", "adds", retry="1")),
            (case("cart", "adds", FAILURE + property_of("repetition", "First Run")),
             case("cart", "adds", property_of("repetition", "Retry 1"))),
            (case("cart", "adds", FAILURE + property_of("retry", "0")),
             case("cart", "adds", property_of("retry", "1"))),
            (case("cart", "adds", FAILURE + property_of("attempt", "1")),
             case("cart", "adds", property_of("attempt", "2"))),
            (case("cart", "adds", FAILURE, flaky="true"), ""),
            (case("cart", "adds", "<flakyFailure/>"), ""),
        ],
    )  # fmt: skip
    def test_attempts_that_the_report_tells_are_a_flake(self, first, second):
        assert outcomes(r=suite("s", first, second)) == {"cart#adds": "k"}

    GRADLE = '<testsuite name="s" tests="2" skipped="0" failures="1" errors="0" hostname="h">{}</testsuite>'

    @pytest.mark.parametrize(
        ("letters", "outcome"), [("fp", "k"), ("ff", "c"), ("ffp", "k"), ("pf", "f"), ("fpp", "f"), ("pfp", "f")]
    )
    def test_gradle_repeats_a_case_only_after_a_failure(self, letters, outcome):
        cases = "".join(FAILED if letter == "f" else PASSED for letter in letters)
        assert outcomes(r=self.GRADLE.format(cases)) == {"cart#adds": outcome}
        assert "Gradle" in REPEATING_TOOLS

    def test_attempts_stand_inside_one_suite(self):
        cells = self.GRADLE.format(FAILED) + self.GRADLE.format(PASSED)
        assert outcomes(r=f"<testsuites>{cells}</testsuites>") == {"cart#adds": "f"}

    PYTEST = '<testsuites name="pytest tests"><testsuite name="pytest" tests="{}">{}</testsuite></testsuites>'

    @pytest.mark.parametrize(
        ("letters", "others", "declared", "outcome"),
        [
            ("pf", "p", 2, "c"), ("pp", "p", 2, "k"), ("pf", "p", 9, "c"), ("pp", "p", 9, "k"), ("ff", "p", 2, "f"),
            ("ppf", "pp", 3, "c"), ("ppf", "pp", 5, "f"), ("ppp", "pp", 5, "p"), ("ppf", "pp", 4, "f"),
            ("pf", "", 1, "c"), ("pf", "", 2, "f"), ("pp", "", 2, "p"),
        ],
    )  # fmt: skip
    def test_subtests_and_siblings_of_pytest_change_nothing(self, letters, others, declared, outcome):
        """Reruns are not among the announced tests; what is counted there are subtests or runs of `--dist each`."""
        cases = "".join(FAILED if letter == "f" else PASSED for letter in letters)
        cases += "".join(case("cart", f"other{number}") for number, _ in enumerate(others))
        assert outcomes(r=self.PYTEST.format(declared, cases))["cart#adds"] == outcome


names = st.sampled_from(["adds", "sums", "ships"])
groups = st.sampled_from(["cart", "shop.Cart", "Form renders"])
places = st.sampled_from(["", "api", "web", "src/a.test.ts"])
heads = st.sampled_from([("", {}), ("", {"name": "jest tests"}), ("", {"name": "Mocha Tests"}), ("pytest", {})])
rows = st.lists(st.tuples(places, groups, names), max_size=8)


class TestLaws:
    @given(heads, st.tuples(places, groups, names), rows, rows, st.booleans())
    def test_unrelated_passes_never_make_a_failure_a_flake(self, head, failing, others, elsewhere, is_first):
        """Whatever passes beside a failure, in its report or in another, it stays a failure; and only it is one.

        Related are the cases with its name and class in its own suite: there some tools repeat a case.
        """
        name, attributes = head
        place, group, test = failing
        failed = suite(place or name, case(group, test, FAILURE), tests="1")
        passed = [
            suite(at or name, case(cls, one), tests="1") for at, cls, one in others if (cls, one) != (group, test)
        ]
        passed += [suite(at, case(group, test), tests="1") for at, *_ in others if at and at != place]
        here = [failed, *passed] if is_first else [*passed, failed]
        there = [suite(at or name, case(cls, one, time="0.1"), tests="1") for at, cls, one in elsewhere]
        found = outcomes(a=root(*here, **attributes), b=root(*there, **attributes))
        assert Counter(found.values())["f"] == 1
        assert not {"k", "c"} & set(found.values())

    @given(st.lists(st.tuples(groups, names), min_size=1, unique=True), st.sampled_from(["", "chrome", "firefox"]))
    def test_an_id_leads_back_to_the_one_before(self, tests, browser):
        properties = property_of("browser", browser) if browser else ""
        ids = outcomes(r=root(suite("s", properties, *(case(*test) for test in tests))))
        old = {f"{group}#{name}": None for group, name in tests}
        new = [test for test in ids if test not in old]
        assert set(find_earlier(old, new, ids).items()) == (
            {(one.replace("#[" + browser + "] ", "#"), one) for one in new}
        )


class TestEarlierIds:
    @pytest.mark.parametrize(
        ("test", "earlier"),
        [
            ("shop.Cart#adds", set()),
            ("cart#[chrome] adds", {"cart#adds"}),
            ("web::cart#adds", {"cart#adds"}),
            ("web::cart#[chrome] adds", {"cart#adds", "cart#[chrome] adds"}),
            ("src/a.test.ts#cart adds", {"cart adds#cart adds", "adds#cart adds"}),
            ("src/a.test.ts::cart#adds", {"cart#adds"}),
            ("x.org/a/cart#TestAdds", {"cart#TestAdds"}),
        ],
    )
    def test_earlier_ids_are_those_without_suite_or_variant(self, test, earlier):
        assert set(earlier_ids(test)) == earlier

    def test_an_earlier_id_that_several_had_is_nobodys(self):
        new = ["web::cart#adds", "api::cart#adds"]
        assert find_earlier({"cart#adds": None}, new, new) == {}
        assert find_earlier({"cart#adds": None}, new[:1], [*new[:1], "cart#adds"]) == {}

    @pytest.mark.parametrize(
        "pair",
        [(suite("api", PASSED), suite("web", FAILED)),
         (suite("s", case("cart", "adds", file="a.py")), suite("s", case("cart", "adds", FAILURE, file="b.py"))),
         (suite("s", PASSED, package="a"), suite("s", FAILED, package="b"))],
    )  # fmt: skip
    def test_a_second_test_of_a_name_takes_no_past(self, pair: tuple[str, str]):
        """Without origins it is not known which of them it was, so that neither has its past; alone it has."""
        alone, both = outcomes(r=root(pair[0])), outcomes(r=root(*pair))
        assert list(alone) == ["cart#adds"]
        assert sorted(both.values()) == ["f", "p"]
        assert find_earlier(alone, both, both) == {}
        first = next(test for test in both if both[test] == "p")
        assert find_earlier(alone, [first], [first]) == {"cart#adds": first}
        assert set(alone) <= set(earlier_ids(first)), "`fedstep explain` and mutes find it by the earlier id"


class TestUnnamed:
    def test_a_failure_without_a_name_is_one_of_its_suite(self):
        reports = read_reports(
            [("r.xml", lambda: io.BytesIO(suite("s", case("", "", FAILURE), case("", "")).encode()))]
        )
        assert [(run.test, run.outcome) for run in reports.tests] == [("s#<unnamed>", Outcome.FAILED)]
        assert [item.kept for item in reports.dropped] == [False, False]
