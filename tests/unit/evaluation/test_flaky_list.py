"""Facts about the study of the list of flaky tests."""

import random

from fedstep.evaluation.study import RATES, DrawnHistory, draw_history, judge_list, list_outcomes, score_lists
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
)

TESTS = tuple(f"org.acme.Part{n}Test#works" for n in range(12))


def builds(count: int = 25) -> list[FinishedBuild]:
    """Green builds of as many commits, each with a change that touches no test."""
    found = []
    for number in range(count):
        at = 1_700_000_000.0 + 600 * number
        change = Change(f"{number:040x}", "", "ann", (FileChange("docs/a.md", 1, 0),))
        runs = tuple(TestRun(test, Outcome.PASSED, 0.1) for test in TESTS)
        context = BuildContext(CiRun(job="unit", branch="main"), change, at)
        found.append(FinishedBuild(context, at + 60, Duration(60.0, "mark"), BuildOutcome.PASSED, Reports(runs)))
    return found


def drawn(rate: float, repeated: bool, seed: int = 1) -> DrawnHistory:
    history = draw_history(builds(), rate, repeated, random.Random(seed))
    assert history is not None
    return history


class TestHistories:
    def test_one_test_flakes_and_another_always_fails(self) -> None:
        history = drawn(0.3, repeated=False)
        failing = [{run.test for run in one.reports.tests if run.outcome == "f"} for one in history.builds]
        (red,) = set.intersection(*failing) - ({history.flake} if all(history.failed) else set())
        assert [history.flake in names for names in failing] == list(history.failed)
        assert set.union(*failing) == {red, history.flake}

    def test_repeated_builds_are_of_one_commit(self) -> None:
        changes = [one.situation.change for one in drawn(0.05, repeated=True).builds]
        assert {change.commit for change in changes if isinstance(change, Change)} == {"1" * 40}

    def test_too_few_steady_tests_give_no_history(self) -> None:
        alone = [one._replace(reports=Reports(one.reports.tests[:1])) for one in builds()]
        assert draw_history(alone, 0.3, False, random.Random(1)) is None
        assert draw_history([], 0.3, False, random.Random(1)) is None


class TestScores:
    def test_list_is_right_about_flake_and_red_test(self) -> None:
        """A flake is listed with its first failure on one commit, and an always failing test never."""
        outcome = judge_list(drawn(0.3, repeated=True), 0.3, True)
        assert (outcome.right, outcome.wrong, outcome.third, outcome.waited, outcome.false_first) == (1, 0, True, 1, 0)

    def test_scores_tell_precision_thirds_waits_and_false_names(self) -> None:
        scores = score_lists(list_outcomes(builds(), "acme", 1))
        assert scores["list_precision_at_10"] == scores["list_precision_at_10_repeated"] == 1.0
        assert scores["list_by_third_failure_repeated"] == 1.0
        assert scores["list_false_per_1000_first"] == 0.0
        assert {f"list_builds_until_{RATES[-1]:g}", "list_by_third_failure"} <= scores.keys()
        assert score_lists(()) == {}
