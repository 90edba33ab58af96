"""The arguments that run some failures again: right for each runner, one line, and harmless in a shell."""

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.pipeline.context import exists_within
from fedstep.report.rerun import RUNNERS, selection
from fedstep.results import FailureVerdict

FILES = {"tests/test_cart.py", "shop/test_a.py", "src/cart.test.js", "src/bank.test.js", "-x/test_b.py"}


def failure(test: str, file: str = "") -> FailureVerdict:
    return FailureVerdict(test, 0.9, verdict="flaky", file=file)


def line(runner: str, *tests: str | FailureVerdict) -> str:
    failures = [failure(test) if isinstance(test, str) else test for test in tests]
    return "\n".join(selection(runner, failures, FILES.__contains__).lines)


class TestPytest:
    @pytest.mark.parametrize("runner", RUNNERS)
    def test_no_failure_is_an_empty_line(self, runner: str) -> None:
        assert selection(runner, (), FILES.__contains__) == ((), ())

    def test_pytest_is_told_node_ids(self) -> None:
        found = line("pytest", "tests.test_cart#test_pay", "tests.test_cart.TestCart#test_pay[a b]")
        assert shlex.split(found) == ["tests/test_cart.py::test_pay", "tests/test_cart.py::TestCart::test_pay[a b]"]

    def test_file_of_a_report_helps_outside_the_current_folder(self) -> None:
        """The file of a report helps where the module is not below the current folder."""
        told = failure("test_a.TestA.TestInner#test_b", "shop/test_a.py")
        assert line("pytest", told) == "shop/test_a.py::TestA::TestInner::test_b"

    def test_a_node_id_is_neither_an_option_nor_a_file_of_options(self) -> None:
        assert line("pytest", "-x.test_b#test_c") == "./-x/test_b.py::test_c"

    def test_no_file_outside_of_the_repository_is_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A report of an artifact named files that lay elsewhere, and pytest imports what it is told to run."""
        repository = tmp_path / "repository"
        (repository / "web").mkdir(parents=True)
        monkeypatch.chdir(repository / "web")
        for path in (tmp_path / "evil.py", tmp_path / "evil.test.js", repository / "cart.py", repository / "a.test.js"):
            path.touch()
        exists = exists_within(str(repository))
        for place in (str(tmp_path), "../.."):
            told = [failure(f"{place}/evil#test_a"), failure("a#test_b", f"{place}/evil.py")]
            assert selection("pytest", told, exists) == ((), (told[0].test, told[1].test))
            (line,) = selection("jest", [failure("a#test_c", f"{place}/evil.test.js")], exists).lines
            assert "--runTestsByPath" not in line
        assert selection("pytest", [failure("cart#test_a", "../cart.py")], exists).lines == ("../cart.py::test_a",)
        (line,) = selection("jest", [failure("a#test_c", f"{repository}/a.test.js")], exists).lines
        assert f"--runTestsByPath {repository}/a.test.js" in line

    def test_a_test_whose_file_is_unknown_is_left_out_and_told(self) -> None:
        assert selection("pytest", (failure("nowhere.test_x#test_y"),), FILES.__contains__) == (
            (),
            ("nowhere.test_x#test_y",),
        )


class TestRunners:
    def test_an_escaped_control_character_is_left_out(self) -> None:
        """One node id that pytest does not find ends the whole run without a test."""
        chosen = selection("pytest", [FailureVerdict("tests.test_cart#test_pay[a#x0Ab]", 0.9)], FILES.__contains__)
        assert chosen == ((), ("tests.test_cart#test_pay[a#x0Ab]",))

    def test_maven_is_told_methods_by_class(self) -> None:
        found = line("maven", "a.CartTest#pays", "a.BankTest#asks", "a.CartTest#fills", "a.CartTest#pays")
        assert found == "'-Dtest=a.CartTest#pays+fills,a.BankTest#asks'"

    @pytest.mark.parametrize(
        ("name", "maven", "gradle"),
        [
            ("pays", "pays", ["pays"]),
            ("pays()", "pays", ["pays"]),
            ("pays(int)[2]", "pays", ["pays"]),
            ("pays{int, int}[1]", "pays", ["pays"]),
            ("pays[2]", "pays[2]", ["pays", "pays[2]"]),
            ("pays[2 of b, c]", "pays[2?of?b??c]", ["pays", "pays[2*of*b**c]"]),
            ("pays, twice+more", "pays??twice?more", ["pays**twice*more"]),
        ],
    )
    def test_parameters_and_odd_characters_of_java_methods(self, name: str, maven: str, gradle: list[str]) -> None:
        assert shlex.split(line("maven", f"a.B$C#{name}")) == [f"-Dtest=a.B$C#{maven}"]
        assert shlex.split(line("gradle", f"a.B$C#{name}")) == [
            word for pattern in gradle for word in ("--tests", f"a.B$C.{pattern}")
        ]

    def test_gradle_is_told_one_pattern_a_method(self) -> None:
        assert line("gradle", "a.B#c", "a.B#d") == "--tests a.B.c --tests a.B.d"

    def test_jest_is_told_full_names_and_their_files(self) -> None:
        found = shlex.split(line("jest", failure("cart pays (twice)#cart pays (twice)", "src/cart.test.js")))
        assert found[:3] == ["--runTestsByPath", "src/cart.test.js", "-t"]
        assert re.search(found[3], "cart pays (twice)")
        assert not re.search(found[3], "cart pays twice")

    def test_jest_finds_titles_whose_describe_is_in_the_class(self) -> None:
        """Jest finds a title whose `describe` is in the class or nowhere."""
        pattern = shlex.split(line("jest", "cart#pays", "src/bank.test.js#asks"))[-1]
        assert all(re.search(pattern, name) for name in ("cart pays", "pays", "asks", "bank asks"))
        assert not any(re.search(pattern, name) for name in ("cart pays twice", "asks too", "art pays"))

    def test_jest_is_told_no_files_where_one_is_unknown(self) -> None:
        found = line("jest", failure("a#b", "src/cart.test.js"), failure("c#d"))
        assert shlex.split(found)[0] == "-t"

    @pytest.mark.parametrize("runner", ["jest", "vitest", "mocha"])
    @pytest.mark.parametrize(
        ("test", "full_name"),
        [
            (" top level# top level", "top level"),  # jest-junit as it comes
            ("src/cart.test.js# › top level", "top level"),
            ("src/cart.test.js#cart › deep › pays", "cart deep pays"),
            ("src/cart.test.js#cart > deep > pays", "cart deep pays"),  # vitest
            ("cart.deep pays#cart.deep pays", "cart deep pays"),
            ("cart::deep::pays#cart::deep::pays", "cart deep pays"),
            ("cart/deep#cart/deep pays", "cart deep pays"),
            (" two lines# two lines", "two\nlines"),
            ("cart#pays > 3 -> more", "cart pays > 3 -> more"),
            ("cart#  padded  ", "cart   padded  "),
            (" nameless describe# nameless describe", " nameless describe"),
            ("a.*b#a.*b c", "a.*b c"),
        ],
    )
    def test_a_title_is_found_whatever_the_separator(self, runner: str, test: str, full_name: str) -> None:
        """Reporters write titles with separators of their own; the runner compares full names with spaces."""
        pattern = shlex.split(line(runner, test))[-1]
        assert re.search(pattern, full_name)
        assert not re.search(pattern, f"{full_name} too")

    @pytest.mark.parametrize("runner", ["jest", "vitest", "mocha"])
    def test_a_variant_in_the_id_is_no_part_of_the_title(self, runner: str) -> None:
        """The runner knows no browser and no report file by that name; a title may begin with brackets all the same."""
        for test in ("src/cart.test.js#[firefox] cart adds", "cart#[web/report-1] adds"):
            pattern = shlex.split(line(runner, test))[-1]
            assert re.search(pattern, "cart adds")
            assert not re.search(pattern, "cart adds too")
        assert re.search(shlex.split(line(runner, "src/cart.test.js#[odd] adds"))[-1], "[odd] adds")

    def test_playwright_finds_a_test_of_one_project_with_its_tags(self) -> None:
        """Playwright compares project, file, titles and tags; a title of another project or file must not run."""
        pattern = shlex.split(line("playwright", "cart.spec.js#[mobile] cart › pays (twice)"))[-1]
        assert re.search(pattern, " mobile cart.spec.js cart @slow pays (twice) @smoke")
        others = ("desktop cart.spec.js cart pays (twice)", "mobile a-cart.spec.js cart pays (twice)")
        assert not any(
            re.search(pattern, f" {title}") for title in (*others, "mobile cart.spec.js cart pays (twice) too")
        )
        assert selection("playwright", (failure("cart.spec.js#<init>"),), FILES.__contains__).lines == ()

    def test_a_name_of_separators_alone_is_left_out(self) -> None:
        assert selection("jest", (failure("a# › "),), FILES.__contains__) == ((), ("a# › ",))

    def test_go_is_told_the_package_of_each_test(self) -> None:
        """A test of the same name in another package must not run, nor a subtest that did not fail."""
        found = line("go", "example.org/shop/cart#TestPay", "example.org/shop/cart#TestBuy", "bank#TestPay")
        assert found.splitlines() == [
            "example.org/shop/cart -run '^(TestPay|TestBuy)$'",
            "./.../bank -run '^(TestPay)$'",
        ]
        assert line("go", "a/b#TestX", "a/b#TestX/one", "a/b#TestX/two.3") == r"a/b -run '^TestX$/^(one|two\.3)$'"

    def test_go_is_told_every_level_of_a_subtest(self) -> None:
        """The siblings of a subtest do not run, on whatever level, also where a name has slashes."""
        found = line(
            "go", "a/b#TestX", "a/b#TestX/one", "a/b#TestX/one/two", "a/b#TestX/three/four", "a/b#TestX/three/"
        )
        assert found.splitlines() == ["a/b -run '^TestX$/^one$/^(two)$'", "a/b -run '^TestX$/^three$/^(four|)$'"]


class TestShell:
    @given(
        st.sampled_from(sorted(RUNNERS)),
        st.lists(
            st.tuples(st.text(max_size=12), st.text(max_size=12), st.sampled_from(["", *sorted(FILES)])), max_size=4
        ),
    )
    def test_any_name_gives_one_line_that_a_shell_only_splits(self, runner, names) -> None:
        """Any name gives one line of words that a shell only splits."""
        failures = [failure(f"{group}#{name}", file) for group, name, file in names]
        found = selection(runner, failures, lambda path: path.endswith(".py") or path in FILES)
        words = [word for line in found.lines for word in shlex.split(line)]
        assert all(line == shlex.join(shlex.split(line)) and line.isprintable() for line in found.lines)
        options = [word for word in words if word[:1] in ("-", "@")]
        known = {
            "pytest": "$^",
            "maven": "-Dtest=",
            "gradle": "--tests$",
            "jest": "--runTestsByPath$|-t$",
            "vitest": "-t$",
            "mocha": "--grep$",
            "playwright": "--grep$",
            "go": "-run$",
        }
        assert all(re.match(known[runner], word) for word in options)

    @pytest.mark.parametrize("runner", RUNNERS)
    def test_a_hostile_name_is_one_quoted_word_or_left_out(self, runner: str, hostile: str) -> None:
        found = selection(
            runner, [failure(f"tests.test_cart#{hostile}"), failure(f"{hostile}#TestX")], FILES.__contains__
        )
        assert all("\n" not in line and shlex.join(shlex.split(line)) == line for line in found.lines)
