"""The command line: which commands there are, configuration, errors, exit codes."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

import click

from fedstep import __version__
from fedstep.cli.output import echo_warnings
from fedstep.errors import FedstepError

EXIT_CODES = """Exit codes: 0 done, or degraded without --strict; 2 usage. With --strict: 3 reports or git,
4 history, 5 aggregator, 6 something is not installed. 130 interrupted, 143 terminated."""
TERMINATED = 143

# A command's module is loaded when the command is asked for: no command pays for the options of the others.
MODULES = {
    "pipeline": ("train", "predict", "triage", "push", "pull", "status"),
    "history": ("history",),
    "forget": ("forget",),
    "diagnose": ("inspect", "explain", "doctor", "reports"),
    "hook": ("hook",),
    "backfill": ("backfill",),
    "serve": ("serve", "server"),
    "evaluate": ("demo", "simulate"),
}


class CommandGroup(click.Group):
    """The commands, each loaded from its module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names, in the order of a user's day."""
        return [name for names in MODULES.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name."""
        module = next((module for module, names in MODULES.items() if cmd_name in names), None)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"fedstep.cli.{module}"), cmd_name)
        return command


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    with suppress(ValueError):  # not in the main thread: whoever runs us there has signals of their own
        signal.signal(signal.SIGTERM, _leave)
    try:
        code = commands.main(args=arguments, prog_name="fedstep", standalone_mode=False) or 0
    except FedstepError as error:
        code = error.exit_code
        echo_warnings(f"error: {error}")
    except click.ClickException as error:
        code = error.exit_code
        error.show()
    except (click.Abort, KeyboardInterrupt):
        code = 130
        echo_warnings("interrupted")
    sys.exit(code)


def _leave(number: int, _frame: object) -> NoReturn:
    """End as after an error, so that git is ended too and files are put away; a second signal ends the process."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(TERMINATED)


@click.group(
    cls=CommandGroup,
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
    from fedstep.config import read_config
    from fedstep.ingest.git_process import repository_root

    here = os.getcwd()
    values = read_config(repository_root(here) or here, _kinds)
    context.default_map = _defaults(values) if values else {}


def iter_commands(
    group: click.Group | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, by the words that call it: `("history", "show")`."""
    group = group or commands
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from iter_commands(command, (*path, name))
            elif command:
                yield (*path, name), command


def _kinds() -> Mapping[str, type]:
    """The type that each option has in a configuration file."""
    return {key: _kind_of(parameter) for _, command in iter_commands() for key, parameter in _long(command).items()}


def _kind_of(parameter: click.Parameter) -> type:
    if parameter.multiple:
        return list
    return {"boolean": bool, "integer range": int, "float range": float}.get(parameter.type.name, str)


def _defaults(values: Mapping[str, object]) -> dict[str, object]:
    """The configuration as click's default map: by command, in nested groups by each word."""
    defaults: dict[str, object] = {}
    for path, command in iter_commands():
        inner = defaults
        for word in path[:-1]:
            inner = inner.setdefault(word, {})  # type: ignore[assignment]
        known = _long(command)
        inner[path[-1]] = {known[key].name: value for key, value in values.items() if key in known}
    return defaults


def _long(command: click.Command) -> Mapping[str, click.Parameter]:
    """The parameters that have a long option, by its name without the dashes."""
    return {p.opts[0][2:]: p for p in command.params if p.opts[0][:2] == "--"}
