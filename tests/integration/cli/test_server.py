"""Looking after a store from the command line, while the aggregator runs and while it does not."""

import time
from contextlib import closing

import pytest

from fedstep.federation.client import push
from fedstep.federation.messages import Model, TrialScore, Update, pack_update, shape
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.step import next_version
from fedstep.server.gate import Gate
from fedstep.server.storage.store import Store
from fedstep.server.storage.update_repository import UpdateOffer
from tests.helpers.cli import aggregator
from tests.helpers.server_shares import pulled

PATIENCE = RetryPolicy(timeout=10.0, waits=(0.1, 0.2))


def sent(number: int, base: int = 0, trial: int = -1) -> Update:
    delta = zeros(schema().tasks["build-duration"].size())
    delta[number % len(delta)] = 0.1
    scores = {"build-duration": TrialScore(trial, -0.5)} if trial >= 0 else {}
    name = f"{number:032x}"
    return Update(schema().digest, base, name, "7" * 32, {"build-duration": 8}, {"build-duration": delta}, scores)


def offer(update: Update) -> UpdateOffer:
    return UpdateOffer(update.id, update.project, "open", update.base, pack_update(update), update.scores)


@pytest.fixture
def url(tmp_path) -> str:
    """A store with versions 0, 1 and 2: version 1 was promoted with version 2."""
    url = f"sqlite:///{tmp_path / 'lived.db'}"
    with closing(Store(url, shape(schema()))) as store:
        store.start({name: zeros(task.size()) for name, task in schema().tasks.items()}, 0.0)

        def step(moment):
            return next_version(moment, default_rules(schema()), Gate(alone=2, distance=1, first_distance=1))

        store.accept([offer(sent(1))], 0, 10, 1.0)
        store.aggregate(step, 2.0)
        store.accept([offer(sent(number, 1, 1)) for number in (2, 3)], 1, 10, 3.0)
        store.aggregate(step, 4.0)
        store.accept([offer(sent(4, 2, 2))], 2, 10, 5.0)
    return url


class TestStatus:
    def test_says_what_is_served_on_trial_and_waiting(self, fresh, url):
        """Status says what is served, what is on trial and what waits."""
        ran = fresh.run("server", "status", "--store", url)
        assert (ran.code, ran.err) == (0, "")
        assert "candidate 2 of 1970-01-01T00:00Z" in ran.out
        assert "production 2 (build-duration from 1, build-failure from 0, flaky from 0, triage from 0)" in ran.out
        assert "on trial: build-duration 2 against 1 since 1970-01-01T00:00Z, 1 evaluation\n" in ran.out
        assert "buffer: 1 update of 1 project\n" in ran.out


class TestVersions:
    def test_versions_lists_every_verdict_with_its_figures(self, fresh, url):
        ran = fresh.with_env(FEDSTEP_STORE=url).run("server", "versions")
        assert ran.code == 0
        assert "version 2 of 1970-01-01T00:00Z: 2 updates after 1, production 2" in ran.out
        assert "at 2 promoted: build-duration 1 against 0 (evaluations 2, counted 1, projects 1, " in ran.out
        one = fresh.run("server", "versions", "--store", url, "--most", "1").out
        assert [line.split(" of ")[0] for line in one.splitlines() if line.startswith("version ")] == ["version 2"]

    def test_a_rollback_is_a_new_version_and_can_be_rolled_back(self, fresh, url):
        assert fresh.run("server", "rollback", "1", "--store", url).out.startswith("version 3: ")
        told = fresh.run("server", "versions", "--store", url).out
        assert "at 3 rollback: build-duration back to the production of version 1" in told
        assert fresh.run("server", "rollback", "2", "--store", url).out.startswith("version 4: ")
        with closing(Store(url, shape(schema()))) as store:
            assert store.current().production["build-duration"] == store.vectors(1)["build-duration"]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("status", "--store", "sqlite:///no-such.db"), "no-such.db"),
            (("versions", "--store", "mysql://x"), "mysql"),
            (("rollback", "99"), "no version 99"),
            (("rollback", "soon"), "soon"),
            (("rollback",), "VERSION"),
        ],
    )
    def test_a_wrong_store_or_version_exits_2_and_names_it(self, fresh, url, arguments, named):
        ran = fresh.with_env(FEDSTEP_STORE=url).run("server", *arguments)
        assert ran.code == 2
        assert named in ran.err
        assert list(fresh.root.glob("*.db")) == []

    def test_a_running_aggregator_serves_what_was_rolled_back_to(self, fresh, tmp_path):
        store = f"sqlite:///{tmp_path / 'running.db'}"
        with aggregator(tmp_path, "--buffer-size", "1", "--max-wait", "0.1", "--no-gate", "--store", store) as url:
            first = pulled(url)
            push(pack_update(sent(1)), url, requests_transport(url), PATIENCE)
            assert wait_for(url, 1).production != first.production
            assert fresh.run("server", "rollback", "0", "--store", store).code == 0
            again = wait_for(url, 2)
            assert again.production == again.candidate == first.production


def wait_for(url: str, version: int) -> Model:
    end = time.monotonic() + 15
    while (found := pulled(url)).candidate_version != version:
        assert time.monotonic() < end, found.candidate_version
        time.sleep(0.05)
    return found
