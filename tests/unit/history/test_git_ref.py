"""Facts about the union of two histories and about the names in the ref."""

from hypothesis import given
from hypothesis import strategies as st

from fedstep.history.git_ref import folder_name, merge_records, month_of
from fedstep.history.project_store import is_record_name
from fedstep.ingest.git_objects import parse_tree


def name(number: int) -> str:
    """The record file of a build that ended at this millisecond."""
    return f"{number:014d}-{number:032x}.rec"


NAMES = st.sets(st.integers(0, 30).map(name))
FLOORS = st.one_of(st.just(""), st.integers(0, 30).map(name))
KEEPS = st.integers(0, 12)


class TestUnion:
    @given(NAMES, NAMES, FLOORS, FLOORS, KEEPS)
    def test_it_does_not_matter_who_meets_whom_first(self, one, other, floor, another, keep):
        together = merge_records(one | other, max(floor, another), keep)
        first, second = merge_records(one, floor, keep), merge_records(other, another, keep)
        met = merge_records({*first.records, *second.records}, max(first.floor, second.floor), keep)
        assert met.records == together.records
        assert merge_records(met.records, met.floor, keep) == met

    @given(NAMES, NAMES, KEEPS, KEEPS)
    def test_what_was_pruned_does_not_come_back_whatever_others_keep(self, mine, theirs, keep, more):
        pruned = merge_records(mine, "", keep)
        gone = mine - set(pruned.records)
        again = merge_records({*pruned.records, *mine, *theirs}, pruned.floor, more)
        assert not gone & set(again.records)

    @given(NAMES, NAMES, KEEPS)
    def test_nothing_above_the_floor_is_lost_while_there_is_room(self, one, other, keep):
        united = merge_records(one | other, "", keep)
        assert set(united.records) == (set(sorted(one | other)[-keep:]) if keep else one | other)

    def test_a_build_that_two_machines_recorded_counts_once(self):
        early, late = f"{1:014d}-{7:032x}.rec", f"{2:014d}-{7:032x}.rec"
        assert merge_records([late, early], "", 0).records == (early,)


class TestNames:
    @given(st.integers(0, 99_999_999_999_999))
    def test_every_record_has_a_month(self, milliseconds):
        month = month_of(name(milliseconds))
        assert is_record_name(name(milliseconds))
        assert 1 <= int(month.rpartition("-")[2]) <= 12

    @given(st.text(max_size=40), st.text(max_size=40))
    def test_two_parts_never_share_a_folder(self, one, other):
        assert (folder_name(one) == folder_name(other)) == (one == other or _same_bytes(one, other))
        assert not set(folder_name(one)) & set("/\\\t\n")


def _same_bytes(one: str, other: str) -> bool:
    """Lone surrogates, which no path of a command line has, are all the same byte."""
    return one.encode("utf-8", "replace") == other.encode("utf-8", "replace")


class TestDamage:
    @given(st.binary(max_size=400), st.sampled_from((40, 64)))
    def test_a_damaged_tree_is_read_as_far_as_it_is_whole(self, content, digits):
        for entry in parse_tree(content, digits):
            assert "\0" not in entry.name
            assert len(entry.oid) <= digits
