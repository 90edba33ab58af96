"""A strip of builds as inline SVG: expected time with its interval, Jenkins' estimate, and what it really took.

The drawing is stretched to the width it is given, so it holds no text: labels are HTML beside it. A dot is a line of
no length with round ends, which stays round however the strip is stretched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

from fedstep.report.units import count, span
from fedstep.results import Interval
from fedstep.types import BuildOutcome, Unavailable


@dataclass(frozen=True, slots=True)
class TimedBuild:
    """One build: how long it took and what was expected before it ran."""

    number: int
    seconds: float
    expected: Interval | Unavailable
    outcome: BuildOutcome


WIDTH, HEIGHT, EDGE = 1000.0, 220.0, 10.0
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
Point = tuple[float, float]


def strip(builds: Sequence[TimedBuild]) -> str:
    """The figure as HTML; its time axis starts at zero, and says so where a build is longer than it shows."""
    top = _top(builds)
    ticks = [tick for tick in _ticks(top) if tick <= top]
    labels = "".join(f'<span style="bottom:{100 * tick / top:.2f}%">{span(tick)}</span>' for tick in ticks)
    return (
        f'<div class="strip"><div class="times">{labels}</div>'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img" aria-label="build times">'
        f"{_lines(ticks, top)}{_series(builds, top)}</svg></div>"
        f'<div class="numbers"><span>build {builds[0].number}</span><span>build {builds[-1].number}</span></div>'
        f"{_over(builds, top)}"
    )


def _top(builds: Sequence[TimedBuild]) -> float:
    """The longest build or interval, unless a few would flatten all others: then twice the 95th percentile."""
    seconds = sorted(build.seconds for build in builds)
    usual = seconds[int(0.95 * (len(seconds) - 1))]
    highs = [build.expected.high for build in builds if isinstance(build.expected, Interval)]
    return max(min(max(seconds[-1], *highs, 0.0) * 1.05, 2.0 * usual), 1e-3)


def _ticks(top: float) -> Iterable[float]:
    step = next((step for step in STEPS if top / step <= 5), top / 4)
    return [number * step for number in range(6)]


def _lines(ticks: Sequence[float], top: float) -> str:
    path = "".join(f"M0 {_y(tick, top):.1f}H{WIDTH:g}" for tick in ticks)
    return f'<path class="grid" d="{path}"/>'


def _series(builds: Sequence[TimedBuild], top: float) -> str:
    points = [(_x(place, len(builds)), build) for place, build in enumerate(builds)]
    passed = [(x, _y(b.seconds, top)) for x, b in points if b.outcome == BuildOutcome.PASSED]
    others = [(x, _y(b.seconds, top)) for x, b in points if b.outcome != BuildOutcome.PASSED]
    bands, middles, jenkins = [], [], []
    for known, run in groupby(points, lambda point: isinstance(point[1].expected, Interval)):
        pairs = [(x, build.expected) for x, build in run if isinstance(build.expected, Interval)]
        if known:
            bands.append(_band(pairs, top))
            middles.append(_line([(x, _y(expected.seconds, top)) for x, expected in pairs]))
            jenkins.append(
                _line([(x, _y(seconds, top)) for x, expected in pairs if isfinite(seconds := _jenkins(expected))])
            )
    return (
        f'<path class="band" d="{"".join(bands)}"/><path class="jenkins" d="{"".join(jenkins)}"/>'
        f'<path class="expected" d="{"".join(middles)}"/>'
        f'<path class="passed" d="{_dots(passed)}"/><path class="failed" d="{_dots(others)}"/>'
    )


def _jenkins(expected: Interval) -> float:
    seconds = expected.jenkins_seconds
    return float("nan") if isinstance(seconds, Unavailable) else seconds


def _band(pairs: Sequence[tuple[float, Interval]], top: float) -> str:
    upper = [(x, _y(expected.high, top)) for x, expected in pairs]
    lower = [(x, _y(expected.low, top)) for x, expected in reversed(pairs)]
    return f"{_line([*upper, *lower])}Z"


def _line(points: Sequence[Point]) -> str:
    """A path through the points: `M` takes the first pair, and all that follow are lines."""
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _dots(points: Iterable[Point]) -> str:
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def _x(place: int, builds: int) -> float:
    return EDGE + (WIDTH - 2 * EDGE) * (place / (builds - 1) if builds > 1 else 0.5)


def _y(seconds: float, top: float) -> float:
    return HEIGHT * (1.0 - min(max(seconds / top, 0.0), 1.0))


def _over(builds: Sequence[TimedBuild], top: float) -> str:
    over = [build.seconds for build in builds if build.seconds > top]
    if not over:
        return ""
    return f'<p class="note">{count(len(over), "build")} longer than the axis, at its top: up to {span(max(over))}.</p>'
