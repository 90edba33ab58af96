"""The two halves of an exchange, over what the history keeps: refresh the model, deliver the updates."""

from dataclasses import dataclass, replace
from pathlib import Path

from fedstep.build.record import Absent
from fedstep.errors import AggregatorError, BudgetSpent
from fedstep.features.schema import schema
from fedstep.federation.audit import recorded
from fedstep.federation.client import Fetched, NotModified, pull
from fedstep.federation.kept import Kept, keep_model, kept_model, touch_model
from fedstep.federation.outbox import Flushed, Outbox, flush
from fedstep.federation.patience import Patience
from fedstep.federation.shares import deviation_of
from fedstep.federation.transport import Send, redacted
from fedstep.federation.turn import budget_is_spent
from fedstep.federation.twins import Peer, flush_halves
from fedstep.federation.wire import Model, shape
from fedstep.history.home import Home

__all__ = ["Aggregator", "deliver", "refresh"]

NO_HELPER = Absent("no helper is configured")


@dataclass(frozen=True, slots=True)
class Aggregator:
    """Where to ask, how, and for how long; with a helper, each gets half of every update."""

    url: str
    send: Send
    patience: Patience
    helper: Peer | Absent = NO_HELPER


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
    """Send all updates that wait in the outbox, as the aggregator wants them; those that cannot be sent now stay in it.

    Nothing leaves whole for an aggregator that takes halves alone: it would refuse the update, and has seen it.
    """
    outbox, send = Outbox(Path(home.outbox)), recorded(home, aggregator.url, aggregator.send)
    helper = aggregator.helper
    try:
        served = _served(home, aggregator, outbox)
        if isinstance(helper, Absent):
            _check_whole(served, aggregator)
    except AggregatorError as error:
        waiting = outbox.waiting()
        return Flushed((), (), len(waiting.updates), (error,), waiting.warnings)
    if isinstance(helper, Absent):
        flushed = flush(outbox, aggregator.url, send, aggregator.patience)
        if any(isinstance(error, BudgetSpent) for error in flushed.refused):
            budget_is_spent(home, aggregator.url)
        return flushed
    if isinstance(served, Absent):  # nothing waited then; what came since would be split without its noise
        waiting = outbox.waiting()
        return Flushed((), (), len(waiting.updates), (), waiting.warnings)
    noted = replace(helper, send=recorded(home, helper.url, helper.send))
    deviation = deviation_of(served.noise, served.shares)
    return flush_halves(outbox, Peer(aggregator.url, send), noted, aggregator.patience, deviation)


def _served(home: Home, aggregator: Aggregator, outbox: Outbox) -> Model | Absent:
    """The model last pulled from this aggregator, which says how it takes updates. Raises AggregatorError.

    One that no model was ever pulled from is asked, where an update waits for it.
    """
    kept = kept_model(home)
    if kept.url == aggregator.url:
        return kept.model
    if not outbox.waiting().updates:
        return Absent("nothing waits for it")
    found = pull(aggregator.url, "", aggregator.send, shape(schema()), aggregator.patience)
    return found.model if isinstance(found, Fetched) else Absent("it names no model")


def _check_whole(served: Model | Absent, aggregator: Aggregator) -> None:
    """Raises AggregatorError where the aggregator takes no whole updates."""
    if not isinstance(served, Absent) and served.shares:
        raise AggregatorError(
            f"{redacted(aggregator.url)} takes updates in two halves alone, and there is no helper for the other",
            "Give --helper the URL of its helper; until then nothing is sent",
        )
