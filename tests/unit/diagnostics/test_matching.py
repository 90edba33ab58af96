"""A test is found by a part of its name, and never guessed."""

from hypothesis import given
from hypothesis import strategies as st

from fedstep.diagnostics.explain import MOST_MATCHES, matches, nearest

TESTS = ("shop.CartTest#sums", "shop.CartTest#sumsTwice", "shop.BillTest#sums", "net.RetryTest#reconnectsAfterTimeout")


class TestMatches:
    def test_an_id_means_itself_even_where_it_is_part_of_another(self) -> None:
        assert matches("shop.CartTest#sums", TESTS) == ("shop.CartTest#sums",)

    def test_a_whole_name_outranks_a_part_of_one(self) -> None:
        assert matches("sums", TESTS) == ("shop.CartTest#sums", "shop.BillTest#sums")
        assert matches("sumsTwice", TESTS) == ("shop.CartTest#sumsTwice",)

    def test_a_unique_part_means_the_test_in_any_case(self) -> None:
        assert matches("Retry", TESTS) == matches("RETRYTEST", TESTS) == (TESTS[3],)

    def test_what_is_in_no_name_means_nothing(self) -> None:
        assert matches("xyz", TESTS) == ()

    def test_a_slip_of_the_pen_is_near_what_was_meant(self) -> None:
        assert nearest("reconectsAfterTimeOut", TESTS)[0] == TESTS[3]
        assert nearest("shop.CartTest#summs", TESTS)[0].endswith("#sums")

    @given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=30))
    def test_matches_and_neighbours_are_tests(self, wanted: str, tests: list[str]) -> None:
        assert set(matches(wanted, tests)) <= set(tests)
        assert set(nearest(wanted, tests)) <= set(tests)
        assert len(nearest(wanted, tests)) <= MOST_MATCHES
