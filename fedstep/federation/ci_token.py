"""Authenticate with the OpenID Connect token of a GitHub Actions job, which needs the permission `id-token: write`.

docs.github.com, "OpenID Connect reference": a GET with the request token returns {"value": the JWT}.
"""

import json
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from fedstep.errors import MALFORMED, AggregatorError, AggregatorUnreachable, UsageError
from fedstep.federation.transport import HttpResponse, Transport, is_exposed, requests_transport
from fedstep.federation.trust import redact_url

REQUEST_URL, REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
ALTERNATIVE = "or set FEDSTEP_TOKEN to a token of the aggregator."


def ci_transport(url: str, token: str, env: Mapping[str, str]) -> Transport:
    """Return a `Transport` with the token; without one, on GitHub Actions, one that requests the job's token on a 401.

    Not before: the job's token reveals the repository, which an open aggregator has no use for. Raise UsageError for
    an unusable URL or token.
    """
    plain = requests_transport(url, token)
    if token.strip() or env.get("GITHUB_ACTIONS") != "true":
        return plain
    signed: list[Transport] = []

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        left = _start_countdown(timeout)
        if not signed:
            response = plain(method, path, headers, body, left())
            if response.status != 401:
                return response
            signed.append(requests_transport(url, request_job_token(url, env, left())))
        return signed[0](method, path, headers, body, left())

    return send


def can_request_token(env: Mapping[str, str]) -> bool:
    """Tell whether this is a GitHub Actions job with the permission to request a token."""
    return env.get("GITHUB_ACTIONS") == "true" and bool(env.get(REQUEST_URL)) and bool(env.get(REQUEST_TOKEN))


def _start_countdown(seconds: float) -> Callable[[], float]:
    """Return a function that gives the seconds left, at least a millisecond: 0 would mean no limit to a socket."""
    end = time.monotonic() + seconds
    return lambda: max(0.001, end - time.monotonic())


def request_job_token(aggregator: str, env: Mapping[str, str], timeout: float) -> str:
    """Return the job's token, valid for this aggregator alone. Raise AggregatorError with what the job lacks."""
    request_url = urlsplit(env.get(REQUEST_URL, ""))
    if not request_url.netloc or not env.get(REQUEST_TOKEN):
        raise AggregatorError(
            f"{redact_url(aggregator)} wants a token, and this job may not ask GitHub for one",
            f"Give the job `permissions: id-token: write`, {ALTERNATIVE}",
        )
    if is_exposed(aggregator):
        raise AggregatorError(
            f"{redact_url(aggregator)} requires a token, which would be sent unencrypted", "Use its https:// URL."
        )
    query = f"{request_url.query}&audience={quote(redact_url(aggregator).rstrip('/'), safe='')}".lstrip("&")
    try:
        send = requests_transport(f"{request_url.scheme}://{request_url.netloc}", env[REQUEST_TOKEN])
        response = send("GET", f"{request_url.path}?{query}", {"Accept": "application/json"}, b"", timeout)
    except AggregatorUnreachable as error:
        raise AggregatorUnreachable(f"GitHub gives this job no token ({error.args[0]})", "Run it again.") from error
    except UsageError as error:
        raise AggregatorError(
            f"GitHub's {REQUEST_URL} or {REQUEST_TOKEN} cannot be used", f"Run it again, {ALTERNATIVE}"
        ) from error
    return _parse_token(response)


def _parse_token(response: HttpResponse) -> str:
    try:
        value = json.loads(response.body)["value"] if response.status == 200 else None
    except MALFORMED:
        value = None
    if not isinstance(value, str) or not value:
        raise AggregatorError(
            f"GitHub answered {response.status} and no token to this job",
            f"Check `permissions: id-token: write`, {ALTERNATIVE}",
        )
    return value
