"""The test that somebody means by a part of its name."""

from collections.abc import Sequence
from difflib import get_close_matches

from fedstep.features.words import sub_words

__all__ = ["MOST_MATCHES", "matches", "nearest"]

MOST_MATCHES = 8
MOST_COMPARED = 300  # names that are compared letter by letter


def matches(wanted: str, tests: Sequence[str]) -> tuple[str, ...]:
    """The tests of the first kind that has any: this very id, this very name, this part of an id, in any case.

    >>> matches("b", ["A#b", "A#bc"])
    ('A#b',)
    """
    small = wanted.lower()
    kinds = (
        lambda test: test == wanted,
        lambda test: test.endswith(f"#{wanted}"),
        lambda test: wanted in test,
        lambda test: small in test.lower(),
    )
    found = (tuple(filter(kind, tests)) for kind in kinds)
    return next((some for some in found if some), ())


def nearest(wanted: str, tests: Sequence[str]) -> tuple[str, ...]:
    """The tests whose names are most like it: those that share most words with it, compared letter by letter."""
    words = set(sub_words((wanted,)))
    shared = sorted(tests, key=lambda test: -len(words.intersection(sub_words((test,)))))[:MOST_COMPARED]
    names = {test.rpartition("#")[2]: test for test in reversed(shared)}
    alike = get_close_matches(wanted.rpartition("#")[2], names, MOST_MATCHES, 0.5)
    return tuple(names[name] for name in alike) or tuple(get_close_matches(wanted, shared, MOST_MATCHES, 0.3))
