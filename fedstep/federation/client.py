"""The client's two questions: push an update, pull the model. What an answer means is decided here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedstep.errors import (
    AggregatorError,
    ContributionNotDue,
    PrivacyBudgetExhausted,
    SchemaMismatch,
    UpdateRefused,
    WireError,
)
from fedstep.federation.messages import Model, SchemaShape, check_model, unpack_model, unpack_update
from fedstep.federation.tensors import LARGEST_MESSAGE, deflate, inflate
from fedstep.federation.transport import HttpResponse, RetryPolicy, Transport, redact_url, send_with_retries

UPDATES_PATH = "/v1/updates"
REFUSALS: Mapping[str, type[UpdateRefused]] = {
    "urn:fedstep:problem:budget-spent": PrivacyBudgetExhausted,
    "urn:fedstep:problem:already-contributed": ContributionNotDue,
}
WRONG_URL = "Check that the URL is an aggregator's, and not a proxy's or a login page's."


@dataclass(frozen=True, slots=True)
class Receipt:
    """The aggregator's word that an update is stored: its receipt, and the version of the candidate at that time."""

    id: str
    receipt: str
    version: int


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A model, the bytes to keep, and the ETag to show next time; "" where none came."""

    model: Model
    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class NotModified:
    """The model with the ETag shown is still the newest."""

    etag: str


def push(update: bytes, url: str, send: Transport, patience: RetryPolicy | None = None) -> Receipt:
    """The receipt for one update, in the bytes that `pack_update` made. `url` is for the words of errors alone.

    Raises WireError for bytes that are no update, UpdateRefused (SchemaMismatch) when the aggregator will never take
    it, AggregatorUnreachable when it may later, AggregatorError when something must be set right first.
    """
    number, packed = unpack_update(update).id, deflate(update)
    encoding = {"Content-Encoding": "gzip"} if len(packed) < len(update) else {}
    return post(UPDATES_PATH, number, min(update, packed, key=len), url, send, patience, encoding)


def post(
    path: str,
    number: str,
    body: bytes,
    url: str,
    send: Transport,
    patience: RetryPolicy | None = None,
    encoding: Mapping[str, str] = MappingProxyType({}),
) -> Receipt:
    """The receipt for one message about the update with this id. Raises what `push` does."""
    where = redact_url(url)
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/octet-stream",
        "Idempotency-Key": number,
        **encoding,
    }
    answer = send_with_retries(where, lambda left: send("POST", path, headers, body, left), patience or RetryPolicy())
    if answer.status == 202:
        return _receipt(number, answer, where)
    if answer.status in (404, 405) and path != UPDATES_PATH:
        raise AggregatorError(
            f"{where} answered {answer.status}: it takes no shares", "Check --aggregator and --helper."
        )
    raise _refusal(answer, where)


def pull(
    url: str, etag: str, send: Transport, ours: SchemaShape, patience: RetryPolicy | None = None
) -> FetchedModel | NotModified:
    """The newest model in our schema, unless it is the one with this ETag ("": none). Raises AggregatorError."""
    where = redact_url(url)
    headers = {
        "Accept": "application/octet-stream",
        "Accept-Encoding": "gzip",
        **({"If-None-Match": etag} if etag else {}),
    }
    path = f"/v1/model?schema={ours.digest}"
    answer = send_with_retries(where, lambda left: send("GET", path, headers, b"", left), patience or RetryPolicy())
    if answer.status == 304 and etag:
        return NotModified(etag)
    if answer.status == 200:
        return _fetched(answer, where, ours)
    raise _refusal(answer, where)


def _receipt(number: str, answer: HttpResponse, where: str) -> Receipt:
    found = _json(answer)
    receipt, version = found.get("receipt"), found.get("version")
    if not isinstance(receipt, str) or not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise AggregatorError(f"{where} answered 202 without a receipt", WRONG_URL)
    return Receipt(number, _printable(receipt, 200), version)


def _fetched(answer: HttpResponse, where: str, ours: SchemaShape) -> FetchedModel:
    try:
        body = _plain(answer)
        model = unpack_model(body)
        check_model(model, ours)
    except WireError as error:
        raise AggregatorError(f"{where} answered 200 and no usable model ({error.args[0]})", WRONG_URL) from error
    etag = answer.headers.get("etag", "")
    return FetchedModel(model, body, etag if etag == _printable(etag, 200) else "")


def _plain(answer: HttpResponse) -> bytes:
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise WireError("the body is in an encoding that was not asked for")
    return inflate(answer.body, LARGEST_MESSAGE) if encoding == "gzip" else answer.body


def _refusal(answer: HttpResponse, where: str) -> AggregatorError:
    """The error that an answer means; its own words are shown bounded and printable, for they come from outside."""
    problem, status = _json(answer), answer.status
    said = f"{where} answered {status}"
    detail = _printable(str(problem.get("detail") or problem.get("title") or ""), 300)
    if 300 <= status < 400 and answer.headers.get("location"):
        target = _printable(redact_url(answer.headers["location"]), 200)
        return AggregatorError(
            f"{said} and points to {target}", "Redirects are not followed: give that URL if it is right."
        )
    if status == 401:
        remedy = f"{detail} Set FEDSTEP_TOKEN to one of its tokens.".lstrip()
        return AggregatorError(f"{said}: it wants a token that it knows", remedy)
    if status == 403:
        return AggregatorError(f"{said}: this token may not do that", detail or "Ask whoever runs the aggregator.")
    if status in (404, 405):
        return AggregatorError(f"{said}: there is no aggregator", WRONG_URL)
    if status == 409 and "expected" in problem:
        ours, theirs = (_printable(str(problem.get(key, "")), 64) for key in ("got", "expected"))
        return SchemaMismatch(
            f"{where} has the feature schema {theirs}, this fedstep {ours}", "Use the version of fedstep that it uses."
        )
    if status == 413:
        # Kept, not dropped: the aggregator takes every update we make, so it is a proxy that somebody can set right.
        return AggregatorError(
            f"{said}: the update is too large", "A proxy before the aggregator has a lower limit; raise it."
        )
    if status in (400, 409, 410, 415, 422):
        declined = REFUSALS.get(str(problem.get("type")), UpdateRefused)
        return declined(f"{said}: {detail or 'it does not want this'}", "It will not be sent again.")
    return AggregatorError(said, WRONG_URL)


def _json(answer: HttpResponse) -> dict[str, object]:
    """The object in the body; an empty one where there is none."""
    try:
        found = json.loads(_plain(answer))
    except (ValueError, RecursionError, WireError):
        return {}
    return found if isinstance(found, dict) else {}


def _printable(text: str, most: int) -> str:
    return "".join(letter for letter in text[:most] if letter.isprintable())


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """How many updates and votes the aggregator deleted: zeros where it held none of this project, for this sender."""

    updates: int
    votes: int


def request_erasure(project: str, url: str, send: Transport, patience: RetryPolicy | None = None) -> ErasureReceipt:
    """What was deleted of the project with this pseudonym; asking twice is harmless. Raises AggregatorError."""
    headers = {"Accept": "application/json", "Fedstep-Project": project}
    where = redact_url(url)
    answer = send_with_retries(
        where, lambda left: send("POST", "/v1/forget", headers, b"", left), patience or RetryPolicy()
    )
    if answer.status == 200:
        return _forgotten(answer, where)
    if answer.status in (404, 405):
        raise AggregatorError(f"{where} answered {answer.status}: it cannot be asked to forget", "Ask whoever runs it.")
    raise _refusal(answer, where)


def _forgotten(answer: HttpResponse, where: str) -> ErasureReceipt:
    found = _json(answer)
    updates, votes = (found.get(name) for name in ("updates", "votes"))
    if type(updates) is not int or type(votes) is not int or min(updates, votes) < 0:
        raise AggregatorError(f"{where} answered 200 and not how much it deleted", WRONG_URL)
    return ErasureReceipt(updates, votes)
