"""What a project has spent of its privacy: nobody spends another's, and no aggregator forgets what it promised."""

from array import array
from contextlib import closing
from dataclasses import replace

import pytest

from fedstep.errors import UsageError
from fedstep.federation.messages import PrivacyGuarantee, shape
from fedstep.server.app import create_app
from fedstep.server.differential_privacy import ALL, BudgetPolicy, DifferentialPrivacy
from fedstep.server.gate import Gate
from fedstep.server.mode import PLAIN, AggregationMode
from fedstep.server.secagg.leader import SecureAggregation
from fedstep.server.settings import Settings
from fedstep.server.storage.store import Store
from fedstep.server.storage.tables import privacy_spending
from fedstep.server.storage.update_repository import StoredReceipt, UpdateRejected
from tests.helpers.narrow import present
from tests.helpers.server_store import charging, make_version, offer, rows

PURSE = BudgetPolicy(cost=0.5, most=1.0, seconds=60.0)  # two contributions


def opened(url: str, ours, mode: AggregationMode | None = None) -> Store:
    store = Store(url, ours, charging(PURSE) if mode is None else mode)
    store.start({name: array("f", bytes(4 * size)) for name, size in ours.sizes.items()}, 0.0)
    return store


def sent(store: Store, made, owner: str, now: float) -> str:
    """What became of an update: the name of the problem, "" where it was taken."""
    (outcome,) = store.accept([replace(offer(made), owner=owner)], 0, 100, now)
    assert isinstance(outcome, StoredReceipt | UpdateRejected)
    return outcome.problem[1] if isinstance(outcome, UpdateRejected) else ""


class TestOwners:
    def test_other_owner_with_the_pseudonym_spends_nothing(self, url, ours, update):
        """Another owner who claims a pseudonym spends nothing of its budget."""
        with closing(opened(url, ours)) as store:
            theirs = [sent(store, update(n, project=7), "mallory", 61.0 * n) for n in (1, 2, 3)]
            mine = [sent(store, update(n, project=7), "acme", 61.0 * n) for n in (4, 5, 6)]
        assert theirs == mine == ["", "", "budget-spent"]

    def test_other_owner_does_not_use_up_a_projects_period(self, url, ours, update):
        """Another owner does not use up the contribution of a project in a period."""
        with closing(opened(url, ours)) as store:
            offers = [replace(offer(update(n, project=7)), owner=owner) for n, owner in ((1, "mallory"), (2, "acme"))]
            assert all(isinstance(outcome, StoredReceipt) for outcome in store.accept(offers, 0, 100, 61.0))
            assert sent(store, update(3, project=7), "acme", 62.0) == "already-contributed"

    def test_budget_spent_before_separation_by_owner_stays_spent(self, url, ours, update):
        """What was spent before budgets were separated by owner stays spent."""
        with closing(opened(url, ours)) as store:
            with store._engine.begin() as connection:
                row = {"project": update(1, project=7).project, "rho": 0.5, "last": 0.0}
                connection.execute(privacy_spending.insert(), row)
            assert [sent(store, update(n, project=7), "acme", 61.0 * n) for n in (1, 2)] == ["", "budget-spent"]

    def test_the_store_does_not_show_by_pseudonym_who_has_spent(self, url, ours, update):
        with closing(opened(url, ours)) as store:
            sent(store, update(1, project=7), "acme", 61.0)
        ((named, rho),) = rows(url, "SELECT project, rho FROM privacy_spending")
        assert rho == 0.5
        assert named not in (ALL, update(1, project=7).project)


class TestGuarantee:
    def test_a_store_with_a_promise_does_not_start_without_one(self, url, ours, update):
        with closing(opened(url, ours)) as store:
            sent(store, update(1), "acme", 1.0)
        with pytest.raises(UsageError, match=r"promise.*--privacy-epsilon.*--store"):
            opened(url, ours, PLAIN)
        opened(url, ours).close()

    def test_replica_without_the_guarantee_does_not_aggregate(self, url, ours, update):
        """A replica without the guarantee does not aggregate what another accepted under it."""
        with closing(opened(url, ours, PLAIN)) as plain, closing(opened(url, ours)) as promising:
            sent(plain, update(1), "acme", 1.0)
            assert present(plain.aggregate(make_version, 2.0)).version == 1
            sent(promising, update(2, base=1), "acme", 3.0)
            with pytest.raises(UsageError, match="promise"):
                plain.aggregate(make_version, 4.0)
            assert promising.pending().updates == 1
            assert promising.latest_version() == 1

    def test_leader_of_shares_refuses_a_store_with_a_guarantee(self, settings, small, update):
        """A leader of shares does not take over a store with a guarantee."""
        guarantee = PrivacyGuarantee(8.0, 1e-6, 2, 7.0)
        with closing(opened(settings.store, shape(small), DifferentialPrivacy(guarantee))) as store:
            sent(store, update(1), "acme", 1.0)
        leader: Settings = replace(settings, mode=SecureAggregation("http://127.0.0.1:9", "x" * 20), gate=Gate())
        with pytest.raises(UsageError, match="promise"):
            create_app(leader, small)
        with pytest.raises(UsageError, match="promise"):
            create_app(settings, small)
