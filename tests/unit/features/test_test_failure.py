"""The order of tests: near, co-failing and quick tests come first, and some always run."""

import math

import pytest

from fedstep.features.test_failure import (
    always_run,
    began_to_fail,
    failure_scores,
    first_failure_share,
    order_tests,
    source_overlap,
)
from fedstep.history.cofailures import Cofailures
from fedstep.history.summary import Summary
from fedstep.history.test_table import TestStats, new_test, with_time
from fedstep.history.word_index import WordIndex, index_words
from fedstep.types import (
    NO_SECONDS,
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    FileChange,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

CART, ORDER, PAY = "tests.test_cart#test_sum", "tests.test_order#test_sum", "tests.test_pay#test_pay"
CHANGED = (FileChange("shop/cart.py", 3, 1),)


def known(test: str, seconds: float = 1.0) -> TestStats:
    stats = new_test(test)
    stats.runs, stats.recent, stats.times, stats.log_seconds = 30, "p" * 20, with_time("", seconds), math.log(seconds)
    return stats


def table_of(*tests: str) -> dict[str, TestStats]:
    return {test: known(test) for test in tests}


def build(*failing: str) -> Build:
    runs = tuple(
        TestRun(test, Outcome.FAILED if test in failing else Outcome.PASSED, 1.0) for test in (CART, ORDER, PAY)
    )
    context = BuildContext(CiRun(), Change("c" * 40, "", "", CHANGED), 0.0)
    return Build("b", context, 1.0, Unavailable("none"), BuildOutcome.FAILED, Reports(runs))


class TestScores:
    def test_a_test_near_the_change_scores_highest(self) -> None:
        """`test_cart` shares a word with cart.py, the others do not."""
        scores = failure_scores({}, table_of(CART, ORDER, PAY), CHANGED)
        assert scores[CART] > scores[ORDER] == scores[PAY] == 0.0

    def test_what_failed_with_the_file_before_scores_higher(self) -> None:
        """A test that began to fail in three of four changes of the file is suspected, and its class a little."""
        table = {"shop/cart.py": Cofailures(4, {PAY: 3})}
        scores = failure_scores(table, table_of(CART, ORDER, PAY, "tests.test_pay#test_refund"), CHANGED)
        assert scores[PAY] > scores["tests.test_pay#test_refund"] > scores[ORDER]

    def test_without_a_change_a_late_failure_counts(self) -> None:
        """Tests that never failed are alike; then time alone orders them."""
        tests = table_of(CART, ORDER, PAY)
        for test, recent in ((CART, "pppp"), (ORDER, "pppp"), (PAY, "ppff")):
            tests[test].recent, tests[test].failures = recent, recent.count("f")
        scores = failure_scores({}, tests, None)
        assert scores[PAY] > scores[CART] == scores[ORDER]

    def test_without_a_change_many_failures_count_more_than_one(self) -> None:
        """Both failed in their last run, one of them in half of the runs before; one that failed long ago is behind."""
        tests = table_of(CART, ORDER, PAY)
        for test, recent in ((CART, "p" * 19 + "f"), (ORDER, "pf" * 10), (PAY, "c" * 10 + "p" * 10)):
            tests[test].recent, tests[test].failures = recent, 20 - recent.count("p")
        scores = failure_scores({}, tests, None)
        assert scores[ORDER] > scores[CART] > scores[PAY]

    def test_without_a_change_an_old_failure_counts_a_little(self) -> None:
        """One of 25 runs ago is older than the letters that are kept, and more than none in 30 runs."""
        tests = table_of(CART, PAY)
        tests[CART].recent = tests[PAY].recent = "p" * 20
        tests[PAY].last_failure, tests[PAY].failures = 5, 1
        usual, weights = 1 / 60, sum(1 / age for age in range(1, 21))
        scores = failure_scores({}, tests, None)
        assert scores[PAY] == pytest.approx(math.log((1 / 25 + 0.1 * usual) / (weights + 0.1)))
        assert scores[PAY] > scores[CART] == pytest.approx(math.log(usual / 31))

    def test_without_a_change_a_new_test_fails_as_others_do(self) -> None:
        """A third of all runs failed: a test without runs is before one that passed, behind one that failed."""
        tests = table_of(CART, ORDER, PAY)
        for test, recent, runs, failures in ((CART, "ppp", 3, 0), (ORDER, "", 0, 0), (PAY, "ppf", 3, 2)):
            tests[test].recent, tests[test].runs, tests[test].failures = recent, runs, failures
        scores = failure_scores({}, tests, None)
        assert scores[PAY] > scores[ORDER] > scores[CART]
        assert scores[ORDER] == pytest.approx(math.log(1 / 3))
        assert scores[CART] == pytest.approx(math.log(1 / 3 / 4))

    def test_without_a_change_tests_that_never_failed_differ_by_runs(self) -> None:
        """Twenty outcomes are kept of each, and 25 runs without a failure say less than a thousand."""
        tests = table_of(CART, PAY)
        tests[CART].runs, tests[PAY].runs = 1000, 25
        scores = failure_scores({}, tests, None)
        assert scores[PAY] - scores[CART] == pytest.approx(math.log(1001 / 26))

    def test_a_file_named_after_the_changed_one_scores_higher(self) -> None:
        """`test_form` and forms.py share no word, but one name has the other in it."""
        tests = table_of("tests.test_form#test_sum", ORDER)
        scores = failure_scores({}, tests, (FileChange("shop/forms.py", 3, 1),))
        assert scores["tests.test_form#test_sum"] > scores[ORDER] == 0.0

    def test_a_test_that_calls_what_changed_scores_higher(self) -> None:
        """Its own source has the words of the changed lines; a rare word weighs more, a common one nothing."""
        tests: dict[str, tuple[str, ...]] = {
            CART: ("cart", "total"),
            ORDER: ("total", "discount"),
            PAY: ("discount", "rate"),
        }
        tests |= {f"tests.test_{n}#test": ("total",) for n in range(5)}
        change = Change("", "", "", (FileChange("shop/money.py", 3, 1),), words=("def", "discountRate", "total"))
        source = source_overlap(index_words(tests), change)
        assert source[PAY] == 1.0 > source[ORDER] > 0.0
        assert set(source) == {ORDER, PAY}
        scores = failure_scores({}, table_of(CART, ORDER, PAY), change.files, source)
        assert scores[PAY] > scores[ORDER] > scores[CART]

    def test_damaged_words_count_for_nothing(self) -> None:
        """The order does without them."""
        change = Change("", "", "", (), words=("total",))
        assert source_overlap(WordIndex((CART,), {"total": "9"}), change) == {}
        assert source_overlap(index_words({CART: ("total",)}), Unavailable("no git")) == {}

    def test_of_two_likely_tests_the_quick_one_comes_first(self) -> None:
        """The order counts failures per second."""
        tests = {ORDER: known(ORDER, 5.0), PAY: known(PAY, 0.5)}
        assert [test for test, _ in order_tests(Summary(tests=tests), tests, CHANGED)] == [PAY, ORDER]


class TestAlways:
    @pytest.mark.parametrize(
        ("stats", "reason"),
        [
            (new_test(PAY), "new"),
            (known(PAY), ""),
            (known("shop.test_cart#test_sum"), "changed"),
        ],
    )
    def test_new_and_changed_tests_always_run(self, stats: TestStats, reason: str) -> None:
        """Their failures cannot be foreseen from the past."""
        assert always_run([stats], [FileChange("shop/test_cart.py")]).get(stats.test, "") == reason

    @pytest.mark.parametrize(("ago", "reason"), [(1, "failed lately"), (10, "failed lately"), (11, "")])
    def test_a_test_that_failed_lately_always_runs(self, ago: int, reason: str) -> None:
        """For ten runs after a failure."""
        stats = known(PAY)
        stats.failures, stats.last_failure = 1, stats.runs - ago
        assert always_run([stats], None).get(PAY, "") == reason


class TestFirstFailure:
    def test_it_is_the_share_of_the_time_until_the_failure(self) -> None:
        """The nearest of three equal tests fails: a third of the time; the last in order: all of it."""
        tests = {test: known(test) for test in (CART, ORDER, PAY)}
        assert first_failure_share(Summary(tests=tests), build(CART), [CART]) == pytest.approx(1 / 3, abs=1e-3)
        assert first_failure_share(Summary(tests=tests), build(PAY), [PAY]) == 1.0

    def test_a_test_that_goes_on_failing_is_no_new_failure(self) -> None:
        """Nor is a build in which nothing really fails."""
        tests = {test: known(test) for test in (CART, ORDER, PAY)}
        tests[PAY].streak = 3
        assert began_to_fail(Summary(tests=tests), build(PAY, CART), [PAY, CART]) == (CART,)
        assert math.isnan(first_failure_share(Summary(tests=tests), build(), []))
        assert math.isnan(NO_SECONDS)

    def test_a_test_that_always_runs_is_seen_at_once(self) -> None:
        """A new test fails: every selection contains it."""
        tests = {test: known(test) for test in (CART, ORDER)}
        assert first_failure_share(Summary(tests=tests), build(PAY), [PAY]) == 0.0
