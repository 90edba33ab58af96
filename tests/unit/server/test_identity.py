"""Who may send."""

import asyncio
from dataclasses import replace

import pytest

from fedstep.errors import UsageError
from fedstep.federation.messages import pack_update
from fedstep.server.identity import OPEN, AccessDenied, Identity, digest_of, doorkeeper, is_loopback
from fedstep.server.settings import Settings

TOKEN = "correct-horse-battery-staple"


class TestOpenAggregator:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "ci.example.org", ""])
    def test_an_open_aggregator_does_not_listen_beyond_loopback(self, host):
        with pytest.raises(UsageError, match="FEDSTEP_TOKENS"):
            doorkeeper(host, ())

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
    def test_on_loopback_everyone_on_this_machine_may_send(self, host):
        assert is_loopback(host)
        assert asyncio.run(doorkeeper(host, ()).identify("")) == OPEN

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_with_proxy_or_former_tokens_loopback_is_not_open(self, host):
        """Behind a proxy, or once it had tokens, not even loopback is open."""
        with pytest.raises(UsageError, match="without a token"):
            doorkeeper(host, (), closed=True)


class TestTokens:
    def test_with_tokens_a_known_token_is_accepted_from_any_host(self):
        """With tokens, it may listen on any host, and a known token is accepted."""
        keeper = doorkeeper("0.0.0.0", (TOKEN, TOKEN + "2"))
        first, second = (asyncio.run(keeper.identify(header)) for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}2 "))
        assert isinstance(first, Identity)
        assert isinstance(second, Identity)
        assert first != second

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer ", "Basic " + TOKEN, TOKEN, f"Bearer {TOKEN}x", "Bearer \udcff"]
    )
    def test_others_are_denied_with_a_remedy_and_without_an_echo(self, header):
        """Everyone else is denied with a remedy and without an echo of what they sent."""
        denied = asyncio.run(doorkeeper("0.0.0.0", (TOKEN,)).identify(header))
        assert isinstance(denied, AccessDenied)
        assert denied.remedy
        assert TOKEN not in denied.reason + denied.remedy

    def test_a_short_token_is_refused_at_the_start(self):
        with pytest.raises(UsageError, match="shorter than 16") as error:
            doorkeeper("127.0.0.1", ("hunter2",))
        assert "hunter2" not in str(error.value)

    def test_neither_settings_nor_the_doorkeeper_show_a_token(self):
        assert TOKEN not in repr(Settings(tokens=(TOKEN,))) + repr(doorkeeper("::1", (TOKEN,)))

    def test_store_tokens_change_and_environment_tokens_stay(self):
        """Tokens of the store are added and removed, and those of the environment stay."""
        keeper = doorkeeper("0.0.0.0", (TOKEN,), {digest_of("stored" * 4): Identity("acme", "acme/web")})
        assert asyncio.run(keeper.identify("Bearer " + "stored" * 4)) == Identity("acme", "acme/web")
        keeper.learn({})
        assert isinstance(asyncio.run(keeper.identify("Bearer " + "stored" * 4)), AccessDenied)
        assert isinstance(asyncio.run(keeper.identify(f"Bearer {TOKEN}")), Identity)


class TestProject:
    def test_claimed_project_counts_for_unknown_senders_alone(self):
        """An unknown sender keeps the project that the update claims, and a known one does not."""
        assert OPEN.pseudonym("a" * 32) == "a" * 32
        assert Identity("acme").pseudonym("a" * 32) == "a" * 32
        assert (
            Identity("acme", "acme/web").pseudonym("a" * 32)
            == Identity("acme", "acme/web").pseudonym("b" * 32)
            != "a" * 32
        )

    def test_open_aggregator_refuses_proxied_requests(self, open_aggregator, settings, update):
        """An open aggregator does not believe that a proxy brings requests of this machine."""
        made = update(1)
        with open_aggregator(settings) as house:
            for header in ("X-Forwarded-For", "Forwarded", "Via"):
                headers = {"Idempotency-Key": made.id, header: "10.0.0.1"}
                assert house.send("POST", "/v1/updates", headers, pack_update(made), 5.0).status == 401
            assert house.send("POST", "/v1/updates", {"Idempotency-Key": made.id}, pack_update(made), 5.0).status == 202

    def test_a_private_model_is_read_with_a_token_alone(self, open_aggregator, settings):
        with open_aggregator(replace(settings, tokens=(TOKEN,), private_model=True)) as house:
            for path in ("/v1/model", "/v1/versions", "/metrics"):
                assert house.send("GET", path, {}, b"", 5).status == 401
                assert house.send("GET", path, {"Authorization": f"Bearer {TOKEN}"}, b"", 5).status == 200
            assert house.send("GET", "/healthz", {}, b"", 5).status == 200
        with open_aggregator(replace(settings, tokens=(TOKEN,))) as house:
            assert house.send("GET", "/v1/model", {}, b"", 5).status == 200
