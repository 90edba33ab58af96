"""From one version to the next: where a lineage starts, how updates become its next task, and how they do again."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from math import ceil
from operator import itemgetter
from typing import TypeAlias

import numpy as np

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.messages import SchemaShape, check_model, unpack_model
from fedstep.federation.tensors import Vector
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import AggregationRules, Contribution, aggregate, aggregate_task, clip_delta
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    AggregationResult,
    CurrentModels,
    ModelVersion,
    StoredUpdate,
    Trial,
    TrialOutcome,
)
from fedstep.server.aggregation.vectors import Contributor, Contributors, FloatArray, staleness_weight
from fedstep.server.aggregation.vectors import FloatArray as FloatVector
from fedstep.server.gate import Gate, Verdict, judge_trial


def starting_vectors(starter: bytes, shape: SchemaShape) -> Mapping[str, Vector]:
    """The task of a starter model; what the schema starts with where there is none, or one of another schema."""
    try:
        model = unpack_model(starter)
        check_model(model, shape)
    except (WireError, SchemaMismatch):
        ours = schema()
        return {
            name: ours.tasks[name].start() if shape.digest == ours.digest else zeros(size)
            for name, size in shape.sizes.items()
        }
    return model.candidate


def next_task(
    task: ModelVersion, bodies: Iterable[bytes], rules: Mapping[str, AggregationRules]
) -> Mapping[str, Vector]:
    """The vectors after the updates in `bodies`, in whatever order they come, from owners that are not known."""
    return fold_stored(task, map(StoredUpdate, bodies), rules)


def fold_stored(
    task: ModelVersion, updates: Iterable[StoredUpdate], rules: Mapping[str, AggregationRules]
) -> Mapping[str, Vector]:
    """The vectors after these updates, in whatever order they come."""
    sent = sorted((_sent(stored, task.version) for stored in updates), key=itemgetter(0))
    everyone = Contributors.of([sender for sender, _ in sent])
    deltas: dict[str, dict[int, FloatVector]] = {name: {} for name in task.vectors}
    for place, (_, parts) in enumerate(sent):
        for name, delta in parts.items():
            deltas[name][place] = to_numpy(delta)
    return {
        name: to_float_array(aggregate_task(to_numpy(vector), deltas[name], everyone, rules[name]))
        for name, vector in task.vectors.items()
    }


def fold_again(
    name: str,
    start: Vector,
    updates: Iterable[StoredUpdate],
    version: int,
    rules: AggregationRules,
    without: Collection[str],
) -> Vector:
    """One task after the same folds from another start, less the projects and owners in `without`.

    The updates come in the order of their folds, those of the fold that makes `version` last; one fold is in memory.
    """
    vector = to_numpy(start)
    for fold, generation in groupby(updates, lambda stored: stored.folded):
        base = (version if fold < 0 else fold) - 1
        found = (pair for stored in generation for pair in contributions(stored, base))
        kept = [part for task, part in found if task == name and not {part.project, part.owner} & set(without)]
        vector = aggregate(vector, kept, rules)
    return to_float_array(vector)


def contributions(stored: StoredUpdate, version: int) -> Iterator[tuple[str, Contribution]]:
    """What an update adds to each of its tasks when it is folded into `version`."""
    sender, parts = _sent(stored, version)
    for name, delta in parts.items():
        yield name, Contribution(sender.id, sender.project, sender.staleness, to_numpy(delta), sender.owner)


def _sent(stored: StoredUpdate, version: int) -> tuple[Contributor, Mapping[str, Vector]]:
    """Whose it is, and its deltas by task."""
    update = stored.update()
    sender = Contributor(version - update.base, stored.owner, stored.project or update.project, update.id)
    return sender, update.deltas


def to_numpy(vector: Vector) -> FloatVector:
    """The same numbers for numpy, not copied."""
    return np.frombuffer(vector, dtype=np.float32)


def to_float_array(vector: FloatVector) -> Vector:
    """The same numbers for the wire."""
    found = zeros(0)
    found.frombytes(vector.astype(np.float32).tobytes())
    return found


def suspects(
    parts: Iterable[Contribution], damage: FloatArray, bound: float, share: float, owners: int
) -> frozenset[str]:
    """The share of senders, rounded up, whose clipped deltas together went furthest along `damage`.

    Senders are owners where there are at least `owners` of them, else projects. Nobody who went the other way is one.
    """
    by_owner: dict[str, float] = {}
    by_project: dict[str, float] = {}
    direction = damage.astype(float)
    for part in parts:
        along = staleness_weight(part.staleness) * float(clip_delta(part.delta, bound) @ direction)
        by_owner[part.owner] = by_owner.get(part.owner, 0.0) + along
        by_project[part.project] = by_project.get(part.project, 0.0) + along
    senders = by_owner if len(by_owner) >= owners else by_project
    worst = sorted(senders, key=lambda sender: (-senders[sender], sender))[: ceil(share * len(senders))]
    return frozenset(sender for sender in worst if senders[sender] > 0.0)


# What a task that is sent back after its trial starts from, and without how many of its sources.
Again: TypeAlias = Callable[[Trial], tuple[Vector, int]]

REFOLD_SECONDS = 86_400.0  # a task goes back once in this time, or rejections could be used to stop the learning


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task after the fold: its vector, the version its production is from, its open trial, the one that ended."""

    vector: Vector
    source: int
    trial: Trial | None = None
    decision: TrialOutcome | None = None


@dataclass(frozen=True, slots=True)
class VersionBuilder:
    """The version to come: what it follows, its number, which no version of any schema has yet, and when it is made.

    `refolded` has when a rejection last sent each task back, in seconds since 1970.
    """

    current: CurrentModels
    number: int
    now: float
    refolded: Mapping[str, float]

    @property
    def before(self) -> ModelVersion:
        """The candidate."""
        return self.current.candidate

    def judged(self, name: str, vector: Vector, verdict: Verdict, again: Again) -> TaskState:
        """The task after this verdict on its trial; where it has none it begins one."""
        trial, source = self.current.trials.get(name), self.before.sources[name]
        production = self.current.production[name]
        if trial is None:
            return self._on_trial(name, vector, source, production)
        if verdict.outcome == "open":
            return TaskState(vector, source, trial)
        decision = TrialOutcome(trial, verdict)
        if verdict.outcome == "promoted":
            source, production = trial.version, trial.vector
        elif verdict.outcome == "rejected" and self.now - self.refolded.get(name, -REFOLD_SECONDS) >= REFOLD_SECONDS:
            vector, left_out = again(trial)
            decision = TrialOutcome(trial, verdict, refolded=True, left_out=left_out)
        return self._on_trial(name, vector, source, production, decision)

    def made(self, tracks: Mapping[str, TaskState]) -> AggregationResult:
        """The version of these tasks; production is new with it where any task's is."""
        sources = {name: track.source for name, track in tracks.items()}
        production = self.number if sources != self.before.sources else self.before.production
        tasks = {name: track.vector for name, track in tracks.items()}
        return AggregationResult(
            ModelVersion(self.number, production, self.now, tasks, sources),
            tuple(track.trial for track in tracks.values() if track.trial),
            tuple(track.decision for track in tracks.values() if track.decision),
        )

    def _on_trial(
        self, name: str, vector: Vector, source: int, production: Vector, decision: TrialOutcome | None = None
    ) -> TaskState:
        """The candidate on trial, unless it is what production is."""
        if vector == production:
            return TaskState(vector, source, None, decision)
        return TaskState(vector, source, Trial(name, self.number, source, self.now, vector), decision)


def next_version(
    moment: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None
) -> AggregationResult:
    """The next version, each task judged on its own. Without a gate production is always the candidate."""
    birth = VersionBuilder(moment.current, moment.number, moment.now, moment.refolded)
    vectors = fold_stored(birth.before, moment.buffered, rules)
    tracks = {
        name: _track(moment, birth, name, vector, rules[name], gate) if gate else TaskState(vector, birth.number)
        for name, vector in vectors.items()
    }
    return birth.made(tracks)


def _track(
    moment: AggregationInput, birth: VersionBuilder, name: str, vector: Vector, rules: AggregationRules, gate: Gate
) -> TaskState:
    verdict = judge_trial(moment.votes.get(name, ()), moment.active, moment.spent.get(name, 0.0), gate)
    return birth.judged(name, vector, verdict, lambda trial: _folded_again(moment, trial, rules, gate))


def _folded_again(moment: AggregationInput, trial: Trial, rules: AggregationRules, gate: Gate) -> tuple[Vector, int]:
    """Task folded again from production without the suspects, and how many those are."""
    production, number = moment.current.production[trial.task], moment.number
    damage = to_numpy(trial.vector) - to_numpy(production)
    parts = _parts(trial.task, _all_since(moment, trial.against), number)
    without = suspects(parts, damage, rules.clip, gate.liars, gate.voters)
    again = fold_again(trial.task, production, _all_since(moment, trial.against), number, rules, without)
    return again, len(without)


def _all_since(moment: AggregationInput, version: int) -> Iterable[StoredUpdate]:
    return chain(moment.since(version), moment.buffered)


def _parts(name: str, updates: Iterable[StoredUpdate], number: int) -> Iterable[Contribution]:
    for stored in updates:
        base = (number if stored.folded < 0 else stored.folded) - 1
        yield from (part for task, part in contributions(stored, base) if task == name)


log = logging.getLogger("fedstep.server")


def log_verdicts(decisions: Iterable[TrialOutcome]) -> None:
    """One line a verdict. To be called once they are on disk: a fold that fails comes to them again."""
    for decision in decisions:
        trial, verdict = decision.trial, decision.verdict
        figures = verdict.figures()
        fields = {"head": trial.task, "trial": trial.version, "outcome": verdict.outcome, **figures}
        said = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        log.info("trial of %s %d: %s (%s)", trial.task, trial.version, verdict.outcome, said, extra={"fields": fields})
