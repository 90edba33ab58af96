"""Run git so that a repository cannot make it run, write or fetch anything (`run_git`, `GitRunner`).

`run_remote_git` may contact a remote, but asks no questions.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from fedstep.files import read_bounded
from fedstep.types import Unavailable

if sys.platform == "linux":
    import resource

SECONDS_EACH = 5.0
SECONDS_TOTAL = 10.0
NOT_INSTALLED, TIMED_OUT = 127, 124  # exit codes that GitResult uses where git has none
_FETCH_LIMIT = 256 * 1024
_MOST_MEMORY = 1 << 30  # bytes; git reads attributes and grafts whole, also where a link makes a device of them
_MOST_OUTPUT = 128 << 20  # bytes, of a million files; a commit or a line may have any length
_LOOK_SECONDS = 0.1  # between looks at how much was read
_MIN_WAIT = 0.2  # seconds; a finished process is still collected when its caller comes after the deadline

# From git 2.54 on, hooks are in the configuration, too. These are the events of what is run here, and of a push into a
# folder of this machine.
_HOOK_EVENTS = (
    *("reference-transaction", "post-index-change", "pre-auto-gc", "pre-push"),
    *("pre-receive", "update", "post-receive", "post-update", "proc-receive", "push-to-checkout"),
)
# The command line outranks every configuration file, so a repository cannot turn these back on.
_SAFE_OPTIONS = (
    "--no-optional-locks",
    "--no-pager",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=" + os.devnull),
    *("-c", "diff.external="),
    *("-c", "diff.autoRefreshIndex=false"),  # git diff writes the index in spite of --no-optional-locks
    *("-c", "log.showSignature=false"),  # git log would run gpg.program
    *("-c", "core.alternateRefsCommand="),
    *("-c", "core.askPass="),  # a program of the environment, GIT_ASKPASS, takes precedence
    *("-c", "submodule.recurse=false"),
    *("-c", "safe.bareRepository=explicit"),
    *(word for event in _HOOK_EVENTS for word in ("-c", f"hook.{event}.enabled=false")),
)
# `git push` into a folder of this machine, which may be of an archive, forgets our options for the process that
# receives. A branch that is checked out there would be written to its files, through filters of that folder.
RECEIVE_PACK = " ".join(
    (
        *("git", *_SAFE_OPTIONS, "-c", "receive.autogc=false", "-c", "gc.auto=0"),
        *("-c", "receive.denyCurrentBranch=ignore", "-c", "receive.denyDeleteCurrent=ignore", "receive-pack"),
    )
)
# Keys of a clone's configuration that name a program, or a file to write, under names that the clone chooses. Those
# with fixed names are in _SAFE_OPTIONS.
_FILTER = re.compile(r"filter\..*\.(clean|smudge|process)")
_SERVED_BY = re.compile(r"remote\..*\.(uploadpack|receivepack)")  # of several values the first counts
_COOKIES = re.compile(r"http\.(.*\.)?savecookies")
_HOOK = re.compile(r"hook\..*\.command")  # git 2.54 turns hooks off by their names alone
_STEERING = "|".join(f"^{key.pattern}$" for key in (_FILTER, _SERVED_BY, _COOKIES, _HOOK))
_STEERING_WORDS = (b"filter", b"include", b"uploadpack", b"receivepack", b"savecookies", b"hook")
# Programs that the package git-lfs registers in a clone; without them git calls each of its files changed.
_LFS = frozenset(
    f"git-lfs {words}"
    for words in ("clean -- %f", "smudge -- %f", "smudge --skip -- %f", "filter-process", "filter-process --skip")
)
# What only fedstep and the CI need: a program that the repository's configuration names must not find it.
_OWN_SECRETS = re.compile("FEDSTEP_.*TOKEN.*|ACTIONS_ID_TOKEN_REQUEST_.*|ACTIONS_RUNTIME_TOKEN")
_SECRETS = re.compile(f"{_OWN_SECRETS.pattern}|.*(TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE_?KEY|ACCESS_?KEY|API_?KEY).*")
_PROTOCOLS = "file:git:http:https:ssh"  # not ext, which runs any program, and no helper of another name
# Set by git for its hooks; they would make `fedstep predict` in a pre-push hook read another repository.
_HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_EXTERNAL_DIFF", "GIT_NAMESPACE")
_SAFE_VARIABLES = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch missing objects on demand
    "GIT_NO_LAZY_FETCH": "1",
}


class GitResult(NamedTuple):
    """Exit code and output of one git process."""

    code: int
    out: bytes = b""
    err: str = ""


Run = Callable[[str, tuple[str, ...], bytes, float], Callable[[], GitResult]]
"""(folder, arguments, standard input, seconds allowed) -> a function that waits for the process just started."""


def run_git(
    root: str, arguments: tuple[str, ...], stdin: bytes = b"", seconds: float = SECONDS_EACH
) -> Callable[[], GitResult]:
    """Start `git` in `root` and return a function that waits for its end, at most `seconds` after the start."""
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            git_command(root, arguments),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=safe_environment(root, os.environ),
        )
    except (OSError, ValueError) as error:
        ran = GitResult(NOT_INSTALLED, b"", str(error))
        return lambda: ran
    limit_memory(process)
    _feed(process, stdin)
    return lambda: _collect(process, deadline)


def git_command(root: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line that runs git in `root` without the repository's hooks and programs."""
    return ("git", *_SAFE_OPTIONS, "-C", root, *arguments)


def safe_environment(root: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a git that asks nothing, fetches nothing, and runs no program of the repository."""
    return _confine(root, _without(variables, _SECRETS) | _SAFE_VARIABLES)


def _without(variables: Mapping[str, str], secrets: re.Pattern[str]) -> dict[str, str]:
    """Return the variables without those of git's hooks, traces, and secrets."""
    return {
        name: value
        for name, value in variables.items()
        if name not in _HOOK_VARIABLES and not name.startswith("GIT_TRACE") and not secrets.fullmatch(name.upper())
    }


def _confine(root: str, variables: dict[str, str]) -> dict[str, str]:
    """Return the variables, and those with which git uses the repository at `root` without programs that it names."""
    variables = {
        **variables,
        # Where .git is damaged, git would look for a repository above, whose configuration is not read here.
        "GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.realpath(root)),
        "GIT_PROXY_COMMAND": variables.get("GIT_PROXY_COMMAND", ""),  # outranks core.gitProxy
    }
    count, pairs = variables.get("GIT_CONFIG_COUNT", "0"), _replacements(root)
    if not pairs or not count.isdigit():
        return variables
    for index, (key, value) in enumerate(pairs, int(count)):
        variables |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return variables | {"GIT_CONFIG_COUNT": str(int(count) + len(pairs))}


def _replacements(root: str) -> list[tuple[str, str]]:
    """Return values of configuration that turn off hooks, files for cookies, and filters but those of git-lfs."""
    steering = _steering(root)
    filters = [key for key, value in steering if _FILTER.fullmatch(key) and value not in _LFS]
    required = dict.fromkeys(key.rpartition(".")[0] + ".required" for key in filters)
    cookies = [key for key, _ in steering if _COOKIES.fullmatch(key)]
    hooks = [key.rpartition(".")[0] + ".enabled" for key, _ in steering if _HOOK.fullmatch(key)]
    return [*((key, "") for key in filters), *((key, "false") for key in (*required, *cookies, *hooks))]


@lru_cache(maxsize=16)
def _steering(root: str) -> tuple[tuple[str, str], ...]:
    """Return keys and values with which the configuration of this clone makes git run a program or write a file.

    The user's own configuration is the user's choice.
    """
    files = {"--local": f"{common_folder(root)}/config", "--worktree": f"{_git_folder(root)}/config.worktree"}
    variables = _without(os.environ, _SECRETS) | _SAFE_VARIABLES
    settings: list[str] = []
    for scope, file in files.items():
        if not any(word in _content(file) for word in _STEERING_WORDS):
            continue
        with suppress(OSError, subprocess.SubprocessError):
            command = ("git", "-C", root, "config", scope, "--includes", "-z", "--get-regexp", _STEERING)
            ran = subprocess.run(command, capture_output=True, env=variables, timeout=SECONDS_EACH, check=False)
            settings += ran.stdout.decode("utf-8", "surrogateescape").split("\0")
    pairs = (entry.partition("\n")[::2] for entry in sorted(set(settings)) if entry)
    return tuple((key, value) for key, value in pairs)


def _content(path: str) -> bytes:
    """Return the text of a configuration file in lower case, "" for a missing one."""
    with suppress(OSError):
        return read_bounded(path).lower()
    return b""


def _feed(process: subprocess.Popen[bytes], stdin: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except OSError:
        pass  # git ended before it read its input; its exit code and stderr tell why
    process.stdin = None


def limit_memory(process: subprocess.Popen[bytes]) -> None:
    """Limit what git, and each process that it starts, may allocate, where the system can do that; maps are not."""
    if sys.platform == "linux":
        with suppress(OSError):  # it has ended, or has a lower limit
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))


def _collect(process: subprocess.Popen[bytes], deadline: float) -> GitResult:
    deadline = max(deadline, time.monotonic() + _MIN_WAIT)
    ran = None
    while ran is None:
        try:
            out, err = process.communicate(timeout=min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            ran = GitResult(process.returncode, out, err.decode("utf-8", "replace"))
        except subprocess.TimeoutExpired as late:
            out = late.output or b""
            if len(out) > _MOST_OUTPUT or time.monotonic() >= deadline:
                process.kill()
                process.communicate()
                ran = GitResult(TIMED_OUT, b"", "timeout")
    if len(out) > _MOST_OUTPUT:
        return GitResult(128, b"", f"fatal: its output is larger than {_MOST_OUTPUT >> 20} MB")
    return ran


class GitRunner:
    """git in one folder, with one time budget over all its calls."""

    def __init__(self, root: str, run: Run) -> None:
        self.root = root
        self._run = run
        self._deadline = time.monotonic() + SECONDS_TOTAL

    def start(self, *arguments: str, stdin: bytes = b"") -> Callable[[], GitResult]:
        """Start one git process and return a function that waits for it."""
        seconds = min(SECONDS_EACH, self._deadline - time.monotonic())
        if seconds <= 0:
            return lambda: GitResult(TIMED_OUT, b"", "timeout")
        return self._run(self.root, arguments, stdin, seconds)


OLDEST_GIT = "2.29"
UNKNOWN_OPTION = re.compile(r"unknown (?:option|switch)|unrecognized argument", re.I)


def explain_failure(ran: GitResult, root: str) -> Unavailable:
    """Return why git failed, and what to do about it."""
    if ran.code == NOT_INSTALLED:
        return Unavailable("git is not installed or not on the PATH")
    if ran.code == TIMED_OUT:
        return Unavailable(f"git did not answer within {SECONDS_EACH:g} s")
    if remedy := owner_remedy(ran, root):
        return Unavailable(f"git refuses a folder of another owner; {remedy[:1].lower()}{remedy[1:]}")
    if "not a git repository" in ran.err or "must be run in a work tree" in ran.err:
        return Unavailable("not a git work tree")
    lines = ran.err.strip().splitlines()
    if unknown := next((line.strip() for line in lines if UNKNOWN_OPTION.search(line)), ""):  # its usage follows
        return Unavailable(f"git is too old ({unknown[:100]}): {OLDEST_GIT} or newer is needed, run: git --version")
    return Unavailable(f"git failed: {lines[-1][:200] if lines else f'exit code {ran.code}'}")


def owner_remedy(ran: GitResult, root: str) -> str:
    """Return the remedy where git refuses a folder of another owner, "" for any other failure."""
    if "dubious ownership" not in ran.err and "unsafe repository" not in ran.err:
        return ""
    return f"Run: git config --global --add safe.directory '{root}'"


def repository_root(start: str) -> str:
    """Return the nearest folder at or above `start` that has `.git` (a folder, or a file in worktrees), else ""."""
    folder = os.path.abspath(start)
    while True:
        if os.path.exists(folder + "/.git"):
            return folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return ""
        folder = parent


def has_tracked_files(root: str, folder: str) -> bool:
    """Return whether git tracks files below this folder of the repository, or of a submodule; False if it cannot tell.

    Letters are compared without case: on some systems a committed `.Fedstep` is the folder `.fedstep`. In containers
    the clone is often another user's, where git would refuse to answer.
    """
    inner = repository_root(folder)
    root = inner if inner.startswith(os.path.join(root, "")) else root
    path = f":(top,literal,icase){os.path.relpath(folder, root)}"
    ran = run_git(root, ("-c", "safe.directory=*", "ls-files", "-z", "--cached", "--", path))()
    return ran.code == 0 and bool(ran.out)


def is_shallow(root: str) -> bool:
    """Tell whether the clone at `root` is shallow, from a file of git, without a process."""
    return os.path.exists(common_folder(root) + "/shallow")


def may_have_upstream(root: str) -> bool:
    """Tell whether a branch of the clone at `root` may have an upstream, from the configuration file of git."""
    config = _content(f"{common_folder(root)}/config")
    return b"[branch" in config or b"include" in config


def is_partial(root: str) -> bool:
    """Tell whether the clone at `root` was made with a filter and lacks objects, from a file of git."""
    config = _content(f"{common_folder(root)}/config")
    return b"partialclone" in config or b"promisor" in config


def common_folder(root: str) -> str:
    """Return the folder of git that all worktrees of a repository share: objects, refs and configuration."""
    folder = _git_folder(root)
    return os.path.normpath(os.path.join(folder, _pointer(folder + "/commondir")))


def fetched_commit(root: str, branch: str) -> str:
    """Return the commit of `branch` in the last `git fetch`, for clones without remote branches; "" if unknown."""
    try:
        lines = read_bounded(_git_folder(root) + "/FETCH_HEAD").decode("utf-8", "replace")[:_FETCH_LIMIT].splitlines()
    except OSError:
        return ""
    return next((line.split("\t")[0] for line in lines if f"branch '{branch}' of " in line), "")


def _git_folder(root: str) -> str:
    linked = _pointer(root + "/.git").removeprefix("gitdir: ")  # a worktree's or a submodule's
    return os.path.join(root, linked or ".git")


def _pointer(path: str) -> str:
    """Return the path in a file of git, as git reads it: a line break inside is a part of the path."""
    try:
        return read_bounded(path, _FETCH_LIMIT).decode("utf-8", "surrogateescape").rstrip("\r\n")
    except OSError:
        return ""


_LONGEST_REMOTE = 86_400.0  # seconds; no process can be waited for `inf`
_TERMINATION_SECONDS = 0.3  # between SIGTERM and SIGKILL
_OPTIONS = (
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "push.followTags=false"),
    *("-c", "push.gpgSign=false"),
    *("-c", "push.recurseSubmodules=no"),
)
_NETWORK_VARIABLES = ("GIT_ALLOW_PROTOCOL", "GIT_NO_LAZY_FETCH")  # set to forbid it for every other git process
_NO_QUESTIONS = {"SSH_ASKPASS_REQUIRE": "never", "GCM_INTERACTIVE": "never"}
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def run_remote_git(
    root: str, arguments: tuple[str, ...], seconds: float, more: Mapping[str, str] | None = None, is_local: bool = False
) -> GitResult:
    """Run a git command that may contact a remote; it is terminated, with the code TIMED_OUT, after `seconds`.

    A remote that is a folder of this machine (`is_local`) needs no tokens, and a program that it names gets none.

    It is refused where the clone's configuration names a program for a remote: git runs it for a folder or a promisor.
    """
    if named := next((key for key, _ in _steering(root) if _SERVED_BY.fullmatch(key)), ""):
        return GitResult(128, b"", f"fatal: {named} in .git/config names a program, set it in your own configuration")
    try:
        process = subprocess.Popen(
            git_command(root, (*_OPTIONS, *arguments)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(root, os.environ, _SECRETS if is_local else _OWN_SECRETS) | dict(more or {}),
            # In a session of its own, ssh finds no terminal to ask on, and git's child processes can be terminated.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return GitResult(NOT_INSTALLED, b"", str(error))
    limit_memory(process)
    try:
        out, err = process.communicate(timeout=min(max(0.0, seconds), _LONGEST_REMOTE))
    except subprocess.TimeoutExpired:
        _terminate(process)
        return GitResult(TIMED_OUT, b"", "timeout")
    except BaseException:
        _terminate(process)
        raise
    return GitResult(process.returncode, out, err.decode("utf-8", "replace"))


def summarize_error(ran: GitResult) -> str:
    """Return git's error line, short, printable and without passwords in URLs."""
    lines = [line for line in ran.err.splitlines() if line.strip() and not line.startswith("hint:")]
    error_line = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
    printable = "".join(letter if letter.isprintable() else "?" for letter in error_line.strip()[:200])
    return _CREDENTIALS.sub("", printable) or f"exit code {ran.code}"


def _environment(root: str, variables: Mapping[str, str], secrets: re.Pattern[str]) -> dict[str, str]:
    # Git's own helpers may need the CI's other tokens.
    safe = _confine(root, _without(variables, secrets) | _SAFE_VARIABLES)
    safe = {name: value for name, value in safe.items() if name not in _NETWORK_VARIABLES}
    given = {name: variables[name] for name in _NETWORK_VARIABLES if name in variables}
    return safe | {"GIT_ALLOW_PROTOCOL": _PROTOCOLS} | given | _NO_QUESTIONS


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the process and its children; by SIGTERM first, on which git removes its locks."""
    for signal_number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(OSError):
            os.killpg(process.pid, signal_number) if hasattr(os, "killpg") else process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_TERMINATION_SECONDS)
            return
