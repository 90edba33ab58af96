"""Decide which address a secret may be sent to.

A repository may name an aggregator, and anyone who can change a file may so name another one. A token is therefore sent
only where the user said so outside of the repository: to the address that the environment or the command line names, to
the one that the token itself names ("URL TOKEN", or a variable with the suffix _FOR), or to one that `fedstep trust`
recorded in the user's own configuration.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from fedstep.errors import HistoryError, UsageError

DEFAULT_PORTS = {"http": 80, "https": 443}
LARGEST_FILE = 1 << 16  # bytes


class WithheldToken(NamedTuple):
    """Why no token is sent to an address, and what to do so that one is."""

    url: str  # without its password
    reason: str
    remedy: str

    def __str__(self) -> str:
        """Return both as one line."""
        return f"no token is sent to {self.url}: {self.reason}. {self.remedy}"


class Secret(NamedTuple):
    """A token for one address; `withheld` says why it is not sent to another one."""

    token: str = ""
    confirmed: bool = True  # whether the user named the address outside of the repository
    withheld: tuple[WithheldToken, ...] = ()


def split_address(url: str) -> SplitResult | None:
    r"""Return the parts of an HTTP URL with a host; None for anything else.

    A host with a backslash is none: `https://evil.example\@ci.example` is on ci.example for `urlsplit`, which decides
    about secrets, and on evil.example for urllib3, which sends them.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    # `urlsplit` drops line breaks, and a separator of lines would be the end of one among the trusted addresses
    printable = parts.netloc.isprintable() and url.strip().isprintable()
    return parts if usable and printable and not set(parts.netloc) & set("\\ ") else None


def normalize_address(url: str) -> str:
    """Return scheme, host, port and path of an aggregator in one form; "" for what is no HTTP URL.

    >>> normalize_address("https://CI.example.org:443/fed/"), normalize_address("ftp://ci.example.org")
    ('https://ci.example.org:443/fed', '')
    """
    parts = split_address(url.strip())
    return f"{parts.scheme}://{parts.hostname}:{_port(parts)}{parts.path.rstrip('/')}" if parts else ""


def redact_url(url: str) -> str:
    """Return the URL without user, password, query and unprintable characters, also where it is no URL of HTTP.

    >>> redact_url("https://me:secret@ci.example/fed?key=1"), redact_url("me:secret@ci.example")
    ('https://ci.example/fed', 'ci.example')
    >>> redact_url("https://me:sec/ret@ci.example/fed")
    'https://ci.example/fed'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the aggregator's URL"
    host = parts.netloc.rpartition("@")[2]
    if _has_broken_port(parts) and "@" in url:  # a password with a slash or a number sign, which is to be escaped
        return redact_url(f"{parts.scheme}://{url.rpartition('@')[2]}")
    redacted = f"{parts.scheme}://{host}{parts.path}" if host else parts.path.rpartition("@")[2]
    return "".join(letter for letter in redacted[:200] if letter.isprintable())


def _has_broken_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None and parts.netloc.endswith(":")
    except ValueError:
        return True


def is_same_server(address: str, other: str) -> bool:
    """Return whether two addresses are of one server, whatever their paths; False for what is no HTTP URL.

    >>> is_same_server("https://ci.example.org/a", "https://me@CI.example.org.:443/b")
    True
    """
    first, second = split_address(address.strip()), split_address(other.strip())
    if not first or not second:
        return False
    names = [(parts.hostname or "").rstrip(".") for parts in (first, second)]
    return names[0] == names[1] and _port(first) == _port(second)


def _port(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]


def resolve_secret(
    url: str,
    token: str,
    token_for: str,
    from_repository: bool,
    token_from_repository: bool,
    trusted: frozenset[str],
    role: str = "aggregator",
) -> Secret:
    """Return what may be sent to an address.

    Args:
        url: The address.
        token: The token, or "URL TOKEN".
        token_for: The address that the token belongs to, "" where none was named.
        from_repository: Whether a file of the repository names the address.
        token_from_repository: Whether it has the token, too, which is then no secret of the user.
        trusted: The addresses that the user has confirmed.
        role: Whose address it is, `aggregator` or `helper`: remedies name its variables.
    """
    pinned, _, secret = token.strip().rpartition(" ")
    owner, address = normalize_address(pinned or token_for), normalize_address(url)
    if (pinned or token_for) and not owner:
        raise UsageError("the address that the token belongs to is no URL", "Give it as `URL TOKEN`.")
    if owner:
        belongs = owner == address
        return Secret(secret) if belongs else Secret("", not from_repository, (_foreign(url, role),))
    if not from_repository or address in trusted:
        return Secret(secret)
    if token_from_repository or not secret:
        return Secret(secret, confirmed=False)
    return Secret("", confirmed=False, withheld=(withhold_unconfirmed(url, role),))


def load_trusted(environment: Mapping[str, str], root: str) -> frozenset[str]:
    """Return the addresses that the user has confirmed; none from a file inside of the repository at `root`."""
    path = trusted_file(environment)
    if not path or os.path.commonpath([os.path.realpath(path), os.path.realpath(root)]) == os.path.realpath(root):
        return frozenset()
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return frozenset(line.strip() for line in file.read(LARGEST_FILE).split("\n") if line.strip())
    return frozenset()


def add_trusted(url: str, environment: Mapping[str, str]) -> str:
    """Record that the user's tokens may be sent to this address; return the file. Raise UsageError, HistoryError."""
    address, path = normalize_address(url), trusted_file(environment)
    if not address:
        raise UsageError(
            f"{redact_url(url)[:80]!r} is no address of an aggregator", "Give one like https://fedstep.example.org"
        )
    if not path:
        raise UsageError("this user has no home folder", "Set HOME, or name the aggregator in FEDSTEP_AGGREGATOR")
    known = load_trusted(environment, os.path.join(os.path.dirname(path), "none"))
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(f"{each}\n" for each in sorted({*known, address})))
    except OSError as error:
        raise HistoryError(f"cannot write {path}: {error.strerror}", "Check its permissions") from error
    return path


def trusted_file(environment: Mapping[str, str]) -> str:
    """Return the path of the confirmed addresses in the user's configuration; "" for a user without one."""
    folder = environment.get("XDG_CONFIG_HOME") or environment.get("APPDATA", "")
    home = environment.get("HOME") or environment.get("USERPROFILE", "")
    folder = folder or (os.path.join(home, ".config") if home else "")
    return os.path.join(folder, "fedstep", "trusted") if os.path.isabs(folder) else ""


def withhold_unconfirmed(url: str, role: str = "aggregator") -> WithheldToken:
    """Return the notice that no token is sent to an address, also no job's own one, that the user did not confirm."""
    redacted = redact_url(url)
    remedy = f"Name it in FEDSTEP_{role.upper()}, or run: fedstep trust {redacted}"
    return WithheldToken(redacted, "only a file of the repository names it", remedy)


def _foreign(url: str, role: str) -> WithheldToken:
    redacted, variable = redact_url(url), "FEDSTEP_HELPER_TOKEN" if role == "helper" else "FEDSTEP_TOKEN"
    remedy = f"Set {variable} to `{redacted} TOKEN` with a token of that {role}"
    return WithheldToken(redacted, "the token belongs to another address", remedy)
