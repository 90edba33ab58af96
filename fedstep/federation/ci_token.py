"""The token that GitHub Actions gives a job with `id-token: write`, asked for when the aggregator wants one.

docs.github.com, "OpenID Connect reference": a GET with the request token answers {"value": the JWT}.
"""

import json
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from fedstep.errors import AggregatorError, AggregatorUnreachable, UsageError
from fedstep.federation.transport import HttpResponse, Transport, is_exposed, redact_url, requests_transport

WHERE, WITH = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
OTHERWISE = "or set FEDSTEP_TOKEN to a token of the aggregator."


def ci_transport(url: str, token: str, env: Mapping[str, str]) -> Transport:
    """A `Transport` with the token; with none, on GitHub Actions, one that asks for the job's token once it gets a 401.

    Not before: the token tells the aggregator which repository this is, and an open one has no use for that. Raises
    UsageError for a URL or token that cannot be used.
    """
    plain = requests_transport(url, token)
    if token.strip() or env.get("GITHUB_ACTIONS") != "true":
        return plain
    signed: list[Transport] = []

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        left = _countdown(timeout)
        if not signed:
            response = plain(method, path, headers, body, left())
            if response.status != 401:
                return response
            signed.append(requests_transport(url, request_job_token(url, env, left())))
        return signed[0](method, path, headers, body, left())

    return send


def can_request_token(env: Mapping[str, str]) -> bool:
    """Whether this is a job that GitHub gives a token when it asks."""
    return env.get("GITHUB_ACTIONS") == "true" and bool(env.get(WHERE)) and bool(env.get(WITH))


def _countdown(seconds: float) -> Callable[[], float]:
    """What is left of so many seconds; never nothing at all, which a socket would take for no limit."""
    end = time.monotonic() + seconds
    return lambda: max(0.001, end - time.monotonic())


def request_job_token(aggregator: str, env: Mapping[str, str], timeout: float) -> str:
    """The job's token for this aggregator alone. Raises AggregatorError with what the job lacks."""
    place = urlsplit(env.get(WHERE, ""))
    if not place.netloc or not env.get(WITH):
        raise AggregatorError(
            f"{redact_url(aggregator)} wants a token, and this job may not ask GitHub for one",
            f"Give the job `permissions: id-token: write`, {OTHERWISE}",
        )
    if is_exposed(aggregator):
        raise AggregatorError(
            f"{redact_url(aggregator)} wants a token, and it would travel for everyone to read", "Use its https:// URL."
        )
    query = f"{place.query}&audience={quote(redact_url(aggregator).rstrip('/'), safe='')}".lstrip("&")
    try:
        ask = requests_transport(f"{place.scheme}://{place.netloc}", env[WITH])
        response = ask("GET", f"{place.path}?{query}", {"Accept": "application/json"}, b"", timeout)
    except AggregatorUnreachable as error:
        raise AggregatorUnreachable(f"GitHub gives this job no token ({error.args[0]})", "Run it again.") from error
    except UsageError as error:
        raise AggregatorError(f"GitHub's {WHERE} or {WITH} cannot be used", f"Run it again, {OTHERWISE}") from error
    return _value(response)


def _value(response: HttpResponse) -> str:
    try:
        value = json.loads(response.body)["value"] if response.status == 200 else None
    except (ValueError, TypeError, KeyError, RecursionError):
        value = None
    if not isinstance(value, str) or not value:
        raise AggregatorError(
            f"GitHub answered {response.status} and no token to this job",
            f"Check `permissions: id-token: write`, {OTHERWISE}",
        )
    return value
