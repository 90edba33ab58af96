"""Replays of a selection: what a part of the tests would have shown in recorded builds."""

from fedstep.evaluation.ordering import SelectedBuild, select_recorded_tests
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

TESTS = [f"tests.test_{name}#test_{number}" for name in ("cart", "order", "pay") for number in range(4)]


def build(number: int, changed: str, failing: str = "") -> FinishedBuild:
    """A build of an hour in which each test takes a second."""
    runs = tuple(TestRun(test, Outcome.FAILED if test == failing else Outcome.PASSED, 1.0) for test in TESTS)
    change = Change(f"{number:040x}", "", "", (FileChange(f"shop/{changed}.py", 3, 1),))
    context = BuildContext(CiRun(vendor="recorded", run=f"b{number}"), change, 10_000.0 * number)
    return FinishedBuild(context, 10_000.0 * number + 60, Unavailable("none"), BuildOutcome.PASSED, Reports(runs))


class TestSelected:
    def test_failure_near_the_change_is_caught_and_another_missed(self) -> None:
        """A third of the time runs the tests of the changed module; the failure of another module is not seen."""
        near, far = "tests.test_cart#test_2", "tests.test_pay#test_3"
        builds = [build(n, "order") for n in range(4)]
        builds += [build(4, "cart", near), *(build(n, "order") for n in range(5, 20)), build(20, "cart", far)]
        kinds = {("b4", near): False, ("b20", far): False}
        found = list(select_recorded_tests(builds, kinds, 0.35))
        assert [one.build_index for one in found] == list(range(3, 21))
        assert found[0].failed == ()
        assert found[0].saved_seconds == 8.0
        red = [one for one in found if one.failed]
        assert red == [SelectedBuild(4, 8.0, (near,), True), SelectedBuild(20, 8.0, (far,), False)]
