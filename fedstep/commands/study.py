"""What shows that it works: the demonstration."""

from typing import Any

import click

from fedstep.commands.options import option
from fedstep.commands.sinks import say

__all__ = ["demo"]


@click.command()
@option("output", metavar="FILE", default="demo-report.html", show_default=True, help="Page to write.")
def demo(**given: Any) -> int:
    """Let recorded builds of real projects train and predict against an aggregator on this machine.

    \b
    Example: fedstep demo
    """
    from fedstep.simulate.demo import run

    return run(given["output"], say)
