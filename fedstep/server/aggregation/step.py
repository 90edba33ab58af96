"""Make the next version of the model: aggregate updates, decide the open trials and begin new ones. Pure."""

import logging
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.messages import SchemaShape, Update, Vector, check_model, unpack_model
from fedstep.model.linear import zeros
from fedstep.schema.schema import Schema, schema
from fedstep.server.aggregation.fedbuff import (
    UNKNOWN,
    AggregationRules,
    TaskDelta,
    Usual,
    aggregate_task,
    apply_step,
    even_out,
    owner_limit,
    scale_rate,
    update_mean,
    weighted_median,
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
    FloatArray,
    Floats,
    GroupIndex,
)
from fedstep.server.gate import Evaluation, Evidence, Gate, UpdateEvaluations

AVERAGED = 5  # candidates: the mean of the newest ones goes on trial
EARLIER = AVERAGED - 2  # of them are neither the new nor the current one
RESTART_SECONDS = 86_400.0  # a task restarts at most once in this time, or rejections could stop the learning
OPPOSED = 0.3  # of the sources of a task may be left out because they go against the others
PROVEN = 2.0  # standard errors: of opponents that go so far against the others, the evaluations do not count either
OWNERS = 4  # known ones, from which on they are the sources, and not their projects
Names: TypeAlias = Mapping[str, Sequence[str]]  # of the coordinates of each task, in order
Source: TypeAlias = tuple[str, str]  # an owner and its project; an owner with all its projects has ""
TINY = 1e-12
log = logging.getLogger("fedstep.server")


class Comparison(NamedTuple):
    """What the newest updates of all sources tell of a task: who goes against the others, and what is usual.

    Of the opponents, `proven` are those that hardly are so by chance.
    """

    opponents: frozenset[Source] = frozenset()
    proven: frozenset[Source] = frozenset()
    usual: Usual = UNKNOWN


Comparisons: TypeAlias = Mapping[str, Comparison]  # by task
NO_COMPARISON, NO_COMPARISONS = Comparison(), MappingProxyType[str, Comparison]({})


class TaskState(NamedTuple):
    """A task in the next version: its vector, the version of its production, its open trial, and the one that ended.

    `mean` is that of its newest vectors, or the vector itself.
    """

    vector: Vector
    mean: Vector
    source: int
    trial: Trial | None = None
    decision: TrialOutcome | None = None


def next_version(
    given: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None
) -> AggregationResult:
    """Return the version after the buffered updates, each task decided on its own.

    Without a gate production is always the newest candidate.
    """
    compared = compare_sources(chain(given.recent(), given.buffered), rules)
    vectors = aggregate_updates(given.current.candidate, given.buffered, rules, compared)
    evidence = {name: _without(own, compared.get(name, NO_COMPARISON).proven) for name, own in given.evidence.items()}
    result = advance(given, vectors, evidence, rules, gate)
    opposed = {name: len(task.opponents) for name, task in compared.items() if task.opponents}
    return replace(result, opposed=opposed)


def _without(evidence: Evidence, proven: Collection[Source]) -> Evidence:
    """Return evidence of single evaluations less those of proven opponents, who may judge as falsely as they learn."""
    if not isinstance(evidence, UpdateEvaluations):
        return evidence
    kept = replace(evidence, evaluations=tuple(each for each in evidence.evaluations if not _is_of(each, proven)))
    return replace(kept, left_out=len(evidence.voters()) - len(kept.voters()))


def advance(
    state: ModelState,
    vectors: Mapping[str, Vector],
    evidence: Mapping[str, Evidence],
    rules: Mapping[str, AggregationRules],
    gate: Gate | None,
) -> AggregationResult:
    """Return the version that follows `state` with these vectors.

    The gate decides each open trial on its evidence, by task. After a promotion the version on trial is the task's
    production; after a rejection the task goes halfway back to its production, at most once in `RESTART_SECONDS`. A
    task without an open trial begins one, once it has learned enough since its production.
    """
    before = state.current.candidate
    moved = {name: _advance_mean(before, name, vectors[name], rules[name].window, state.version) for name in vectors}
    if gate is None:
        tasks = {name: TaskState(vector, moved[name], state.version) for name, vector in vectors.items()}
    else:
        tasks = {
            name: _advance_task(state, name, vector, moved[name], evidence.get(name), _of_task(gate, state, name))
            for name, vector in vectors.items()
        }
    sources = {name: task.source for name, task in tasks.items()}
    production = state.version if sources != before.sources else before.production
    made = {name: task.vector for name, task in tasks.items()}
    means = {name: task.mean for name, task in tasks.items() if rules[name].window > 1 or task.mean != task.vector}
    return AggregationResult(
        ModelVersion(state.version, production, state.now, made, sources, means),
        tuple(task.trial for task in tasks.values() if task.trial),
        tuple(task.decision for task in tasks.values() if task.decision),
    )


def _of_task(gate: Gate, state: ModelState, name: str) -> Gate:
    """Return the gate of a task, which asks for more before the first promotion: a later version and more evidence.

    The few words of five aggregations may order tests worse than the start does (docs/decisions/0112, 0120).
    """
    if name in state.promoted:
        return gate
    return replace(gate, wrong_promotion=gate.first_wrong_promotion, distance=max(gate.distance, gate.first_distance))


def _advance_mean(before: ModelVersion, name: str, vector: Vector, window: int, version: int) -> Vector:
    """Return the mean that goes with a task's new vector: that vector where there is none, the old mean if it stays."""
    if window <= 1:
        return vector
    mean = before.means.get(name, before.vectors[name])
    if vector == before.vectors[name]:
        return mean
    return to_float_array(update_mean(to_numpy(mean), to_numpy(vector), version, window))


def _advance_task(
    state: ModelState, name: str, vector: Vector, mean: Vector, evidence: Evidence | None, gate: Gate
) -> TaskState:
    source = state.current.candidate.sources[name]
    production, trial = state.current.production[name], state.current.trials.get(name)
    if trial is None:
        return _begin_trial(state, name, vector, mean, source, production, gate)
    if evidence is None:
        return TaskState(vector, mean, source, trial)
    verdict = gate.decide(evidence, state.spent.get(name, 0.0))
    if verdict.outcome == "open":
        return TaskState(vector, mean, source, trial)
    decision = TrialOutcome(trial, verdict)
    if verdict.outcome == "promoted":
        source, production = trial.version, trial.vector
    elif verdict.outcome == "rejected" and state.now - state.last_restart(name) >= RESTART_SECONDS:
        # of the half that is lost most was noise; a damage is gone after a few rejections
        vector = mean = to_float_array(np.float32(0.5) * (to_numpy(production) + to_numpy(vector)))
        decision = TrialOutcome(trial, verdict, restarted=True)
    return _begin_trial(state, name, vector, mean, source, production, gate, decision)


def _begin_trial(
    state: ModelState,
    name: str,
    vector: Vector,
    mean: Vector,
    source: int,
    production: Vector,
    gate: Gate,
    decision: TrialOutcome | None = None,
) -> TaskState:
    """Return the task with the mean of its newest candidates on trial, unless production is hardly older than they.

    The loss is convex: a mean of candidates has no more than their mean loss, and less where one aggregation corrects
    what the last one did too much of (docs/decisions/0093). Candidates from before the task went back to its production
    do not count.

    One aggregation from zero moves the intercept, which lowers the loss, and the other weights in any direction: the
    first version that was promoted ordered some federations' tests worse than chance (docs/decisions/0087).
    """
    is_ready = mean != production and state.version - source >= gate.distance
    if not is_ready:
        return TaskState(vector, mean, source, None, decision)
    if mean == vector:  # the task has no mean of all its newest vectors
        restarted = state.now if decision and decision.restarted else state.last_restart(name)
        newest = (state.current.candidate, *state.earlier[:EARLIER])
        earlier = [
            older.vectors[name]
            for older in newest
            if older.version - source >= gate.distance and older.created >= restarted
        ]
        mean = to_float_array(np.array([to_numpy(values) for values in (vector, *earlier)]).mean(axis=0))
    return TaskState(vector, mean, source, Trial(name, state.version, source, state.now, mean), decision)


def aggregate_updates(
    candidate: ModelVersion,
    updates: Iterable[StoredUpdate],
    rules: Mapping[str, AggregationRules],
    compared: Comparisons = NO_COMPARISONS,
) -> Mapping[str, Vector]:
    """Return the vector of each task after these updates, whose order does not matter, less those of its opponents."""
    sent = sorted((_read(stored, candidate.version) for stored in updates), key=itemgetter(0))
    everyone = Contributors.of([contributor for contributor, _ in sent])
    deltas: dict[str, dict[int, FloatArray]] = {name: {} for name in candidate.vectors}
    for index, (contributor, parts) in enumerate(sent):
        for name, delta in parts.items():
            if not _is_of(contributor, compared.get(name, NO_COMPARISON).opponents):
                deltas[name][index] = to_numpy(delta)
    contributors = [contributor for contributor, _ in sent]
    return {
        name: to_float_array(
            aggregate_task(
                to_numpy(vector),
                deltas[name],
                everyone,
                _replace_proven(rules[name], contributors, compared.get(name, NO_COMPARISON)),
                compared.get(name, NO_COMPARISON).usual,
            )
        )
        for name, vector in candidate.vectors.items()
    }


def _replace_proven(
    rules: AggregationRules, contributors: Sequence[Contributor], comparison: Comparison
) -> AggregationRules:
    """Return the rules at a rate as if proven opponents had moved the task as far as each of the others.

    Otherwise they would slow down the learning of all by being left out. Of opponents by chance nothing is known.
    """
    if not comparison.proven:
        return rules
    kept = {(sender.owner, sender.project) for sender in contributors if not _is_of(sender, comparison.opponents)}
    left_out = {(sender.owner, sender.project) for sender in contributors if _is_of(sender, comparison.proven)}
    factor = 1.0 + len(left_out) / max(1, len(kept))
    return replace(rules, rate=rules.rate * min(factor, 1.0 / (1.0 - OPPOSED)))


def compare_sources(updates: Iterable[StoredUpdate], rules: Mapping[str, AggregationRules]) -> Comparisons:
    """Return by task what is usual, and the sources whose updates go against the common direction on average.

    One update hardly tells whether its source helps, because most of it is noise; the mean of many does. Of sources
    with two updates or more, those that are the least likely to be so by chance are opponents, at most `OPPOSED` of all
    sources. Sources are owners where enough are known, else projects.
    """
    deltas: dict[str, dict[Source, list[FloatArray]]] = {}
    sent = sorted(((stored.update(), stored.owner, stored.project) for stored in updates), key=_id_of)
    for update, owner, project in sent:  # in an order that does not depend on their arrival, as sums of floats do
        for name, delta in update.deltas.items():
            source = owner, project or update.project
            deltas.setdefault(name, {}).setdefault(source, []).append(to_numpy(delta))
    return {name: _compare(_merge_owners(of_task), rules[name]) for name, of_task in deltas.items()}


def _id_of(sent: tuple[Update, str, str]) -> str:
    return sent[0].id


def _merge_owners(deltas: Mapping[Source, list[FloatArray]]) -> Mapping[Source, list[FloatArray]]:
    if len({owner for owner, _ in deltas}) < OWNERS:
        return deltas
    merged: dict[Source, list[FloatArray]] = {}
    for (owner, _), given in deltas.items():
        merged.setdefault((owner, ""), []).extend(given)
    return merged


def _compare(deltas: Mapping[Source, list[FloatArray]], rules: AggregationRules) -> Comparison:
    sources = sorted(deltas)
    counts = np.array([len(deltas[source]) for source in sources])
    rows = np.concatenate([delta for source in sources for delta in deltas[source]]).reshape(counts.sum(), -1)
    starts = np.append(0, counts.cumsum()[:-1])
    usual = Usual(rows, starts, _weigh(sources, rules.projects_per_owner))
    most = int(OPPOSED * len(sources))
    if not most or counts.max() < 2:
        return Comparison(usual=usual)
    along = _project(usual)
    mean = np.add.reduceat(along, starts) / counts
    squares = np.add.reduceat((along - np.repeat(mean, counts)) ** 2, starts)
    error = np.sqrt(squares / np.maximum(1, counts - 1) / counts)
    errors_away = mean / np.maximum(TINY, error)
    against = np.flatnonzero((counts > 1) & (mean < 0.0))
    opponents = against[np.argsort(errors_away[against], kind="stable")][:most].tolist()
    proven = frozenset(sources[index] for index in opponents if errors_away[index] <= -PROVEN)
    return Comparison(frozenset(sources[index] for index in opponents), proven, usual)


def _weigh(sources: Sequence[Source], projects_per_owner: float) -> Floats:
    """Return how far each source counts: the projects of an owner together as far as in an aggregation."""
    known = Contributors.of([Contributor(0, owner, project, "") for owner, project in sources])
    shares, owners = GroupIndex.of(known.shares), GroupIndex.of(known.owners)
    return even_out(np.ones(len(sources)), shares, owners, owner_limit(known, projects_per_owner))


def _project(usual: Usual) -> Floats:
    """Return how far each of the newest deltas goes along the common direction of all sources.

    No delta is longer than usual, and each coordinate is in units of its root mean square: otherwise the few that every
    delta moves would hide what a source does to the many that are seldom moved.
    """
    rows, starts = usual.rows, usual.starts
    lengths = np.sqrt(np.vecdot(rows, rows))
    factors = np.minimum(1.0, usual.norm() / np.maximum(TINY, lengths)).astype(np.float32)
    sizes = np.sqrt(np.einsum("i,ij,ij->j", factors**2, rows, rows) / np.float32(len(rows)))
    sizes[sizes == 0.0] = 1.0
    # `reduceat` along the first axis takes ten times as long
    parts = zip(np.split(factors, starts[1:]), np.split(rows, starts[1:]), strict=True)
    means = np.array([np.einsum("i,ij->j", own, deltas) / len(own) for own, deltas in parts]) / sizes
    direction = _common_direction(means, usual.weights) / sizes
    along: Floats = (factors * np.vecdot(rows, direction)).astype(np.float64)
    return along


def _common_direction(means: FloatArray, weights: Floats) -> FloatArray:
    """Return the sum of the means of those sources with which most sources agree, none longer than the median.

    Two agree whose means have a positive inner product. A median of each coordinate would follow attackers that move
    all coordinates a little, because in none of them they differ from the others by more than the noise.
    """
    norms = np.linalg.norm(means, axis=1)
    means = means * np.minimum(1.0, np.median(norms) / np.maximum(norms, TINY))[:, np.newaxis]
    agreed = weighted_median(means @ means.T, weights) > 0.0
    direction: FloatArray = ((weights * agreed) @ means).astype(np.float32)
    return direction


def _is_of(sender: Contributor | TaskDelta | Evaluation, sources: Collection[Source]) -> bool:
    return (sender.owner, sender.project) in sources or (sender.owner, "") in sources


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


# Sums of updates, where no single update is known, as with secure aggregation and differential privacy.
@dataclass(frozen=True, slots=True)
class TaskSum:
    """The sum of the deltas of one task in steps of a grid, each of them `scale` times the task's bound.

    `senders` are the owner and project of each delta; empty where they must not be known.
    """

    steps: NDArray[np.int64]
    scale: float
    senders: Sequence[tuple[str, str]] = ()


def advance_by_sums(
    state: ModelState,
    sums: Mapping[str, TaskSum],
    evidence: Mapping[str, Evidence],
    rules: Mapping[str, AggregationRules],
    gate: Gate | None,
) -> AggregationResult:
    """Return the next version, each task moved by its sum, if it has one.

    From zero the first trial is no later than others: a sum has many updates, and may be all of a week.
    """
    vectors = {
        name: _add_sum(vector, sums[name], rules[name]) if name in sums else vector
        for name, vector in state.current.candidate.vectors.items()
    }
    of_sums = gate and replace(gate, distance=gate.sum_distance, first_distance=gate.sum_distance)
    return advance(state, vectors, evidence, rules, of_sums)


def _add_sum(vector: Vector, task_sum: TaskSum, rules: AggregationRules) -> Vector:
    """Return the vector after the sum, as after an aggregation of single updates that no cap has touched."""
    step = task_sum.steps.astype(np.float64) * (task_sum.scale * rules.clip)
    senders = ((owner or (project,), project) for owner, project in task_sum.senders)
    return to_float_array(apply_step(to_numpy(vector), step, scale_rate(rules, senders)))
