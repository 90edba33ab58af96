"""What releases cost: from (epsilon, delta) to noise and back. The one module that knows dp-accounting.

One release in which a project takes part costs it 1 / (2 z^2) of zero-concentrated differential privacy, z being the
noise in units of its bound; costs add up, without amplification: what a CI sends is no random sample (Bun and Steinke,
"Concentrated Differential Privacy", TCC 2016). dp-accounting turns sums into (epsilon, delta) by Renyi divergences.
"""

from dataclasses import dataclass
from functools import cache

from fedstep.errors import MissingExtra, UsageError
from fedstep.federation.messages import PrivacyGuarantee

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
        return epsilon_of(rho, self.promise.delta)


def budget_of(promise: PrivacyGuarantee) -> PrivacyBudget:
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
        least, most = (least, middle) if epsilon_of(releases / (2 * middle**2), delta) <= epsilon else (middle, most)
    return PrivacyBudget(promise, most)


@cache
def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon at this delta of what costs so much zCDP; 0 for nothing. Raises MissingExtra."""
    try:
        from dp_accounting import ZCDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[server,privacy]'"
        raise MissingExtra(f"{error.name} is not installed", remedy) from error
    return float(RdpAccountant().compose(ZCDpEvent(rho)).get_epsilon(delta)) if rho else 0.0
