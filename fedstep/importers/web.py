"""One GET of a service's API: what a `Get` is, and the real one on top of requests."""

import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from fedstep.errors import InputError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

__all__ = ["Answer", "Get", "TooLarge", "Unreachable", "requests_get"]

IN_MEMORY = 8 << 20  # bytes of a body; what is larger goes through a temporary file
MOST_HOPS = 5
REDIRECTS = {301, 302, 303, 307, 308}


class Unreachable(InputError):
    """The service gave no whole answer: worth another try."""


class TooLarge(InputError):
    """The answer is larger than is read."""


class Answer(NamedTuple):
    """What came back: the status, the headers by lower-case name, the body at its start."""

    status: int
    headers: Mapping[str, str]
    body: BinaryIO


class Get(Protocol):
    """One GET, redirects followed. Raises Unreachable, TooLarge, or InputError where another try is pointless."""

    def __call__(self, url: str, headers: Mapping[str, str], timeout: float, largest: int) -> Answer: ...


def requests_get(secret: Mapping[str, str]) -> Get:
    """A `Get` that signs with the headers `secret`, on the host that was asked and nowhere else.

    Artifacts are redirected to storage of another host; requests itself would take only `Authorization` away.
    """
    import requests

    session = requests.Session()

    def get(url: str, headers: Mapping[str, str], timeout: float, largest: int) -> Answer:
        asked = _origin(url)
        for _ in range(MOST_HOPS):
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
        raise Unreachable(f"{_shown(url)} cannot be reached", "Check the URL, the network and HTTPS_PROXY") from error
    except (seen.RequestException, ValueError) as error:
        raise InputError(f"{_shown(url)} cannot be asked ({type(error).__name__})", "Check the URL") from error


def _read(response: "Response", url: str, timeout: float, largest: int) -> Answer:
    """The answer with its body read, at most `largest` bytes of it, within ten times the timeout."""
    from requests import exceptions as seen

    body = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  handed on
    end = time.monotonic() + 10 * timeout
    size = 0
    try:
        for piece in response.iter_content(1 << 16):
            size += len(piece)
            if size > largest:
                raise TooLarge(f"{_shown(url)} is larger than {largest >> 20} MB")
            if time.monotonic() > end:
                raise Unreachable(f"{_shown(url)} took longer than {10 * timeout:.0f} s")
            body.write(piece)
    except (seen.RequestException, OSError) as error:
        raise Unreachable(f"the answer of {_shown(url)} broke off") from error
    body.seek(0)
    names = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, names, body)  # type: ignore[arg-type]
