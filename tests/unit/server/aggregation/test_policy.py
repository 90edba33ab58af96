"""When the buffer is aggregated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.mode import BufferPolicy, BufferStatus, is_due, updates_needed

RULES = BufferPolicy(updates=10, seconds=60.0, projects=2)


class TestBufferPolicy:
    @pytest.mark.parametrize(
        ("pending", "now", "expected"),
        [
            (BufferStatus(0, 0, 0.0), 1e9, False),
            (BufferStatus(9, 2, 100.0), 159.0, False),
            (BufferStatus(9, 2, 100.0), 160.0, True),
            (BufferStatus(10, 2, 100.0), 100.0, True),
            (BufferStatus(10, 1, 100.0), 1e9, False),
            (BufferStatus(10, 2, 100.0, calm=150.0), 149.0, False),
            (BufferStatus(10, 2, 100.0, calm=150.0), 150.0, True),
            (BufferStatus(10, 2, 100.0, calm=900.0), 160.0, True),
        ],
    )
    def test_is_due_after_enough_updates_or_time_and_projects(self, pending, now, expected):
        """A buffer is due after enough updates or enough time, and never with too few projects."""
        assert is_due(pending, now, RULES) is expected

    @given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1e6), st.floats(0, 1e6))
    def test_what_is_due_stays_due(self, updates, projects, oldest, later):
        pending = BufferStatus(updates, projects, oldest)
        assert not is_due(pending, oldest, RULES) or is_due(pending, oldest + later, RULES)

    @given(
        st.integers(0, 50),
        st.integers(0, 50),
        st.integers(1, 60),
        st.integers(1, 60),
        st.integers(0, 60),
        st.integers(0, 60),
    )
    def test_missing_projects_are_the_exact_number_that_makes_it_due(
        self, updates, projects, enough, hidden, come, new
    ):
        """Fewer updates than are missing never make a buffer due; that many of new projects do."""
        rules = BufferPolicy(updates=enough, seconds=60.0, projects=hidden)
        short = updates_needed(BufferStatus(updates, min(projects, updates), 0.0), rules)
        after = BufferStatus(updates + come, min(projects, updates) + min(new, come), 0.0)
        assert come >= short or not is_due(after, 0.0, rules)
        assert (
            is_due(BufferStatus(updates + short, min(projects, updates) + short, 0.0), 0.0, rules)
            or updates + short == 0
        )
