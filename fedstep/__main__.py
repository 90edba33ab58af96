"""Run `fedstep` as `python -m fedstep`."""

from fedstep.cli import main

main()
