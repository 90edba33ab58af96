"""Sub-words of names and identifiers, as the closed vocabulary counts them."""

import re
from collections.abc import Iterable

__all__ = ["sub_words"]

# An acronym before a capitalised word, a word with or without its capital, or an acronym:
# XMLHttpRequest -> xml http request
_PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def sub_words(identifiers: Iterable[str]) -> tuple[str, ...]:
    """The distinct lower-case sub-words of two letters or more, sorted.

    >>> sub_words(["testHTTPServer_startsUp2x"])
    ('http', 'server', 'starts', 'test', 'up')
    """
    return tuple(sorted({piece.lower() for name in identifiers for piece in _PIECE.findall(name) if len(piece) > 1}))
