"""What a doctor sees of the aggregator and its helper: do they answer, in time and in our schema, do they know us."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isnan, nan

from fedstep.build.record import Absent
from fedstep.errors import AggregatorError, FedstepError
from fedstep.features.schema import schema
from fedstep.federation.client import UPDATES, Fetched, pull
from fedstep.federation.exchange import Aggregator
from fedstep.federation.transport import Answer, Send, redacted
from fedstep.federation.twins import SHARES
from fedstep.federation.wire import shape
from fedstep.looking.token import expiry
from fedstep.report.diagnosis import OK, PROBLEM, WARNING, Check
from fedstep.report.inspected import SeenToken
from fedstep.report.units import span

__all__ = ["check_aggregator", "check_token", "clock_check"]

LARGEST_DIFFERENCE = 60.0  # seconds between two clocks; tokens are checked with about as much leeway
MAKE_TOKEN = "Set FEDSTEP_TOKEN to one of the aggregator's tokens"
FIND_HELPER = "Set FEDSTEP_HELPER to the URL of its helper, which whoever runs it can tell"
HURRY = 0.5  # seconds that have to be left for silence to mean something
KNOWN = (400, 415, 422)  # of an empty update: who sent it was asked first


class _Watched:
    """A `Send` that remembers what came back, and when."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.inner, self.answer, self.seconds, self.at = aggregator.send, Answer(0, {}, b""), nan, nan

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        began = time.monotonic()
        self.answer = self.inner(method, path, headers, body, timeout)
        self.seconds, self.at = time.monotonic() - began, time.time()
        return self.answer


def check_aggregator(aggregator: Aggregator, token: SeenToken) -> tuple[Check, ...]:
    """Pulls the model without keeping it, and asks whether an update would be let in by posting an empty one."""
    watched, where = _Watched(aggregator), redacted(aggregator.url)
    try:
        fetched = pull(aggregator.url, "", watched, shape(schema()), aggregator.patience)
    except AggregatorError as error:
        return (Check("Aggregator", PROBLEM, error.args[0], error.remedy),)
    model = fetched.model if isinstance(fetched, Fetched) else None
    versions = f"production {model.production_version}, head {model.head_version}" if model else "no model"
    says = f"{where} answered in {1000 * watched.seconds:.0f} ms: {versions}, same schema"
    clock = clock_check(watched.answer.headers.get("date", ""), watched.at)
    halves = bool(model and model.shares)
    welcome = _welcome(aggregator, token, SHARES if halves else UPDATES)
    return (Check("Aggregator", OK, says), clock, welcome, *_helper(aggregator, halves))


def check_token(token: SeenToken, secret: str, now: float) -> Check:
    """What kind of token it is, what it tells, and whether it is still valid."""
    if token.kind == "none":
        return Check("Token", OK, "none is configured")
    if token.kind == "static":
        return Check("Token", OK, f"a static one of {token.size} characters, which tells nothing beyond itself")
    told = ", ".join(one.name for one in token.fields if one.identifies and one.value)
    says = f"a JWT, which tells {told or 'nothing of its sender'} (fedstep inspect shows all of it)"
    end = expiry(secret)
    if end is not None and end <= now:
        fix = "Ask the CI for a new one right before fedstep runs: they live for minutes"
        return Check("Token", PROBLEM, f"it expired {span(now - end)} ago; {says}", fix)
    return Check("Token", OK, f"{says}; valid for {span(end - now)}" if end is not None else says)


def clock_check(date: str, at: float) -> Check:
    """How far this clock is from the one that wrote an HTTP Date header."""
    try:
        told = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        told = nan
    if isnan(told):
        return Check("Clock", OK, "the aggregator does not tell its time")
    ahead = at - told
    if abs(ahead) <= LARGEST_DIFFERENCE:
        return Check("Clock", OK, f"within {max(1, round(abs(ahead)))} s of the aggregator's")
    way = "ahead of" if ahead > 0 else "behind"
    says = f"{span(abs(ahead))} {way} the aggregator's: tokens would expire too early, marks of time be wrong"
    return Check("Clock", WARNING, says, "Set it right, with NTP: timedatectl set-ntp true")


def _welcome(aggregator: Aggregator, token: SeenToken, path: str) -> Check:
    """Whether the aggregator would take an update from this sender: it names the sender before it looks at the body."""
    try:
        status = _knock(aggregator, aggregator.send, path)
    except FedstepError as error:
        return Check("Welcome", WARNING, f"whether it takes updates is unknown: {error.args[0]}")
    if status in KNOWN:
        whose = "this token" if token.kind != "none" else "anyone, without a token"
        return Check("Welcome", OK, f"it takes updates from {whose}")
    if status in (401, 403):
        says = "it does not know this token" if token.kind != "none" else "it takes updates with a token only"
        return Check("Welcome", PROBLEM, f"{says} ({status})", MAKE_TOKEN)
    return Check("Welcome", WARNING, f"whether it takes updates is unknown: it answered {status} to an empty one")


def _helper(aggregator: Aggregator, halves: bool) -> tuple[Check, ...]:
    """Whether there is a helper where updates go in `halves`, none where they do not, and whether it takes its half."""
    helper, where = aggregator.helper, redacted(aggregator.url)
    if isinstance(helper, Absent):
        says = f"{where} takes updates in two halves alone, and there is no helper for the other: nothing is sent"
        return (Check("Helper", PROBLEM, says, FIND_HELPER),) if halves else ()
    if not halves:
        says = f"{where} takes updates whole, and with a helper halves are sent: it takes none of them"
        return (Check("Helper", PROBLEM, says, "Unset FEDSTEP_HELPER, or correct --aggregator"),)
    hurried = _left(aggregator) < HURRY
    try:
        status = _knock(aggregator, helper.send, SHARES)
    except FedstepError as error:
        says = f"whether it takes halves is unknown: {error.args[0]}" if hurried else error.args[0]
        return (Check("Helper", WARNING if hurried else PROBLEM, says, error.remedy),)
    return (_helper_welcome(redacted(helper.url), status),)


def _helper_welcome(where: str, status: int) -> Check:
    if status in KNOWN:
        return Check("Helper", OK, f"{where} takes its half of an update from this sender")
    if status in (401, 403):
        fix = "Set FEDSTEP_HELPER_TOKEN to one of the helper's tokens"
        return Check("Helper", PROBLEM, f"{where} does not know this sender ({status})", fix)
    if status in (404, 405):
        return Check("Helper", PROBLEM, f"{where} answered {status}: it takes no halves", FIND_HELPER)
    return Check("Helper", WARNING, f"whether {where} takes halves is unknown: it answered {status} to an empty one")


def _knock(aggregator: Aggregator, send: Send, path: str) -> int:
    """The status that an empty update gets, in the time that is left. Raises FedstepError."""
    headers = {"Accept": "application/json", "Content-Type": "application/octet-stream"}
    return send("POST", path, headers, b"", max(_left(aggregator), 0.05)).status


def _left(aggregator: Aggregator) -> float:
    """The seconds until all of it has to be over."""
    return aggregator.patience.end() - aggregator.patience.clock()
