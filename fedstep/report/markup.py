"""The building blocks of our Markdown. Text from outside enters it through `code` alone."""

from collections.abc import Iterable, Iterator, Sequence

from fedstep.report.escape import MOST_COLUMNS, visible

__all__ = ["code", "details", "more", "page", "table"]


def code(text: str, most: int = MOST_COLUMNS) -> str:
    """Hostile text as a code span: nothing in it is markup, a mention or a reference.

    >>> code("a`b")
    '``a`b``'
    """
    shown = visible(text, most)
    shown = shown if shown.strip() else "(blank)"
    longest = max(map(len, "".join(c if c == "`" else " " for c in shown).split()), default=0)
    fence, pad = "`" * (longest + 1), " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown of one line each."""
    lines = (header, ["---"] * len(header), *(tuple(map(_cell, cells)) for cells in rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def details(summary: str, body: str) -> str:
    """A body that is folded away until its summary is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def more(number: int) -> Iterator[str]:
    """Says how many entries a limit left out, if any."""
    if number > 0:
        yield f"and {number:,} more"


def page(*blocks: str) -> str:
    """The blocks, with an empty line between them."""
    return "\n\n".join(blocks) + "\n"


def _cell(markdown: str) -> str:
    """A pipe ends a cell, even inside a code span, unless a backslash escapes it.

    Parsers disagree about two backslashes before a pipe: that pipe becomes a visible escape instead.
    """
    return markdown.replace("\\|", "\\\\x7c").replace("|", "\\|")
