"""The command in a process that is forked from one with its modules loaded: to start takes milliseconds, not a second.

Such a process is one of its own: folder, environment, output and exit code are those of a real start. What a start
itself shows (the modules that it loads, limits, variables of the interpreter, signals) needs a real one.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, TypedDict

from tests.helpers.lifetime import bound

ROOT = Path(__file__).parents[2]
LARGEST = 1 << 17  # bytes of a request
POOR = "without-sklearn"  # a folder on the path of a machine on which scikit-learn is not installed
# What the commands of a build load on their way.
LOADED = (
    *("requests", "sklearn.linear_model", "jinja2", "fedstep.cli.main", "fedstep.pipeline.train"),
    *("fedstep.pipeline.shards", "fedstep.pipeline.selection", "fedstep.model.training", "fedstep.history.git_sync"),
    *("fedstep.federation.update_builder", "fedstep.report.markdown", "fedstep.report.json", "fedstep.report.html"),
    *("fedstep.importers.backfill_run", "fedstep.diagnostics.doctor", "fedstep.diagnostics.insights"),
)


class Request(TypedDict):
    """What to run."""

    arguments: list[str]
    cwd: str
    env: dict[str, str]
    now: float | None  # where its clock stands still, in seconds since the epoch


class Finished(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether nothing in these variables is read by the interpreter as it starts, but the path of POOR."""
    read = [name for name in env if name.startswith(("PYTHON", "COVERAGE"))]
    is_poor = read == ["PYTHONPATH"] and Path(env["PYTHONPATH"]).name == POOR
    return env.get("LC_ALL") == "C.UTF-8" and (not read or is_poor)


@cache
def _server(python_path: str) -> socket.socket:
    """The connection to the process of this test run that forks; it ends with the connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {**os.environ, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": python_path} if python_path else {}
    command = bound(sys.executable, "-m", "tests.helpers.prefork", str(theirs.fileno()))
    process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # before: the last one that is registered is the first that runs
    return ours


def run_forked(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], seconds: float, now: float | None = None
) -> Finished:
    """Run `fedstep` with these arguments, at the time `now`, in seconds since the epoch, if one is given.

    Raise TimeoutExpired where it does not end by itself in this time.
    """
    request = json.dumps(Request(arguments=list(arguments), cwd=str(cwd), env=dict(env), now=now)).encode()
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    ours, theirs = socket.socketpair()
    with (
        ours,
        open(out, encoding="utf-8") as out_file,
        open(err, encoding="utf-8") as err_file,
        ThreadPoolExecutor(2) as readers,
    ):
        socket.send_fds(_server(env.get("PYTHONPATH", "")), [request], [theirs.fileno(), out_end, err_end])
        theirs.close()
        for end in (out_end, err_end):
            os.close(end)
        texts = readers.submit(out_file.read), readers.submit(err_file.read)
        with ours.makefile() as answers:
            pid = int(answers.readline())
            ours.settimeout(seconds)
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), seconds) from None
        return Finished(code, texts[0].result(), texts[1].result())


def serve(connection: socket.socket) -> Sequence[str]:
    """Fork for each request. Return, in a forked process that is set up for it, the arguments of the command."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, LARGEST, 3)
        _reap()
        if not message:
            raise SystemExit(0)
        if os.fork() == 0:
            connection.close()
            request = json.loads(message)
            answers, *streams = files
            if (pid := os.fork()) == 0:
                os.close(answers)
                return _become(request, streams)
            for stream in streams:
                os.close(stream)
            os.write(answers, f"{pid}\n".encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(answers, f"{code}\n".encode())
            os._exit(0)
        for file in files:
            os.close(file)


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _become(request: Request, streams: Sequence[int]) -> Sequence[str]:
    """Take over the folder, environment and output that a request states."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  as the interpreter does at its start
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    if (now := request["now"]) is not None:
        time.time = lambda: now
    sys.path[0] = os.getcwd()
    return request["arguments"]


if __name__ == "__main__":
    for name in LOADED:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()
    sys.argv[1:] = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv[0] = "fedstep"
    import_module("fedstep.__main__").main()
