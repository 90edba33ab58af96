"""What whoever runs the aggregator decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedstep.federation.wire import LARGEST
from fedstep.server.aggregate import Rules
from fedstep.server.buffer import Folding

__all__ = ["Limits", "Settings"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sender may take: bytes of a body, of a request's head, seconds for either, updates in the queue."""

    body: int = LARGEST
    head: int = 1 << 15
    seconds: float = 20.0
    queue: int = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """One aggregator. Without tokens it is open, and then listens on loopback only; reading the model is always open.

    `starter` is the model (safetensors bytes) to begin with where the store has none; empty: zeros. `rules` by head;
    those not named have the defaults.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    store: str = "sqlite:///fedstep.db"
    tokens: tuple[str, ...] = field(default=(), repr=False)
    starter: bytes = field(default=b"", repr=False)
    rules: Mapping[str, Rules] = field(default_factory=dict)
    folding: Folding = field(default_factory=Folding)
    limits: Limits = field(default_factory=Limits)
