"""Describe the routes as an OpenAPI document (https://spec.openapis.org/oas/v3.1.1.html)."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fedstep import __version__
from fedstep.federation.client import LINEAGE_HEADER
from fedstep.federation.messages import LARGEST_MESSAGE, SchemaShape
from fedstep.server.auth import PROJECT_HEADER

Json = Mapping[str, object]

BINARY = "application/octet-stream"
PRIVACY = ("epsilon", "delta", "releases", "days", "noise", "spent_at_most")
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
COUNT: Json = {"type": "integer", "minimum": 0}
DIGEST: Json = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
ID: Json = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
WORD: Json = {"type": "string"}
BY_TASK: Json = {"type": "object", "additionalProperties": COUNT}
HOUR: Json = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00Z$"}
READ_STATUSES = (401, 403, 429, 503)  # of every route that is read, and can require a token
PURPOSE = {
    304: "The reader has the newest model.",
    400: "The body is no update, its key is not the update's id, no project is named, or the connection broke.",
    401: "No token, or an unknown one.",
    403: "The sender is known and not allowed.",
    408: "The body took too long.",
    409: "Another feature schema; the answer has both digests.",
    413: "More than the limit, before or after decompression.",
    415: "An unknown content encoding.",
    422: "The update does not fit, is longer than its bound, or its base version is too old or unknown.",
    429: "The project, the owner or the reader's address exceeds a rate or a quota.",
    500: "An internal error; the log has the traceback.",
    503: "Unavailable: the store, the writer, the issuer of the token, or too many updates at once.",
}


def document(shape: SchemaShape) -> Json:
    """Return the OpenAPI document of an aggregator with this schema."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fedstep aggregator",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Receives updates, serves models. Messages: see docs/reference/protocol.md.",
        },
        "paths": {
            "/v1/updates": {"post": _updates()},
            "/v1/forget": {"post": _forget()},
            "/v1/model": {"get": _model(shape)},
            "/v1/versions": {
                "get": _get("The newest versions, open trials and verdicts.", _json("Versions"), READ_STATUSES, True)
            },
            "/v1/status": {
                "get": _get("What is served, on trial and in the buffer.", _json("Status"), READ_STATUSES, True)
            },
            "/": {"get": _get("The dashboard.", {"text/html": {"schema": WORD}}, READ_STATUSES, True)},
            "/openapi.json": {"get": _get("This document.", {"application/json": {"schema": {"type": "object"}}}, ())},
            "/healthz": {"get": _get("Whether the process is alive.", _json("Health"), (503,))},
            "/readyz": {"get": _get("Whether updates can be accepted now.", _json("Health"), (503,))},
            "/metrics": {
                "get": _get("Prometheus' text format.", {"text/plain": {"schema": WORD}}, READ_STATUSES, True)
            },
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A static token, or one of a CI."}
            },
        },
    }


def _updates() -> Json:
    key = _parameter("Idempotency-Key", "header", ID, "The id of the update: a repeat gets the same receipt.", True)
    encoding = {"type": "string", "enum": ["identity", "gzip"]}
    return {
        "summary": "Send an update.",
        "operationId": "sendUpdate",
        "security": [{}, {"token": []}],
        "parameters": [
            key,
            _parameter("Content-Encoding", "header", encoding, "Encoding of the body; uncompressed if absent."),
        ],
        "requestBody": {
            "required": True,
            "description": f"safetensors, at most {LARGEST_MESSAGE} bytes before and after decompression.",
            "content": {BINARY: {"schema": {"type": "string", "format": "binary", "maxLength": LARGEST_MESSAGE}}},
        },
        "responses": {
            "202": {"description": "The update is on disk.", "content": _json("Receipt")},
            **_refusals(400, 401, 403, 408, 413, 415, 422, 429, 500, 503),
            "409": _mismatch(),
        },
    }


def _forget() -> Json:
    project = "The pseudonym in the project's updates; where the token names a project, that one is meant."
    return {
        "summary": "Delete what is stored about the sender's project. The answer does not reveal whether it was known.",
        "operationId": "forget",
        "security": [{}, {"token": []}],
        "parameters": [_parameter(PROJECT_HEADER, "header", ID, project, True)],
        "responses": {
            "200": {"description": "How many updates and evaluations were deleted.", "content": _json("Erasure")},
            **_refusals(400, 401, 403, 429, 500, 503),
        },
    }


def _model(shape: SchemaShape) -> Json:
    asked = _parameter("schema", "query", {**DIGEST, "examples": [shape.digest]}, "The digest of the client's schema.")
    have = _parameter("If-None-Match", "header", WORD, "ETags of the model that the client has.")
    headers = {
        "ETag": {"description": "Weak for the gzipped form.", "required": True, "schema": WORD},
        LINEAGE_HEADER: {"description": "The id that the store keeps.", "required": True, "schema": DIGEST},
    }
    return {
        "summary": "The model: production, candidate, and the versions on trial.",
        "operationId": "model",
        "security": [{}, {"token": []}],
        "parameters": [asked, have],
        "responses": {
            "200": {
                "description": "safetensors; gzipped where Accept-Encoding has gzip.",
                "headers": headers,
                "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
            },
            "304": {"description": PURPOSE[304], "headers": headers},
            **_refusals(*READ_STATUSES, 500),
            "409": _mismatch(),
        },
    }


def _get(summary: str, content: Json, refusals: tuple[int, ...], guarded: bool = False) -> Json:
    return {
        "summary": summary,
        **({"security": [{}, {"token": []}]} if guarded else {}),
        "responses": {
            "200": {"description": summary, "content": content},
            **_refusals(*refusals, 500),
        },
    }


def _json(name: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _parameter(name: str, location: str, schema: Json, description: str, required: bool = False) -> Json:
    return {"name": name, "in": location, "required": required, "description": description, "schema": schema}


def _refusals(*statuses: int) -> Json:
    return {
        str(status): {"description": PURPOSE[status], "content": PROBLEM, **_headers(status)} for status in statuses
    }


def _headers(status: int) -> Json:
    if status == 401:
        return {"headers": {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}}}
    if status in (429, 503):
        seconds = {
            "description": "Seconds to wait.",
            "required": status == 429,
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        }
        return {"headers": {"Retry-After": seconds}}
    return {}


def _mismatch() -> Json:
    return {
        "description": PURPOSE[409],
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/SchemaMismatch"}}},
    }


def _object(required: Json, optional: Json | None = None, closed: bool = True) -> Json:
    properties = {**required, **(optional or {})}
    more: Json = {} if not closed else {"additionalProperties": False}
    return {"type": "object", "required": list(required), "properties": properties, **more}


def _schemas() -> Json:
    members = {
        "type": {"type": "string", "pattern": "^urn:fedstep:problem:[a-z-]+$"},
        "title": {"type": "string", "enum": sorted(HTTPStatus(status).phrase for status in (*PURPOSE, 404, 405))},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What was wrong, and what to do."},
    }
    return {
        "Problem": _object(members, closed=False),
        "SchemaMismatch": _object({**members, "expected": DIGEST, "got": {"type": "string", "maxLength": 64}}),
        "Receipt": _object({"receipt": WORD, "version": COUNT}),
        "Erasure": _object({"updates": COUNT, "evaluations": COUNT}),
        "Health": _object({"status": {"type": "string", "enum": ["ok", "ready"]}, "version": COUNT}),
        "Status": _status(),
        "Versions": _versions(),
    }


def _status() -> Json:
    return _object(
        {
            "schema": DIGEST,
            "candidate": COUNT,
            "production": COUNT,
            "sources": BY_TASK,
            "trials": BY_TASK,
        },
        {
            "buffer": _object({"updates": COUNT, "projects": COUNT}),
            "active": _object({"projects": COUNT, "owners": COUNT}),
            "privacy": _object({name: {"type": "number"} for name in PRIVACY}),
        },
    )


def _versions() -> Json:
    version = {
        "version": COUNT,
        "parent": {"type": ["integer", "null"], "minimum": 0},
        "created": HOUR,
        "updates": COUNT,
        "production": COUNT,
        "sources": BY_TASK,
    }
    open_trial = {"task": WORD, "version": COUNT, "against": COUNT, "began": HOUR, "evaluations": COUNT}
    verdict = {
        "version": COUNT,
        "task": WORD,
        "trial": COUNT,
        "against": COUNT,
        "began": HOUR,
        "decided": HOUR,
        "outcome": {"type": "string", "enum": ["promoted", "rejected", "undecided", "rollback"]},
        "restarted": {"type": "boolean"},
        "figures": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    lists = {"versions": version, "trials": open_trial, "verdicts": verdict}
    arrays = {name: {"type": "array", "items": _object(item)} for name, item in lists.items()}
    return _object({"schema": DIGEST, **arrays})


HELPER_ROUTES = ("/v1/forget", "/openapi.json", "/healthz", "/readyz", "/metrics")
MODEL_SCHEMAS = ("Status", "Versions")
ROUND_REFUSALS = ("400", "401", "408", "409", "413", "415", "422", "500", "503")


def leader_document(shape: SchemaShape) -> Mapping[str, object]:
    """Return the document of a leader, which accepts masked shares instead of updates."""
    whole = _copy(shape)
    sending = whole["paths"].pop("/v1/updates")["post"]
    return whole | {"paths": {"/v1/shares": {"post": _share_route(sending, "masked")}, **whole["paths"]}}


def helper_document(shape: SchemaShape) -> Mapping[str, object]:
    """Return the document of a helper, which accepts seeds, and rounds from the leader."""
    whole = _copy(shape)
    sending = whole["paths"]["/v1/updates"]["post"]
    share_routes = {"/v1/shares": {"post": _share_route(sending, "seed")}, "/v1/rounds": {"post": _round(sending)}}
    paths = share_routes | {name: whole["paths"][name] for name in HELPER_ROUTES}
    schemas = {name: schema for name, schema in whole["components"]["schemas"].items() if name not in MODEL_SCHEMAS}
    return whole | {"paths": paths, "components": whole["components"] | {"schemas": schemas}}


def _copy(shape: SchemaShape) -> dict[str, Any]:  # Any: JSON of any depth
    copy: dict[str, Any] = json.loads(json.dumps(document(shape)))
    return copy


def _share_route(sending: Mapping[str, Any], kind: str) -> Mapping[str, object]:
    return {**sending, "summary": f"Send one share of an update: the {kind}.", "operationId": "sendShare"}


def _round(sending: Mapping[str, Any]) -> Mapping[str, object]:
    refusals = {status: sending["responses"][status] for status in ROUND_REFUSALS}
    anything = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": "Request the sums of the masks of a set of updates; for the leader only.",
        "operationId": "round",
        "security": [{"token": []}],
        "parameters": [
            {"name": "Fedstep-Signature", "in": "header", "required": True, "schema": {"type": "string"}},
        ],
        "requestBody": {"required": True, "content": anything},
        "responses": {"200": {"description": "The sums, signed.", "content": anything}, **refusals},
    }
