"""One HTTP exchange: what a `Transport` is, and the real one on top of requests."""

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
from fedstep.federation.tensors import LARGEST_MESSAGE

if TYPE_CHECKING:
    from requests import PreparedRequest, Session
    from urllib3 import BaseHTTPResponse

LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back: the status, the headers by lower-case name, the body as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """One exchange within `timeout` seconds. Raises AggregatorUnreachable, or AggregatorError: a retry is pointless."""

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float
    ) -> HttpResponse: ...


def requests_transport(url: str, token: str = "") -> Transport:
    """A `Transport` to the aggregator at `url`. Proxies, NO_PROXY and REQUESTS_CA_BUNDLE are honoured as requests does.

    Redirects are not followed: the token belongs to one host. Raises UsageError for a URL or token that cannot be used.
    """
    base, where, sign = _base(url), redact_url(url), _signature(token)
    import requests

    session = requests.Session()

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        def work() -> HttpResponse:
            return _exchange(session, method, base + path, headers, body, sign, timeout)

        try:
            return _within(timeout, work)
        except (OSError, ValueError) as error:
            raise _explained(error, where, timeout) from None  # its text may quote the URL with its password

    return send


def is_exposed(url: str) -> bool:
    """Whether what is sent to this URL can be read on its way: it leaves the machine without TLS.

    >>> is_exposed("http://ci.example"), is_exposed("https://ci.example"), is_exposed("http://127.0.0.1:8765")
    (True, False, False)
    """
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in LOOPBACK_HOSTS


def redact_url(url: str) -> str:
    """The URL without user, password, query and unprintable characters.

    >>> redact_url("https://me:secret@ci.example/fed?key=1")
    'https://ci.example/fed'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the aggregator's URL"
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}{parts.path}" if host else parts.path
    return "".join(letter for letter in shown[:200] if letter.isprintable())


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{redact_url(url)} is not a URL of an aggregator", "Give one like https://fedstep.example.org."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _signature(token: str) -> "Callable[[PreparedRequest], PreparedRequest] | None":
    """What puts the token on a request; as `auth`, because ~/.netrc would overwrite a plain header."""
    secret = token.strip()
    if not secret:
        return None
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UsageError("the token has a character that no token has", "Copy it again, without spaces or line breaks.")

    def sign(request: "PreparedRequest") -> "PreparedRequest":
        request.headers["Authorization"] = f"Bearer {secret}"
        return request

    return sign


def _unsigned(request: "PreparedRequest") -> "PreparedRequest":
    return request


def _within(seconds: float, work: Callable[[], HttpResponse]) -> HttpResponse:
    """What `work` returns or raises, or TimeoutError when it takes longer.

    A thread, because a socket's timeout bounds one read only (a slow drip never ends) and name resolution not at all.
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
            auth=sign or (of_url if any(of_url) else _unsigned),  # none would send what ~/.netrc has of the host
            timeout=timeout,
            stream=True,
            allow_redirects=False,
        ) as response:
            names = {name.lower(): value for name, value in response.headers.items()}
            return HttpResponse(response.status_code, names, _read(response.raw, end))
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionError("the answer broke off") from error


def _read(raw: "BaseHTTPResponse", end: float) -> bytes:
    """The whole body as it came. AggregatorError when it is too large, TimeoutError when it takes too long."""
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


def _explained(error: Exception, where: str, timeout: float) -> AggregatorError:
    """The error with its cause and remedy, in words of our own: those of the libraries quote URLs."""
    from requests import exceptions as seen

    if isinstance(error, TimeoutError | seen.Timeout):
        return AggregatorUnreachable(
            f"{where} gave no answer inside {timeout:.1f} s", "Is it up, or is a proxy needed?"
        )
    if isinstance(error, seen.ProxyError):
        return AggregatorUnreachable(
            f"the proxy on the way to {where} failed ({_root(error)})", "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
        )
    if isinstance(error, seen.SSLError):
        return AggregatorError(
            f"the certificate of {where} is not trusted ({_root(error)})", "Set REQUESTS_CA_BUNDLE to your CA's file."
        )
    if "CA certificate bundle" in str(error):
        return AggregatorError(
            "the file of trusted certificates cannot be read", "Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE."
        )
    if isinstance(error, seen.ConnectionError | seen.ChunkedEncodingError) or not isinstance(
        error, seen.RequestException
    ):
        return AggregatorUnreachable(f"{where} cannot be reached ({_root(error)})", "Check the URL and the network.")
    return AggregatorError(f"{where} cannot be asked ({type(error).__name__})", "Check the URL and the proxy's URL.")


def _root(error: BaseException) -> str:
    """The deepest cause that the operating system or TLS gave a text to."""
    text: str = type(error).__name__
    cause: object = error
    for _ in range(20):
        if not isinstance(cause, BaseException):
            break
        text = getattr(cause, "verify_message", "") or getattr(cause, "strerror", "") or text
        # urllib3 and requests hand their causes on as a reason or an argument
        handed = getattr(cause, "reason", None) or next(iter(cause.args), None)
        cause = cause.__cause__ or cause.__context__ or handed
    return text[:120]


RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds for one exchange, its retries included; the pauses between tries; the clock and the dice for both.

    `deadline` is a time of `clock`, for everything together; each pause is stretched or shortened by up to a half.
    """

    timeout: float = 10.0
    waits: tuple[float, ...] = (0.5, 1.0, 2.0)
    deadline: float = inf
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random

    def end(self) -> float:
        """The time of `clock` at which an exchange that starts now is over."""
        return min(self.clock() + self.timeout, self.deadline)


def send_with_retries(url: str, ask: Callable[[float], HttpResponse], patience: RetryPolicy) -> HttpResponse:
    """The first answer that another try would not change; `ask` gets the seconds left.

    Raises AggregatorUnreachable when the time or the tries are over first.
    """
    end = patience.end()
    trouble = AggregatorUnreachable(f"no time was left to ask {url}", "Raise --budget or --timeout.")
    for wait in (*patience.waits, inf):
        remaining = end - patience.clock()
        if remaining <= 0:
            break
        pause = wait * (0.5 + patience.random())
        try:
            answer = ask(remaining)
        except AggregatorUnreachable as error:
            trouble = error
        else:
            if answer.status not in RETRIED_STATUSES:
                return answer
            pause = max(pause, _retry_after(answer))
            trouble = _busy(url, answer)
        if patience.clock() + pause >= end:
            break
        patience.sleep(pause)
    raise trouble


def _busy(url: str, answer: HttpResponse) -> AggregatorUnreachable:
    seconds = _retry_after(answer)
    asked = f" and asks to wait {seconds:.0f} s" if seconds else ""
    return AggregatorUnreachable(
        f"{url} answered {answer.status}{asked}",
        "The next build tries again; if it stays, look at the aggregator's log.",
    )


def _retry_after(answer: HttpResponse) -> float:
    """The seconds the server asks for; 0 when it does not say, or says it as a date."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
