"""Whether silence of a helper means something: only where there was time to answer."""

import pytest

from fedstep.diagnostics.aggregator import check_aggregator
from fedstep.errors import AggregatorUnreachable
from fedstep.federation.messages import pack_model
from fedstep.federation.model_cache import load_starter_model
from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import Endpoint, HttpResponse, RetryPolicy
from fedstep.report.inspection import InspectedToken

MODEL = pack_model(load_starter_model()._replace(shares=5))


class TestSilence:
    @pytest.mark.parametrize(("slow", "state"), [(0.0, "problem"), (0.35, "warning")])
    def test_silent_helper_is_a_problem_only_if_it_had_time(self, slow, state):
        """A silent helper is a problem, and one that had no time to answer is unknown."""
        now = [0.0]

        def leader(method: str, *_rest: object) -> HttpResponse:
            now[0] += slow
            return HttpResponse(200, {}, MODEL) if method == "GET" else HttpResponse(400, {}, b"")

        def helper(*_words: object) -> HttpResponse:
            raise AggregatorUnreachable("https://two.example gave no answer", "Is it up?")

        retry = RetryPolicy(timeout=1.0, waits=(), deadline=1.0, clock=lambda: now[0])
        found = check_aggregator(
            AggregatorLink("https://one.example", leader, retry, Endpoint("https://two.example", helper)),
            InspectedToken("none"),
        )
        said = {check.name: check for check in found}["Helper"]
        assert said.state == state
        assert "gave no answer" in said.says
