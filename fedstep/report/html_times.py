"""The page's part about build times: a table of errors, and a strip of builds for each project."""

from collections.abc import Iterable, Sequence
from statistics import median

from fedstep.build.record import Absent
from fedstep.report.chart import strip
from fedstep.report.demo import EVEN, Accuracy, DemoBuild, DemoProject, accuracy
from fedstep.report.findings import Interval
from fedstep.report.html_parts import cell, meter, number, row, table, text
from fedstep.report.units import count, percent, span, spread

__all__ = ["build_times"]

MOST_BUILDS = 40
MARKS = (
    ("passed", "M15 6h0", "took, passed"),
    ("failed", "M15 6h0", "took, failed or unstable"),
    ("expected", "M0 6H30", "expected by fedstep"),
    ("band", "M0 0H30V12H0Z", "90 % interval"),
    ("jenkins", "M0 6H30", "Jenkins' estimate"),
)


def build_times(projects: Sequence[DemoProject]) -> Iterable[str]:
    """The section, block by block."""
    yield (
        "<h2>Build time</h2><p>Mean absolute error of the expected time, beside the estimate that Jenkins shows, over "
        "the same builds.</p>"
    )
    header = ("project", ">ratio", ">fedstep", ">Jenkins", ">inside 90 % interval", ">builds")
    rows = [_figures(project.name, accuracy(project.builds)) for project in projects]
    yield f'<div class="card">{table(header, rows)}</div>'
    yield f'<ul class="legend">{"".join(map(_mark, *zip(*MARKS, strict=True)))}</ul>'
    yield from map(_project, projects)


def _mark(kind: str, path: str, meaning: str) -> str:
    drawing = f'<svg viewBox="0 0 30 12" aria-hidden="true"><path class="{kind}" d="{path}"/></svg>'
    return f"<li>{drawing}{meaning}</li>"


def _figures(name: str, figures: Accuracy | Absent) -> str:
    if isinstance(figures, Absent):
        return f'<tr>{cell(text(name))}<td colspan="5" class="soft">{text(figures.reason)}</td></tr>'
    worst = max(figures.mean_error, figures.jenkins_mean_error) or 1.0
    kind = "good" if figures.ratio < EVEN[0] else "bad" if figures.ratio > EVEN[1] else ""
    return row(
        cell(text(name)),
        number(f"{figures.ratio:.2f} ×", kind),
        number(span(figures.mean_error) + meter(figures.mean_error / worst)),
        number(span(figures.jenkins_mean_error) + meter(figures.jenkins_mean_error / worst, "grey")),
        number(percent(figures.coverage)),
        number(f"{figures.builds:,}"),
    )


def _project(project: DemoProject) -> str:
    builds = project.builds
    facts = f"{count(len(builds), 'build')}, median {span(median(build.seconds for build in builds))}"
    return (
        f'<section class="card"><div class="head"><h3>{text(project.name)}</h3><span class="soft">{facts}</span></div>'
        f"<figure>{strip(builds)}</figure>{_latest(builds[-MOST_BUILDS:])}</section>"
    )


def _latest(builds: Sequence[DemoBuild]) -> str:
    header = (">build", ">took", ">expected", ">90 % interval", "", ">Jenkins", "outcome")
    rows = map(_build, reversed(builds))
    summary = "The build as a table" if len(builds) == 1 else f"The last {len(builds)} builds as a table"
    return f"<details><summary>{summary}</summary>{table(header, rows)}</details>"


def _build(build: DemoBuild) -> str:
    return row(
        number(f"{build.number}"), number(span(build.seconds)), *_expected(build), cell(text(build.outcome.value))
    )


def _expected(build: DemoBuild) -> Iterable[str]:
    expected = build.expected
    if not isinstance(expected, Interval):
        return (f'<td colspan="4" class="soft">{text(expected.reason)}</td>',)
    jenkins = expected.jenkins_seconds
    inside = expected.low <= build.seconds <= expected.high
    return (
        number(span(expected.seconds)),
        number(spread(expected.low, expected.high)),
        cell("inside", "soft") if inside else cell("missed", "bad"),
        number("–" if isinstance(jenkins, Absent) else span(jenkins)),
    )
