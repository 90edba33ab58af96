"""Small charts as inline SVG for the page of a study: bars beside a line at 1, and curves in a unit square."""

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite

__all__ = ["bars", "curves"]

Point = tuple[float, float]
WIDTH, HEIGHT = 1000.0, 320.0
SERIES = ("own", "other", "third", "fourth")


def bars(rows: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str], mark: float) -> str:
    """Rows of horizontal bars, one a name, with a vertical line at `mark`; labels are HTML."""
    finite = [value for _, values in rows for value in values.values() if isfinite(value)]
    top = max([*finite, mark]) * 1.02 or 1.0
    lines = "".join(_row(label, values, names, top, mark) for label, values in rows)
    return f'<div class="bars">{lines}</div>'


def curves(
    series: Mapping[str, Sequence[Point]],
    across: tuple[float, float],
    up: tuple[float, float],
    ends: tuple[str, str],
) -> str:
    """Curves in one frame, `ends` written below it; a diagonal or a level is a series like the others."""
    paths = "".join(
        f'<path class="{SERIES[number % len(SERIES)]}" d="{_path(points, across, up)}"/>'
        for number, points in enumerate(series.values())
        if points
    )
    left = f'<div class="ends"><span>{up[1]:.2g}</span><span>{up[0]:.2g}</span></div>'
    below = f'<div class="numbers"><span>{escape(ends[0])}</span><span>{escape(ends[1])}</span></div>'
    frame = f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img">{paths}</svg>'
    return f'<div class="curves">{left}{frame}</div>{below}{_legend(tuple(series))}'


def _row(label: str, values: Mapping[str, float], names: Sequence[str], top: float, mark: float) -> str:
    drawn = "".join(
        f'<i class="{SERIES[number % len(SERIES)]}" style="width:{100 * values[name] / top:.2f}%" '
        f'title="{escape(name)} {values[name]:.3f}"></i>'
        for number, name in enumerate(names)
        if isfinite(values.get(name, float("nan")))
    )
    return (
        f'<div class="bar"><span>{escape(label)}</span>'
        f'<div class="track">{drawn}<u style="left:{100 * mark / top:.2f}%"></u></div></div>'
    )


def _path(points: Sequence[Point], across: tuple[float, float], up: tuple[float, float]) -> str:
    placed = (
        (WIDTH * _share(x, across), HEIGHT * (1.0 - _share(y, up))) for x, y in points if isfinite(x) and isfinite(y)
    )
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in placed)


def _share(value: float, ends: tuple[float, float]) -> float:
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)


def _legend(names: Sequence[str]) -> str:
    lines = (f'<svg viewBox="0 0 30 12"><path class="{kind}" d="M0 6H30"/></svg>' for kind in SERIES)
    items = "".join(f"<li>{line}{escape(name)}</li>" for line, name in zip(lines, names, strict=False) if name)
    return f'<ul class="legend">{items}</ul>'
