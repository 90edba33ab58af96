"""The words of tests' own source: found again, updated, and never trusted when they are damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import HistoryError
from fedstep.history.project_store import WORDS, ProjectStore
from fedstep.history.word_index import NO_WORDS, WordIndex, index_words, read_word_index, update_word_index
from fedstep.types import FileChange

CART, PAY = "tests.test_cart#test_sum", "tests.test_pay#test_pay"


class TestIndex:
    @given(st.dictionaries(st.text(max_size=3), st.sets(st.sampled_from("abcde")).map(sorted).map(tuple), max_size=20))
    def test_all_words_of_all_tests_are_found_again(self, words: dict[str, tuple[str, ...]]) -> None:
        """In either direction."""
        index = index_words(words)
        assert {test: sorted(found) for test, found in index.words().items()} == {t: list(w) for t, w in words.items()}
        assert all(set(index.find(word)) == {test for test in words if word in words[test]} for word in "abcde")

    def test_tests_of_a_changed_file_are_read_again(self) -> None:
        """Those of the others are not."""
        index = index_words({CART: ("cart",), PAY: ("pay",)})
        assert index.unchanged_tests([FileChange("tests/test_cart.py")]) == {PAY}

    def test_a_word_that_too_many_tests_have_is_not_read(self) -> None:
        """It says nothing, and its list is the longest."""
        index = index_words({CART: ("shop", "cart"), PAY: ("shop",)})
        assert (index.numbers("shop", 2), index.numbers("shop", 1), index.numbers("cart", 1)) == ([0, 1], [], [0])

    @pytest.mark.parametrize("places", ["5", "-1", "0 -1", "x", "0 99999999999999999999"])
    def test_a_damaged_number_is_an_error_not_a_wrong_test(self, places: str) -> None:
        """A number that is no test of the index."""
        with pytest.raises(HistoryError, match="damaged at 'cart'"):
            WordIndex((CART,), {"cart": places}).find("cart")


class TestFile:
    def test_an_update_adds_replaces_and_forgets(self, tmp_path: Path) -> None:
        """A test that the history does not know any more is forgotten."""
        store = ProjectStore(str(tmp_path))
        update_word_index(store, NO_WORDS, {CART: ("cart", "sum"), PAY: ("pay",)}, {CART, PAY})
        update_word_index(store, read_word_index(store), {CART: ("basket",)}, {CART})
        assert read_word_index(store).words() == {CART: ("basket",)}

    def test_nothing_new_writes_nothing(self, tmp_path: Path) -> None:
        """The file of the last build stays."""
        update_word_index(ProjectStore(str(tmp_path)), NO_WORDS, {}, {CART})
        assert not (tmp_path / WORDS).exists()

    @pytest.mark.parametrize(
        "content",
        [b"", b"[]", b"{", b"\xff", b"[" * 5000, json.dumps({"format": 9, "tests": [], "words": {}}).encode()],
    )
    def test_a_damaged_file_counts_as_none(self, tmp_path: Path, content: bytes) -> None:
        """The next build reads the tests again."""
        (tmp_path / WORDS).write_bytes(content)
        assert read_word_index(ProjectStore(str(tmp_path))) == NO_WORDS
