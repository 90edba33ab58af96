"""The message and the signature of a failure: failures with one cause share the signature."""

from io import BytesIO

import pytest

from fedstep.ingest.failure_text import MAX_LINE, FailureText, read_failure
from fedstep.ingest.junit import read_reports, share_causes
from fedstep.types import Outcome, TestRun

PYTEST = """def test_{name}():
        client = make()
>       check(client)

tests/shop/test_{name}.py:{line}:
_ _ _ _
>       raise DatabaseError("no such table: users_{line}")
E       shop.DatabaseError: no such table: users_{line}

shop/db.py:41: DatabaseError"""
JAVA = """java.lang.IllegalStateException: session {id} is gone
\tat java.base/java.util.Objects.requireNonNull(Objects.java:233)
\tat com.acme.shop.Session.load(Session.java:{line})
\tat com.acme.shop.{test}.{method}(CartTest.java:12)
\tat org.junit.runners.ParentRunner.run(ParentRunner.java:1)"""


def of_pytest(name: str, line: int) -> FailureText:
    text = PYTEST.format(name=name, line=line)
    return read_failure(f"tests.shop.test_{name}#test_{name}", "shop.DatabaseError", "", text)


def of_java(test: str, method: str, session: str, line: int = 9) -> FailureText:
    text = JAVA.format(test=test, method=method, id=session, line=line)
    return read_failure(f"com.acme.shop.{test}#{method}", "java.lang.IllegalStateException", "", text)


class TestNoMessage:
    def test_tests_without_a_class_do_not_share_it(self) -> None:
        """Six failed tests of AVA, whose TAP says `AssertionError` alone, were 'tests with one cause'."""
        told = {read_failure(f"#{name}", "AssertionError", "", "AssertionError").signature for name in "abc"}
        assert len(told) == 3


class TestLongText:
    def test_a_text_that_is_cut_has_no_half_of_a_line(self) -> None:
        """The end of a frame, 'ask.execute(Task.java:141)', was the second line of the message."""
        frames = "".join(f"\tat org.junit.platform.engine.Task{n}.execute(Task.java:{n})\n" for n in range(900))
        told = f"java.lang.Error\n{frames}Caused by: java.lang.ArithmeticException: / by zero\n\tat x.A.b(A.java:1)\n"
        case = f'<testcase classname="x.A" name="b"><error type="java.lang.Error">{told}</error></testcase>'
        (run,) = read_reports([("r.xml", lambda: BytesIO(f"<testsuite>{case}</testsuite>".encode()))]).tests
        assert run.message == "java.lang.Error\nCaused by: java.lang.ArithmeticException: / by zero"


class TestSubtests:
    @pytest.mark.parametrize("told", ["", "Failed"])
    def test_a_test_that_fails_with_its_subtest_has_its_cause(self, told: str) -> None:
        """Go fails both: one mistake was two regressions."""
        runs = [TestRun("p#T", Outcome.FAILED, message=told, signature="1"), TestRun("p#U", Outcome.FAILED, message="")]
        child = TestRun("p#T/a/b", Outcome.FAILED, message="bad", signature="2")
        assert [run.signature for run in share_causes((*runs, child))] == ["2", "", "2"]
        own = runs[0]._replace(message="nil")
        assert share_causes((own, child)) == (own, child)


class TestSignature:
    def test_a_module_that_cannot_be_imported_says_why(self) -> None:
        """pytest writes "collection failure" as the message, and the reason in the text alone."""
        text = "ImportError while importing test module 'x'.\nE   ModuleNotFoundError: No module named 'tornado'\n"
        told = read_failure("tests.test_a", "collection", "collection failure", text).message
        assert told == "collection failure: ModuleNotFoundError: No module named 'tornado'"

    def test_failures_below_one_function_share_it(self) -> None:
        """Different tests, lines and numbers, the same exception out of the same function: one bug."""
        assert of_pytest("cart", 7).signature == of_pytest("user", 19).signature

    def test_addresses_and_lines_do_not_count(self) -> None:
        """An object's address differs in every run."""
        one = of_java("CartTest", "pays", "Session@1f2e3d4c", 8)
        assert one.signature == of_java("UserTest", "signsIn", "Session@aabbccdd", 90).signature

    def test_another_function_is_another_cause(self) -> None:
        """The exception is the same, the code below the test is not."""
        text = JAVA.format(test="CartTest", method="pays", id="1", line=1).replace("Session.load", "Session.save")
        other = read_failure("com.acme.shop.CartTest#pays", "java.lang.IllegalStateException", "", text)
        assert other.signature != of_java("CartTest", "pays", "1").signature

    def test_short_numbers_of_an_assertion_count(self) -> None:
        """`assert 200 == 401` and `assert 3 == 4` are two bugs, where only the tests themselves are in the stack."""
        first, second, third = (
            read_failure(f"tests.test_api#test_{name}", "assert", message, f"tests/test_api.py:{line}: AssertionError")
            for name, message, line in (
                ("a", "assert 200 == 401", 3),
                ("b", "assert 200 == 401", 9),
                ("c", "assert 3 == 4", 12),
            )
        )
        assert first.signature == second.signature != third.signature

    def test_a_bare_assertion_unites_one_class_only(self) -> None:
        """`AssertionError` without a word says nothing that two classes could have in common."""
        one, mate, other = (read_failure(test, "AssertionError", "", "") for test in ("a.T#x", "a.T#y", "b.T#x"))
        assert one.signature == mate.signature != other.signature

    @pytest.mark.parametrize("text", ["\x00\ud800", "E   \n" * 4000, "at (((((" * 1000, 'File "', "a" * 200_000])
    def test_any_text_has_one(self, text: str) -> None:
        """Reports are written by the code under test."""
        assert len(read_failure("a#b", "", text, text).signature) == 16


class TestMessage:
    @pytest.mark.parametrize(
        ("message", "text", "told"),
        [
            (
                "Failed to import test module: tests.cart\nTraceback (most recent call last):\n  File",
                "ImportError: Failed to import test module: tests.cart\nTraceback (most recent call last):\n"
                '  File "tests/cart.py", line 1, in <module>\n    import shop\n'
                "ModuleNotFoundError: No module named 'shop'\n",
                "ModuleNotFoundError: No module named 'shop'",
            ),
            ("", "Error: db\n    at new Promise (<anonymous>)\n    at Object.run (/x/y.js:1:2)", "Error: db"),
        ],
        ids=["a traceback of unittest", "a frame without a place"],
    )
    def test_the_message_is_what_failed(self, message: str, text: str, told: str) -> None:
        """The first lines of a traceback were shown up to the column before its cause."""
        assert read_failure("tests.cart#<init>", "ImportError", message, text).message == told

    @pytest.mark.parametrize("message", ["timeout", "Timed out", "SEGFAULT", "exit code 3"])
    def test_how_a_test_ended_says_more_than_its_text(self, message: str) -> None:
        """It is shown, but two classes that ended alike have no cause in common."""
        first, second = (read_failure(f"{name}#adds", "", message, "AssertionError") for name in ("Cart", "Shop"))
        assert first.message == second.message == message
        assert first.signature != second.signature

    def test_the_report_s_own_message_is_kept(self) -> None:
        """A newcomer recognizes `assert 200 == 401`; the word `assert` alone helps nobody."""
        assert read_failure("a#b", "assert", "assert 200 == 401\n +  where 401 = f()\n3", "").message == (
            "assert 200 == 401\n+  where 401 = f()"
        )

    def test_pytest_marks_it_in_the_text(self) -> None:
        """Its lines begin with E."""
        assert of_pytest("cart", 7).message == "shop.DatabaseError: no such table: users_7"

    def test_a_traceback_has_it_at_its_end(self) -> None:
        """As unittest writes it."""
        text = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: no'
        assert read_failure("a#b", "ValueError", "", text).message == "ValueError: no"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("=== RUN   TestA\n", "the test process exited inside this test"),
            (
                "=== RUN   TestA\n=== PAUSE TestA\n=== CONT  TestA\nbye\n",
                "the test process exited inside this test\nbye",
            ),
            ("=== RUN   TestA\n--- FAIL: TestA (0.00s)\n", "Failed"),
            ("=== RUN   TestA\npanic: boom\n", "panic: boom"),
        ],
    )
    def test_a_go_test_without_an_end_says_so(self, text: str, told: str) -> None:
        """After os.Exit, gotestsum says only "Failed", and the tests after it are missing."""
        assert read_failure("example.com/gox#TestA", "", "Failed", text).message == told

    def test_go_has_it_in_the_text(self) -> None:
        """gotestsum's attribute is `Failed` for every test."""
        assert read_failure(
            "a#TestB", "Failed", "Failed", "=== RUN   TestB\n    b_test.go:9: got 1, want 2"
        ).message == ("b_test.go:9: got 1, want 2")

    @pytest.mark.parametrize(
        ("test", "message"),
        [
            ("t.ts#removes > bar/#abc", "expected 'ba#abc' to be 'bar#abc' // Object.is equality"),
            ("shop.CartTest#sum", "the sum is 3, not 4"),
        ],
    )
    def test_a_message_with_the_name_is_no_title(self, test: str, message: str) -> None:
        """Four tests whose addresses end with #abc failed without a message, and as if for one cause."""
        assert read_failure(test, "AssertionError", message, "").message == message

    def test_a_line_of_the_name_alone_is_a_title(self) -> None:
        """PHPUnit begins with it."""
        assert read_failure("A\\CartTest#sums", "", "A\\CartTest::sums\nno such table", "").message == "no such table"

    def test_a_long_line_is_cut(self) -> None:
        """A report may have a page of HTML in one line."""
        assert len(read_failure("a#b", "", "x" * 9000, "").message) == MAX_LINE


class TestOfReport:
    def test_a_report_gives_both(self) -> None:
        """Message and signature of each failure; a test that passed has neither."""
        report = b"""<testsuite>
        <testcase classname="a.T" name="x" time="1"><failure message="assert 200 == 401">t</failure></testcase>
        <testcase classname="a.T" name="y" time="1"/></testsuite>"""
        failed, passed = read_reports([("r.xml", lambda: BytesIO(report))]).tests
        assert (failed.message, len(failed.signature)) == ("assert 200 == 401", 16)
        assert passed == TestRun("a.T#y", passed.outcome, 1.0)
