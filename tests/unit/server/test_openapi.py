"""The OpenAPI document and docs/reference/protocol.md say what the code does."""

import ast
import json
import re
import time
import urllib.request
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from starlette.routing import Route

from fedstep.federation.messages import (
    LARGEST_MESSAGE,
    LONGEST_HEADER,
    MOST_TENSORS,
    Model,
    PrivacyGuarantee,
    TrialScore,
    Update,
    hour,
    pack_model,
    pack_update,
    shape,
    unpack,
)
from fedstep.schema.schema import schema
from fedstep.server.app import create_app
from fedstep.server.gate import Verdict
from fedstep.server.openapi import document
from tests.helpers.server_page import grow, running

ROOT = Path(__file__).parents[3]
PROTOCOL = (ROOT / "docs/reference/protocol.md").read_text(encoding="utf-8")
PROMISE = PrivacyGuarantee(8.0, 1e-6, 52, 7.0)
SERVER = ROOT / "fedstep/server"
TASK = schema().tasks["build-duration"]


def plain() -> dict[str, Any]:
    """The document as JSON has it."""
    parsed: dict[str, Any] = json.loads(json.dumps(document(shape(schema()))))
    return parsed


DESCRIBED = schemathesis.openapi.from_dict(plain())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a real process listens."""
    folder = tmp_path_factory.mktemp("described")
    store = f"sqlite:///{folder / 'a.db'}"
    grow(store, schema(), until=time.time(), rounds=12)
    with running(store, folder / "log") as where:
        yield where


def operations() -> dict[tuple[str, str], set[int]]:
    """The statuses by method and path."""
    return {
        (method.upper(), path): set(map(int, operation["responses"]))
        for path, methods in plain()["paths"].items()
        for method, operation in methods.items()
    }


def problems() -> set[tuple[int, str]]:
    """The status and the name of every problem that the server's code names."""
    found = set()
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "HttpProblem":
                parts = node.args
            else:
                parts = node.elts if isinstance(node, ast.Tuple) else []
            values = [part.value for part in parts[:2] if isinstance(part, ast.Constant)]
            if len(values) == 2 and isinstance(values[0], int) and isinstance(values[1], str) and values[0] >= 400:
                found.add((values[0], values[1]))
    return found


def section(title: str) -> str:
    return PROTOCOL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.M)


class TestDocument:
    @pytest.mark.slow
    @DESCRIBED.parametrize()
    @hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def test_every_allowed_request_gets_a_documented_answer(self, case, url: str) -> None:
        """Whatever request the document allows, the answer is one that the document has."""
        checks = schemathesis.checks
        case.call_and_validate(
            base_url=url,
            checks=[
                checks.not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_headers_conformance,
                checks.response_schema_conformance,
            ],
        )

    def test_the_document_is_served_as_it_is_here(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=5) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            assert json.load(answer) == plain()

    @pytest.mark.parametrize(
        ("changes", "key", "status"),
        [
            ({}, "", 202),
            ({"schema": "f" * 16}, "", 409),
            ({"base": 10**6}, "", 422),
            ({"deltas": {"other": array("f", [0.0])}, "examples": {"other": 8}}, "", 422),
            ({}, "f" * 32, 400),
        ],
    )
    def test_what_becomes_of_a_real_update_is_in_the_document(
        self, url: str, changes: dict, key: str, status: int
    ) -> None:
        delta = array("f", [0.0] * TASK.size())
        update = Update(schema().digest, 12, f"{status:032x}", "1" * 32, {TASK.name: 8}, {TASK.name: delta})
        body = pack_update(update._replace(**changes))
        answer = requests.post(f"{url}/v1/updates", body, headers={"Idempotency-Key": key or update.id}, timeout=5)
        assert answer.status_code == status
        DESCRIBED["/v1/updates"]["POST"].validate_response(answer)

    def test_the_document_is_valid_openapi_3_1(self) -> None:
        assert plain()["openapi"].startswith("3.1")
        schemathesis.openapi.from_dict(plain()).validate()

    def test_the_document_has_every_route_and_no_other(self, settings, small) -> None:
        app = create_app(settings, small)
        found = [route for route in app.routes if isinstance(route, Route)]
        routes = {(method, route.path) for route in found for method in route.methods or ()}
        assert {route for route in routes if route[0] != "HEAD"} == set(operations())

    def test_every_status_of_a_problem_is_in_the_document(self) -> None:
        documented = set().union(*operations().values())
        assert {status for status, _ in problems()} - documented - {404, 405} == set()

    def test_every_reference_in_the_document_leads_somewhere(self) -> None:
        there = plain()["components"]["schemas"]
        used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(plain())))
        assert used == set(there)


class TestProtocolPage:
    def test_the_protocol_lists_every_problem_and_no_other(self) -> None:
        listed = {(int(s), name) for name, s in re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", section("Problems"), re.M)}
        assert listed == problems() | {(404, "not-here"), (405, "not-here")}

    def test_the_protocol_lists_every_route_with_its_statuses(self) -> None:
        rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \|[^|]*\| ([0-9, ]+) \|", section("Routes"), re.M)
        listed = {(method, path): set(map(int, statuses.split(","))) for method, path, statuses in rows}
        assert listed == operations()

    def test_the_protocol_lists_the_words_of_an_update(self) -> None:
        delta = array("f", [0.0] * TASK.size())
        body = pack_update(
            Update("0" * 16, 1, "0" * 32, "1" * 32, {TASK.name: 8}, {TASK.name: delta}, {TASK.name: TrialScore(1, 0.5)})
        )
        found = {word.replace(TASK.name, "<task>") for word in unpack(body).words}
        assert sorted(first_cells(section("Update"))) == sorted({*found, "<task>"})

    def test_the_protocol_lists_the_words_of_a_model(self) -> None:
        vectors = {TASK.name: array("f", [0.0] * TASK.size())}
        body = pack_model(Model("0" * 16, 1, 1, hour(0), vectors, vectors, {TASK.name: 1}, vectors, PROMISE, 5, 0.04))
        unpacked = unpack(body)
        found = {word.replace(TASK.name, "<task>") for word in (*unpacked.words, *unpacked.vectors)}
        assert sorted(first_cells(section("Model"))) == sorted(found)

    def test_the_protocol_lists_the_figures_of_a_verdict(self) -> None:
        figures = Verdict("open", *[0] * 13).figures()
        assert first_cells(section("Versions")) == list(figures)

    def test_the_limits_of_the_protocol_are_those_of_the_code(self) -> None:
        text = section("Bytes")
        assert f"{LARGEST_MESSAGE:,} bytes" in text
        assert f"{LONGEST_HEADER:,} bytes" in text
        assert f"{MOST_TENSORS} tensors" in text
