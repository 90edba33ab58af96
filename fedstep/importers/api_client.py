"""Asks a service's API as its operators want it: one request at a time, and no faster than it allows."""

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

from fedstep.errors import InputError
from fedstep.history.project_store import ProjectStore, list_folder, remove
from fedstep.types import Unavailable

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

CACHE_FOLDER = "answers"
MAX_FILES, MAX_FILE_BYTES = 500, 1 << 20  # files; bytes of one, packed


class CachedResponse(NamedTuple):
    """A body with the ETag that it had, and the link to the next page."""

    etag: str
    link: str
    body: bytes


class ResponseCache:
    """A small cache in a history's folder; names of files are keyed hashes, and the oldest go."""

    def __init__(self, home: ProjectStore) -> None:
        self.home, self.folder = home, home.path(CACHE_FOLDER)
        self.files = len(list_folder(self.folder))

    def find(self, url: str) -> CachedResponse | None:
        """The answer kept for this URL; None where there is none that can be read."""
        content = self.home.read(self._name(url))
        try:
            fields = json.loads(zlib.decompressobj().decompress(content, 64 << 20)) if content else {}
            return CachedResponse(fields["etag"], fields["link"], fields["body"].encode()) if fields else None
        except (zlib.error, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, url: str, answer: CachedResponse) -> None:
        """Keep an answer, unless it is large. HistoryError where it cannot be written."""
        fields = {**answer._asdict(), "body": answer.body.decode("utf-8", "replace")}
        content = zlib.compress(json.dumps(fields).encode(), 1)
        if len(content) <= MAX_FILE_BYTES:
            self.home.write(self._name(url), content)
            self.files += 1
        if self.files > MAX_FILES:
            self._forget()

    def _name(self, url: str) -> str:
        return os.path.join(CACHE_FOLDER, self.home.keyed("answer", url))

    def _forget(self) -> None:
        paths = [os.path.join(self.folder, name) for name in list_folder(self.folder)]
        paths.sort(key=lambda path: os.stat(path).st_mtime)
        for path in paths[: len(paths) - MAX_FILES * 4 // 5]:
            remove(path)
        self.files = min(len(paths), MAX_FILES * 4 // 5)


MAX_MEMORY_BYTES = 8 << 20  # bytes of a body; what is larger goes through a temporary file
MAX_REDIRECTS = 5
REDIRECTS = {301, 302, 303, 307, 308}


class ServiceUnreachable(InputError):
    """The service gave no whole answer: worth another try."""


class ResponseTooLarge(InputError):
    """The answer is larger than is read."""


class ApiResponse(NamedTuple):
    """What came back: the status, the headers by lower-case name, the body at its start."""

    status: int
    headers: Mapping[str, str]
    body: BinaryIO


class HttpGet(Protocol):
    """One GET, redirects followed. Raises Unreachable, TooLarge, or InputError where another try is pointless."""

    def __call__(self, url: str, headers: Mapping[str, str], timeout: float, largest: int) -> ApiResponse: ...


def requests_getter(secret: Mapping[str, str]) -> HttpGet:
    """A `HttpGet` that signs with the headers `secret`, on the host that was asked and nowhere else.

    Artifacts are redirected to storage of another host; requests itself would take only `Authorization` away.
    """
    import requests

    session = requests.Session()

    def get(url: str, headers: Mapping[str, str], timeout: float, largest: int) -> ApiResponse:
        asked = _origin(url)
        for _ in range(MAX_REDIRECTS):
            signed = secret if _origin(url) == asked else {}
            with _asked(session, url, headers, signed, timeout) as response:
                if response.status_code not in REDIRECTS or "location" not in response.headers:
                    return _read(response, url, timeout, largest)
                url = urljoin(url, response.headers["location"])
        raise InputError(f"{_shown(url)} is redirected again and again", "Check the URL")

    return get


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _shown(url: str) -> str:
    """Scheme, host and path of a URL: never its user, password or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]


def _asked(
    session: "Session", url: str, headers: Mapping[str, str], signed: Mapping[str, str], timeout: float
) -> "Response":
    from requests import exceptions as seen

    def sign(request: "PreparedRequest") -> "PreparedRequest":  # as `auth`: ~/.netrc would overwrite a plain header
        request.headers.update(signed)
        return request

    try:
        return session.get(url, headers=dict(headers), auth=sign, timeout=timeout, stream=True, allow_redirects=False)
    except seen.SSLError as error:
        raise InputError(f"the certificate of {_shown(url)} is not trusted", "Set REQUESTS_CA_BUNDLE") from error
    except (seen.ConnectionError, seen.Timeout) as error:
        raise ServiceUnreachable(
            f"{_shown(url)} cannot be reached", "Check the URL, the network and HTTPS_PROXY"
        ) from error
    except (seen.RequestException, ValueError) as error:
        raise InputError(f"{_shown(url)} cannot be asked ({type(error).__name__})", "Check the URL") from error


def _read(response: "Response", url: str, timeout: float, largest: int) -> ApiResponse:
    """The answer with its body read, at most `largest` bytes of it, within ten times the timeout."""
    from requests import exceptions as seen

    body = tempfile.SpooledTemporaryFile(MAX_MEMORY_BYTES)  # noqa: SIM115  handed on
    end = time.monotonic() + 10 * timeout
    size = 0
    try:
        for piece in response.iter_content(1 << 16):
            size += len(piece)
            if size > largest:
                raise ResponseTooLarge(f"{_shown(url)} is larger than {largest >> 20} MB")
            if time.monotonic() > end:
                raise ServiceUnreachable(f"{_shown(url)} took longer than {10 * timeout:.0f} s")
            body.write(piece)
    except (seen.RequestException, OSError) as error:
        raise ServiceUnreachable(f"the answer of {_shown(url)} broke off") from error
    body.seek(0)
    names = {name.lower(): value for name, value in response.headers.items()}
    return ApiResponse(response.status_code, names, body)  # type: ignore[arg-type]


MAX_JSON_BYTES = 128 << 20  # bytes
RETRIED_STATUSES = frozenset({408, 500, 502, 503, 504})
GONE = frozenset({404, 410})
MAX_RATE_LIMIT_WAITS = 30  # times in a row that one request is told to wait


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """Seconds for one answer; the pauses between tries, each stretched or shortened by up to a half; clock and dice.

    `longest` is the longest pause that a service may ask for; `tell` says that it is kept.
    """

    timeout: float = 60.0
    waits: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    longest: float = 3700.0
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random
    tell: Callable[[str], None] = field(default=lambda _text: None)


class ApiPage(NamedTuple):
    """JSON of one page, and the URL of the next: "" at the end."""

    value: Any
    following: str = ""


class ApiClient:
    """The API at `base`. `remedy` says what to do when it refuses."""

    def __init__(
        self, get: HttpGet, base: str, answers: ResponseCache, rate_limits: RateLimitPolicy, remedy: str
    ) -> None:
        self.get, self.base, self.answers, self.rate_limits = get, base.rstrip("/"), answers, rate_limits
        self.remedy = remedy

    def page(self, path: str) -> ApiPage:
        """The JSON at a path of the API, or at a whole URL. InputError where it is refused or missing."""
        found = self.page_if_there(path)
        if isinstance(found, Unavailable):
            raise InputError(found.reason, self.remedy)
        return found

    def page_if_there(self, path: str) -> ApiPage | Unavailable:
        """The JSON at a path of the API; Absent for what is gone."""
        url = path if path.startswith(("http://", "https://")) else f"{self.base}/{path}"
        kept = self.answers.find(url)
        headers = {"Accept": "application/json", **({"If-None-Match": kept.etag} if kept else {})}
        answer = self._ask(url, headers, MAX_JSON_BYTES)
        with answer.body as body:
            if answer.status in GONE:
                return Unavailable(f"{_shown_url(url)} answers {answer.status}, not found")
            if kept and answer.status == 304:
                return _page(url, kept)
            fresh = CachedResponse(answer.headers.get("etag", ""), answer.headers.get("link", ""), body.read())
        if fresh.etag:
            self.answers.keep(url, fresh)
        return _page(url, fresh)

    def pages(self, path: str) -> Iterator[Any]:
        """The JSON of this page and of all that follow it, each asked for when it is wanted."""
        following = path
        while following:
            page = self.page(following)
            yield page.value
            following = page.following

    def file(self, url: str, largest: int) -> BinaryIO | Unavailable:
        """The bytes at a URL; Absent for what is gone."""
        answer = self._ask(url, {}, largest)
        if answer.status in GONE:
            answer.body.close()
            return Unavailable(f"{_shown_url(url)} answers {answer.status}: it has expired")
        return answer.body

    def _ask(self, url: str, headers: Mapping[str, str], largest: int) -> ApiResponse:
        """The first answer that another try would not change. InputError for a refusal."""
        waits = list(self.rate_limits.waits)
        for _ in range(MAX_RATE_LIMIT_WAITS + len(waits)):
            try:
                answer = self.get(url, headers, self.rate_limits.timeout, largest)
            except ServiceUnreachable:
                if not waits:
                    raise
                self._pause(waits.pop(0))
                continue
            asked = _asked_to_wait(answer, self.rate_limits.clock())
            if asked is not None:
                self._obey(url, asked)
            elif answer.status in RETRIED_STATUSES and waits:
                self._pause(waits.pop(0))
            else:
                return self._checked(url, answer)
        raise InputError(f"{_shown_url(url)} goes on asking to wait", "Run the same command later: it goes on")

    def _pause(self, seconds: float) -> None:
        self.rate_limits.sleep(seconds * (0.5 + self.rate_limits.random()))

    def _obey(self, url: str, seconds: float) -> None:
        """Wait as long as the service asks for, and a moment more: others wait for the same second."""
        if seconds > self.rate_limits.longest:
            raise InputError(
                f"{_shown_url(url)} asks to wait {seconds / 60:.0f} minutes", "Run the same command then: it goes on"
            )
        if seconds > 5:
            self.rate_limits.tell(f"the limit of requests is reached: going on in {seconds:.0f} s")
        self.rate_limits.sleep(seconds + self.rate_limits.random())

    def _checked(self, url: str, answer: ApiResponse) -> ApiResponse:
        if answer.status in (200, 304) or answer.status in GONE:
            return answer
        answer.body.close()
        raise InputError(f"{_shown_url(url)} answers {answer.status}", self.remedy)


def _asked_to_wait(answer: ApiResponse, now: float) -> float | None:
    """Seconds that a service wants us to wait before another request; None where it does not.

    GitHub tells limits by 403 or 429: Retry-After, else X-RateLimit-Reset once nothing remains, else a minute; GitLab
    by 429 with Retry-After and RateLimit-Reset; proxies by 503 with Retry-After.
    """
    headers = answer.headers
    if "retry-after" in headers and answer.status in (403, 429, 503):
        return _seconds(headers["retry-after"], now)
    spent = "0" in (headers.get("x-ratelimit-remaining"), headers.get("ratelimit-remaining"))
    if answer.status == 429 or (answer.status == 403 and (spent or _is_secondary(answer))):
        reset = headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset") or ""
        return max(1.0, float(reset) - now) if spent and reset.isdecimal() else 60.0
    return None


def _is_secondary(answer: ApiResponse) -> bool:
    text = answer.body.read(4096)
    answer.body.seek(0)
    return b"rate limit" in text.lower()


def _seconds(text: str, now: float) -> float:
    """A Retry-After in seconds: a number, or a date."""
    if text.isdecimal():
        return float(text)
    try:
        return max(1.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError):
        return 60.0


def _page(url: str, kept: CachedResponse) -> ApiPage:
    found = re.search(r'<([^>]+)>;\s*rel="next"', kept.link)
    try:
        return ApiPage(json.loads(kept.body), found[1] if found else "")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_shown_url(url)} answers what is no JSON", "Check the URL of the API") from error


def _shown_url(url: str) -> str:
    return url.partition("?")[0].replace("://", "\0").rpartition("@")[2].replace("\0", "://")[:200]
