"""A coding agent asks over stdio: the server answers the official SDK's own client, and writes nothing."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra mcp is not installed")
from mcp import Client, StdioServerParameters, stdio_client

from tests.helpers.cli import Checkout

REPORT = (
    '<testsuite><testcase classname="a.T" name="x" time="1"><failure message="assert 200 == 401">t</failure>'
    '</testcase><testcase classname="a.T" name="y" time="1"><failure message="assert 200 == 401">t</failure></testcase>'
    '<testcase classname="a.T" name="z" time="1"/></testsuite>'
)
TOOLS = {"predict", "triage", "failure_groups", "explain", "slow_tests"}


def ask(place: Checkout, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The tools, and the answer to each call, of a real server process."""

    async def talk() -> tuple[list[Any], list[Any]]:
        parameters = StdioServerParameters(command=sys.executable, args=["-m", "fedstep", "mcp"], cwd=str(place.root))
        async with Client(stdio_client(parameters)) as client:
            listed = (await client.list_tools()).tools
            return listed, [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(asyncio.wait_for(talk(), 60))


class TestServer:
    def test_an_agent_asks_whether_a_failure_is_its_own(self, experienced: Checkout) -> None:
        """Nothing is written; failures of one cause are one group; an unknown test is an error with its remedy."""
        (experienced.root / "r.xml").write_text(REPORT)
        before = files(experienced.root)
        listed, answers = ask(
            experienced,
            ("triage", {"junit": ["r.xml"]}),
            ("failure_groups", {"junit": ["r.xml"]}),
            ("predict", {}),
            ("slow_tests", {"most": 2}),
            ("explain", {"test": "no such test at all"}),
        )
        assert {tool.name for tool in listed} >= TOOLS
        judged, grouped, predicted, slow, unknown = (answer.structured_content for answer in answers)
        assert {failure["test"] for failure in judged["failures"]} == {"a.T#x", "a.T#y"}
        for failure in judged["failures"]:  # what would change it
            changed = failure["would_change"]
            assert changed["if_a_rerun_fails"] <= failure["flaky_probability"] < changed["if_a_rerun_passes"]
            assert changed["if_a_rerun_passes"] > 0.7
        assert [group["tests"] for group in grouped["groups"]] == [["a.T#x", "a.T#y"]]
        assert predicted["builds_known"] > 3
        assert len(slow["slow_tests"]) == 2
        assert "no test of the history" in unknown["error"]
        assert files(experienced.root) == before


class TestPage:
    def test_the_script_prints_what_the_page_shows(self, fresh: Checkout) -> None:
        """The page's own script asks, and gets each answer of the page; numbers may change with the model."""
        page = (Path(__file__).parents[3] / "docs/how-to/agents.md").read_text(encoding="utf-8")
        (report,) = re.findall(r"```xml\n(.*?)```", page, re.DOTALL)
        (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        (told,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
        (fresh.root / "r.xml").write_text(report)
        (fresh.root / "ask.py").write_text(script)
        path = f"{Path(sys.executable).parent}:{fresh.env['PATH']}"
        ran = subprocess.run(
            (sys.executable, "ask.py"), cwd=fresh.root, env={**fresh.env, "PATH": path}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        assert exchanges(ran.stdout) == exchanges(told)


def exchanges(text: str) -> list[tuple[str, ...]]:
    """The calls and answers of a conversation, as JSON on one line without numbers."""
    found = re.findall(r"^call +(\w+) (\{.*?\})\nanswer +(\{.*?\})(?=\ncall|\n\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(found) == text.count("call    ") >= 3
    return [(tool, *(without_numbers(json.loads(each)) for each in (given, answer))) for tool, given, answer in found]


def without_numbers(value: object) -> str:
    return re.sub(r"-?\d+\.\d+", "0.0", json.dumps(value, sort_keys=True))


def files(root: Path) -> set[tuple[str, int]]:
    return {
        (str(path), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file() and ".git" not in path.parts
    }
