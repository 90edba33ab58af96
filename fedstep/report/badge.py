"""Badges with one figure of a project, as an SVG or as the JSON of a shields.io endpoint."""

import json
from dataclasses import dataclass

from markupsafe import Markup

from fedstep.report.project_page import Insights
from fedstep.report.units import count, percent, span

COLOURS = {"good": "#177245", "warning": "#9a6700", "bad": "#b3390b", "plain": "#3b4a5a"}
LETTER = 6.6  # pixels of an average letter at 11 px, as wide fonts have it


@dataclass(frozen=True, slots=True)
class Badge:
    """A label and a figure, in one of COLOURS."""

    label: str
    figure: str
    colour: str = "plain"


def make_badge(kind: str, insights: Insights) -> Badge:
    """Return the badge of this kind: usual build time, number of flaky tests, or share of builds that passed."""
    if kind == "time":
        slower = any(finding.is_open and finding.change.kind == "job" for finding in insights.changes)
        usual = span(insights.jobs[0].usual) if insights.jobs else "unknown"
        return Badge("build time", usual, "warning" if slower else "plain")
    if kind == "flaky":
        flaky = len([cost for cost in insights.flaky if not cost.muted_until])
        colour = "good" if not flaky else "warning" if flaky < 5 else "bad"
        return Badge("flaky tests", count(flaky, "test") if flaky else "none", colour)
    if not insights.failures.builds:
        return Badge("builds passed", "unknown")
    share = 1 - insights.failures.failed / insights.failures.builds
    return Badge("builds passed", percent(share), "good" if share >= 0.9 else "warning" if share >= 0.7 else "bad")


def badge_json(badge: Badge) -> str:
    """Return the JSON of a shields.io endpoint (shields.io, "Endpoint badge")."""
    colour = COLOURS[badge.colour].removeprefix("#")
    return f"{json.dumps({'schemaVersion': 1, 'label': badge.label, 'message': badge.figure, 'color': colour})}\n"


def badge_svg(badge: Badge) -> str:
    """Return the badge as SVG, with its text as its accessible name."""
    left, right = (round(LETTER * len(text) + 12) for text in (badge.label, badge.figure))
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {figure}">'
        "<title>{label}: {figure}</title>"
        '<rect width="{width}" height="20" rx="3" fill="#4a4f57"/>'
        '<path d="M{left} 0h{inner}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{left}z" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        '<text x="{left_middle}" y="14">{label}</text><text x="{right_middle}" y="14">{figure}</text></g></svg>\n'
    ).format(
        width=left + right,
        left=left,
        inner=right - 3,
        left_middle=left / 2,
        right_middle=left + right / 2,
        label=badge.label,
        figure=badge.figure,
        colour=COLOURS[badge.colour],
    )
