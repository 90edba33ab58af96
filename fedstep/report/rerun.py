"""Build the arguments that make a test runner rerun exactly some failed tests, for a shell or `xargs`."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fedstep.ingest.change_impact import NOT_STARTED
from fedstep.ingest.test_identity import script_of, split_identity
from fedstep.results import FailureVerdict

Exists = Callable[[str], bool]

_JAVA_CLASS = re.compile(r"[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*")
_JAVA_PARAMETERS = re.compile(r"[(\[{].*", re.S)  # pays(int)[2], pays[2], pays{int}[2]
_GO_TEST = re.compile(r"(?:Test|Fuzz|Example)\w*")
# What a reporter may write between titles, or white space; an id has "#x09" for a tab.
_BETWEEN = re.compile(r"\s*([›»→⇒•·—–~=>|/\\.:;,+&-]+)\s*|(?:\s|#x0[9AD])+")
_VARIANT = re.compile(r"(\[[^\]]+\])\s+(?=\S)")
_TAGS = r"(\s+@\S+)*"
_ESCAPED = re.compile(r"#x(?:[01][0-9A-F]|7F|[89][0-9A-F]|202[89])")  # as escape_character writes UNPRINTABLE


class RerunSelection(NamedTuple):
    """The arguments, one line for each start of the runner, and the tests that this runner cannot select."""

    lines: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def selection(runner: str, failures: Sequence[FailureVerdict], exists: Exists) -> RerunSelection:
    """Return the arguments with which `runner`, one of RUNNERS, reruns exactly these failed tests.

    `exists` says of a path from the current folder whether it is there: a report of pytest names modules, pytest wants
    files. Every word is quoted for a POSIX shell where it needs to be; `xargs` reads the same quotes.
    """
    unprintable = [failure for failure in failures if not _is_usable(runner, failure.test)]
    usable = [failure for failure in failures if _is_usable(runner, failure.test)]
    starts, left_out = RUNNERS[runner](usable, exists)
    lines = tuple(shlex.join(words) for words in starts if words)
    return RerunSelection(lines, tuple(failure.test for failure in (*unprintable, *left_out)))


def _is_usable(runner: str, test: str) -> bool:
    """Return whether a name fits on a line: the pattern of a JavaScript runner stands for any white space.

    Of a control character an id has the number alone: a runner that is told it finds no such test, and pytest then
    runs none at all.
    """
    if runner in _JAVASCRIPT:
        return " ".join(test.split()).isprintable()
    return test.isprintable() and not _ESCAPED.search(test)


# The arguments of each start of the runner, and the failures that they do not cover.
_Starts = tuple[list[list[str]], list[FailureVerdict]]


def _pytest(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    """Node ids. One that starts with "-" or "@" would be an option or a file of options."""
    node_ids = [(failure, _node_id(failure, exists)) for failure in failures]
    ids = (f"./{node}" if node[0] in "-@" else node for _, node in node_ids if node)
    return [_distinct(ids)], [failure for failure, node in node_ids if not node]


def _node_id(failure: FailureVerdict, exists: Exists) -> str:
    _, group, _, name = split_identity(failure.test)
    if not name or not group:
        return ""
    parts = group.split(".")
    for length in range(len(parts), 0, -1):
        path = f"{'/'.join(parts[:length])}.py"
        if exists(path):
            return "::".join((path, *parts[length:], name))
    if not failure.file.endswith(".py") or not exists(failure.file):
        return ""
    return "::".join((failure.file, *_classes(parts, failure.file), name))


def _classes(parts: Sequence[str], file: str) -> Sequence[str]:
    """Return the classes of a dotted name with a known file: the parts after the module's own name."""
    module = file.rpartition("/")[2].removesuffix(".py")
    return parts[len(parts) - parts[::-1].index(module) :] if module in parts else ()


def _maven(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:  # noqa: ARG001
    """Surefire's `-Dtest=Class#method+method,Class#method`."""
    named, left_out = _methods(failures, "?")
    classes = ",".join(f"{group}#{'+'.join(methods)}" for group, methods in named.items())
    return [[f"-Dtest={classes}"]] if classes else [], left_out


def _gradle(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:  # noqa: ARG001
    named, left_out = _methods(failures, "*")
    # JUnit 4 is told an instance, pays[2]; the JUnit Platform knows the method alone, and then all instances run.
    patterns = (
        f"{group}.{pattern}"
        for group, methods in named.items()
        for method in methods
        for pattern in (method.partition("[")[0], method)
    )
    words = [word for pattern in dict.fromkeys(patterns) for word in ("--tests", pattern)]
    return [words], left_out


def _methods(failures: Iterable[FailureVerdict], wildcard: str) -> tuple[dict[str, list[str]], list[FailureVerdict]]:
    """Return methods by class. Characters outside Java names become wildcards; JUnit 4 parameters need one too."""
    named: dict[str, list[str]] = {}
    left_out = []
    for failure in failures:
        _, group, _, name = split_identity(failure.test)
        method = _JAVA_PARAMETERS.sub("", name).strip()
        if not method or not re.search(r"\w", method) or not _JAVA_CLASS.fullmatch(group):
            left_out.append(failure)
            continue
        pattern = re.sub(r"[^\w$]", wildcard, method) + _instance(name[len(method) :], wildcard)
        if pattern not in named.setdefault(group, []):
            named[group].append(pattern)
    return named, left_out


def _instance(parameters: str, wildcard: str) -> str:
    """Return the pattern of one instance of a parametrized JUnit 4 test, "[2]"; others are not told apart."""
    if not parameters.startswith("["):
        return ""
    instance = re.sub(r"[^\w$]", wildcard, parameters[1:].rstrip().removesuffix("]"))
    return f"[{instance}]"


def _jest(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    files = _files(failures, exists)
    return _by_title(failures, ["--runTestsByPath", *files] if files else [], "-t", _jest_title)


def _vitest(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    return _by_title(failures, _files(failures, exists), "-t", _title)


def _mocha(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    return _by_title(failures, _files(failures, exists), "--grep", _title)


def _playwright(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:  # noqa: ARG001
    """Return one pattern of project, file and titles, which Playwright joins with spaces, tags behind each."""
    titles = [(failure, _playwright_title(failure.test)) for failure in failures]
    names, left_out = _distinct(name for _, name in titles if name), [failure for failure, name in titles if not name]
    return [["--grep", rf"^\s*({'|'.join(names)}){_TAGS}\s*$"]] if names else [], left_out


def _playwright_title(test: str) -> str:
    r"""Return the pattern of one test, "" for what is none.

    >>> print(_playwright_title("cart.spec.js#[mobile] cart › pays"))
    mobile(\s+@\S+)*\s+cart\.spec\.js(\s+@\S+)*\s+cart(\s+@\S+)*\s+pays
    """
    _, group, project, name = split_identity(test)
    words = [r"\s+".join(map(_escape, title.split())) for title in (project, group, *name.split(" › "))]
    return rf"{_TAGS}\s+".join(filter(None, words)) if words[2] and name != NOT_STARTED else ""


def _by_title(
    failures: Sequence[FailureVerdict],
    files: Sequence[str],
    option: str,
    title: Callable[[FailureVerdict], str],
) -> _Starts:
    """Return the files, and one pattern of the full names: the titles of every `describe` and of the test."""
    titles = [(failure, title(failure)) for failure in failures]
    names, left_out = _distinct(name for _, name in titles if name), [failure for failure, name in titles if not name]
    return [[*files, option, rf"^\s*({'|'.join(names)})\s*$"]] if names else [], left_out


def _files(failures: Sequence[FailureVerdict], exists: Exists) -> list[str]:
    """Return the files of the failures where all are known, else none: the pattern alone then chooses."""
    files = _distinct(_test_file(failure, exists) for failure in failures)
    return [f"./{file}" if file.startswith("-") else file for file in files] if all(files) else []


def _test_file(failure: FailureVerdict, exists: Exists) -> str:
    """Return the file of the test: that of the report, else its class where a reporter writes the path there."""
    suite, group, *_ = split_identity(failure.test)
    return next((path for path in (failure.file, suite, group) if path and path.isprintable() and exists(path)), "")


def _jest_title(failure: FailureVerdict) -> str:
    """Return the pattern of a full name as jest-junit writes it.

    Where class is the file, the name may be the title alone: it begins with a separator where it is the full name of a
    top-level test.
    """
    group, name = _class_and_name(failure.test)
    pattern = _title(failure)
    return rf"([\s\S]+\s)?{pattern}" if pattern and _is_file(group) and not _BETWEEN.match(name) else pattern


def _title(failure: FailureVerdict) -> str:
    """Return a pattern for the full name of a test, "" for a test without a name.

    Reporters put the titles of `describe` into class, name or both, with a separator of their own, and begin the name
    of a top-level test with it (jest-junit: " top"). An attribute of XML has a space where the title has a new line.
    Where the report leaves open which titles are part of the full name, the pattern fits with and without them, and so
    it does for what may be a variant in the id: a browser, or one of two report files.
    """
    group, name = _class_and_name(failure.test)
    variant = _VARIANT.match(name)
    start, name = (rf"({_escape(variant[1])}\s+)?", name[variant.end() :]) if variant else ("", name)
    titles, own = _plain(group).split(), _plain(name).split()
    if not own or not titles or titles == own or _is_file(group):
        return f"{start}{_words(name)}" if own else ""
    pattern = f"{_optional(group)}{start}{_words(name)}"
    return f"({pattern}|{_words(group)})" if titles[-len(own) :] == own else pattern


def _optional(group: str) -> str:
    r"""Return a pattern for the last titles of a class, any number of them, with white space at its end.

    >>> print(_optional("web.cart"))
    ((web(\s*\.\s*|\s+))?cart\s+)?
    """
    group, pattern, end = group.strip(), "", 0
    for match in _BETWEEN.finditer(group):
        if match[1]:
            pattern = rf"({pattern}{_words(group[end : match.start()])}(\s*{_escape(match[1])}\s*|\s+))?"
            end = match.end()
    return rf"({pattern}{_words(group[end:])}\s+)?" if group[end:] else pattern


def _class_and_name(test: str) -> tuple[str, str]:
    """Return the class and the name of a JavaScript test, which may have the separators of an id in their titles.

    >>> _class_and_name("a # b#a # b"), _class_and_name("src/cart.test.js::cart::deep#pays")
    (('a # b', 'a # b'), ('cart::deep', 'pays'))
    """
    file, _, rest = test.partition("::")
    titles = rest if rest and script_of(file, "") else test
    return _at_equal_titles(titles) or (titles.partition("#")[0], titles.partition("#")[2])


def _at_equal_titles(test: str) -> tuple[str, str] | None:
    """Return the parts around the "#" that stands between the same title twice, as jest-junit writes it by default."""
    for mark in re.finditer("#", test):
        group, name = test[: mark.start()], test[mark.end() :]
        if _plain(name) in (_plain(group), _plain(group.rpartition("::")[2])):
            return name, name
    return None


def _is_file(group: str) -> bool:
    return bool(script_of(group, "")) or ("/" in group and not re.search(r"\s", group))


def _plain(title: str) -> str:
    """Return the words of a title: a class has slashes for backslashes, and an attribute spaces for line breaks."""
    return " ".join(_BETWEEN.sub(" ", title).split())


def _words(title: str) -> str:
    r"""Return a pattern of the title in which a separator of a reporter may be white space, or absent at the start.

    >>> print(_words("cart > pays"))
    cart(\s*>\s*|\s+)pays
    """
    title, parts, end = title.strip(), [], 0
    for match in _BETWEEN.finditer(title):
        separator = _escape(match[1]) if match[1] else ""
        parts.append(_escape(title[end : match.start()]))
        if not match.start():
            parts.append(rf"({separator}\s*)?")
        elif match.end() == len(title):
            parts.append(rf"\s*{separator}")
        else:
            parts.append(rf"(\s*{separator}\s*|\s+)" if separator else r"\s+")
        end = match.end()
    return "".join((*parts, _escape(title[end:])))


def _go(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    """Return a start for each package and each test with subtests: no test of that name elsewhere, no sibling runs."""
    names: dict[tuple[str, ...], list[str]] = {}  # by the package and the tests around, outermost first
    left_out = []
    for failure in failures:
        _, group, _, name = split_identity(failure.test)
        package, path = _go_package(group, exists), name.split("/")
        if not _GO_TEST.fullmatch(path[0]) or package.startswith("-"):
            left_out.append(failure)
        else:
            names.setdefault((package, *path[:-1]), []).append(path[-1])
    # A test fails with its subtests: where some of them are chosen, the whole of it is not.
    around = {key[:length] for key in names for length in range(2, len(key) + 1)}
    starts = []
    for (package, *tests), package_failures in names.items():
        alone = [re.escape(name) for name in _distinct(package_failures) if (package, *tests, name) not in around]
        levels = [*(f"^{re.escape(test)}$" for test in tests), f"^({'|'.join(alone)})$"]
        starts += [[package, "-run", "/".join(levels)]] if alone else []
    return starts, left_out


def _go_package(group: str, exists: Exists) -> str:
    """Return the packages of a class: an import path, a folder, or all folders of its name where only that is known."""
    if group and exists(group):
        return f"./{group}"
    if not group or "/" in group or "." in group:
        return group or "./..."
    return f"./.../{group}"


def _escape(text: str) -> str:
    """Escape the text for a JavaScript regular expression."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", text)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


_JAVASCRIPT = ("jest", "vitest", "mocha", "playwright")
RUNNERS: dict[str, Callable[[Sequence[FailureVerdict], Exists], _Starts]] = {
    "pytest": _pytest,
    "maven": _maven,
    "gradle": _gradle,
    "jest": _jest,
    "vitest": _vitest,
    "mocha": _mocha,
    "playwright": _playwright,
    "go": _go,
}
