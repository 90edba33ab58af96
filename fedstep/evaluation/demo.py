"""The demonstration: recorded builds of real projects train and predict against an aggregator on this machine."""

import csv
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click

from fedstep import __version__
from fedstep.diagnostics.insights import load_history, project_insights
from fedstep.diagnostics.sharing_value import value_of_live_sharing
from fedstep.errors import AggregatorError
from fedstep.evaluation.corpus import evidence_of, read_builds
from fedstep.evaluation.ordering import SelectedBuild, select_recorded_tests
from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import PastBuild, load_summary
from fedstep.importers.recorded_builds import find_build_folders, read_folder
from fedstep.model.training import load_state
from fedstep.pipeline.context import RunContext
from fedstep.pipeline.train import train
from fedstep.report.html import TimedBuild, build_times_chart, render_page
from fedstep.report.project_page import NOT_REPLAYED, ValueOfSharing, project_html
from fedstep.report.units import count, percent, shorten, size, span, visible
from fedstep.results import Exchange, Interval, TestRisk, TrainReport
from fedstep.types import CiRun, Dropped, Duration, FinishedBuild, TestRun, Unavailable

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
        gains=[(project, value) for project in demo.projects for value in _values(project)],
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
    values = [value for project in demo.projects for value in _values(project) if value.alone]
    if values:
        better = sum(value.shared < value.alone * EVEN[0] for value in values)
        worse = sum(value.shared > value.alone * EVEN[1] for value in values)
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


Values = Mapping[str, tuple[ValueOfSharing, ...] | Unavailable]  # by project
LATEST = 3  # builds shown of each project
_ROW = "{:<26} {:>5}  {:>12} {:>12}  {:<25} {:>12}"
_HIT = {True: "it flaked", False: "it did not"}


def demo_text(demo: DemoReport) -> str:
    """Return blocks: times of the latest builds, accuracy by project, likely flakes, and what a selection had saved."""
    lines = (*_times(demo), "", *_accuracies(demo), "", *_flakes(demo), "", *_describe_selections(demo), *_wire(demo))
    return "".join(f"{line}\n" for line in lines)


def _times(demo: DemoReport) -> Iterator[str]:
    yield f"Build time, predicted before each build ran (the last {LATEST} builds of each project)"
    yield _ROW.format("", "build", "predicted", "actual", "90 % interval", "Jenkins")
    for project in demo.projects:
        for build in project.builds[-LATEST:]:
            yield _time(project, build)


def _time(project: DemoProject, build: TimedBuild) -> str:
    name = shorten(visible(project.name), 26)
    expected = build.expected
    if not isinstance(expected, Interval):
        return _ROW.format(name, build.number, "-", span(build.seconds), visible(expected.reason), "-").rstrip()
    inside = "" if expected.low <= build.seconds <= expected.high else " missed"
    jenkins = expected.jenkins_seconds
    estimate = "-" if isinstance(jenkins, Unavailable) else span(jenkins)
    ends = f"{span(expected.low)} – {span(expected.high)}{inside}"
    return _ROW.format(name, build.number, span(expected.seconds), span(build.seconds), ends, estimate)


def _accuracies(demo: DemoReport) -> Iterator[str]:
    yield "Mean absolute error over all builds that both could predict"
    yield f"{'':<26} {'builds':>6} {'fedstep':>10} {'Jenkins':>10} {'ratio':>6} {'in interval':>12}"
    for project in demo.projects:
        result = accuracy(project.builds)
        if isinstance(result, Accuracy):
            yield (
                f"{shorten(visible(project.name), 26):<26} {result.builds:>6} {span(result.mean_error):>10} "
                f"{span(result.jenkins_mean_error):>10} {result.ratio:>6.2f} {percent(result.coverage):>12}"
            )


def _gains(demo: DemoReport) -> Iterator[str]:
    values = [value for project in demo.projects for value in _values(project)]
    if values:
        better = sum(value.shared < value.alone for value in values)
        yield f"The shared model lowered the loss in {better} of {len(values)} comparisons with own builds alone"
        yield ""


def _flakes(demo: DemoReport) -> Iterator[str]:
    yield from _gains(demo)
    yield "Tests called most likely to flake after three fifths of the builds, and what they did after that"
    for project in demo.projects:
        for test in project.tests:
            yield f"{shorten(visible(project.name), 26):<26} {percent(test.risk.probability):>5}  {_fate(test)}"


def _fate(test: DemoTest) -> str:
    fate = visible(test.flaked.reason) if isinstance(test.flaked, Unavailable) else _HIT[test.flaked]
    return f"{fate:<10}  {shorten(visible(test.risk.test), 60)}"


def _describe_selections(demo: DemoReport) -> Iterator[str]:
    """Yield what running a fifth of the test time had saved, and which failing builds it had shown and missed."""
    if not demo.selected:
        return
    red = [build for build in demo.selected if build.failed]
    caught, saved = sum(build.caught for build in red), sum(build.saved_seconds for build in demo.selected)
    yield (
        f"{SELECTED.capitalize()}, with {100 * SHARE:.0f} % of the test time in each of {len(demo.selected)} builds: "
        f"{span(saved)} ({saved / 60:.1f} minutes) saved, {caught} of {len(red)} failing builds show a failure"
    )
    for build in red:
        more = f" and {len(build.failed) - 1} more" if len(build.failed) > 1 else ""
        name = shorten(visible(build.failed[0]), 60)
        yield f"  build {build.build_index:>3}  {'caught' if build.caught else 'MISSED'}  {name}{more}"
    yield ""


def _wire(demo: DemoReport) -> Iterator[str]:
    wire = demo.federation
    largest = size(max(wire.sizes)) if wire.sizes else "0 B"
    yield (
        f"{wire.participants} projects sent {len(wire.sizes)} updates, {size(sum(wire.sizes))} together, the largest "
        f"{largest}; the aggregator, which began from zero, made {wire.versions} versions of the model. "
        f"Took {span(demo.seconds)}, without installation."
    )


SAMPLE = Path(__file__).parent / "sample"
SELECTED, SHARE = "wtforms", 0.2  # the project of which a part of the tests runs, and how much
ASKED_AT = 0.6  # share of a project's builds after which its likely flakes are written down
# In 2023, by whole weeks: a table without dates has the time since its first build, and the hour and the weekday.
DATE_OF_UNDATED = 2800 * 7 * 86_400.0
START_SECONDS = 60.0  # limit for the start of the aggregator, also on a machine that does other things
MEASURED = "measured: reports of the project's own test suite"
DRAWN = "measured failure rates (FlakeFlagger, BSD-3-Clause); order of runs drawn"
JENKINS = "pull-request builds on Jenkins (LRTS, MIT)"
SOURCES = {
    "kevinsawicki-http-request": DRAWN,
    "square-okhttp": DRAWN,
    "hadoop": JENKINS,
    "james": JENKINS,
    "rustlang": "runs of GitHub Actions (github-actions-build-duration-replication, MIT)",
}


@dataclass(slots=True)
class _Participant:
    """A project and its progress through its builds."""

    name: str
    store: ProjectStore
    evidence: Sequence[FinishedBuild]
    builds: list[TimedBuild] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    asked: tuple[TestRisk, ...] = ()
    last: TrainReport | None = None


def run(output: str, say: Callable[..., None]) -> int:
    """Run the demonstration, print its table and write its page; 1 when the aggregator cannot be used."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedstep-demo-") as folder, _aggregator(Path(folder)) as url:
        participants = _participants(Path(folder))
        total = sum(len(participant.evidence) for participant in participants)
        say(f"{len(participants)} projects, {total} recorded builds, aggregator on {url}")
        with click.progressbar(_interleave(participants), length=total, label="builds", file=sys.stderr) as bar:
            for participant, evidence in bar:
                _live_through(participant, evidence, url)
        values = {
            participant.name: value_of_live_sharing(participant.store, load_state(participant.store).correction)
            for participant in participants
        }
        pages = _write_pages(participants, values, Path(output))
        selected = _selected_builds(Path(folder) / "regressions")
        demo = _demo(participants, values, pages, began, selected)
    click.echo(demo_text(demo), nl=False)
    Path(output).write_text(demo_html(demo), encoding="utf-8")
    say(f"the page is {output}")
    return 0


@contextmanager
def _aggregator(folder: Path) -> Iterator[str]:
    """Run a real aggregator process with its store in the folder and yield its URL; stop it at the end."""
    log = folder / "aggregator.log"
    # From zero: the starter model was trained on these projects. Without the gate: nine projects that live through
    # their builds within a minute send too few evaluations to prove that a version is better.
    command = [
        sys.executable,
        "-P",
        "-m",
        "fedstep",
        "serve",
        "--from-zero",
        "--no-gate",
        "--port",
        "0",
        "--buffer-size",
        "4",
        "--max-wait",
        "1",
    ]
    with log.open("wb") as sink:
        process = subprocess.Popen([*command, "--store", f"sqlite:///{folder / 'aggregator.db'}"], stderr=sink)
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until the aggregator prints its address, and return it."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if match := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return match[0]
        time.sleep(0.05)
    log_tail = log.read_text()[-500:].strip()
    raise AggregatorError(f"the aggregator did not start: {log_tail}", "Is fedstep[server] installed?")


def _participants(folder: Path) -> list[_Participant]:
    with_tests = [_with_tests(archive, folder) for archive in sorted(SAMPLE.glob("*.tar.xz"))]
    return with_tests + [_times_only(table, folder) for table in sorted(SAMPLE.glob("*.builds.csv"))]


def _with_tests(archive: Path, folder: Path) -> _Participant:
    name = archive.name.removesuffix(".tar.xz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "builds" / name, filter="data")
    builds = (read_folder(path) for path in find_build_folders(folder / "builds" / name))
    evidence = [item for item in builds if not isinstance(item, Dropped)]
    return _participant(name, folder, sorted(evidence, key=lambda item: item.situation.started_at))


def _times_only(table: Path, folder: Path) -> _Participant:
    builds, _ = read_builds(table)
    if builds[0].started_at < DATE_OF_UNDATED / 2:
        builds = tuple(map(_with_date, builds))
    return _participant(
        table.name.removesuffix(".builds.csv"),
        folder,
        [evidence_of(*item) for item in zip(builds, range(len(builds)), strict=True)],
    )


def _with_date(build: PastBuild) -> PastBuild:
    return build._replace(
        started_at=build.started_at + DATE_OF_UNDATED, finished_at=build.finished_at + DATE_OF_UNDATED
    )


def _participant(name: str, folder: Path, evidence: Sequence[FinishedBuild]) -> _Participant:
    store = ProjectStore(str(folder / "homes" / name))
    store.prepare()
    return _Participant(name, store, evidence)


def _interleave(participants: Sequence[_Participant]) -> Iterator[tuple[_Participant, FinishedBuild]]:
    """Yield every build, with each project's stream stretched over the same time."""
    places = sorted(
        ((build_index + 0.5) / len(participant.evidence), index, build_index)
        for index, participant in enumerate(participants)
        for build_index in range(len(participant.evidence))
    )
    return ((participants[index], participants[index].evidence[build_index]) for _, index, build_index in places)


def _live_through(participant: _Participant, evidence: FinishedBuild, url: str) -> None:
    """Run one build of one project through the same train step as in a pipeline."""
    build_number = len(participant.builds) + 1
    now = evidence.finished_at
    aggregator = AggregatorLink(url, requests_transport(url), RetryPolicy(deadline=time.monotonic() + 30))
    training = train(participant.store, evidence, _no_words, aggregator, now, keep=500)
    seconds = evidence.duration.seconds if isinstance(evidence.duration, Duration) else 0.0
    participant.builds.append(TimedBuild(build_number, seconds, training.expected, evidence.outcome))
    participant.last = training
    if isinstance(training.exchange, Exchange):
        participant.sizes += [update.size for update in training.exchange.sent]
    if build_number == int(ASKED_AT * len(participant.evidence)):
        participant.asked = training.flakiest[:5]


def _write_pages(participants: Sequence[_Participant], values: Values, output: Path) -> Mapping[str, str]:
    """Write the page of each project beside the page of the demonstration; return their paths by project."""
    folder = output.parent / f"{output.stem}-projects"
    paths: dict[str, str] = {}
    for participant in participants:
        now = participant.evidence[-1].finished_at
        context = RunContext(participant.store.folder, participant.store.folder, participant.store, CiRun(), now)
        insights = project_insights(context, load_history(participant.store), values[participant.name])
        try:
            page = project_html(insights)
        except ImportError:  # charts need the extra `report`
            return {}
        folder.mkdir(exist_ok=True)
        (folder / f"{participant.name}.html").write_text(page, encoding="utf-8", errors="backslashreplace")
        paths[participant.name] = f"{folder.name}/{participant.name}.html"
    return paths


def _selected_builds(folder: Path) -> tuple[SelectedBuild, ...]:
    """Return what a selection had done in a project with real regressions: fixes that were taken back."""
    with tarfile.open(SAMPLE / "regressions" / f"{SELECTED}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    builds = (read_folder(path) for path in find_build_folders(folder / SELECTED))
    evidence = [item for item in builds if not isinstance(item, Dropped)]
    with (folder / SELECTED / "truth.csv").open(encoding="utf-8", newline="") as truth:
        kinds = {(row["build"], row["test"]): False for row in csv.DictReader(truth)}
    return tuple(select_recorded_tests(sorted(evidence, key=lambda item: item.situation.started_at), kinds, SHARE))


def _demo(
    participants: Sequence[_Participant],
    values: Values,
    pages: Mapping[str, str],
    began: float,
    selected: tuple[SelectedBuild, ...],
) -> DemoReport:
    trained = [participant.last for participant in participants if participant.last]
    exchanges = [report.exchange for report in trained if isinstance(report.exchange, Exchange)]
    federation = DemoTraffic(
        sizes=tuple(size for participant in participants for size in participant.sizes),
        versions=max((exchange.candidate_after for exchange in exchanges), default=0),
        production=max((exchange.production_after for exchange in exchanges), default=0),
        participants=len(participants),
    )
    projects = tuple(
        _project(participant, values[participant.name], pages.get(participant.name, "")) for participant in participants
    )
    return DemoReport(projects, federation, time.monotonic() - began, f"fedstep {__version__}", selected)


def _project(participant: _Participant, value: tuple[ValueOfSharing, ...] | Unavailable, page: str) -> DemoProject:
    return DemoProject(
        name=participant.name,
        builds=tuple(participant.builds),
        tests=_what_became(participant),
        source=SOURCES.get(participant.name, MEASURED),
        value=value,
        page=page,
    )


def _what_became(participant: _Participant) -> tuple[DemoTest, ...]:
    """Return the tests once predicted to flake, and whether they flipped in later builds."""
    tests = load_summary(participant.store).summary.tests
    flips = {test: stats.flips for test, stats in tests.items()}
    runs = {test: stats.runs for test, stats in tests.items()}
    return tuple(
        DemoTest(
            risk,
            flips.get(risk.test, 0) > risk.flips
            if runs.get(risk.test, 0) > risk.runs
            else Unavailable("it did not run again"),
        )
        for risk in participant.asked
    )


def _no_words(_runs: tuple[TestRun, ...]) -> Mapping[str, tuple[str, ...]]:
    """Return no words, because recorded builds come without their sources."""
    return {}
