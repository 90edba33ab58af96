"""Charts as static SVG, drawn by Vega-Lite through vl-convert: decision 0051.

The SVG has no script and no style sheet, so that it is shown wherever inline styles are forbidden (Jenkins, GitLab);
colours are variables of the page's style sheet, for light and dark. Needs the extra `report`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from markupsafe import Markup

from fedstep.report.units import span, visible
from fedstep.types import TimeChange, TimelineBuild

WIDE, NARROW = 900, 320  # pixels; a page shows the one that fits
HEIGHT = 220
MOST_POINTS = 250  # builds in one chart: more are not told apart
DAY = 86_400.0  # seconds
Spec = dict[str, Any]


def render_svg(spec: Spec, label: str) -> Markup:
    """Return a Vega-Lite specification as SVG with an accessible name. Raise ImportError without vl-convert."""
    import vl_convert  # 34 MB to install: only pages with charts need it

    text = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="5.20")
    head = Markup('<svg role="img" aria-label="{}" ').format(label)
    return Markup(text.replace("<svg ", head, 1))


def draw_build_times(name: str, builds: Sequence[TimelineBuild], changes: Sequence[TimeChange], width: int) -> Markup:
    """Return the chart of a job: what its builds took, what was expected with its interval, and changes of time."""
    newest = builds[-MOST_POINTS:]
    unit, scale = _unit(build.seconds for build in newest)
    rows = [_row(build, scale) for build in newest]
    top = _axis_end(newest) / scale
    first = newest[0].finished_at if newest else 0.0
    marks = [_mark(change, scale) for change in changes if change.since >= first]
    spec = {**_base(width, rows), "layer": [*_layers(top, unit, _label_format(newest)), *_rules(marks)]}
    return render_svg(spec, f"Build times of {visible(name, 80)}, the last {len(newest)} builds")


def builds_beyond_axis(builds: Sequence[TimelineBuild]) -> tuple[float, ...]:
    """Return the seconds of the builds that the chart of a job draws at its top, because they took longer."""
    newest = builds[-MOST_POINTS:]
    end = _axis_end(newest)
    return tuple(build.seconds for build in newest if build.seconds > end)


def draw_calibration(bins: Sequence[tuple[float, float, int]], width: int) -> Markup:
    """Return the chart of predicted risk against the share of builds that failed, a point for each group of builds."""
    rows = [
        {
            "risk": 100 * risk,
            "failed": 100 * failed,
            "builds": builds,
            "says": f"{builds} builds: risk {risk:.0%}, {failed:.0%} failed",
        }
        for risk, failed, builds in bins
    ]
    diagonal = {
        "data": {"values": [{"risk": 0, "failed": 0}, {"risk": 100, "failed": 100}]},
        "mark": {"type": "line", "color": "var(--grey)", "strokeDash": [4, 4], "aria": False},
        "encoding": {"x": _risk_axis("risk", "predicted risk"), "y": _risk_axis("failed", "failed")},
    }
    points = {
        "mark": {"type": "circle", "color": "var(--blue)", "opacity": 0.85},
        "encoding": {
            "x": _risk_axis("risk", "predicted risk"),
            "y": _risk_axis("failed", "failed"),
            "size": {"field": "builds", "type": "quantitative", "scale": {"range": [60, 420]}, "legend": None},
            "description": {"field": "says"},
        },
    }
    spec = {**_base(width, rows), "layer": [diagonal, points]}
    return render_svg(spec, "Predicted risk against the share of builds that failed")


def _base(width: int, rows: Sequence[Mapping[str, object]]) -> Spec:
    axis = {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--rule)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width,
        "height": HEIGHT,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "background": None,
        "data": {"values": list(rows)},
        "config": {"view": {"stroke": None}, "axis": axis, "font": "system-ui, sans-serif"},
    }


def _risk_axis(field: str, title: str) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "title": f"{title} (%)",
        "scale": {"domain": [0, 100]},
        "axis": {"tickCount": 5, "grid": field == "failed"},
    }


def _row(build: TimelineBuild, scale: float) -> dict[str, Any]:
    def to_unit(seconds: float) -> float | None:
        return round(seconds / scale, 4) if isfinite(seconds) else None

    expected = f", {span(build.expected)} expected" if build.is_predicted else ""
    commit = f", {visible(build.commit[:7])}" if build.commit else ""
    return {
        "at": 1000 * build.finished_at,
        "took": to_unit(build.seconds),
        "expected": to_unit(build.expected),
        "low": to_unit(build.low),
        "high": to_unit(build.high),
        "outcome": "passed" if build.outcome == "passed" else "failed",
        "says": f"{_day(build.finished_at)}: {span(build.seconds)}, {build.outcome}{expected}{commit}",
    }


def _mark(change: TimeChange, scale: float) -> dict[str, Any]:
    factor = change.after / change.before
    return {
        "at": 1000 * change.since,
        "label": f"{'+' if factor > 1 else '−'}{abs(factor - 1):.0%}",
        "says": f"{_day(change.since)}: {span(change.before)} before, {span(change.after)} since",
        "colour": "slower" if factor > 1 else "faster",
        "after": change.after / scale,
    }


def _label_format(builds: Sequence[TimelineBuild]) -> str:
    """Return how the axis tells a time: by its day, or by its hour (UTC) where all builds are of two days."""
    ends = [build.finished_at for build in builds]
    return "%H:%M" if ends and max(ends) - min(ends) < 2 * DAY else "%-d %b"


def _layers(top: float, unit: str, label: str) -> list[Spec]:
    time = {
        "field": "at",
        "type": "temporal",
        "title": None,
        "scale": {"type": "utc"},
        "axis": {"grid": False, "tickCount": 5, "format": label},
    }

    def height(field: str) -> Spec:
        scale = {"domain": [0, top], "clamp": True}
        return {"field": field, "type": "quantitative", "title": unit, "scale": scale, "axis": {"tickCount": 4}}

    outcome = {"domain": ["passed", "failed"], "range": ["var(--ink)", "var(--red)"]}
    return [
        {
            "mark": {"type": "area", "color": "var(--blue)", "opacity": 0.16, "interpolate": "step", "aria": False},
            "encoding": {"x": time, "y": height("low"), "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "color": "var(--blue)", "strokeWidth": 2, "interpolate": "step", "aria": False},
            "encoding": {"x": time, "y": height("expected")},
        },
        {
            "mark": {"type": "circle", "size": 22, "opacity": 0.75},
            "encoding": {
                "x": time,
                "y": height("took"),
                "color": {"field": "outcome", "scale": outcome, "legend": None},
                "description": {"field": "says"},
            },
        },
    ]


def _rules(marks: Sequence[Mapping[str, object]]) -> list[Spec]:
    """Return a vertical line with a label at each change of time."""
    if not marks:
        return []
    colour = {
        "field": "colour",
        "scale": {"domain": ["slower", "faster"], "range": ["var(--red)", "var(--green)"]},
        "legend": None,
    }
    at = {"field": "at", "type": "temporal"}
    return [
        {
            "data": {"values": list(marks)},
            "mark": {"type": "rule", "strokeWidth": 1.5, "strokeDash": [5, 3]},
            "encoding": {"x": at, "stroke": colour, "description": {"field": "says"}},
        },
        {
            "data": {"values": list(marks)},
            "mark": {
                "type": "text",
                "align": "left",
                "dx": 5,
                "dy": 2,
                "fontSize": 12,
                "fontWeight": 600,
                "baseline": "top",
            },
            "encoding": {"x": at, "y": {"value": 0}, "text": {"field": "label"}, "fill": colour},
        },
    ]


def _unit(seconds: Iterable[float]) -> tuple[str, float]:
    longest = max((value for value in seconds if isfinite(value)), default=0.0)
    return ("seconds", 1.0) if longest < 180 else ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _axis_end(builds: Sequence[TimelineBuild]) -> float:
    """Return the end of the axis in seconds: the longest, unless a few would flatten all others."""
    ascending = sorted(time for build in builds for time in (build.seconds, build.expected) if isfinite(time))
    usual = ascending[int(0.97 * (len(ascending) - 1))] if ascending else 1.0
    return max(min(ascending[-1] if ascending else 1.0, 1.6 * usual) * 1.15, 1e-3)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
