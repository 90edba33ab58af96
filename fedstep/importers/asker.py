"""Asks a service's API as its operators want it: one request at a time, and no faster than it allows."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import random
from typing import Any, BinaryIO, NamedTuple

from fedstep.build.record import Absent
from fedstep.errors import InputError
from fedstep.importers.answers import Answers, KeptAnswer
from fedstep.importers.web import Answer, Get, Unreachable

__all__ = ["Asker", "Manners", "Page"]

LARGEST_JSON = 128 << 20  # bytes
BROKEN = frozenset({408, 500, 502, 503, 504})
GONE = frozenset({404, 410})
MOST_LIMITS = 30  # times in a row that one request is told to wait


@dataclass(frozen=True, slots=True)
class Manners:
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


class Page(NamedTuple):
    """JSON of one page, and the URL of the next: "" at the end."""

    value: Any
    following: str = ""


class Asker:
    """The API at `base`. `remedy` says what to do when it refuses."""

    def __init__(self, get: Get, base: str, answers: Answers, manners: Manners, remedy: str) -> None:
        self.get, self.base, self.answers, self.manners = get, base.rstrip("/"), answers, manners
        self.remedy = remedy

    def page(self, path: str) -> Page:
        """The JSON at a path of the API, or at a whole URL. InputError where it is refused or missing."""
        found = self.page_if_there(path)
        if isinstance(found, Absent):
            raise InputError(found.reason, self.remedy)
        return found

    def page_if_there(self, path: str) -> Page | Absent:
        """The JSON at a path of the API; Absent for what is gone."""
        url = path if path.startswith(("http://", "https://")) else f"{self.base}/{path}"
        kept = self.answers.find(url)
        headers = {"Accept": "application/json", **({"If-None-Match": kept.etag} if kept else {})}
        answer = self._ask(url, headers, LARGEST_JSON)
        with answer.body as body:
            if answer.status in GONE:
                return Absent(f"{_shown(url)} answers {answer.status}, not found")
            if kept and answer.status == 304:
                return _page(url, kept)
            fresh = KeptAnswer(answer.headers.get("etag", ""), answer.headers.get("link", ""), body.read())
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

    def file(self, url: str, largest: int) -> BinaryIO | Absent:
        """The bytes at a URL; Absent for what is gone."""
        answer = self._ask(url, {}, largest)
        if answer.status in GONE:
            answer.body.close()
            return Absent(f"{_shown(url)} answers {answer.status}: it has expired")
        return answer.body

    def _ask(self, url: str, headers: Mapping[str, str], largest: int) -> Answer:
        """The first answer that another try would not change. InputError for a refusal."""
        waits = list(self.manners.waits)
        for _ in range(MOST_LIMITS + len(waits)):
            try:
                answer = self.get(url, headers, self.manners.timeout, largest)
            except Unreachable:
                if not waits:
                    raise
                self._pause(waits.pop(0))
                continue
            asked = _asked_to_wait(answer, self.manners.clock())
            if asked is not None:
                self._obey(url, asked)
            elif answer.status in BROKEN and waits:
                self._pause(waits.pop(0))
            else:
                return self._checked(url, answer)
        raise InputError(f"{_shown(url)} goes on asking to wait", "Run the same command later: it goes on")

    def _pause(self, seconds: float) -> None:
        self.manners.sleep(seconds * (0.5 + self.manners.random()))

    def _obey(self, url: str, seconds: float) -> None:
        """Wait as long as the service asks for, and a moment more: others wait for the same second."""
        if seconds > self.manners.longest:
            raise InputError(
                f"{_shown(url)} asks to wait {seconds / 60:.0f} minutes", "Run the same command then: it goes on"
            )
        if seconds > 5:
            self.manners.tell(f"the limit of requests is reached: going on in {seconds:.0f} s")
        self.manners.sleep(seconds + self.manners.random())

    def _checked(self, url: str, answer: Answer) -> Answer:
        if answer.status in (200, 304) or answer.status in GONE:
            return answer
        answer.body.close()
        raise InputError(f"{_shown(url)} answers {answer.status}", self.remedy)


def _asked_to_wait(answer: Answer, now: float) -> float | None:
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


def _is_secondary(answer: Answer) -> bool:
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


def _page(url: str, kept: KeptAnswer) -> Page:
    found = re.search(r'<([^>]+)>;\s*rel="next"', kept.link)
    try:
        return Page(json.loads(kept.body), found[1] if found else "")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_shown(url)} answers what is no JSON", "Check the URL of the API") from error


def _shown(url: str) -> str:
    return url.partition("?")[0].replace("://", "\0").rpartition("@")[2].replace("\0", "://")[:200]
