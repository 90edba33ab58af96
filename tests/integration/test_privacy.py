"""Nothing private leaves: there is one way to a socket, and what took it is searched for names."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from fedstep.errors import WireError
from fedstep.federation.client import push
from fedstep.federation.messages import LARGEST_MESSAGE, inflate
from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import HttpResponse, RetryPolicy, requests_transport
from fedstep.history.project_store import ProjectStore
from fedstep.pipeline.train import train
from fedstep.types import Change, FinishedBuild
from tests.benchmarks.project import drawn_builds
from tests.benchmarks.server import aggregator
from tests.helpers.narrow import expect
from tests.test_architecture import import_names, is_inside, trees

# What can open a connection without an HTTP library, or call something that can.
SOCKETS = {
    *("socket", "ssl", "http", "ftplib", "smtplib", "imaplib", "poplib", "xmlrpc", "socketserver", "asyncio"),
    *("multiprocessing", "select", "selectors", "ctypes", "_socket", "urllib.request", "webbrowser"),
}
# Who starts programs, and which.
STARTING = {
    "ingest.git_objects": "git",
    "ingest.git_process": "git, with the remote of the repository itself too",
    "cli.hook": "git",
    "pytest_plugin.session_plugin": "fedstep itself",
}
# Who sends something, to whom and what; everyone else asks with a GET.
POSTING = {
    "federation.client": "an update, or a share of one, or a request to forget with an empty body, to an aggregator",
    "diagnostics.aggregator": "an empty body to an aggregator, to see whether it would be let in",
    "cli.github_comment": "a comment to the forge that the repository is on",
}
MESSAGE, SIGNATURE = "assert zeppelinPrice == 4711", "5ca1ab1e0ddba11f"
METHODS = {"POST", "PUT", "PATCH", "DELETE"}


def rooms() -> tuple[str, ...]:
    """The modules that run beside somebody's code: not the aggregator, not the simulations of a federation."""
    return tuple(name for name in trees() if not is_inside(name, "server") and not is_inside(name, "evaluation"))


def callers(function: str) -> set[str]:
    """The rooms that call something of this name."""
    return {name for name in rooms() if function in called(trees()[name])}


def called(node: ast.AST) -> set[str]:
    calls = (one.func for one in ast.walk(node) if isinstance(one, ast.Call))
    return {one.id if isinstance(one, ast.Name) else getattr(one, "attr", "") for one in calls}


def users(libraries: Iterable[str]) -> set[str]:
    wanted = set(libraries)
    return {
        name
        for name in rooms()
        if any(
            part in wanted for found in import_names(name, at_import=False) for part in (found, found.partition(".")[0])
        )
    }


def with_messages(build: FinishedBuild, message: str, signature: str) -> FinishedBuild:
    """The build whose failures have a message, a signature and a type."""
    tests = tuple(
        run._replace(message=message, signature=signature, failure_type="QuartermasterError")
        if run.outcome in "fck"
        else run
        for run in build.reports.tests
    )
    return build._replace(reports=build.reports._replace(tests=tests))


class TestNetworkAccess:
    def test_only_transport_and_importers_reach_a_network(self) -> None:
        """Two modules can reach a network: the transport, and the one that reads a CI.

        `report --serve` listens on the loopback address and connects to nothing.
        """
        assert users({"requests", "urllib3", "httpx", "aiohttp"}) == {"federation.transport", "importers.api_client"}
        assert users(SOCKETS) == {"cli.report"}
        assert users({"subprocess"}) | callers("system") | callers("popen") == STARTING.keys()

    def test_the_module_that_reads_a_ci_only_asks(self) -> None:
        assert called(trees()["importers.api_client"]) & {"get", "post", "put", "patch", "delete", "request"} == {"get"}

    def test_who_sends_anything_is_on_a_list_of_four(self) -> None:
        found = {
            name
            for name in rooms()
            for node in ast.walk(trees()[name])
            if isinstance(node, ast.Constant) and node.value in METHODS
        }
        assert found == POSTING.keys()

    def test_posted_updates_come_from_the_outbox(self) -> None:
        """One function makes an update, and what is posted comes from the outbox."""
        assert callers("Update") == {
            "federation.update_builder",
            "federation.messages",
        }  # made from rows, read from bytes
        assert (
            callers("make_update")
            == callers("pack_update")
            == {
                *("pipeline.train", "importers.backfill_run", "diagnostics.inspect"),
            }
        )
        assert callers("push") - {"history.git_sync"} == {"federation.outbox"}  # sync's own pushes a ref with git
        assert callers("post") == {"federation.client", "federation.outbox", "federation.secagg.share_client"}
        assert callers("flush_with") == {"federation.outbox", "federation.secagg.share_client"}
        assert callers("push_pending") == {"cli.pipeline", "pipeline.train"}

    def test_everything_that_is_delivered_goes_through_the_record(self) -> None:
        push_pending = next(
            node
            for node in ast.walk(trees()["federation.sync"])
            if isinstance(node, ast.FunctionDef) and node.name == "push_pending"
        )
        assert {"audit_transport", "flush", "flush_shares"} <= called(push_pending)
        assert callers("flush_shares") == {"federation.sync"}
        sends = [one for one in ast.walk(push_pending) if isinstance(one, ast.Attribute) and one.attr == "send"]
        noted = [
            one for one in ast.walk(push_pending) if isinstance(one, ast.Call) and called(one) == {"audit_transport"}
        ]
        inside_noted = [one for call in noted for one in ast.walk(call) if isinstance(one, ast.Attribute)]
        assert [ast.unparse(one) for one in sends if one not in inside_noted] == []


class TestRequests:
    @pytest.mark.parametrize("body", [b"", b"org.acme.CartTest", b'{"tests": ["CartTest"]}', b"PK\x03\x04"])
    def test_what_is_no_update_reaches_no_socket(self, body: bytes) -> None:
        sent: list[bytes] = []

        def send(_method: str, _path: str, _headers: Mapping[str, str], body: bytes, _timeout: float) -> HttpResponse:
            sent.append(body)
            return HttpResponse(202, {}, b'{"receipt": "r", "version": 1}')

        with pytest.raises(WireError):
            push(body, "http://here", send)
        assert sent == []

    def test_no_name_branch_author_commit_or_path_is_in_what_is_sent(self, tmp_path: Path) -> None:
        home, seen, updates = ProjectStore(str(tmp_path / "history")), [], 0
        home.prepare()
        with aggregator(tmp_path) as url:
            real = requests_transport(url)

            def send(method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpResponse:
                nonlocal updates
                plain = inflate(body, LARGEST_MESSAGE) if headers.get("Content-Encoding") == "gzip" else body
                seen.append(f"{method} {path} {dict(headers)}".encode() + plain)
                updates += method == "POST"
                return real(method, path, headers, body, timeout)

            builds = [with_messages(one, MESSAGE, SIGNATURE) for one in drawn_builds(120, 25)]
            for evidence in builds:
                train(
                    home,
                    evidence,
                    lambda _runs: {},
                    AggregatorLink(url, send, RetryPolicy()),
                    evidence.finished_at,
                    500,
                )
        assert updates > 1
        commit = expect(Change, builds[-1].situation.change).commit
        failed = [run for one in builds for run in one.reports.tests if run.message]
        assert failed, "some tests fail, with a message"
        secrets = {
            *("zeppelinPrice", "4711"),
            SIGNATURE,
            "QuartermasterError",
            "a@example.org",
            "src/org/acme",
            "org.acme",
            commit,
            home.key().hex(),
        }
        for run in builds[0].reports.tests:
            secrets |= {run.test, run.test.partition("#")[2]}
        assert [word for word in secrets for body in seen if word.encode() in body] == []
