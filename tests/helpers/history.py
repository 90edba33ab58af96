"""What the tests of travelling histories share: a real remote, clones of it, and builds to publish."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fedstep.history.git_ref import REF, GitChannel
from fedstep.history.git_sync import PublishResult, fetch_and_import, open_channel, publish
from fedstep.history.merge import ImportResult
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord
from fedstep.types import BuildOutcome

NOW = 1_795_000_000.0
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_ALLOW_PROTOCOL": "file",
}


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """What git printed in this folder."""
    command = ("git", "-C", str(folder), *arguments)
    ran = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, input=stdin, timeout=30)
    return ran.stdout.decode()


@dataclass(frozen=True)
class Clone:
    """A clone on one machine, with the home that its history has there."""

    root: Path
    part: str = ""

    @property
    def home(self) -> ProjectStore:
        folder = Path(git(self.root, "rev-parse", "--path-format=absolute", "--git-common-dir").strip())
        return ProjectStore(str(folder / "fedstep" / "parts" / self.part if self.part else folder / "fedstep"))

    @property
    def channel(self) -> GitChannel:
        return open_channel(str(self.root), self.part)

    def record(self, number: int, month: int = 0) -> str:
        """Record a build and return its file's name."""
        self.home.prepare()
        at = NOW + number * 60 - month * 31 * 86_400
        return self.home.log.append(BuildRecord(f"{number:032x}", at, at + 30, 30.0, "unit||mark", BuildOutcome.PASSED))

    def publish(self, keep: int = 0, seconds: float = 30.0) -> PublishResult:
        return publish(self.home, self.channel, keep, NOW, seconds, waits=(0.01,) * 8)

    def receive(self, seconds: float = 30.0) -> ImportResult:
        return fetch_and_import(self.home, self.channel, seconds, NOW)


def new_remote(folder: Path, *options: str) -> Path:
    """A bare repository with two commits on main."""
    remote, first = folder / "remote.git", folder / "first"
    git(folder, "init", "-q", "--bare", "-b", "main", *options, str(remote))
    git(folder, "init", "-q", "-b", "main", *options, str(first))
    for number in range(2):
        git(first, "commit", "-q", "--allow-empty", "-m", f"change {number}")
    git(first, "push", "-q", str(remote), "main")
    return remote


def clone(remote: Path, root: Path, *options: str) -> Clone:
    """A clone through the protocol, as from another machine."""
    git(remote, "clone", "-q", *options, remote.as_uri(), str(root))
    return Clone(root)


def listed(repository: Path) -> list[str]:
    """The files of the ref."""
    return git(repository, "ls-tree", "-r", "--name-only", REF).splitlines()


def recorded(repository: Path) -> list[str]:
    """The record files of the ref."""
    return sorted(path.rpartition("/")[2] for path in listed(repository) if path.endswith(".rec"))


def rewrite(repository: Path, *lines: str) -> None:
    """Replace the ref by a commit whose root holds these lines of `git mktree`, besides what it holds."""
    there = git(repository, "ls-tree", REF)
    tree = git(repository, "mktree", "--missing", stdin=(there + "".join(f"{line}\n" for line in lines)).encode())
    git(repository, "update-ref", REF, git(repository, "commit-tree", tree.strip(), "-m", "by hand").strip())


def blob(repository: Path, content: bytes) -> str:
    """The id of a new object with this content."""
    return git(repository, "hash-object", "-w", "--stdin", stdin=content).strip()
