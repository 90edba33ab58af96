"""A server on loopback that answers as the test says, one function for all paths, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fedstep.history.project_store import ProjectStore
from fedstep.importers.api_client import ApiClient, RateLimitPolicy, ResponseCache, requests_getter


@dataclass(frozen=True)
class Reply:
    """What a server sends back: JSON, or bytes as they are."""

    value: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


Answering = Callable[[str, Mapping[str, str]], Reply]  # from the path with its query, and lower-case headers


@dataclass
class StandIn:
    """A server that runs; `asked` holds the path and the headers of every request."""

    url: str = ""
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@contextmanager
def serving(answering: Answering) -> Iterator[StandIn]:
    """A real server on 127.0.0.1 while the test lasts."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            stand_in.asked.append((self.path, headers))
            reply = answering(self.path, headers)
            body = json.dumps(reply.value).encode() if reply.body is None else reply.body
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass
class Patience:
    """A clock that only pauses move, and everything that was said."""

    now: float = 1_700_000_000.0
    pauses: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def manners(self, **changed: object) -> RateLimitPolicy:
        settings = {"waits": (1.0, 2.0), "random": lambda: 0.5, "timeout": 10.0, **changed}
        return RateLimitPolicy(clock=lambda: self.now, sleep=self.sleep, tell=self.told.append, **settings)  # type: ignore[arg-type]


def new_home(folder: Path) -> ProjectStore:
    """A history with a key."""
    home = ProjectStore(str(folder))
    home.prepare()
    return home


def asker(home: ProjectStore, url: str, manners: RateLimitPolicy | None = None, token: str = "t0ken") -> ApiClient:
    """An asker over a real socket."""
    secret = {"Authorization": f"Bearer {token}"}
    return ApiClient(
        requests_getter(secret), url, ResponseCache(home), manners or Patience().manners(), "Check GITHUB_TOKEN"
    )
