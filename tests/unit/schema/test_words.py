"""Facts about sub-words."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fedstep.schema.schema import sub_words


class TestWords:
    def test_names_split_at_capitals_acronyms_digits_and_signs(self) -> None:
        assert sub_words(["XMLHttpRequest", "waits_for-2ndReply"]) == (
            "for",
            "http",
            "nd",
            "reply",
            "request",
            "waits",
            "xml",
        )
        assert sub_words(["shouldParseJSON", "a", "B2", "été"]) == ("json", "parse", "should")

    @given(st.lists(st.text(max_size=20)))
    def test_words_are_distinct_lower_case_and_sorted(self, names: list[str]) -> None:
        words = sub_words(names)
        assert list(words) == sorted(set(words))
        assert all(word.isascii() and word.isalpha() and word.islower() and len(word) > 1 for word in words)

    @given(st.lists(st.text(alphabet="abAB_ ", max_size=8)), st.randoms())
    def test_the_order_of_names_says_nothing(self, names: list[str], draw: Random) -> None:
        shuffled = list(names)
        draw.shuffle(shuffled)
        assert sub_words(shuffled) == sub_words(names)
