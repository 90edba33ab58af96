"""The demonstration's table for a terminal."""

from collections.abc import Iterator

from fedstep.build.record import Absent
from fedstep.report.demo import Accuracy, Demo, DemoBuild, DemoProject, DemoTest, accuracy
from fedstep.report.escape import shorten, visible
from fedstep.report.findings import Interval
from fedstep.report.units import percent, size, span

__all__ = ["demo_text"]

LATEST = 3  # builds shown of each project
_ROW = "{:<26} {:>5}  {:>12} {:>12}  {:<25} {:>12}"
_HIT = {True: "it flaked", False: "it did not"}


def demo_text(demo: Demo) -> str:
    """Three blocks: times of the latest builds, accuracy by project, likely flakes and whether they were."""
    lines = (*_times(demo), "", *_accuracies(demo), "", *_flakes(demo), "", *_wire(demo))
    return "".join(f"{line}\n" for line in lines)


def _times(demo: Demo) -> Iterator[str]:
    yield f"Build time, predicted before each build ran (the last {LATEST} builds of each project)"
    yield _ROW.format("", "build", "predicted", "actual", "90 % interval", "Jenkins")
    for project in demo.projects:
        for build in project.builds[-LATEST:]:
            yield _time(project, build)


def _time(project: DemoProject, build: DemoBuild) -> str:
    name = shorten(visible(project.name), 26)
    expected = build.expected
    if not isinstance(expected, Interval):
        return _ROW.format(name, build.number, "-", span(build.seconds), expected.reason, "-").rstrip()
    inside = "" if expected.low <= build.seconds <= expected.high else " missed"
    jenkins = expected.jenkins_seconds
    shown = "-" if isinstance(jenkins, Absent) else span(jenkins)
    ends = f"{span(expected.low)} – {span(expected.high)}{inside}"
    return _ROW.format(name, build.number, span(expected.seconds), span(build.seconds), ends, shown)


def _accuracies(demo: Demo) -> Iterator[str]:
    yield "Mean absolute error over all builds that both could predict"
    yield f"{'':<26} {'builds':>6} {'fedstep':>10} {'Jenkins':>10} {'ratio':>6} {'in interval':>12}"
    for project in demo.projects:
        found = accuracy(project.builds)
        if isinstance(found, Accuracy):
            yield (
                f"{shorten(visible(project.name), 26):<26} {found.builds:>6} {span(found.mean_error):>10} "
                f"{span(found.jenkins_mean_error):>10} {found.ratio:>6.2f} {percent(found.coverage):>12}"
            )


def _flakes(demo: Demo) -> Iterator[str]:
    yield "Tests called most likely to flake after three fifths of the builds, and what they did after that"
    for project in demo.projects:
        for test in project.tests:
            yield f"{shorten(visible(project.name), 26):<26} {percent(test.risk.probability):>5}  {_fate(test)}"


def _fate(test: DemoTest) -> str:
    fate = test.flaked.reason if isinstance(test.flaked, Absent) else _HIT[test.flaked]
    return f"{fate:<10}  {shorten(visible(test.risk.test), 60)}"


def _wire(demo: Demo) -> Iterator[str]:
    wire = demo.federation
    largest = size(max(wire.sizes)) if wire.sizes else "0 B"
    yield (
        f"{wire.participants} projects sent {len(wire.sizes)} updates, {size(sum(wire.sizes))} together, the largest "
        f"{largest}; the aggregator, which began from zero, made {wire.versions} versions of the model. "
        f"Took {span(demo.seconds)}."
    )
