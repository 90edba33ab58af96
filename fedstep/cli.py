"""The command line: options in, one call into the story, text and an exit code out."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from io import TextIOWrapper
from typing import Any, NoReturn, TypeVar

import click

from fedstep import __version__
from fedstep.errors import FedstepError

F = TypeVar("F", bound=Callable[..., Any])

EXIT_CODES = """Exit codes: 0 done, or degraded without --strict; 2 usage. With --strict: 3 reports or git,
4 history, 5 aggregator, 6 something is not installed. 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        code = commands.main(args=arguments, prog_name="fedstep", standalone_mode=False) or 0
    except FedstepError as error:
        code = error.exit_code
        say(f"error: {error}")
    except click.ClickException as error:
        code = error.exit_code
        error.show()
    except (click.Abort, KeyboardInterrupt):
        code = 130
        say("interrupted")
    sys.exit(code)


def say(*warnings: str) -> None:
    """Lines of talk on standard error."""
    from fedstep.report.text import warning_text

    click.echo(warning_text(warnings), err=True, nl=False)


def option(name: str, **settings: Any) -> Callable[[F], F]:
    """An option that also comes from FEDSTEP_<NAME>."""
    return click.option(f"--{name}", envvar=f"FEDSTEP_{name.upper().replace('-', '_')}", **settings)


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, in the order of the help."""
    return lambda command: reduce(lambda done, decorate: decorate(done), reversed(decorators), command)


def kind_of(parameter: click.Parameter) -> type:
    """The type that the option has in a configuration file."""
    if parameter.multiple:
        return list
    return {"boolean": bool, "integer range": int, "float range": float}.get(parameter.type.name, str)


HISTORY = option(
    "history", metavar="DIR", default=".fedstep", show_default=True, help="Folder of the history, from the root."
)
STRICT = option("strict", is_flag=True, help="Leave with an exit code when something failed.")
FORMAT = option(
    "format", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True, help="Of the output."
)
JUNIT = option("junit", metavar="GLOB", multiple=True, help="Test reports; ** matches any folders. Can be repeated.")
OUTCOME = option(
    "outcome",
    type=click.Choice(["", "passed", "unstable", "failed"]),
    default="",
    help="How the job went, if its tests do not tell.",
)
NETWORK = together(
    option("aggregator", metavar="URL", default="", help="Exchange coefficients with it. Without one: local only."),
    option("token", metavar="TOKEN", default="", help="For the aggregator; keep it in FEDSTEP_TOKEN."),
    option("timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds for one exchange."),
    option("budget", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds for everything."),
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Options also come from FEDSTEP_<OPTION>, from .fedstep.toml and from [tool.fedstep] in pyproject.toml. "
    + EXIT_CODES,
)
@click.version_option(__version__, prog_name="fedstep")
@click.pass_context
def commands(context: click.Context) -> None:
    """Predict flaky tests, build time and failures; learn with others without sharing anything but coefficients.

    \b
    Example: fedstep predict
    """
    from fedstep.build.gitrun import repository_root
    from fedstep.config import read_config

    here = os.getcwd()
    by_command = {
        name: {parameter.opts[0][2:]: parameter for parameter in command.params if parameter.opts[0][:2] == "--"}
        for name, command in commands.commands.items()
    }
    kinds = {key: kind_of(parameter) for options in by_command.values() for key, parameter in options.items()}
    values = read_config(repository_root(here) or here, kinds)
    context.default_map = {
        name: {parameter.name: values[key] for key, parameter in options.items() if key in values}
        for name, options in by_command.items()
    }


@commands.command()
@JUNIT
@NETWORK
@HISTORY
@option("keep", type=click.IntRange(1), default=500, show_default=True, help="Builds kept in the history.")
@OUTCOME
@FORMAT
@STRICT
def train(**given: Any) -> int:
    """Learn from the build that just ran, and exchange what was learned.

    \b
    Example: fedstep train --junit 'build/**/TEST-*.xml' --aggregator https://fedstep.example.org
    """
    from fedstep.run import run_train

    return run_train(given, say)


@commands.command()
@HISTORY
@FORMAT
@STRICT
def predict(**given: Any) -> int:
    """Say what to expect of the next build: its time, its risk, the tests most likely to flake.

    \b
    Example: fedstep predict --format json
    """
    from fedstep.run import run_predict

    return run_predict(given, say)


@commands.command()
@JUNIT
@HISTORY
@FORMAT
@STRICT
def triage(**given: Any) -> int:
    """Say of each failure in a report how likely it is flaky, and why.

    \b
    Example: fedstep triage --junit 'build/**/TEST-*.xml'
    """
    from fedstep.run import run_triage

    return run_triage(given, say)


@commands.command()
@NETWORK
@HISTORY
@STRICT
def push(**given: Any) -> int:
    """Send the updates that wait in the outbox.

    \b
    Example: fedstep push --aggregator https://fedstep.example.org
    """
    from fedstep.run import run_push

    return run_push(given, say)


@commands.command()
@NETWORK
@HISTORY
@STRICT
def pull(**given: Any) -> int:
    """Fetch the newest model, if there is a newer one.

    \b
    Example: fedstep pull --aggregator https://fedstep.example.org
    """
    from fedstep.run import run_pull

    return run_pull(given, say)


@commands.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), metavar="FOLDER")
@HISTORY
@STRICT
def backfill(**given: Any) -> int:
    """Learn from recorded builds: folders with a build.json and JUnit reports, oldest first.

    \b
    Example: fedstep backfill recorded-builds/
    """
    from fedstep.run import run_backfill

    return run_backfill(given, say)


@commands.command()
@option("host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 takes any free one.")
@option("store", metavar="URL", default="sqlite:///fedstep.db", show_default=True, help="Database of the aggregator.")
@option("tokens", metavar="LIST", default="", help="Accepted tokens, comma-separated; keep them in FEDSTEP_TOKENS.")
@option("buffer", type=click.IntRange(1), default=10, show_default=True, help="Updates folded at once.")
@option("wait", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds before fewer are folded.")
@option("projects", type=click.IntRange(1), default=1, show_default=True, help="Distinct projects that needs.")
@option("from-zero", is_flag=True, help="Begin with an empty model instead of the starter model.")
def serve(**given: Any) -> int:
    """Run the aggregator.

    \b
    Example: fedstep serve --store sqlite:///fedstep.db
    """
    from fedstep.run import run_serve

    return run_serve(given, say)


@commands.command()
@option("output", metavar="FILE", default="demo-report.html", show_default=True, help="Page to write.")
def demo(**given: Any) -> int:
    """Let recorded builds of real projects train and predict against an aggregator on this machine.

    \b
    Example: fedstep demo
    """
    from fedstep.run import run_demo

    return run_demo(given, say)
