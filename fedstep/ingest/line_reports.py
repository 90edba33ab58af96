"""The readers of reports that are written line by line, and stand where the run stopped.

TAP is the Test Anything Protocol, versions 12 to 14 (https://testanything.org/tap-version-14-specification.html), and
that of the Linux kernel, KTAP (https://docs.kernel.org/dev-tools/ktap.html). Each test point is a test; what Node calls
a suite, what has its subtests in braces, and what has subtests in KTAP is none. Streams of events are those of
`go test -json` (cmd/test2json) and `dart test --reporter json` (package test, doc/json_reporter.md).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from fedstep.ingest.cases import EXCEPTION, MAX_TEXT, CaseCollector, failure_word, parse_seconds
from fedstep.ingest.change_impact import NOT_STARTED
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
    is_other = head.lstrip()[:1] in (b"<", b"{", b"[") and not KERNEL_LINE.match(head)
    return not is_other and TAP_BEGINNING.search(head) is not None


# TAP

MAX_LEVELS = 100
MAX_WAITING = 100_000  # test points that wait for the name of their suite
# Before each line of a kernel's log, as dmesg, a serial console and journalctl write it.
KERNEL_TIME = (
    r"(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8} \S{1,255} kernel: )?(?:<\d{1,3}>)?(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?)?"
)
KERNEL_LINE = re.compile(rb"\s*(?:<\d{1,3}>)?\[ *\d+\.\d+\]")
TAP_BEGINNING = re.compile(rf"^(?:{KERNEL_TIME} *K?TAP version \d+\s*$| *(?:1\.\.\d+\b|(?:not )?ok\b))".encode(), re.M)
VERSION = re.compile(r"K?TAP version \d+$")
# What begins subtests in KTAP, which indents them by two spaces or, as KUnit, by four.
KTAP_HEADER = re.compile(r"K?TAP version \d+$|1\.\.\d+\b|# Subtest: |(?:not )?ok \d|Bail out!")
POINT = re.compile(r"(not )?ok\b(?: +(\d+))?(?: +- |[ \t]*)?(.*)")
KTAP_POINT = re.compile(r"(not )?ok (\d+)(?: - | +|$)(.*)")
PLAN = re.compile(r"1\.\.(\d{1,9})\s*(?:#\s*(.*))?$")
LONG_SPACE = re.compile(r"\s{100,}")  # the patterns below would begin anew at each of its characters
DIRECTIVE = re.compile(r"(?<!\\)#\s*(skip|todo|xfail)\w*\b[:\s]*(.*)$", re.I)
# What the kernel's runners write behind the name of a test; in KTAP any text may stand there.
KERNEL_REMARK = re.compile(r"\s+#\s*((?:TIMEOUT|ERROR)\b.*|exit=\d.*)$")
KTAP_REMARK = re.compile(r"(?:^|\s+)#(?:\s+(.*))?$")
TIME = re.compile(r"\s*(?:# time=|# \(| in )([\d.]+ ?m?s)(?:ec)?\)?\s*$")
YAML_VALUE = re.compile(r"\s*(\w+): *(.*)")
YAML_BLOCK = re.compile(r"[|>][+-]?\d?")  # the value stands on the lines below
REMARK = "#"  # the key of what stands below a failed point outside of its YAML block
# Perl's first lines about a failure, which say nothing new, and the sums at the end of a report.
NO_REMARK = re.compile(r"$|Failed (?:\S+ )?test\b|at \S+ line \d+\.?$|(?:tests|pass|fail|skip|todo|ok)\b")


class TapPoint(NamedTuple):
    """A test point whose YAML block may follow; `is_summary`: its subtests stand in braces after it."""

    levels: "tuple[TapLevel, ...]"  # around it, without the document
    title: str  # that a comment gave to its group
    name: str
    outcome: Outcome
    depth: int
    has_subtests: bool  # before it
    has_failed_subtests: bool
    is_summary: bool
    remark: str = ""  # why it failed


class TapLevel:
    """The document, or the subtests of one test point."""

    def __init__(self, title: str, summary: TapPoint | None = None, indent: int = 0) -> None:
        self.title, self.summary, self.indent = title, summary, indent
        self.plan: int | None = None
        self.points = self.failures = 0
        self.waiting: list[tuple[TapPoint, dict[str, str]]] = []  # points until the name of this level is known
        self.is_open = True


class TapReader:
    """Read TAP line by line; a point is added when the next line shows that its YAML block has ended."""

    def __init__(self, collector: CaseCollector) -> None:
        self._collector = collector
        self._levels = [TapLevel("")]
        self._titles: dict[int, str] = {}  # by depth, of subtests that a comment announced
        self._ended: TapLevel | None = None  # subtests whose point comes next
        self._point: TapPoint | None = None
        self._values: dict[str, str] = {}  # of its YAML block
        self._block, self._yaml_indent = "", 0  # the key whose value stands on the lines below it
        self._is_in_yaml = self._has_bailed_out = self._is_kernel = False
        self._last_line = ""
        self._has_titles = False  # comments name the tests, as tape does
        self._title = ""

    def read_line(self, line: bytes) -> None:
        """Read one line."""
        whole = line.decode("utf-8", "replace")
        whole = re.sub(KERNEL_TIME, "", whole, count=1)
        text = whole.lstrip(" ")
        indent = len(whole) - len(text)
        text = text.rstrip()
        if self._is_in_yaml or (text == "---" and self._point and indent > self._point.depth * 4):
            self._read_yaml(text, indent)
        elif self._is_kernel or text.startswith("KTAP version "):
            self._read_kernel_text(text, indent)
        elif indent % 4 == 0 and indent // 4 < MAX_LEVELS:
            self._read_text(text, indent // 4)
        else:
            self._keep_remark(text)
        self._last_line = text

    def _read_kernel_text(self, text: str, indent: int) -> None:
        """Read a line of KTAP, in which the beginning of subtests tells how far they are indented.

        Lines of the kernel's log stand between the others, and the point of a suite comes behind its subtests.
        """
        if not KTAP_HEADER.match(text):
            return
        self._is_kernel = True
        depth = next((n for n, level in enumerate(self._levels) if level.indent >= indent), len(self._levels))
        if depth >= MAX_LEVELS:
            return
        if depth == len(self._levels):
            self._finish_point()
            self._close(self._ended)
            self._ended = None
            self._levels.append(TapLevel("", indent=indent))
        if VERSION.match(text):
            self._finish_point()
            self._begin_kernel_tests(depth, indent)
        elif text.startswith("# Subtest: "):
            self._leave(depth)
            level = self._levels[depth]
            level.title = level.title or text.removeprefix("# Subtest: ")[:MAX_NAME]
        else:
            self._read_text(text, depth)

    def _begin_kernel_tests(self, depth: int, indent: int) -> None:
        """Begin a document or subtests; what stands at this depth without its own end was cut off by a crash."""
        level = self._levels[depth]
        if not level.points and level.plan is None:
            self._leave(depth)
        elif depth == 0:
            self._end_document()
            self._levels = [TapLevel("", indent=indent)]
        else:
            self._leave(depth - 1)
            self._close(self._ended)
            self._ended = None
            self._levels.append(TapLevel("", indent=indent))

    def _read_text(self, text: str, depth: int) -> None:
        point_of = KTAP_POINT if self._is_kernel else POINT
        if (plan := PLAN.match(text)) is not None:
            self._finish_point()
            self._enter(depth).plan = int(plan[1])
            self._take_title(depth)
        elif (point := point_of.match(text)) is not None:
            self._finish_point()
            self._read_point(point, depth)
        elif text == "}":
            self._finish_point()
            self._leave(depth)
        elif text.startswith("Bail out!"):
            self._finish_point()
            self._has_bailed_out = True
            self._collector.add("tap", NOT_STARTED, FAILED, failure_type="Bail out", text=text)
        elif text.startswith("# Subtest: "):
            self._finish_point()
            self._enter(depth)
            self._titles[depth + 1] = text.removeprefix("# Subtest: ")[:MAX_NAME]
        elif text.startswith("# ") and depth == 0 and (self._has_titles or self._last_line.startswith("TAP version")):
            self._has_titles, self._title = True, text[2:MAX_NAME]
        else:
            self._keep_remark(text)

    def finish(self) -> None:
        """Add the last point, and a failure for points that were planned and do not stand here."""
        self._finish_point()
        if any(level.summary for level in self._levels):
            self._collector.drop("the report stops inside subtests")
        self._end_document()

    def _end_document(self) -> None:
        self._leave(0)
        self._close(self._ended)
        self._ended = None
        document = self._levels[0]
        if self._has_bailed_out:
            return
        if document.plan is None:
            if not self._is_kernel:  # modules of a running kernel report without one
                self._collector.drop("no plan: the report stops before its end")
        elif document.plan > document.points:
            missing = f"the plan announces {document.plan} tests, and {document.points} ran"
            self._collector.add("tap", NOT_STARTED, FAILED, failure_type="Bad plan", text=missing)
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

    def _take_title(self, depth: int) -> None:
        """Take a comment at the start of subtests as their own title, which it is in KUnit's older form."""
        level = self._levels[depth]
        if depth and not level.title and not level.points:
            level.title = self._titles.pop(depth + 1, "")

    def _leave(self, depth: int) -> None:
        while len(self._levels) > depth + 1:
            self._close(self._ended)
            ended = self._ended = self._levels.pop()
            self._note_plan(ended)
            summary = ended.summary
            if summary is not None:
                self._ended = None
                if summary.outcome == FAILED and not ended.failures:
                    self._add(summary, {})

    def _close(self, level: TapLevel | None, title: str = "") -> None:
        """Give a level its title, if it has none, and add the points that waited for it."""
        if level is None:
            return
        level.title, level.is_open = level.title or title, False
        waiting, level.waiting = level.waiting, []
        for point, values in waiting:
            self._add(point, values)

    def _read_point(self, match: re.Match[str], depth: int) -> None:
        self._close(self._ended)
        self._ended = None
        level = self._enter(depth)
        self._take_title(depth)
        subtests, self._ended = self._ended, None
        level.points += 1
        description = match[3].removesuffix("{").rstrip()
        parsed = _parse_description(description, failed=match[1] is not None, is_kernel=self._is_kernel)
        name = (parsed.name or f"test {match[2] or level.points}")[:MAX_NAME]
        level.failures += parsed.outcome == FAILED
        self._close(subtests, name)
        is_summary = match[3].endswith("{")
        self._point = TapPoint(
            tuple(self._levels[1 : depth + 1]),
            self._title if self._has_titles else "",
            name,
            parsed.outcome,
            depth,
            subtests is not None,
            subtests is not None and subtests.failures > 0,
            is_summary,
            parsed.remark,
        )
        self._values = {}
        if is_summary:
            point, self._point = self._point, None
            self._levels.append(TapLevel(_split_time(name)[0], point))

    def _read_yaml(self, text: str, indent: int) -> None:
        if text in ("---", "..."):
            self._is_in_yaml, self._block = text == "---", ""
            return
        if self._block and indent > self._yaml_indent:
            self._keep(self._block, text)
        elif (value := YAML_VALUE.match(text)) is not None:
            inline, self._block = value[2].strip(), ""
            if YAML_BLOCK.fullmatch(inline) or (value[1] == "details" and not inline):  # keys in it are not the point's
                self._block, self._yaml_indent = value[1], indent
            else:
                self._values.setdefault(value[1], inline.strip("'\"")[:MAX_TEXT])

    def _keep(self, key: str, line: str) -> None:
        """Add a line to a value of the open point."""
        self._values[key] = f"{self._values.get(key, '')}\n{line}".strip()[:MAX_TEXT]

    def _keep_remark(self, text: str) -> None:
        """Keep what a runner writes below a point that failed, as mocha, Bats and Perl do without a YAML block."""
        line = text.removeprefix("#").strip()
        if self._point and self._point.outcome == FAILED and not NO_REMARK.match(line):
            self._keep(REMARK, line)

    def _finish_point(self) -> None:
        point, self._point, self._is_in_yaml = self._point, None, False
        if point is None:
            return
        is_suite = point.has_subtests and (self._is_kernel or self._values.get("type") == "suite")
        if not is_suite or (point.outcome == FAILED and not point.has_failed_subtests):
            self._add(point, self._values)

    def _add(self, point: TapPoint, values: dict[str, str]) -> None:
        untitled = next((level for level in point.levels if not level.title and level.is_open), None)
        if self._is_kernel and untitled and len(untitled.waiting) < MAX_WAITING:
            untitled.waiting.append((point, values))
            return
        path = [*(level.title for level in point.levels), point.title]
        message, remark = _message_of(values) or point.remark, values.get(REMARK, "")
        name, seconds = _split_time(point.name)
        if "duration_ms" in values:
            seconds = parse_seconds(values["duration_ms"]) / 1000
        failure_type = text = ""
        if point.outcome == FAILED:
            exception = EXCEPTION.search(remark)
            failure_type = failure_word(message) if message else exception[0] if exception else ""
            text = message or remark
        group = " > ".join(filter(None, path))
        self._collector.add(group, name, point.outcome, seconds, failure_type, text=text)


def _message_of(values: Mapping[str, str]) -> str:
    """Return what the YAML block of a failed point says: the exception and its text, else what was expected."""
    texts = [values[key] for key in ("name", "error", "message") if values.get(key)][:2]
    texts += [" ".join(line for line in values.get("details", "").splitlines() if not line.endswith((":", "|-")))]
    if any(texts):
        return ": ".join(filter(None, texts))
    compared = [f"{key} {values[key]}" for key in ("expected", "actual") if values.get(key)]
    return ", ".join(compared)


class TapDescription(NamedTuple):
    """What a test point says behind its number."""

    name: str
    outcome: Outcome
    remark: str = ""


def _parse_description(text: str, *, failed: bool, is_kernel: bool = False) -> TapDescription:
    """Return what a test point says; one that is still to do, or expected to fail, counts as skipped."""
    text = LONG_SPACE.sub(" ", text)
    directive = DIRECTIVE.search(text)
    remark = None if directive else (KTAP_REMARK if is_kernel else KERNEL_REMARK).search(text)
    end = directive or remark
    name = (text[: end.start()] if end else text).strip()
    name = re.sub(r"\\([#\\])", r"\1", name).strip()
    name = name or (directive[2].strip() if directive else "")
    if directive:
        return TapDescription(name, SKIPPED)
    return TapDescription(name, FAILED if failed else PASSED, remark[1] or "" if remark else "")


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
        self._ended: set[tuple[str, str]] = set()  # attempts that wrote their result
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
        if test and text.lstrip().startswith("--- "):
            self._ended.add((package, test))
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
        if outcome == FAILED and (package, test) not in self._ended:
            output = f"=== RUN   {test}\n{output}"  # without an end, as gotestsum writes it
        self._ended.discard((package, test))
        attempt = self._attempts[package, test]
        text = output if failure_type or output.startswith("=== RUN") else ""
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
            file=path,
            line=line_of(test, "root_line") or line_of(test),
            variant="" if platform == "vm" else platform,
            text=errors[0] if errors else "",
        )


LINE_DIALECTS = (
    LineDialect("go test", _is_go, GoHandler),
    LineDialect("dart test", _is_dart, DartHandler),
    LineDialect("TAP", _is_tap, TapReader),
)
