"""Rows of a terminal page: a label and its text, wrapped under each other."""

from collections.abc import Iterable, Iterator

from fedstep.report.escape import columns, shorten

__all__ = ["LABEL", "WIDTH", "padded", "page", "row", "wrapped"]

WIDTH = 100
LABEL = 14


def row(label: str, text: str) -> Iterator[str]:
    """A label and its text; lines after the first stand below the text.

    >>> list(row("Status", "ok"))
    ['Status        ok']
    """
    first, *rest = wrapped(text, LABEL) or (" " * LABEL,)
    yield f"{label:<{LABEL}}{first[LABEL:]}"
    yield from rest


def wrapped(text: str, indent: int) -> list[str]:
    """The words of a text in lines of at most WIDTH columns, all indented."""
    lines: list[str] = []
    room = WIDTH - indent
    for word in (shorten(word, room) for word in text.split(" ")):
        if lines and columns(lines[-1]) + 1 + columns(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [" " * indent + line.rstrip() for line in lines if line.strip()]


def padded(text: str, width: int) -> str:
    """The text with blanks up to a width in terminal columns."""
    return text + " " * (width - columns(text))


def page(lines: Iterable[str]) -> str:
    """The lines, each with a newline at its end and no blanks before it."""
    return "".join(f"{line.rstrip()}\n" for line in lines)
