"""Who may send."""

import pytest

from fedstep.errors import UsageError
from fedstep.server.identity import Denied, Sender, doorkeeper, is_loopback
from fedstep.server.settings import Settings

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "ci.example.org", ""])
def test_an_open_aggregator_does_not_listen_beyond_loopback(host):
    with pytest.raises(UsageError, match="FEDSTEP_TOKENS"):
        doorkeeper(host, ())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_on_loopback_everyone_on_this_machine_may_send(host):
    assert is_loopback(host)
    assert doorkeeper(host, ()).identify("") == Sender("open")


def test_with_tokens_any_host_will_do_and_a_known_token_is_let_in():
    keeper = doorkeeper("0.0.0.0", (TOKEN, TOKEN + "2"))
    first, second = keeper.identify(f"Bearer {TOKEN}"), keeper.identify(f"bearer  {TOKEN}2 ")
    assert isinstance(first, Sender)
    assert isinstance(second, Sender)
    assert first != second


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic " + TOKEN, TOKEN, f"Bearer {TOKEN}x", "Bearer \udcff"]
)
def test_everyone_else_is_denied_with_a_remedy_and_without_an_echo(header):
    denied = doorkeeper("0.0.0.0", (TOKEN,)).identify(header)
    assert isinstance(denied, Denied)
    assert denied.remedy
    assert TOKEN not in denied.reason + denied.remedy


def test_a_short_token_is_refused_at_the_start():
    with pytest.raises(UsageError, match="shorter than 16") as error:
        doorkeeper("127.0.0.1", ("hunter2",))
    assert "hunter2" not in str(error.value)


def test_neither_settings_nor_the_doorkeeper_show_a_token():
    assert TOKEN not in repr(Settings(tokens=(TOKEN,))) + repr(doorkeeper("::1", (TOKEN,)))
