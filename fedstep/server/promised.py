"""What a promise of differential privacy changes in an aggregator; without one, nothing."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from fedstep.errors import UsageError
from fedstep.server.accounting import Budget, budget_of
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.buffer import Folding
from fedstep.server.private_step import LIFE, Noise, next_private
from fedstep.server.records import Made, Moment
from fedstep.server.settings import Settings
from fedstep.server.spending import FREE, Purse
from fedstep.server.trial import next_version

__all__ = ["Promised", "promised"]

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Promised:
    """How it folds and when, and what it counts; `budget` is None where nothing is promised."""

    step: Callable[[Moment], Made]
    folding: Folding
    purse: Purse = FREE
    budget: Budget | None = None


def promised(settings: Settings, rules: Mapping[str, AggregationRules]) -> Promised:
    """What these settings ask for. Raises UsageError for a promise that cannot be kept, MissingExtra."""
    if not settings.promise.releases:
        return Promised(partial(next_version, rules=rules, gate=settings.gate), settings.folding)
    if settings.role != "alone":
        raise UsageError("shares and --privacy-epsilon do not go together", "Leave out one of them.")
    budget = budget_of(settings.promise)
    purse = Purse(budget.cost, budget.most, settings.promise.days * DAY)
    noise = Noise(budget.multiplier, secrets.randbelow, LIFE / settings.promise.releases)
    step = partial(next_private, rules=rules, gate=settings.gate, noise=noise)
    return Promised(step, replace(settings.folding, period=purse.seconds), purse, budget)
