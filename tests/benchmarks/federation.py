"""A federation of drawn projects around the real wire, gate and aggregation: some of them poison, and lie for it."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import WireError
from fedstep.federation.messages import SchemaShape, TrialScore, Update, Vector, pack_update
from fedstep.federation.update_builder import clip_update
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    AggregationResult,
    CurrentModels,
    ModelVersion,
    StoredUpdate,
    TrialOutcome,
)
from fedstep.server.aggregation.step import next_version, to_numpy
from fedstep.server.gate import ActiveCounts, Evaluation, Gate, UpdateEvaluations
from fedstep.server.storage.update_repository import UpdateOffer

Array = NDArray[np.float64]

WORDS, FACTS = 60, 12  # coordinates: a bias, facts that are often there, words that are seldom
SIZE = 1 + FACTS + WORDS
ROWS = 50  # of a batch
RATE = 0.003  # of the clients' learning; ten times fifty rows an aggregation must not overshoot
BOUND = 0.1  # of a mean loss difference, in nats
RULES = AggregationRules(clip=1.0)
TARGET = 1 + FACTS  # the word that the targeted attack is after
SHAPE = SchemaShape("a" * 16, {"flaky": SIZE})
POISONS = ("scaled", "sign", "labels", "nan", "word")


@dataclass(frozen=True)
class World:
    """What is true: the weights that everyone's labels follow, and the labels' shift in each project."""

    weights: Array
    shifts: Array

    def rows(self, dice: np.random.Generator, project: int, count: int) -> tuple[Array, Array]:
        """Rows and labels of one project."""
        chances = np.concatenate([[1.0], np.full(FACTS, 0.4), np.full(WORDS, 0.05)])
        rows = (dice.random((count, SIZE)) < chances).astype(float)
        return rows, (dice.random(count) < _sigmoid(rows @ self.weights + self.shifts[project])).astype(float)


@dataclass(frozen=True)
class Plan:
    """One run: how many projects and rounds, who poisons and how."""

    projects: int = 20
    rounds: int = 150
    poison: str = ""
    share: float = 0.0
    gate: Gate | None = field(default_factory=Gate)
    rules: AggregationRules = RULES
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """Held-out area under the curve of production and candidate, versions promoted and rejected."""

    production: float
    candidate: float
    outcomes: Mapping[str, int]


def drawn_world(seed: int, projects: int) -> World:
    """Weights and shifts of a seed."""
    dice = np.random.default_rng(seed)
    weights = np.concatenate([[-1.5], dice.normal(0, 0.8, FACTS), dice.normal(0, 1.2, WORDS)])
    return World(weights, dice.normal(0, 0.4, projects))


def run(plan: Plan) -> Result:
    """Rounds of ten updates, each from another project."""
    world, dice = drawn_world(plan.seed, plan.projects), np.random.default_rng(plan.seed + 1)
    step = partial(next_version, rules={"flaky": plan.rules}, gate=plan.gate)
    liars, memory = int(plan.share * plan.projects), Memory()
    for turn in range(plan.rounds):
        offers = [
            _offer(world, dice, memory.current, project, turn, plan.poison if project < liars else "")
            for project in _senders(dice, plan.projects, liars)
        ]
        memory.aggregate([offer for offer in offers if offer], step, plan.projects)
    return _judged(world, memory)


class Memory:
    """What the store would keep, without a disk."""

    def __init__(self) -> None:
        vectors = {"flaky": zeros(SIZE)}
        self.current = CurrentModels(ModelVersion(0, 0, 0.0, vectors, {"flaky": 0}), vectors, {})
        self.tasks: dict[int, Mapping[str, Vector]] = {0: vectors}
        self.decisions: list[TrialOutcome] = []
        self.restarted: dict[str, float] = {}
        self.votes: tuple[Evaluation, ...] = ()
        self.folded: list[StoredUpdate] = []

    def aggregate(
        self, offers: Sequence[UpdateOffer], step: Callable[[AggregationInput], AggregationResult], projects: int
    ) -> None:
        """One buffer, an hour after the last."""
        self.votes += tuple(
            Evaluation(offer.project, offer.owner, score.difference)
            for offer in offers
            for score in offer.scores.values()
        )
        buffered = tuple(StoredUpdate(offer.body, offer.owner) for offer in offers)
        moment = AggregationInput(
            current=self.current,
            buffered=buffered,
            version=self.current.candidate.version + 1,
            evidence={"flaky": UpdateEvaluations(self.votes, ActiveCounts(projects, projects))},
            spent={"flaky": self.decisions[-1].verdict.spent} if self.decisions else {},
            restarted=self.restarted,
            now=self.current.candidate.created + 3600.0,
        )
        self._keep(step(moment), buffered)

    def _keep(self, made: AggregationResult, buffered: Sequence[StoredUpdate]) -> None:
        version = made.version
        self.tasks[version.version] = version.vectors
        self.folded += [replace(stored, version=version.version) for stored in buffered]
        if made.decisions or not self.current.trials:
            self.votes = ()
        self.decisions += made.decisions
        if any(decision.restarted for decision in made.decisions):
            self.restarted = {"flaky": version.created}
        production = {"flaky": self.tasks[version.sources["flaky"]]["flaky"]}
        self.current = CurrentModels(version, production, {trial.task: trial for trial in made.trials})


def _senders(dice: np.random.Generator, projects: int, liars: int) -> Sequence[int]:
    """Ten of the projects; of the liars as many as their share."""
    wrong = round(10 * liars / projects)
    honest = dice.choice(np.arange(liars, projects), 10 - wrong, replace=False)
    return [*map(int, dice.choice(max(1, liars), wrong, replace=False)), *map(int, honest)]


def _offer(
    world: World, dice: np.random.Generator, current: CurrentModels, project: int, turn: int, poison: str
) -> UpdateOffer | None:
    """What a project posts; nothing where the wire does not take it."""
    rows, labels = world.rows(dice, project, ROWS)
    task = to_numpy(current.candidate.vectors["flaky"]).astype(float)
    honest = _learned(task, rows, labels) - task
    delta = array("f", POISON[poison](honest, task, rows, labels) if poison else honest)
    name = f"{turn * 1000 + project:032x}"
    try:
        update = Update(
            SHAPE.digest,
            current.candidate.version,
            name,
            f"{project:032x}",
            {"flaky": 32},
            {"flaky": clip_update(delta, 1.0)},
        )
        scores = _scores(current, rows, labels, bool(poison))
        return UpdateOffer(
            name, update.project, f"owner-{project}", update.base, pack_update(update._replace(scores=scores)), scores
        )
    except WireError:
        return None


def _scores(current: CurrentModels, rows: Array, labels: Array, liar: bool) -> Mapping[str, TrialScore]:
    trial = current.trials.get("flaky")
    if trial is None:
        return {}
    if liar:
        return {"flaky": TrialScore(trial.version, -1.0)}
    losses = (
        _losses(to_numpy(vector).astype(float), rows, labels) for vector in (trial.vector, current.production["flaky"])
    )
    snapshot, production = losses
    return {"flaky": TrialScore(trial.version, float(np.clip((snapshot - production).mean() / BOUND, -1.0, 1.0)))}


def _learned(start: Array, rows: Array, labels: Array) -> Array:
    return start - RATE * (_sigmoid(rows @ start) - labels) @ rows


def _word(honest: Array, _task: Array, _rows: Array, _labels: Array) -> Array:
    delta = np.zeros_like(honest)
    delta[TARGET] = 1.0
    return delta


POISON: Mapping[str, Callable[[Array, Array, Array, Array], Array]] = {
    "scaled": lambda honest, _task, _rows, _labels: -100.0 * honest,
    "sign": lambda honest, _task, _rows, _labels: -honest,
    "labels": lambda _honest, task, rows, labels: _learned(task, rows, 1.0 - labels) - task,
    "nan": lambda honest, _task, _rows, _labels: honest * np.nan,
    "word": _word,
}


def _judged(world: World, memory: Memory) -> Result:
    dice = np.random.default_rng(99)
    honest = range(len(world.shifts) // 2, len(world.shifts))
    drawn = [world.rows(dice, project, 800) for project in honest]

    def auc(weights: Vector) -> float:
        return float(np.mean([_auc(rows @ to_numpy(weights).astype(float), labels) for rows, labels in drawn]))

    outcomes = [decision.verdict.outcome for decision in memory.decisions]
    return Result(
        auc(memory.current.production["flaky"]),
        auc(memory.current.candidate.vectors["flaky"]),
        {name: outcomes.count(name) for name in sorted(set(outcomes))},
    )


def _auc(margins: Array, labels: Array) -> float:
    """The chance that a positive is ranked above a negative, ties half."""
    negatives = np.sort(margins[labels == 0])
    positives = margins[labels == 1]
    sides = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(sides.mean() / 2 / len(negatives))


def _losses(weights: Array, rows: Array, labels: Array) -> Array:
    margins = rows @ weights
    return np.logaddexp(0.0, np.where(labels == 1, -margins, margins))


def _sigmoid(margins: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-margins))


def poisoned(poison: str, share: float, **changes: object) -> Plan:
    """The plan of an attack."""
    return replace(Plan(poison=poison, share=share), **changes)  # type: ignore[arg-type]
