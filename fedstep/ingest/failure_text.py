"""The text of a failure: the lines that a report shows, and a signature that failures with one cause share.

Both are computed on this machine. The history keeps the signature, which is a hash; the message is shown and forgotten.
"""

import re
from collections.abc import Collection, Iterator
from hashlib import blake2b
from typing import NamedTuple

from fedstep.ingest.change_impact import group_of

MAX_LINES, MAX_LINE = 2, 240  # shown of one message
HALF = 4_000  # characters kept from the start of a failure's text, and as many from its end

COLOUR = re.compile(r"(?:\x1b|#x1B)\[[\d;]*m")
# One frame of a stack: Java, Kotlin and .NET; Python's traceback; pytest, Go and Rust; JavaScript.
_FRAMES = re.compile(
    r"^\s*at (?:[\w.-]+(?:@[\w.-]*)?/)*(?P<java>[\w.$<>]+)\((?P<java_file>[^()\n]*)\)"
    r"|^\s*at (?P<net>[\w.`<>$]+)\([^()\n]*\)(?: in (?P<net_file>[^\n]+?):line \d+)?\s*$"
    r'|^\s*File "(?P<python_file>[^"\n]+)", line \d+, in (?P<python>\S+)'
    r"|^(?P<plain_file>[^\s:()]+\.\w{1,5}):\d+: (?:in (?P<plain>\S+)|(?=[\w.]*(?:Error|Exception)|\s*$))"
    r"|^\s*at (?:(?:async )?(?P<script>[^\s()]+(?: \[as [^\]]+\])?) \()?(?P<script_file>[^\s()]+):\d+:\d+\)?",
    re.MULTILINE,
)
_LIBRARIES = re.compile(
    r"(?:^|/)(?:_pytest|pluggy|unittest|site-packages|node_modules|node:)"
    r"|^(?:org\.(?:junit|testng|hamcrest|assertj|opentest4j|mockito|gradle|apache\.maven)|junit|java|javax|jdk|sun"
    r"|kotlin|scala|NUnit|Xunit|System|Microsoft)\."
)
# What differs between two failures with one cause, and what stands for it.
_VARIABLE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ][\d:.,]+(?:Z|[+-][\d:]+)?)?"), "<time>"),
    (re.compile(r"\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{12,}\b|@[0-9a-f]{5,16}\b", re.I), "<id>"),
    (re.compile(r"(?<=:)\d{4,5}\b"), "<port>"),
    (re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[\\/][\w.@+-]+){2,}"), "<path>"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|sec|secs|seconds|min|minutes|milliseconds)\b"), "<span>"),
    (re.compile(r"\b\d{5,}\b|\b\d+\.\d{3,}\b"), "<number>"),
)
_PLACE = re.compile(r"[^\s:]+\.\w{1,5}:\d+:?")
_TEST_POINT = re.compile(r"not ok \d+ - ")  # TAP::Formatter::JUnit has nothing else, and the number moves
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+")
_AT = re.compile(r"\s*at (?:async |new )?[\w.$<>]+ \(<anonymous>\)\s*$")  # a frame of JavaScript that has no place
_GO_MARK = re.compile(r"\s*(?:=== |--- )")
_GO_ENDS, _GO_EXIT = ("--- FAIL: ", "panic: ", "fatal error: ", ".go:"), "the test process exited inside this test"
_FAILING = re.compile(
    r"\b(?<!\b0 )(?:fail(?:ed|ures?)?|errors?|assert\w*|expected|panic(?:ked)?|abort\w*|exception)\b", re.I
)
_NO_MESSAGE = re.compile(
    r"(?:assert(?:ion)?\s*(?:error|failed|false|not true)?|failed|failure|(?:build |runtime )?error|none|null|false"
    r"|exception)?\W*",
    re.I,
)
# How a test ended: it says more than nothing, and not which two tests have a cause in common.
_END = re.compile(r"(?:time(?:d\s?)?out|segfault|(?:child )?(?:killed|aborted)|exit code \d+)\W*", re.I)


_TRACEBACK = "Traceback (most recent call last)"
NO_WORD = "its output has no word of a failure, as after a crash or at a time limit"
COLLECTION = "collection failure"  # of a module that pytest could not import


class FailureText(NamedTuple):
    """What is kept of the text of one failure."""

    message: str = ""  # at most MAX_LINES lines, each at most MAX_LINE characters
    signature: str = ""  # 16 hex digits; failures with one cause have the same


def read_failure(test: str, failure_type: str, message: str, text: str) -> FailureText:
    """Return message and signature of one failed attempt.

    Args:
        test: The id of the test, whose own frames do not count: what its neighbours have in common lies below them.
        failure_type: The exception, or the first word of the message.
        message: The message as the report has it, "" without one.
        text: The text of the failure, with its stack.
    """
    text = COLOUR.sub("", text)
    plain = _TEST_POINT.sub("", COLOUR.sub("", message).strip())
    if (
        _NO_MESSAGE.fullmatch(plain) or _TRACEBACK in plain
    ):  # gotestsum writes "Failed", Jest nothing, unittest too much
        plain = f"{_GO_EXIT * _is_without_end(text)}\n{_message_in(text)}".strip() or plain
    elif plain == COLLECTION:  # pytest has what failed in the text alone
        plain = ": ".join(filter(None, (COLLECTION, *_message_in(text).strip().splitlines()[:1])))
    plain = "\n".join(line.strip() for line in plain.splitlines() if line.strip() and not _is_title(line, test))
    return FailureText(_choose_lines(plain), _signature(test, failure_type, plain, text))


def _is_title(line: str, test: str) -> bool:
    """Return whether the line only repeats the name of the test, as PHPUnit's first line does: it has no other word."""
    name = test.partition("#")[2]
    return bool(name) and name in line and set(_WORD.findall(line)) <= set(_WORD.findall(test))


def _choose_lines(message: str) -> str:
    r"""Return the lines to show: not a place alone, and what stands below a line that ends with a colon behind it.

    >>> _choose_lines("cart.cpp:3\nExpected equality of these values:\n3\n1 + 1\nWhich is: 2")
    'Expected equality of these values: 3, 1 + 1, Which is: 2'
    """
    lines = message.splitlines()
    if len(lines) > 1 and _PLACE.fullmatch(lines[0]):
        del lines[0]
    if len(lines) > MAX_LINES and lines[0].endswith(":"):
        lines = [f"{lines[0]} {', '.join(lines[1:4])}", *lines[4:]]
    return "\n".join(line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 1]}…" for line in lines[:MAX_LINES])


def _message_in(text: str) -> str:
    """Return the message of a failure whose report has it in the text alone: the lines before the stack.

    pytest marks them with `E`; a traceback of Python has them at its end.
    """
    lines = text.splitlines()
    marked = [line[1:] for line in lines if line.startswith("E   ")]
    if marked:
        return "\n".join(marked[:MAX_LINES])
    if any(line.startswith(_TRACEBACK) for line in lines):
        ends = [line for line in lines if line.strip() and not line.startswith((" ", "Traceback"))]
        return "\n".join(ends[-1:])
    lines = [line for line in lines if line.strip() not in ("", "---", "...")]  # the marks of a block of TAP
    before = [line for line in lines if not any(own.match(line) for own in (_FRAMES, _AT, _GO_MARK))]
    return "\n".join(before[:MAX_LINES])


def find_message(output: str) -> str:
    r"""Return the lines of a failed test's output that tell of a failure, else that there are none, and its last line.

    >>> find_message("a.c:70:adds:PASS\na.c:64:rounds:FAIL: Expected 3 Was 4\n\n2 Tests 1 Failures\nFAIL\n")
    'a.c:64:rounds:FAIL: Expected 3 Was 4\n2 Tests 1 Failures'
    >>> find_message("connected\nadds: ok\n").partition("\n")
    ('its output has no word of a failure, as after a crash or at a time limit', '\n', 'adds: ok')
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return "\n".join([line for line in lines if _FAILING.search(line)][:MAX_LINES] or [NO_WORD, *lines[-1:]])


def _is_without_end(text: str) -> bool:
    """Return whether a test of Go began and has no end, as after `os.Exit`: the Go command calls that failed."""
    return text.lstrip().startswith("=== RUN ") and not any(end in text for end in _GO_ENDS)


def _signature(test: str, failure_type: str, message: str, text: str) -> str:
    frame = _shared_frame(test, text)
    normalized = _normalize(message)
    if frame:
        normalized = (
            _NUMBER.sub("<n>", normalized) if "assert" not in f"{failure_type}{message}".lower() else normalized
        )
    elif any(words.fullmatch(normalized.removeprefix(NO_WORD)) for words in (_NO_MESSAGE, _END)):
        frame = group_of(test) or test  # "AssertionError" alone says nothing that two classes could have in common
    parts = "\0".join((failure_type, normalized, frame))
    return blake2b(parts.encode(errors="backslashreplace"), digest_size=8).hexdigest()


def _normalize(message: str) -> str:
    """Return the first lines of the message without what differs from run to run.

    >>> _normalize("timeout after 1203 ms at 0x7f3c, port localhost:45231")
    'timeout after <span> at <id>, port localhost:<port>'
    """
    line = " ".join(" ".join(message.splitlines()[:MAX_LINES]).split())[: 4 * MAX_LINE]
    for pattern, name in _VARIABLE:
        line = pattern.sub(name, line)
    return line


def _shared_frame(test: str, text: str) -> str:
    """Return the innermost frame that belongs to neither the test itself nor a test framework, "" without one."""
    group, _, name = test.partition("#")
    own = {group, group.rpartition(".")[2], group.replace(".", "/"), group.rpartition("/")[2].partition(".")[0]}
    method = re.split(r"[(\[{ ]", name, maxsplit=1)[0]
    frames = list(_frames(text))
    if any(python for _, _, python in frames):
        frames.reverse()  # the innermost is the last
    for file, function, _ in frames:
        if function.rpartition(".")[2] == method or _is_of(file, function, own, group):
            continue
        if not _LIBRARIES.search(file) and not _LIBRARIES.search(function):
            return f"{file}:{function}"
    return ""


def _frames(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield file, function and whether the innermost frame is the last."""
    for match in _FRAMES.finditer(text):
        java, net, python, plain, script = (match[kind] for kind in ("java", "net", "python", "plain", "script"))
        if java:
            yield "", java, False
        elif net:
            yield "", net, False
        elif match["python_file"]:
            yield match["python_file"], python, True
        elif match["plain_file"]:
            yield match["plain_file"], plain or "", True
        else:
            yield match["script_file"], script or "", False


def _is_of(file: str, function: str, own: Collection[str], group: str) -> bool:
    """Return whether a frame lies in the class or file of the test."""
    if function.rpartition(".")[0] in own or (group and function.startswith((f"{group}.", f"{group}$"))):
        return True
    stem = re.sub(r"\.\w{1,5}$", "", file.replace("\\", "/"))
    dotted = stem.replace("/", ".").lstrip(".")
    if not stem:
        return False
    return f".{group}.".startswith(f".{dotted}.") or f".{dotted}".endswith(f".{group}") or group.startswith(file)
