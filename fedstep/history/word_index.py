"""Which words each test's own source has: written by `train` from the checkout, and never sent to an aggregator.

It cannot be derived from the records. A test that it lacks is read by the next `train`.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

from fedstep.errors import MALFORMED, HistoryError
from fedstep.history.project_store import WORDS, ProjectStore
from fedstep.ingest.change_impact import file_of, own_files
from fedstep.schema.schema import sub_words
from fedstep.types import FileChange

FORMAT = 1
MOST_TESTS = 100_000
SHORTEST_WORD = 3  # letters


class WordIndex(NamedTuple):
    """The tests by the sub-words of their own source.

    `places` has for each word the numbers of its tests, ascending, as decimal digits: the first, then each number less
    the one before. Only those of the words that are looked up need to be read.
    """

    tests: tuple[str, ...] = ()
    places: Mapping[str, str] = MappingProxyType({})

    def numbers(self, word: str, most: float = inf) -> list[int]:
        """Return the places in `tests` of those that have the word, none where more than `most` have it.

        Raise HistoryError if they are damaged.
        """
        try:
            steps = self.places.get(word, "").split()
            numbers = list(accumulate(map(int, steps))) if len(steps) <= most else []
        except (ValueError, AttributeError) as error:
            raise HistoryError(f"the words of the tests are damaged at {word!r}") from error
        if numbers and not 0 <= min(numbers) <= max(numbers) < len(self.tests):
            raise HistoryError(f"the words of the tests are damaged at {word!r}")
        return numbers

    def find(self, word: str) -> list[str]:
        """Return the tests that have the word. Raise HistoryError if they are damaged."""
        return [self.tests[index] for index in self.numbers(word)]

    def unchanged_tests(self, files: Sequence[FileChange]) -> frozenset[str]:
        """Return the tests whose own file is none of these."""
        changed = own_files(files)
        return frozenset(test for test in self.tests if file_of(test) not in changed)

    def words(self) -> dict[str, tuple[str, ...]]:
        """Return the words of each test."""
        words_of: dict[str, list[str]] = {test: [] for test in self.tests}
        for word in self.places:
            for test in self.find(word):
                words_of[test].append(word)
        return {test: tuple(words) for test, words in words_of.items()}


NO_WORDS = WordIndex()


def index_words(words: Mapping[str, Sequence[str]]) -> WordIndex:
    """Return the index of these words by test.

    >>> index_words({"a#b": ("cart",), "a#c": ("cart", "pay")}).find("cart")
    ['a#b', 'a#c']
    """
    tests = tuple(words)[:MOST_TESTS]
    numbers: dict[str, list[int]] = {}
    for index, test in enumerate(tests):
        for word in words[test]:
            numbers.setdefault(word, []).append(index)
    steps = {word: chain(at[:1], (after - before for before, after in pairwise(at))) for word, at in numbers.items()}
    return WordIndex(tests, {word: " ".join(map(str, step)) for word, step in steps.items()})


def split_words(identifiers: Sequence[str]) -> tuple[str, ...]:
    """Return the sub-words of identifiers that an index has: those of three letters or more."""
    return tuple(word for word in sub_words(identifiers) if len(word) >= SHORTEST_WORD)


def read_word_index(store: ProjectStore) -> WordIndex:
    """Return the index of a history, an empty one if there is none or it is damaged."""
    try:
        content = store.read(WORDS)
        fields: dict[str, Any] = json.loads(content) if content else {"format": 0}
        if fields["format"] != FORMAT:
            return NO_WORDS
        return WordIndex(tuple(map(str, fields["tests"])), dict(fields["words"]))
    except (HistoryError, *MALFORMED):
        return NO_WORDS


def update_word_index(
    store: ProjectStore, index: WordIndex, fresh: Mapping[str, Sequence[str]], kept: Collection[str]
) -> None:
    """Store the index with these words of tests, and without the tests that are not `kept`."""
    if not fresh and set(index.tests) <= set(kept):
        return
    try:
        known = index.words()
    except HistoryError:  # damaged: the next build reads the others again
        known = {}
    words = {test: tuple(known[test]) for test in known if test in kept} | {t: tuple(w) for t, w in fresh.items()}
    made = index_words(words)
    content = {"format": FORMAT, "tests": made.tests, "words": dict(made.places)}
    store.write(WORDS, json.dumps(content, separators=(",", ":")).encode())
