"""The pre-push hook of a clone: its script, and how it is put beside a hook that is there already and taken away."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from fedstep.cli.options import HISTORY, PART, REPORTS, STRICT, Options, option
from fedstep.cli.output import echo_result, echo_warnings
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
    """Where a clone has its pre-push hook, and what stands there."""

    path: str
    state: str  # none, ours, other
    before: bool  # a hook that ours runs first is kept beside it
    shared: bool  # the folder is outside the clone: other clones have it, too
    tracked: bool  # the folder is in the work tree

    @property
    def kept(self) -> str:
        """Where the hook that was there before is kept."""
        return os.path.join(os.path.dirname(self.path), BEFORE)


def find_hook(root: str, common: str) -> Hook:
    """The pre-push hook of the clone at `root`, whose worktrees share the folder `common`. Raises InputError."""
    folder = _hooks_folder(root)
    path = os.path.join(folder, "pre-push")
    state = ("ours" if is_ours(path) else "other") if os.path.lexists(path) else "none"
    in_git, in_tree = _inside(folder, common), _inside(folder, root)
    before = os.path.lexists(os.path.join(folder, BEFORE))
    return Hook(path, state, before, not in_git and not in_tree, in_tree and not in_git)


def install(hook: Hook, strict: bool = False, part: str = "") -> None:
    """Write our hook; one that is there is kept beside it and runs first. Raises InputError and UsageError."""
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
    """Remove our hook and put the one that was there before back. Raises InputError."""
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
    """Whether git's lines on the hook's stdin name a commit: a push of deletions, or of nothing, starts no build.

    >>> something_pushed([b"(delete) 0000 refs/heads/old 4f9a"])
    False
    """
    refs = (line.split() for line in lines)
    return any(len(words) == 4 and words[1].strip(b"0") for words in refs)


def script(strict: bool, part: str, python: str) -> str:
    """The hook's text; `python` is the one that has fedstep, "" where other people get the file, too."""
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
    """Whether the hook at this path is one of ours."""
    try:
        with open(path, "rb") as file:
            return MARK.encode() in file.read(200)
    except OSError:
        return False


def _write(hook: Hook, content: bytes) -> None:
    """Write the script; where that fails, the hook that was there is back."""
    try:
        write_atomically(hook.path, content)
        os.chmod(hook.path, 0o755)
    except (OSError, HistoryError):
        if hook.state == "other":
            os.replace(hook.kept, hook.path)
        raise


def _hooks_folder(root: str) -> str:
    """Where git looks for hooks: `core.hooksPath`, else a folder that all worktrees share."""
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
    from fedstep.cli.session import part_of

    # `strict = true` in a file is meant for the CI, and `path` there is read at every push.
    typed = {key: value for key, value in given.items() if context.get_parameter_source(key) == TYPED}
    install(_found(), bool(typed.get("strict")), part_of(typed))
    now = _found()
    _tell(now, "installed", "runs first")
    if now.shared:
        echo_warnings(
            f"{os.path.dirname(now.path)} is outside this repository (core.hooksPath): the hook runs in others, too"
        )
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


def _foretold(given: Options) -> int:
    """Print what `fedstep predict` says, with fewer tests; the exit code."""
    from fedstep.cli.output import exit_code
    from fedstep.cli.session import context_from, fetch_history, with_readable_store
    from fedstep.federation.model_cache import load_model
    from fedstep.pipeline.context import start_build_context
    from fedstep.pipeline.predict import predict
    from fedstep.report.text import prediction_text

    place = context_from({**given, "history": _history(given)})
    situation = start_build_context(place, given["junit"])
    place, problems = with_readable_store(place)
    problems = problems or fetch_history(given, place)
    prediction = predict(place.store, situation, load_model(place.store), problems)
    echo_warnings(*prediction.warnings)
    echo_result(prediction_text(prediction, most=NAMED))
    return exit_code(given, prediction.problems)


def _history(given: Options) -> str:
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
        echo_warnings(f"no prediction within {seconds:g} s")
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
    echo_result(f"{hook.path} is {state}{f'; the one that was there before {other}' if hook.before else ''}\n")


def _found() -> Hook:
    """The hook of the repository around the current folder. Raises InputError where there is none."""
    root = repository_root(os.getcwd())
    if not root:
        raise InputError("this is no git repository", "Run it inside a clone")
    return find_hook(root, common_folder(root))
