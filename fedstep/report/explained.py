"""Why a test is likely to flake, or is not, as values."""

from dataclasses import dataclass

from fedstep.build.record import Absent
from fedstep.report.findings import ModelUsed

__all__ = ["METALS", "Contribution", "Explained", "SeenRun", "WhatIf"]

METALS = {"g": "gold", "s": "silver"}


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One run of the test, as the log has it."""

    finished_at: float  # seconds since the epoch
    outcome: str  # a letter of `Outcome`
    seconds: float  # NO_SECONDS where no report gave a time
    metal: str = "-"  # g: revealed as a gold flip, s: silver, -: neither
    branch: str = ""
    commit: str = ""
    failure_type: str = ""
    incident: bool = False  # it failed with so many others that it is no evidence


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature adds to the margin: by the shared weights, and by what this project learned on top."""

    feature: str
    value: str
    shared: float
    local: float

    @property
    def total(self) -> float:
        """Both together, in log-odds."""
        return self.shared + self.local


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A single change, the probability that the model would give then, and whether it would be likely to flake."""

    says: str
    probability: float
    named: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """One test: its past, its probability to flake within its next runs, where that comes from, what would change it.

    `raw` is the probability before calibration: the sigmoid of the margin, which is the sum of all contributions.
    """

    test: str
    probability: float
    raw: float
    threshold: float  # from this probability on a test is called likely to flake
    horizon: int  # runs
    recently: bool  # False: it did not run lately and is not named, whatever its probability
    slope: float
    offset: float
    contributions: tuple[Contribution, ...]  # of shared features, the largest first
    private: tuple[Contribution, ...]  # of the test itself and its class: never shared
    changes: tuple[WhatIf, ...]
    runs: tuple[SeenRun, ...]  # oldest first, as far as the log has them
    runs_known: int
    failures: int
    flips: int
    typical_seconds: float | Absent
    model: ModelUsed
    warnings: tuple[str, ...] = ()
    former: str = ""  # its id before a rename: older runs have that

    @property
    def named(self) -> bool:
        """Whether it is likely to flake: `predict` names the ten that are most so."""
        return self.recently and self.probability >= self.threshold
