"""Facts about the replay of test times."""

import random
from statistics import median

from fedstep.evaluation.replay_tests import TimedRun, predict_test_times
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    CiRun,
    Duration,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

HOUR = 3600.0


def build(number: int, *runs: TestRun, lasts: float = 60.0) -> FinishedBuild:
    situation = BuildContext(CiRun(), Unavailable("not told"), 1_760_000_000.0 + HOUR * number)
    finished_at = situation.started_at + lasts
    return FinishedBuild(situation, finished_at, Duration(lasts, "recorded"), BuildOutcome.PASSED, Reports(runs))


def run(test: str, seconds: float, outcome: str = "p") -> TestRun:
    return TestRun(test, Outcome(outcome), seconds)


def noisy(count: int) -> list[FinishedBuild]:
    draw = random.Random(3)
    return [build(n, *(run(f"a.B#t{t}", draw.lognormvariate(t - 3, 0.5)) for t in range(4))) for n in range(count)]


class TestScoring:
    def test_first_ten_builds_and_three_times_are_not_scored(self) -> None:
        """The first ten builds and the first three times are not scored."""
        builds = [build(n, run("old", 0.2), *([run("new", 0.1)] if n >= 9 else [])) for n in range(14)]
        found = [(timed.build, timed.test) for timed in predict_test_times(builds)]
        assert found == [(10, "old"), (11, "old"), (12, "old"), (12, "new"), (13, "old"), (13, "new")]

    def test_the_yardstick_is_the_median_of_the_last_twenty_times(self) -> None:
        times = [0.1 * n for n in range(1, 31)]
        last = list(predict_test_times(build(n, run("a", time)) for n, time in enumerate(times)))[-1]
        assert last == TimedRun("a", 29, times[29], last.expected, median(times[9:29]))


class TestKnowledge:
    def test_a_run_is_expected_without_knowledge_of_its_own_build(self) -> None:
        builds = noisy(30)
        other = [*builds[:-1], build(29, *(run(f"a.B#t{t}", 1000.0) for t in range(4)))]
        here, there = (list(predict_test_times(some))[-4:] for some in (builds, other))
        assert [timed._replace(seconds=0.0) for timed in here] == [timed._replace(seconds=0.0) for timed in there]

    def test_a_build_that_still_runs_is_not_known(self) -> None:
        quick = [build(n, run("a", 0.1)) for n in range(12)]
        slow = [build(n, run("a", 5.0), lasts=HOUR * 20) for n in range(12, 18)]
        first, *_, last = list(predict_test_times([*quick, *slow, build(40, run("a", 5.0))]))[-7:]
        assert (first.build, first.median_20, last.build) == (12, 0.1, 18)
        assert last.median_20 == median([0.1] * 12 + [5.0] * 6)
        during = list(predict_test_times([*quick, *slow]))[-1]
        assert (during.build, during.expected, during.median_20) == (17, 0.1, 0.1)

    def test_skipped_runs_and_times_of_zero_are_not_scored(self) -> None:
        builds = [*noisy(20), build(20, run("a.B#t0", 1.0, "s"), run("a.B#t1", 0.0), run("a.B#t2", 1.0, "f"))]
        assert [timed.test for timed in predict_test_times(builds) if timed.build == 20] == ["a.B#t2"]

    def test_a_run_without_a_time_is_neither_scored_nor_known(self) -> None:
        builds = [build(n, run("a", 0.1), run("b", float("nan"))) for n in range(20)]
        assert {timed.test for timed in predict_test_times(builds)} == {"a"}
