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
    """A promise in the currency of releases: the noise in units of a project's bound, and what one release costs."""

    promise: PrivacyGuarantee
    multiplier: float

    @property
    def cost(self) -> float:
        """Of one release, in zCDP's rho."""
        return 1.0 / (2.0 * self.multiplier**2)

    @property
    def most(self) -> float:
        """What a project may spend in its life."""
        return self.promise.releases * self.cost

    def epsilon(self, rho: float) -> float:
        """The epsilon of so much rho at the promised delta."""
        return compute_epsilon(rho, self.promise.delta)


def calibrate_budget(promise: PrivacyGuarantee) -> PrivacyBudget:
    """The least noise that keeps the promise. Raises UsageError for one that cannot be, MissingExtra."""
    epsilon, delta, releases, days = promise
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
    return PrivacyBudget(promise, most)


@cache
def compute_epsilon(rho: float, delta: float) -> float:
    """The epsilon at this delta of what costs so much zCDP; 0 for nothing. Raises MissingExtra."""
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
    """What one contribution costs, what a project may spend in its life (both in rho), seconds of a period.

    All zero: nothing is counted.
    """

    cost: float = 0.0
    most: float = 0.0
    seconds: float = 0.0

    def refusal(self, rho: float, last: float, now: float) -> str:
        """Why a project that spent `rho`, lastly at `last`, contributes nothing now; "" where it may.

        >>> BudgetPolicy(0.5, 1.0, 60.0).refusal(1.0, 0.0, 999.0)
        'budget-spent'
        """
        if rho + self.cost > self.most * (1.0 + SLACK):
            return "budget-spent"
        return "already-contributed" if now // self.seconds <= last // self.seconds else ""


def charge_projects(
    connection: Connection, offers: Iterable[tuple[str, str, str]], purse: BudgetPolicy, now: float
) -> Mapping[str, str]:
    """Charges the projects of these offers (id, project, owner); why some of them must not be taken, by id."""
    refused: dict[str, str] = {}
    for number, project, owner in sorted(offers):
        row = _row_of(project, owner)
        # before rows were apart by owner they were named by the project alone: what it spent then is spent
        query = select(privacy_spending).where(privacy_spending.c.project.in_((row, project))).with_for_update()
        found = {one.project: one for one in connection.execute(query)}
        rho, last = sum(one.rho for one in found.values()), max((one.last for one in found.values()), default=0.0)
        reason = purse.refusal(rho, last, now) if found else ""
        if reason:
            refused[number] = reason
        else:
            _charge(connection, row, found[row].rho if row in found else None, purse.cost, now)
    return refused


def total_spending(connection: Connection) -> float:
    """The rho of all releases there were: no project can have spent more."""
    return connection.scalar(select(privacy_spending.c.rho).where(privacy_spending.c.project == ALL)) or 0.0


def load_noisy_sums(connection: Connection, schema: str) -> Mapping[str, tuple[EvaluationSum, ...]]:
    """What the folds so far told of the open trials, by task, the newest last."""
    found: dict[str, tuple[EvaluationSum, ...]] = {}
    ours = (noisy_evaluations.c.schema == schema) & (noisy_evaluations.c.schema == trials.c.schema)
    query = select(noisy_evaluations).join(
        trials, ours & (noisy_evaluations.c.task == trials.c.task) & (noisy_evaluations.c.trial == trials.c.version)
    )
    for row in connection.execute(query.order_by(noisy_evaluations.c.id)):
        found[row.task] = (*found.get(row.task, ()), EvaluationSum(row.evaluations, row.total, row.noise_variance))
    return found


def record_release(
    connection: Connection,
    schema: str,
    told: Mapping[str, EvaluationSum],
    on_trial: Mapping[str, int],
    cost: float,
    now: float,
) -> None:
    """Keeps what a fold told of the trials that are open before it ends any, and that it was one more release."""
    rows: Sequence[Mapping[str, object]] = [
        {
            "schema": schema,
            "task": task,
            "trial": on_trial[task],
            "evaluations": release.votes,
            "total": release.total,
            "noise_variance": release.noise_variance,
        }
        for task, release in sorted(told.items())
    ]
    others = ~noisy_evaluations.c.trial.in_(on_trial.values())
    connection.execute(delete(noisy_evaluations).where(noisy_evaluations.c.schema == schema, others))
    if rows:
        connection.execute(insert(noisy_evaluations), rows)
    rho = connection.scalar(select(privacy_spending.c.rho).where(privacy_spending.c.project == ALL))
    _charge(connection, ALL, rho, cost, now)


def _row_of(project: str, owner: str) -> str:
    """Where the spending of an owner's project is: a project that no identity names anybody may claim to be."""
    return sha256(f"{project} {owner}".encode()).hexdigest()[:32]


def _charge(connection: Connection, project: str, rho: float | None, cost: float, now: float) -> None:
    if rho is None:
        connection.execute(insert(privacy_spending).values(project=project, rho=cost, last=now))
    else:
        connection.execute(
            update(privacy_spending).where(privacy_spending.c.project == project).values(rho=rho + cost, last=now)
        )
