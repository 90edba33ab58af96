"""The demonstration as one page: self-contained, without scripts, for light, dark and narrow screens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from fedstep.report.charts import TimedBuild, strip
from fedstep.report.html import because, cell, meter, name, number, table, table_row, text, tile
from fedstep.report.text import STYLE, describe_history, sparkline
from fedstep.report.units import count, percent, size, span, spread
from fedstep.results import Interval, TestRisk
from fedstep.types import Unavailable

EVEN = (0.995, 1.005)  # ratios in between are shown as 1.00 and count for nobody


@dataclass(frozen=True, slots=True)
class DemoTest:
    """A test that was called likely to flake at some point of the replay, and whether it did after that."""

    risk: TestRisk
    flaked: bool | Unavailable  # Absent: it did not run again


@dataclass(frozen=True, slots=True)
class DemoProject:
    """One participant; a project may have recorded builds, recorded tests, or both."""

    name: str
    builds: tuple[TimedBuild, ...] = ()
    tests: tuple[DemoTest, ...] = ()  # most likely first
    source: str = ""  # where the recording is from, and its licence


@dataclass(frozen=True, slots=True)
class DemoTraffic:
    """What crossed the wire. `sizes` holds the bytes of each update; names and source are not among them."""

    sizes: tuple[int, ...] = ()
    versions: int = 0  # of task, made from these updates
    production: int = 0  # the version everyone predicts with at the end
    participants: int = 0


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Everything the demonstration's page shows."""

    projects: tuple[DemoProject, ...]
    federation: DemoTraffic
    seconds: float = 0.0  # wall time of the demonstration
    made_with: str = ""  # "fedstep 0.1.0"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How expected and actual times of the same builds compare, over those that both could predict."""

    builds: int
    mean_error: float  # seconds, absolute
    jenkins_mean_error: float  # seconds, absolute
    coverage: float  # share of these builds inside their interval

    @property
    def ratio(self) -> float:
        """fedstep's mean error as a share of Jenkins'; 1.0 where Jenkins makes none."""
        return self.mean_error / self.jenkins_mean_error if self.jenkins_mean_error else 1.0


def accuracy(builds: tuple[TimedBuild, ...]) -> Accuracy | Unavailable:
    """The comparison over the builds that had both estimates before they ran."""
    pairs = [
        (build.seconds, build.expected, build.expected.jenkins_seconds)
        for build in builds
        if isinstance(build.expected, Interval) and not isinstance(build.expected.jenkins_seconds, Unavailable)
    ]
    if not pairs:
        return Unavailable("no build with both estimates")
    return Accuracy(
        builds=len(pairs),
        mean_error=sum(abs(seconds - expected.seconds) for seconds, expected, _ in pairs) / len(pairs),
        jenkins_mean_error=sum(abs(seconds - jenkins) for seconds, _, jenkins in pairs) / len(pairs),
        coverage=sum(expected.low <= seconds <= expected.high for seconds, expected, _ in pairs) / len(pairs),
    )


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


def _figures(name: str, figures: Accuracy | Unavailable) -> str:
    if isinstance(figures, Unavailable):
        return f'<tr>{cell(text(name))}<td colspan="5" class="soft">{text(figures.reason)}</td></tr>'
    worst = max(figures.mean_error, figures.jenkins_mean_error) or 1.0
    kind = "good" if figures.ratio < EVEN[0] else "bad" if figures.ratio > EVEN[1] else ""
    return table_row(
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


def _latest(builds: Sequence[TimedBuild]) -> str:
    header = (">build", ">took", ">expected", ">90 % interval", "", ">Jenkins", "outcome")
    rows = map(_build, reversed(builds))
    summary = "The build as a table" if len(builds) == 1 else f"The last {len(builds)} builds as a table"
    return f"<details><summary>{summary}</summary>{table(header, rows)}</details>"


def _build(build: TimedBuild) -> str:
    return table_row(
        number(f"{build.number}"), number(span(build.seconds)), *_expected(build), cell(text(build.outcome.value))
    )


def _expected(build: TimedBuild) -> Iterable[str]:
    expected = build.expected
    if not isinstance(expected, Interval):
        return (f'<td colspan="4" class="soft">{text(expected.reason)}</td>',)
    jenkins = expected.jenkins_seconds
    inside = expected.low <= build.seconds <= expected.high
    return (
        number(span(expected.seconds)),
        number(spread(expected.low, expected.high)),
        cell("inside", "soft") if inside else cell("missed", "bad"),
        number("–" if isinstance(jenkins, Unavailable) else span(jenkins)),
    )


MOST_TESTS = 12
TEST_HEADER = (">chance", "test", "why", "flaked later")


def demo_html(demo: DemoReport) -> str:
    """A whole HTML document."""
    builders = [project for project in demo.projects if project.builds]
    testers = [project for project in demo.projects if project.tests]
    blocks = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>fedstep: what it knew before each build ran</title><style>{STYLE}</style></head><body><main>",
        *_opening(demo),
        *(build_times(builders) if builders else ()),
        *(_tests(testers) if testers else ()),
        *_federation(demo.federation),
        *_closing(demo),
        "</main></body></html>\n",
    )
    return "\n".join(blocks)


def _opening(demo: DemoReport) -> Iterable[str]:
    builds = count(sum(len(project.builds) for project in demo.projects), "recorded build")
    yield "<h1>What fedstep knew before each build ran</h1>"
    yield (
        f'<p class="lead">{count(len(demo.projects), "real project")} replayed {builds} one after the other, learned '
        "from each, and shared only changes of coefficients.</p>"
    )
    yield f'<div class="tiles">{"".join((*_time_tiles(demo), *_test_tiles(demo), *_size_tiles(demo)))}</div>'


def _time_tiles(demo: DemoReport) -> Iterable[str]:
    figures = [figure for project in demo.projects if isinstance(figure := accuracy(project.builds), Accuracy)]
    if figures:
        builds = sum(figure.builds for figure in figures)
        ratio = sum(figure.ratio for figure in figures) / len(figures)
        inside = sum(figure.coverage * figure.builds for figure in figures) / builds
        better = sum(figure.ratio < EVEN[0] for figure in figures)
        yield tile(f"{ratio:.2f} ×", f"the error of Jenkins' estimate; less in {better} of {len(figures)} projects")
        yield tile(percent(inside), f"of {count(builds, 'build')} ended inside the 90 % interval")


def _test_tiles(demo: DemoReport) -> Iterable[str]:
    flaked = [
        test.flaked for project in demo.projects for test in project.tests if not isinstance(test.flaked, Unavailable)
    ]
    if flaked:
        yield tile(f"{sum(flaked)} of {len(flaked)}", "tests named as likely to flake did flake later")


def _size_tiles(demo: DemoReport) -> Iterable[str]:
    sizes = demo.federation.sizes
    if sizes:
        yield tile(size(sum(sizes)), f"left the projects: {count(len(sizes), 'update')}, up to {size(max(sizes))} each")


def _tests(projects: Sequence[DemoProject]) -> Iterable[str]:
    yield (
        "<h2>Tests most likely to flake</h2><p>Named before the runs in which they did, or did not. Runs, oldest "
        "first: <code>.</code> passed, <code>F</code> failed, <code>~</code> failed and passed, <code>-</code> "
        "skipped; + raises and − lowers the chance.</p>"
    )
    for project in projects:
        rows = map(_test, project.tests[:MOST_TESTS])
        left = len(project.tests) - MOST_TESTS
        yield (
            f'<section class="card"><div class="head"><h3>{text(project.name)}</h3><span class="soft">{_hits(project)}'
            f"</span></div>{table(TEST_HEADER, rows, 'tests')}{_more(left)}</section>"
        )


def _more(left: int) -> str:
    return f'<p class="note">and {left:,} more</p>' if left > 0 else ""


def _hits(project: DemoProject) -> str:
    flaked = [test.flaked for test in project.tests if not isinstance(test.flaked, Unavailable)]
    return f"{sum(flaked)} of {count(len(flaked), 'test')} flaked later" if flaked else ""


def _test(test: DemoTest) -> str:
    risk = test.risk
    runs = f'<code class="runs">{sparkline(risk.last_outcomes)}</code> ' if risk.last_outcomes else ""
    return table_row(
        number(percent(risk.probability) + meter(risk.probability)),
        cell(f'{name(risk.test)}<div class="soft small">{runs}{describe_history(risk)}</div>'),
        cell(because(risk.reasons), "why"),
        cell(_flaked(test.flaked)),
    )


def _flaked(flaked: bool | Unavailable) -> str:
    if isinstance(flaked, Unavailable):
        return f'<span class="soft">{text(flaked.reason)}</span>'
    return '<span class="good">it flaked</span>' if flaked else '<span class="soft">no flake seen</span>'


def _federation(federation: DemoTraffic) -> Iterable[str]:
    sizes = federation.sizes
    yield "<h2>What was sent</h2>"
    if not sizes:
        yield "<p>Nothing: no batch was full.</p>"
        return
    yield "<p>Changes of coefficients of public features: no test name, source, log, path or branch among them.</p>"
    tiles = (
        tile(f"{len(sizes):,}", f"updates from {count(federation.participants, 'project')}"),
        tile(size(int(median(sizes))), f"the median update; the largest {size(max(sizes))}"),
        tile(f"{federation.versions:,}", "versions of the shared model made from them"),
        tile(f"{federation.production:,}", "the version in production at the end"),
    )
    yield f'<div class="tiles">{"".join(tiles)}</div>'


def _closing(demo: DemoReport) -> Iterable[str]:
    took = f" in {span(demo.seconds)}" if demo.seconds else ""
    yield (
        f"<footer><p>Made by {text(demo.made_with) or 'fedstep'}{took}. Every figure is of a prediction made before "
        "its build started.</p>"
    )
    sources = [project for project in demo.projects if project.source]
    if sources:
        items = "".join(f"<li>{text(project.name)}: {text(project.source, 400)}</li>" for project in sources)
        yield f"<details><summary>Recordings and licences</summary><ul>{items}</ul></details>"
    yield "</footer>"
