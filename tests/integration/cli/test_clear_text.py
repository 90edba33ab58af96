"""A token that others can read on its way is said, once a run, with what to do; what cannot be read is not."""

import pytest

from tests.helpers.cli import Checkout, dead_port

TOKEN = "tok-correct-horse-battery"
SAID = "is sent unencrypted. Use an https:// URL"


@pytest.fixture
def offline(fresh: Checkout):
    """A checkout whose only way to the network is a proxy that is not there."""
    with dead_port() as proxy:
        yield fresh.with_env(HTTP_PROXY=proxy, HTTPS_PROXY=proxy, FEDSTEP_TIMEOUT="2", FEDSTEP_BUDGET="3")


class TestTokens:
    def test_static_token_over_plain_http_is_said_once(self, offline):
        """A static token over plain HTTP is said once, and the step goes on."""
        place = offline.with_env(FEDSTEP_TOKEN=TOKEN, FEDSTEP_AGGREGATOR="http://fedstep.invalid:8765")
        for command in (("pull",), ("train", "--junit", place.report([("test_a", "passed", 0.1)]))):
            ran = place.run(*command)
            assert ran.code == 0
            assert ran.err.count(SAID) == 1
            assert "http://fedstep.invalid:8765" in ran.err
            assert TOKEN not in ran.err

    def test_the_token_of_a_helper_is_said_too(self, offline):
        place = offline.with_env(FEDSTEP_HELPER_TOKEN=TOKEN, FEDSTEP_AGGREGATOR="https://fedstep.invalid")
        ran = place.run("push", "--helper", "http://helper.invalid")
        assert f"the token for http://helper.invalid {SAID}" in ran.err

    @pytest.mark.parametrize(
        ("url", "token"),
        [("https://fedstep.invalid", TOKEN), ("http://127.0.0.1:9", TOKEN), ("http://fedstep.invalid", "")],
    )
    def test_tls_loopback_or_no_token_says_nothing(self, offline, url, token):
        """With TLS, on this machine and without a token there is nothing to say."""
        ran = offline.with_env(FEDSTEP_TOKEN=token).run("pull", "--aggregator", url)
        assert ran.code == 0
        assert SAID not in ran.err
