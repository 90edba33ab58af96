"""Text from the code under test made harmless: what a terminal or a CI would obey becomes visible instead."""

__all__ = ["MOST_COLUMNS", "columns", "shorten", "visible"]

MOST_COLUMNS = 160  # of one name in a report

# Printable by Unicode's categories and yet blank or invisible: fillers, joiners, variation selectors.
_BLANKS = (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)
_INVISIBLE = frozenset((*_BLANKS, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))


def visible(text: str, most: int = MOST_COLUMNS) -> str:
    """One line of at most `most` columns that neither a terminal nor a CI's log reader obeys.

    Control, bidi, zero-width and other unprintable characters become escapes. GitHub takes a line that starts with
    two colons, and `##[` anywhere in a line, for a command (Azure and TeamCity: `##vso[`, `##teamcity[`): both
    are broken by an escape.

    >>> visible("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    text = shorten(text, 4 * most)  # a name of a megabyte costs no more than a long one
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_shown, text))
    return shorten(_no_command(text), most)


def shorten(text: str, most: int) -> str:
    """At most `most` columns: head and tail stay, the middle gives way to an ellipsis.

    >>> shorten("com.acme.SomethingTest#works", 13)
    'com.ac…#works'
    """
    if len(text) <= most and columns(text) <= most:
        return text
    kept = max(most - 1, 2) // (1 if text.isascii() else 2)
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def columns(text: str) -> int:
    """Terminal columns, at most: East Asian characters and emoji take two, and so may all others from U+1100 on."""
    return len(text) if text.isascii() else sum(1 + (character >= "\u1100" and character != "…") for character in text)


def _shown(character: str) -> str:
    if character.isprintable() and ord(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _no_command(text: str) -> str:
    words = text.replace("##", "#\\x23").split(" ")
    return " ".join("\\x3a" + word[1:] if word.startswith("::") else word for word in words)
