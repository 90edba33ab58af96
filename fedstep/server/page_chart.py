"""Inline SVG of the page: trials over versions, and bars.

Horizontal places are per cent and vertical ones pixels, so a drawing takes any width and its dots stay round. Nothing
in it has a style attribute: the page's policy forbids them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["Point", "bar", "trials_chart"]

ABOVE, TALL, STRIP, GAP = 8.0, 150.0, 32.0, 14.0  # free at the top, the trials, the margin below them, between them
BASE = ABOVE + TALL + GAP + STRIP
EDGE = 2.0  # per cent left free at either side
SHAPES = {
    "promoted": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
    "rejected": "M-5 -5L5 5M-5 5L5 -5",
    "undecided": "M-5 0H5",
    "open": "M0 -6L6 0L0 6L-6 0Z",
    "rollback": "M0 -7L6 5H-6Z",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A trial's end, or an open one as it stands: how much worse than production the snapshot is, with its bounds.

    `version` is where it is drawn, `spent` the margin gone after it. All in units of the bound.
    """

    version: int
    outcome: str
    mean: float
    low: float
    high: float
    spent: float


def trials_chart(label: str, points: Sequence[Point], margin: float, top: float) -> Markup:
    """The trials of one head over versions, and the margin spent below; `top` is the end of the axis either way."""
    first, last = min(point.version for point in points), max(point.version for point in points)
    places = [_place(point.version, first, last) for point in points]
    marks = Markup("").join(_mark(point, place, top) for point, place in zip(points, places, strict=True))
    return Markup(
        '<div class="plot"><svg class="trials" height="{}" role="img" aria-label="{}">{}{}{}{}</svg></div>'
    ).format(f"{BASE + 18:g}", label, _grid(margin, top), marks, _spent(points, places, margin), _axis(first, last))


def bar(share: float, kind: str = "") -> Markup:
    """A horizontal bar of this share of its width."""
    return Markup(
        '<svg class="bar {}" height="8" aria-hidden="true"><rect class="all" width="100%" height="8" rx="3"/>'
        '<rect class="part" width="{}%" height="8" rx="3"/></svg>'
    ).format(kind, f"{100 * min(max(share, 0.0), 1.0):.1f}")


def _grid(margin: float, top: float) -> Markup:
    lines = ((top, "grid", "worse"), (margin, "margin", f"{margin:+.2f}"), (0.0, "zero", "0"), (-top, "grid", "better"))
    return Markup("").join(
        Markup('<line class="{}" x1="0" x2="100%" y1="{y}" y2="{y}"/><text x="-8" y="{}">{}</text>').format(
            kind, f"{_y(value, top) + 4:.1f}", text, y=f"{_y(value, top):.1f}"
        )
        for value, kind, text in lines
    )


def _mark(point: Point, place: float, top: float) -> Markup:
    if point.outcome == "rollback":
        line = Markup('<line class="rollback" x1="{x}%" x2="{x}%" y1="{}" y2="{}"/>').format(
            f"{ABOVE:g}", f"{ABOVE + TALL:g}", x=place
        )
        said, y = f"version {point.version}: rollback", ABOVE + TALL - 8
    else:
        ends = f"{_y(point.high, top):.1f}", f"{_y(point.low, top):.1f}"
        line = Markup('<line class="bounds {}" x1="{x}%" x2="{x}%" y1="{}" y2="{}"/>').format(
            point.outcome, *ends, x=place
        )
        said = f"version {point.version} {point.outcome}: {point.mean:+.3f}, {point.low:+.3f} to {point.high:+.3f}"
        y = _y(point.mean, top)
    return line + Markup('<svg x="{}%" y="{}"><path class="mark {}" d="{}"/><title>{}</title></svg>').format(
        place, f"{y:.1f}", point.outcome, SHAPES.get(point.outcome, SHAPES["undecided"]), said
    )


def _spent(points: Sequence[Point], places: Sequence[float], margin: float) -> Markup:
    """A step for each trial, from it to the next."""
    ends = (*places[1:], 100.0)
    steps = Markup("").join(
        Markup('<rect class="spent" x="{}%" y="{}" width="{}%" height="{}"/>').format(
            place, f"{BASE - tall:.1f}", f"{max(0.0, end - place):.2f}", f"{tall:.1f}"
        )
        for point, place, end in zip(points, places, ends, strict=True)
        if (tall := STRIP * min(1.0, point.spent / margin if margin else 0.0)) > 0
    )
    frame = Markup(
        '<line class="margin" x1="0" x2="100%" y1="{t}" y2="{t}"/>'
        '<line class="zero" x1="0" x2="100%" y1="{b}" y2="{b}"/>'
        '<text x="-8" y="{}">spent</text>'
    )
    return steps + frame.format(f"{BASE - STRIP / 2 + 4:.1f}", t=f"{BASE - STRIP:g}", b=f"{BASE:g}")


def _axis(first: int, last: int) -> Markup:
    y = f"{BASE + 15:g}"
    text = Markup('<text class="{}" x="{}%" y="{}">version {}</text>')
    if first == last:
        return text.format("middle", 50, y, first)
    return text.format("start", 0, y, first) + text.format("end", 100, y, last)


def _place(version: int, first: int, last: int) -> float:
    """Per cent from the left."""
    return round(EDGE + (100 - 2 * EDGE) * ((version - first) / (last - first) if last > first else 0.5), 2)


def _y(value: float, top: float) -> float:
    """Pixels from above; better than production is below."""
    return ABOVE + TALL / 2 * (1 - min(max(value / top, -1.0), 1.0))
