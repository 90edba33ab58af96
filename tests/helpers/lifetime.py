"""Processes that end with the test run: also with one that was killed, which has no time to stop what it started."""

import shutil
import subprocess
import time
from pathlib import Path

__all__ = ["bound", "url_of"]


def bound(*words: object) -> list[str]:
    """The command that runs these words and is asked to end (SIGTERM) when the thread that started it is gone.

    It keeps its pid. Where there is no `setpriv` (util-linux), the words as they are.
    """
    setpriv = shutil.which("setpriv")
    return [*((setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()), *map(str, words)]


def url_of(server: "subprocess.Popen[bytes]", log: Path) -> str:
    """The URL of an aggregator that was started with this log, once it serves. AssertionError with the log, if not."""
    end = time.monotonic() + 30
    while "aggregator on " not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return log.read_text().partition("aggregator on ")[2].partition(",")[0]
