"""Client for the API of a CI service: one request at a time, at the rate that the service allows, with an ETag cache.

docs/decisions/0028 says why limits and cache are not those of a library.
"""

import json
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import random
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from fedstep.errors import MALFORMED, InputError
from fedstep.history.project_store import ProjectStore, list_folder, remove
from fedstep.types import Unavailable

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

CACHE_FOLDER = "answers"
MAX_FILES, MAX_FILE_BYTES = 500, 1 << 20  # bytes of one file, compressed


class CachedResponse(NamedTuple):
    """A cached body with its ETag and its Link header, which names the next page."""

    etag: str
    link: str
    body: bytes


class ResponseCache:
    """A cache of at most MAX_FILES responses in a folder of the history, under keyed hashes of their URLs."""

    def __init__(self, store: ProjectStore) -> None:
        self.store, self.folder = store, store.path(CACHE_FOLDER)
        self.files = len(list_folder(self.folder))

    def find(self, url: str) -> CachedResponse | None:
        """Return the response cached for this URL; None where there is no readable one."""
        content = self.store.read(self._name(url))
        try:
            fields = json.loads(zlib.decompressobj().decompress(content, 64 << 20)) if content else {}
            return CachedResponse(fields["etag"], fields["link"], fields["body"].encode()) if fields else None
        except MALFORMED:
            return None

    def save(self, url: str, response: CachedResponse) -> None:
        """Cache a response, unless it is large. Raise HistoryError where it cannot be written."""
        fields = {**response._asdict(), "body": response.body.decode("utf-8", "replace")}
        content = zlib.compress(json.dumps(fields).encode(), 1)
        if len(content) <= MAX_FILE_BYTES:
            self.store.write(self._name(url), content)
            self.files += 1
        if self.files > MAX_FILES:
            self._remove_oldest()

    def _name(self, url: str) -> str:
        return os.path.join(CACHE_FOLDER, self.store.keyed_hash("answer", url))

    def _remove_oldest(self) -> None:
        paths = [os.path.join(self.folder, name) for name in list_folder(self.folder)]
        paths.sort(key=lambda path: os.stat(path).st_mtime)
        for path in paths[: len(paths) - MAX_FILES * 4 // 5]:
            remove(path)
        self.files = min(len(paths), MAX_FILES * 4 // 5)


MAX_MEMORY_BYTES = 8 << 20  # of a body; a larger one goes through a temporary file
MAX_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}


class ServiceUnreachable(InputError):
    """The service gave no complete response; a retry may help."""


class ResponseTooLarge(InputError):
    """The response is larger than the limit."""


class ApiResponse(NamedTuple):
    """The response to one GET: status, headers by lower-case name, and the body, at its start."""

    status: int
    headers: Mapping[str, str]
    body: BinaryIO


class HttpGet(Protocol):
    """A function that sends one GET."""

    def __call__(self, url: str, headers: Mapping[str, str], timeout: float, max_bytes: int) -> ApiResponse:
        """Return the response, redirects followed.

        Raise ServiceUnreachable where a retry may help, ResponseTooLarge, or InputError where a retry cannot help.
        """


def requests_getter(secret: Mapping[str, str]) -> HttpGet:
    """Return an `HttpGet` that adds the headers `secret` to requests to the first host of each redirect chain only.

    Artifacts are redirected to storage on another host, and requests itself would remove only `Authorization`.
    """
    import requests

    session = requests.Session()

    def get(url: str, headers: Mapping[str, str], timeout: float, max_bytes: int) -> ApiResponse:
        first_origin = _origin(url)
        for _ in range(MAX_REDIRECTS):
            signature = secret if _origin(url) == first_origin else {}
            with _send_get(session, url, headers, signature, timeout) as response:
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    return _read_response(response, url, timeout, max_bytes)
                url = urljoin(url, response.headers["location"])
        raise InputError(f"{_redact(url)} is redirected again and again", "Check the URL")

    return get


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _redact(url: str) -> str:
    """Return scheme, host and path of a URL, without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]


def _send_get(
    session: "Session", url: str, headers: Mapping[str, str], signature: Mapping[str, str], timeout: float
) -> "Response":
    from requests import exceptions

    def sign(request: "PreparedRequest") -> "PreparedRequest":  # as `auth`: ~/.netrc would overwrite a plain header
        request.headers.update(signature)
        return request

    try:
        return session.get(url, headers=dict(headers), auth=sign, timeout=timeout, stream=True, allow_redirects=False)
    except exceptions.SSLError as error:
        raise InputError(f"the certificate of {_redact(url)} is not trusted", "Set REQUESTS_CA_BUNDLE") from error
    except (exceptions.ConnectionError, exceptions.Timeout) as error:
        raise ServiceUnreachable(
            f"{_redact(url)} cannot be reached", "Check the URL, the network and HTTPS_PROXY"
        ) from error
    except (exceptions.RequestException, ValueError) as error:
        raise InputError(f"{_redact(url)} cannot be asked ({type(error).__name__})", "Check the URL") from error


def _read_response(response: "Response", url: str, timeout: float, max_bytes: int) -> ApiResponse:
    """Return the response with its body, of at most `max_bytes`, read within ten times the timeout."""
    from requests import exceptions

    body = tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES)  # noqa: SIM115  the caller closes it
    end = time.monotonic() + 10 * timeout
    size = 0
    try:
        for piece in response.iter_content(1 << 16):
            size += len(piece)
            if size > max_bytes:
                raise ResponseTooLarge(f"{_redact(url)} is larger than {max_bytes >> 20} MB")
            if time.monotonic() > end:
                raise ServiceUnreachable(f"{_redact(url)} took longer than {10 * timeout:.0f} s")
            body.write(piece)
    except (exceptions.RequestException, OSError) as error:
        raise ServiceUnreachable(f"the response of {_redact(url)} broke off") from error
    body.seek(0)
    names = {name.lower(): value for name, value in response.headers.items()}
    return ApiResponse(response.status_code, names, body)  # type: ignore[arg-type]


MAX_JSON_BYTES = 128 << 20  # bytes
RETRIED_STATUSES = frozenset({408, 500, 502, 503, 504})
GONE = frozenset({404, 410})
MAX_RATE_LIMIT_WAITS = 30  # in a row, for one request


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """How long a request may take, when it is retried, and how long a rate limit is waited for."""

    timeout: float = 60.0  # seconds, for one response
    waits: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)  # seconds between tries; each is varied by up to a half
    longest: float = 3700.0  # seconds that a service may ask to wait; GitHub's limits are per hour
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random
    tell: Callable[[str], None] = field(default=lambda _text: None)  # called before a long wait


class ApiPage(NamedTuple):
    """The JSON of one page, and the URL of the next; "" at the end."""

    value: Any
    following: str = ""


class ApiClient:
    """The API at the URL `base`; `remedy` says what the user can do when it refuses a request."""

    def __init__(
        self, get: HttpGet, base: str, cache: ResponseCache, rate_limits: RateLimitPolicy, remedy: str
    ) -> None:
        self.get, self.base, self.cache, self.rate_limits = get, base.rstrip("/"), cache, rate_limits
        self.remedy = remedy

    def page(self, path: str) -> ApiPage:
        """Return the JSON at a path of the API, or at a whole URL. Raise InputError where it is refused or missing."""
        page = self.page_if_there(path)
        if isinstance(page, Unavailable):
            raise InputError(page.reason, self.remedy)
        return page

    def page_if_there(self, path: str) -> ApiPage | Unavailable:
        """Return the JSON at a path of the API; Unavailable where it does not exist (any more)."""
        url = path if path.startswith(("http://", "https://")) else f"{self.base}/{path}"
        cached = self.cache.find(url)
        headers = {"Accept": "application/json", **({"If-None-Match": cached.etag} if cached else {})}
        response = self._request(url, headers, MAX_JSON_BYTES)
        with response.body as body:
            if response.status in GONE:
                return Unavailable(f"{_redact(url)} answers {response.status}, not found")
            if cached and response.status == 304:
                return _parse_page(url, cached)
            fresh = CachedResponse(response.headers.get("etag", ""), response.headers.get("link", ""), body.read())
        if fresh.etag:
            self.cache.save(url, fresh)
        return _parse_page(url, fresh)

    def pages(self, path: str) -> Iterator[Any]:
        """Yield the JSON of this page and of all that follow it; each is requested when it is needed."""
        following = path
        while following:
            page = self.page(following)
            yield page.value
            following = page.following

    def file(self, url: str, max_bytes: int) -> BinaryIO | Unavailable:
        """Return the bytes at a URL; Unavailable where they do not exist any more."""
        response = self._request(url, {}, max_bytes)
        if response.status in GONE:
            response.body.close()
            return Unavailable(f"{_redact(url)} answers {response.status}: it has expired")
        return response.body

    def _request(self, url: str, headers: Mapping[str, str], max_bytes: int) -> ApiResponse:
        """Return the first response that another try would not change. Raise InputError for a refusal."""
        waits = list(self.rate_limits.waits)
        for _ in range(MAX_RATE_LIMIT_WAITS + len(waits)):
            try:
                response = self.get(url, headers, self.rate_limits.timeout, max_bytes)
            except ServiceUnreachable:
                if not waits:
                    raise
                self._pause(waits.pop(0))
                continue
            requested_wait = _requested_wait(response, self.rate_limits.clock())
            if requested_wait is not None:
                self._wait_for_limit(url, requested_wait)
            elif response.status in RETRIED_STATUSES and waits:
                self._pause(waits.pop(0))
            else:
                return self._check_status(url, response)
        raise InputError(f"{_redact(url)} goes on asking to wait", "Run the same command later: it goes on")

    def _pause(self, seconds: float) -> None:
        self.rate_limits.sleep(seconds * (0.5 + self.rate_limits.random()))

    def _wait_for_limit(self, url: str, seconds: float) -> None:
        """Wait as long as the service asks, and up to a second more, because other clients wait for the same second."""
        if seconds > self.rate_limits.longest:
            raise InputError(
                f"{_redact(url)} asks to wait {seconds / 60:.0f} minutes", "Run the same command then: it goes on"
            )
        if seconds > 5:
            self.rate_limits.tell(f"the limit of requests is reached: going on in {seconds:.0f} s")
        self.rate_limits.sleep(seconds + self.rate_limits.random())

    def _check_status(self, url: str, response: ApiResponse) -> ApiResponse:
        if response.status in (200, 304) or response.status in GONE:
            return response
        response.body.close()
        raise InputError(f"{_redact(url)} answers {response.status}", self.remedy)


def _requested_wait(response: ApiResponse, now: float) -> float | None:
    """Return the seconds that a service wants to pass before another request; None where it sets no limit.

    GitHub signals limits by 403 or 429 (Retry-After, else X-RateLimit-Reset once nothing remains, else a minute),
    GitLab by 429 with Retry-After and RateLimit-Reset, proxies by 503 with Retry-After.
    """
    headers = response.headers
    if "retry-after" in headers and response.status in (403, 429, 503):
        return _parse_retry_after(headers["retry-after"], now)
    exhausted = "0" in (headers.get("x-ratelimit-remaining"), headers.get("ratelimit-remaining"))
    if response.status == 429 or (response.status == 403 and (exhausted or _is_secondary_limit(response))):
        reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or ""
        return max(1.0, float(reset) - now) if exhausted and reset.isdecimal() else 60.0
    return None


def _is_secondary_limit(response: ApiResponse) -> bool:
    """Tell whether a 403 is one of GitHub's secondary limits, which only its text says."""
    text = response.body.read(4096)
    response.body.seek(0)
    return b"rate limit" in text.lower()


def _parse_retry_after(text: str, now: float) -> float:
    """Return the seconds of a Retry-After header, which is a number or a date; a minute for anything else."""
    if text.isdecimal():
        return float(text)
    try:
        return max(1.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return 60.0


def _parse_page(url: str, response: CachedResponse) -> ApiPage:
    next_link = re.search(r'<([^>]+)>;\s*rel="next"', response.link)
    try:
        return ApiPage(json.loads(response.body), next_link[1] if next_link else "")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_redact(url)} answers what is no JSON", "Check the URL of the API") from error
