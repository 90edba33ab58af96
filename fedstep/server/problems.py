"""Refusals as RFC 9457 problem documents: what was wrong, and what to do about it."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Problem", "as_json", "note", "on_crash", "on_http_error", "on_problem"]

log = logging.getLogger("fedstep.server")


class Problem(Exception):
    """A refusal: the status, a short name for programs, sentences for people, and members of its own.

    `reason` is what the log has of it: words of ours, nothing that the sender wrote.
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


def on_problem(request: Request, problem: Exception) -> Response:
    """The document of a Problem; the log gets its reason, and who it was as far as that is known."""
    assert isinstance(problem, Problem)
    peer = request.client.host if request.client else ""
    fields = {"status": problem.status, "problem": problem.name, "reason": problem.reason[:120], **_whose(request)}
    fields |= {"peer": peer} if peer else {}
    said = f": {fields['reason']}" if problem.reason else ""
    what = f"update {fields['update']}" if "update" in fields else "a request"
    log.warning("refused %s: %d %s%s", what, problem.status, problem.name, said, extra={"fields": fields})
    return _document(problem)


def note(request: Request, message: str, *words: object, **fields: object) -> None:
    """A line in the debug log about a request that was served."""
    if log.isEnabledFor(logging.DEBUG):  # a line costs more than all checks of an update together, 60 microseconds
        log.debug(message, *words, extra={"fields": {**_whose(request), **fields}})


def as_json(members: Mapping[str, object], status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(json.dumps(members), status, media_type="application/json")


def on_http_error(request: Request, error: Exception) -> Response:
    """The document for a path or method that is not there."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = f"{request.method} {request.url.path[:80]} is not offered here."
    return on_problem(request, Problem(status, "not-here", text))


def on_crash(_request: Request, _error: Exception) -> Response:
    """The document for a fault of ours; the log has the trace."""
    return _document(Problem(500, "fault", "The aggregator failed. Try again later; its log says why."))


def _document(problem: Problem) -> Response:
    members = {
        "type": f"urn:fedstep:problem:{problem.name}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.members,
    }
    headers = {**problem.headers, "X-Content-Type-Options": "nosniff"}
    return Response(json.dumps(members), problem.status, headers, "application/problem+json")


def _whose(request: Request) -> dict[str, object]:
    """Who sent what, as far as it was found out: what is kept of an identity, never a token."""
    sender, update = getattr(request.state, "sender", None), getattr(request.state, "update", "")
    found = {
        "owner": getattr(sender, "owner", ""),
        "project": getattr(sender, "project", ""),
        "update": update,
    }
    return {name: value for name, value in found.items() if value}
