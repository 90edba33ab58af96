"""Authenticate requests and enforce rate limits."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from math import ceil

from starlette.requests import Request

from fedstep.server.http_messages import HttpProblem, header
from fedstep.server.identity import OPEN, AccessDenied, Identity, TokenBook, doorkeeper
from fedstep.server.oidc import IssuerUnreachable, Verifier
from fedstep.server.rate_limits import WEEK, Allowance, AllowanceMeter, ProjectLimiter, RateLimiter, ReadLimiter
from fedstep.server.settings import Settings

PROJECT_HEADER = "Fedstep-Project"  # not in the path, where proxies would log it
PSEUDONYM = re.compile("[0-9a-f]{32}")
LOOK_SECONDS = 2.0  # between reloads of the tokens: a revoked one is refused after that
THROUGH_A_PROXY = ("forwarded", "x-forwarded-for", "via")
log = logging.getLogger("fedstep.server")


class RequestGuard:
    """Authenticates requests, or raises the HttpProblem that refuses them."""

    def __init__(self, settings: Settings, book: TokenBook, clock: Callable[[], float] = time.time) -> None:
        """Raise UsageError if anyone could send."""
        verify = Verifier(settings.issuers, settings.audience, clock=clock) if settings.issuers else None
        closed = bool(settings.proxies or book.list_tokens())
        self._keeper = doorkeeper(settings.host, settings.tokens, book.senders(), verify, closed)
        self._book, self._limiter = book, RateLimiter(settings.allowances)
        self._projects = ProjectLimiter(settings.owner_projects)
        self._forgotten = AllowanceMeter((Allowance(1, WEEK),))
        self._private, self._reads = settings.private_model, ReadLimiter(settings.read_rate)

    async def writer(self, request: Request) -> Identity:
        """Return the sender of an update, and count it. Raise HttpProblem: 401, 403, 429, 503."""
        sender = await self._identify(request)
        who, seconds = self._limiter.take(sender, time.monotonic())
        if seconds:
            text = f"This {who} has sent more than it may for now. Send it again in {seconds} s."
            raise HttpProblem(429, "too-many", text, retry_after=seconds, reason=who)
        return sender

    def check_projects(self, sender: Identity, project: str) -> None:
        """Raise HttpProblem, status 429, where a sender without a project of its own names too many of them."""
        if sender.owner and not sender.project and not self._projects.admit(sender.owner, project, time.monotonic()):
            text = f"This owner has sent for {self._projects.most} projects in a week. Use a token of a project."
            raise HttpProblem(429, "too-many-projects", text, retry_after=86_400, reason=sender.owner)
        seconds = ceil(self._forgotten.level(f"{sender.owner} {project}", time.monotonic()).wait)
        if seconds:
            text = "The project was forgotten at its request. It may send again a week after that."
            raise HttpProblem(429, "forgotten", text, retry_after=seconds)

    def note_forgotten(self, sender: Identity, project: str) -> None:
        """Let this project send nothing for a week: an attacker could have each update forgotten once it took effect.

        What remains of the others would not show that it goes against them.
        """
        if sender.owner:
            key = f"{sender.owner} {project}"
            self._forgotten.take(key, self._forgotten.level(key, time.monotonic()))

    async def reader(self, request: Request) -> None:
        """Count a reader, and authenticate it if the model is private. Raise HttpProblem: 401, 403, 429, 503."""
        seconds = self._reads.take(request.client.host, time.monotonic()) if request.client else 0
        if seconds:
            text = f"This address has read more than it may for now. Ask again in {seconds} s."
            raise HttpProblem(429, "too-many-reads", text, retry_after=seconds)
        if self._private:
            await self._identify(request)

    async def watch(self) -> None:
        """Reload the tokens of the store periodically, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._keeper.learn(await asyncio.to_thread(self._book.senders))
            except Exception:
                log.exception("the tokens cannot be read; those known last are accepted")

    async def _identify(self, request: Request) -> Identity:
        try:
            sender = await self._keeper.identify(header(request, b"authorization"))
        except IssuerUnreachable as error:
            text = f"The keys of {error.issuer} are unavailable now. Send it again later."
            raise HttpProblem(503, "issuer", text, retry_after=error.seconds, reason=error.issuer) from error
        if sender is OPEN and any(name in request.headers for name in THROUGH_A_PROXY):
            sender = AccessDenied(
                "it came through a proxy, and this aggregator is open to its own machine only", "Give it tokens."
            )
        if isinstance(sender, AccessDenied):
            status, name = (403, "not-allowed") if sender.known else (401, "unknown-sender")
            raise HttpProblem(
                status, name, f"The sender is refused: {sender.reason}. {sender.remedy}", reason=sender.reason
            )
        request.scope.setdefault("state", {})["sender"] = sender  # as request.state, which takes ten times as long
        return sender


def read_project(request: Request, sender: Identity) -> str:
    """Return the project to forget: that of the identity, else the one whose pseudonym the sender knows.

    Raise HttpProblem for a request that names none.
    """
    claimed = request.headers.get(PROJECT_HEADER, "")
    if not PSEUDONYM.fullmatch(claimed):
        raise HttpProblem(400, "no-project", f"{PROJECT_HEADER} must be the pseudonym of the project: 32 hex digits.")
    return sender.pseudonym(claimed)
