"""What each project has spent of its privacy, and noised votes, in the database. Each call is inside a transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, delete, insert, select, update

from fedstep.server.gate import EvaluationSum
from fedstep.server.storage.tables import noisy_evaluations, privacy_spending, trials

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


def took_part(
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


def spent_by_all(connection: Connection) -> float:
    """The rho of all releases there were: no project can have spent more."""
    return connection.scalar(select(privacy_spending.c.rho).where(privacy_spending.c.project == ALL)) or 0.0


def known_noised(connection: Connection, schema: str) -> Mapping[str, tuple[EvaluationSum, ...]]:
    """What the folds so far told of the open trials, by task, the newest last."""
    found: dict[str, tuple[EvaluationSum, ...]] = {}
    ours = (noisy_evaluations.c.schema == schema) & (noisy_evaluations.c.schema == trials.c.schema)
    query = select(noisy_evaluations).join(
        trials, ours & (noisy_evaluations.c.task == trials.c.task) & (noisy_evaluations.c.trial == trials.c.version)
    )
    for row in connection.execute(query.order_by(noisy_evaluations.c.id)):
        found[row.task] = (*found.get(row.task, ()), EvaluationSum(row.evaluations, row.total, row.noise_variance))
    return found


def keep_noised(
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
