"""HTTP exchanges with an aggregator: the `Transport` protocol, its implementation with requests, and retries.

docs/decisions/0028 says why `RetryPolicy` is not `urllib3.Retry`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from random import random
from threading import Thread
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from fedstep.errors import AggregatorError, AggregatorUnreachable, UsageError
from fedstep.federation.messages import LARGEST_MESSAGE
from fedstep.federation.trust import redact_url, split_address

if TYPE_CHECKING:
    from requests import PreparedRequest, Session
    from urllib3 import BaseHTTPResponse

LONGEST_EXCHANGE = 86_400.0  # seconds; neither a socket nor a queue waits for `inf`
LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The reply to one request: status, headers by lower-case name, and the body, still in its content encoding."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """A function that sends one request to the server it is made for."""

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float, /
    ) -> HttpResponse:
        """Return the response within `timeout` seconds.

        Raise AggregatorUnreachable where a retry may help, AggregatorError where it cannot.
        """


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's URL, and the transport that reaches it."""

    url: str
    send: Transport


def requests_transport(url: str, token: str = "") -> Transport:
    """Return a `Transport` to the aggregator at `url` that uses requests, with its proxy and certificate settings.

    Redirects are not followed: the token belongs to one host. Raise UsageError for an unusable URL or token.
    """
    base, where, sign = _check_url(url), redact_url(url), _make_signer(token)
    import requests

    session = requests.Session()

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        def work() -> HttpResponse:
            return _exchange(session, method, base + path, headers, body, sign, timeout)

        timeout = min(timeout, LONGEST_EXCHANGE)
        try:
            return _run_with_timeout(timeout, work)
        except (OSError, ValueError) as error:
            raise _translate_error(error, where, timeout) from None  # its text may quote the URL with its password

    return send


def is_exposed(url: str) -> bool:
    """Tell whether a request to this URL leaves the machine without TLS, so that others can read it.

    >>> is_exposed("http://ci.example"), is_exposed("https://ci.example"), is_exposed("http://127.0.0.1:8765")
    (True, False, False)
    """
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in LOOPBACK_HOSTS


def _check_url(url: str) -> str:
    """Return the URL without query and final slash. Raise UsageError for what is no HTTP URL."""
    parts = split_address(url)
    if not parts:
        raise UsageError(
            f"{redact_url(url)} is not a URL of an aggregator", "Give one like https://fedstep.example.org."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _make_signer(token: str) -> "Callable[[PreparedRequest], PreparedRequest] | None":
    """Return a function for `auth` that adds the token to a request; ~/.netrc would overwrite a plain header."""
    secret = token.strip()
    if not secret:
        return None
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UsageError("the token has a character that no token has", "Copy it again, without spaces or line breaks.")

    def sign(request: "PreparedRequest") -> "PreparedRequest":
        request.headers["Authorization"] = f"Bearer {secret}"
        return request

    return sign


def _leave_unsigned(request: "PreparedRequest") -> "PreparedRequest":
    return request


def _run_with_timeout(seconds: float, work: Callable[[], HttpResponse]) -> HttpResponse:
    """Return or raise what `work` does; raise TimeoutError when it takes longer.

    It runs in a thread, because a socket's timeout bounds one read only (a server that sends a byte a second never
    ends) and name resolution not at all.
    """
    outcomes: SimpleQueue[HttpResponse | Exception] = SimpleQueue()

    def run() -> None:
        try:
            outcomes.put(work())
        except Exception as error:  # noqa: BLE001  carried over to the thread that waits
            outcomes.put(error)

    Thread(target=run, daemon=True, name="fedstep exchange").start()
    try:
        outcome = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _exchange(
    session: "Session",
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    sign: "Callable[[PreparedRequest], PreparedRequest] | None",
    timeout: float,
) -> HttpResponse:
    import urllib3
    from requests.utils import get_auth_from_url

    of_url = get_auth_from_url(url)
    end = time.monotonic() + timeout
    try:
        with session.request(
            method,
            url,
            data=body,
            headers=dict(headers),
            auth=sign or (of_url if any(of_url) else _leave_unsigned),  # None would send what ~/.netrc has of the host
            timeout=timeout,
            stream=True,
            allow_redirects=False,
        ) as response:
            names = {name.lower(): value for name, value in response.headers.items()}
            return HttpResponse(response.status_code, names, _read_body(response.raw, end))
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError("the answer broke off") from error


def _read_body(raw: "BaseHTTPResponse", end: float) -> bytes:
    """Return the whole body, not decoded. Raise AggregatorError when it is too large, TimeoutError when it is late."""
    body = bytearray()
    for piece in raw.stream(1 << 14, decode_content=False):
        body += piece
        if len(body) > LARGEST_MESSAGE:
            raise AggregatorError(
                f"the answer is larger than {LARGEST_MESSAGE} bytes", "Check that the URL is an aggregator's."
            )
        if time.monotonic() > end:
            raise TimeoutError
    return bytes(body)


def _translate_error(error: Exception, where: str, timeout: float) -> AggregatorError:
    """Return the error as an AggregatorError with cause and remedy; the libraries' own texts quote URLs."""
    from requests import exceptions

    if isinstance(error, TimeoutError | exceptions.Timeout):
        return AggregatorUnreachable(
            f"{where} gave no answer inside {timeout:.1f} s", "Is it up, or is a proxy needed?"
        )
    if isinstance(error, exceptions.ProxyError):
        return AggregatorUnreachable(
            f"the proxy on the way to {where} failed ({_root_cause(error)})",
            "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        )
    if isinstance(error, exceptions.SSLError):
        return AggregatorError(
            f"the certificate of {where} is not trusted ({_root_cause(error)})",
            "Set REQUESTS_CA_BUNDLE to your CA's file.",
        )
    if "CA certificate bundle" in str(error):
        return AggregatorError(
            "the file of trusted certificates cannot be read", "Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE."
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.ChunkedEncodingError) or not isinstance(
        error, exceptions.RequestException
    ):
        return AggregatorUnreachable(
            f"{where} cannot be reached ({_root_cause(error)})", "Check the URL and the network."
        )
    return AggregatorError(f"{where} cannot be asked ({type(error).__name__})", "Check the URL and the proxy's URL.")


def _root_cause(error: BaseException) -> str:
    """Return the text of the deepest cause that has one from the operating system or TLS, else the error's type."""
    text: str = type(error).__name__
    cause: object = error
    for _ in range(20):
        if not isinstance(cause, BaseException):
            break
        text = getattr(cause, "verify_message", "") or getattr(cause, "strerror", "") or text
        # urllib3 and requests pass their causes on as a reason or an argument
        wrapped = getattr(cause, "reason", None) or next(iter(cause.args), None)
        cause = cause.__cause__ or cause.__context__ or wrapped
    return text[:120]


RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a request is tried.

    `timeout` is the time for one request with all its retries, `deadline` a time of `clock` for all requests together.
    """

    timeout: float = 10.0  # seconds
    waits: tuple[float, ...] = (0.5, 1.0, 2.0)  # seconds between tries; each is varied by up to a half
    deadline: float = inf
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random

    def end(self) -> float:
        """Return the time of `clock` at which a request that starts now has to be over."""
        return min(self.clock() + self.timeout, self.deadline)


def send_with_retries(url: str, send: Callable[[float], HttpResponse], retry: RetryPolicy) -> HttpResponse:
    """Return the first response that another try would not change; `send` gets the seconds that are left.

    Raise AggregatorUnreachable when time or tries run out first.
    """
    end = retry.end()
    last_error = AggregatorUnreachable(f"no time was left to ask {url}", "Raise --budget or --timeout.")
    for wait in (*retry.waits, inf):
        remaining = end - retry.clock()
        if remaining <= 0:
            break
        pause = wait * (0.5 + retry.random())
        try:
            response = send(remaining)
        except AggregatorUnreachable as error:
            last_error = error
        else:
            if response.status not in RETRIED_STATUSES:
                return response
            pause = max(pause, _retry_after(response))
            last_error = _busy_error(url, response)
        if retry.clock() + pause >= end:
            break
        retry.sleep(pause)
    raise last_error


def _busy_error(url: str, response: HttpResponse) -> AggregatorUnreachable:
    seconds = _retry_after(response)
    asked = f" and asks to wait {seconds:.0f} s" if seconds else ""
    return AggregatorUnreachable(
        f"{url} answered {response.status}{asked}",
        "The next build tries again; if it stays, look at the aggregator's log.",
    )


def _retry_after(response: HttpResponse) -> float:
    """Return the seconds that the server asks to wait; 0 when it does not, or gives a date."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
