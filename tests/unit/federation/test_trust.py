"""Which address a token may be sent to."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from fedstep.errors import UsageError
from fedstep.federation.trust import (
    add_trusted,
    is_same_server,
    load_trusted,
    normalize_address,
    resolve_secret,
    split_address,
    trusted_file,
)

OURS, THEIRS = "https://fedstep.example.org", "https://evil.example"


def resolve(
    url: str = OURS,
    token: str = "t0ken",
    token_for: str = "",
    from_repository: bool = True,
    token_from_repository: bool = False,
    trusted: frozenset[str] = frozenset(),
    role: str = "aggregator",
):
    return resolve_secret(
        url,
        token,
        token_for,
        from_repository=from_repository,
        token_from_repository=token_from_repository,
        trusted=trusted,
        role=role,
    )


class TestResolve:
    def test_address_from_outside_the_repository_gets_the_token(self):
        """The environment or the command line names it."""
        assert resolve(from_repository=False).token == "t0ken"

    def test_address_of_a_repository_file_gets_no_token(self):
        """One sentence says so and names both remedies."""
        secret = resolve(THEIRS)
        assert (secret.token, secret.confirmed) == ("", False)
        (notice,) = secret.withheld
        assert "FEDSTEP_AGGREGATOR" in str(notice)
        assert f"fedstep trust {THEIRS}" in str(notice)

    def test_remedy_names_the_variables_of_the_helper(self):
        """Both were told to set those of the aggregator, which changes nothing for the helper."""
        (unconfirmed,) = resolve(THEIRS, role="helper").withheld
        assert "FEDSTEP_HELPER," in unconfirmed.remedy
        (foreign,) = resolve(THEIRS, f"{OURS} t0ken", role="helper").withheld
        assert f"FEDSTEP_HELPER_TOKEN to `{THEIRS} TOKEN`" in foreign.remedy

    def test_confirmed_address_gets_the_token(self):
        assert resolve(trusted=frozenset({normalize_address(OURS)})).token == "t0ken"

    @pytest.mark.parametrize("pinned", [f"{OURS} t0ken", f"{OURS}:443/ t0ken", f"{OURS.upper()} t0ken"])
    def test_pinned_token_goes_to_its_address_alone(self, pinned: str):
        """Wherever the address comes from."""
        assert resolve(OURS, pinned).token == "t0ken"
        for from_repository in (True, False):
            secret = resolve(THEIRS, pinned, from_repository=from_repository)
            assert secret.token == ""
            (notice,) = secret.withheld
            assert "belongs to another address" in str(notice)
            assert f"FEDSTEP_TOKEN to `{THEIRS} TOKEN`" in notice.remedy

    def test_address_beside_the_token_pins_it_too(self):
        assert resolve(OURS, token_for=OURS).token == "t0ken"
        assert resolve(THEIRS, token_for=OURS).token == ""

    def test_pinned_to_what_is_no_address_is_an_error(self):
        with pytest.raises(UsageError, match="no URL"):
            resolve(OURS, "nonsense t0ken")

    def test_token_of_the_file_itself_is_no_secret_of_the_user(self):
        assert resolve(THEIRS, token_from_repository=True).token == "t0ken"

    @pytest.mark.parametrize(
        "other", [f"{OURS}.evil.example", "http://fedstep.example.org", f"{OURS}:444", f"{OURS}/x"]
    )
    def test_similar_address_is_another_one(self, other: str):
        assert resolve(other, trusted=frozenset({normalize_address(OURS)})).token == ""


class TestSplitAddress:
    @given(st.text("ab@\\\\:/?#%[]. \t\x85\u2044\uff0f\u212a1", max_size=12), st.sampled_from(["http", "https"]))
    def test_accepted_address_has_one_host(self, rest: str, scheme: str):
        """Where `urlsplit` decides about a secret, urllib3 connects to the same host and port, or not at all."""
        parts = split_address(f"{scheme}://{rest}")
        if not parts:
            return
        with suppress(LocationParseError, UnicodeError):
            asked = parse_url(f"{parts.scheme}://{parts.netloc}{parts.path}")
            assert (asked.host or "").strip("[]").lower() == (parts.hostname or "").replace("%25", "%")  # %a1 is %A1
            assert asked.port == parts.port

    @pytest.mark.parametrize(
        "url", ["https://evil\\@ours/", "https://evil\\.ours/", "https://a b/", "https://:0/", "x"]
    )
    def test_what_has_two_readings_is_no_address(self, url: str):
        assert split_address(url) is None
        assert normalize_address(url) == ""

    @pytest.mark.parametrize("separator", ["\n", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
    def test_separator_of_lines_is_no_part_of_an_address(self, tmp_path, separator: str):
        """What was confirmed as one address was read as two, the second of which nobody saw."""
        with pytest.raises(UsageError, match="no address"):
            add_trusted(f"{OURS}/x{separator}{normalize_address(THEIRS)}", {"HOME": str(tmp_path)})
        assert split_address(f"{OURS}\n") is not None, "a secret of a CI may end with a line break"

    def test_helper_in_another_spelling_is_the_same(self):
        """It would get both shares."""
        for other in ("HTTPS://CI.example:443/x", "https://me@ci.example./", "https://ci.example#a"):
            assert is_same_server("https://ci.example/fed", other)
        assert not is_same_server("https://ci.example", "https://ci.example:444")
        assert not is_same_server("https://ci.example", "nonsense")


class TestTrustedFile:
    def test_what_was_added_is_loaded(self, tmp_path):
        environment = {"HOME": str(tmp_path)}
        add_trusted(OURS, environment)
        add_trusted(f"{THEIRS}/fed/", environment)
        expected = {normalize_address(OURS), normalize_address(f"{THEIRS}/fed")}
        assert load_trusted(environment, str(tmp_path / "repo")) == expected

    def test_address_ends_with_its_line_alone(self, tmp_path):
        environment = {"HOME": str(tmp_path)}
        add_trusted(OURS, environment)
        line = f"{normalize_address(OURS)}/x\u2028{normalize_address(THEIRS)}"
        Path(trusted_file(environment)).write_text(f"{line}\r\n", encoding="utf-8")
        assert load_trusted(environment, str(tmp_path / "repo")) == {line}

    def test_file_inside_the_repository_confirms_nothing(self, tmp_path):
        """In a container the home folder may be the checkout."""
        environment = {"HOME": str(tmp_path)}
        add_trusted(THEIRS, environment)
        assert load_trusted(environment, str(tmp_path)) == frozenset()

    def test_no_home_folder_is_an_error(self):
        assert trusted_file({}) == ""
        with pytest.raises(UsageError, match="home folder"):
            add_trusted(OURS, {})
