"""The web pages of commits, at the hosts whose addresses are known: GitHub, GitLab, Bitbucket, Gitea and Forgejo.

An address is made anew from the parts of a remote's URL that are plain; the rest of the URL, which may hold a password,
is not kept. Where the host is not known there are no links.
"""

import re
from typing import NamedTuple

from fedstep.ingest.git_process import run_git


class CodeHost(NamedTuple):
    """Where the commits of a repository are shown; empty where that is not known."""

    repository: str = ""  # "https://github.com/acme/shop"
    kind: str = ""  # a key of _PATHS

    def link(self, after: str, before: str = "") -> str:
        """Return the address of what lies between two commits, of the later one if there is no other, or "".

        >>> CodeHost("https://github.com/acme/shop", "github").link("2222222", "1111111")
        'https://github.com/acme/shop/compare/1111111...2222222'
        """
        if not self.repository or not _COMMIT.fullmatch(after):
            return ""
        has_two = bool(_COMMIT.fullmatch(before)) and before != after
        return self.repository + _PATHS[self.kind][has_two].format(after=after, before=before)


NO_CODE_HOST = CodeHost()
# Of one commit, and of two.
_PATHS = {
    "github": ("/commit/{after}", "/compare/{before}...{after}"),
    "gitlab": ("/-/commit/{after}", "/-/compare/{before}...{after}"),
    "bitbucket": ("/commits/{after}", "/branches/compare/{after}%0D{before}"),
    "gitea": ("/commit/{after}", "/compare/{before}...{after}"),
}
_PUBLIC = {
    "github.com": "github",
    "gitlab.com": "gitlab",
    "bitbucket.org": "bitbucket",
    "gitea.com": "gitea",
    "codeberg.org": "gitea",
}
_BEHIND_FIREWALLS = {
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
}
# An organisation's own host is known by a word of its name, such as gitlab.example.org; that of Bitbucket Data Center
# has other paths.
_WORDS = {"github": "github", "gitlab": "gitlab", "gitea": "gitea", "forgejo": "gitea"}
_URL = re.compile(r"(https|ssh|git\+ssh|git)://(?:[^@/]*@)?([^@/:]+)(?::(\d{1,5}))?/(.+)")
_SCP = re.compile(r"(?:[^@/:]*@)?([^@/:]+):(?!//)/?(.+)")  # git@github.com:acme/shop.git
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")
_FOLDER = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.~-]{1,100}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_LONGEST = 2000


def parse_remote(url: str) -> CodeHost:
    """Return the host of a remote's URL, NO_CODE_HOST for one that is not known or not plain.

    >>> parse_remote("https://ada:secret@gitlab.com/acme/tools/shop.git").repository
    'https://gitlab.com/acme/tools/shop'
    """
    if len(url) > _LONGEST or not url.isprintable():
        return NO_CODE_HOST
    if whole := _URL.fullmatch(url):
        scheme, host, port, path = whole.groups()
    elif (short := _SCP.fullmatch(url)) and "://" not in url:
        scheme, host, port, path = "ssh", short[1], None, short[2]
    else:
        return NO_CODE_HOST
    host = _BEHIND_FIREWALLS.get(host.lower(), host.lower())
    kind = _PUBLIC.get(host) or next((_WORDS[word] for word in re.split(r"[.-]", host) if word in _WORDS), "")
    folders = path.rstrip("/").removesuffix(".git").split("/")
    is_plain = _HOST.fullmatch(host) and all(map(_FOLDER.fullmatch, folders))
    if not kind or not is_plain or (len(folders) < 2 if kind == "gitlab" else len(folders) != 2):
        return NO_CODE_HOST
    address = f"{host}:{port}" if scheme == "https" and port not in (None, "443") else host
    return CodeHost(f"https://{address}/{'/'.join(folders)}", kind)


def find_code_host(root: str, remote: str) -> CodeHost:
    """Return where the commits of a remote of this repository are shown, NO_CODE_HOST where that is not known."""
    if not remote:
        return NO_CODE_HOST
    ran = run_git(root, ("remote", "get-url", "--", remote))()
    return parse_remote(ran.out.decode("utf-8", "replace").strip()) if not ran.code else NO_CODE_HOST
