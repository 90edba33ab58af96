"""Who is active is counted again where it may matter, and rarely where counting takes long."""

from itertools import count

import pytest

from fedstep.server.gate import ActiveCounts
from fedstep.server.storage.store import FEW_UPDATES, MANY_ACTIVE, MAX_COUNT_AGE, ActivityCounter


class Counting:
    """Counts how often it was asked, and finds one project more each time."""

    def __init__(self, updates: int, owners: int = MANY_ACTIVE) -> None:
        self.updates, self._owners, self._calls = updates, owners, count(MANY_ACTIVE)

    def __call__(self) -> tuple[ActiveCounts, int]:
        return ActiveCounts(next(self._calls), self._owners), self.updates


class TestActivityCounter:
    def test_few_updates_are_counted_every_time(self):
        counter, counting = ActivityCounter(), Counting(FEW_UPDATES - 1)
        assert [counter.active(now, counting).projects for now in (0.0, 0.0, 1.0)] == [
            MANY_ACTIVE,
            MANY_ACTIVE + 1,
            MANY_ACTIVE + 2,
        ]

    def test_few_owners_are_counted_every_time(self):
        """Where few own the projects, they are counted every time, so that no newcomer is missed."""
        counter, counting = ActivityCounter(), Counting(100_000, owners=MANY_ACTIVE - 1)
        assert [counter.active(now, counting).projects for now in (0.0, 0.0)] == [MANY_ACTIVE, MANY_ACTIVE + 1]

    def test_many_are_counted_again_when_a_quarter_as_many_came(self):
        counter, counting = ActivityCounter(), Counting(100_000)
        assert counter.active(0.0, counting).projects == MANY_ACTIVE
        counter.add_updates(25_000)
        assert counter.active(1.0, counting).projects == MANY_ACTIVE
        counter.add_updates(1)
        assert counter.active(2.0, counting).projects == MANY_ACTIVE + 1
        assert counter.active(3.0, counting).projects == MANY_ACTIVE + 1

    @pytest.mark.parametrize("now", [MAX_COUNT_AGE, -1.0])
    def test_many_are_recounted_after_ten_minutes_or_a_clock_jump(self, now):
        """Many are counted again after ten minutes and when the clock was set back."""
        counter, counting = ActivityCounter(), Counting(100_000)
        counter.active(0.0, counting)
        assert counter.active(now, counting).projects == MANY_ACTIVE + 1

    def test_when_somebody_is_forgotten_all_are_counted_again(self):
        counter, counting = ActivityCounter(), Counting(100_000)
        counter.active(0.0, counting)
        counter.reset()
        assert counter.active(1.0, counting).projects == MANY_ACTIVE + 1
