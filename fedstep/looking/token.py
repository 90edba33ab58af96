"""What a token tells whoever receives it. A JWT is decoded without verifying it, and its signature is left out.

RFC 7519 for the form; the claims are those that GitHub and GitLab document for their OIDC tokens.
"""

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import replace

from fedstep.errors import AggregatorError
from fedstep.federation.ci_token import job_token, may_ask
from fedstep.report.inspected import Field, SeenToken

__all__ = ["claims_of", "expiry", "presented", "seen_token"]

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


def seen_token(token: str) -> SeenToken:
    """What the token says about its sender, and what an aggregator does with that."""
    secret = token.strip()
    if not secret:
        return SeenToken("none")
    decoded = _decoded(secret)
    if decoded is None:
        return SeenToken("static", len(secret), f"{secret[:SHOWN]}…" if len(secret) >= SHORTEST else "…")
    header, claims = decoded
    fates = _fates(claims)
    fields = (_field(f"header.{name}", name, value, fates) for name, value in header.items())
    told = (_field(name, name, value, fates) for name, value in claims.items())
    return SeenToken("jwt", len(secret), "", (*fields, *told))


def presented(token: str, aggregator: str, env: Mapping[str, str]) -> SeenToken:
    """The token of the next request: the one configured, else the one that GitHub gives this job, asked for here."""
    if token.strip() or not may_ask(env):
        return seen_token(token)
    if not aggregator:
        return SeenToken("none", note="; GitHub gives this job one, --aggregator URL shows what it tells")
    try:
        given = seen_token(job_token(aggregator, env, SECONDS))
    except AggregatorError as error:
        return SeenToken("none", note=f"; {error.args[0]}")
    return replace(given, note=". GitHub gave it now; train asks for one when the aggregator answers 401")


def claims_of(token: str) -> Mapping[str, object]:
    """The claims of a JWT; none for any other token."""
    decoded = _decoded(token.strip())
    return decoded[1] if decoded else {}


def expiry(token: str) -> float | None:
    """When a JWT expires, in seconds since the epoch; None for a token that does not tell."""
    told = claims_of(token).get("exp")
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None


def _decoded(secret: str) -> tuple[Mapping[str, object], Mapping[str, object]] | None:
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
    """What an aggregator does with each claim by name; nothing where the operator names the claims of this issuer."""
    for kept in SENDERS:
        if all(name in claims for name in kept[:2]):
            known = {**dict.fromkeys(VERIFIED, CHECKED), kept[0]: KEPT, kept[1]: KEPT, kept[2]: CHECKED}
            return {name: known.get(name, IGNORED) for name in (*claims, *ITSELF, *TIMES)}
    return {}


def _field(shown: str, name: str, value: object, fates: Mapping[str, str]) -> Field:
    text, fate = value if isinstance(value, str) else json.dumps(value), fates.get(name, "")
    if name in TIMES:
        return Field(shown, text, f"{TIMES[name]}{_moment(value)}", fate=fate)
    if name in ITSELF:
        return Field(shown, text, ITSELF[name], fate=fate)
    whose = WHOSE.get(name, "")
    return Field(shown, text, "", whose or "what fedstep does not know", fate)


def _moment(value: object) -> str:
    try:
        return time.strftime(" %Y-%m-%d %H:%M UTC", time.gmtime(float(str(value))))
    except (ValueError, OverflowError, OSError):
        return ""
