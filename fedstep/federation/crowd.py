"""What the rows of a batch may tell: only words that several of its tests have in common.

A word that one test alone uses would name that test. What else is known of a test are numbers on public scales.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain

from fedstep.features.parts import Words
from fedstep.features.schema import Head
from fedstep.model.labels import Ripe

__all__ = ["FEWEST", "veiled"]

FEWEST = 3  # tests: of two, whoever knows the one knows the other


def veiled(head: Head, rows: Sequence[Ripe]) -> tuple[Ripe, ...]:
    """The rows as if the words that too few tests of them use were not in the list."""
    listed = _listed(head.word_lists())
    if not listed:
        return tuple(rows)
    users = _users(rows, listed)
    rare = frozenset(index for index, tests in users.items() if len(tests) < FEWEST)
    return tuple(_without(head, rare, ripe) for ripe in rows)


def _users(rows: Iterable[Ripe], listed: frozenset[int]) -> Mapping[int, set[str]]:
    """By word the tests that use it."""
    users: dict[int, set[str]] = {}
    for ripe in rows:
        for index in filter(listed.__contains__, ripe.row.indices):
            users.setdefault(index, set()).add(ripe.row.subject)
    return users


def _without(head: Head, rare: frozenset[int], ripe: Ripe) -> Ripe:
    """The row with its other words weighed anew: the weight of a word tells how many there are."""
    row, listed = ripe.row, _listed(head.word_lists())
    values = {index: value for index, value in zip(row.indices, row.values, strict=True) if index not in listed}
    shown = [index for index in row.indices if index in listed and index not in rare]
    for start, words in head.word_lists():
        offsets = [index - start for index in shown if start <= index < start + len(words.index)]
        values |= {start + offset: weight for offset, weight in words.encode(offsets)}
    indices = tuple(sorted(values))
    return ripe._replace(row=row._replace(indices=indices, values=tuple(map(values.__getitem__, indices))))


@cache
def _listed(lists: tuple[tuple[int, Words], ...]) -> frozenset[int]:
    """The coordinates of all words."""
    return frozenset(chain.from_iterable(range(start, start + len(words.index)) for start, words in lists))
