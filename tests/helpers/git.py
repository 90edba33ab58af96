"""Real repositories for the tests of what git tells."""

import subprocess
from pathlib import Path

from fedstep.types import Change, CiRun, Unavailable

LOCAL = CiRun()


def git(folder: Path, *arguments: str) -> str:
    command = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "protocol.file.allow=always")
    return subprocess.run((*command, *arguments), cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, name: str, text: str | bytes = "one\ntwo\n") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def commit(folder: Path, name: str, text: str | bytes = "one\ntwo\n") -> str:
    write(folder, name, text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", name)
    return git(folder, "rev-parse", "HEAD")


def changed(found: Change | Unavailable) -> Change:
    assert isinstance(found, Change), found
    return found
