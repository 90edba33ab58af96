"""What the tests of the command line share: a repository, the real command in it, and servers that behave badly."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.request import ProxyHandler, build_opener
from xml.sax.saxutils import quoteattr

from tests.helpers.lifetime import bound
from tests.helpers.narrow import present
from tests.helpers.prefork import can_fork, run_forked

COMMAND = (sys.executable, "-m", "fedstep")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
LONGEST = 60.0  # seconds that any command here may take on a busy machine

Case = tuple[str, str, float]  # name, outcome (passed, failed, skipped), seconds


@dataclass(frozen=True)
class Ran:
    """One finished command."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def warnings(self) -> list[str]:
        """The lines of talk; annotations for GitHub are none."""
        return [line for line in self.err.splitlines() if line.startswith("fedstep: ")]


@dataclass(frozen=True)
class Checkout:
    """A folder, usually a git repository, and the environment of a machine that knows nothing of us."""

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def history(self) -> Path:
        return self.root / ".fedstep"

    def builds(self) -> list[str]:
        return sorted(path.name for path in self.history.glob("builds/*"))

    def outbox(self) -> list[str]:
        return sorted(path.name for path in self.history.glob("outbox/*"))

    def with_env(self, **more: str) -> "Checkout":
        return Checkout(self.root, {**self.env, **more})

    def start(
        self,
        *arguments: str,
        python: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        errors: str = "strict",
        before: Callable[[], None] | None = None,
    ) -> "subprocess.Popen[str]":
        """The command as a process of its own session, talking through pipes."""
        return subprocess.Popen(
            bound(COMMAND[0], *python, *COMMAND[1:], *arguments),
            cwd=self.root,
            env=dict(self.env),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors=errors,
            start_new_session=True,
            preexec_fn=before,
        )

    def run(self, *arguments: str, python: Sequence[str] = ()) -> Ran:
        """The command from start to end. It never takes longer than LONGEST and never shows a traceback.

        It is forked from a process with loaded modules; with words for `python`, or variables that it reads, it starts.
        """
        began = time.monotonic()
        if python or not can_fork(self.env):
            with self.start(*arguments, python=python) as process:
                out, err = ended(process)
            code = process.returncode
        else:
            code, out, err = run_forked(arguments, self.root, self.env, LONGEST)
        assert "Traceback" not in err, err
        return Ran(code, out, err, time.monotonic() - began)

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments),
            cwd=self.root,
            env=dict(self.env),
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout

    def commit(self, name: str, text: str) -> str:
        """A commit that writes one file; its id."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)
        self.git("add", name)
        self.git("commit", "-q", "-m", f"change {name}")
        return self.git("rev-parse", "HEAD").strip()

    def report(self, cases: Sequence[Case], name: str = "report.xml") -> str:
        (self.root / name).write_text(junit(cases))
        return name

    def no_leftovers(self) -> None:
        """No file of the history is half-written."""
        halves = [path for kind in ("*.tmp", "*.partial") for path in self.history.rglob(kind)]
        assert halves == []


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """The output of a process that has to end by itself; it is killed when it does not."""
    try:
        return process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def bare_env(home: Path) -> dict[str, str]:
    """No CI, no proxy, no configuration of whoever runs the tests."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": SYSTEM_PATH,
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        **{name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "OMP_NUM_THREADS") if name in os.environ},
    }


@cache
def template() -> tempfile.TemporaryDirectory[str]:
    """A repository of two commits on `main`; a copy costs a tenth of making one. It goes when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="fedstep-template-")
    made = Checkout(Path(folder.name) / "repo", bare_env(Path(folder.name) / "home"))
    made.root.mkdir()
    made.git("init", "-q", "-b", "main", ".")
    made.commit("shop/cart.py", "total = 0\n")
    made.commit("shop/cart.py", "total = 1\n")
    return folder


def new_checkout(root: Path, history: Path | None = None) -> Checkout:
    """A repository of two commits on `main`, with a copy of a history."""
    shutil.copytree(Path(template().name) / "repo", root)
    made = Checkout(root, bare_env(root.parent / f"{root.name}-home"))
    made.git("update-index", "-q", "--refresh")
    if history is not None:
        shutil.copytree(history, made.history)
    return made


def junit(cases: Sequence[Case]) -> str:
    """A report of pytest's shape."""
    bodies = {"failed": '<failure message="AssertionError: no">trace</failure>', "skipped": "<skipped/>", "passed": ""}
    written = "".join(
        f'<testcase classname="shop.test_cart" name={quoteattr(name)} time="{seconds}">{bodies[outcome]}</testcase>'
        for name, outcome, seconds in cases
    )
    return f'<testsuites><testsuite name="pytest" tests="{len(cases)}">{written}</testsuite></testsuites>'


def forty_tests(number: int) -> list[Case]:
    """Forty tests; of build `number`, test_7 fails in every third and test_3 in every second of five."""
    failing = {7} if number % 3 == 0 else {3} if number % 5 == 1 else set()
    return [(f"test_{i}", "failed" if i in failing else "passed", 0.01 + i / 100 + number / 1000) for i in range(40)]


@contextmanager
def aggregator(folder: Path, *options: str) -> Iterator[str]:
    """The URL of a real aggregator in a process of its own, stopped by its own pid."""
    place = Checkout(folder, bare_env(folder / "home"))
    arguments = ("serve", "--port", "0", "--store", f"sqlite:///{folder / 'aggregator.db'}", *options)
    with place.start(*arguments, stdout=subprocess.DEVNULL) as process:
        log = present(process.stderr)
        drain = threading.Thread(target=log.readlines, daemon=True)
        try:
            line = next((line for line in log if "aggregator on " in line), "")
            assert line, "the aggregator did not start"
            url = line.split("aggregator on ")[1].split(",")[0].strip()
            drain.start()
            with build_opener(ProxyHandler({})).open(f"{url}/healthz", timeout=20) as answer:
                assert answer.status == 200
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            if drain.is_alive():
                drain.join(5)
    assert process.returncode == 0


Behaviour = Callable[[socket.socket, bytes], None]


@contextmanager
def server(behave: Behaviour) -> Iterator[str]:
    """The URL of a loopback server that gives every connection, its request read, to `behave`."""
    door = socket.create_server(("127.0.0.1", 0))
    open_connections: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = door.accept()
                open_connections.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            behave(connection, read_request(connection))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        door.close()
        for connection in open_connections:
            connection.close()


def read_request(connection: socket.socket) -> bytes:
    """The whole request: head, and the body that Content-Length promises."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (piece := connection.recv(1 << 16))
        if not piece:
            return received
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(next(iter(lengths), b"0")):
        body += connection.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def answering(status: str, body: bytes = b"", *headers: str) -> Behaviour:
    """A server with one answer."""
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers))

    def behave(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        connection.close()

    return behave


def hanging(connection: socket.socket, _request: bytes) -> None:
    """Never answers."""
    connection.recv(1)


def babbling(connection: socket.socket, _request: bytes) -> None:
    """Speaks something, not HTTP."""
    connection.sendall(b"220 mail.example.org ESMTP\r\n" * 3)
    connection.close()


def dripping(connection: socket.socket, _request: bytes) -> None:
    """Sends a byte now and then: no single read ever waits long."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def recording(requests: list[bytes], behave: Behaviour) -> Behaviour:
    """A server that keeps each request before it behaves so."""

    def record(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        behave(connection, request)

    return record


def by_method(**behaviours: Behaviour) -> Behaviour:
    """A server that behaves by the method of the request."""
    return lambda connection, request: behaviours[request.split(b" ")[0].decode()](connection, request)


@contextmanager
def dead_port() -> Iterator[str]:
    """The URL of a port that nobody listens on and nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def parse_github_output(text: str) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it: `key=value`, or `key<<delimiter` up to a line that is the delimiter."""
    values: dict[str, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        equal, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equal < 0 or heredoc < equal):
            key, delimiter = line[:heredoc], line[heredoc + 2 :]
            value: list[str] = []
            while (inner := next(lines)) != delimiter:
                value.append(inner)
            values[key] = "\n".join(value)
        elif line:
            assert equal > 0, f"the runner would refuse {line!r}"
            values[line[:equal]] = line[equal + 1 :]
    return values
