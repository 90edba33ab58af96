"""Xcode's results: the JSON of `xcrun xcresulttool get test-results tests`, a tree of plans, bundles, suites and cases.

Node types and results as Apple's schema names them (`xcresulttool help get test-results tests`, Xcode 16).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from fedstep.build.attributes import failure_word, seconds
from fedstep.build.markup import Refused
from fedstep.build.record import NO_SECONDS, Outcome
from fedstep.build.sink import Sink

__all__ = ["LARGEST", "read_xcresult"]

LARGEST = 32 << 20  # bytes; a tree of objects takes about ten times as much memory
BUNDLES = ("Unit test bundle", "UI test bundle")
ATTEMPTS = ("Repetition", "Test Case Run")
OUTCOMES = {
    "Passed": Outcome.PASSED,
    "Expected Failure": Outcome.PASSED,
    "Failed": Outcome.FAILED,
    "Skipped": Outcome.SKIPPED,
}
PLACE = re.compile(r"^[^\s:]{1,200}:\d{1,9}: ")  # a message begins with file and line
Node = dict[str, Any]


def read_xcresult(content: bytes, cases: Sink) -> None:
    """Add every attempt of every test to `cases`. Refused where the JSON is of another kind, or damaged."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON as xcresulttool writes it: {error}"[:200]) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("testNodes"), list):
        raise Refused("JSON, but not of `xcresulttool get test-results tests`")
    cases.begin("xcresult")
    for case, bundle in _cases(tree["testNodes"]):
        _read_case(case, bundle, cases)


def _cases(nodes: list[Any]) -> Iterator[tuple[Node, str]]:
    """The test cases in the order of the file, each with the name of its bundle."""
    waiting = [(node, "") for node in reversed(nodes)]
    while waiting:
        node, bundle = waiting.pop()
        if not isinstance(node, dict):
            continue
        kind = node.get("nodeType")
        if kind == "Test Case":
            yield node, bundle
        else:
            name = _text(node, "name") if kind in BUNDLES else bundle
            waiting += ((child, name) for child in reversed(_children(node)))


def _read_case(case: Node, bundle: str, cases: Sink) -> None:
    """A test, or each of its arguments; an attempt that was repeated is one of several runs of it."""
    name = _text(case, "name")
    suite = _text(case, "nodeIdentifier").rpartition("/")[0].replace("/", ".")
    group = ".".join(filter(None, (bundle, suite)))
    for argument in _of_kind(case, "Arguments") or [case]:
        given = "" if argument is case else f"({_text(argument, 'name')})"
        for attempt in _attempts(argument):
            outcome = OUTCOMES.get(_text(attempt, "result"))
            if outcome is None:
                cases.drop(f"a test with the result {_text(attempt, 'result')[:40]!r}")
                continue
            word = _failure(attempt) if outcome == Outcome.FAILED else ""
            cases.add(group, name.removesuffix("()") + given, outcome, _seconds(attempt), word)


def _attempts(node: Node) -> list[Node]:
    """The runs of a test, each as a node with a result; on one device they hang below it."""
    devices = _of_kind(node, "Device")
    holder = devices[0] if len(devices) == 1 else node
    return _of_kind(holder, *ATTEMPTS) or [node]


def _failure(node: Node) -> str:
    messages = _of_kind(node, "Failure Message")
    return failure_word(PLACE.sub("", _text(messages[0], "name"))) if messages else ""


def _seconds(node: Node) -> float:
    exact = node.get("durationInSeconds")
    if isinstance(exact, int | float) and not isinstance(exact, bool):
        return seconds(repr(exact))
    told = _text(node, "duration")
    return seconds(told) if told else NO_SECONDS


def _of_kind(node: Node, *kinds: str) -> list[Node]:
    return [child for child in _children(node) if isinstance(child, dict) and child.get("nodeType") in kinds]


def _children(node: Node) -> list[Any]:
    children = node.get("children")
    return children if isinstance(children, list) else []


def _text(node: Node, key: str) -> str:
    value = node.get(key)
    return value if isinstance(value, str) else ""
