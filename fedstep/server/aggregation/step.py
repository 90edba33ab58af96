"""Make the next version of the model: aggregate updates, decide the open trials and begin new ones. Pure."""

import logging
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from math import ceil, sqrt
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.messages import SchemaShape, Vector, check_model, unpack_model
from fedstep.model.linear import zeros
from fedstep.schema.schema import Schema, schema
from fedstep.server.aggregation.fedbuff import (
    AggregationRules,
    TaskDelta,
    aggregate,
    aggregate_task,
    agreement,
    clip_delta,
    even_out,
    owner_limit,
)
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    AggregationResult,
    ModelState,
    ModelVersion,
    StoredUpdate,
    Trial,
    TrialOutcome,
)
from fedstep.server.aggregation.vectors import (
    Contributor,
    Contributors,
    DeltaBatch,
    FloatArray,
    GroupIndex,
    staleness_weight,
)
from fedstep.server.gate import Evidence, Gate

REPLAY_SECONDS = 86_400.0  # a task is replayed at most once in this time, or rejections could stop the learning
OPPOSED = 0.3  # of the sources of a task may be left out because they go against the others
OWNERS = 4  # known ones, from which on they are the sources, and not their projects
Names: TypeAlias = Mapping[str, Sequence[str]]  # of the coordinates of each task, in order
Source: TypeAlias = tuple[str, str]  # an owner and its project; an owner with all its projects has ""
Opponents: TypeAlias = Mapping[str, Collection[Source]]  # by task
NO_OPPONENTS: Opponents = MappingProxyType({})
TINY = 1e-12
log = logging.getLogger("fedstep.server")


class Restart(NamedTuple):
    """The vector that a rejected task goes on from, and how many suspected sources were left out of it."""

    vector: Vector
    left_out: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The vector of each task after one aggregation."""

    vectors: Mapping[str, Vector]

    def restart(self, state: ModelState, trial: Trial) -> Restart:
        """Return production: a sum of updates cannot be taken apart to leave some of them out."""
        return Restart(state.current.production[trial.task], 0)


@dataclass(frozen=True, slots=True)
class UpdateAggregate(Aggregate):
    """The vectors after an aggregation of single updates, which can be replayed without some of their sources."""

    given: AggregationInput
    rules: Mapping[str, AggregationRules]
    gate: Gate
    opponents: Opponents = field(default_factory=dict)

    def restart(self, state: ModelState, trial: Trial) -> Restart:
        """Return production with all updates since it replayed, less those of the suspects of this trial."""
        production, rules = state.current.production[trial.task], self.rules[trial.task]
        damage = to_numpy(trial.vector) - to_numpy(production)
        parts = _parts_of_task(trial.task, self._updates_since(trial.against), state.version)
        suspects = find_suspects(parts, damage, rules.clip, self.gate.suspects, self.gate.voters)
        updates, opponents = self._updates_since(trial.against), self.opponents.get(trial.task, ())
        vector = replay_updates(trial.task, production, updates, state.version, rules, suspects, opponents)
        return Restart(vector, len(suspects))

    def _updates_since(self, version: int) -> Iterable[StoredUpdate]:
        return chain(self.given.since(version), self.given.buffered)


class TaskState(NamedTuple):
    """A task in the next version: its vector, the version of its production, its open trial, and the one that ended."""

    vector: Vector
    source: int
    trial: Trial | None = None
    decision: TrialOutcome | None = None


def next_version(
    given: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None
) -> AggregationResult:
    """Return the version after the buffered updates, each task decided on its own.

    Without a gate production is always the newest candidate.
    """
    opponents = find_opponents(chain(given.recent(), given.buffered), rules)
    vectors = aggregate_updates(given.current.candidate, given.buffered, rules, opponents)
    made = UpdateAggregate(vectors, given, rules, gate, opponents) if gate else Aggregate(vectors)
    result = advance(given, made, given.evidence, gate)
    return replace(result, opposed={name: len(sources) for name, sources in opponents.items() if sources})


def advance(
    state: ModelState, aggregate: Aggregate, evidence: Mapping[str, Evidence], gate: Gate | None
) -> AggregationResult:
    """Return the version that follows `state` with the vectors of `aggregate`.

    The gate decides each open trial on its evidence, by task. After a promotion the version on trial is the task's
    production; after a rejection the task restarts, at most once in `REPLAY_SECONDS`. A task without an open trial
    begins one.
    """
    if gate is None:
        tasks = {name: TaskState(vector, state.version) for name, vector in aggregate.vectors.items()}
    else:
        tasks = {name: _advance_task(state, name, aggregate, evidence.get(name), gate) for name in aggregate.vectors}
    before = state.current.candidate
    sources = {name: task.source for name, task in tasks.items()}
    production = state.version if sources != before.sources else before.production
    vectors = {name: task.vector for name, task in tasks.items()}
    return AggregationResult(
        ModelVersion(state.version, production, state.now, vectors, sources),
        tuple(task.trial for task in tasks.values() if task.trial),
        tuple(task.decision for task in tasks.values() if task.decision),
    )


def _advance_task(
    state: ModelState, name: str, aggregate: Aggregate, evidence: Evidence | None, gate: Gate
) -> TaskState:
    vector, source = aggregate.vectors[name], state.current.candidate.sources[name]
    production, trial = state.current.production[name], state.current.trials.get(name)
    if trial is None:
        return _begin_trial(state, name, vector, source, production)
    if evidence is None:
        return TaskState(vector, source, trial)
    verdict = gate.decide(evidence, state.spent.get(name, 0.0))
    if verdict.outcome == "open":
        return TaskState(vector, source, trial)
    decision = TrialOutcome(trial, verdict)
    if verdict.outcome == "promoted":
        source, production = trial.version, trial.vector
    elif verdict.outcome == "rejected" and state.now - state.replayed.get(name, -REPLAY_SECONDS) >= REPLAY_SECONDS:
        vector, left_out = aggregate.restart(state, trial)
        decision = TrialOutcome(trial, verdict, replayed=True, left_out=left_out)
    return _begin_trial(state, name, vector, source, production, decision)


def _begin_trial(
    state: ModelState,
    name: str,
    vector: Vector,
    source: int,
    production: Vector,
    decision: TrialOutcome | None = None,
) -> TaskState:
    """Return the task with its new vector on trial, unless that is what production is."""
    trial = None if vector == production else Trial(name, state.version, source, state.now, vector)
    return TaskState(vector, source, trial, decision)


def aggregate_updates(
    candidate: ModelVersion,
    updates: Iterable[StoredUpdate],
    rules: Mapping[str, AggregationRules],
    opponents: Opponents = NO_OPPONENTS,
) -> Mapping[str, Vector]:
    """Return the vector of each task after these updates, whose order does not matter, less those of its opponents."""
    sent = sorted((_read(stored, candidate.version) for stored in updates), key=itemgetter(0))
    everyone = Contributors.of([contributor for contributor, _ in sent])
    deltas: dict[str, dict[int, FloatArray]] = {name: {} for name in candidate.vectors}
    for index, (contributor, parts) in enumerate(sent):
        for name, delta in parts.items():
            if not _is_of(contributor, opponents.get(name, ())):
                deltas[name][index] = to_numpy(delta)
    return {
        name: to_float_array(aggregate_task(to_numpy(vector), deltas[name], everyone, rules[name]))
        for name, vector in candidate.vectors.items()
    }


def replay_updates(
    name: str,
    start: Vector,
    updates: Iterable[StoredUpdate],
    version: int,
    rules: AggregationRules,
    without: Collection[str],
    opponents: Collection[Source] = (),
) -> Vector:
    """Return a task after the same aggregations from another start, less opponents, and projects and owners `without`.

    The updates come in the order of their aggregations, those of the one that makes `version` last; the updates of one
    aggregation are in memory at a time.
    """
    vector, excluded = to_numpy(start), set(without)
    for _, generation in groupby(updates, lambda stored: stored.version):
        parts = (part for part in _parts_of_task(name, generation, version) if not _is_of(part, opponents))
        vector = aggregate(vector, [part for part in parts if not {part.project, part.owner} & excluded], rules)
    return to_float_array(vector)


def find_suspects(
    parts: Iterable[TaskDelta], damage: FloatArray, bound: float, share: float, owners: int
) -> frozenset[str]:
    """Return the share of sources, rounded up, whose clipped deltas together went furthest along `damage`.

    Sources are owners where there are at least `owners` of them, else projects. A source that went the other way is
    never a suspect.
    """
    by_owner: dict[str, float] = {}
    by_project: dict[str, float] = {}
    direction = damage.astype(float)
    for part in parts:
        along = staleness_weight(part.staleness) * float(clip_delta(part.delta, bound) @ direction)
        by_owner[part.owner] = by_owner.get(part.owner, 0.0) + along
        by_project[part.project] = by_project.get(part.project, 0.0) + along
    sources = by_owner if len(by_owner) >= owners else by_project
    worst = sorted(sources, key=lambda source: (-sources[source], source))[: ceil(share * len(sources))]
    return frozenset(source for source in worst if sources[source] > 0.0)


def find_opponents(updates: Iterable[StoredUpdate], rules: Mapping[str, AggregationRules]) -> Opponents:
    """Return by task the sources whose updates went against the direction of all together, on average over them.

    One update hardly tells whether its source helps, because most of it is noise; the mean of many does. Of sources
    with two updates or more, those that are the least likely to be so by chance are returned, at most `OPPOSED` of all
    sources. Sources are owners where enough are known, else projects.
    """
    deltas: dict[str, dict[Source, list[FloatArray]]] = {}
    for stored in updates:
        update = stored.update()
        for name, delta in update.deltas.items():
            source = stored.owner, stored.project or update.project
            deltas.setdefault(name, {}).setdefault(source, []).append(to_numpy(delta))
    return {name: _find_opponents(_merge_owners(of_task), rules[name]) for name, of_task in deltas.items()}


def _merge_owners(deltas: Mapping[Source, list[FloatArray]]) -> Mapping[Source, list[FloatArray]]:
    if len({owner for owner, _ in deltas}) < OWNERS:
        return deltas
    merged: dict[Source, list[FloatArray]] = {}
    for (owner, _), given in deltas.items():
        merged.setdefault((owner, ""), []).extend(given)
    return merged


def _find_opponents(deltas: Mapping[Source, list[FloatArray]], rules: AggregationRules) -> frozenset[Source]:
    sources = sorted(deltas)
    most = int(OPPOSED * len(sources))
    if not most:
        return frozenset()
    means = [np.mean(deltas[source], axis=0) for source in sources]
    direction = _common_direction(sources, means, rules.projects_per_owner)
    against: list[tuple[float, Source]] = []
    for source in sources:
        along = np.array([float(delta @ direction) for delta in deltas[source]])
        if len(along) > 1 and along.mean() < 0.0:
            against.append((float(along.mean() / max(TINY, along.std(ddof=1) / sqrt(len(along)))), source))
    return frozenset(source for _, source in sorted(against)[:most])


def _common_direction(sources: Sequence[Source], means: Sequence[FloatArray], projects_per_owner: float) -> FloatArray:
    """Return the sum of the means, weighed by their agreement; an owner's count as far as in an aggregation."""
    known = Contributors.of([Contributor(0, owner, project, "") for owner, project in sources])
    shares, owners = GroupIndex.of(known.shares), GroupIndex.of(known.owners)
    most = owner_limit(known, projects_per_owner)
    weights = even_out(np.ones(len(sources)), shares, owners, most)
    batch = DeltaBatch.of(means, weights)
    batch = batch.clip_norms(float(np.median(batch.norms)))  # few long ones would make the direction
    return batch.weighted_sum(weights * agreement(batch, weights))


def _is_of(one: Contributor | TaskDelta, sources: Collection[Source]) -> bool:
    return (one.owner, one.project) in sources or (one.owner, "") in sources


def iter_task_deltas(stored: StoredUpdate, version: int) -> Iterator[tuple[str, TaskDelta]]:
    """Yield each task of an update with what it contributes to an aggregation of the candidate `version`."""
    contributor, deltas = _read(stored, version)
    for name, delta in deltas.items():
        yield (
            name,
            TaskDelta(contributor.id, contributor.project, contributor.staleness, to_numpy(delta), contributor.owner),
        )


def to_numpy(vector: Vector) -> FloatArray:
    """Return the vector as a numpy array of the same memory."""
    return np.frombuffer(vector, dtype=np.float32)


def to_float_array(vector: FloatArray) -> Vector:
    """Return a copy of a numpy vector as the array of C floats that messages have."""
    floats = array("f")
    floats.frombytes(vector.astype(np.float32).tobytes())
    return floats


def initial_vectors(starter: bytes, shape: SchemaShape) -> Mapping[str, Vector]:
    """Return the vectors of a starter model; those of the schema where there is none, or one of another schema."""
    try:
        model = unpack_model(starter)
        check_model(model, shape)
    except (WireError, SchemaMismatch):
        known = schema()
        return {
            name: known.tasks[name].start() if shape.digest == known.digest else zeros(size)
            for name, size in shape.sizes.items()
        }
    return model.candidate


def coordinate_names(schema: Schema) -> Names:
    """Return the names of the coordinates of each task."""
    return {name: task.names() for name, task in schema.tasks.items()}


def inherit_weights(
    names: Names, start: Mapping[str, Vector], old_names: Names, old: Mapping[str, Vector]
) -> Mapping[str, Vector]:
    """Return `start` with the weight of each coordinate whose name the same task of an `old` schema had, too."""
    weights = {name: dict(zip(old_names.get(name, ()), old.get(name, ()), strict=True)) for name in start}
    return {
        name: array(
            "f", (weights[name].get(coordinate, weight) for coordinate, weight in zip(names[name], vector, strict=True))
        )
        for name, vector in start.items()
    }


def log_decisions(decisions: Iterable[TrialOutcome]) -> None:
    """Log one line per decision. Call it once they are on disk: an aggregation that fails is made again."""
    for decision in decisions:
        trial, verdict = decision.trial, decision.verdict
        figures = verdict.figures()
        fields = {"task": trial.task, "trial": trial.version, "outcome": verdict.outcome, **figures}
        text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        log.info("trial of %s %d: %s (%s)", trial.task, trial.version, verdict.outcome, text, extra={"fields": fields})


def _read(stored: StoredUpdate, version: int) -> tuple[Contributor, Mapping[str, Vector]]:
    """Return who contributed an update, and its deltas by task."""
    update = stored.update()
    contributor = Contributor(version - update.base, stored.owner, stored.project or update.project, update.id)
    return contributor, update.deltas


def _parts_of_task(name: str, updates: Iterable[StoredUpdate], version: int) -> Iterator[TaskDelta]:
    """Yield what updates contributed to a task, each in the aggregation it was in; `version` is the one to be made."""
    for stored in updates:
        candidate = (version if stored.version < 0 else stored.version) - 1
        yield from (part for task, part in iter_task_deltas(stored, candidate) if task == name)
