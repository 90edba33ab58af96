"""Draws explanations and summaries from recorded builds, to be read by somebody: which of them mislead?

    python -m tests.studies.explanations CORPUS... [--builds 40] [--explanations 50] [--summaries 20] [--seed 1]

Each project below the folders lives through its builds as in a pipeline, with the model in the package. From some of
its last builds the prediction, the triage and the training are rendered, for a terminal and as the Markdown of a
summary. What such a reading found is in docs/decisions/0044-what-explanations-misled.md.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from fedstep.evaluation.corpus import CorpusProject, evidence_of, projects_below, read_builds
from fedstep.evaluation.replay import recorded_builds
from fedstep.federation.model_cache import CachedModel, load_model
from fedstep.history.project_store import ProjectStore
from fedstep.pipeline.predict import predict
from fedstep.pipeline.train import train
from fedstep.pipeline.triage import triage
from fedstep.report.ci_outputs import failure_annotations
from fedstep.report.markdown import prediction_markdown, training_markdown, triage_markdown
from fedstep.report.text import prediction_text, training_text, triage_text
from fedstep.report.wording import rank_causes
from fedstep.results import FeatureContribution, Prediction, Risk, TestRisk, TrainReport, TriageReport
from fedstep.types import FinishedBuild, TestRun, Unavailable
from tests.studies.command import CORPUS, SEED, run_command

ALONE = Unavailable("no aggregator is configured")
MOST_TESTS = 3  # of one kind and build that are drawn from


class Drawn(NamedTuple):
    """One explanation, or one summary, with what it is about."""

    about: str
    text: str


class _Reports(NamedTuple):
    """What the three steps of one build say."""

    project: str
    number: int
    prediction: Prediction
    triage: TriageReport
    training: TrainReport


def live_through(project: CorpusProject, builds: Sequence[FinishedBuild], draw: random.Random) -> Iterator[_Reports]:
    """Train on the builds in their order, and yield what is said about some of them: the first, later ones, the last.

    A build with failures is worth more to a reader than a green one.
    """
    asked = {0, 1, len(builds) - 1}
    red = [number for number, build in enumerate(builds) if any(run.outcome in "fck" for run in build.reports.tests)]
    asked |= set(draw.sample(red, min(4, len(red)))) | set(draw.sample(range(len(builds)), min(2, len(builds))))
    with tempfile.TemporaryDirectory(prefix="fedstep-explanations-") as folder:
        store = ProjectStore(folder)
        store.prepare()
        for number, build in enumerate(builds):
            cached = load_model(store)
            if number in asked:
                prediction, judged = _before(store, build, cached)
            training = train(store, build, _no_words, ALONE, build.finished_at, keep=500)
            if number in asked:
                yield _Reports(project.name, number, prediction, judged, training)


def _before(store: ProjectStore, build: FinishedBuild, cached: CachedModel) -> tuple[Prediction, TriageReport]:
    return (
        predict(store, lambda: build.situation, cached),
        triage(store, build.situation, build.reports, cached),
    )


def explanations(reports: _Reports) -> Iterator[Drawn]:
    """The reasons of a risk, of a failure, and of a test that is likely to flake, each with its facts."""
    where = f"{reports.project}, build {reports.number + 1}"
    risk = reports.prediction.risk
    if isinstance(risk, Risk):
        yield Drawn(f"{where}: {risk.probability:.0%} likely to fail", _reasons(risk.reasons, "build"))
    for failure in reports.triage.failures[:MOST_TESTS] + reports.triage.failures[-1:]:
        facts = f"{failure.kind}, {failure.runs} runs known, {failure.failure_type}: {failure.message[:80]!r}"
        about = f"{where}: {failure.test} is {failure.verdict}, {failure.flaky_probability:.0%} flaky ({facts})"
        yield Drawn(about, _reasons(failure.reasons))
    for test in (*reports.prediction.flaky[:MOST_TESTS], *reports.prediction.suspects[:MOST_TESTS]):
        yield Drawn(f"{where}: {test.test} flakes with {test.probability:.0%} ({_past(test)})", _reasons(test.reasons))


def _past(test: TestRisk) -> str:
    return f"{test.runs} runs, {test.failures} failures, {test.flips} flips, last {test.last_outcomes[-20:]}"


def _reasons(reasons: Sequence[FeatureContribution], subject: str = "test") -> str:
    told = "; ".join(f"{cause.sign} {cause.phrase} {cause.word}".strip() for cause in rank_causes(reasons, subject))
    largest = ", ".join(f"{one.feature} {one.contribution:+.2f}" for one in reasons[:8])
    return f"  says    {told}\n  from    {largest}"


def summaries(reports: _Reports) -> Iterator[Drawn]:
    """What a terminal, Jenkins' log, the summary of GitHub and GitLab, and GitHub's annotations show."""
    where = f"{reports.project}, build {reports.number + 1}"
    yield Drawn(f"{where}: predict, terminal and Jenkins", prediction_text(reports.prediction))
    yield Drawn(f"{where}: predict, summary of GitHub and GitLab", prediction_markdown(reports.prediction))
    yield Drawn(f"{where}: train, terminal and Jenkins", training_text(reports.training))
    yield Drawn(f"{where}: train, summary of GitHub and GitLab", training_markdown(reports.training))
    if reports.triage.failures:
        yield Drawn(f"{where}: triage, terminal and Jenkins", triage_text(reports.triage))
        yield Drawn(f"{where}: triage, summary of GitHub and GitLab", triage_markdown(reports.triage))
        yield Drawn(f"{where}: annotations of GitHub", failure_annotations(reports.triage.failures))


def builds_of(project: CorpusProject, most: int) -> list[FinishedBuild]:
    """The first builds of a recorded project, with or without reports."""
    if project.kind != "builds":
        return recorded_builds(project)[:most]
    rows, _ = read_builds(project.path)
    return [evidence_of(row, number) for number, row in enumerate(rows[:most])]


def _no_words(_runs: tuple[TestRun, ...]) -> Mapping[str, tuple[str, ...]]:
    return {}


@click.command()
@CORPUS
@SEED
@click.option("--builds", type=int, default=40, show_default=True, help="Builds of each project.")
@click.option("--explanations", "wanted", type=int, default=50, show_default=True, help="Explanations to draw.")
@click.option("--summaries", "pages", type=int, default=20, show_default=True, help="Summaries to draw.")
def main(corpus: tuple[Path, ...], seed: int, builds: int, wanted: int, pages: int) -> None:
    """Print explanations and summaries of recorded projects, drawn at random."""
    draw = random.Random(seed)
    told: list[list[Drawn]] = []
    shown: list[list[Drawn]] = []
    for project in projects_below(corpus, ("folders", "builds", "results")):
        reports = list(live_through(project, builds_of(project, builds), draw))
        told.append([one for report in reports for one in explanations(report)])
        shown.append([one for report in reports for one in summaries(report)])
    for drawn in (*_spread(told, wanted, draw), *_spread(shown, pages, draw)):
        click.echo(f"=== {drawn.about}\n{drawn.text}\n")


def _spread(by_project: Sequence[Sequence[Drawn]], most: int, draw: random.Random) -> list[Drawn]:
    """Draw from every project in turn, so that a large one does not fill the list."""
    decks = [draw.sample(list(deck), len(deck)) for deck in by_project]
    rounds = (deck[turn] for turn in range(max(map(len, decks), default=0)) for deck in decks if turn < len(deck))
    return [drawn for drawn, _ in zip(rounds, range(most), strict=False)]


if __name__ == "__main__":
    run_command(main)
