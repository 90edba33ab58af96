"""Running git where it may talk to a remote: within a time, asking nobody anything, leaving no process behind."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from fedstep.build.gitrun import Ran, command_of, safe_environment

__all__ = ["NOT_INSTALLED", "TIMED_OUT", "last_words", "talk"]

NOT_INSTALLED, TIMED_OUT = 127, 124
_PATIENCE = 0.3  # seconds between asking a process to end and ending it
_OPTIONS = (
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "push.followTags=false"),
    *("-c", "push.gpgSign=false"),
    *("-c", "push.recurseSubmodules=no"),
)
_FREED = ("GIT_ALLOW_PROTOCOL", "GIT_NO_LAZY_FETCH")  # taken away from every other git of ours
_NO_QUESTIONS = {"SSH_ASKPASS_REQUIRE": "never", "GCM_INTERACTIVE": "never"}
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def talk(root: str, arguments: tuple[str, ...], seconds: float, more: Mapping[str, str] | None = None) -> Ran:
    """What `git` said that may reach a remote, or that it was ended after so many seconds."""
    try:
        process = subprocess.Popen(
            command_of(root, (*_OPTIONS, *arguments)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(os.environ) | dict(more or {}),
            # A session of its own: ssh finds no terminal to ask on, and all that git started can be ended with it.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Ran(NOT_INSTALLED, b"", str(error))
    try:
        out, err = process.communicate(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        _end(process)
        return Ran(TIMED_OUT, b"", "timeout")
    except BaseException:
        _end(process)
        raise
    return Ran(process.returncode, out, err.decode("utf-8", "replace"))


def last_words(ran: Ran) -> str:
    """The last line that git said, short, printable and without a password in an address."""
    lines = [line for line in ran.err.splitlines() if line.strip() and not line.startswith("hint:")]
    words = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    shown = "".join(letter if letter.isprintable() else "?" for letter in words.strip()[:200])
    return _CREDENTIALS.sub("", shown) or f"exit code {ran.code}"


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    safe = {name: value for name, value in safe_environment(variables).items() if name not in _FREED}
    return safe | {name: variables[name] for name in _FREED if name in variables} | _NO_QUESTIONS


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all that it started; asked first, because git then takes its locks away."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(OSError):
            os.killpg(process.pid, number) if hasattr(os, "killpg") else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_PATIENCE)
            return
