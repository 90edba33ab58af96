"""An expected and an actual time on one line of characters, for logs and step summaries."""

from fedstep.report.findings import Interval
from fedstep.report.units import span

__all__ = ["interval_drawing"]

CELLS = 60


def interval_drawing(expected: Interval, actual: float) -> str:
    """Two lines: the interval as `[==o==]` with the actual time as `x`, and the axis from 0 that they stand on.

    >>> print(interval_drawing(Interval(30.0, 20.0, 40.0), 50.0))
    |...................[=========o=========].........x..........
    0 s                                                1 min 00 s
    """
    full = 1.2 * max(expected.high, actual, 1e-9)
    low, high = _cell(expected.low, full), _cell(expected.high, full)
    point, end = _cell(expected.seconds, full), _cell(actual, full)
    cells = ["|", *"." * CELLS]
    cells[low : high + 1] = ["="] * (high + 1 - low)
    cells[low], cells[high], cells[point] = "[", "]", "o"
    cells[end] = "x" if end != point else "*"
    return f"{''.join(cells)}\n0 s{span(full):>{CELLS - 2}}"


def _cell(seconds: float, full: float) -> int:
    share = seconds / full
    return round(CELLS * min(max(share, 0.0), 1.0)) if share == share else 0  # NaN is not equal to itself
