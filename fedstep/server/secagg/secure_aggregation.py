"""Aggregate sums of shares: the mode in which no aggregator sees the update of a single project."""

from dataclasses import replace

from sqlalchemy import Connection, Subquery, func, select

from fedstep.federation.messages import NOISE
from fedstep.federation.transport import Transport, requests_transport
from fedstep.server.dashboard.snapshot import DashboardSnapshot, days, decide_all, volumes
from fedstep.server.gate import ActiveCounts, Gate
from fedstep.server.mode import AggregationMode, ContributionTerms
from fedstep.server.secagg.leader import Leader, SumPolicy, released_scores
from fedstep.server.secagg.rounds import check_helper_url, check_secret
from fedstep.server.secagg.share_store import count_pending, shares
from fedstep.server.settings import ModeContext
from fedstep.server.storage.trial_repository import ACTIVE_SECONDS


class SecureAggregation(AggregationMode):
    """Shares instead of whole updates: this aggregator and its helper learn nothing but sums over many projects."""

    def __init__(
        self,
        helper: str,
        secret: str,
        min_projects: int = 5,
        noise: float = NOISE,
        transport: Transport | None = None,
    ) -> None:
        """Sum shares of at least `min_projects` projects with the help of the aggregator at the URL `helper`.

        `noise` is the standard deviation of noise in such a sum, in units of each task's bound; `transport` reaches the
        helper. Raise UsageError for a secret or URL that cannot be used.
        """
        check_secret("leader", secret)
        check_helper_url(helper)
        self.policy = SumPolicy(transport or requests_transport(helper, secret), secret, min_projects, noise)
        self.terms = ContributionTerms(shares=min_projects, noise=noise)

    def create_service(self, context: ModeContext) -> Leader:
        """Return the routes that take shares, and the rounds."""
        return Leader(context, self.policy)

    def adjust_dashboard(
        self, snapshot: DashboardSnapshot, connection: Connection, schema: str, gate: Gate | None, now: float
    ) -> DashboardSnapshot:
        """Show the shares that wait and who sent them; a verdict counts sums of scores, for single ones are unknown."""
        scores = released_scores(connection, schema, snapshot.current)
        released = {task: evidence for task, evidence in scores.items() if evidence.sums}
        return replace(
            snapshot,
            pending=count_pending(connection, schema),
            active=_active(connection, schema, now),
            standing=decide_all(gate, released, snapshot.spent),
            days=days(connection, _sent(), schema, now),
            volumes=volumes(connection, _sent(), schema, now),
        )


def _active(connection: Connection, schema: str, now: float) -> ActiveCounts:
    counts = select(func.count(func.distinct(shares.c.project)), func.count(func.distinct(shares.c.owner)))
    recent = (shares.c.schema == schema) & (shares.c.received > now - ACTIVE_SECONDS) & (shares.c.project != "")
    projects, owners = connection.execute(counts.where(recent)).one()
    return ActiveCounts(projects, owners)


def _sent() -> Subquery:
    """Return one row per update, as the table of whole updates has; without those of projects that were erased."""
    columns = shares.c.id, shares.c.schema, shares.c.project, shares.c.received
    return select(*columns).where(shares.c.project != "").distinct().subquery()
