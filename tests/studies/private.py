"""Measure what differential privacy costs: `python -m tests.studies.private [--epsilon 8] CORPUS...`.

The shared task for flaky tests is learned with and without noise by the same number of projects. The projects are
drawn from recorded ones: each has some classes of one of them, and the model is scored on recorded projects that are
held out whole. Mechanism, aggregation, updates and learning are those of production; the first model is empty.
"""

import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, product
from math import inf, isfinite
from pathlib import Path

import click

from fedstep.cli.evaluate import show_progress, write_file
from fedstep.cli.output import echo_result
from fedstep.errors import InputError
from fedstep.evaluation.corpus import find_projects
from fedstep.evaluation.replay import Extracted, extract
from fedstep.evaluation.scores import Tally, scoring_of
from fedstep.evaluation.simulated_federation import key_by, lessons, predict_left_out
from fedstep.federation.messages import Model, PrivacyGuarantee, Vector, pack_update
from fedstep.federation.update_builder import make_update
from fedstep.ingest.change_impact import group_of
from fedstep.model.labels import LabelledExample
from fedstep.model.state import ExampleQueue
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    AggregationResult,
    CurrentModels,
    ModelVersion,
    StoredUpdate,
)
from fedstep.server.aggregation.step import next_version
from fedstep.server.differential_privacy import LIFE, GaussianNoise, calibrate_budget, next_private_version
from fedstep.server.mode import BufferPolicy
from fedstep.types import Unavailable
from tests.studies.command import CORPUS, FIGURES, SEED, run_command

TASK = "flaky"
TESTS = 100  # of a project, and so the rows that it contributes in a period, each time all of them
MOST_ROWS = 3000  # of a recorded project: a larger one gives no more projects than this
TURNS = 4  # groups of recorded projects that are held out in turn
WHISPER = 1e-7  # noise of less than a step of the grid
WEEK = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class PrivatePlan:
    """What to study. With `epsilon` 0 the aggregation is plain; infinite, it has the bounds and no noise."""

    epsilon: float
    participants: int = 100
    releases: int = 5
    delta: float = 1e-6
    seed: int = 1


@dataclass(frozen=True, slots=True)
class PrivateStudy:
    """The mean AUC over the recorded projects held out, that of each, and the noise in units of a project's bound."""

    plan: PrivatePlan
    auc: float
    projects: Mapping[str, float]
    noise: float


def run_private(places: Sequence[Path], plans: Iterable[PrivatePlan]) -> Iterator[PrivateStudy]:
    """Learn as each plan says with each group of recorded projects held out, and score it. Raises InputError."""
    with tempfile.TemporaryDirectory(prefix="fedstep-private-") as folder:
        recorded = [
            extract(project, TASK, None, Path(folder) / f"{number}.jsonl")
            for number, project in enumerate(find_projects(places, ("tests",)))
        ]
        rows = {one.project: lessons(one) for one in recorded}
        for plan in plans:
            yield _study(recorded, rows, plan)


def _study(
    recorded: Sequence[Extracted], rows: Mapping[str, Sequence[LabelledExample]], plan: PrivatePlan
) -> PrivateStudy:
    noise = _noise(plan)
    turns = (_turn(recorded, rows, turn, plan, noise) for turn in range(min(TURNS, len(recorded))))
    tallies = dict(chain.from_iterable(turns))
    scores = scoring_of(TASK, True).projects(tallies)
    aucs = {name: found["auc"] for name, found in scores.items() if "auc" in found}
    if not aucs:
        raise InputError("no project could be ranked", "One needs three flaky tests, and another one to learn from")
    return PrivateStudy(plan, sum(aucs.values()) / len(aucs), aucs, noise.multiplier if noise else 0.0)


def _noise(plan: PrivatePlan) -> GaussianNoise | None:
    if not plan.epsilon:
        return None
    promise = PrivacyGuarantee(plan.epsilon, plan.delta, plan.releases, 7.0)
    multiplier = calibrate_budget(promise).multiplier if isfinite(plan.epsilon) else WHISPER
    # not `secrets`: a study has to come out the same again, and hides nobody
    below = random.Random(f"{plan.seed} noise").randrange
    return GaussianNoise(multiplier, below, LIFE / plan.releases)


def _turn(
    recorded: Sequence[Extracted],
    rows: Mapping[str, Sequence[LabelledExample]],
    turn: int,
    plan: PrivatePlan,
    noise: GaussianNoise | None,
) -> Iterator[tuple[str, Tally]]:
    """The predictions for every fourth project, by what the others have taught."""
    draw = random.Random(f"{plan.seed} {turn}")
    held_out = recorded[turn::TURNS]
    others = {one.project: rows[one.project] for one in recorded if one not in held_out}
    projects = _drawn(others, plan.participants, draw)
    weights = _learned(projects, plan.releases, noise, draw) if projects else schema().tasks[TASK].start()
    for one in held_out:
        tally = Tally()
        for prediction in predict_left_out(TASK, one, list(weights)):
            tally.add(prediction)
        yield one.project, tally


def _drawn(
    recorded: Mapping[str, Sequence[LabelledExample]], count: int, draw: random.Random
) -> Sequence[Sequence[LabelledExample]]:
    """So many projects, more of a larger one: whole classes of it, none again before all were drawn."""
    pools: dict[str, list[Sequence[LabelledExample]]] = {name: [] for name, rows in recorded.items() if rows}
    names = sorted(pools)
    chosen = draw.choices(names, [min(MOST_ROWS, len(recorded[name])) for name in names], k=count) if names else ()
    return [_one(recorded[name], pools[name], draw) for name in chosen]


def _one(
    rows: Sequence[LabelledExample], pool: list[Sequence[LabelledExample]], draw: random.Random
) -> Sequence[LabelledExample]:
    found: list[LabelledExample] = []
    while len(found) < min(TESTS, len(rows)):
        if not pool:
            pool += _shuffled(_classes(rows), draw)
        found += pool.pop()
    return found[:TESTS]


def _classes(rows: Sequence[LabelledExample]) -> list[Sequence[LabelledExample]]:
    classes: dict[str, list[LabelledExample]] = {}
    for ripe in rows:
        classes.setdefault(group_of(ripe.example.subject), []).append(ripe)
    return [classes[name] for name in sorted(classes)]


def _learned(
    projects: Sequence[Sequence[LabelledExample]], releases: int, noise: GaussianNoise | None, draw: random.Random
) -> Vector:
    """The task after so many periods, in each of which every project contributes all its rows."""
    rules = {TASK: default_rules(schema())[TASK]}
    step = partial(next_private_version, noise=noise) if noise else next_version
    task = ModelVersion(0, 0, 0.0, {TASK: schema().tasks[TASK].start()}, {TASK: 0})
    several = len(projects) if noise else BufferPolicy().updates  # only with noise a period is one aggregation
    for period, first in product(range(releases), range(0, len(projects), several)):
        updates = tuple(_updates(projects[first : first + several], first, task, draw))
        moment = AggregationInput(
            CurrentModels(task, task.vectors, {}), task.version + 1, {}, {}, period * WEEK, updates, {}
        )
        made: AggregationResult = step(moment, rules=rules, gate=None)
        task = made.version
    return task.vectors[TASK]


def _updates(
    projects: Sequence[Sequence[LabelledExample]], first: int, task: ModelVersion, draw: random.Random
) -> Iterator[StoredUpdate]:
    """What each of the projects sends; they have the numbers from `first` on."""
    model = Model(schema().digest, task.version, task.version, "", task.vectors, task.vectors)
    for number, rows in enumerate(projects, first):
        backlog = ExampleQueue(waiting={TASK: tuple(draw.sample(rows, len(rows)))})
        update, _ = make_update(backlog, model, key_by(f"project {number} {task.version}"))
        if not isinstance(update, Unavailable):
            yield StoredUpdate(pack_update(update), project=str(number))


def _shuffled(classes: list[Sequence[LabelledExample]], draw: random.Random) -> list[Sequence[LabelledExample]]:
    draw.shuffle(classes)
    return classes


def private_text(studies: Sequence[PrivateStudy]) -> str:
    """Return a line for each way of learning, and the loss of AUC that the noise causes."""
    plan = studies[-1].plan
    best, noised = max(study.auc for study in studies[:-1]), studies[-1]
    lines = [
        f"flaky tests without a history, {plan.participants} projects with {plan.releases} contributions each, "
        f"{len(noised.projects)} recorded projects held out in turn",
        *(f"  {_describe_plan(study):<42} auc {study.auc:.3f}" for study in studies),
        f"  loss of auc {best - noised.auc:.3f}, noise {noised.noise:.2f} times the bound of a project",
    ]
    return "".join(f"{line}\n" for line in lines)


def private_json(studies: Sequence[PrivateStudy]) -> str:
    """Return all figures as JSON."""
    return json.dumps([_json_fields(study) for study in studies], indent=2) + "\n"


def _describe_plan(study: PrivateStudy) -> str:
    if not study.plan.epsilon:
        return "without differential privacy"
    if not isfinite(study.plan.epsilon):
        return "with its bounds, without noise"
    return f"epsilon {study.plan.epsilon:g}, delta {study.plan.delta:g}"


def _json_fields(study: PrivateStudy) -> dict[str, object]:
    """Return the figures without an infinite epsilon, which JSON cannot express."""
    plan = {name: value for name, value in asdict(study.plan).items() if name != "epsilon" or isfinite(value)}
    return {**plan, "auc": study.auc, "noise": study.noise, "projects": dict(study.projects)}


@click.command()
@CORPUS
@click.option("--epsilon", type=click.FloatRange(0, min_open=True), default=8.0, show_default=True, help="Budget.")
@click.option("--participants", type=click.IntRange(1), default=100, show_default=True, help="Projects to draw.")
@click.option("--releases", type=click.IntRange(1), default=5, show_default=True, help="Contributions of each project.")
@SEED
@FIGURES
def private(
    corpus: tuple[Path, ...], epsilon: float, participants: int, releases: int, seed: int, figures: str
) -> None:
    """Measure what differential privacy costs for flaky tests: without it, with its bounds, and with its noise.

    CORPUS is a folder with a `tests.csv` for each project.
    """
    plans = [PrivatePlan(value, participants, releases, seed=seed) for value in (0.0, inf, epsilon)]
    studies = tuple(show_progress(run_private(corpus, plans), "learning", len(plans)))
    echo_result(private_text(studies))
    write_file(figures, private_json(studies))


if __name__ == "__main__":
    run_command(private)
