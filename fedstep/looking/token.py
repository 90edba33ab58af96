"""What a token tells whoever receives it. A JWT is decoded without verifying it, and its signature is left out.

RFC 7519 for the form; the claims are those that GitHub and GitLab document for their OIDC tokens.
"""

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping

from fedstep.report.inspected import Field, SeenToken

__all__ = ["claims_of", "expiry", "seen_token"]

SHOWN = 4  # characters of a static token
SHORTEST = 16  # of a shorter one nothing is shown: four characters would be too much of it
LARGEST = 1 << 16  # characters
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
WHOSE = {claim: whose for whose, claims in IDENTIFIES.items() for claim in claims.split()}


def seen_token(token: str) -> SeenToken:
    """What the token says about its sender."""
    secret = token.strip()
    if not secret:
        return SeenToken("none")
    decoded = _decoded(secret)
    if decoded is None:
        return SeenToken("static", len(secret), f"{secret[:SHOWN]}…" if len(secret) >= SHORTEST else "…")
    header, claims = decoded
    fields = (_field(f"header.{name}", name, value) for name, value in header.items())
    return SeenToken("jwt", len(secret), "", (*fields, *(_field(name, name, value) for name, value in claims.items())))


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


def _field(shown: str, name: str, value: object) -> Field:
    text = value if isinstance(value, str) else json.dumps(value)
    if name in TIMES:
        return Field(shown, text, f"{TIMES[name]}{_moment(value)}")
    if name in ITSELF:
        return Field(shown, text, ITSELF[name])
    whose = WHOSE.get(name, "")
    return Field(shown, text, "", whose or "what fedstep does not know")


def _moment(value: object) -> str:
    try:
        return time.strftime(" %Y-%m-%d %H:%M UTC", time.gmtime(float(str(value))))
    except (ValueError, OverflowError, OSError):
        return ""
