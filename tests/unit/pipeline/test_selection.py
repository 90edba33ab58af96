"""Names of tests: what a runner calls a test is found in the history."""

import pytest

from fedstep.errors import UsageError
from fedstep.history.test_table import new_test, with_time
from fedstep.pipeline.selection import predict_seconds, read_names

TESTS = ("tests.test_cart.TestCart#test_pay", "tests.test_cart#test_sum", "org.foo.BarTest#works", "src/a.test.ts#adds")
TABLE = {test: new_test(test) for test in TESTS}


class TestNames:
    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("tests.test_cart#test_sum", TESTS[1:2]),
            ("tests/test_cart.py::TestCart::test_pay", TESTS[:1]),
            ("tests/test_cart.py::TestCart", TESTS[:1]),
            ("tests/test_cart.py", TESTS[:2]),
            ("org.foo.BarTest", TESTS[2:3]),
            ("src/a.test.ts", TESTS[3:]),
            ("works", TESTS[2:3]),
            ("tests/test_new.py::test_new", ()),
        ],
    )
    def test_a_name_of_a_runner_is_found(self, name: str, found: tuple[str, ...]) -> None:
        """Ids, node ids, files, classes and unique own names are known; a new test is no error."""
        assert read_names([name], TABLE)[0].tests == found

    def test_an_empty_list_is_an_error(self) -> None:
        """A collector that failed must not look like a suite without tests."""
        with pytest.raises(UsageError, match="list of tests is empty"):
            read_names(["\n", "  "], TABLE)

    def test_a_name_is_taken_once_in_the_given_order(self) -> None:
        """A list that repeats itself does not run a test twice."""
        assert [one.name for one in read_names(["b", "a", "b\n"], TABLE)] == ["b", "a"]

    def test_the_time_of_a_file_is_that_of_its_tests(self) -> None:
        """Two tests of 2 and 3 seconds make a file of 5."""
        table = {test: new_test(test) for test in TESTS[:2]}
        for test, seconds in zip(TESTS[:2], (2.0, 3.0), strict=True):
            table[test].times = with_time("", seconds)
        named = read_names(["tests/test_cart.py", "new.py"], table)
        known, unknown = (predict_seconds(named, table)[one.identity] for one in named)
        assert known == pytest.approx(5.0, rel=0.01)
        assert not isinstance(unknown, float)
