"""`serve` with a promise of differential privacy, as a process: it is kept over restarts and said digit by digit."""

from pathlib import Path

import pytest

from fedstep.federation.client import push
from fedstep.federation.messages import PrivacyGuarantee, Update, pack_update
from fedstep.federation.transport import RetryPolicy, requests_transport
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from tests.helpers.cli import aggregator
from tests.helpers.server_shares import pulled

PATIENCE = RetryPolicy(timeout=20.0, waits=(0.1, 0.2))
ODD = ("--privacy-epsilon", "0.3333333", "--privacy-delta", "0.00012345", "--privacy-days", "0.0416667")


def restarted(folder: Path) -> tuple[str, ...]:
    """Words for an aggregator on the store that `helpers.cli.aggregator` has in the folder."""
    return "serve", "--port", "0", "--store", f"sqlite:///{folder / 'aggregator.db'}"


def sent() -> bytes:
    delta = zeros(schema().tasks["build-duration"].size())
    delta[0] = 0.1
    return pack_update(Update(schema().digest, 0, "1" * 32, "7" * 32, {"build-duration": 8}, {"build-duration": delta}))


class TestRestarts:
    def test_what_was_sent_under_a_promise_is_not_served_without_it(self, fresh, tmp_path):
        with aggregator(tmp_path, "--privacy-epsilon", "8") as url:
            push(sent(), url, requests_transport(url), PATIENCE)
        ran = fresh.run(*restarted(tmp_path))
        assert ran.code == 2
        assert "promise of differential privacy" in ran.err
        assert "--privacy-epsilon" in ran.err
        assert "--store" in ran.err
        with aggregator(tmp_path, "--privacy-epsilon", "8") as url:
            assert pulled(url).candidate_version == 0

    def test_a_promise_that_nobody_relied_on_can_be_given_up(self, tmp_path):
        with aggregator(tmp_path, "--privacy-epsilon", "8"):
            pass
        with aggregator(tmp_path) as url:
            assert pulled(url).promise.releases == 0


class TestTerms:
    @pytest.mark.parametrize("option", ["epsilon", "delta", "days"])
    def test_a_promise_of_zero_is_no_silent_promise_of_nothing(self, fresh, tmp_path, option):
        ran = fresh.run(*restarted(tmp_path), "--privacy-epsilon", "8", f"--privacy-{option}", "0")
        assert ran.code == 2
        assert f"--privacy-{option}" in ran.err
        assert not (tmp_path / "aggregator.db").exists()

    @pytest.mark.parametrize("term", ["delta", "releases", "days"])
    def test_terms_without_an_epsilon_are_named(self, fresh, tmp_path, term):
        """Terms of a promise without an epsilon are named, and nothing is served."""
        ran = fresh.run(*restarted(tmp_path), f"--privacy-{term}", "1")
        assert ran.code == 2
        assert f"--privacy-{term} would do nothing" in ran.err
        assert "Give --privacy-epsilon" in ran.err
        assert not (tmp_path / "aggregator.db").exists()

    def test_terms_from_any_source_need_an_epsilon(self, fresh, tmp_path):
        """Terms from the environment or a file need an epsilon like typed ones."""
        (fresh.root / ".fedstep.toml").write_text("privacy-days = 7.0\n")
        ran = fresh.with_env(FEDSTEP_PRIVACY_DELTA="1e-6").run(*restarted(tmp_path))
        assert ran.code == 2
        assert "--privacy-delta, --privacy-days would do nothing" in ran.err

    def test_a_promise_is_said_to_clients_digit_by_digit(self, tmp_path):
        with aggregator(tmp_path, *ODD) as url:
            found = pulled(url).promise
        assert found == PrivacyGuarantee(0.3333333, 0.00012345, 52, 0.0416667)

    @pytest.mark.parametrize("words", [("--noise", "0.1"), ("--role", "helper", "--noise", "0.1")])
    def test_noise_that_adds_nothing_is_refused(self, fresh, tmp_path, words):
        """Noise that nobody would add is refused, and nothing is served."""
        ran = fresh.run(*restarted(tmp_path), *words)
        assert ran.code == 2
        assert "--noise would do nothing" in ran.err
        assert not (tmp_path / "aggregator.db").exists()

    def test_noise_that_is_no_number_is_refused(self, fresh, tmp_path):
        ran = fresh.run(*restarted(tmp_path), "--role", "leader", "--noise", "nan")
        assert ran.code == 2
        assert "--noise" in ran.err
        assert "same version" not in ran.err
