"""The settings of an aggregator."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedstep.federation.messages import LARGEST_MESSAGE
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.policy import BufferPolicy
from fedstep.server.gate import Gate
from fedstep.server.mode import PLAIN, AggregationMode
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
