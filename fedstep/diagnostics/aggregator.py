"""Check the aggregator and its helper: response, latency, schema, and whether they accept this sender."""

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from math import isnan, nan

from fedstep.errors import AggregatorError, AggregatorUnreachable, FedstepError
from fedstep.federation.ci_token import can_request_token, request_job_token
from fedstep.federation.client import UPDATES_PATH, FetchedModel, pull
from fedstep.federation.messages import shape
from fedstep.federation.secagg.share_client import SHARES_PATH
from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import HttpResponse, Transport
from fedstep.federation.trust import redact_url
from fedstep.report.inspection import InspectedField, InspectedToken
from fedstep.report.units import span
from fedstep.results import OK, PROBLEM, WARNING, DiagnosticCheck
from fedstep.schema.schema import schema
from fedstep.types import Unavailable

SHOWN = 4  # characters of a static token
SHORTEST = 16  # of a shorter one nothing is shown: four characters would be too much of it
LARGEST = 1 << 16  # characters
SECONDS = 5.0  # for GitHub to give a token
TIMES = {"exp": "expires", "nbf": "is valid from", "iat": "was issued"}
ITSELF = {
    "alg": "algorithm of the signature",
    "typ": "kind of the token",
    "kid": "which public key verifies it",
    "x5t": "which public key verifies it",
    "iss": "who issued it",
    "aud": "for whom it is meant",
    "jti": "number of this token",
}
IDENTIFIES = {
    "the project": (
        "sub repository repository_id repository_owner repository_owner_id repository_visibility enterprise "
        "enterprise_id organization namespace_id namespace_path project_id project_path project_visibility "
        "job_project_id job_project_path job_namespace_id job_namespace_path groups_direct"
    ),
    "a person": "actor actor_id user_id user_login user_email user_identities user_access_level email name",
    "the commit or branch": (
        "ref sha head_ref base_ref ref_type ref_path ref_protected workflow_sha job_workflow_sha ci_config_sha"
    ),
    "the job run": (
        "run_id run_number run_attempt check_run_id workflow workflow_ref job_workflow_ref event_name environment "
        "environment_protected deployment_tier deployment_action environment_node_id runner_environment runner_id "
        "pipeline_id pipeline_source job_id job_source ci_config_ref_uri sub_jobs"
    ),
}
KEPT, CHECKED, IGNORED = "kept", "checked", "ignored"
VERIFIED = {"alg", "kid", "iss", "aud", "exp", "nbf", "iat"}
# As an aggregator treats the tokens of GitHub and GitLab: the first two are kept, the third is held against --allow.
SENDERS = (("repository_id", "repository_owner_id", "repository"), ("project_id", "namespace_id", "project_path"))
WHOSE = {claim: whose for whose, claims in IDENTIFIES.items() for claim in claims.split()}


def seen_token(token: str) -> InspectedToken:
    """Return the claims of the token and what an aggregator does with each."""
    secret = token.strip()
    if not secret:
        return InspectedToken("none")
    decoded = _decode_token(secret)
    if decoded is None:
        return InspectedToken("static", len(secret), f"{secret[:SHOWN]}…" if len(secret) >= SHORTEST else "…")
    header, claims = decoded
    fates = _fates(claims)
    fields = (_field(f"header.{name}", name, value, fates) for name, value in header.items())
    inspected = (_field(name, name, value, fates) for name, value in claims.items())
    return InspectedToken("jwt", len(secret), "", (*fields, *inspected))


def find_token(token: str, aggregator: str, env: Mapping[str, str]) -> InspectedToken:
    """Return the token of the next request: the configured one, else one requested from GitHub for this job."""
    if token.strip() or not can_request_token(env):
        return seen_token(token)
    if not aggregator:
        return InspectedToken("none", note="; GitHub gives this job one, --aggregator URL shows what it tells")
    try:
        given = seen_token(request_job_token(aggregator, env, SECONDS))
    except AggregatorError as error:
        return InspectedToken("none", note=f"; {error.args[0]}")
    return replace(given, note=". GitHub gave it now; train asks for one when the aggregator answers 401")


def claims_of(token: str) -> Mapping[str, object]:
    """Return the claims of a JWT, or none for any other token."""
    decoded = _decode_token(token.strip())
    return decoded[1] if decoded else {}


def expiry(token: str) -> float | None:
    """Return when a JWT expires, in seconds since the epoch, or None for a token without an expiry."""
    expires_at = claims_of(token).get("exp")
    return float(expires_at) if isinstance(expires_at, int | float) and not isinstance(expires_at, bool) else None


def _decode_token(secret: str) -> tuple[Mapping[str, object], Mapping[str, object]] | None:
    """Header and claims of a JWT; the third part, its signature, is dropped here."""
    parts = secret.split(".")
    if len(parts) != 3 or len(secret) > LARGEST:
        return None
    try:
        header, claims = (json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (ValueError, RecursionError):
        return None
    return (header, claims) if isinstance(header, dict) and isinstance(claims, dict) and "alg" in header else None


def _fates(claims: Mapping[str, object]) -> Mapping[str, str]:
    """Return what an aggregator does with each claim, by name; empty where its operator configures the claims."""
    for kept in SENDERS:
        if all(name in claims for name in kept[:2]):
            known = {**dict.fromkeys(VERIFIED, CHECKED), kept[0]: KEPT, kept[1]: KEPT, kept[2]: CHECKED}
            return {name: known.get(name, IGNORED) for name in (*claims, *ITSELF, *TIMES)}
    return {}


def _field(label: str, name: str, value: object, fates: Mapping[str, str]) -> InspectedField:
    text, fate = value if isinstance(value, str) else json.dumps(value), fates.get(name, "")
    if name in TIMES:
        return InspectedField(label, text, f"{TIMES[name]}{_moment(value)}", fate=fate)
    if name in ITSELF:
        return InspectedField(label, text, ITSELF[name], fate=fate)
    whose = WHOSE.get(name, "")
    return InspectedField(label, text, "", whose or "what fedstep does not know", fate)


def _moment(value: object) -> str:
    try:
        return time.strftime(" %Y-%m-%d %H:%M UTC", time.gmtime(float(str(value))))
    except (ValueError, OverflowError, OSError):
        return ""


LARGEST_DIFFERENCE = 60.0  # seconds between two clocks; tokens are checked with about as much leeway
MAKE_TOKEN = "Set FEDSTEP_TOKEN to one of the aggregator's tokens"
FIND_HELPER = "Set FEDSTEP_HELPER to the URL of its helper, which whoever runs it can tell"
HURRY = 0.5  # seconds that must be left for a missing response to be evidence
KNOWN = (400, 415, 422)  # for an empty update: the sender was authenticated first


class _RecordingTransport:
    """A `Transport` that records each response and its time."""

    def __init__(self, aggregator: AggregatorLink) -> None:
        self.inner, self.answer, self.seconds, self.at = aggregator.send, HttpResponse(0, {}, b""), nan, nan

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
        began = time.monotonic()
        self.answer = self.inner(method, path, headers, body, timeout)
        self.seconds, self.at = time.monotonic() - began, time.time()
        return self.answer


def check_aggregator(aggregator: AggregatorLink, token: InspectedToken) -> tuple[DiagnosticCheck, ...]:
    """Download the model without storing it, and post an empty update to check whether updates are accepted."""
    watched, where = _RecordingTransport(aggregator), redact_url(aggregator.url)
    try:
        fetched = pull(aggregator.url, "", watched, shape(schema()), aggregator.retry)
    except AggregatorError as error:
        return (DiagnosticCheck("Aggregator", PROBLEM, error.args[0], error.remedy),)
    model = fetched.model if isinstance(fetched, FetchedModel) else None
    versions = f"production {model.production_version}, candidate {model.candidate_version}" if model else "no model"
    says = f"{where} answered in {1000 * watched.seconds:.0f} ms: {versions}, same schema"
    clock = clock_check(watched.answer.headers.get("date", ""), watched.at)
    in_shares = bool(model and model.shares)
    welcome = _welcome(aggregator, token, SHARES_PATH if in_shares else UPDATES_PATH)
    return (DiagnosticCheck("Aggregator", OK, says), clock, welcome, *_helper(aggregator, in_shares))


def check_token(token: InspectedToken, secret: str, now: float) -> DiagnosticCheck:
    """Check the kind of the token, its claims and whether it is still valid."""
    if token.kind == "none":
        return DiagnosticCheck("Token", OK, "none is configured")
    if token.kind == "static":
        return DiagnosticCheck(
            "Token", OK, f"a static one of {token.size} characters, which tells nothing beyond itself"
        )
    identifying = ", ".join(field.name for field in token.fields if field.identifies and field.value)
    says = f"a JWT, which tells {identifying or 'nothing of its sender'} (fedstep inspect shows all of it)"
    end = expiry(secret)
    if end is not None and end <= now:
        fix = "Ask the CI for a new one right before fedstep runs: they live for minutes"
        return DiagnosticCheck("Token", PROBLEM, f"it expired {span(now - end)} ago; {says}", fix)
    return DiagnosticCheck("Token", OK, f"{says}; valid for {span(end - now)}" if end is not None else says)


def clock_check(date: str, at: float) -> DiagnosticCheck:
    """Check how far this clock is from the one that wrote an HTTP Date header."""
    try:
        server_time = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        server_time = nan
    if isnan(server_time):
        return DiagnosticCheck("Clock", OK, "the aggregator does not tell its time")
    ahead = at - server_time
    if abs(ahead) <= LARGEST_DIFFERENCE:
        return DiagnosticCheck("Clock", OK, f"within {max(1, round(abs(ahead)))} s of the aggregator's")
    way = "ahead of" if ahead > 0 else "behind"
    says = f"{span(abs(ahead))} {way} the aggregator's: tokens would expire too early, marks of time be wrong"
    return DiagnosticCheck("Clock", WARNING, says, "Set it right, with NTP: timedatectl set-ntp true")


def _welcome(aggregator: AggregatorLink, token: InspectedToken, path: str) -> DiagnosticCheck:
    """Check whether the aggregator accepts updates from this sender; it authenticates before it reads the body."""
    try:
        status = _knock(aggregator, aggregator.send, path)
    except AggregatorUnreachable as error:
        return DiagnosticCheck("Welcome", WARNING, f"whether it takes updates is unknown: {error.args[0]}")
    except FedstepError as error:
        return DiagnosticCheck("Welcome", PROBLEM, error.args[0], error.remedy)
    if status in KNOWN:
        whose = "this token" if token.kind != "none" else "anyone, without a token"
        return DiagnosticCheck("Welcome", OK, f"it takes updates from {whose}")
    if status in (401, 403):
        says = "it does not know this token" if token.kind != "none" else "it takes updates with a token only"
        return DiagnosticCheck("Welcome", PROBLEM, f"{says} ({status})", MAKE_TOKEN)
    return DiagnosticCheck(
        "Welcome", WARNING, f"whether it takes updates is unknown: it answered {status} to an empty one"
    )


def _helper(aggregator: AggregatorLink, in_shares: bool) -> tuple[DiagnosticCheck, ...]:
    """Check that a helper exists exactly where updates go in shares, and that it accepts its own."""
    helper, where = aggregator.helper, redact_url(aggregator.url)
    if isinstance(helper, Unavailable):
        says = f"{where} takes updates in two shares only, and there is no helper for the other: nothing is sent"
        return (DiagnosticCheck("Helper", PROBLEM, says, FIND_HELPER),) if in_shares else ()
    if not in_shares:
        says = f"{where} takes updates whole, and with a helper shares are sent: it takes none of them"
        return (DiagnosticCheck("Helper", PROBLEM, says, "Unset FEDSTEP_HELPER, or correct --aggregator"),)
    hurried = _seconds_left(aggregator) < HURRY
    try:
        status = _knock(aggregator, helper.send, SHARES_PATH)
    except FedstepError as error:
        says = f"whether it takes shares is unknown: {error.args[0]}" if hurried else error.args[0]
        return (DiagnosticCheck("Helper", WARNING if hurried else PROBLEM, says, error.remedy),)
    return (_helper_welcome(redact_url(helper.url), status),)


def _helper_welcome(where: str, status: int) -> DiagnosticCheck:
    if status in KNOWN:
        return DiagnosticCheck("Helper", OK, f"{where} takes its share of an update from this sender")
    if status in (401, 403):
        fix = "Set FEDSTEP_HELPER_TOKEN to one of the helper's tokens"
        return DiagnosticCheck("Helper", PROBLEM, f"{where} does not know this sender ({status})", fix)
    if status in (404, 405):
        return DiagnosticCheck("Helper", PROBLEM, f"{where} answered {status}: it takes no shares", FIND_HELPER)
    return DiagnosticCheck(
        "Helper", WARNING, f"whether {where} takes shares is unknown: it answered {status} to an empty one"
    )


def _knock(aggregator: AggregatorLink, send: Transport, path: str) -> int:
    """Return the status of the response to an empty update, within the time left. Raises FedstepError."""
    headers = {"Accept": "application/json", "Content-Type": "application/octet-stream"}
    return send("POST", path, headers, b"", max(_seconds_left(aggregator), 0.05)).status


def _seconds_left(aggregator: AggregatorLink) -> float:
    """Return the seconds until the deadline of all requests."""
    return aggregator.retry.end() - aggregator.retry.clock()
