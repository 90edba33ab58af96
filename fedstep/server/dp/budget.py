"""Account for privacy: what a guarantee costs per release, and what each project has spent of it in the database.

One release in which a project takes part costs it 1 / (2 z^2) of zero-concentrated differential privacy (rho), z being
the noise in units of its bound; costs add up, without amplification: what a CI sends is no random sample (Bun and
Steinke, "Concentrated Differential Privacy", TCC 2016). dp-accounting turns sums of rho into (epsilon, delta) by Renyi
divergences; this is the one module that imports it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from sqlalchemy import Connection, delete, insert, select, update

from fedstep.errors import MissingExtra, UsageError
from fedstep.federation.messages import PrivacyGuarantee
from fedstep.server.gate import EvaluationSum
from fedstep.server.storage.tables import noisy_evaluations, privacy_spending, trials

MOST_EPSILON, MOST_DELTA, MOST_RELEASES, MOST_DAYS = 1000.0, 1e-3, 100_000, 1000.0
CLOSE = 1e-9  # relative, of the noise


@dataclass(frozen=True, slots=True)
class PrivacyBudget:
    """What keeps a guarantee: the noise of each release, in units of a project's bound, and what a release costs."""

    guarantee: PrivacyGuarantee
    multiplier: float

    @property
    def cost(self) -> float:
        """Return the cost of one release, in rho."""
        return 1.0 / (2.0 * self.multiplier**2)

    @property
    def most(self) -> float:
        """Return what a project may spend over its lifetime, in rho."""
        return self.guarantee.releases * self.cost

    def epsilon(self, rho: float) -> float:
        """Return the epsilon of so much rho at the delta of the guarantee."""
        return compute_epsilon(rho, self.guarantee.delta)


def calibrate_budget(guarantee: PrivacyGuarantee) -> PrivacyBudget:
    """Return the least noise that keeps a guarantee. Raise UsageError for one that cannot be kept, MissingExtra."""
    epsilon, delta, releases, days = guarantee
    if not (0 < epsilon <= MOST_EPSILON and 0 < delta <= MOST_DELTA):
        raise UsageError(
            f"no noise gives epsilon {epsilon:g} and delta {delta:g}", "Take ones like 8 and 0.000001 (at most 0.001)."
        )
    if not (1 <= releases <= MOST_RELEASES and 0 < days <= MOST_DAYS):
        raise UsageError(
            f"{releases} contributions, one in {days:g} days, are out of range", "Take ones like 52 and 7."
        )
    least, most = 1e-3, 1e7
    while most / least > 1.0 + CLOSE:
        middle = (least * most) ** 0.5
        least, most = (
            (least, middle) if compute_epsilon(releases / (2 * middle**2), delta) <= epsilon else (middle, most)
        )
    return PrivacyBudget(guarantee, most)


@cache
def compute_epsilon(rho: float, delta: float) -> float:
    """Return the epsilon at this delta of what costs so much rho; 0 for nothing. Raise MissingExtra."""
    try:
        from dp_accounting import ZCDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[server,privacy]'"
        raise MissingExtra(f"{error.name} is not installed", remedy) from error
    return float(RdpAccountant().compose(ZCDpEvent(rho)).get_epsilon(delta)) if rho else 0.0


ALL = ""  # the row of a project that would have taken part in every release
SLACK = 1e-9  # relative: what adding up floats may be off


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """The cost of a contribution, the most a project may spend over its lifetime (in rho), and a period (seconds)."""

    cost: float
    most: float
    seconds: float

    def refusal(self, rho: float, last: float, now: float) -> str:
        """Return why a project that spent `rho`, last at `last`, must not contribute now; "" where it may.

        >>> BudgetPolicy(0.5, 1.0, 60.0).refusal(1.0, 0.0, 999.0)
        'budget-spent'
        """
        if rho + self.cost > self.most * (1.0 + SLACK):
            return "budget-spent"
        return "already-contributed" if now // self.seconds <= last // self.seconds else ""


def charge_projects(
    connection: Connection, offers: Iterable[tuple[str, str, str]], policy: BudgetPolicy, now: float
) -> Mapping[str, str]:
    """Charge the projects of these offers (id, project, owner); return by id why some of them are refused."""
    refused: dict[str, str] = {}
    for update_id, project, owner in sorted(offers):
        key = _spending_key(project, owner)
        # earlier versions named rows by the project alone: what was spent then stays spent
        query = select(privacy_spending).where(privacy_spending.c.project.in_((key, project))).with_for_update()
        rows = {row.project: row for row in connection.execute(query)}
        rho, last = sum(row.rho for row in rows.values()), max((row.last for row in rows.values()), default=0.0)
        reason = policy.refusal(rho, last, now) if rows else ""
        if reason:
            refused[update_id] = reason
        else:
            _charge(connection, key, rows[key].rho if key in rows else None, policy.cost, now)
    return refused


def total_spending(connection: Connection) -> float:
    """Return the rho of all releases so far: no project can have spent more."""
    return connection.scalar(select(privacy_spending.c.rho).where(privacy_spending.c.project == ALL)) or 0.0


def load_noisy_sums(connection: Connection, schema: str) -> Mapping[str, tuple[EvaluationSum, ...]]:
    """Return the sums of evaluations released so far for each open trial, by task, the newest last."""
    sums: dict[str, tuple[EvaluationSum, ...]] = {}
    same_schema = (noisy_evaluations.c.schema == schema) & (noisy_evaluations.c.schema == trials.c.schema)
    query = select(noisy_evaluations).join(
        trials,
        same_schema & (noisy_evaluations.c.task == trials.c.task) & (noisy_evaluations.c.trial == trials.c.version),
    )
    for row in connection.execute(query.order_by(noisy_evaluations.c.id)):
        sums[row.task] = (*sums.get(row.task, ()), EvaluationSum(row.evaluations, row.total, row.noise_variance))
    return sums


def record_release(
    connection: Connection,
    schema: str,
    sums: Mapping[str, EvaluationSum],
    on_trial: Mapping[str, int],
    cost: float,
    now: float,
) -> None:
    """Store the sums of evaluations of one release, before it ends any trial, and charge the release."""
    rows: Sequence[Mapping[str, object]] = [
        {
            "schema": schema,
            "task": task,
            "trial": on_trial[task],
            "evaluations": release.count,
            "total": release.total,
            "noise_variance": release.noise_variance,
        }
        for task, release in sorted(sums.items())
    ]
    others = ~noisy_evaluations.c.trial.in_(on_trial.values())
    connection.execute(delete(noisy_evaluations).where(noisy_evaluations.c.schema == schema, others))
    if rows:
        connection.execute(insert(noisy_evaluations), rows)
    rho = connection.scalar(select(privacy_spending.c.rho).where(privacy_spending.c.project == ALL))
    _charge(connection, ALL, rho, cost, now)


def _spending_key(project: str, owner: str) -> str:
    """Return the key of an owner's project: anybody may claim the pseudonym of a project that no identity names."""
    return sha256(f"{project} {owner}".encode()).hexdigest()[:32]


def _charge(connection: Connection, project: str, rho: float | None, cost: float, now: float) -> None:
    if rho is None:
        connection.execute(insert(privacy_spending).values(project=project, rho=cost, last=now))
    else:
        connection.execute(
            update(privacy_spending).where(privacy_spending.c.project == project).values(rho=rho + cost, last=now)
        )
