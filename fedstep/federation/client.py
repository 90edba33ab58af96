"""The client of an aggregator: push an update, pull the model, request erasure; and what each response means."""

import json
import re
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
from fedstep.federation.messages import (
    LARGEST_MESSAGE,
    Model,
    SchemaShape,
    check_model,
    deflate,
    inflate,
    unpack_model,
    unpack_update,
)
from fedstep.federation.transport import HttpResponse, RetryPolicy, Transport, send_with_retries
from fedstep.federation.trust import redact_url

UPDATES_PATH = "/v1/updates"
LINEAGE_HEADER = "Fedstep-Lineage"  # no word of the model: a reader refuses words that it does not know
REFUSALS: Mapping[str, type[UpdateRefused]] = {
    "urn:fedstep:problem:budget-spent": PrivacyBudgetExhausted,
    "urn:fedstep:problem:already-contributed": ContributionNotDue,
}
WRONG_URL = "Check that the URL is an aggregator's, and not a proxy's or a login page's."


@dataclass(frozen=True, slots=True)
class Receipt:
    """The aggregator's confirmation that an update is stored, with the version of the candidate at that time."""

    id: str  # of the update
    receipt: str
    version: int


@dataclass(frozen=True, slots=True)
class FetchedModel:
    """A pulled model, its bytes as they are cached, its ETag ("" for none), which the next pull sends, and its lineage.

    `lineage` is the id of the store that it is from; "" where the aggregator names none.
    """

    model: Model
    body: bytes
    etag: str
    lineage: str = ""


@dataclass(frozen=True, slots=True)
class NotModified:
    """The response that the model with the sent ETag is still the newest; `lineage` as in `FetchedModel`."""

    etag: str
    lineage: str = ""


def push(update: bytes, url: str, send: Transport, retry: RetryPolicy | None = None) -> Receipt:
    """Send one update, in the bytes that `pack_update` made, and return its receipt; `url` is used in errors alone.

    Raises:
        WireError: The bytes are not an update.
        UpdateRefused: The aggregator will never accept it (SchemaMismatch: it has another feature schema).
        AggregatorUnreachable: It may be accepted later.
        AggregatorError: Something has to be corrected first.
    """
    update_id, packed = unpack_update(update).id, deflate(update)
    encoding = {"Content-Encoding": "gzip"} if len(packed) < len(update) else {}
    return post(UPDATES_PATH, update_id, min(update, packed, key=len), url, send, retry, encoding)


def post(
    path: str,
    update_id: str,
    body: bytes,
    url: str,
    send: Transport,
    retry: RetryPolicy | None = None,
    encoding: Mapping[str, str] = MappingProxyType({}),
) -> Receipt:
    """Send one message about the update with this id and return its receipt. Raise what `push` raises."""
    where = redact_url(url)
    headers = {
        "Accept": "application/json",
        "Content-Type": "application/octet-stream",
        "Idempotency-Key": update_id,
        **encoding,
    }
    response = send_with_retries(where, lambda left: send("POST", path, headers, body, left), retry or RetryPolicy())
    if response.status == 202:
        return _parse_receipt(update_id, response, where)
    if response.status in (404, 405) and path != UPDATES_PATH:
        raise AggregatorError(
            f"{where} answered {response.status}: it accepts no shares", "Check --aggregator and --helper."
        )
    raise _make_error(response, where)


def pull(
    url: str, etag: str, send: Transport, local_schema: SchemaShape, retry: RetryPolicy | None = None
) -> FetchedModel | NotModified:
    """Return the newest model of the local schema, unless it is the one with this ETag ("" for none).

    Raise AggregatorError.
    """
    where = redact_url(url)
    headers = {
        "Accept": "application/octet-stream",
        "Accept-Encoding": "gzip",
        **({"If-None-Match": etag} if etag else {}),
    }
    path = f"/v1/model?schema={local_schema.digest}"
    response = send_with_retries(where, lambda left: send("GET", path, headers, b"", left), retry or RetryPolicy())
    if response.status == 304 and etag:
        return NotModified(etag, _read_lineage(response))
    if response.status == 200:
        return _parse_model(response, where, local_schema)
    raise _make_error(response, where)


def _parse_receipt(update_id: str, response: HttpResponse, where: str) -> Receipt:
    fields = _parse_json(response)
    receipt, version = fields.get("receipt"), fields.get("version")
    if not isinstance(receipt, str) or not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise AggregatorError(f"{where} answered 202 without a receipt", WRONG_URL)
    return Receipt(update_id, _to_printable(receipt, 200), version)


def _parse_model(response: HttpResponse, where: str, local_schema: SchemaShape) -> FetchedModel:
    try:
        body = _decode_body(response)
        model = unpack_model(body)
        check_model(model, local_schema)
    except WireError as error:
        raise AggregatorError(f"{where} answered 200 and no usable model ({error.args[0]})", WRONG_URL) from error
    etag = response.headers.get("etag", "")
    return FetchedModel(model, body, etag if etag == _to_printable(etag, 200) else "", _read_lineage(response))


def _read_lineage(response: HttpResponse) -> str:
    lineage = response.headers.get(LINEAGE_HEADER.lower(), "")
    return lineage if re.fullmatch("[0-9a-f]{16}", lineage) else ""


def _decode_body(response: HttpResponse) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise WireError("the body is in an encoding that was not asked for")
    return inflate(response.body, LARGEST_MESSAGE) if encoding == "gzip" else response.body


def _make_error(response: HttpResponse, where: str) -> AggregatorError:
    """Return the error that a response means; text of the server is cut and made printable, because it is untrusted."""
    problem, status = _parse_json(response), response.status
    message = f"{where} answered {status}"
    detail = _to_printable(str(problem.get("detail") or problem.get("title") or ""), 300)
    if 300 <= status < 400 and response.headers.get("location"):
        target = _to_printable(redact_url(response.headers["location"]), 200)
        return AggregatorError(
            f"{message} and points to {target}", "Redirects are not followed: give that URL if it is right."
        )
    if status in (401, 403):
        return _make_token_error(status, message, detail)
    if status in (404, 405):
        return AggregatorError(f"{message}: there is no aggregator", WRONG_URL)
    if status == 409 and "expected" in problem:
        local, remote = (_to_printable(str(problem.get(key, "")), 64) for key in ("got", "expected"))
        return SchemaMismatch(
            f"{where} has the feature schema {remote}, this fedstep {local}", "Use the version of fedstep that it uses."
        )
    if status == 413:
        # The update stays in the outbox: the aggregator accepts every update of ours, so a proxy is configured wrongly.
        return AggregatorError(
            f"{message}: the update is too large", "A proxy before the aggregator has a lower limit; raise it."
        )
    if status in (400, 409, 410, 415, 422):
        refusal = REFUSALS.get(str(problem.get("type")), UpdateRefused)
        return refusal(f"{message}: {detail or 'it does not want this'}", "It will not be sent again.")
    return AggregatorError(message, WRONG_URL)


def _make_token_error(status: int, message: str, detail: str) -> AggregatorError:
    if status == 401:
        remedy = f"{detail} Set FEDSTEP_TOKEN to one of its tokens.".lstrip()
        return AggregatorError(f"{message}: it wants a token that it knows", remedy)
    return AggregatorError(f"{message}: this token may not do that", detail or "Ask whoever runs the aggregator.")


def _parse_json(response: HttpResponse) -> dict[str, object]:
    """Return the JSON object in the body; an empty one where there is none."""
    try:
        value = json.loads(_decode_body(response))
    except (ValueError, RecursionError, WireError):
        return {}
    return value if isinstance(value, dict) else {}


def _to_printable(text: str, limit: int) -> str:
    return "".join(letter for letter in text[:limit] if letter.isprintable())


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """How many updates and evaluations the aggregator deleted: zeros where it held none of this project and sender."""

    updates: int
    evaluations: int


def request_erasure(project: str, url: str, send: Transport, retry: RetryPolicy | None = None) -> ErasureReceipt:
    """Ask the aggregator to delete all data of the project with this pseudonym. Raise AggregatorError."""
    headers = {"Accept": "application/json", "Fedstep-Project": project}
    where = redact_url(url)
    response = send_with_retries(
        where, lambda left: send("POST", "/v1/forget", headers, b"", left), retry or RetryPolicy()
    )
    if response.status == 200:
        return _parse_erasure(response, where)
    if response.status in (404, 405):
        raise AggregatorError(
            f"{where} answered {response.status}: it cannot be asked to forget", "Ask whoever runs it."
        )
    raise _make_error(response, where)


def _parse_erasure(response: HttpResponse, where: str) -> ErasureReceipt:
    fields = _parse_json(response)
    updates, evaluations = (fields.get(name) for name in ("updates", "evaluations"))
    if type(updates) is not int or type(evaluations) is not int or min(updates, evaluations) < 0:
        raise AggregatorError(f"{where} answered 200 and not how much it deleted", WRONG_URL)
    return ErasureReceipt(updates, evaluations)
