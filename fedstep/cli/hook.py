"""The pre-push hook of a clone: its script, its installation beside an existing hook, and its commands."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click

import fedstep
from fedstep.cli.options import HISTORY, PART, REPORTS, STRICT, option
from fedstep.cli.output import echo_result, echo_warnings, exit_code
from fedstep.errors import HistoryError, InputError, UsageError
from fedstep.history.project_store import write_atomically
from fedstep.ingest.git_process import (
    SECONDS_EACH,
    GitResult,
    common_folder,
    explain_failure,
    repository_root,
    safe_environment,
)
from fedstep.pipeline.context import normalize_part

MARK = "# written by `fedstep hook install`"
BEFORE = "pre-push.before-fedstep"

# The refs arrive on stdin once, and two programs want them. `x` keeps the last line's end, which $( ) would eat.
SCRIPT = """#!/bin/sh
{mark}; `fedstep hook uninstall` removes it.
refs=$(cat; printf x)
refs=${{refs%x}}
before=$(dirname "$0")/{before}
if [ -x "$before" ]; then
    printf %s "$refs" 2>/dev/null | "$before" "$@" || exit $?
fi
{python}if command -v fedstep >/dev/null 2>&1; then
    set -- fedstep hook run{options} -- "$@"
else
    echo "fedstep is not installed any more, nothing is predicted: install it, or delete $0" >&2
    exit 0
fi
printf %s "$refs" 2>/dev/null | "$@" >&2 || exit {failed}
"""
PYTHON = """if [ -x {python} ]; then
    set -- {python} -P -m fedstep hook run{options} -- "$@"
el"""  # -P: a module of the repository is not taken for one of ours


class Hook(NamedTuple):
    """The pre-push hook of a clone: where git looks for it, and what is there."""

    path: str
    state: str  # none, ours, other
    before: bool  # a hook that ours runs first is kept beside it
    shared: bool  # the folder is outside the clone: other clones have it, too
    tracked: bool  # the folder is in the work tree

    @property
    def kept(self) -> str:
        """Return the path of the hook that was there before."""
        return os.path.join(os.path.dirname(self.path), BEFORE)


def find_hook(root: str, common: str) -> Hook:
    """Return the pre-push hook of the clone at `root`, whose worktrees share the folder `common`. Raises InputError."""
    folder = _hooks_folder(root)
    path = os.path.join(folder, "pre-push")
    state = ("ours" if is_ours(path) else "other") if os.path.lexists(path) else "none"
    in_git, in_tree = _inside(folder, common), _inside(folder, root)
    before = os.path.lexists(os.path.join(folder, BEFORE))
    return Hook(path, state, before, not in_git and not in_tree, in_tree and not in_git)


def install(hook: Hook, strict: bool = False, part: str = "") -> None:
    """Write the hook; an existing one is kept beside it and runs first. Raises InputError and UsageError."""
    if os.path.basename(os.path.dirname(hook.path)) == "_":
        remedy = "Add the line `fedstep hook run` to your own pre-push file beside that folder"
        raise UsageError(f"{hook.path} is written by Husky, which would overwrite it", remedy)
    if hook.state == "other" and hook.before:
        raise InputError(f"{hook.path} has replaced ours, and {hook.kept} is the one before", "Delete one of them")
    content = script(strict, part, "" if hook.tracked else sys.executable)
    try:
        os.makedirs(os.path.dirname(hook.path), exist_ok=True)
        if hook.state == "other":
            os.rename(hook.path, hook.kept)
        _write(hook, content.encode())
    except (OSError, HistoryError) as error:
        raise InputError(f"{hook.path} cannot be written: {error}") from error


def uninstall(hook: Hook) -> None:
    """Remove the hook, and restore the one that was there before. Raises InputError."""
    if hook.state != "ours":
        raise InputError(f"{hook.path} is not ours", "Nothing to do" if hook.state == "none" else "It is left as it is")
    try:
        if hook.before:
            os.replace(hook.kept, hook.path)
        else:
            os.remove(hook.path)
    except OSError as error:
        raise InputError(f"{hook.path} cannot be removed: {error.strerror}") from error


def something_pushed(lines: Iterable[bytes]) -> bool:
    """Return whether git's lines on standard input name a commit: a push of deletions, or of nothing, starts no build.

    >>> something_pushed([b"(delete) 0000 refs/heads/old 4f9a"])
    False
    """
    refs = (line.split() for line in lines)
    return any(len(words) == 4 and words[1].strip(b"0") for words in refs)


def script(strict: bool, part: str, python: str) -> str:
    """Return the hook's text; `python` is the interpreter with fedstep, "" if the file is shared with other people."""
    options = f"{' --strict' if strict else ''}{f' --path {shlex.quote(part)}' if part else ''}"
    quoted = shlex.quote(python.replace("\\", "/"))
    return SCRIPT.format(
        mark=MARK,
        before=BEFORE,
        options=options,
        python=PYTHON.format(python=quoted, options=options) if python else "",
        failed="$?" if strict else "0",
    )


def is_ours(path: str) -> bool:
    """Return whether fedstep wrote the hook at this path."""
    try:
        with open(path, "rb") as file:
            return MARK.encode() in file.read(200)
    except OSError:
        return False


def _write(hook: Hook, content: bytes) -> None:
    """Write the script; if that fails, restore the hook that was there."""
    try:
        write_atomically(hook.path, content)
        os.chmod(hook.path, 0o755)
    except (OSError, HistoryError):
        if hook.state == "other":
            os.replace(hook.kept, hook.path)
        raise


def _hooks_folder(root: str) -> str:
    """Return where git looks for hooks: `core.hooksPath`, else a folder that all worktrees share."""
    command = ("git", "-C", root, "rev-parse", "--git-path", "hooks")  # not run_git, which hides core.hooksPath
    try:
        ran = subprocess.run(command, capture_output=True, env=safe_environment(os.environ), timeout=SECONDS_EACH)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"git does not say where its hooks are: {error}", "Check that git works here") from error
    if ran.returncode != 0:
        raise InputError(
            explain_failure(GitResult(ran.returncode, b"", ran.stderr.decode("utf-8", "replace")), root).reason
        )
    return os.path.normpath(os.path.join(root, os.fsdecode(ran.stdout).removesuffix("\n")))


def _inside(path: str, folder: str) -> bool:
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(folder + os.sep)


NAMED = 3  # tests
ON_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
STATES = {"none": "not installed", "ours": "installed", "other": "not installed, another hook is there"}


@click.group()
def hook() -> None:
    """Predict the build that a push starts, before every push."""


@hook.command("install")
@PART
@STRICT
@click.pass_context
def install_hook(context: click.Context, /, part: str, strict: bool) -> int:
    """Write a pre-push hook; an existing hook is kept and runs first.

    \b
    Example: fedstep hook install
    """
    # `strict = true` in a file is meant for the CI, and `path` there is read at push: only the command line counts.
    if context.get_parameter_source("strict") != ON_COMMAND_LINE:
        strict = False
    if context.get_parameter_source("part") != ON_COMMAND_LINE:
        part = ""
    install(_find_hook(), strict, normalize_part(part))
    installed = _find_hook()
    _print_state(installed, "installed", "runs first")
    if installed.shared:
        folder = os.path.dirname(installed.path)
        echo_warnings(f"{folder} is outside this repository (core.hooksPath): the hook also runs in other repositories")
    return 0


@hook.command("uninstall")
def uninstall_hook() -> int:
    """Remove the hook, and restore the one that was there before.

    \b
    Example: fedstep hook uninstall
    """
    removed = _find_hook()
    uninstall(removed)
    _print_state(removed, "removed", "is back")
    return 0


@hook.command("status")
def status() -> int:
    """Show whether the hook is installed, and where; exit with 1 if it is not.

    \b
    Example: fedstep hook status
    """
    current = _find_hook()
    is_installed = current.state == "ours"
    _print_state(current, STATES[current.state], "runs first" if is_installed else "is kept beside it")
    return 0 if is_installed else 1


@hook.command("run")
@click.argument("remote", nargs=-1, metavar="[REMOTE URL]")
@option(
    "within",
    type=click.FloatRange(0.1),
    default=3.0,
    show_default=True,
    help="Maximum seconds; then skip the prediction.",
)
@REPORTS
@HISTORY
@PART
@STRICT
def run(remote: tuple[str, ...], within: float, junit: tuple[str, ...], history: str, part: str, strict: bool) -> int:
    """Print a short prediction, as the hook does; git passes REMOTE and URL, and the refs on standard input.

    \b
    Example: fedstep hook run
    """
    if remote and not something_pushed(sys.stdin.buffer):
        return 0
    with _time_limit(within, strict):
        return _print_prediction(junit, _locate_history(history), part, strict)


def _print_prediction(junit: tuple[str, ...], history: str, part: str, strict: bool) -> int:
    """Print the prediction with fewer tests than `fedstep predict` shows; return the exit code."""
    from fedstep.report.text import prediction_text

    prediction = fedstep.Project.discover(history=history, part=part).predict(junit)
    echo_warnings(*prediction.warnings)
    echo_result(prediction_text(prediction, most=NAMED))
    return exit_code(strict, prediction.problems)


def _locate_history(history: str) -> str:
    """Return the history of this worktree; if it has none, that of the main worktree."""
    root = repository_root(os.getcwd())
    if not root or history == "git" or os.path.exists(os.path.join(root, history)):
        return history
    of_main_worktree = os.path.join(os.path.dirname(common_folder(root)), history)
    return of_main_worktree if os.path.exists(of_main_worktree) else history


@contextmanager
def _time_limit(seconds: float, strict: bool) -> Iterator[None]:
    """End the process after this time, whatever it waits for, so that the push continues."""
    from threading import Timer

    def leave() -> None:
        echo_warnings(f"no prediction within {seconds:g} s")
        os._exit(InputError.exit_code if strict else 0)

    timer = Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print_state(hook: Hook, state: str, other: str) -> None:
    """Print the state of the hook, and of the one that was there before, if any."""
    echo_result(f"{hook.path} is {state}{f'; the one that was there before {other}' if hook.before else ''}\n")


def _find_hook() -> Hook:
    """Return the hook of the repository around the current folder. Raises InputError if there is no repository."""
    root = repository_root(os.getcwd())
    if not root:
        raise InputError("this is no git repository", "Run it inside a clone")
    return find_hook(root, common_folder(root))
