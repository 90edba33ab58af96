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


class TestTakenBack:
    def test_a_short_spell_ends_as_soon_as_it_is_over(self) -> None:
        """A level that is a few runs old is left after four runs at the one before; an old one needs evidence."""
        short = [run for run, _ in watch([*noisy(40), *noisy(7, 3.0), *noisy(10, seed=2)])]
        long = [run for run, _ in watch([*noisy(40), *noisy(30, 3.0), *noisy(10, seed=2)])]
        assert short[-1] < 47 + 5
        assert long[-1] >= 70 + 4

    def test_faster_for_a_few_runs_is_no_slower_test(self) -> None:
        """The way back to the usual level says so: nobody is to look for what slowed the test."""
        faster, back = watch([*noisy(40, 2.0), *noisy(8, 1.0), *noisy(30, 2.0, seed=2)])
        assert (faster[1].direction, faster[1].is_return) == (Direction.FASTER, False)
        assert (back[1].direction, back[1].is_return) == (Direction.SLOWER, True)

    def test_a_third_level_is_no_way_back(self) -> None:
        faster, slower = watch([*noisy(40, 2.0), *noisy(8, 1.0), *noisy(30, 6.0, seed=2)])
        assert (slower[1].direction, slower[1].is_return) == (Direction.SLOWER, False)
        assert faster[1].after == pytest.approx(1.0, rel=0.1)

    def test_a_level_just_reached_varies_as_the_one_before(self) -> None:
        """Six calm runs say nothing of the calm of the next: the job took between one and four hours before."""
        draw = random.Random(6)
        times = [draw.uniform(1.0, 4.0) for _ in range(60)]
        found = watch([*times, *[0.9] * 6, *times], step=1.3)
        assert [shift for run, shift in found if run > 66 and not shift.is_return] == []


class TestRecent:
    def test_one_fast_run_among_slow_ones_hides_nothing(self) -> None:
        [(run, _)] = watch([*noisy(60), 2.0, 2.1, 1.0, 2.0, 1.9, 2.0])
        assert run < 66

    def test_times_between_both_levels_count_for_half(self) -> None:
        """Four runs beyond the bound and one near it are a change; four and two usual ones are none."""
        assert watch([*noisy(60), 1.6, 1.7, 1.3, 1.6, 1.7, 1.3])
        assert watch([*noisy(60), 1.6, 1.7, 1.0, 1.6, 1.7, 1.0]) == []

    def test_the_usual_time_is_of_late(self) -> None:
        """A time that fell by a quarter is no change; twice the lower one is."""
        times = [*noisy(60), *noisy(25, 0.75, seed=4)]
        assert watch(times) == []
        assert watch([*times, *noisy(6, 1.5, seed=5)])


class TestEarlierCache:
    def test_a_column_that_was_not_written_has_its_default(self) -> None:
        columns = pack_levels([TimeLevel(usual=1.0)])
        del columns["former"], columns["runs"]
        assert unpack_levels(columns) == [TimeLevel(usual=1.0)]
