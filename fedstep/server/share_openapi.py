"""The OpenAPI documents of leader and helper: what differs from that of an aggregator alone."""

import json
from collections.abc import Mapping
from typing import Any

from fedstep.federation.wire import Shape
from fedstep.server.openapi import document

__all__ = ["helper_document", "leader_document"]

KEPT_BY_THE_HELPER = ("/v1/forget", "/openapi.json", "/healthz", "/readyz", "/metrics")
OF_A_MODEL = ("Status", "Versions")
ROUND_REFUSALS = ("400", "401", "408", "409", "413", "415", "422", "500", "503")


def leader_document(shape: Shape) -> Mapping[str, object]:
    """The document of an aggregator that takes masked updates instead of whole ones."""
    whole = _copied(shape)
    sending = whole["paths"].pop("/v1/updates")["post"]
    return whole | {"paths": {"/v1/shares": {"post": _half(sending, "masked")}, **whole["paths"]}}


def helper_document(shape: Shape) -> Mapping[str, object]:
    """The document of a helper: it takes seeds, and answers the leader alone."""
    whole = _copied(shape)
    sending = whole["paths"]["/v1/updates"]["post"]
    halves = {"/v1/shares": {"post": _half(sending, "seed")}, "/v1/rounds": {"post": _round(sending)}}
    paths = halves | {name: whole["paths"][name] for name in KEPT_BY_THE_HELPER}
    schemas = {name: found for name, found in whole["components"]["schemas"].items() if name not in OF_A_MODEL}
    return whole | {"paths": paths, "components": whole["components"] | {"schemas": schemas}}


def _copied(shape: Shape) -> dict[str, Any]:  # Any: JSON of any depth
    found: dict[str, Any] = json.loads(json.dumps(document(shape)))
    return found


def _half(sending: Mapping[str, Any], kind: str) -> Mapping[str, object]:
    return {**sending, "summary": f"Send one half of an update: the {kind}.", "operationId": "sendHalf"}


def _round(sending: Mapping[str, Any]) -> Mapping[str, object]:
    refusals = {status: sending["responses"][status] for status in ROUND_REFUSALS}
    anything = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": "Ask for the sums of the pads of a set of updates; for the leader alone.",
        "operationId": "round",
        "security": [{"token": []}],
        "parameters": [
            {"name": "Fedstep-Signature", "in": "header", "required": True, "schema": {"type": "string"}},
        ],
        "requestBody": {"required": True, "content": anything},
        "responses": {"200": {"description": "The sums, signed.", "content": anything}, **refusals},
    }
