"""What the tests of the store offer it, and how they look into its tables."""

from fedstep.federation.messages import PrivacyGuarantee, pack_update
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.step import next_version
from fedstep.server.differential_privacy import BudgetPolicy, DifferentialPrivacy
from fedstep.server.gate import Gate
from fedstep.server.storage.engine import create_store_engine
from fedstep.server.storage.update_repository import UpdateOffer

RULES = {"flaky": AggregationRules(1.0), "build-duration": AggregationRules(0.2)}


def make_version(moment):
    return next_version(moment, RULES, None)


def gated(moment):
    return next_version(moment, RULES, Gate(alone=3, distance=1, first_distance=1))


def offer(update) -> UpdateOffer:
    return UpdateOffer(update.id, update.project, "open", update.base, pack_update(update), update.scores)


def charging(policy: BudgetPolicy) -> DifferentialPrivacy:
    """The mode of differential privacy with another budget than its guarantee has."""
    mode = DifferentialPrivacy(PrivacyGuarantee(8.0, 1e-6, 2, 7.0))
    mode.policy = policy
    return mode


def rows(url: str, query: str) -> list[tuple]:
    engine = create_store_engine(url)
    with engine.begin() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(query)]
    engine.dispose()
    return found
