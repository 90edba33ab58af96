"""Run the command line: find commands, apply the configuration, print errors, choose exit codes."""

import os
import re
import signal
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

import click

from fedstep import __version__
from fedstep.cli.output import echo_warnings
from fedstep.errors import FedstepError, HistoryError, UsageError

EXIT_CODES = """Exit codes: 0 success, or degraded without --strict; 2 usage. With --strict: 3 reports or git,
4 history, 5 aggregator, 6 missing package. 130 interrupted, 143 terminated."""
TERMINATED = 143
STEPS = frozenset(("train", "predict", "triage", "push", "pull", "shard", "hook", "status"))  # must not fail a build

# The module of a command is imported when the command is called, which keeps the start-up of the others short.
MODULES = {
    "pipeline": ("train", "predict", "triage", "push", "pull", "trust", "status"),
    "select": ("order", "select", "plan", "shard"),
    "quarantine": ("verdict", "quarantine"),
    "history": ("history", "forget"),
    "report": ("report", "digest", "badge", "ack"),
    "diagnose": ("inspect", "explain", "doctor", "reports"),
    "mcp": ("mcp",),
    "hook": ("hook",),
    "backfill": ("backfill",),
    "serve": ("serve",),
    "server_admin": ("server",),
    "evaluate": ("demo", "simulate"),
}


class CommandGroup(click.Group):
    """The commands, each imported from its module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, in the order of a user's day."""
        return [name for names in MODULES.values() for name in names]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; name the nearest one where there is none of this name."""
        from fedstep.config import suggest

        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            remedy = suggest(args[0], self.list_commands(ctx))
            ctx.fail(f"no such command: {args[0]}. {remedy.replace('The options are', 'The commands are')}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of this name, None if there is none."""
        module = next((module for module, names in MODULES.items() if cmd_name in names), None)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"fedstep.cli.{module}"), cmd_name)
        return command


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the exit code."""
    if _open_missing_streams():
        echo_warnings("standard output is closed, the result is not printed")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # print names that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    with suppress(ValueError):  # not in the main thread, whose program handles signals itself
        signal.signal(signal.SIGTERM, _terminate)
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if "--json" in given or "--format" in given or "--format=json" in given:
            given = accept_both_formats(given)
        code = commands.main(args=given, prog_name="fedstep", standalone_mode=False) or 0
    except FedstepError as error:
        code = _code_of(error, given)
        echo_warnings(f"error: {error}")
    except click.ClickException as error:
        code = error.exit_code
        _with_remedy(error).show()
    except (click.Abort, KeyboardInterrupt):
        code = 130
        echo_warnings("interrupted")
    except OSError as error:  # of the machine: a folder that is gone, a disk that is full
        words = sys.argv[1:] if arguments is None else arguments
        code = 0 if words and words[0] in STEPS and not _is_strict(words, os.environ) else 1
        file_name = f" ({error.filename})" if error.filename else ""
        echo_warnings(f"error: {error.strerror or error}{file_name}")
    sys.exit(0 if code and _runs_before_a_push(sys.argv[1:] if arguments is None else arguments) else code)


REPORT_OPTIONS = frozenset(("--report", "--reports", "--xml", "--file", "--files", "--junit-report", "--test-results"))
QUOTE_GLOBS = (
    "Give reports with --junit, and a glob in quotes, which the shell leaves alone: --junit 'build/**/TEST-*.xml'"
)


def _with_remedy(error: click.ClickException) -> click.ClickException:
    """Return the error, of a command that reads reports with the place where they belong."""
    command = error.ctx.command if isinstance(error, click.UsageError) and error.ctx else None
    if command is None or not any("--junit" in each.opts for each in command.params):
        return error
    if isinstance(error, click.NoSuchOption) and error.option_name in REPORT_OPTIONS:
        return click.UsageError(f"No such option '{error.option_name}'. Did you mean '--junit'?", error.ctx)
    if isinstance(error, click.UsageError) and "unexpected extra argument" in error.message:
        return click.UsageError(f"{error.message}. {QUOTE_GLOBS}", error.ctx)
    return error


def _code_of(error: FedstepError, arguments: Sequence[str]) -> int:
    """Return the exit code: 0 for a history that a change of the repository made unusable, in a step of a CI build.

    The status is then written for GitHub Actions, because the step ends before it writes its outputs.
    """
    command = arguments[0] if arguments else None
    if not isinstance(error, HistoryError) or not _survives_checkout(command, os.environ, arguments):
        return error.exit_code
    if path := os.environ.get("GITHUB_OUTPUT"):
        with suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write("status=degraded\n")
    return 0


def _open_missing_streams() -> bool:
    """Open the null device for each standard stream that is closed; return whether standard output is one.

    Otherwise the next file that is opened would get its number, and what is printed.
    """
    is_closed = sys.stdout is None
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r", encoding="utf-8"))  # noqa: SIM115
    return is_closed


def _runs_before_a_push(arguments: Sequence[str]) -> bool:
    """Return whether these are the arguments of a hook that must not stop a push, whatever is wrong."""
    return tuple(arguments[:2]) == ("hook", "run") and "--strict" not in arguments


def _terminate(signal_number: int, _frame: object) -> NoReturn:
    """Exit as after an error, which ends git and removes temporary files; a second signal ends the process at once."""
    signal.signal(signal_number, signal.SIG_DFL)
    raise SystemExit(TERMINATED)


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Options can also be set by FEDSTEP_<OPTION>, in .fedstep.toml, and in [tool.fedstep] of pyproject.toml. "
    + EXIT_CODES
    + " 1: the verdict is that the build fails. --json and --format json mean the same everywhere.",
)
@click.version_option(__version__, prog_name="fedstep")
@click.pass_context
def commands(context: click.Context) -> None:
    """Predict flaky tests, build duration and failures; learn with other projects by sharing only coefficients.

    \b
    Example: fedstep predict
    """
    from fedstep.config import read_config
    from fedstep.ingest.git_process import repository_root

    name = context.invoked_subcommand
    try:
        folder = os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "the working folder does not exist any more") from error
    try:
        values = read_config(repository_root(folder) or folder, _option_types)
    except UsageError as error:
        if not _survives_checkout(name, os.environ, sys.argv):
            raise
        echo_warnings(f"{error} The defaults are used")
        values = {}
    command = commands.get_command(context, name) if values and name else None
    context.default_map = {name: _defaults(command, values)} if name and command else {}


BUILD_STEPS = ("predict", "train", "triage", "verdict", "push", "pull")
CI_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD", "BUILDKITE", "FEDSTEP_CI_RUN")


def _survives_checkout(command: str | None, environment: Mapping[str, str], arguments: Sequence[str]) -> bool:
    """Return whether what is wrong with a checkout is only warned of: in a step of a CI build, without --strict."""
    is_step = command in BUILD_STEPS and any(map(environment.get, CI_VARIABLES))
    return is_step and not _is_strict(arguments, environment)


def _is_strict(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a step is to fail on a fault, by its option or the variable of that option."""
    return "--strict" in arguments or environment.get("FEDSTEP_STRICT", "").lower() in ("1", "true", "yes", "on")


def accept_both_formats(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--json` or `--format json` in the spelling that the command has."""
    group: click.Command | None = commands
    for word in arguments:
        if isinstance(group, click.Group) and not word.startswith("-"):
            group = group.get_command(click.Context(group), word)
    names = {parameter.name for parameter in group.params} if group else set()
    text = "\0".join(arguments)
    if "as_json" in names:
        text = re.sub("--format(?:=|\0)json(?=\0|$)", "--json", text)
    elif "output_format" in names:
        text = re.sub("(?<![^\0])--json(?=\0|$)", "--format\0json", text)
    return text.split("\0") if arguments else []


def iter_commands(
    group: click.Group | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that is not a group, with the words that call it: `("history", "show")`."""
    group = group or commands
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from iter_commands(command, (*path, name))
            elif command:
                yield (*path, name), command


def _option_types(keys: Collection[str]) -> Mapping[str, type]:
    """Return the types of these options in a configuration file; if one does not exist, those of all options.

    Modules of commands are loaded until all keys are found: the options of `train` and `predict` need only one.
    """
    types: dict[str, type] = {}
    for _, command in iter_commands():
        types |= {name: _option_type(parameter) for name, parameter in _long_options(command).items()}
        if types.keys() >= set(keys):
            break
    return types


def _option_type(parameter: click.Parameter) -> type:
    if parameter.multiple:
        return list
    return {"boolean": bool, "integer range": int, "float range": float}.get(parameter.type.name, str)


def _defaults(command: click.Command, values: Mapping[str, object]) -> dict[str, object]:
    """Return the configuration as click's default map for this command and those below it."""
    if isinstance(command, click.Group):
        return {name: _defaults(each, values) for name, each in command.commands.items()}
    known = _long_options(command)
    return {known[key].name or key: value for key, value in values.items() if key in known}


def _long_options(command: click.Command) -> Mapping[str, click.Parameter]:
    """Return the parameters that have a long option, by its name without the dashes."""
    return {p.opts[0][2:]: p for p in command.params if p.opts[0][:2] == "--"}
