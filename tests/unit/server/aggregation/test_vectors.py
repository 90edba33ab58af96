"""Who takes part in an aggregation, as numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.aggregation.vectors import Contributor, Contributors, GroupIndex, index_names

numbers = st.floats(-1e3, 1e3, width=32)
names = st.sampled_from(("", "a", "b"))
senders = st.lists(st.builds(Contributor, st.integers(0, 3), names, st.sampled_from("ab"), st.just("")), min_size=1)
groups = st.lists(st.tuples(st.sampled_from("abc"), numbers, numbers), min_size=1, max_size=20)


class TestContributors:
    @given(groups)
    def test_maximum_of_a_group_is_that_of_its_members_per_column(self, drawn):
        """The maximum of a group is that of its members in each column."""
        values = np.array([row[1:] for row in drawn])
        found = GroupIndex.of(index_names(name for name, *_ in drawn)).largest(values)
        named = dict.fromkeys(name for name, *_ in drawn)
        expected = [values[[row[0] == name for row in drawn]].max(axis=0) for name in named]
        np.testing.assert_array_equal(found, expected)

    @given(groups, numbers)
    def test_groups_above_a_limit_are_those_with_a_larger_sum(self, drawn, most):
        """The groups above a limit are those whose members sum to more."""
        names, values = [row[0] for row in drawn], np.array([round(row[1]) + 0.5 for row in drawn])
        sums = {name: sum(value for own, value in zip(names, values, strict=True) if own == name) for name in names}
        found = [set(places.tolist()) for places in GroupIndex.of(index_names(names)).above(values, round(most))]
        expected = [{n for n, own in enumerate(names) if own == name} for name in sums if sums[name] > round(most)]
        assert found == expected

    @given(senders)
    def test_two_have_the_same_number_where_they_are_the_same(self, drawn):
        crowd = Contributors.of(drawn)
        for n, one in enumerate(drawn):
            for m, other in enumerate(drawn):
                alone = one.project == other.project
                assert (crowd.projects[n] == crowd.projects[m]) == alone
                assert (crowd.shares[n] == crowd.shares[m]) == (alone and one.owner == other.owner)
                assert (crowd.owners[n] == crowd.owners[m]) == (one.owner == other.owner and (alone or one.owner != ""))

    @pytest.mark.slow
    @given(senders, st.data())
    def test_some_of_a_crowd_are_who_they_were(self, drawn, more):
        places = sorted(more.draw(st.sets(st.sampled_from(range(len(drawn))), min_size=1)))
        some, alone = Contributors.of(drawn).select(places), Contributors.of([drawn[place] for place in places])
        np.testing.assert_array_equal(some.staleness_weights, alone.staleness_weights)
        for ours, theirs in zip(some[1:], alone[1:], strict=True):
            np.testing.assert_array_equal(ours[:, np.newaxis] == ours, theirs[:, np.newaxis] == theirs)
