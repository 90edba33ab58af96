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


def test_few_updates_are_counted_every_time():
    attendance, counting = ActivityCounter(), Counting(SOON - 1)
    assert [attendance.active(now, counting).projects for now in (0.0, 0.0, 1.0)] == [MANY, MANY + 1, MANY + 2]


def test_where_few_own_the_projects_they_are_counted_every_time_so_that_no_newcomer_goes_unseen():
    attendance, counting = ActivityCounter(), Counting(100_000, owners=MANY - 1)
    assert [attendance.active(now, counting).projects for now in (0.0, 0.0)] == [MANY, MANY + 1]


def test_many_are_counted_again_when_a_quarter_as_many_came():
    attendance, counting = ActivityCounter(), Counting(100_000)
    assert attendance.active(0.0, counting).projects == MANY
    attendance.came(25_000)
    assert attendance.active(1.0, counting).projects == MANY
    attendance.came(1)
    assert attendance.active(2.0, counting).projects == MANY + 1
    assert attendance.active(3.0, counting).projects == MANY + 1


@pytest.mark.parametrize("now", [LONGEST, -1.0])
def test_many_are_counted_again_after_ten_minutes_and_when_the_clock_was_put_back(now):
    attendance, counting = ActivityCounter(), Counting(100_000)
    attendance.active(0.0, counting)
    assert attendance.active(now, counting).projects == MANY + 1


def test_when_somebody_is_forgotten_all_are_counted_again():
    attendance, counting = ActivityCounter(), Counting(100_000)
    attendance.active(0.0, counting)
    attendance.forget()
    assert attendance.active(1.0, counting).projects == MANY + 1
