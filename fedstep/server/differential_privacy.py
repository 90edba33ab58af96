"""Aggregate with differential privacy: all that an aggregation publishes follows from one noisy sum.

The unit is a project: everything that it sent for this aggregation, all tasks and evaluations together, is one vector
of an L2 norm of at most 1. Two aggregations are adjacent that differ in one such vector, which is zero in one of them.
The noise is discrete: Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, an
exact sampler in integers alone, with the guarantee of the Gaussian but without the holes of floating point.

One release in which a project takes part costs it 1 / (2 z^2) of zero-concentrated differential privacy (rho), z being
the noise in units of its bound; costs add up, without amplification: what a CI sends is no random sample (Bun and
Steinke, "Concentrated Differential Privacy", TCC 2016). dp-accounting turns sums of rho into (epsilon, delta) by Renyi
divergences; this is the one module that imports it.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import groupby
from math import ceil, isqrt, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, select, update

from fedstep.errors import MissingExtra, UsageError
from fedstep.federation.messages import PrivacyGuarantee, TrialScore
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.inputs import AggregationInput, AggregationResult, StoredUpdate
from fedstep.server.aggregation.step import TaskSum, advance_by_sums, iter_task_deltas
from fedstep.server.aggregation.vectors import staleness_weight
from fedstep.server.dashboard import VOLUMES, DashboardSnapshot
from fedstep.server.gate import ActiveCounts, EvaluationSum, EvaluationSums, Evidence, Gate
from fedstep.server.mode import AggregationMode, BufferPolicy, BufferStatus, ContributionTerms
from fedstep.server.storage.tables import noisy_evaluations, privacy_spending, trials
from fedstep.server.storage.trial_repository import TrialRepository

GRID = 1 << 20  # steps to the bound of a project's vector

Real: TypeAlias = NDArray[np.float64]
Grid: TypeAlias = NDArray[np.int64]
Below: TypeAlias = Callable[[int], int]  # returns an integer from 0 to below its argument, each as likely


def clip_and_concatenate(shrinking: Real, whole: Real) -> Real:
    """Return both as one vector with an L2 norm of at most 1, the first shrunk to the room that the second leaves."""
    length, room = float(np.linalg.norm(shrinking)), sqrt(max(0.0, 1.0 - float(whole @ whole)))
    return np.concatenate([shrinking * min(1.0, room / length if length else 1.0), whole])


def round_to_grid(vector: Real) -> Grid:
    """Return the vector, shrunk to an L2 norm of at most 1, in steps of the grid: its integer norm is at most GRID.

    It is rounded towards zero, which never lengthens it; where the float scale was slightly too large, it is reduced.
    """
    length = float(np.linalg.norm(vector))
    scale = GRID * min(1.0, 1.0 / length if length else 1.0)
    steps = np.trunc(vector * scale).astype(np.int64)
    while int(steps @ steps) > GRID * GRID:
        scale *= 1.0 - 2.0**-40
        steps = np.trunc(vector * scale).astype(np.int64)
    return steps


def sum_with_noise(parts: Iterable[Grid], size: int, multiplier: float, below: Below) -> Grid:
    """Return the sum of one vector per project, plus noise of a standard deviation of `multiplier` bounds."""
    total = np.zeros(size, np.int64)
    for part in parts:
        total += part
    variance = noise_variance(multiplier)
    total += np.array([draw_discrete_gaussian(variance, below) for _ in range(size)], np.int64)
    return total


def noise_variance(multiplier: float) -> int:
    """Return the variance, in squared steps of the grid, of noise that is `multiplier` times the bound, rounded up."""
    return ceil((multiplier * GRID) ** 2)


def draw_discrete_gaussian(variance: int, below: Below) -> int:
    """Draw an integer x with a probability proportional to exp(-x^2 / (2 variance)), exactly: their algorithm 3."""
    width = isqrt(variance) + 1
    while True:
        drawn = _draw_discrete_laplace(width, below)
        if _draw_bernoulli_exp((abs(drawn) * width - variance) ** 2, 2 * variance * width * width, below):
            return drawn


def _draw_discrete_laplace(width: int, below: Below) -> int:
    """Draw an integer x with a probability proportional to exp(-|x| / width): their algorithm 2."""
    while True:
        rest = below(width)
        if not _draw_bernoulli_exp(rest, width, below):
            continue
        whole = 0
        while _draw_bernoulli_exp(1, 1, below):
            whole += 1
        size, negative = rest + width * whole, below(2)
        if size or not negative:  # zero has no sign: it must not be drawn twice as often
            return -size if negative else size


def _draw_bernoulli_exp(numerator: int, denominator: int, below: Below) -> bool:
    """Return True with a probability of exp(-numerator / denominator): their algorithm 1."""
    while numerator > denominator:
        if not _draw_bernoulli_exp(1, 1, below):
            return False
        numerator -= denominator
    turns = 1
    while below(denominator * turns) < numerator:
        turns += 1
    return turns % 2 == 1


LIFE = 0.5  # of a task's bound: what a project's contributions add up to; most are longer, and noise is in proportion
# In the vector, of an evaluation at the gate's reach and of its count; those of four tasks are 0.71 at most.
EVALUATION_SIZE = 0.25


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """The noise of a release: its standard deviation in units of a project's bound, and its source of randomness.

    `share` is what a delta may count in one release, in units of its task's bound.
    """

    multiplier: float
    below: Below
    share: float


def next_private_version(
    given: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None, noise: GaussianNoise
) -> AggregationResult:
    """Return the next version. Whatever it says of the buffered updates it says of their noised sum."""
    tasks = given.current.candidate.vectors
    size = sum(map(len, tasks.values())) + 2 * len(tasks)
    vectors = (_vector(given, of_one, rules, gate, noise.share) for of_one in _by_project(given.buffered))
    steps = sum_with_noise(map(round_to_grid, vectors), size, noise.multiplier, noise.below)
    sums, releases = _split(given, steps, noise)
    releases = {name: releases[name] for name in given.current.trials}
    evidence = {name: _with_release(given.evidence.get(name), release) for name, release in releases.items()}
    return replace(advance_by_sums(given, sums, evidence, rules, gate), releases=releases)


def _with_release(earlier: Evidence | None, release: EvaluationSum) -> EvaluationSums:
    return EvaluationSums((*(earlier.sums if isinstance(earlier, EvaluationSums) else ()), release))


def _by_project(updates: Iterable[StoredUpdate]) -> Iterator[Sequence[StoredUpdate]]:
    """Yield the updates of each project, by its identity where it has one; those of other owners in its name apart."""

    def source(stored: StoredUpdate) -> tuple[str, str]:
        return stored.owner, stored.project or stored.update().project

    return (tuple(group) for _, group in groupby(sorted(updates, key=source), key=source))


def _vector(
    given: AggregationInput,
    updates: Sequence[StoredUpdate],
    rules: Mapping[str, AggregationRules],
    gate: Gate | None,
    share: float,
) -> Real:
    """Return one project's vector, not yet rounded: each task in units of its share, then each task's evaluation.

    Evaluations are whole however long the deltas are: most deltas are longer than their share, and would leave nothing
    of an evaluation.
    """
    tasks = given.current.candidate.vectors
    deltas = {name: np.zeros(len(vector)) for name, vector in tasks.items()}
    evaluations = {name: np.zeros(2) for name in tasks}
    for stored in updates:
        for name, part in iter_task_deltas(stored, given.current.candidate.version):
            deltas[name] += staleness_weight(part.staleness) / (share * rules[name].clip) * part.delta
        for name, score in stored.update().scores.items():
            evaluations[name] = _evaluation(given, name, score, gate or Gate())
    return clip_and_concatenate(np.concatenate([*deltas.values()]), np.concatenate([*evaluations.values()]))


def _evaluation(given: AggregationInput, name: str, score: TrialScore, gate: Gate) -> Real:
    """Return that there is an evaluation, and its difference clipped to the reach; zeros for a trial that is over."""
    trial = given.current.trials.get(name)
    if trial is None or trial.version != score.trial:
        return np.zeros(2)
    return EVALUATION_SIZE * np.array([1.0, max(-1.0, min(1.0, score.difference / gate.reach))])


def _split(
    given: AggregationInput, steps: Grid, noise: GaussianNoise
) -> tuple[Mapping[str, TaskSum], Mapping[str, EvaluationSum]]:
    """Return what the noised vector says of each task: the sum of its deltas, and the sum of its evaluations."""
    tasks, sums, releases, start = given.current.candidate.vectors, {}, {}, 0
    evaluations = steps[-2 * len(tasks) :].reshape(-1, 2) / (GRID * EVALUATION_SIZE)
    # Of the sum, and of the count at the largest mean, which is 1.
    variance = 2.0 * (noise.multiplier / EVALUATION_SIZE) ** 2
    for (name, vector), (count, total) in zip(tasks.items(), evaluations, strict=True):
        sums[name] = TaskSum(steps[start : start + len(vector)], noise.share / GRID)
        releases[name] = EvaluationSum(float(count), float(total), variance)
        start += len(vector)
    return sums, releases


DAY = 86_400.0


class DifferentialPrivacy(AggregationMode):
    """One noised release per period: nothing else that is published depends on any single project."""

    discreet = True

    def __init__(self, guarantee: PrivacyGuarantee, below: Below = secrets.randbelow) -> None:
        """Raise UsageError for a guarantee that cannot be kept, MissingExtra."""
        self.budget = calibrate_budget(guarantee)
        self.policy = BudgetPolicy(self.budget.cost, self.budget.most, guarantee.days * DAY)
        self.noise = GaussianNoise(self.budget.multiplier, below, LIFE / guarantee.releases)
        self.terms = ContributionTerms(promise=guarantee)

    def buffer_policy(self, policy: BufferPolicy) -> BufferPolicy:
        """Return the policy by the calendar: how many updates wait must not decide when they are aggregated."""
        return replace(policy, period=self.policy.seconds)

    def aggregate(
        self, given: AggregationInput, rules: Mapping[str, AggregationRules], gate: Gate | None
    ) -> AggregationResult:
        """Return the next version, made of one noised sum."""
        return next_private_version(given, rules, gate, self.noise)

    def check_store(self, connection: Connection) -> None:
        """Accept any store: what was promised before is promised now."""

    def decline(self, connection: Connection, offers: Iterable[tuple[str, str, str]], now: float) -> Mapping[str, str]:
        """Charge the projects of these offers; return the reason for each one that has no budget, by id."""
        return charge_projects(connection, offers, self.policy, now)

    def evidence(self, connection: Connection, schema: str, active: ActiveCounts) -> Mapping[str, Evidence]:
        """Return the noised sums released so far for each open trial."""
        del active
        return {task: EvaluationSums(sums) for task, sums in load_noisy_sums(connection, schema).items()}

    def record(self, connection: Connection, schema: str, result: AggregationResult, now: float) -> None:
        """Store the noised sums of evaluations, and that there was one more release."""
        on_trial = TrialRepository(connection, schema).open_versions()
        record_release(connection, schema, result.releases, on_trial, self.policy.cost, now)

    def adjust_dashboard(
        self, snapshot: DashboardSnapshot, connection: Connection, schema: str, gate: Gate | None, now: float
    ) -> DashboardSnapshot:
        """Leave out what depends on single projects; add the guarantee and how much of it is spent at most."""
        del schema, gate, now
        spent = min(total_spending(connection), self.budget.most)
        figures = {"noise": self.budget.multiplier, "spent_at_most": self.budget.epsilon(spent)}
        return replace(
            snapshot,
            pending=BufferStatus(0, 0, 0.0),
            active=ActiveCounts(0, 0),
            days=(),
            volumes=(0,) * len(VOLUMES),
            privacy={**self.budget.guarantee._asdict(), **figures},
        )


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
