"""What whoever runs the aggregator decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedstep.federation.messages import NO_PROMISE, NOISE, PrivacyGuarantee
from fedstep.federation.tensors import LARGEST_MESSAGE
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.policy import BufferPolicy
from fedstep.server.gate import Gate
from fedstep.server.oidc import Issuer
from fedstep.server.rate_limits import Allowances


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sender may take: bytes of a body, of a request's head, seconds for either, updates in the queue."""

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
    """One aggregator. Without tokens and issuers it is open, and then listens on loopback only.

    `starter` is the model (safetensors bytes) to begin with where the store has none; empty: zeros. `rules` by task;
    those not named have the defaults. Without a gate production is always the candidate. `audience` is what CI tokens
    of the `issuers` have to be made for; `private_model`: readers need a token, too. `proxies` are the addresses whose
    X-Forwarded-For is believed. A `promise` switches differential privacy on. As `role` leader or helper it takes
    shares: `peer` is the helper's URL, `peer_token` what the two know each other by, `fewest` how many projects a sum
    must have, `noise` the standard deviation of noise in it, in units of each task's bound.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    store: str = "sqlite:///fedstep.db"
    tokens: tuple[str, ...] = field(default=(), repr=False)
    starter: bytes = field(default=b"", repr=False)
    rules: Mapping[str, AggregationRules] = field(default_factory=dict)
    folding: BufferPolicy = field(default_factory=BufferPolicy)
    gate: Gate | None = field(default_factory=Gate)
    limits: Limits = field(default_factory=Limits)
    issuers: tuple[Issuer, ...] = ()
    audience: str = ""
    allowances: Allowances = field(default_factory=Allowances)
    private_model: bool = False
    tls: Tls | None = None
    proxies: tuple[str, ...] = ()
    promise: PrivacyGuarantee = NO_PROMISE
    role: str = "alone"
    peer: str = ""
    peer_token: str = field(default="", repr=False)
    fewest: int = 5
    noise: float = NOISE
    log_format: str = "text"
    log_level: str = "info"

    @property
    def shares(self) -> int:
        """The fewest projects of a sum where updates are taken in two halves alone, 0 where they are taken whole."""
        return self.fewest if self.role == "leader" else 0

    @property
    def terms(self) -> tuple[PrivacyGuarantee, int, float]:
        """What is served with every model, for clients to go by: the promise, `shares`, and the noise of shares."""
        return self.promise, self.shares, self.noise if self.shares else 0.0
