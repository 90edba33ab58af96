"""A test's words are those of its own function, and nothing outside the project is opened."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.test_source import SUFFIXES, SourceIndex, extract_words, read_source, walk_files
from fedstep.ingest.test_source import read_test_words as find_words
from fedstep.types import Outcome, TestRun, Unavailable

SAMPLES = Path(__file__).parents[2] / "data" / "source"


def run_of(test: str, file: str = "") -> TestRun:
    return TestRun(test, Outcome.PASSED, file=file)


def words(root: Path, test: str, file: str = "") -> tuple[str, ...] | Unavailable:
    return find_words(run_of(test, file), str(root), SourceIndex(walk_files(str(root))))


def sample(test: str, file: str = "") -> set[str]:
    found = words(SAMPLES, test, file)
    assert not isinstance(found, Unavailable), found.reason
    return set(found)


def reason(root: Path, test: str, file: str = "") -> str:
    found = words(root, test, file)
    assert isinstance(found, Unavailable)
    return found.reason


class TestPythonFunctions:
    def test_python_test_has_words_of_body_and_fixtures(self) -> None:
        """A Python test has the words of its body and of its fixtures."""
        found = sample("tests.test_orders#test_order_is_shipped")
        assert {"warehouse", "tmp_path", "pack", "parcel", "confirm", "label", "kettle"} <= found
        assert not {"ghostword", "helper", "clock", "sleep", "parametrize"} & found

    def test_code_inside_a_string_begins_no_function(self) -> None:
        assert reason(SAMPLES, "tests.test_orders#test_not_a_function") == "no such test in py/tests/test_orders.py"

    def test_parametrized_id_finds_its_decorated_function(self) -> None:
        """A parametrized id finds its function, with decorators and unindented brackets."""
        found = sample("tests.test_orders#test_many[2-a[b]]")
        assert {"parametrize", "sleep", "total", "range"} <= found
        assert "currency" not in found

    def test_a_class_tells_two_functions_of_one_name_apart(self) -> None:
        assert "refund_many" in sample("tests.test_orders.TestRefund#test_many")
        assert "settle" in sample("tests.test_orders.TestRefund#test_is_paid")
        assert "halves" in sample("py.tests.test_orders.TestRefund.TestPartial#test_half")

    def test_the_last_function_of_a_file_ends_with_it(self) -> None:
        assert sample("tests.test_orders#test_last") == {"def", "test_last", "closing_words"}

    def test_the_file_named_by_the_report_is_used(self) -> None:
        assert "closing_words" in sample("anything#test_last", "py/tests/test_orders.py")
        assert "closing_words" in sample("anything#test_last", "py\\tests\\test_orders.py")
        assert "closing_words" in sample("anything#test_last", str(SAMPLES / "py/tests/test_orders.py"))


class TestJavaMethods:
    def test_a_java_method_ends_at_its_own_brace(self) -> None:
        found = sample("org.shop.CartTest#addsItems")
        assert {"Timeout", "Thread", "sleep", "latency", "confirmAll", "overflow", "quote"} <= found
        assert not {"hidden", "checkPrice", "finish", "innerOnly", "open"} & found

    @pytest.mark.parametrize("name", ["prices(int, String)[1]", "prices{int}[2]", "prices[3]", "prices"])
    def test_parameters_in_a_java_name_are_no_part_of_it(self, name: str) -> None:
        assert "checkPrice" in sample(f"org.shop.CartTest#{name}")

    def test_a_nested_java_class_is_found_in_the_outer_file(self) -> None:
        found = sample("org.shop.CartTest$Inner#addsItems")
        assert "innerOnly" in found
        assert "latency" not in found
        assert "innerOnly" in sample("org.shop.CartTest.Inner#addsItems")

    def test_statements_and_anonymous_classes_are_no_java_methods(self) -> None:
        names = read_source((SAMPLES / "java/src/test/java/org/shop/CartTest.java").read_text(), ".java").functions
        assert {name.rpartition(".")[2] for name in names} == {"now", "open", "addsItems", "prices", "lastOne"}


class TestJavaScriptTests:
    @pytest.mark.parametrize(
        "test",
        [
            "src/basket.test.ts#basket > holds (many) items",
            "js/src/basket.test.ts#holds (many) items",
            "basket holds (many) items#src/basket.test.ts basket holds (many) items",
        ],
    )
    def test_a_javascript_test_is_found_by_its_title(self, test: str) -> None:
        found = sample(test)
        assert {"basket", "toMatch", "fill", "size", "await"} <= found
        assert not {"commented", "addUp", "emptyBasket"} & found

    def test_a_javascript_table_test_and_an_escaped_title_are_found(self) -> None:
        assert "addUp" in sample("basket#basket sums up", "js/src/basket.test.ts")
        assert "emptyBasket" in sample("basket#basket says it's empty", "js/src/basket.test.ts")


class TestProjectFiles:
    def test_what_cannot_be_read_is_absent_with_a_reason(self, tmp_path: Path) -> None:
        assert reason(SAMPLES, "org.shop.StockTest#counts") == "no reader for .kt"
        assert reason(SAMPLES, "org.shop.Nowhere#counts") == "no source file for org.shop.Nowhere"
        assert reason(SAMPLES, "org.shop.CartTest#nothing").startswith("no such test in ")
        for module in ("a", "b"):
            (tmp_path / module).mkdir()
            (tmp_path / module / "test_x.py").write_text("def test_y(): pass\n")
        assert reason(tmp_path, "test_x#test_y") == "2 files fit test_x"

    def test_links_and_dots_do_not_lead_out_of_the_project(self, tmp_path: Path) -> None:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "test_key.py").write_text("def test_key(): password()\n")
        root = tmp_path / "project"
        root.mkdir()
        (root / "test_link.py").symlink_to(tmp_path / "secret" / "test_key.py")
        (root / "folder").symlink_to(tmp_path / "secret")
        assert reason(root, "test_link#test_key") == "test_link.py leads out of the project"
        assert reason(root, "folder.test_key#test_key").startswith("no source file")
        assert reason(root, "x#test_key", "../secret/test_key.py").startswith("no source file")
        index = SourceIndex(["folder/test_key.py", "../secret/test_key.py"])
        found = find_words(run_of("test_key#test_key"), str(root), index)
        assert found == Unavailable("folder/test_key.py leads out of the project")

    def test_a_pipe_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "test_pipe.py")
        assert reason(tmp_path, "test_pipe#test_x") == "test_pipe.py is no regular file"

    def test_other_encodings_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "test_latin.py").write_bytes(b"def test_caf():\n    '\xe9\xff'\n    coffee()\n")
        assert "coffee" in (words(tmp_path, "test_latin#test_caf") or ())

    def test_of_a_large_file_the_first_64_kb_count(self, tmp_path: Path) -> None:
        filler = "".join(f"def test_{n}():\n    step_{n}()\n\n" for n in range(4000))
        (tmp_path / "test_large.py").write_text(filler)
        assert "step_1" in (words(tmp_path, "test_large#test_1") or ())
        assert reason(tmp_path, "test_large#test_3999") == "no such test in test_large.py"

    def test_at_most_300_short_words_are_given(self, tmp_path: Path) -> None:
        body = " ".join(f"word_{n:04}," for n in range(900)) + " x" + "y" * 500
        (tmp_path / "test_long.py").write_text(f"def test_x():\n    [{body}]\n")
        found = words(tmp_path, "test_long#test_x")
        assert isinstance(found, tuple)
        assert len(found) == 300
        assert list(found) == sorted(set(found))
        assert max(map(len, found)) <= 60

    def test_the_walk_skips_what_is_not_the_projects_own(self, tmp_path: Path) -> None:
        for folder in (".git", "node_modules", ".venv", "src"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "a.py").write_text("")
        assert list(walk_files(str(tmp_path))) == ["src/a.py"]

    def test_5000_tests_in_300_files_are_all_found(self, tmp_path: Path) -> None:
        body = "    client = connect('localhost', port=80)\n    assert client.send(payload).status == 200  # fine\n" * 4
        for number in range(300):
            text = "".join(f"def test_{n}(client):\n{body}\n" for n in range(17))
            (tmp_path / f"test_{number}.py").write_text(text)
        index = SourceIndex(walk_files(str(tmp_path)))
        found = [
            find_words(run_of(f"test_{file}#test_{n}"), str(tmp_path), index) for file in range(300) for n in range(17)
        ]
        assert all("connect" in each for each in found if isinstance(each, tuple))
        assert not any(isinstance(each, Unavailable) for each in found)


HOSTILE = ["a(", "it(", "{", '"', "/*", "(a)", "x(b)", "'''", "@a\n", "each(", "/[", '\\"', "\\'", "`\\", '"""\\', "(/"]
HOSTILE += ["a.", "$", "a( b(c)", "class ", "x(b)throws ", "a ", "class a ", "/*\\", "(/\\", "it.", "it ("]


class TestAnyInput:
    @given(st.text(alphabet="abtest(){}[]\"'`/*#\\\n :;.,=def class new$", max_size=300), st.sampled_from(SUFFIXES))
    def test_no_text_breaks_a_reader_and_functions_lie_inside_it(self, text: str, suffix: str) -> None:
        found = read_source(text, suffix)
        assert len(found.text) == len(text)
        for function in found.functions.values():
            assert 0 <= function.start < function.end <= len(text)
            extract_words(found, function)

    @pytest.mark.parametrize("suffix", [".py", ".java", ".js"])
    @pytest.mark.parametrize("unit", HOSTILE)
    def test_the_reading_of_64_kb_of_anything_comes_to_an_end(self, unit: str, suffix: str) -> None:
        text = unit * (64 * 1024 // len(unit))
        signal.alarm(60)  # a pattern that backtracks would take hours; the alarm ends the whole run
        try:
            assert len(read_source(text, suffix).text) == len(text)
        finally:
            signal.alarm(0)

    @given(st.text(max_size=80), st.text(max_size=40))
    def test_no_identity_breaks_the_look_up(self, test: str, file: str) -> None:
        index = SourceIndex(["tests/test_orders.py", "a.ts"])
        assert isinstance(find_words(run_of(test, file), str(SAMPLES), index), (tuple, Unavailable))
