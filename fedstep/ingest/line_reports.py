"""The readers of reports that are written line by line, and stand where the run stopped.

TAP is the Test Anything Protocol, versions 12 to 14 (https://testanything.org/tap-version-14-specification.html). Each
test point is a test; what Node calls a suite, and what has its subtests in braces, is none. Streams of events are those
of `go test -json` (cmd/test2json) and `dart test --reporter json` (package test, doc/json_reporter.md).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from fedstep.ingest.cases import MAX_TEXT, NOT_STARTED, CaseCollector, failure_word, parse_seconds
from fedstep.ingest.json_reports import (
    Node,
    add_run_failure,
    after_retries,
    as_node,
    count_of,
    line_of,
    load_json,
    number_of,
    text_of,
)
from fedstep.ingest.test_identity import MAX_NAME
from fedstep.ingest.xml import MAX_LINE_BYTES, iter_lines
from fedstep.types import NO_SECONDS, Outcome

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED


class LineHandler(Protocol):
    """What reads one report."""

    def read_line(self, line: bytes) -> None:
        """Read one line."""

    def finish(self) -> None:
        """Add what is still open, and note what is missing."""


class LineDialect(NamedTuple):
    """A format: the tool's name, how its beginning is recognised, and what reads it."""

    tool: str
    matches: Callable[[bytes], bool]
    make_handler: Callable[[CaseCollector], LineHandler]

    def read(self, chunks: Iterable[bytes], collector: CaseCollector) -> str:
        """Add every test, and return the tool's name."""
        handler = self.make_handler(collector)
        try:
            for line in iter_lines(chunks):
                handler.read_line(line)
        finally:
            handler.finish()
        return self.tool


def find_line_dialect(head: bytes) -> LineDialect | None:
    """Return the format of a file that begins like this, None where it is none of these."""
    return next((dialect for dialect in LINE_DIALECTS if dialect.matches(head)), None)


MAX_FIRST_LINES = 200


def parse_event(line: bytes, collector: CaseCollector | None = None) -> Node:
    """Return the event of a line, an empty one of other lines; one that is cut is noted."""
    line = line.strip()
    if line[:1] != b"{":
        return {}
    try:
        event = load_json(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        if collector:
            collector.drop(f"a line that is not JSON, or longer than {MAX_LINE_BYTES >> 20} MB")
        return {}
    return event if isinstance(event, dict) else {}


def _is_go(head: bytes) -> bool:
    events = map(parse_event, head.split(b"\n")[:MAX_FIRST_LINES])  # after those of a build
    return any("Action" in event and ("Package" in event or "ImportPath" in event) for event in events)


def _is_dart(head: bytes) -> bool:
    events = map(parse_event, head.split(b"\n")[:MAX_FIRST_LINES])
    return any("protocolVersion" in event and event.get("type") == "start" for event in events)


def _is_tap(head: bytes) -> bool:
    return head.lstrip()[:1] not in (b"<", b"{", b"[") and TAP_BEGINNING.search(head) is not None


# TAP

MAX_LEVELS = 100
TAP_BEGINNING = re.compile(rb"^ *(?:TAP version 1[234]\s*$|1\.\.\d+\b|(?:not )?ok\b)", re.M)
POINT = re.compile(r"(not )?ok\b(?: +(\d+))?(?: +- |[ \t]*)?(.*)")
PLAN = re.compile(r"1\.\.(\d{1,9})\s*(?:#\s*(.*))?$")
DIRECTIVE = re.compile(r"(?<!\\)#\s*(skip|todo)\w*\b[:\s]*(.*)$", re.I)
TIME = re.compile(r"\s*(?:# time=|# \(| in )([\d.]+ ?m?s)(?:ec)?\)?\s*$")
YAML_VALUE = re.compile(r"\s*(duration_ms|time|type|failureType|name|error|message): *(.*)")


class TapPoint(NamedTuple):
    """A test point whose YAML block may follow; `is_summary`: its subtests stand in braces after it."""

    path: tuple[str, ...]
    name: str
    outcome: Outcome
    depth: int
    has_subtests: bool  # before it
    has_failed_subtests: bool
    is_summary: bool


class TapLevel:
    """The document, or the subtests of one test point."""

    def __init__(self, title: str, summary: TapPoint | None = None) -> None:
        self.title, self.summary = title, summary
        self.plan: int | None = None
        self.points = self.failures = 0


class TapReader:
    """Read TAP line by line; a point is added when the next line shows that its YAML block has ended."""

    def __init__(self, collector: CaseCollector) -> None:
        self._collector = collector
        self._levels = [TapLevel("")]
        self._titles: dict[int, str] = {}  # by depth, of subtests that a comment announced
        self._ended: TapLevel | None = None  # subtests whose point comes next
        self._point: TapPoint | None = None
        self._values: dict[str, str] = {}  # of its YAML block
        self._is_in_yaml = self._has_bailed_out = False
        self._last_line = ""
        self._has_titles = False  # comments name the tests, as tape does
        self._title = ""

    def read_line(self, line: bytes) -> None:
        """Read one line."""
        whole = line.decode("utf-8", "replace")
        text = whole.lstrip(" ")
        indent = len(whole) - len(text)
        text = text.rstrip()
        if self._is_in_yaml or (text == "---" and self._point and indent > self._point.depth * 4):
            self._read_yaml(text)
        elif indent % 4 == 0 and indent // 4 < MAX_LEVELS:
            self._read_text(text, indent // 4)
        self._last_line = text

    def _read_text(self, text: str, depth: int) -> None:
        if (plan := PLAN.match(text)) is not None:
            self._finish_point()
            self._enter(depth).plan = int(plan[1])
        elif (point := POINT.match(text)) is not None:
            self._finish_point()
            self._read_point(point, depth)
        elif text == "}":
            self._finish_point()
            self._leave(depth)
        elif text.startswith("Bail out!"):
            self._finish_point()
            self._has_bailed_out = True
            self._collector.add("tap", NOT_STARTED, FAILED, failure_type="Bail out")
        elif text.startswith("# Subtest: "):
            self._finish_point()
            self._enter(depth)
            self._titles[depth + 1] = text.removeprefix("# Subtest: ")[:MAX_NAME]
        elif text.startswith("# ") and depth == 0 and (self._has_titles or self._last_line.startswith("TAP version")):
            self._has_titles, self._title = True, text[2:MAX_NAME]

    def finish(self) -> None:
        """Add the last point, and a failure for points that were planned and do not stand here."""
        self._finish_point()
        if any(level.summary for level in self._levels):
            self._collector.drop("the report stops inside subtests")
        self._leave(0)
        document = self._levels[0]
        if self._has_bailed_out:
            return
        if document.plan is None:
            self._collector.drop("no plan: the report stops before its end")
        elif document.plan > document.points:
            self._collector.add("tap", NOT_STARTED, FAILED, failure_type="Bad plan")
            self._note_plan(document)

    def _note_plan(self, level: TapLevel) -> None:
        if level.plan is not None and level.plan > level.points:
            self._collector.drop(f"the plan announces {level.plan} tests, {level.points} stand here")

    def _enter(self, depth: int) -> TapLevel:
        """Return the level of this depth; deeper ones have ended."""
        self._leave(depth)
        while len(self._levels) <= depth:
            self._levels.append(TapLevel(self._titles.pop(len(self._levels), "")))
        return self._levels[depth]

    def _leave(self, depth: int) -> None:
        while len(self._levels) > depth + 1:
            ended = self._ended = self._levels.pop()
            self._note_plan(ended)
            summary = ended.summary
            if summary is not None:
                self._ended = None
                if summary.outcome == FAILED and not ended.failures:
                    self._add(summary, {})

    def _read_point(self, match: re.Match[str], depth: int) -> None:
        self._ended = None
        level = self._enter(depth)
        subtests, self._ended = self._ended, None
        level.points += 1
        description = match[3].removesuffix("{").rstrip()
        name, outcome = _parse_description(description, failed=match[1] is not None)
        name = (name or f"test {match[2] or level.points}")[:MAX_NAME]
        level.failures += outcome == FAILED
        path = [enclosing.title for enclosing in self._levels[1 : depth + 1]]
        path += [self._title] if self._has_titles else []
        is_summary = match[3].endswith("{")
        has_failed_subtests = subtests is not None and subtests.failures > 0
        self._point = TapPoint(
            tuple(filter(None, path)), name, outcome, depth, subtests is not None, has_failed_subtests, is_summary
        )
        self._values = {}
        if is_summary:
            point, self._point = self._point, None
            self._levels.append(TapLevel(_split_time(name)[0], point))

    def _read_yaml(self, text: str) -> None:
        if text in ("---", "..."):
            self._is_in_yaml = text == "---"
        elif (value := YAML_VALUE.match(text)) is not None:
            self._values.setdefault(value[1], value[2].strip("'\"")[:MAX_TEXT])

    def _finish_point(self) -> None:
        point, self._point, self._is_in_yaml = self._point, None, False
        if point is None:
            return
        is_suite = point.has_subtests and self._values.get("type") == "suite"
        if not is_suite or (point.outcome == FAILED and not point.has_failed_subtests):
            self._add(point, self._values)

    def _add(self, point: TapPoint, values: dict[str, str]) -> None:
        message = values.get("name") or values.get("error") or values.get("message", "")
        name, seconds = _split_time(point.name)
        if "duration_ms" in values:
            seconds = parse_seconds(values["duration_ms"]) / 1000
        failure_type = failure_word(message) if point.outcome == FAILED else ""
        text = message if failure_type else ""
        self._collector.add(" > ".join(point.path), name, point.outcome, seconds, failure_type, text=text)


def _parse_description(text: str, *, failed: bool) -> tuple[str, Outcome]:
    """Return the name and the outcome of a test point; one that is still to do counts as skipped."""
    directive = DIRECTIVE.search(text)
    name = (text[: directive.start()] if directive else text).strip()
    name = re.sub(r"\\([#\\])", r"\1", name).strip()
    name = name or (directive[2].strip() if directive else "")
    if directive:
        return name, SKIPPED
    return name, FAILED if failed else PASSED


def _split_time(name: str) -> tuple[str, float]:
    """Return a description without the time that Bats, node-tap and Vitest write at its end, and that time."""
    time = TIME.search(name)
    if not time or not name[: time.start()]:
        return name, NO_SECONDS
    return name[: time.start()], parse_seconds(time[1])


# go test


GO_OUTCOMES = {"pass": PASSED, "fail": FAILED, "skip": SKIPPED}
GO_FRAME = re.compile(r"\s*(?:=== |--- )")
GO_PLACE = re.compile(r"^\s*\S{1,200}\.go:\d{1,9}:\s*")
GO_BUILD_FAILURE = re.compile(rb"FAIL\t(\S{1,1000}) \[(build|setup) failed\]")


class GoHandler:
    """Handle the events of `go test -json`: a test that runs again is another attempt."""

    def __init__(self, collector: CaseCollector) -> None:
        self._collector = collector
        self._running: dict[tuple[str, str], str] = {}  # package and test: the beginning of its output
        self._output: dict[str, str] = {}  # the same of a package
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._failed: set[str] = set()  # packages with a failed test

    def read_line(self, line: bytes) -> None:
        """Handle one event, or a line of Go before 1.24 about a package that could not be built."""
        event = parse_event(line, self._collector)
        if event:
            self._handle(event)
        elif failure := GO_BUILD_FAILURE.search(line):
            add_run_failure(self._collector, failure[1].decode("utf-8", "replace"), f"{failure[2].decode()} failed")

    def _handle(self, event: Node) -> None:
        action, package, test = text_of(event, "Action"), text_of(event, "Package"), text_of(event, "Test")
        if action == "run":
            self._running[package, test] = ""
        elif action == "output":
            self._keep_output(package, test, text_of(event, "Output"))
        elif action == "bench":
            self._running.pop((package, test), None)
        elif action in GO_OUTCOMES and test:
            self._finish_test(package, test, GO_OUTCOMES[action], number_of(event, "Elapsed"))
        elif action in GO_OUTCOMES and package:
            self._finish_package(package, action == "fail")

    def finish(self) -> None:
        """Note the tests that were running when the events stopped."""
        for _ in self._running:
            self._collector.drop("the report stops inside this test")

    def _keep_output(self, package: str, test: str, text: str) -> None:
        outputs: dict[Any, str] = self._running if test else self._output
        key = (package, test) if test else package
        if (not test or key in outputs) and not GO_FRAME.match(text):
            kept = outputs.get(key, "")
            if len(kept) < MAX_TEXT:
                outputs[key] = (kept + text)[:MAX_TEXT]

    def _finish_test(self, package: str, test: str, outcome: Outcome, seconds: float) -> None:
        output = self._running.pop((package, test), "")
        self._attempts[package, test] += 1
        failure_type = ""
        if outcome == FAILED:
            self._failed.add(package)
            failure_type = failure_word(GO_PLACE.sub("", output.lstrip()))
        attempt = self._attempts[package, test]
        text = output if failure_type else ""
        self._collector.add(package, test, outcome, seconds, failure_type, attempt=attempt, text=text)

    def _finish_package(self, package: str, has_failed: bool) -> None:
        for key in [key for key in self._running if key[0] == package]:
            if has_failed:  # it panicked, exited, or ran out of time inside this test
                self._finish_test(*key, FAILED, NO_SECONDS)
            else:
                del self._running[key]
                self._collector.drop("a test without an end")
        output = self._output.pop(package, "")
        if has_failed and package not in self._failed:
            add_run_failure(self._collector, package, output or "build failed")
        self._failed.discard(package)


# dart test


class DartHandler:
    """Handle the events of `dart test` and `flutter test`; a test with errors that succeeded was retried."""

    def __init__(self, collector: CaseCollector) -> None:
        self._collector = collector
        self._suites: dict[Any, Node] = {}
        self._tests: dict[Any, Node] = {}  # those that run
        self._errors: dict[Any, list[str]] = {}  # of those
        self._is_done = self._has_failed = False

    def read_line(self, line: bytes) -> None:
        """Handle one event; other lines, as the events of `flutter test --machine` in brackets, are ignored."""
        event = parse_event(line, self._collector)
        match event.get("type"):
            case "suite":
                suite = as_node(event.get("suite"))
                self._suites[count_of(suite, "id")] = suite
            case "testStart":
                test = as_node(event.get("test"))
                self._tests[count_of(test, "id")] = {**test, "started": event.get("time")}
            case "error":
                self._errors.setdefault(count_of(event, "testID"), []).append(text_of(event, "error")[:MAX_TEXT])
            case "testDone":
                self._finish_test(event)
            case "done":
                self._is_done = True
                if event.get("success") is False and not self._has_failed:
                    add_run_failure(self._collector, "dart", "failed")

    def finish(self) -> None:
        """Note the tests that were running when the events stopped."""
        for _ in self._tests:
            self._collector.drop("the report stops inside this test")
        if not self._is_done and not self._tests:
            self._collector.drop("the report stops before its last event")

    def _finish_test(self, event: Node) -> None:
        key = count_of(event, "testID")
        test, errors = self._tests.pop(key, None), self._errors.pop(key, [])
        result = text_of(event, "result")
        if test is None or (event.get("hidden") is True and result == "success"):
            return
        if result not in ("success", "failure", "error"):
            self._collector.drop(f"a test with the result {result[:40]!r}")
            return
        outcome = PASSED if result == "success" else FAILED
        self._has_failed = self._has_failed or outcome == FAILED
        if event.get("skipped") is True:
            outcome = SKIPPED
        suite = self._suites.get(count_of(test, "suiteID"), {})
        path, platform = text_of(suite, "path"), text_of(suite, "platform")
        name = text_of(test, "name")
        started, ended = number_of(test, "started"), number_of(event, "time")
        self._collector.add(
            path,
            NOT_STARTED if name == f"loading {path}" else name,
            after_retries(outcome, int(outcome == PASSED and bool(errors))),
            max(0.0, ended - started) / 1000 if started == started and ended == ended else NO_SECONDS,
            failure_word(errors[0]) if errors else "",
            path,
            line_of(test, "root_line") or line_of(test),
            variant="" if platform == "vm" else platform,
            text=errors[0] if errors else "",
        )


LINE_DIALECTS = (
    LineDialect("go test", _is_go, GoHandler),
    LineDialect("dart test", _is_dart, DartHandler),
    LineDialect("TAP", _is_tap, TapReader),
)
