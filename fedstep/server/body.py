"""The body of a request, whole, plain and bounded; or the Problem with it."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from fedstep.errors import WireError
from fedstep.federation.gzipped import inflate
from fedstep.server.problems import Problem
from fedstep.server.settings import Limits

__all__ = ["bounded", "header", "plain_body"]

HEADERS = "fedstep.headers"  # of a request's scope: the first of each name
PATIENCE = 8  # a body over the limit is read up to this many times the limit, so that its sender sees the 413


async def plain_body(request: Request, limits: Limits) -> bytes:
    """The body after decompression. Raises Problem: 400, 408, 413 or 415."""
    encoding = (header(request, b"content-encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise Problem(415, "encoding", "The body is in an encoding that is not known here. Send it plain or as gzip.")
    body = await _received(request, limits)
    if encoding == "identity":
        return body
    try:
        return inflate(body, limits.body)
    except WireError as error:
        status, name = (413, "too-large") if "inflates" in str(error) else (400, "gzip")
        raise Problem(status, name, str(error)) from error


def header(request: Request, name: bytes) -> str:
    """The first of this name, which is in small letters; "" where there is none.

    The view that Request has of its headers takes ten times as long.
    """
    found = request.scope.get(HEADERS)
    if found is None:
        found = request.scope[HEADERS] = dict(reversed(request.scope["headers"]))
    value: bytes = found.get(name, b"")
    return value.decode("latin-1")


async def bounded(request: Request, most: int) -> bytes:
    """The body; of one that is larger than `most`, the first bytes, at least one more than `most`.

    Raises ClientDisconnect.
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


async def _received(request: Request, limits: Limits) -> bytes:
    if _declared(request) > PATIENCE * limits.body:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.seconds):
            body = await bounded(request, limits.body)
    except TimeoutError as error:
        raise Problem(408, "slow", f"The body took longer than {limits.seconds:g} s. Send it again.") from error
    except ClientDisconnect as error:
        raise Problem(400, "cut-off", "The connection broke before the body was whole. Send it again.") from error
    if len(body) > limits.body:
        raise _too_large(limits)
    return body


def _too_large(limits: Limits) -> Problem:
    return Problem(413, "too-large", f"The body has more than {limits.body} bytes. An update is a few kB.")


def _declared(request: Request) -> int:
    text = header(request, b"content-length")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
