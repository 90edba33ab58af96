"""The two halves of an exchange, over what the history keeps: refresh the model, deliver the updates."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fedstep.errors import AggregatorError, PrivacyBudgetExhausted
from fedstep.federation.client import FetchedModel, NotModified, pull
from fedstep.federation.messages import Model, shape
from fedstep.federation.model_cache import CachedModel, load_model, mark_current, save_model
from fedstep.federation.outbox import DeliveryReport, Outbox, audit_transport, flush
from fedstep.federation.secagg.share_client import Endpoint, flush_shares
from fedstep.federation.secagg.shares import noise_deviation
from fedstep.federation.transport import RetryPolicy, Transport, redact_url
from fedstep.history.project_store import TURNS, ProjectStore
from fedstep.schema.schema import schema
from fedstep.types import Unavailable

SECONDS_PER_DAY = 86_400.0


class ContributionLog(NamedTuple):
    """What this history gave to the aggregator at `url`: how many batches, when the last (seconds since the epoch).

    `over`: the aggregator said that the project's budget is spent.
    """

    url: str = ""
    made: int = 0
    last: float = 0.0
    over: bool = False


def load_contributions(home: ProjectStore, url: str) -> ContributionLog:
    """What was given to this aggregator; nothing where the file tells of another one, or is damaged."""
    try:
        found = json.loads(home.read(TURNS) or b"{}")
        turns = ContributionLog(str(found["url"]), int(found["made"]), float(found["last"]), bool(found["over"]))
    except (ValueError, KeyError, TypeError):
        return ContributionLog(url)
    return turns if turns.url == url else ContributionLog(url)


def may_contribute(home: ProjectStore, kept: CachedModel) -> bool:
    """Whether an update may be made now: always where nothing is promised, else once in a period of the calendar.

    Now is when the aggregator was last asked: whoever cannot reach it need not contribute.
    """
    promise = kept.model.promise
    if not promise.releases:
        return True
    turns, period = load_contributions(home, kept.url), promise.days * SECONDS_PER_DAY
    if turns.over or turns.made >= promise.releases:
        return False
    return not turns.made or kept.fetched_at // period > turns.last // period


def record_contribution(home: ProjectStore, kept: CachedModel) -> None:
    """Note that an update was made."""
    if kept.model.promise.releases:
        turns = load_contributions(home, kept.url)
        _write(home, turns._replace(made=turns.made + 1, last=kept.fetched_at))


def mark_exhausted(home: ProjectStore, url: str) -> None:
    """Note that this aggregator takes nothing from the project any more."""
    _write(home, load_contributions(home, url)._replace(over=True))


def _write(home: ProjectStore, turns: ContributionLog) -> None:
    home.write(TURNS, json.dumps(turns._asdict()).encode())


NO_HELPER = Unavailable("no helper is configured")


@dataclass(frozen=True, slots=True)
class AggregatorLink:
    """Where to ask, how, and for how long; with a helper, each gets half of every update."""

    url: str
    send: Transport
    patience: RetryPolicy
    helper: Endpoint | Unavailable = NO_HELPER


def pull_model(home: ProjectStore, aggregator: AggregatorLink, now: float) -> CachedModel:
    """The newest model, pulled and kept; nothing is transferred when the kept one is the newest.

    Raises AggregatorError; the kept model then stays as it is.
    """
    kept = load_model(home)
    etag = kept.etag if kept.url == aggregator.url else ""
    answer = pull(aggregator.url, etag, aggregator.send, shape(schema()), aggregator.patience)
    if isinstance(answer, NotModified):
        mark_current(home, etag, aggregator.url, now)
    else:
        save_model(home, answer.body, answer.etag, aggregator.url, now)
    return load_model(home)


def push_pending(home: ProjectStore, aggregator: AggregatorLink) -> DeliveryReport:
    """Send all updates that wait in the outbox, as the aggregator wants them; those that cannot be sent now stay in it.

    Nothing leaves whole for an aggregator that takes halves alone: it would refuse the update, and has seen it.
    """
    outbox, send = Outbox(Path(home.outbox)), audit_transport(home, aggregator.url, aggregator.send)
    helper = aggregator.helper
    try:
        served = _served(home, aggregator, outbox)
        if isinstance(helper, Unavailable):
            _check_whole(served, aggregator)
    except AggregatorError as error:
        waiting = outbox.waiting()
        return DeliveryReport((), (), len(waiting.updates), (error,), waiting.warnings)
    if isinstance(helper, Unavailable):
        flushed = flush(outbox, aggregator.url, send, aggregator.patience)
        if any(isinstance(error, PrivacyBudgetExhausted) for error in flushed.refused):
            mark_exhausted(home, aggregator.url)
        return flushed
    if isinstance(served, Unavailable):  # nothing waited then; what came since would be split without its noise
        waiting = outbox.waiting()
        return DeliveryReport((), (), len(waiting.updates), (), waiting.warnings)
    noted = replace(helper, send=audit_transport(home, helper.url, helper.send))
    deviation = noise_deviation(served.noise, served.shares)
    return flush_shares(outbox, Endpoint(aggregator.url, send), noted, aggregator.patience, deviation)


def _served(home: ProjectStore, aggregator: AggregatorLink, outbox: Outbox) -> Model | Unavailable:
    """The model last pulled from this aggregator, which says how it takes updates. Raises AggregatorError.

    One that no model was ever pulled from is asked, where an update waits for it.
    """
    kept = load_model(home)
    if kept.url == aggregator.url:
        return kept.model
    if not outbox.waiting().updates:
        return Unavailable("nothing waits for it")
    found = pull(aggregator.url, "", aggregator.send, shape(schema()), aggregator.patience)
    return found.model if isinstance(found, FetchedModel) else Unavailable("it names no model")


def _check_whole(served: Model | Unavailable, aggregator: AggregatorLink) -> None:
    """Raises AggregatorError where the aggregator takes no whole updates."""
    if not isinstance(served, Unavailable) and served.shares:
        raise AggregatorError(
            f"{redact_url(aggregator.url)} takes updates in two halves alone, and there is no helper for the other",
            "Give --helper the URL of its helper; until then nothing is sent",
        )
