"""The values that an aggregation reads and writes: versions, updates, trials and how they ended."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from fedstep.federation.messages import Update, Vector, unpack_update
from fedstep.server.gate import EvaluationSum, Evidence, Verdict


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of the model, with the vectors of all tasks.

    `production` is the version that production changed with last, `sources` the version that each task of production
    comes from; `created` is in seconds since 1970. `means` has those of the newest vectors that went
    on trial in place of the last one, or will.
    """

    version: int
    production: int
    created: float
    vectors: Mapping[str, Vector]
    sources: Mapping[str, int] = field(default_factory=dict)
    means: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredUpdate:
    """An accepted update: its bytes, its owner, and the version it was aggregated into (-1: the one being made).

    `project` is the identity's where the sender has one: what an update claims of itself is capped with it. `known` is
    the parsed update where the bytes were read before; then `body` may be empty.
    """

    body: bytes
    owner: str = ""
    version: int = -1
    project: str = ""
    known: Update | None = field(default=None, compare=False, repr=False)

    def update(self) -> Update:
        """Return the parsed update. Raise WireError."""
        return self.known or unpack_update(self.body)


@dataclass(frozen=True, slots=True)
class Trial:
    """The trial of a version of one task: its number, the version of production it is compared with, and its begin."""

    task: str
    version: int
    against: int
    began: float  # seconds since 1970
    vector: Vector = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended, and after a rejection whether the task went halfway back to its production."""

    trial: Trial
    verdict: Verdict
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class CurrentModels:
    """What is served: the candidate, the production vector of each task, and the open trials by task.

    `lineage` is the id of the store that all of it is from; "" outside of a store.
    """

    candidate: ModelVersion
    production: Mapping[str, Vector]
    trials: Mapping[str, Trial]
    lineage: str = ""


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state that the next version follows.

    `version` is its number: the first one that no version of any schema has, for another schema's aggregator may write
    to the same store. `spent` is the margin used up by task, `restarted` when each task last went back; times are in
    seconds since 1970. `earlier` has the candidates before the current one, the newest first, as far as they are read.
    `promoted` has the tasks of which a version was ever promoted.
    """

    current: CurrentModels
    version: int
    spent: Mapping[str, float]
    restarted: Mapping[str, float]
    now: float
    earlier: Sequence[ModelVersion] = field(default=(), kw_only=True)
    promoted: Collection[str] = field(default=(), kw_only=True)

    def last_restart(self, task: str) -> float:
        """Return when the task last went back to its production; -inf for never, or for a clock that was ahead."""
        restarted = self.restarted.get(task, -inf)
        return restarted if restarted <= self.now else -inf


@dataclass(frozen=True, slots=True)
class AggregationInput(ModelState):
    """The state, the updates to aggregate, and the evidence on the open trials by task.

    `recent` returns the newest ones that were aggregated, in any order.
    """

    buffered: tuple[StoredUpdate, ...]
    evidence: Mapping[str, Evidence]
    recent: Callable[[], Iterable[StoredUpdate]] = tuple


@dataclass(frozen=True, slots=True)
class AggregationResult:
    """The next version, the trials that are open with it, those that ended, and sums of evaluations by task, if any.

    `opposed` is how many sources were left out of each task, because they go against all others.
    """

    version: ModelVersion
    trials: tuple[Trial, ...]
    decisions: tuple[TrialOutcome, ...]
    releases: Mapping[str, EvaluationSum] = field(default_factory=dict)
    opposed: Mapping[str, int] = field(default_factory=dict)
