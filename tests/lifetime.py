"""Processes that end with the test run: also with one that was killed, which has no time to stop what it started."""

import shutil

__all__ = ["bound"]


def bound(*words: object) -> list[str]:
    """The command that runs these words and is asked to end (SIGTERM) when the thread that started it is gone.

    It keeps its pid. Where there is no `setpriv` (util-linux), the words as they are.
    """
    setpriv = shutil.which("setpriv")
    return [*((setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()), *map(str, words)]
