"""The building blocks of the page. Text from outside enters it through `text` alone."""

from collections.abc import Iterable, Sequence
from html import escape

from fedstep.report.reasons import causes
from fedstep.report.units import visible
from fedstep.results import FeatureContribution


def text(hostile: str, most: int = 160) -> str:
    """Text from outside as HTML: one line, nothing in it is markup.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return escape(visible(hostile, most))


def name(hostile: str) -> str:
    """A name from outside as code, which may be broken after its separators.

    >>> name("a.B#c")
    '<code>a.<wbr>B#<wbr>c</code>'
    """
    shown = visible(hostile)
    pieces = (escape(letter) + "<wbr>" * (letter in "./#:_") for letter in shown)
    return f"<code>{''.join(pieces)}</code>"


def tile(figure: str, meaning: str) -> str:
    """A large figure and what it means."""
    return f'<div class="tile"><b>{figure}</b><span>{meaning}</span></div>'


def cell(content: str, kind: str = "") -> str:
    """A table cell."""
    return f'<td class="{kind}">{content}</td>' if kind else f"<td>{content}</td>"


def number(content: str, kind: str = "") -> str:
    """A table cell that is set flush right."""
    return cell(content, f"n {kind}".rstrip())


def table_row(*cells: str) -> str:
    """A table row."""
    return f"<tr>{''.join(cells)}</tr>"


def table(header: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    """A table that scrolls by itself on a narrow screen; a header that starts with `>` is set flush right."""
    heads = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith(">") else f"<th>{name}</th>" for name in header)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def meter(share: float, kind: str = "") -> str:
    """A bar that is filled to a share."""
    filled = 100 * min(max(share, 0.0), 1.0) if share == share else 0.0  # NaN is not equal to itself
    return f'<span class="meter {kind}"><i style="width:{filled:.0f}%"></i></span>'


def because(reasons: Iterable[FeatureContribution]) -> str:
    """The largest causes, one under the other."""
    return "".join(
        f"<div>{'+' if cause.sign == '+' else '−'} {escape(cause.phrase)}{_quoted(cause.word)}</div>"
        for cause in causes(reasons)
    )


def _quoted(word: str) -> str:
    return f" {name(word)}" if word else ""
