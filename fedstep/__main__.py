"""Run `fedstep`, as a command or as `python -m fedstep`."""

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line without collecting cycles: a step is over before that pays, and half its time is imports."""
    gc.disable()
    from fedstep.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
