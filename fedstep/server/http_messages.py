"""Read request bodies within limits, and answer refusals as RFC 9457 problem documents."""

import asyncio
import json
import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fedstep.errors import WireError
from fedstep.federation.messages import inflate
from fedstep.server.settings import Limits

log = logging.getLogger("fedstep.server")


class HttpProblem(Exception):
    """A refusal: the status, a short name for programs, a text for users, and further members.

    `reason` is for the log; it must not quote what the sender wrote.
    """

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        members: Mapping[str, str] | None = None,
        *,
        retry_after: int = 0,
        reason: str = "",
    ) -> None:
        super().__init__(f"{status} {name}: {detail}")
        self.status, self.name, self.detail, self.members = status, name, detail, members or {}
        self.reason = reason
        self.headers = _HEADERS.get(status, {}) | ({"Retry-After": str(retry_after)} if retry_after else {})


# A sender that was cut off may still be sending: the connection cannot be used again.
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}, 413: {"Connection": "close"}}


def asks_only(request: Request) -> bool:
    """Return whether the request has no body: `fedstep doctor` asks whether its sender is let in.

    Whatever the answer, no update is refused, and none is counted.
    """
    return request.headers.get("content-length") == "0"


def on_problem(request: Request, problem: Exception) -> Response:
    """Return the document of an HttpProblem, and log its reason and the sender as far as known."""
    assert isinstance(problem, HttpProblem)
    peer = request.client.host if request.client else ""
    fields = {
        "status": problem.status,
        "problem": problem.name,
        "reason": problem.reason[:120],
        **_sender_fields(request),
    }
    fields |= {"peer": peer} if peer else {}
    reason = f": {fields['reason']}" if problem.reason else ""
    subject = f"update {fields['update']}" if "update" in fields else "a request"
    log.warning("refused %s: %d %s%s", subject, problem.status, problem.name, reason, extra={"fields": fields})
    return _document(problem)


def note(request: Request, message: str, *words: object, **fields: object) -> None:
    """Log a served request at level debug."""
    if log.isEnabledFor(logging.DEBUG):  # a line costs more than all checks of an update together, 60 microseconds
        log.debug(message, *words, extra={"fields": {**_sender_fields(request), **fields}})


def as_json(members: Mapping[str, object], status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(json.dumps(members), status, media_type="application/json")


def on_http_error(request: Request, error: Exception) -> Response:
    """Return the document for an unknown path or method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = f"{request.method} {request.url.path[:80]} is not offered here."
    return on_problem(request, HttpProblem(status, "not-here", text))


def on_crash(_request: Request, _error: Exception) -> Response:
    """Return the document for an internal error, of which the log has the traceback."""
    return _document(HttpProblem(500, "fault", "The aggregator failed. Try again later; its log says why."))


def _document(problem: HttpProblem) -> Response:
    members = {
        "type": f"urn:fedstep:problem:{problem.name}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    headers = {**problem.headers, "X-Content-Type-Options": "nosniff"}
    return Response(json.dumps(members), problem.status, headers, "application/problem+json")


def _sender_fields(request: Request) -> dict[str, object]:
    """Return owner, project and update as far as known; never a token."""
    sender, update = getattr(request.state, "sender", None), getattr(request.state, "update", "")
    fields = {
        "owner": getattr(sender, "owner", ""),
        "project": getattr(sender, "project", ""),
        "update": update,
    }
    return {name: value for name, value in fields.items() if value}


HEADERS = "fedstep.headers"  # key of the request's scope: the first header of each name
PATIENCE = 8  # a body is read up to this many times the limit, so that its sender receives the 413


async def plain_body(request: Request, limits: Limits) -> bytes:
    """Return the decompressed body. Raise HttpProblem: 400, 408, 413 or 415."""
    encoding = (header(request, b"content-encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise HttpProblem(
            415, "encoding", "The body is in an encoding that is not known here. Send it plain or as gzip."
        )
    body = await _receive(request, limits)
    if encoding == "identity":
        return body
    try:
        return inflate(body, limits.body)
    except WireError as error:
        status, name = (413, "too-large") if "inflates" in str(error) else (400, "gzip")
        raise HttpProblem(status, name, str(error)) from error


def header(request: Request, name: bytes) -> str:
    """Return the first header of this name in small letters, "" if there is none.

    `request.headers` takes ten times as long.
    """
    headers = request.scope.get(HEADERS)
    if headers is None:
        headers = request.scope[HEADERS] = dict(reversed(request.scope["headers"]))
    value: bytes = headers.get(name, b"")
    return value.decode("latin-1")


async def read_bounded_body(request: Request, most: int) -> bytes:
    """Return the body; of one larger than `most` bytes, at least its first `most` + 1.

    Raise ClientDisconnect.
    """
    pieces: list[bytes] = []
    seen, more = 0, True
    while more and seen <= PATIENCE * most:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        if seen <= most:
            pieces.append(piece)
        seen += len(piece)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _receive(request: Request, limits: Limits) -> bytes:
    if _declared_length(request) > PATIENCE * limits.body:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.seconds):
            body = await read_bounded_body(request, limits.body)
    except TimeoutError as error:
        raise HttpProblem(408, "slow", f"The body took longer than {limits.seconds:g} s. Send it again.") from error
    except ClientDisconnect as error:
        raise HttpProblem(400, "cut-off", "The connection broke before the body was whole. Send it again.") from error
    if len(body) > limits.body:
        raise _too_large(limits)
    return body


def _too_large(limits: Limits) -> HttpProblem:
    return HttpProblem(413, "too-large", f"The body has more than {limits.body} bytes. An update is a few kB.")


def _declared_length(request: Request) -> int:
    text = header(request, b"content-length")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
