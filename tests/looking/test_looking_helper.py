"""Whether silence of a helper means something: only where there was time to answer."""

import pytest

from fedstep.errors import AggregatorUnreachable
from fedstep.federation.exchange import Aggregator
from fedstep.federation.kept import starter_model
from fedstep.federation.patience import Patience
from fedstep.federation.transport import Answer
from fedstep.federation.twins import Peer
from fedstep.federation.wire import pack_model
from fedstep.looking.aggregator import check_aggregator
from fedstep.report.inspected import SeenToken

MODEL = pack_model(starter_model()._replace(shares=5))


@pytest.mark.parametrize(("slow", "state"), [(0.0, "problem"), (0.35, "warning")])
def test_a_silent_helper_is_a_problem_and_one_that_had_no_time_is_unknown(slow, state):
    now = [0.0]

    def leader(method, *_rest) -> Answer:
        now[0] += slow
        return Answer(200, {}, MODEL) if method == "GET" else Answer(400, {}, b"")

    def helper(*_words) -> Answer:
        raise AggregatorUnreachable("https://two.example gave no answer", "Is it up?")

    patience = Patience(timeout=1.0, waits=(), deadline=1.0, clock=lambda: now[0])
    found = check_aggregator(
        Aggregator("https://one.example", leader, patience, Peer("https://two.example", helper)),
        SeenToken("none"),
    )
    said = {check.name: check for check in found}["Helper"]
    assert said.state == state
    assert "gave no answer" in said.says
