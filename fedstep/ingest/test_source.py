"""Find a test's own function in its source file, and read its words: Python, Java, JavaScript and TypeScript.

The first part reads one file's functions with regular expressions; the second finds files and functions by test name.
"""

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from fedstep.types import TestRun, Unavailable

WORD_LIMIT = 300
_LONGEST_WORD = 60  # longer ones are keys and encoded bytes


class SourceFunction(NamedTuple):
    """A function of a file, and the offsets of its text."""

    name: str  # qualified, "Class.method"; in JavaScript the test's title
    start: int
    end: int


class SourceText(NamedTuple):
    """A source file without its comments, and its functions by name; of two with the same name, the first."""

    text: str
    functions: dict[str, SourceFunction]


# Quantifiers are possessive (`*+`), and bounded where a match can fail at its end: 64 kB of "/[" took a minute.
_STRINGS = r'"(?:\\.|[^"\\\n]){0,500}+"|\'(?:\\.|[^\'\\\n]){0,500}+\''
_PYTHON_TOKENS = re.compile(
    r'(#[^\n]*+)|"""(?:\\.|[^\\"]|"(?!""))*+(?:"""|\\?\Z)|\'\'\'(?:\\.|[^\\\']|\'(?!\'\'))*+(?:\'\'\'|\\?\Z)|'
    + _STRINGS,
    re.S,
)
_JAVA_TOKENS = re.compile(r'(//[^\n]*+|/\*.*?(?:\*/|\\?\Z))|"""(?:\\.|[^\\"]|"(?!""))*+(?:"""|\\?\Z)|' + _STRINGS, re.S)
_JAVASCRIPT_TOKENS = re.compile(
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


def read_source(text: str, suffix: str) -> SourceText:
    """Return the functions of a file with one of `SUFFIXES`."""
    scanner, reader = _READERS[suffix]
    bare, blanked = _layers(scanner, text)
    functions: dict[str, SourceFunction] = {}
    for function in reader(text, blanked):
        functions.setdefault(function.name, function)
    return SourceText(bare, functions)


def extract_words(source: SourceText, function: SourceFunction) -> tuple[str, ...]:
    """Return the distinct words of a function, sorted, at most WORD_LIMIT.

    Keywords and the words of strings are included, as in the published vocabulary.
    """
    words: set[str] = set(_WORD.findall(source.text, function.start, function.end))
    if max(map(len, words), default=0) > _LONGEST_WORD:
        words = {word for word in words if len(word) <= _LONGEST_WORD}
    return tuple(sorted(words)[:WORD_LIMIT])


def _layers(scanner: re.Pattern[str], text: str) -> tuple[str, str]:
    """Return the text with comments replaced by spaces, and with strings replaced too: same length, same lines."""
    bare: list[str] = []
    blanked: list[str] = []
    at = 0
    for match in scanner.finditer(text):
        token, code = match[0], text[at : match.start()]
        spaces = _VISIBLE.sub(" ", token) if "\n" in token else " " * len(token)
        bare += code, spaces if match[1] else token
        blanked += code, spaces
        at = match.end()
    return "".join([*bare, text[at:]]), "".join([*blanked, text[at:]])


def _read_python(text: str, blanked: str) -> list[SourceFunction]:
    """Return functions and methods by indentation, decorators included."""
    functions: list[SourceFunction] = []
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


def _close_python(
    blocks: list[tuple[int, str, str, int]], functions: list[SourceFunction], indent: int, at: int
) -> None:
    while blocks and blocks[-1][0] >= indent:
        _, kind, name, start = blocks.pop()
        if kind == "def":
            functions.append(SourceFunction(name, start, at))


def _logical_lines(blanked: str) -> Iterator[tuple[int, int, str]]:
    """Yield (offset, indent, text) of each line that begins a statement: not blank, not inside brackets."""
    at = depth = 0
    for line in blanked.split("\n"):
        statement = line.lstrip()
        if statement and depth <= 0:
            depth = 0
            yield at, len(line) - len(statement), statement
        depth += line.count("(") + line.count("[") + line.count("{")
        depth -= line.count(")") + line.count("]") + line.count("}")
        at += len(line) + 1


def _read_java(text: str, blanked: str) -> list[SourceFunction]:
    """Return methods by matching braces, annotations and modifiers included."""
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
        functions.append(SourceFunction(".".join([*outer, match[1]]), start, end))
    return functions


def _read_javascript(text: str, blanked: str) -> list[SourceFunction]:
    """Return the blocks of `test("title", ...)` and `it("title", ...)`, each under its title."""
    ends = _pairs(_PARENTHESIS, "(", blanked)
    functions = []
    for match in _JAVASCRIPT_TEST.finditer(blanked):
        title, end = _title(text, match.end(), ends)
        if title:
            functions.append(SourceFunction(title, match.start(), end))
    return functions


def _title(text: str, opening: int, ends: dict[int, int]) -> tuple[str, int]:
    """Return the first string of a call and the call's end; `each([...])("title", ...)` has it in the second call."""
    for _ in range(2):
        end = ends.get(opening)
        if end is None:
            break
        start = opening + 1
        while text[start : start + 1].isspace():
            start += 1
        quoted = _JAVASCRIPT_TOKENS.match(text, start)
        if quoted and text[start] in "\"'`":
            return re.sub(r"\\(.)", r"\1", quoted[0][1:-1]), end
        opening = end
    return "", 0


def _pairs(brackets: re.Pattern[str], opening: str, blanked: str) -> dict[int, int]:
    """Return by the offset of each opening bracket the offset after the one that closes it."""
    pairs, unclosed = {}, []
    for match in brackets.finditer(blanked):
        if match[0] == opening:
            unclosed.append(match.start())
        elif unclosed:
            pairs[unclosed.pop()] = match.end()
    return pairs


_READERS: dict[str, tuple[re.Pattern[str], Callable[[str, str], list[SourceFunction]]]] = {
    ".py": (_PYTHON_TOKENS, _read_python),
    ".java": (_JAVA_TOKENS, _read_java),
    **dict.fromkeys(
        (".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".mts", ".cts"),
        (_JAVASCRIPT_TOKENS, _read_javascript),
    ),
}
SUFFIXES = tuple(_READERS)


BYTE_LIMIT = 64 * 1024
FILE_LIMIT = 50_000
_SKIPPED_FOLDERS = frozenset((".git", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".nox", ".hg", ".svn"))
_UNREAD = (
    ".kt",
    ".kts",
    ".scala",
    ".groovy",
    ".rb",
    ".go",
    ".cs",
    ".php",
    ".rs",
    ".swift",
    ".c",
    ".cc",
    ".cpp",
    ".dart",
)
_KNOWN = (*SUFFIXES, *_UNREAD)
_SEPARATORS = str.maketrans(":>›\"'`", "      ")
_JAVASCRIPT_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in (".py", ".java"))


class SourceIndex:
    """The source files of a project by name, and what was read of them so far.

    `paths` are relative to the root, "/" between folders, from `git ls-files` or `walk_files`; none is opened here.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        self._files: dict[tuple[str, str], SourceText | Unavailable] = {}
        for path, _ in zip(paths, range(FILE_LIMIT), strict=False):
            stem, suffix = os.path.splitext(path.rpartition("/")[2])
            if suffix in _KNOWN and ".." not in path.split("/"):
                self._paths.add(path)
                self._by_stem.setdefault(stem, []).append(path)

    def find(self, path: str) -> str | Unavailable:
        """Return the file at `path`, else the only one whose path ends with it; a path without suffix fits any."""
        if path in self._paths:
            return path
        stem, suffix = os.path.splitext(path.rpartition("/")[2])
        if suffix not in _KNOWN:
            stem, suffix = path.rpartition("/")[2], ""
        fits = [known for known in self._by_stem.get(stem, ()) if _ends_with(known, path, suffix)]
        exact = [known for known in fits if known.rpartition(".")[0] == path]
        if len(exact or fits) == 1:
            return (exact or fits)[0]
        return Unavailable(f"{len(fits)} files fit {path}" if fits else f"no source file for {path}")

    def read(self, root: str, path: str) -> SourceText | Unavailable:
        """Return the functions of one file, which is read once."""
        key = (root, path)
        if key not in self._files:
            self._files[key] = _read(root, path)
        return self._files[key]


def walk_files(root: str) -> Iterator[str]:
    """Yield at most FILE_LIMIT files below `root`, for a project that git cannot list; links are not followed."""
    count = 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _SKIPPED_FOLDERS)
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in sorted(files):
            yield name if inside == "." else f"{inside}/{name}"
            count += 1
            if count >= FILE_LIMIT:
                return


def read_test_words(run: TestRun, root: str, index: SourceIndex) -> tuple[str, ...] | Unavailable:
    """Return the words of the test's function (name, signature, decorators and body), sorted, at most WORD_LIMIT."""
    path, file, function = _find_function(run, root, index)
    if isinstance(file, Unavailable):
        return file
    return extract_words(file, function) if function else Unavailable(f"no such test in {path}")


def locate_test(run: TestRun, root: str, index: SourceIndex) -> tuple[str, int]:
    """Return the file of the project that has the test, "" if unknown, and the test's line in it, 0 if unknown."""
    path, file, function = _find_function(run, root, index)
    if run.line and run.file:
        return path, run.line if path else 0
    if not function or isinstance(file, Unavailable):
        return path, 0
    blanks = function.end - function.start - len(file.text[function.start : function.end].lstrip())
    return path, file.text.count("\n", 0, function.start + blanks) + 1


def _find_function(
    run: TestRun, root: str, index: SourceIndex
) -> tuple[str, SourceText | Unavailable, SourceFunction | None]:
    """Return the path of the test's file, what was read of it, and the test's function in it."""
    owner, _, name = run.test.partition("#")
    location = _locate(run, owner, name, root, index)
    if isinstance(location, Unavailable):
        return "", location, None
    path, chain = location
    suffix = path[path.rindex(".") :]
    if suffix not in SUFFIXES:
        return path, Unavailable(f"no reader for {suffix}"), None
    file = index.read(root, path)
    if isinstance(file, Unavailable):
        return path, file, None
    return (
        path,
        file,
        _find_by_title(file, name) if suffix in _JAVASCRIPT_SUFFIXES else _find_by_name(file, chain, _bare(name)),
    )


def _locate(run: TestRun, owner: str, name: str, root: str, index: SourceIndex) -> tuple[str, list[str]] | Unavailable:
    """Return the file of a test, and the classes in it that the test's identity names."""
    reported_file = run.file.replace("\\", "/").removeprefix(root.rstrip("/") + "/").removeprefix("./")
    parts = owner.replace("/", ".").replace("$", ".").replace("::", ".").strip(".").split(".")
    if reported_file:
        path = index.find(reported_file)
        if not isinstance(path, Unavailable):
            return path, _classes_after(path, parts)
    words = f"{owner} {name}".translate(_SEPARATORS).split()
    mentioned = next((word for word in words if word.endswith(_JAVASCRIPT_SUFFIXES)), "")
    if mentioned:
        path = index.find(mentioned.replace("\\", "/").removeprefix("./"))
        return path if isinstance(path, Unavailable) else (path, [])
    return _locate_dotted(parts, index)


def _locate_dotted(parts: list[str], index: SourceIndex) -> tuple[str, list[str]] | Unavailable:
    """Return the longest prefix of "tests.test_mod.TestClass" that is a file, and the rest."""
    reason = Unavailable(f"no source file for {'.'.join(parts)[:100]}")
    for length in range(len(parts), 0, -1):
        path = index.find("/".join(parts[:length]))
        if not isinstance(path, Unavailable):
            return path, _classes_after(path, parts)
        reason = path if "files fit" in path.reason else reason
    return reason


def _classes_after(path: str, parts: list[str]) -> list[str]:
    """Return the parts of a dotted name after the file's name; with the file's in Java, where it is a class."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    if stem not in parts:
        return []
    last = len(parts) - 1 - parts[::-1].index(stem)
    return parts[last if path.endswith(".java") else last + 1 :]


def _bare(name: str) -> str:
    """Return a method's name without its parameters: test_x of "test_x[a-b]", adds of "adds(int)[2]"."""
    return re.split(r"[\[({ ]", name, maxsplit=1)[0]


def _find_by_name(file: SourceText, chain: list[str], name: str) -> SourceFunction | None:
    exact = file.functions.get(".".join([*chain, name]))
    if exact or not name:
        return exact
    # Inherited from a class in the same file, or run under another name: only where there is no choice.
    same = [function for known, function in file.functions.items() if known.rpartition(".")[2] == name]
    return same[0] if len(same) == 1 else None


def _find_by_title(file: SourceText, name: str) -> SourceFunction | None:
    """Return the function with the longest title that the test's name ends with; reports put suites before it."""
    fits = [title for title in file.functions if name == title or name.endswith((" " + title, ">" + title))]
    return file.functions[max(fits, key=len)] if fits else None


def _ends_with(known: str, path: str, suffix: str) -> bool:
    whole = known if suffix else known.rpartition(".")[0]
    return whole == path or whole.endswith("/" + path)


def _read(root: str, path: str) -> SourceText | Unavailable:
    text = _read_text(root, path)
    return text if isinstance(text, Unavailable) else read_source(text, path[path.rindex(".") :])


def _read_text(root: str, path: str) -> str | Unavailable:
    """Return the first BYTE_LIMIT bytes of a regular file that is really below `root`."""
    top = os.path.realpath(root)
    real = os.path.realpath(f"{root}/{path}")
    if not real.startswith(top.rstrip(os.sep) + os.sep):
        return Unavailable(f"{path} leads out of the project")
    try:
        if not stat.S_ISREG(os.stat(real).st_mode):
            return Unavailable(f"{path} is no regular file")
        with open(real, "rb") as file:
            raw = file.read(BYTE_LIMIT + 1)
    except (OSError, ValueError) as error:
        return Unavailable(f"{path} cannot be read: {type(error).__name__}")
    text = raw[:BYTE_LIMIT].decode("utf-8", "replace").replace("\r\n", "\n")
    return text if len(raw) <= BYTE_LIMIT else text.rpartition("\n")[0]
