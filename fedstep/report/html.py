"""The demonstration as one page: self-contained, without scripts, for light, dark and narrow screens."""

from collections.abc import Iterable, Sequence
from statistics import median

from fedstep.build.record import Absent
from fedstep.report.demo import EVEN, Accuracy, Demo, DemoProject, DemoTest, Federation, accuracy
from fedstep.report.html_parts import because, cell, meter, name, number, row, table, text, tile
from fedstep.report.html_times import build_times
from fedstep.report.style import STYLE
from fedstep.report.units import count, percent, size, span
from fedstep.report.wording import drawn, past

__all__ = ["demo_html"]

MOST_TESTS = 12
TEST_HEADER = (">chance", "test", "why", "flaked later")


def demo_html(demo: Demo) -> str:
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


def _opening(demo: Demo) -> Iterable[str]:
    builds = count(sum(len(project.builds) for project in demo.projects), "recorded build")
    yield "<h1>What fedstep knew before each build ran</h1>"
    yield (
        f'<p class="lead">{count(len(demo.projects), "real project")} replayed {builds} one after the other, learned '
        "from each, and shared only changes of coefficients.</p>"
    )
    yield f'<div class="tiles">{"".join((*_time_tiles(demo), *_test_tiles(demo), *_size_tiles(demo)))}</div>'


def _time_tiles(demo: Demo) -> Iterable[str]:
    figures = [figure for project in demo.projects if isinstance(figure := accuracy(project.builds), Accuracy)]
    if figures:
        builds = sum(figure.builds for figure in figures)
        ratio = sum(figure.ratio for figure in figures) / len(figures)
        inside = sum(figure.coverage * figure.builds for figure in figures) / builds
        better = sum(figure.ratio < EVEN[0] for figure in figures)
        yield tile(f"{ratio:.2f} ×", f"the error of Jenkins' estimate; less in {better} of {len(figures)} projects")
        yield tile(percent(inside), f"of {count(builds, 'build')} ended inside the 90 % interval")


def _test_tiles(demo: Demo) -> Iterable[str]:
    flaked = [test.flaked for project in demo.projects for test in project.tests if not isinstance(test.flaked, Absent)]
    if flaked:
        yield tile(f"{sum(flaked)} of {len(flaked)}", "tests named as likely to flake did flake later")


def _size_tiles(demo: Demo) -> Iterable[str]:
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
    flaked = [test.flaked for test in project.tests if not isinstance(test.flaked, Absent)]
    return f"{sum(flaked)} of {count(len(flaked), 'test')} flaked later" if flaked else ""


def _test(test: DemoTest) -> str:
    risk = test.risk
    runs = f'<code class="runs">{drawn(risk.last_outcomes)}</code> ' if risk.last_outcomes else ""
    return row(
        number(percent(risk.probability) + meter(risk.probability)),
        cell(f'{name(risk.test)}<div class="soft small">{runs}{past(risk)}</div>'),
        cell(because(risk.reasons), "why"),
        cell(_flaked(test.flaked)),
    )


def _flaked(flaked: bool | Absent) -> str:
    if isinstance(flaked, Absent):
        return f'<span class="soft">{text(flaked.reason)}</span>'
    return '<span class="good">it flaked</span>' if flaked else '<span class="soft">no flake seen</span>'


def _federation(federation: Federation) -> Iterable[str]:
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


def _closing(demo: Demo) -> Iterable[str]:
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
