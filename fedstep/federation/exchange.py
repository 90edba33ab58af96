"""The two halves of an exchange, over what the history keeps: refresh the model, deliver the updates."""

from dataclasses import dataclass
from pathlib import Path

from fedstep.features.schema import schema
from fedstep.federation.audit import recorded
from fedstep.federation.client import NotModified, pull
from fedstep.federation.kept import Kept, keep_model, kept_model, touch_model
from fedstep.federation.outbox import Flushed, Outbox, flush
from fedstep.federation.patience import Patience
from fedstep.federation.transport import Send
from fedstep.federation.wire import shape
from fedstep.history.home import Home

__all__ = ["Aggregator", "deliver", "refresh"]


@dataclass(frozen=True, slots=True)
class Aggregator:
    """Where to ask, how, and for how long."""

    url: str
    send: Send
    patience: Patience


def refresh(home: Home, aggregator: Aggregator, now: float) -> Kept:
    """The newest model, pulled and kept; nothing is transferred when the kept one is the newest.

    Raises AggregatorError; the kept model then stays as it is.
    """
    kept = kept_model(home)
    etag = kept.etag if kept.url == aggregator.url else ""
    answer = pull(aggregator.url, etag, aggregator.send, shape(schema()), aggregator.patience)
    if isinstance(answer, NotModified):
        touch_model(home, etag, aggregator.url, now)
    else:
        keep_model(home, answer.body, answer.etag, aggregator.url, now)
    return kept_model(home)


def deliver(home: Home, aggregator: Aggregator) -> Flushed:
    """Send all updates that wait in the outbox; those that cannot be sent now stay in it."""
    send = recorded(home, aggregator.url, aggregator.send)
    return flush(Outbox(Path(home.outbox)), aggregator.url, send, aggregator.patience)
