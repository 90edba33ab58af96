"""Where the functions of a source file are, by name: light readers of Python, Java and JavaScript.

No parsers: 300 files must take less than half a second, and a file that was cut at 64 kB, or is not quite valid, still
has the functions that can be seen whole.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["SUFFIXES", "Function", "Source", "read_source", "words_of"]

WORD_LIMIT = 300
_LONGEST_WORD = 60  # longer ones are keys and encoded bytes


class Function(NamedTuple):
    """A function of a file: its qualified name ("Class.method", or a JavaScript title) and where its text is."""

    name: str
    start: int
    end: int


class Source(NamedTuple):
    """A source file without its comments, and its functions by name; of two with one name the first."""

    text: str
    functions: dict[str, Function]


# Quantifiers are possessive (`*+`), and bounded where a match can fail at its end: 64 kB of "/[" took a minute.
_STRINGS = r'"(?:\\.|[^"\\\n]){0,500}+"|\'(?:\\.|[^\'\\\n]){0,500}+\''
_PYTHON = re.compile(
    r'(#[^\n]*+)|"""(?:\\.|[^\\"]|"(?!""))*+(?:"""|\\?\Z)|\'\'\'(?:\\.|[^\\\']|\'(?!\'\'))*+(?:\'\'\'|\\?\Z)|'
    + _STRINGS,
    re.S,
)
_JAVA = re.compile(r'(//[^\n]*+|/\*.*?(?:\*/|\\?\Z))|"""(?:\\.|[^\\"]|"(?!""))*+(?:"""|\\?\Z)|' + _STRINGS, re.S)
_JAVASCRIPT = re.compile(
    r"(//[^\n]*+|/\*.*?(?:\*/|\\?\Z))|" + _STRINGS + r"|`(?:\\.|[^`\\])*+(?:`|\\?\Z)"
    r"|(?<=[(,=:\[!&|?{};])[ \t]*+/(?:\\.|\[(?:\\.|[^\]\\\n]){0,50}+\]|[^/\\\n\[]){1,300}+/[a-z]*",
    re.S,
)
_WORD = re.compile(r"[^\W\d][\w$]*+|\$[\w$]++")
_VISIBLE = re.compile(r"[^\n]")
_DEFINITION = re.compile(r"(?:async[ \t]+)?(def|class)[ \t]+(\w+)")
_BRACE = re.compile(r"[{}]")
_PARENTHESIS = re.compile(r"[()]")
# No \b before it: without one the engine skips to the first letters, three times as fast.
_JAVA_CLASS = re.compile(r"(?:class|interface|enum|record)\s++(\w++)[^{};]{0,500}+\{")
_JAVA_METHOD = re.compile(
    r"(?<![\w$.])([A-Za-z_$][\w$]*+)\s*+\([^;{}()]{0,1000}+(?:\([^()]{0,200}+\)[^;{}()]{0,200}+){0,50}+\)\s*+(?:throws\b[^;{}()]{0,500}+)?\{"
)
_JAVA_NO_METHOD = frozenset(("if", "for", "while", "switch", "catch", "synchronized", "try", "super", "this", "new"))
_JAVASCRIPT_TEST = re.compile(r"(?<![\w$.])(?:test|it|specify)(?:\s*+\.\s*+\w++)*+\s*+(?=\()")


def read_source(text: str, suffix: str) -> Source:
    """The functions of a file with one of `SUFFIXES`."""
    scanner, reader = _READERS[suffix]
    bare, blanked = _layers(scanner, text)
    functions: dict[str, Function] = {}
    for function in reader(text, blanked):
        functions.setdefault(function.name, function)
    return Source(bare, functions)


def words_of(source: Source, function: Function) -> tuple[str, ...]:
    """The distinct words of a function, sorted, at most 300; keywords and strings count.

    The published vocabulary was counted that way: `public`, `throws` and the words of strings are in it.
    """
    words: set[str] = set(_WORD.findall(source.text, function.start, function.end))
    if max(map(len, words), default=0) > _LONGEST_WORD:
        words = {word for word in words if len(word) <= _LONGEST_WORD}
    return tuple(sorted(words)[:WORD_LIMIT])


def _layers(scanner: re.Pattern[str], text: str) -> tuple[str, str]:
    """The text with its comments made spaces, and with its strings too: same length, same lines."""
    bare: list[str] = []
    blanked: list[str] = []
    at = 0
    for match in scanner.finditer(text):
        found, code = match[0], text[at : match.start()]
        spaces = _VISIBLE.sub(" ", found) if "\n" in found else " " * len(found)
        bare += code, spaces if match[1] else found
        blanked += code, spaces
        at = match.end()
    return "".join([*bare, text[at:]]), "".join([*blanked, text[at:]])


def _read_python(text: str, blanked: str) -> list[Function]:
    """Functions and methods by indentation, decorators included."""
    functions: list[Function] = []
    open_blocks: list[tuple[int, str, str, int]] = []  # indent, kind, qualified name, start
    decorated = -1
    for at, indent, line in _logical_lines(blanked):
        _close_python(open_blocks, functions, indent, at)
        if line.startswith("@"):
            decorated = at if decorated < 0 else decorated
            continue
        definition = _DEFINITION.match(line)
        if definition:
            above = open_blocks[-1][2] + "." if open_blocks else ""
            open_blocks.append((indent, definition[1], above + definition[2], at if decorated < 0 else decorated))
        decorated = -1
    _close_python(open_blocks, functions, 0, len(text))
    return functions


def _close_python(blocks: list[tuple[int, str, str, int]], functions: list[Function], indent: int, at: int) -> None:
    while blocks and blocks[-1][0] >= indent:
        _, kind, name, start = blocks.pop()
        if kind == "def":
            functions.append(Function(name, start, at))


def _logical_lines(blanked: str) -> Iterator[tuple[int, int, str]]:
    """(offset, indent, text) of each line that begins a statement: not blank, not inside brackets."""
    at = depth = 0
    for line in blanked.split("\n"):
        statement = line.lstrip()
        if statement and depth <= 0:
            depth = 0
            yield at, len(line) - len(statement), statement
        depth += line.count("(") + line.count("[") + line.count("{")
        depth -= line.count(")") + line.count("]") + line.count("}")
        at += len(line) + 1


def _read_java(text: str, blanked: str) -> list[Function]:
    """Methods by matching braces, from the end of what stands before them: annotations and modifiers included."""
    ends = _pairs(_BRACE, "{", blanked)
    classes = [
        (match.start(), ends.get(match.end() - 1, len(text)), match[1]) for match in _JAVA_CLASS.finditer(blanked)
    ]
    borders = [match.end() for match in re.finditer(r"[{};]", blanked)]
    functions = []
    for match in _JAVA_METHOD.finditer(blanked):
        end = ends.get(match.end() - 1)
        if end is None or match[1] in _JAVA_NO_METHOD:
            continue
        order = bisect_right(borders, match.start())
        start = borders[order - 1] if order else 0
        if blanked[start : match.start()].rstrip().endswith(("new", "=", "return")):
            continue  # an anonymous class
        outer = [name for opened, closed, name in classes if opened < match.start() < closed]
        functions.append(Function(".".join([*outer, match[1]]), start, end))
    return functions


def _read_javascript(text: str, blanked: str) -> list[Function]:
    """The blocks of `test("title", ...)` and `it("title", ...)`, each under its title."""
    ends = _pairs(_PARENTHESIS, "(", blanked)
    functions = []
    for match in _JAVASCRIPT_TEST.finditer(blanked):
        title, end = _title(text, match.end(), ends)
        if title:
            functions.append(Function(title, match.start(), end))
    return functions


def _title(text: str, opening: int, ends: dict[int, int]) -> tuple[str, int]:
    """The string that a call begins with and the call's end; `each([...])("title", ...)` has it one call later."""
    for _ in range(2):
        end = ends.get(opening)
        if end is None:
            break
        start = opening + 1
        while text[start : start + 1].isspace():
            start += 1
        quoted = _JAVASCRIPT.match(text, start)
        if quoted and text[start] in "\"'`":
            return re.sub(r"\\(.)", r"\1", quoted[0][1:-1]), end
        opening = end
    return "", 0


def _pairs(brackets: re.Pattern[str], opening: str, blanked: str) -> dict[int, int]:
    """Offset of each opening bracket -> offset behind the one that closes it."""
    pairs, waiting = {}, []
    for match in brackets.finditer(blanked):
        if match[0] == opening:
            waiting.append(match.start())
        elif waiting:
            pairs[waiting.pop()] = match.end()
    return pairs


_READERS: dict[str, tuple[re.Pattern[str], Callable[[str, str], list[Function]]]] = {
    ".py": (_PYTHON, _read_python),
    ".java": (_JAVA, _read_java),
    **dict.fromkeys(
        (".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".mts", ".cts"),
        (_JAVASCRIPT, _read_javascript),
    ),
}
SUFFIXES = tuple(_READERS)
