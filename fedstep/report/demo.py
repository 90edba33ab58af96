"""What the demonstration saw, build by build, and how good the predictions were."""

from dataclasses import dataclass

from fedstep.build.record import Absent, BuildOutcome
from fedstep.report.findings import Interval, TestRisk

__all__ = ["EVEN", "Accuracy", "Demo", "DemoBuild", "DemoProject", "DemoTest", "Federation", "accuracy"]

EVEN = (0.995, 1.005)  # ratios in between are shown as 1.00 and count for nobody


@dataclass(frozen=True, slots=True)
class DemoBuild:
    """One build: how long it took and what was expected before it ran."""

    number: int
    seconds: float
    expected: Interval | Absent
    outcome: BuildOutcome


@dataclass(frozen=True, slots=True)
class DemoTest:
    """A test that was called likely to flake at some point of the replay, and whether it did after that."""

    risk: TestRisk
    flaked: bool | Absent  # Absent: it did not run again


@dataclass(frozen=True, slots=True)
class DemoProject:
    """One participant; a project may have recorded builds, recorded tests, or both."""

    name: str
    builds: tuple[DemoBuild, ...] = ()
    tests: tuple[DemoTest, ...] = ()  # most likely first
    source: str = ""  # where the recording is from, and its licence


@dataclass(frozen=True, slots=True)
class Federation:
    """What crossed the wire. `sizes` holds the bytes of each update; names and source are not among them."""

    sizes: tuple[int, ...] = ()
    versions: int = 0  # of head, made from these updates
    production: int = 0  # the version everyone predicts with at the end
    participants: int = 0


@dataclass(frozen=True, slots=True)
class Demo:
    """Everything the demonstration's page shows."""

    projects: tuple[DemoProject, ...]
    federation: Federation
    seconds: float = 0.0  # wall time of the demonstration
    made_with: str = ""  # "fedstep 0.1.0"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How expected and actual times of the same builds compare, over those that both could predict."""

    builds: int
    mean_error: float  # seconds, absolute
    jenkins_mean_error: float  # seconds, absolute
    coverage: float  # share of these builds inside their interval

    @property
    def ratio(self) -> float:
        """fedstep's mean error as a share of Jenkins'; 1.0 where Jenkins makes none."""
        return self.mean_error / self.jenkins_mean_error if self.jenkins_mean_error else 1.0


def accuracy(builds: tuple[DemoBuild, ...]) -> Accuracy | Absent:
    """The comparison over the builds that had both estimates before they ran."""
    pairs = [
        (build.seconds, build.expected, build.expected.jenkins_seconds)
        for build in builds
        if isinstance(build.expected, Interval) and not isinstance(build.expected.jenkins_seconds, Absent)
    ]
    if not pairs:
        return Absent("no build with both estimates")
    return Accuracy(
        builds=len(pairs),
        mean_error=sum(abs(seconds - expected.seconds) for seconds, expected, _ in pairs) / len(pairs),
        jenkins_mean_error=sum(abs(seconds - jenkins) for seconds, _, jenkins in pairs) / len(pairs),
        coverage=sum(expected.low <= seconds <= expected.high for seconds, expected, _ in pairs) / len(pairs),
    )
