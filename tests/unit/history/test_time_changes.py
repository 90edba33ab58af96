"""Facts about lasting changes of a time: what is found, what is not, and what is left behind."""

import random
from collections.abc import Iterable

import pytest

from fedstep.history.time_changes import FEWEST, Direction, LevelShift, TimeLevel, pack_levels, unpack_levels


def watch(times: Iterable[float], step: float = 1.5) -> list[tuple[int, LevelShift]]:
    """Every change found, with the number of the run that made it certain."""
    level = TimeLevel()
    found = ((run, level.observe(seconds, run, step)) for run, seconds in enumerate(times))
    return [(run, shift) for run, shift in found if shift]


def noisy(count: int, seconds: float = 1.0, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [seconds * draw.lognormvariate(0, 0.1) for _ in range(count)]


class TestFound:
    @pytest.mark.parametrize("factor", [2.0, 3.0])
    def test_a_slower_test_is_found_within_six_runs(self, factor: float) -> None:
        [(run, shift)] = watch([*noisy(60), *noisy(6, factor)])
        assert run < 66
        assert shift.direction is Direction.SLOWER
        assert (shift.last_before, shift.first) == (59, 60)
        assert shift.before == pytest.approx(1.0, rel=0.1)
        assert shift.after == pytest.approx(factor, rel=0.1)

    def test_slower_and_back_is_a_pair(self) -> None:
        found = watch([*noisy(40), *noisy(30, 3.0), *noisy(30, 1.0, seed=2)])
        assert [(shift.direction, shift.first) for _, shift in found] == [
            (Direction.SLOWER, 40),
            (Direction.FASTER, 70),
        ]

    def test_a_level_just_reached_can_change_again(self) -> None:
        assert len(watch([*noisy(40), *noisy(8, 3.0), *noisy(8, 9.0)])) == 2


class TestNotFound:
    def test_steady_times_are_no_change(self) -> None:
        assert [len(watch(noisy(400, seed=seed))) for seed in range(20)] == [0] * 20

    def test_outliers_are_no_change(self) -> None:
        """One run in ten is five times slower: a timeout, or a machine."""
        draw = random.Random(3)
        assert watch(seconds * (5 if draw.random() < 0.1 else 1) for seconds in noisy(400)) == []

    def test_two_modes_are_no_change(self) -> None:
        """A cache is cold in two runs of five."""
        draw = random.Random(4)
        assert watch(seconds * (2.5 if draw.random() < 0.4 else 1) for seconds in noisy(400)) == []

    def test_a_change_below_the_step_is_none(self) -> None:
        assert watch([*noisy(60), *noisy(60, 1.2)]) == []

    def test_a_few_slow_runs_are_no_change(self) -> None:
        assert watch([*noisy(60), *noisy(4, 3.0), *noisy(60, seed=5)]) == []

    def test_too_few_runs_are_no_change(self) -> None:
        assert watch([*noisy(FEWEST - 1), *noisy(1, 3.0), *noisy(1)]) == []


class TestStored:
    def test_levels_come_back_and_go_on(self) -> None:
        """A level that was stored between two runs finds what it would have found."""
        level, times = TimeLevel(), [*noisy(60), *noisy(6, 2.0)]
        found = []
        for run, seconds in enumerate(times):
            [level] = unpack_levels(pack_levels([level]))
            found.append(level.observe(seconds, run, 1.5))
        assert [shift for shift in found if shift] == [shift for _, shift in watch(times)]
