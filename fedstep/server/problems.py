"""Refusals as RFC 9457 problem documents: what was wrong, and what to do about it."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Problem", "on_crash", "on_http_error", "on_problem"]


class Problem(Exception):
    """A refusal: the status, a short name for programs, sentences for people, and members of its own."""

    def __init__(
        self, status: int, name: str, detail: str, members: Mapping[str, str] | None = None, *, retry_after: int = 0
    ) -> None:
        super().__init__(f"{status} {name}: {detail}")
        self.status, self.name, self.detail, self.members = status, name, detail, members or {}
        self.headers = _HEADERS.get(status, {}) | ({"Retry-After": str(retry_after)} if retry_after else {})


# A sender that was cut off may still be sending: the connection cannot be used again.
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 408: {"Connection": "close"}, 413: {"Connection": "close"}}


def on_problem(_request: Request, problem: Exception) -> Response:
    """The document of a Problem."""
    assert isinstance(problem, Problem)
    return _document(problem)


def on_http_error(request: Request, error: Exception) -> Response:
    """The document for a path or method that is not there."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _document(Problem(status, "not-here", f"{request.method} {request.url.path[:80]} is not offered here."))


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
