"""Connect to an aggregator and its helper."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fedstep.errors import UsageError
from fedstep.federation.ci_token import ci_transport
from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import Endpoint, RetryPolicy, Transport, is_exposed, redact_url
from fedstep.types import Unavailable

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
        notices: Why a token is not sent, where one is withheld.
    """

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 10.0
    helper: str = ""
    helper_token: str = field(default="", repr=False)
    confirmed: bool = True
    notices: tuple[str, ...] = ()


def connect(
    aggregator: Aggregator,
    seconds: float,
    environment: Mapping[str, str],
    new_transport: TransportFactory | None = None,
) -> AggregatorLink:
    """Return a link to the aggregator that works for `seconds` from now.

    `environment` holds the variables of the CI, from which a job's token is requested; `new_transport` replaces HTTP.

    Raises:
        UsageError: An address or a token cannot be used.
    """
    job = environment if aggregator.confirmed else {}

    def transport(url: str, token: str) -> Transport:
        return new_transport(url, token) if new_transport else ci_transport(url, token, job)

    helper: Endpoint | Unavailable = Unavailable("no helper is configured")
    if aggregator.helper:
        if urlsplit(aggregator.helper).netloc.lower() == urlsplit(aggregator.url).netloc.lower():
            remedy = "Give the helper's URL."
            raise UsageError("--helper is the aggregator itself, which would hold both shares", remedy)
        helper = Endpoint(aggregator.helper, transport(aggregator.helper, aggregator.helper_token))
    retries = RetryPolicy(timeout=aggregator.timeout, deadline=time.monotonic() + seconds)
    return AggregatorLink(aggregator.url, transport(aggregator.url, aggregator.token), retries, helper)


def token_warnings(aggregator: Aggregator) -> tuple[str, ...]:
    """Return a warning for each token that is withheld, and for each that others can read on its way.

    In a private network an unencrypted token may be intended.
    """
    pairs = ((aggregator.url, aggregator.token), (aggregator.helper, aggregator.helper_token))
    return aggregator.notices + tuple(
        f"the token for {redact_url(url)} is sent unencrypted. Use an https:// URL"
        for url, token in pairs
        if url and token.strip() and is_exposed(url)
    )
