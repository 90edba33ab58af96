"""What the store keeps, as values: versions, updates, trials and how they ended."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Update, unpack_update
from fedstep.server.gate import Active, Verdict, Vote
from fedstep.server.gate_sums import Release

__all__ = ["Current", "Decision", "Made", "Moment", "Stored", "Trial", "Version"]


@dataclass(frozen=True, slots=True)
class Version:
    """One head, all its vectors, and what production was from then on.

    `production` is the version that it changed with last, `sources` the version that each of its heads comes from.
    """

    version: int
    production: int
    created: float
    vectors: Mapping[str, Vector]
    sources: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
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
    """A snapshot of one head: of which version, against the head of which version, since when."""

    head: str
    version: int
    against: int
    began: float  # seconds since 1970
    vector: Vector = field(repr=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """How a trial ended, and after a rejection whether head was folded again, and without how many of its sources."""

    trial: Trial
    verdict: Verdict
    refolded: bool = False
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Current:
    """What is served: the newest head, production by head, and the snapshots on trial."""

    head: Version
    production: Mapping[str, Vector]
    trials: Mapping[str, Trial]


@dataclass(frozen=True, slots=True)
class Moment:
    """All that the next version is made of.

    `since` gives the accepted updates that were folded after a version, in the order of their folds, as they are when
    it is called; `spent` is the margin gone by head, `refolded` when each head was last folded again. `noised` has what
    folds with differential privacy told of the open trials, by head. `unused` is the first number that no version of
    any schema has.
    """

    current: Current
    buffered: tuple[Stored, ...]
    votes: Mapping[str, tuple[Vote, ...]]
    active: Active
    spent: Mapping[str, float]
    refolded: Mapping[str, float]
    since: Callable[[int], Iterable[Stored]]
    now: float
    noised: Mapping[str, tuple[Release, ...]] = field(default_factory=dict)
    unused: int = 0

    @property
    def number(self) -> int:
        """The number of the next version: another schema's aggregator may have made versions on the same store."""
        return max(self.unused, self.current.head.version + 1)


@dataclass(frozen=True, slots=True)
class Made:
    """The next version, the trials that are open with it, those that ended, and noised votes by head."""

    version: Version
    trials: tuple[Trial, ...]
    decisions: tuple[Decision, ...]
    noised: Mapping[str, Release] = field(default_factory=dict)
