"""The words of a test's own source, where its file and its function can be found."""

import os
import re
import stat
from collections.abc import Iterable, Iterator

from fedstep.build.functions import SUFFIXES, Function, Source, read_source, words_of
from fedstep.build.record import Absent, TestRun

__all__ = ["BYTE_LIMIT", "FILE_LIMIT", "SourceIndex", "test_place", "test_words", "walk_files"]

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
_JAVASCRIPT = tuple(suffix for suffix in SUFFIXES if suffix not in (".py", ".java"))


class SourceIndex:
    """The source files of a project, by name, with what was read of them so far.

    `paths` are relative to the root with "/" between folders: `git ls-files` or `walk_files`. Nothing is opened here.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        self._files: dict[tuple[str, str], Source | Absent] = {}
        for path, _ in zip(paths, range(FILE_LIMIT), strict=False):
            stem, suffix = os.path.splitext(path.rpartition("/")[2])
            if suffix in _KNOWN and ".." not in path.split("/"):
                self._paths.add(path)
                self._by_stem.setdefault(stem, []).append(path)

    def find(self, path: str) -> str | Absent:
        """The file at `path`, or the only one whose path ends with it; a path without suffix fits any suffix."""
        if path in self._paths:
            return path
        stem, suffix = os.path.splitext(path.rpartition("/")[2])
        if suffix not in _KNOWN:
            stem, suffix = path.rpartition("/")[2], ""
        fits = [known for known in self._by_stem.get(stem, ()) if _ends_with(known, path, suffix)]
        exact = [known for known in fits if known.rpartition(".")[0] == path]
        if len(exact or fits) == 1:
            return (exact or fits)[0]
        return Absent(f"{len(fits)} files fit {path}" if fits else f"no source file for {path}")

    def read(self, root: str, path: str) -> Source | Absent:
        """The functions of one file, read once."""
        key = (root, path)
        if key not in self._files:
            self._files[key] = _read(root, path)
        return self._files[key]


def walk_files(root: str) -> Iterator[str]:
    """The files below `root` where git cannot list them, links not followed, at most 50,000."""
    count = 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _SKIPPED_FOLDERS)
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in sorted(files):
            yield name if inside == "." else f"{inside}/{name}"
            count += 1
            if count >= FILE_LIMIT:
                return


def test_words(run: TestRun, root: str, index: SourceIndex) -> tuple[str, ...] | Absent:
    """The words of the test's own function, sorted, at most 300: its name, signature, decorators and body."""
    path, file, function = _function(run, root, index)
    if isinstance(file, Absent):
        return file
    return words_of(file, function) if function else Absent(f"no such test in {path}")


def test_place(run: TestRun, root: str, index: SourceIndex) -> tuple[str, int]:
    """The file of the project that has the test, "" where none is found, and its line there, 0 where not known."""
    path, file, function = _function(run, root, index)
    if run.line and run.file:
        return path, run.line if path else 0
    if not function or isinstance(file, Absent):
        return path, 0
    blanks = function.end - function.start - len(file.text[function.start : function.end].lstrip())
    return path, file.text.count("\n", 0, function.start + blanks) + 1


def _function(run: TestRun, root: str, index: SourceIndex) -> tuple[str, Source | Absent, Function | None]:
    """The path of the test's file, what is read of it, and its function there."""
    owner, _, name = run.test.partition("#")
    found = _locate(run, owner, name, root, index)
    if isinstance(found, Absent):
        return "", found, None
    path, chain = found
    suffix = path[path.rindex(".") :]
    if suffix not in SUFFIXES:
        return path, Absent(f"no reader for {suffix}"), None
    file = index.read(root, path)
    if isinstance(file, Absent):
        return path, file, None
    return path, file, _titled(file, name) if suffix in _JAVASCRIPT else _named(file, chain, _bare(name))


def _locate(run: TestRun, owner: str, name: str, root: str, index: SourceIndex) -> tuple[str, list[str]] | Absent:
    """The file of a test, and the classes around it that its identity names."""
    told = run.file.replace("\\", "/").removeprefix(root.rstrip("/") + "/").removeprefix("./")
    parts = owner.replace("/", ".").replace("$", ".").replace("::", ".").strip(".").split(".")
    if told:
        path = index.find(told)
        if not isinstance(path, Absent):
            return path, _classes_after(path, parts)
    words = f"{owner} {name}".translate(_SEPARATORS).split()
    mentioned = next((word for word in words if word.endswith(_JAVASCRIPT)), "")
    if mentioned:
        path = index.find(mentioned.replace("\\", "/").removeprefix("./"))
        return path if isinstance(path, Absent) else (path, [])
    return _locate_dotted(parts, index)


def _locate_dotted(parts: list[str], index: SourceIndex) -> tuple[str, list[str]] | Absent:
    """The longest prefix of "tests.test_mod.TestClass" that is a file."""
    reason = Absent(f"no source file for {'.'.join(parts)[:100]}")
    for length in range(len(parts), 0, -1):
        path = index.find("/".join(parts[:length]))
        if not isinstance(path, Absent):
            return path, _classes_after(path, parts)
        reason = path if "files fit" in path.reason else reason
    return reason


def _classes_after(path: str, parts: list[str]) -> list[str]:
    """The parts of a dotted name behind the file's own: Java's file is a class itself."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    if stem not in parts:
        return []
    last = len(parts) - 1 - parts[::-1].index(stem)
    return parts[last if path.endswith(".java") else last + 1 :]


def _bare(name: str) -> str:
    """A method's name without its parameters: "test_x[a-b]", "adds(int)[2]" and "x{int}[1]"."""
    return re.split(r"[\[({ ]", name, maxsplit=1)[0]


def _named(file: Source, chain: list[str], name: str) -> Function | None:
    exact = file.functions.get(".".join([*chain, name]))
    if exact or not name:
        return exact
    # Inherited from a class in the same file, or run under another name: only where there is no choice.
    same = [function for known, function in file.functions.items() if known.rpartition(".")[2] == name]
    return same[0] if len(same) == 1 else None


def _titled(file: Source, name: str) -> Function | None:
    """The longest title that the test's name ends with: reports put the titles of the suites before it."""
    fits = [title for title in file.functions if name == title or name.endswith((" " + title, ">" + title))]
    return file.functions[max(fits, key=len)] if fits else None


def _ends_with(known: str, path: str, suffix: str) -> bool:
    whole = known if suffix else known.rpartition(".")[0]
    return whole == path or whole.endswith("/" + path)


def _read(root: str, path: str) -> Source | Absent:
    text = _read_text(root, path)
    return text if isinstance(text, Absent) else read_source(text, path[path.rindex(".") :])


def _read_text(root: str, path: str) -> str | Absent:
    """The first 64 kB of a regular file that is really below `root`."""
    top = os.path.realpath(root)
    real = os.path.realpath(f"{root}/{path}")
    if not real.startswith(top.rstrip(os.sep) + os.sep):
        return Absent(f"{path} leads out of the project")
    try:
        if not stat.S_ISREG(os.stat(real).st_mode):
            return Absent(f"{path} is no regular file")
        with open(real, "rb") as file:
            raw = file.read(BYTE_LIMIT + 1)
    except (OSError, ValueError) as error:
        return Absent(f"{path} cannot be read: {type(error).__name__}")
    text = raw[:BYTE_LIMIT].decode("utf-8", "replace").replace("\r\n", "\n")
    return text if len(raw) <= BYTE_LIMIT else text.rpartition("\n")[0]
