"""Connect to an aggregator and exchange over what the history keeps: pull the model, push updates, count contributions.

An update leaves at most once in a period where the aggregator guarantees differential privacy (`ContributionLog`).
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from fedstep.errors import MALFORMED, AggregatorError, PrivacyBudgetExhausted, UsageError
from fedstep.federation.ci_token import ci_transport
from fedstep.federation.client import FetchedModel, NotModified, pull
from fedstep.federation.messages import Model, shape
from fedstep.federation.model_cache import (
    CachedModel,
    KnownStore,
    load_known_stores,
    load_model,
    mark_current,
    save_model,
)
from fedstep.federation.outbox import DeliveryReport, Outbox, audit_transport, flush
from fedstep.federation.transport import Endpoint, HttpResponse, RetryPolicy, Transport, is_exposed
from fedstep.federation.trust import WithheldToken, is_same_server, redact_url
from fedstep.history.project_store import TURNS, ProjectStore
from fedstep.schema.schema import schema
from fedstep.types import Unavailable

SECONDS_PER_DAY = 86_400.0
NO_HELPER = Unavailable("no helper is configured")


TransportFactory = Callable[[str, str], Transport]
"""Returns a transport for the URL and the token of an aggregator."""


@dataclass(frozen=True, slots=True)
class Aggregator:
    """An aggregator to exchange coefficients with.

    Attributes:
        url: Its address, such as `https://fedstep.example.org`.
        token: The bearer token that it accepts. Without one, a job of GitHub Actions asks GitHub for its own token.
        timeout: Seconds for one exchange, with its retries.
        helper: The address of its helper. With one, each of the two receives a share of every update, and neither
            receives the update itself.
        helper_token: The bearer token that the helper accepts.
        confirmed: False where only a file of the repository names the address: then no job asks GitHub for a token.
        notices: Why a token is not sent to an address, and what to do, where one is withheld.
    """

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 10.0
    helper: str = ""
    helper_token: str = field(default="", repr=False)
    confirmed: bool = True
    notices: tuple[WithheldToken, ...] = ()


@dataclass(frozen=True, slots=True)
class AggregatorLink:
    """The aggregator's URL, how it is reached and for how long; with a helper, each of the two gets one share.

    `notices` are those of `Aggregator`.
    """

    url: str
    send: Transport
    retry: RetryPolicy
    helper: Endpoint | Unavailable = NO_HELPER
    notices: tuple[WithheldToken, ...] = ()


def connect(
    aggregator: Aggregator,
    seconds: float,
    environment: Mapping[str, str],
    new_transport: TransportFactory | None = None,
) -> AggregatorLink:
    """Return a link to the aggregator that works for `seconds` from now.

    Its address is without a password, because it is shown in summaries and written to the history.

    `environment` holds the variables of the CI, from which a job's token is requested; `new_transport` replaces HTTP.

    Raises:
        UsageError: An address or a token cannot be used.
    """
    job = environment if aggregator.confirmed else {}

    def transport(url: str, token: str) -> Transport:
        send = new_transport(url, token) if new_transport else ci_transport(url, token, job)
        withheld = [notice for notice in aggregator.notices if notice.url == redact_url(url)]
        return _with_remedy(send, withheld[0]) if withheld else send

    helper: Endpoint | Unavailable = NO_HELPER
    if aggregator.helper:
        if is_same_server(aggregator.helper, aggregator.url):
            remedy = "Give the helper's URL."
            raise UsageError("--helper is the aggregator itself, which would hold both shares", remedy)
        helper = Endpoint(aggregator.helper, transport(aggregator.helper, aggregator.helper_token))
    retries = RetryPolicy(timeout=aggregator.timeout, deadline=time.monotonic() + seconds)
    send = transport(aggregator.url, aggregator.token)
    return AggregatorLink(redact_url(aggregator.url), send, retries, helper, aggregator.notices)


def _with_remedy(send: Transport, withheld: WithheldToken) -> Transport:
    """Return the transport that raises for a 401: another token would be withheld, too."""

    def explained(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        response = send(method, path, headers, body, timeout)
        if response.status == 401:
            raise AggregatorError(f"{withheld.url} answered 401: it wants a token that it knows", withheld.remedy)
        return response

    return explained


def token_warnings(aggregator: Aggregator) -> tuple[str, ...]:
    """Return a warning for each token that is withheld, and for each that others can read on its way.

    In a private network an unencrypted token may be intended.
    """
    pairs = ((aggregator.url, aggregator.token), (aggregator.helper, aggregator.helper_token))
    return tuple(map(str, aggregator.notices)) + tuple(
        f"the token for {redact_url(url)} is sent unencrypted. Use an https:// URL"
        for url, token in pairs
        if url and token.strip() and is_exposed(url)
    )


class ContributionLog(NamedTuple):
    """What this history contributed to the aggregator at `url`; written to the store as JSON with these names."""

    url: str = ""
    made: int = 0  # updates
    last: float = 0.0  # seconds since the epoch: the time of the last one
    over: bool = False  # the aggregator said that the project's privacy budget is exhausted


def load_contributions(store: ProjectStore, url: str) -> ContributionLog:
    """Return what was contributed to this aggregator; nothing where the file is about another one, or is damaged."""
    try:
        fields = json.loads(store.read(TURNS) or b"{}")
        log = ContributionLog(str(fields["url"]), int(fields["made"]), float(fields["last"]), bool(fields["over"]))
    except MALFORMED:
        return ContributionLog(url)
    return log if log.url == url else ContributionLog(url)


def may_contribute(store: ProjectStore, cached: CachedModel) -> bool:
    """Tell whether an update may be made now: always without a privacy guarantee, else once in a calendar period.

    "Now" is when the aggregator last answered: a project that cannot reach it has no use for an update.
    """
    guarantee = cached.model.promise
    if not guarantee.releases:
        return True
    log, period = load_contributions(store, cached.url), guarantee.days * SECONDS_PER_DAY
    if log.over or log.made >= guarantee.releases:
        return False
    return not log.made or cached.fetched_at // period > log.last // period


def record_contribution(store: ProjectStore, cached: CachedModel) -> None:
    """Record that an update was made, where a privacy guarantee limits their number."""
    if cached.model.promise.releases:
        log = load_contributions(store, cached.url)
        _save_contributions(store, log._replace(made=log.made + 1, last=cached.fetched_at))


def mark_exhausted(store: ProjectStore, url: str) -> None:
    """Record that this aggregator accepts no more updates of the project."""
    _save_contributions(store, load_contributions(store, url)._replace(over=True))


def _save_contributions(store: ProjectStore, log: ContributionLog) -> None:
    store.write(TURNS, json.dumps(log._asdict()).encode())


def pull_model(store: ProjectStore, aggregator: AggregatorLink, now: float) -> CachedModel:
    """Pull the newest model into the store and return it; nothing is transferred when the cached one is the newest.

    Raise AggregatorError; the cached model then stays as it is.
    """
    cached, known, url = load_model(store), load_known_stores(store), aggregator.url
    etag = cached.etag if cached.url == url else ""
    reply = pull(url, etag, aggregator.send, shape(schema()), aggregator.retry)
    model = cached.model if isinstance(reply, NotModified) else reply.model
    before = known.get(url, _known_by_model(cached, url))
    # a proxy may drop the header, and a replica of an earlier fedstep has none
    served = KnownStore(reply.lineage or before.lineage, model.schema, model.candidate_version)
    known = {url: served, **{other: last for other, last in known.items() if other != url}}
    if isinstance(reply, NotModified):
        mark_current(store, etag, url, now, known)
    else:
        save_model(store, reply.body, reply.etag, url, now, known)
    after = load_model(store)
    is_other = cached.url == url and model.candidate != cached.model.candidate
    return after._replace(warning=after.warning or _describe_replacement(url, before, served, is_other))


def _known_by_model(cached: CachedModel, url: str) -> KnownStore:
    """Return what the stored model tells of an aggregator, where an earlier fedstep pulled it."""
    model = cached.model
    return KnownStore("", model.schema, model.candidate_version) if cached.url == url else KnownStore()


def _describe_replacement(url: str, before: KnownStore, served: KnownStore, is_other: bool) -> str:
    """Return a warning where an aggregator does not continue what it served before; "" where it does.

    The lineage of a store stays the same, its versions only grow, and what a version contains never changes. `is_other`
    says that the candidate is another one than the stored one of this aggregator.
    """
    if served.schema == before.schema and served.version < before.version:
        seen = f"went back from version {before.version} to {served.version}"
    elif before.lineage and served.lineage != before.lineage:
        seen = f"serves version {served.version} of another store than before"
    elif is_other and (served.schema, served.version) == (before.schema, before.version):
        seen = f"serves another version {served.version} than before"
    else:
        return ""
    return f"{redact_url(url)} {seen}: its store was replaced"


def push_pending(store: ProjectStore, aggregator: AggregatorLink) -> DeliveryReport:
    """Send all updates of the outbox in the form that the aggregator accepts; what cannot be sent now stays in it.

    A whole update never goes to an aggregator that accepts shares only: it would reject the update, and would have
    seen it.
    """
    outbox, send = Outbox(Path(store.outbox)), audit_transport(store, aggregator.url, aggregator.send)
    try:
        model = _served_model(store, aggregator, outbox)
        if isinstance(aggregator.helper, Unavailable):
            _check_accepts_whole_updates(model, aggregator)
    except AggregatorError as error:
        return _report_unsent(outbox, error)
    if isinstance(aggregator.helper, Unavailable):
        report = flush(outbox, aggregator.url, send, aggregator.retry)
        if any(isinstance(error, PrivacyBudgetExhausted) for error in report.refused):
            mark_exhausted(store, aggregator.url)
        return report
    if isinstance(model, Unavailable):  # the outbox was empty; an update added since would be split without its noise
        return _report_unsent(outbox)
    # Imported here alone: without a helper, secure aggregation is not loaded.
    from fedstep.federation.secagg.share_client import flush_shares
    from fedstep.federation.secagg.shares import noise_deviation

    helper = replace(aggregator.helper, send=audit_transport(store, aggregator.helper.url, aggregator.helper.send))
    deviation = noise_deviation(model.noise, model.shares)
    return flush_shares(outbox, Endpoint(aggregator.url, send), helper, aggregator.retry, deviation)


def _report_unsent(outbox: Outbox, *errors: AggregatorError) -> DeliveryReport:
    waiting = outbox.waiting()
    return DeliveryReport((), (), len(waiting.updates), errors, waiting.warnings)


def _served_model(store: ProjectStore, aggregator: AggregatorLink, outbox: Outbox) -> Model | Unavailable:
    """Return the model last pulled from this aggregator, which says in which form it accepts updates.

    Where none was pulled from it and an update waits, pull it now. Raise AggregatorError.
    """
    cached = load_model(store)
    if cached.url == aggregator.url:
        return cached.model
    if not outbox.waiting().updates:
        return Unavailable("nothing waits for it")
    reply = pull(aggregator.url, "", aggregator.send, shape(schema()), aggregator.retry)
    return reply.model if isinstance(reply, FetchedModel) else Unavailable("it names no model")


def _check_accepts_whole_updates(model: Model | Unavailable, aggregator: AggregatorLink) -> None:
    """Raise AggregatorError where the aggregator accepts shares only."""
    if not isinstance(model, Unavailable) and model.shares:
        raise AggregatorError(
            f"{redact_url(aggregator.url)} accepts updates as two shares only, and no helper is configured",
            "Give --helper the URL of its helper; until then nothing is sent",
        )
