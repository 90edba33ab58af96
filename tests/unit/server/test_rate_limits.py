"""How often a sender may come."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedstep.federation.messages import pack_update
from fedstep.server.identity import OPEN, Identity, TokenBook
from fedstep.server.rate_limits import Allowance, AllowanceMeter, Allowances, RateLimiter

WEB, API = Identity("acme", "acme/web"), Identity("acme", "acme/api")
TIGHT = Allowances(project=(Allowance(2, 60.0),), owner=(Allowance(3, 60.0),))


class TestAllowance:
    def test_so_many_at_once_and_then_one_as_time_goes(self):
        limiter = RateLimiter(TIGHT)
        assert [limiter.take(WEB, 0.0) for _ in range(3)] == [("", 0), ("", 0), ("project", 30)]
        assert limiter.take(WEB, 29.0) == ("project", 1)
        assert limiter.take(WEB, 30.0) == ("", 0)
        assert limiter.take(WEB, 30.0)[0] == "project"

    def test_an_owner_has_one_allowance_for_all_its_projects(self):
        limiter = RateLimiter(TIGHT)
        assert [limiter.take(WEB, 0.0)[0], limiter.take(WEB, 0.0)[0], limiter.take(API, 0.0)[0]] == ["", "", ""]
        assert limiter.take(API, 0.0) == ("owner", 20)
        assert limiter.take(Identity("other", "other/web"), 0.0) == ("", 0)

    def test_what_is_refused_costs_nothing(self):
        limiter = RateLimiter(TIGHT)
        for _ in range(100):
            limiter.take(WEB, 0.0)
        assert limiter.take(API, 0.0) == ("", 0)
        assert limiter.take(WEB, 60.0) == ("", 0)

    def test_a_day_is_a_bucket_like_a_minute(self):
        limiter = RateLimiter(Allowances.of(rates=(0, 0), quotas=(10, 0)))
        assert [limiter.take(WEB, float(second))[0] for second in range(10)] == [""] * 10
        who, seconds = limiter.take(WEB, 10.0)
        assert who == "project"
        assert 8_600 <= seconds <= 8_640

    def test_without_limits_and_on_this_machine_nobody_waits(self):
        free, tight = RateLimiter(Allowances.of((0, 0), (0, 0))), RateLimiter(TIGHT)
        assert {free.take(WEB, 0.0) for _ in range(1000)} == {tight.take(OPEN, 0.0) for _ in range(1000)} == {("", 0)}


class TestBounds:
    def test_memory_is_bounded_and_drops_the_longest_absent(self):
        """The memory is bounded, and the sender that was absent longest is dropped."""
        meter = AllowanceMeter((Allowance(1, 60.0),), most_keys=3)
        for key in ("a", "b", "c", "a", "d"):
            meter.take(key, meter.level(key, 0.0))
        assert len(meter._levels) == 3
        assert meter.level("b", 0.0).wait == 0.0
        assert meter.level("a", 0.0).wait > 0.0

    @hypothesis_settings(max_examples=100, deadline=None)
    @given(st.lists(st.floats(0.0, 30.0), max_size=60), st.integers(1, 8), st.floats(1.0, 100.0))
    def test_in_no_span_more_than_the_burst_and_the_rate_allow(self, pauses, most, seconds):
        meter, now, taken = AllowanceMeter((Allowance(most, seconds),)), 0.0, []
        for pause in pauses:
            now += pause
            level = meter.level("x", now)
            if level.wait == 0.0:
                meter.take("x", level)
                taken.append(now)
            else:
                assert meter.level("x", now + level.wait + 1e-6).wait == 0.0
        for first, start in enumerate(taken):
            for last, end in enumerate(taken[first:], first):
                assert last - first + 1 <= most + (end - start) * most / seconds + 1e-6

    def test_a_clock_that_goes_back_gives_nothing(self):
        meter = AllowanceMeter((Allowance(1, 60.0),))
        meter.take("x", meter.level("x", 100.0))
        assert meter.level("x", 50.0).wait == 60.0
        assert meter.level("x", 160.0).wait == 0.0


class TestResponses:
    def test_excess_request_gets_429_and_others_are_served(self, open_aggregator, settings, update, caplog):
        """One request too many gets 429 with the seconds to wait, and others are served."""
        book = TokenBook(settings.store)
        tokens = [book.create(name, 0.0) for name in ("acme/web", "other/web")]
        book.close()

        def post(house, number: int, token: str):
            made = update(number)
            headers = {"Idempotency-Key": made.id, "Authorization": f"Bearer {token}"}
            return house.send("POST", "/v1/updates", headers, pack_update(made), 5.0)

        with open_aggregator(replace(settings, allowances=TIGHT)) as house:
            statuses = [post(house, number, tokens[0]).status for number in (1, 2)]
            refused = post(house, 3, tokens[0])
            assert statuses == [202, 202]
            assert (refused.status, refused.headers["retry-after"]) == (429, "30")
            assert b"too-many" in refused.body
            assert post(house, 4, tokens[1]).status == 202
        assert "429 too-many: project" in caplog.text
        assert tokens[0] not in caplog.text

    @pytest.mark.parametrize("path", ["/v1/model", "/healthz", "/v1/versions"])
    def test_readers_are_not_counted(self, open_aggregator, settings, path):
        with open_aggregator(replace(settings, allowances=TIGHT)) as house:
            assert {house.send("GET", path, {}, b"", 5).status for _ in range(20)} == {200}
