"""Before a push: a prediction in the terminal, from a hook of git."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from fedstep.build.gitrun import common_folder, repository_root
from fedstep.commands.options import HISTORY, PART, REPORTS, STRICT, Given, option
from fedstep.commands.sinks import say, show
from fedstep.errors import InputError
from fedstep.prepush import Hook, find_hook, install, something_pushed, uninstall

__all__ = ["hook"]

NAMED = 3  # tests
TYPED = click.core.ParameterSource.COMMANDLINE
STATES = {"none": "not installed", "ours": "installed", "other": "not installed, another hook is there"}


@click.group()
def hook() -> None:
    """Say before every push what to expect of the build that it starts."""


@hook.command("install")
@PART
@STRICT
@click.pass_context
def install_hook(context: click.Context, /, **given: Any) -> int:
    """Write a pre-push hook; one that is there stays and runs first.

    \b
    Example: fedstep hook install
    """
    from fedstep.commands.place import part_of

    # `strict = true` in a file is meant for the CI, and `path` there is read at every push.
    typed = {key: value for key, value in given.items() if context.get_parameter_source(key) == TYPED}
    install(_found(), bool(typed.get("strict")), part_of(typed))
    now = _found()
    _tell(now, "installed", "runs first")
    if now.shared:
        say(f"{os.path.dirname(now.path)} is outside this repository (core.hooksPath): the hook runs in others, too")
    return 0


@hook.command("uninstall")
def uninstall_hook() -> int:
    """Remove the hook; one that was there before is back.

    \b
    Example: fedstep hook uninstall
    """
    found = _found()
    uninstall(found)
    _tell(found, "removed", "is back")
    return 0


@hook.command("status")
def status() -> int:
    """Say whether the hook is installed, and where; exit code 1 where it is not.

    \b
    Example: fedstep hook status
    """
    found = _found()
    ours = found.state == "ours"
    _tell(found, STATES[found.state], "runs first" if ours else "is kept beside it")
    return 0 if ours else 1


@hook.command("run")
@click.argument("remote", nargs=-1, metavar="[REMOTE URL]")
@option("within", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Seconds, else no prediction.")
@REPORTS
@HISTORY
@PART
@STRICT
def run(**given: Any) -> int:
    """What the hook runs: say what to expect, in a few lines; git gives it REMOTE, URL and the refs on stdin.

    \b
    Example: fedstep hook run
    """
    if given["remote"] and not something_pushed(sys.stdin.buffer):
        return 0
    with _at_most(given["within"], given["strict"]):
        return _foretold(given)


def _foretold(given: Given) -> int:
    """Print what `fedstep predict` says, with fewer tests; the exit code."""
    from fedstep.commands.place import place_of, readable
    from fedstep.commands.sinks import exit_code
    from fedstep.commands.travel import fetched
    from fedstep.federation.kept import kept_model
    from fedstep.report.text import prediction_text
    from fedstep.steps import foresee
    from fedstep.workplace import start_situation

    place = place_of({**given, "history": _history(given)})
    situation = start_situation(place, given["junit"])
    place, problems = readable(place)
    problems = problems or fetched(given, place)
    prediction, problems = foresee(place.home, situation, kept_model(place.home), problems)
    say(*prediction.warnings)
    show(prediction_text(prediction, most=NAMED))
    return exit_code(given, problems)


def _history(given: Given) -> str:
    """The history of this worktree; where it has none, that of the main one."""
    root, folder = repository_root(os.getcwd()), str(given["history"])
    if not root or folder == "git" or os.path.exists(os.path.join(root, folder)):
        return folder
    main = os.path.join(os.path.dirname(common_folder(root)), folder)
    return main if os.path.exists(main) else folder


@contextmanager
def _at_most(seconds: float, strict: bool) -> Iterator[None]:
    """Leave the process after this time, whatever it waits for: a push is not kept waiting."""
    from threading import Timer

    def leave() -> None:
        say(f"no prediction within {seconds:g} s")
        os._exit(InputError.exit_code if strict else 0)

    timer = Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(hook: Hook, state: str, other: str) -> None:
    """Say how our hook is, and the one that was there before, if any."""
    show(f"{hook.path} is {state}{f'; the one that was there before {other}' if hook.before else ''}\n")


def _found() -> Hook:
    """The hook of the repository around the current folder. Raises InputError where there is none."""
    root = repository_root(os.getcwd())
    if not root:
        raise InputError("this is no git repository", "Run it inside a clone")
    return find_hook(root, common_folder(root))
