"""Serve predictions and verdicts to coding agents: the Model Context Protocol over stdio, read-only and offline."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

import fedstep
from fedstep.cli.options import HISTORY, PART
from fedstep.errors import FedstepError, MissingExtra
from fedstep.report.json import explanation_json, prediction_json, triage_json

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTRUCTIONS = """Tells whether a test failure is flaky or caused by the change, from the project's own CI history.
Nothing is written and nothing leaves this machine. After a test run call `triage` with the globs of its reports."""
MOST_SLOW = 50


@click.command()
@HISTORY
@PART
def mcp(history: str, part: str) -> int:
    """Serve predictions and verdicts to coding agents over stdio (Model Context Protocol). Needs the extra 'mcp'.

    \b
    Example: fedstep mcp
    """
    try:
        server = make_server(fedstep.Project.discover(history=history, part=part))
    except ImportError as error:
        raise MissingExtra(f"{error.name or 'mcp'} is not installed", "Run: pip install 'fedstep[mcp]'") from error
    server.run("stdio")
    return 0


def make_server(project: fedstep.Project) -> "MCPServer":
    """Return the server of one project. Raises ImportError without the extra `mcp`."""
    from mcp.server import MCPServer
    from mcp.types import ToolAnnotations

    server = MCPServer("fedstep", instructions=INSTRUCTIONS)
    read_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    @server.tool(annotations=read_only)
    def predict() -> dict[str, Any]:
        """Predict duration and failure risk of the next build, and the tests most likely to flake, with reasons."""
        return _answer(lambda: prediction_json(project.predict(record_start=False)))

    @server.tool(annotations=read_only)
    def triage(junit: list[str]) -> dict[str, Any]:
        """Judge each failure in test reports: flaky, regression or unsure, with probability and reasons.

        `junit` are globs such as "build/**/*.xml".
        """
        return _answer(lambda: triage_json(project.triage(junit)))

    @server.tool(annotations=read_only)
    def failure_groups(junit: list[str]) -> dict[str, Any]:
        """Group the failures in test reports by their cause, the most urgent first."""
        told = _answer(lambda: triage_json(project.triage(junit)))
        return {key: told[key] for key in ("groups", "incident", "cause", "error") if key in told}

    @server.tool(annotations=read_only)
    def explain(test: str) -> dict[str, Any]:
        """Explain why a test is, or is not, likely to flake: its past, its features, and what would change that."""
        return _answer(lambda: explanation_json(project.explain(test)))

    @server.tool(annotations=read_only)
    def slow_tests(most: int = 10) -> dict[str, Any]:
        """List the tests that usually take longest, with their usual seconds and runs."""
        return _answer(lambda: _slow_tests(project, min(max(most, 1), MOST_SLOW)))

    return server


def _answer(ask: Callable[[], str]) -> dict[str, Any]:
    """Return the JSON object that `ask` writes, or the error with its remedy: an agent can act on that."""
    try:
        told: dict[str, Any] = json.loads(ask())
        return told
    except FedstepError as error:
        return {"error": str(error)}


def _slow_tests(project: fedstep.Project, most: int) -> str:
    from fedstep.features.test_features import typical_seconds
    from fedstep.history.summary import load_summary

    tests = load_summary(project.context().store).summary.tests.values()
    timed = sorted(((typical_seconds(one) or 0.0, one) for one in tests), key=lambda pair: -pair[0])
    slow = [{"test": one.test, "seconds": round(seconds, 3), "runs": one.runs} for seconds, one in timed[:most]]
    return json.dumps({"slow_tests": slow})
