"""What the store keeps, as values: versions, updates, trials and how they ended."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fedstep.federation.messages import Update, unpack_update
from fedstep.federation.tensors import Vector
from fedstep.server.gate import ActiveCounts, Evaluation, EvaluationSum, Verdict


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One task, all its vectors, and what production was from then on.

    `production` is the version that it changed with last, `sources` the version that each of its tasks comes from.
    """

    version: int
    production: int
    created: float
    vectors: Mapping[str, Vector]
    sources: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredUpdate:
    """An accepted update: its bytes, who answers for it, and the version it went into (the one being made: -1).

    `project` is the identity's where the sender has one: what an update claims of itself is capped with it. `known` is
    what the bytes say, where they were read before; then they need not be here.
    """

    body: bytes
    owner: str = ""
    folded: int = -1
    project: str = ""
    known: Update | None = field(default=None, compare=False, repr=False)

    def update(self) -> Update:
        """What the bytes say. Raises WireError."""
        return self.known or unpack_update(self.body)


@dataclass(frozen=True, slots=True)
class Trial:
    """A snapshot of one task: of which version, against the task of which version, since when."""

    task: str
    version: int
    against: int
    began: float  # seconds since 1970
    vector: Vector = field(repr=False)


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended, and after a rejection whether task was folded again, and without how many of its sources."""

    trial: Trial
    verdict: Verdict
    refolded: bool = False
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class CurrentModels:
    """What is served: the candidate, production by task, and the snapshots on trial."""

    candidate: ModelVersion
    production: Mapping[str, Vector]
    trials: Mapping[str, Trial]


@dataclass(frozen=True, slots=True)
class AggregationInput:
    """All that the next version is made of.

    `since` gives the accepted updates that were folded after a version, in the order of their folds, as they are when
    it is called; `spent` is the margin gone by task, `refolded` when each task was last folded again. `noised` has what
    folds with differential privacy told of the open trials, by task. `unused` is the first number that no version of
    any schema has.
    """

    current: CurrentModels
    buffered: tuple[StoredUpdate, ...]
    votes: Mapping[str, tuple[Evaluation, ...]]
    active: ActiveCounts
    spent: Mapping[str, float]
    refolded: Mapping[str, float]
    since: Callable[[int], Iterable[StoredUpdate]]
    now: float
    noised: Mapping[str, tuple[EvaluationSum, ...]] = field(default_factory=dict)
    unused: int = 0

    @property
    def number(self) -> int:
        """The number of the next version: another schema's aggregator may have made versions on the same store."""
        return max(self.unused, self.current.candidate.version + 1)


@dataclass(frozen=True, slots=True)
class AggregationResult:
    """The next version, the trials that are open with it, those that ended, and noised votes by task."""

    version: ModelVersion
    trials: tuple[Trial, ...]
    decisions: tuple[TrialOutcome, ...]
    noised: Mapping[str, EvaluationSum] = field(default_factory=dict)
