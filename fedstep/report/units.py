"""Format numbers with units, and escape control sequences and CI commands in text from the code under test."""

import re
from collections.abc import Iterable
from math import isfinite

MOST_COLUMNS = 160  # of one name in a report

# Printable by Unicode's categories and yet blank or invisible: fillers, joiners, variation selectors.
_BLANKS = (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)
_COMMAND = re.compile(r"##(\w*\[)")
_INVISIBLE = frozenset((*_BLANKS, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))


def visible(text: str, most: int = MOST_COLUMNS) -> str:
    """Return one line of at most `most` columns without control sequences or commands to a CI's log reader.

    Control, bidi, zero-width and other unprintable characters become escapes. GitHub takes a line that starts with
    two colons, and `##[` anywhere in a line, for a command (Azure and TeamCity: `##vso[`, `##teamcity[`): both
    are broken by an escape.

    >>> visible("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    text = shorten(text, 4 * most)  # a name of a megabyte costs no more than a long one
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_show_character, text))
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


def _show_character(character: str) -> str:
    if character.isprintable() and ord(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _no_command(text: str) -> str:
    words = _COMMAND.sub(r"#\\x23\g<1>", text).split(" ")
    return " ".join("\\x3a" + word[1:] if word.startswith("::") else word for word in words)


def warning_text(warnings: Iterable[str]) -> str:
    """Return one line per warning, for stderr; lines end with a newline."""
    return "".join(f"fedstep: {visible(warning, 500)}\n" for warning in warnings)


UNKNOWN = "unknown"


def span(seconds: float) -> str:
    """Format a duration in at most two units.

    >>> [span(s) for s in (0.04, 0.85, 3.21, 250, 3725, 180000)]
    ['40 ms', '0.85 s', '3.2 s', '4 min 10 s', '1 h 02 min', '2 d 2 h']
    """
    if not isfinite(seconds) or seconds < 0:
        return UNKNOWN
    if 0 < seconds < 0.0995:
        return f"{max(1000 * seconds, 0.1):.2g} ms"
    if seconds < 59.5:
        return f"{_few_digits(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def percent(share: float) -> str:
    """Format a probability or share in percent; only exactly 0 and 1 become 0 % and 100 %.

    >>> [percent(p) for p in (0.0, 0.003, 0.345, 0.997, 1.0)]
    ['0 %', '<1 %', '34 %', '>99 %', '100 %']
    """
    if not isfinite(100 * share):
        return UNKNOWN
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{100 * share:.0f} %"


def size(bytes_: int) -> str:
    """Format a number of bytes in decimal units.

    >>> [size(n) for n in (512, 3100, 12_000_000)]
    ['512 B', '3.1 kB', '12 MB']
    """
    if bytes_ < 1000:
        return f"{bytes_} B"
    if bytes_ < 999_500:
        return f"{_few_digits(bytes_ / 1000)} kB"
    return f"{_few_digits(bytes_ / 1e6)} MB"


def count(amount: int, noun: str, plural: str = "") -> str:
    """Format a number with its noun.

    >>> count(1, "test"), count(1204, "test")
    ('1 test', '1,204 tests')
    """
    return f"{amount:,} {noun if amount == 1 else plural or noun + 's'}"


def spread(low: float, high: float) -> str:
    """Format both ends of a time interval.

    >>> spread(212, 305)
    '3 min 32 s – 5 min 05 s'
    """
    return f"{span(low)} – {span(high)}"


def _few_digits(value: float) -> str:
    if value < 0.001:
        return "0"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
