"""An aggregator in this process, joined to the client through `Send`: no socket between them."""

import asyncio
import threading
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit

import pytest
from starlette.types import Message

from fedstep.federation.client import FetchedModel, pull
from fedstep.federation.messages import Model, SchemaShape, TrialScore, Update, Vector, shape
from fedstep.federation.transport import HttpResponse, RetryPolicy
from fedstep.federation.update_builder import clip_update
from fedstep.schema.schema import Categorical, Numeric, PiecewiseLinear, Schema, Task
from fedstep.server.aggregation.step import initial_vectors
from fedstep.server.app import create_app
from fedstep.server.mode import BufferPolicy
from fedstep.server.settings import Settings
from fedstep.server.storage.store import Store
from tests.helpers.narrow import expect
from tests.helpers.server_oidc import Issuer
from tests.helpers.server_postgresql import new_database, running

T = TypeVar("T")
SMALL = Schema(
    (
        Task("flaky", (Numeric("bias"), PiecewiseLinear("rate", (0.0, 0.5, 1.0))), 1.0, 50, 20, 20),
        Task("build-duration", (Numeric("bias"), Categorical("event", ("push", "tag"))), 0.2, 8, 8, 0),
    )
)


class InProcess:
    """An application whose lifespan runs in a thread, and the `Send` that reaches it."""

    def __init__(self, settings: Settings, ours: Schema) -> None:
        self.app = create_app(settings, ours)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.life = self.app.router.lifespan_context(self.app)
        self.run(self.life.__aenter__(), 5)

    def run(self, work: Coroutine[None, None, T], timeout: float) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        return self.run(self._ask(method, path, headers, body), timeout)

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        parts = urlsplit(path)
        names = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": [(b"host", b"here"), *names],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        pieces = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Message] = []

        async def receive() -> Message:
            return pieces.pop(0) if pieces else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return HttpResponse(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))

    def pulled(self, ours: SchemaShape) -> Model:
        """The model that it serves now."""
        retry = RetryPolicy(timeout=10.0, waits=())
        return expect(FetchedModel, pull("http://here", "", self.send, ours, retry)).model

    def close(self) -> None:
        self.run(self.life.__aexit__(None, None, None), 5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return when something holds; it must before this time is over."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not happen inside {seconds:g} s"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a database in a PostgreSQL server that runs as long as the tests."""
    with running() as url:
        yield url


@pytest.fixture
def database(postgresql: str) -> str:
    """The URL of an empty database in it."""
    return new_database(postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that is not there yet, in each kind of database."""
    return f"sqlite:///{tmp_path / 'a.db'}" if request.param == "sqlite" else request.getfixturevalue("database")


@pytest.fixture
def small() -> Schema:
    """A schema of two short tasks."""
    return SMALL


@pytest.fixture
def ours() -> SchemaShape:
    """The shape of the small schema."""
    return shape(SMALL)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Aggregates every second update, and by time hardly ever; without a gate."""
    return Settings(store=f"sqlite:///{tmp_path / 'a.db'}", buffer=BufferPolicy(updates=2, seconds=3600.0), gate=None)


@pytest.fixture
def open_aggregator() -> Iterator[Callable[..., AbstractContextManager[InProcess]]]:
    """Opens aggregators, and closes those that are still open."""
    opened: list[InProcess] = []

    @contextmanager
    def opening(settings: Settings, ours: Schema = SMALL) -> Iterator[InProcess]:
        house = InProcess(settings, ours)
        opened.append(house)
        try:
            yield house
        finally:
            opened.remove(house)
            house.close()

    yield opening
    for house in opened:
        house.close()


class UpdateChanges(TypedDict, total=False):
    """The fields of an update that a test states."""

    schema: str
    id: str
    examples: Mapping[str, int]
    deltas: Mapping[str, Vector]
    scores: Mapping[str, TrialScore]


def draw_update(number: int, base: int = 0, project: int | None = None, **changes: Unpack[UpdateChanges]) -> Update:
    """Return an update that fits the small schema, each number another id."""
    dice = Random(number)
    deltas = {
        "flaky": clip_update(array("f", (dice.gauss(0, 1) for _ in range(5))), 1.0),
        "build-duration": clip_update(array("f", (dice.gauss(0, 1) for _ in range(3))), 0.2),
    }
    made = Update(
        shape(SMALL).digest,
        base,
        f"{number:032x}",
        f"{number if project is None else project:032x}",
        {"flaky": 64, "build-duration": 8},
        deltas,
    )
    return made._replace(**changes)


@pytest.fixture
def update() -> Callable[..., Update]:
    """Makes the updates that fit the small schema, each number another id."""
    return draw_update


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Whom a CI's tokens come from."""
    made = Issuer()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def store(url: str, ours: SchemaShape) -> Iterator[Store]:
    """A store that was just made."""
    opened = Store(url, ours)
    opened.start(initial_vectors(b"", ours), 0.0)
    yield opened
    opened.close()
