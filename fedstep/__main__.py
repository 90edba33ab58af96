"""Run `fedstep`, as a command or as `python -m fedstep`."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

SHORT = ("predict", "order", "select", "plan", "shard")  # no thread, no temporary file, nothing to do at exit


def main() -> NoReturn:
    """Run the command line without collecting cycles: a step is over before that pays, and half its time is imports.

    A short command that succeeded ends at once: to free everything first would take a tenth of its time.
    """
    gc.disable()
    from fedstep.cli.main import main as run

    try:
        run()
    except SystemExit as ended:
        if ended.code == 0 and sys.argv[1:2] and sys.argv[1] in SHORT:
            with suppress(OSError, ValueError):  # Python reports these as it always does
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
        raise


if __name__ == "__main__":
    main()
