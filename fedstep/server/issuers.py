"""Who vouches for CI jobs: the issuers of OIDC tokens, which of their claims matter, and who of theirs may come in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from urllib.parse import urlsplit

from fedstep.errors import UsageError
from fedstep.server.identity import Denied, Sender, is_loopback

__all__ = ["Issuer", "Pattern", "fetchable", "issuers_of"]

LONGEST = 200  # characters of a claim that is kept
FORM = "Give github, gitlab, NAME=URL,like=gitlab or NAME=URL,project=CLAIM,owner=CLAIM,path=CLAIM."


@dataclass(frozen=True, slots=True)
class Pattern:
    """Some projects of one issuer, by the segments of their path, or of OWNER-ID/PROJECT-ID."""

    glob: str
    by_id: bool = False

    def matches(self, path: str) -> bool:
        """Whether the first segments fit; letters of either case, because the services' own paths are so.

        >>> [Pattern(glob).matches("Acme/web") for glob in ("acme", "acme/w*", "acm", "*")]
        [True, True, False, True]
        """
        wanted, found = self.glob.lower().split("/"), path.lower().split("/")
        return len(found) >= len(wanted) and all(map(fnmatchcase, found, wanted))


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer by the name that patterns and identities have for it; the claims that say project, owner and path."""

    name: str
    url: str
    project: str
    owner: str
    path: str
    allowed: tuple[Pattern, ...] = ()

    def sender(self, claims: Mapping[str, object]) -> Sender | Denied:
        """Project and owner of verified claims; nothing else of them is kept."""
        project, owner, path = (_text(claims.get(name)) for name in (self.project, self.owner, self.path))
        if not project or not owner:
            missing = self.owner if project else self.project
            return Denied(f"the token of {self.name} has no usable claim {missing}", "Name the claims in --oidc.", True)
        whose, what = _label(owner), _label(project)
        if not any(one.matches(f"{whose}/{what}" if one.by_id else path) for one in self.allowed):
            return Denied(
                f"no pattern of this aggregator lets that project of {self.name} in",
                "Whoever runs it can add one with --allow.",
                True,
            )
        return Sender(f"{self.name}:{whose}", f"{self.name}:{whose}/{what}")


# The claims as docs.github.com and docs.gitlab.com describe them; ids, because names can be registered again by others.
GITHUB = Issuer(
    "github", "https://token.actions.githubusercontent.com", "repository_id", "repository_owner_id", "repository"
)
GITLAB = Issuer("gitlab", "https://gitlab.com", "project_id", "namespace_id", "project_path")
KNOWN = {issuer.name: issuer for issuer in (GITHUB, GITLAB)}


def issuers_of(given: Sequence[str], allow: Sequence[str]) -> tuple[Issuer, ...]:
    """The issuers as the options name them, each with its patterns. Raises UsageError, also for one without any."""
    found = [_issuer(text) for text in given]
    names = [issuer.name for issuer in found]
    if len(set(names)) < len(names) or len({issuer.url for issuer in found}) < len(found):
        raise UsageError("--oidc names the same issuer twice", FORM)
    patterns: dict[str, list[Pattern]] = {name: [] for name in names}
    for text in allow:
        name, pattern = _pattern(text, names)
        patterns[name].append(pattern)
    for name in names:
        if not patterns[name]:
            raise UsageError(
                f"every project of {name} could send updates",
                f"Say which may: --allow '{name}:OWNER/*', or all: '{name}:*'.",
            )
    return tuple(replace(issuer, allowed=tuple(patterns[issuer.name])) for issuer in found)


def fetchable(url: str) -> bool:
    """Whether keys may come from there: HTTPS, or this very machine."""
    try:
        parts = urlsplit(url)
        port_fits = parts.port != 0
    except ValueError:
        return False
    usable = bool(parts.hostname) and port_fits and not parts.username and not parts.password
    return usable and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")))


def _issuer(text: str) -> Issuer:
    if text in KNOWN:
        return KNOWN[text]
    place, *settings = text.split(",")
    name, _, url = place.partition("=")
    pairs = dict(pair.partition("=")[::2] for pair in settings)
    if not re.fullmatch("[a-z][a-z0-9-]{0,19}", name) or not fetchable(url) or urlsplit(url).query:
        raise UsageError(f"--oidc {text[:80]!r} is no issuer", FORM)
    like = KNOWN.get(pairs.pop("like", ""), Issuer("", "", "", "", ""))
    project, owner = pairs.pop("project", like.project), pairs.pop("owner", like.owner)
    path = pairs.pop("path", like.path or project)
    if not project or not owner or pairs:
        raise UsageError(f"--oidc {text[:80]!r} does not say which claims are project and owner", FORM)
    return Issuer(name, url, project, owner, path)


def _pattern(text: str, names: Sequence[str]) -> tuple[str, Pattern]:
    parts = re.fullmatch(r"(?:([a-z][a-z0-9-]*)([:#]))?([^\s:#]+)", text)
    if not parts:
        raise UsageError(f"--allow {text[:80]!r} is no pattern", "Give one like github:acme/* or github#1234/*.")
    name = parts[1] or (names[0] if len(names) == 1 else "")
    if name not in names:
        raise UsageError(
            f"--allow {text[:80]!r} is of no issuer that --oidc names", "Put its name before it: github:acme/*."
        )
    return name, Pattern(parts[3], by_id=parts[2] == "#")


def _text(claim: object) -> str:
    """A claim that can be an identity, else ""."""
    text = str(claim) if isinstance(claim, str | int) and not isinstance(claim, bool) else ""
    return text if len(text) <= LONGEST and text.isprintable() else ""


def _label(text: str) -> str:
    """A short word for an id: itself where it is one; a slash would make it look like another owner's project."""
    return text if re.fullmatch(r"[\w.-]{1,40}", text, re.ASCII) else sha256(text.encode()).hexdigest()[:32]
