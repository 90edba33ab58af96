"""When an aggregator aggregates buffered updates, and how: other modes extend the plain one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, select

from fedstep.errors import UsageError
from fedstep.federation.messages import NO_PROMISE, PrivacyGuarantee
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, AggregationResult
from fedstep.server.aggregation.step import next_version
from fedstep.server.gate import ActiveCounts, Evidence, Gate, UpdateEvaluations
from fedstep.server.storage.tables import privacy_spending
from fedstep.server.storage.trial_repository import TrialRepository

HURRIED = 40  # versions; with one per minute for the time that updates wait, an hour has no more than `staleness`
HOUR = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class BufferPolicy:
    """Aggregate after `updates`, or after `seconds`, and never before the buffer has updates of `projects` projects.

    An aggregation of one project's updates would reveal them to the next client that pulls; among `projects` they are
    mixed. An update learned from a candidate more than `staleness` versions ago is refused. With a `period` (seconds,
    counted from 1970) the updates of one period are aggregated in the next, however many they are: the calendar does
    not depend on which projects contributed.

    Where more than `HURRIED` versions were made within an hour, only time makes the next one due, or one sender that is
    in a hurry would make the updates of all others stale.
    """

    updates: int = 10
    seconds: float = 60.0
    projects: int = 1
    staleness: int = 100
    period: float = 0.0


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """The numbers of updates and of distinct projects in the buffer, and when the oldest came (seconds since 1970).

    `calm` is when there were no more than `HURRIED` versions in an hour.
    """

    updates: int
    projects: int
    oldest: float
    calm: float = 0.0


def is_due(pending: BufferStatus, now: float, policy: BufferPolicy) -> bool:
    """Return whether to aggregate now.

    >>> is_due(BufferStatus(updates=3, projects=2, oldest=0.0), 60.0, BufferPolicy(seconds=60.0, projects=2))
    True
    """
    if not pending.updates or pending.projects < policy.projects:
        return False
    if policy.period:
        return now // policy.period > pending.oldest // policy.period
    enough = pending.updates >= policy.updates and now >= pending.calm
    return enough or now - pending.oldest >= policy.seconds


def updates_needed(pending: BufferStatus, policy: BufferPolicy) -> int:
    """Return how many more updates are enough at the earliest; until then only time can make an aggregation due.

    >>> updates_needed(BufferStatus(updates=9, projects=1, oldest=0.0), BufferPolicy(updates=10, projects=3))
    2
    """
    return max(policy.updates - pending.updates, policy.projects - pending.projects, 0)


class ContributionTerms(NamedTuple):
    """The requirements of each served model for contributing clients; the fields are those of `Model`."""

    promise: PrivacyGuarantee = NO_PROMISE
    shares: int = 0
    noise: float = 0.0


class AggregationMode:
    """The plain mode: whole updates, aggregated as they are. Its methods are what another mode may do otherwise.

    Those with a connection run inside a transaction of the store.
    """

    terms = ContributionTerms()
    discreet = False  # True: nothing is published that depends on which projects take part

    def buffer_policy(self, policy: BufferPolicy) -> BufferPolicy:
        """Return when the buffer is aggregated."""
        return policy

    def aggregate(
        self, given: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None
    ) -> AggregationResult:
        """Return the next version."""
        return next_version(given, rules, gate)

    def check_store(self, connection: Connection) -> None:
        """Raise UsageError where the store has updates that were sent under a guarantee this mode does not give."""
        if connection.scalar(select(select(privacy_spending).exists())):
            raise UsageError(
                "the store has updates that were sent under a promise of differential privacy, and none is given now",
                "Give --privacy-epsilon and its other options as before, or another --store.",
            )

    def decline(self, connection: Connection, offers: Iterable[tuple[str, str, str]], now: float) -> Mapping[str, str]:
        """Return which of these new updates (id, project, owner) must not be stored: the reason by id."""
        del connection, offers, now
        return {}

    def evidence(self, connection: Connection, schema: str, active: ActiveCounts) -> Mapping[str, Evidence]:
        """Return the evidence on the open trials by task."""
        evaluations = TrialRepository(connection, schema).evaluations()
        return {task: UpdateEvaluations(cast, active) for task, cast in evaluations.items()}

    def record(self, connection: Connection, schema: str, result: AggregationResult, now: float) -> None:
        """Store what an aggregation released beside its version, before that ends any trial."""


PLAIN = AggregationMode()
