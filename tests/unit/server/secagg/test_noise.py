"""Noise from end to end: the leader asks for it, clients add it, and the sum that opens has as much."""

from statistics import pstdev

import pytest

from fedstep.federation.messages import NOISE, pack_update, unpack_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.secagg.share_client import flush_shares
from fedstep.federation.secagg.shares import noise_deviation
from fedstep.schema.schema import schema
from fedstep.server.aggregation.fedbuff import default_rules
from fedstep.server.aggregation.inputs import CurrentModels, ModelVersion
from fedstep.server.mode import PLAIN
from fedstep.server.models import serve_model
from fedstep.server.secagg.leader import SecureAggregation
from tests.helpers.server_shares import PATIENCE, drawn, helper, leader, peer, pulled, wait_for

TASK = "build-failure"


def leading(noise: float) -> SecureAggregation:
    return SecureAggregation("http://127.0.0.1:9", "x" * 20, noise=noise)


class TestNoise:
    @pytest.mark.slow
    def test_requested_noise_is_in_the_sum_and_the_next_version(self, tmp_path):
        """The noise that a leader asks for is in the sum and so in its next version."""
        outbox, updates = Outbox(tmp_path / "outbox"), [drawn(number) for number in range(5)]
        for update in updates:
            outbox.add(pack_update(update))
        with (
            helper(tmp_path) as (second, _),
            leader(tmp_path, second, "--noise", "0.25", "--buffer-size", "5") as (first, _),
        ):
            asked = pulled(first)
            assert (asked.shares, asked.noise) == (5, 0.25)
            deviation = noise_deviation(asked.noise, asked.shares)
            assert len(flush_shares(outbox, peer(first), peer(second), PATIENCE, deviation).sent) == 5
            wait_for(lambda: pulled(first).candidate_version >= 1)
            after = pulled(first).candidate[TASK]
        rules = default_rules(schema())[TASK]
        sums = [rules.rate * sum(column) for column in zip(*(update.deltas[TASK] for update in updates), strict=True)]
        noise = [(number - plain) / (rules.rate * rules.clip) for number, plain in zip(after, sums, strict=True)]
        assert pstdev(noise) == pytest.approx(0.25 * (50 / 8) ** 0.5, rel=0.35)

    @pytest.mark.parametrize(("mode", "said"), [(leading(NOISE), NOISE), (leading(0.0), 0.0), (PLAIN, 0.0)])
    def test_model_states_noise_only_with_shares_that_need_it(self, mode, said):
        """A model states noise where there are shares and some noise is asked for."""
        start = {name: task.start() for name, task in schema().tasks.items()}
        current = CurrentModels(ModelVersion(0, 0, 0.0, start, dict.fromkeys(start, 0)), start, {})
        made = serve_model(schema().digest, current, mode.terms)
        assert unpack_model(made.body).noise == said
