"""The settings of an aggregator, and what a mode adds to its application: routes, and a task beside the writer."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from fedstep.federation.messages import LARGEST_MESSAGE
from fedstep.schema.schema import Schema
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.gate import Gate
from fedstep.server.metrics import Metrics
from fedstep.server.mode import PLAIN, AggregationMode, BufferPolicy
from fedstep.server.oidc import Issuer
from fedstep.server.rate_limits import Allowances


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits per request: bytes of its body, bytes of its header, seconds for either; and updates in the queue."""

    body: int = LARGEST_MESSAGE
    header_bytes: int = 1 << 15
    seconds: float = 20.0
    queue: int = 1000


@dataclass(frozen=True, slots=True)
class Tls:
    """The files, in PEM, of the certificate with its chain and of its key."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one aggregator. Without tokens and issuers it is open, and then listens on loopback only.

    `starter` is the model (safetensors bytes) to begin with where the store has none; empty: zeros. `rules` by task;
    tasks without any have the defaults. Without a gate production is always the candidate. `audience` is what CI tokens
    of the `issuers` must be made for; `private_model`: readers need a token, too.
    `owner_projects` is how many projects a token of an owner may name in a week, `read_rate` how many requests for
    reading an address may make in a minute (0: any). `proxies` are the addresses whose X-Forwarded-For is believed.
    `mode` is how updates are aggregated.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    store: str = "sqlite:///fedstep.db"
    tokens: tuple[str, ...] = field(default=(), repr=False)
    starter: bytes = field(default=b"", repr=False)
    rules: Mapping[str, AggregationRules] = field(default_factory=dict)
    buffer: BufferPolicy = field(default_factory=BufferPolicy)
    gate: Gate | None = field(default_factory=Gate)
    limits: Limits = field(default_factory=Limits)
    issuers: tuple[Issuer, ...] = ()
    audience: str = ""
    allowances: Allowances = field(default_factory=Allowances)
    owner_projects: int = 200
    read_rate: int = 3000
    private_model: bool = False
    tls: Tls | None = None
    proxies: tuple[str, ...] = ()
    mode: AggregationMode = PLAIN
    log_format: str = "text"
    log_level: str = "info"


Routes: TypeAlias = Mapping[tuple[str, str], Callable[..., Any]]  # endpoints by method and path


@dataclass(frozen=True, slots=True)
class ModeContext:
    """The parts of the application that a mode's service shares with it."""

    settings: Settings
    schema: Schema
    rules: Mapping[str, AggregationRules]
    metrics: Metrics
    clock: Callable[[], float]


class ModeService(Protocol):
    """Routes that take the place of the plain ones, and work that runs as long as the application."""

    def routes(self) -> Routes:
        """Return the endpoints by method and path."""

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Run while the application does."""


@runtime_checkable
class ServiceMode(Protocol):
    """A mode that adds a service to the application."""

    def create_service(self, context: ModeContext) -> ModeService:
        """Return the service. Raise UsageError for settings that cannot work."""
