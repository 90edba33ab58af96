"""Run one simulated federation through the real store, aggregation and gate."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from fedstep.federation.messages import SchemaShape, TrialScore, Update, pack_update
from fedstep.federation.update_builder import SCORE_BOUND, kept_batches
from fedstep.model.training import mean_loss
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import AggregationRules, default_rules
from fedstep.server.aggregation.inputs import CurrentModels
from fedstep.server.aggregation.step import next_version, to_numpy
from fedstep.server.gate import Gate
from fedstep.server.storage.store import Step, Store
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer
from fedstep.server.storage.version_repository import TrialSummary
from tests.studies.poisoning.memory_store import MemoryStore
from tests.studies.poisoning.world import RATES, Array, SimulatedTask, World, draw_world, to_floats

DAY = 86_400.0
FOLD_SECONDS = 4 * 3600.0
EPOCH = 1_700_000_000.0
MOST_VERDICTS = 10_000
LOOK = 10  # aggregations between two looks at the scores
Deltas = Mapping[str, Array]
Batch = tuple[Array, Array]  # rows and labels
Sent = defaultdict[tuple[str, int], list[tuple[int, Batch]]]  # by task and project its last batches, with their bases


@dataclass(frozen=True, slots=True)
class Turn:
    """What an attacker knows when it sends: the task, the model, its own honest delta and those of the others."""

    task: SimulatedTask
    candidate: Array
    start: Array
    honest: Array
    others: Sequence[Array]
    rows: Array
    labels: Array
    random: np.random.Generator


Attack = Callable[[Turn], Array]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: who sends in which aggregation, what attackers send, and how they evaluate.

    `senders` returns the projects that send in an aggregation; projects from `honest` on are attackers. `owner` names
    the owner of a project. `vote` is the evaluation that attackers report; None: an honest one.
    """

    senders: Callable[[np.random.Generator, int], Sequence[int]]
    honest: int
    projects: int
    attack: Attack | None = None
    vote: float | None = -1.0
    folds: int = 60
    from_starter: bool = False
    owner: Callable[[int], str] = field(default=lambda project: f"owner-{project}")
    at: Callable[[int], float] = field(default=lambda fold: EPOCH + fold * FOLD_SECONDS)


@dataclass(frozen=True, slots=True)
class Trace:
    """By task the scores of production and candidate every `LOOK` aggregations, and of the model it began with."""

    start: Mapping[str, float]
    production: Mapping[str, Sequence[float]]
    candidate: Mapping[str, Sequence[float]]
    verdicts: Sequence[TrialSummary]  # the oldest first; the version of each is the number of its aggregation

    def promoted(self, task: str) -> Sequence[TrialSummary]:
        """Return the trials of a task that ended with its promotion."""
        return [ended for ended in self.verdicts if (ended.task, ended.outcome) == (task, "promoted")]

    def admitted(self, task: str) -> float:
        """Return the largest loss that one promotion may have admitted, in nats or spreads."""
        return max((ended.figures["admitted"] for ended in self.promoted(task)), default=0.0)


def run(
    plan: Plan,
    seed: int,
    gate: Gate | None = None,
    rules: Callable[[str, AggregationRules], AggregationRules] = lambda _, given: given,
    tasks: Collection[str] = tuple(RATES),
    in_memory: bool = True,
    flakes: float | None = None,
) -> Trace:
    """Return how the scores of the model change over the aggregations of a plan, for some tasks.

    `flakes` is as for `draw_world`. It goes through `Store` where it is not `in_memory`, which takes three times as
    long and yields the same.
    """
    world, random = draw_world(seed, plan.projects, tasks, flakes), np.random.default_rng([seed, 1])
    start = world.starter(np.random.default_rng([seed, 2])) if plan.from_starter else world.start()
    known = default_rules(schema())
    zero = world.start()  # the decay is towards it from a starter model, too
    of_tasks = {name: rules(name, replace_start(known[name], zero[name])) for name in world.tasks}
    step = partial(next_version, rules=of_tasks, gate=gate or Gate())
    with _open_store(world.shape, in_memory) as store:
        store.start({name: to_floats(weights) for name, weights in start.items()}, plan.at(0))
        return _run(plan, world, start, store, step, random)


@contextmanager
def _open_store(shape: SchemaShape, in_memory: bool) -> Iterator[Store | MemoryStore]:
    if in_memory:
        yield MemoryStore()
        return
    with (
        tempfile.TemporaryDirectory(prefix="fedstep-poisoning-", dir=_memory()) as folder,
        closing(Store(f"sqlite:///{folder}/fedstep.db", shape)) as store,
    ):
        yield store


def replace_start(rules: AggregationRules, start: Array) -> AggregationRules:
    """Return the rules with decay towards this start."""
    return replace(rules, start=tuple(to_floats(start)))


def _run(
    plan: Plan, world: World, start: Deltas, store: Store | MemoryStore, step: Step, random: np.random.Generator
) -> Trace:
    scores: dict[str, dict[str, list[float]]] = {
        track: {name: [] for name in world.tasks} for track in ("production", "candidate")
    }
    number, sent = 0, Sent(list)
    for fold in range(plan.folds):
        current = store.current()
        projects = list(plan.senders(random, fold))
        if projects:
            offers = make_offers(plan, world, start, current, projects, random, number, sent)
            number += len(offers)
            now = plan.at(fold)
            outcomes = store.accept(offers, current.candidate.version, 100, now)
            assert all(isinstance(outcome, StoredReceipt) for outcome in outcomes)
            store.aggregate(step, now)
        if (fold + 1) % LOOK and fold + 1 < plan.folds:
            continue
        current = store.current()
        for track, vectors in (("production", current.production), ("candidate", current.candidate.vectors)):
            for name, score in world.scores({n: to_numpy(v).astype(float) for n, v in vectors.items()}).items():
                scores[track][name].append(score)
    verdicts = sorted(store.lineage(MOST_VERDICTS).verdicts, key=lambda ended: (ended.version, ended.task))
    return Trace(world.scores(start), scores["production"], scores["candidate"], tuple(verdicts))


def make_offers(
    plan: Plan,
    world: World,
    start: Deltas,
    current: CurrentModels,
    projects: Sequence[int],
    random: np.random.Generator,
    number: int,
    sent: Sent,
) -> list[UpdateOffer]:
    """Return what these projects send, and keep it in `sent`."""
    deltas: list[dict[str, Array]] = [{} for _ in projects]
    scores: list[dict[str, TrialScore]] = [{} for _ in projects]
    for name, task in world.tasks.items():
        candidate = to_numpy(current.candidate.vectors[name]).astype(float)
        drawn = [task.draw(random, project, task.batch) for project in projects]
        honest = task.learn_all(candidate, *map(np.array, zip(*drawn, strict=True)))
        others = [delta for delta, project in zip(honest, projects, strict=True) if project < plan.honest] or honest
        for index, (project, (rows, labels)) in enumerate(zip(projects, drawn, strict=True)):
            hostile = plan.attack is not None and project >= plan.honest
            delta = honest[index]
            if plan.attack is not None and project >= plan.honest:
                turn = Turn(task, candidate, start[name], delta, others, rows, labels, random)
                delta = task.clipped(plan.attack(turn))
            deltas[index][name] = delta
            trial, kept = current.trials.get(name), sent[name, project]
            if trial is not None:
                fair = [*(batch for base, batch in kept if base < trial.against), (rows, labels)]
                value = plan.vote if hostile and plan.vote is not None else evaluate(current, name, fair)
                scores[index][name] = TrialScore(trial.version, value)
            kept.append((current.candidate.version, (rows, labels)))
            del kept[: -kept_batches(name)]
    offers = []
    for index, project in enumerate(projects):
        update = Update(
            world.shape.digest,
            current.candidate.version,
            f"{number + index:032x}",
            f"{project:032x}",
            dict.fromkeys(world.tasks, 32),
            {name: to_floats(delta) for name, delta in deltas[index].items()},
            scores[index],
        )
        offers.append(
            UpdateOffer(
                update.id, update.project, plan.owner(project), update.base, pack_update(update), scores[index], update
            )
        )
    return offers


def evaluate(current: CurrentModels, name: str, batches: Sequence[Batch]) -> float:
    """Return the evaluation that an honest project sends: on what it learns now, and what production has learned."""
    rows, labels = map(np.concatenate, zip(*batches, strict=True))
    trial, production = (
        mean_loss(name, rows @ to_numpy(vector).astype(float), labels, np.ones(len(labels)))
        for vector in (current.trials[name].vector, current.production[name])
    )
    return float(np.float32(np.clip((trial - production) / SCORE_BOUND, -1.0, 1.0)))


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
