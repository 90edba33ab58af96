"""The result of the demonstration: its values, and the HTML page that shows them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fedstep.evaluation.ordering import SelectedBuild
from fedstep.report.html import TimedBuild, build_times_chart, render_page
from fedstep.report.project_page import NOT_REPLAYED, ValueOfSharing
from fedstep.report.units import count, percent, size
from fedstep.results import Interval, TestRisk
from fedstep.types import Unavailable

EVEN = (0.995, 1.005)  # ratios in between are shown as 1.00 and count as equal


@dataclass(frozen=True, slots=True)
class DemoTest:
    """A test that was predicted to flake during the replay, and whether it flaked afterwards."""

    risk: TestRisk
    flaked: bool | Unavailable  # Absent: it did not run again


@dataclass(frozen=True, slots=True)
class DemoProject:
    """One participant; a project may have recorded builds, recorded tests, or both."""

    name: str
    builds: tuple[TimedBuild, ...] = ()
    tests: tuple[DemoTest, ...] = ()  # most likely first
    source: str = ""  # where the recording is from, and its licence
    value: tuple[ValueOfSharing, ...] | Unavailable = NOT_REPLAYED  # its history alone beside with the shared model
    page: str = ""  # path of the project's own page, relative to this one


@dataclass(frozen=True, slots=True)
class DemoTraffic:
    """The data exchanged. `sizes` are the bytes of each update, which contains no names and no source."""

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
    selected: tuple[SelectedBuild, ...] = ()  # of one project with real regressions, a fifth of its test time


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The errors of fedstep and Jenkins over the builds that both could predict."""

    builds: int
    mean_error: float  # seconds, absolute
    jenkins_mean_error: float  # seconds, absolute
    coverage: float  # share of these builds inside their interval

    @property
    def ratio(self) -> float:
        """Return fedstep's mean error as a share of Jenkins'; 1.0 where Jenkins makes none."""
        return self.mean_error / self.jenkins_mean_error if self.jenkins_mean_error else 1.0


def accuracy(builds: tuple[TimedBuild, ...]) -> Accuracy | Unavailable:
    """Compare the builds that had both estimates before they ran."""
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


TEMPLATES = Path(__file__).parent / "templates"
MOST_BUILDS = 40  # in the table below each chart
MOST_TESTS = 12
Tile = tuple[str, str]  # a figure and what it means


def demo_html(demo: DemoReport) -> str:
    """Return the demonstration as a whole HTML document."""
    builders = [project for project in demo.projects if project.builds]
    return render_page(
        "demo.html",
        TEMPLATES,
        demo=demo,
        builds=count(sum(len(project.builds) for project in demo.projects), "recorded build"),
        projects=count(len(demo.projects), "real project"),
        tiles=[*_time_tiles(demo), *_sharing_tiles(demo), *_test_tiles(demo), *_size_tiles(demo)],
        gains=[(project, one) for project in demo.projects for one in _values(project)],
        builders=builders,
        accuracies=[(project.name, accuracy(project.builds)) for project in builders],
        charts=[build_times_chart(project.builds) for project in builders],
        medians=[median(build.seconds for build in project.builds) for project in builders],
        grade=_grade,
        testers=[project for project in demo.projects if project.tests],
        describe_hits=_describe_hits,
        traffic_tiles=_traffic_tiles(demo.federation),
        most_builds=MOST_BUILDS,
        most_tests=MOST_TESTS,
    )


def _grade(figures: Accuracy) -> str:
    """Return the class of a ratio: good, bad, or "" where both errors are the same."""
    return "good" if figures.ratio < EVEN[0] else "bad" if figures.ratio > EVEN[1] else ""


def _time_tiles(demo: DemoReport) -> Iterator[Tile]:
    accuracies = [figures for project in demo.projects if isinstance(figures := accuracy(project.builds), Accuracy)]
    if accuracies:
        builds = sum(figures.builds for figures in accuracies)
        ratio = sum(figures.ratio for figures in accuracies) / len(accuracies)
        inside = sum(figures.coverage * figures.builds for figures in accuracies) / builds
        better = sum(figures.ratio < EVEN[0] for figures in accuracies)
        yield f"{ratio:.2f} ×", f"the error of Jenkins' estimate; less in {better} of {len(accuracies)} projects"
        yield percent(inside), f"of {count(builds, 'build')} ended inside the 90 % interval"


def _values(project: DemoProject) -> tuple[ValueOfSharing, ...]:
    return () if isinstance(project.value, Unavailable) else project.value


def _sharing_tiles(demo: DemoReport) -> Iterator[Tile]:
    values = [one for project in demo.projects for one in _values(project) if one.alone]
    if values:
        better = sum(one.shared < one.alone * EVEN[0] for one in values)
        worse = sum(one.shared > one.alone * EVEN[1] for one in values)
        yield (
            f"{better} : {worse}",
            "cases in which the shared model helped, and in which it harmed",
        )


def _outcomes(projects: Sequence[DemoProject]) -> list[bool]:
    """Return whether each named test flaked later, of those that ran again."""
    flaked = (test.flaked for project in projects for test in project.tests)
    return [outcome for outcome in flaked if not isinstance(outcome, Unavailable)]


def _test_tiles(demo: DemoReport) -> Iterator[Tile]:
    if outcomes := _outcomes(demo.projects):
        yield f"{sum(outcomes)} of {len(outcomes)}", "tests named as likely to flake did flake later"


def _describe_hits(project: DemoProject) -> str:
    outcomes = _outcomes([project])
    return f"{sum(outcomes)} of {count(len(outcomes), 'test')} flaked later" if outcomes else ""


def _size_tiles(demo: DemoReport) -> Iterator[Tile]:
    if sizes := demo.federation.sizes:
        yield size(sum(sizes)), f"left the projects: {count(len(sizes), 'update')}, up to {size(max(sizes))} each"


def _traffic_tiles(traffic: DemoTraffic) -> list[Tile]:
    if not (sizes := traffic.sizes):
        return []
    return [
        (f"{len(sizes):,}", f"updates from {count(traffic.participants, 'project')}"),
        (size(int(median(sizes))), f"the median update; the largest {size(max(sizes))}"),
        (f"{traffic.versions:,}", "versions of the shared model made from them"),
        (f"{traffic.production:,}", "the version in production at the end"),
    ]
