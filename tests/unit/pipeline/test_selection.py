"""Names of tests: what a runner calls a test is found in the history."""

from collections.abc import Sequence
from math import log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import UsageError
from fedstep.history.summary import Summary
from fedstep.history.test_table import new_test
from fedstep.pipeline.selection import (
    Choice,
    NamedTest,
    RankedTest,
    active_tests,
    predict_seconds,
    promised_share,
    rank_tests,
    read_names,
    select_tests,
)
from fedstep.types import Unavailable

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
            table[test].log_seconds = log(seconds)
        named = read_names(["tests/test_cart.py", "new.py"], table)
        known, unknown = (predict_seconds(named, table)[one.identity] for one in named)
        assert known == pytest.approx(5.0, rel=0.01)
        assert not isinstance(unknown, float)


def ranked(count: int, *always: int) -> tuple[RankedTest, ...]:
    """Tests of one second each, likeliest first."""
    names = [NamedTest(f"t#{n}", f"t#{n}") for n in range(count)]
    return tuple(RankedTest(one, -float(n), 1.0, "new" if n in always else "") for n, one in enumerate(names))


def names(tests: Sequence[RankedTest]) -> list[str]:
    return [one.named.name for one in tests]


class TestSelection:
    def test_a_time_is_filled_with_the_likeliest(self) -> None:
        """Three seconds: the always-run test and the two first ones."""
        chosen = select_tests(ranked(10, 7), Choice(seconds=3.0), (), 0.0, Random(1)).chosen
        assert names(chosen) == ["t#0", "t#1", "t#7"]

    @given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
    def test_the_whole_time_runs_all_tests(self, times: list[float], always: set[int]) -> None:
        """However their sum is rounded: 4,999 of 5,000 tests ran with --share 1. No failing build is missed then."""
        named = ranked(len(times), *always)
        tests = [one._replace(seconds=seconds) for one, seconds in zip(named, times, strict=True)]
        for choice in (Choice(share=1.0), Choice(seconds=sum(times))):
            selection = select_tests(tests, choice, [0.5, 1.0], 0.0, Random(1))
            assert (selection.skipped, selection.caught) == ((), 2)

    def test_tests_that_are_all_explored_miss_nothing(self) -> None:
        """A false green rate was told of a selection that left out no test."""
        selection = select_tests(ranked(10), Choice(share=0.1), [0.5, 0.9], 1.0, Random(1))
        assert (len(selection.chosen), selection.caught) == (10, 2)

    def test_tests_that_always_run_are_never_left_out(self) -> None:
        """Even where they take longer than the time that was given."""
        selection = select_tests(ranked(10, 3, 7), Choice(seconds=0.5), (), 0.0, Random(1))
        assert names(selection.chosen) == ["t#3", "t#7"]
        assert selection.saved_seconds == 8.0

    def test_without_enough_red_builds_all_run(self) -> None:
        """A confidence is promised from twenty failing builds on."""
        selection = select_tests(ranked(10), Choice(confidence=0.95), [0.1] * 19, 0.0, Random(1))
        assert len(selection.chosen) == 10
        assert "19 builds with a new failure are known, 20 are needed" in selection.reason
        selection = select_tests(ranked(10), Choice(confidence=0.95), [0.1], 0.0, Random(1))
        assert "1 build with a new failure is known, 20 are needed" in selection.reason

    def test_a_confidence_covers_the_past_builds(self) -> None:
        """Of 39 builds one may have needed more than is run."""
        needed = [0.2] * 38 + [0.9]
        selection = select_tests(ranked(10), Choice(confidence=0.95), needed, 0.0, Random(1))
        assert names(selection.chosen) == ["t#0", "t#1"]
        assert (selection.red_builds, selection.caught) == (39, 38)

    def test_some_of_the_others_are_explored(self) -> None:
        """The same ones for one build, so that a rerun selects the same."""
        first, again = (select_tests(ranked(100), Choice(share=0.1), (), 0.1, Random("x")) for _ in range(2))
        assert len(first.chosen) == 10 + 9
        assert first == again

    @given(
        needed=st.lists(st.floats(0, 1), min_size=20, max_size=120),
        confidence=st.floats(0.5, 0.99),
    )
    def test_no_more_past_builds_are_missed_than_allowed(self, needed: list[float], confidence: float) -> None:
        """Conformal risk control: (misses + 1) / (n + 1) is at most 1 - confidence."""
        share = promised_share(needed, confidence)
        if isinstance(share, float):
            misses = sum(one > share for one in needed)
            assert (misses + 1) / (len(needed) + 1) <= 1 - confidence + 1e-6

    def test_the_promise_holds_for_the_next_build(self) -> None:
        """Over 2,000 drawn histories of 40 failing builds, at least 95 % of the next ones are caught."""
        draw = Random(3)
        kept = 0
        for _ in range(2000):
            past = [draw.betavariate(0.4, 2.0) for _ in range(40)]
            share = promised_share(past, 0.95)
            kept += isinstance(share, float) and draw.betavariate(0.4, 2.0) <= share
        assert 0.945 <= kept / 2000 <= 0.985


class TestEqualTests:
    def test_tests_that_are_equally_likely_stay_as_given(self) -> None:
        """Those of a file stay together, whatever their names, and the machines of one list agree."""
        named = read_names(["z_test.py::test_b", "z_test.py::test_a", "a_test.py::test_c"], {})
        assert [one.named.name for one in rank_tests(Summary(), named, Unavailable("no git"))] == [
            one.name for one in named
        ]


class TestNotLoaded:
    def test_what_could_not_be_loaded_is_not_ordered(self) -> None:
        """`order --for go` printed nothing for twenty builds after one in which a package did not compile."""
        tests = {test: new_test(test) for test in ("m/a#A", "m/b#<init>", "tests.TC#setUpClass", "tests.TC#test_a")}
        assert active_tests(Summary(count=1, tests=tests)) == ["m/a#A", "tests.TC#test_a"]
