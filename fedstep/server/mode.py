"""Define how an aggregator accepts updates and makes versions of them; other modes extend the plain one."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select

from fedstep.errors import UsageError
from fedstep.federation.messages import NO_PROMISE, PrivacyGuarantee
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, AggregationResult
from fedstep.server.aggregation.policy import BufferPolicy
from fedstep.server.aggregation.step import next_version
from fedstep.server.gate import ActiveCounts, Evidence, Gate, UpdateEvaluations
from fedstep.server.storage.tables import privacy_spending
from fedstep.server.storage.trial_repository import TrialRepository


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
