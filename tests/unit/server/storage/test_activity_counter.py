"""Who is active is counted again where it may matter, and rarely where counting takes long."""

from itertools import count

import pytest

from fedstep.server.gate import ActiveCounts
from fedstep.server.storage.store import LONGEST, MANY, SOON, ActivityCounter


class Counting:
    """Counts how often it was asked, and finds one project more each time."""

    def __init__(self, updates: int, owners: int = MANY) -> None:
        self.updates, self._owners, self._calls = updates, owners, count(MANY)

    def __call__(self) -> tuple[ActiveCounts, int]:
        return ActiveCounts(next(self._calls), self._owners), self.updates


class TestActivityCounter:
    def test_few_updates_are_counted_every_time(self):
        attendance, counting = ActivityCounter(), Counting(SOON - 1)
        assert [attendance.active(now, counting).projects for now in (0.0, 0.0, 1.0)] == [MANY, MANY + 1, MANY + 2]

    def test_few_owners_are_counted_every_time(self):
        """Where few own the projects, they are counted every time, so that no newcomer is missed."""
        attendance, counting = ActivityCounter(), Counting(100_000, owners=MANY - 1)
        assert [attendance.active(now, counting).projects for now in (0.0, 0.0)] == [MANY, MANY + 1]

    def test_many_are_counted_again_when_a_quarter_as_many_came(self):
        attendance, counting = ActivityCounter(), Counting(100_000)
        assert attendance.active(0.0, counting).projects == MANY
        attendance.came(25_000)
        assert attendance.active(1.0, counting).projects == MANY
        attendance.came(1)
        assert attendance.active(2.0, counting).projects == MANY + 1
        assert attendance.active(3.0, counting).projects == MANY + 1

    @pytest.mark.parametrize("now", [LONGEST, -1.0])
    def test_many_are_recounted_after_ten_minutes_or_a_clock_jump(self, now):
        """Many are counted again after ten minutes and when the clock was set back."""
        attendance, counting = ActivityCounter(), Counting(100_000)
        attendance.active(0.0, counting)
        assert attendance.active(now, counting).projects == MANY + 1

    def test_when_somebody_is_forgotten_all_are_counted_again(self):
        attendance, counting = ActivityCounter(), Counting(100_000)
        attendance.active(0.0, counting)
        attendance.forget()
        assert attendance.active(1.0, counting).projects == MANY + 1
