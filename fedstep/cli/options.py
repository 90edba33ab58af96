"""The options that commands share."""

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])
Options = dict[str, Any]  # option values by name, as click gives them


def option(name: str, *alias: str, **settings: Any) -> Callable[[F], F]:
    """An option that also comes from FEDSTEP_<NAME>; an alias is another word for it on the command line."""
    variable = f"FEDSTEP_{name.upper().replace('-', '_')}"
    return click.option(f"--{name}", *alias, name.replace("-", "_"), envvar=variable, **settings)


def option_variables(command: click.Command) -> frozenset[str]:
    """The variables that give an option of this command, or of one below it."""
    own = frozenset(each.envvar for each in command.params if isinstance(each.envvar, str))
    if not isinstance(command, click.Group):
        return own
    with click.Context(command) as context:
        below = (command.get_command(context, name) for name in command.list_commands(context))
        return own.union(*(option_variables(each) for each in below if each))


def explicit_options(*names: str) -> tuple[str, ...]:
    """Those of the running command's options that somebody gave: on the command line, in the environment, in a file."""
    source = click.get_current_context().get_parameter_source
    return tuple(f"--{name.replace('_', '-')}" for name in names if source(name) != ParameterSource.DEFAULT)


def combine(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, in the order of the help."""
    return lambda command: reduce(lambda done, decorate: decorate(done), reversed(decorators), command)


HISTORY = option(
    "history",
    metavar="DIR",
    default=".fedstep",
    show_default=True,
    help="Folder of the history, from the root; git: a ref of the repository.",
)
PART = option("path", metavar="PART", default="", help="Part of the repository with a history of its own.")
STRICT = option("strict", is_flag=True, help="Leave with an exit code when something failed.")
FORMAT = option(
    "format", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True, help="Of the output."
)
JUNIT = option("junit", metavar="GLOB", multiple=True, help="Test reports; ** matches any folders. Can be repeated.")
REPORTS = option("junit", metavar="GLOB", multiple=True, help="Test reports: untracked ones are no change of yours.")
OUTCOME = option(
    "outcome",
    type=click.Choice(["", "passed", "unstable", "failed"]),
    default="",
    help="How the job went, if its tests do not tell.",
)
NETWORK = combine(
    option("aggregator", metavar="URL", default="", help="Exchange coefficients with it. Without one: local only."),
    option("token", metavar="TOKEN", default="", help="For the aggregator; keep it in FEDSTEP_TOKEN."),
    option("timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds for one exchange."),
    option("budget", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds for everything."),
)
HELPER = combine(
    option("helper", metavar="URL", default="", help="Split updates: half to it, half to the aggregator."),
    option("helper-token", metavar="TOKEN", default="", help="For the helper; keep it in FEDSTEP_HELPER_TOKEN."),
)
STORE = option(
    "store",
    metavar="URL",
    default="sqlite:///fedstep.db",
    show_default=True,
    help="Database of the aggregator: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.",
)
