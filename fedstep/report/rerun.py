"""Build the arguments that make a test runner rerun exactly some failed tests, for a shell or `xargs`."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fedstep.ingest.test_identity import split_identity
from fedstep.results import FailureVerdict

Exists = Callable[[str], bool]

_JAVA_CLASS = re.compile(r"[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*")
_JAVA_PARAMETERS = re.compile(r"[(\[{].*", re.S)  # pays(int)[2], pays[2], pays{int}[2]
_GO_TEST = re.compile(r"(?:Test|Fuzz|Example)\w*")
_BETWEEN = re.compile(r"\s*(›|»|→|::|[>|/\\.:-])\s*|\s+")  # what a reporter may write between titles, or white space


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
    """Return whether a name fits on a line: the pattern of a JavaScript runner stands for any white space."""
    return (" ".join(test.split()) if runner in _JAVASCRIPT else test).isprintable()


# The arguments of each start of the runner, and the failures that they do not cover.
_Starts = tuple[list[list[str]], list[FailureVerdict]]


def _pytest(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    """Node ids. One that starts with "-" or "@" would be an option or a file of options."""
    found = [(failure, _node_id(failure, exists)) for failure in failures]
    ids = (f"./{node}" if node[0] in "-@" else node for _, node in found if node)
    return [_distinct(ids)], [failure for failure, node in found if not node]


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
    group, name = split_identity(failure.test).group, failure.test.partition("#")[2]
    begins = _BETWEEN.match(name)
    pattern = _title(failure)
    return rf"([\s\S]+\s)?{pattern}" if pattern and "/" in group and not begins else pattern


def _title(failure: FailureVerdict) -> str:
    """Return a pattern for the full name of a test, "" for a test without a name.

    Reporters put the titles of `describe` into class, name or both, with a separator of their own, and begin the name
    of a top-level test with it (jest-junit: " top"). An attribute of XML has a space where the title has a new line.
    """
    group, name = split_identity(failure.test).group, failure.test.partition("#")[2]
    titles, own = (list(filter(None, _BETWEEN.sub(" ", text).split(" "))) for text in (group, name))
    if not own:
        return ""
    if not titles or own[: len(titles)] == titles or "/" in group or name.startswith(group):
        return _words(name)
    return rf"({_words(group)}\s+)?{_words(name)}"


def _words(title: str) -> str:
    r"""Return a pattern of the title in which a separator of a reporter may be white space, or absent at the start.

    >>> print(_words("cart > pays"))
    cart(\s*>\s*|\s+)pays
    """
    title, parts, end = title.strip(), [], 0
    for match in _BETWEEN.finditer(title):
        separator = _escaped(match[1]) if match[1] else ""
        parts.append(_escaped(title[end : match.start()]))
        if not match.start():
            parts.append(rf"({separator}\s*)?")
        elif match.end() == len(title):
            parts.append(rf"\s*{separator}")
        else:
            parts.append(rf"(\s*{separator}\s*|\s+)" if separator else r"\s+")
        end = match.end()
    return "".join((*parts, _escaped(title[end:])))


def _go(failures: Sequence[FailureVerdict], exists: Exists) -> _Starts:
    """Return a start for each package and each test with subtests: no test of that name elsewhere, no sibling runs."""
    subtests: dict[tuple[str, str], list[str]] = {}  # by package and test
    left_out = []
    for failure in failures:
        _, group, _, name = split_identity(failure.test)
        test, *parts = name.split("/")
        package = _go_package(group, exists)
        if not _GO_TEST.fullmatch(test) or package.startswith("-"):
            left_out.append(failure)
        else:
            subtests.setdefault((package, test), []).extend(parts[:1])
    packages: dict[str, list[str]] = {}
    for (package, test), names in subtests.items():
        if not names:
            packages.setdefault(package, []).append(test)
    whole = [[package, "-run", f"^({'|'.join(tests)})$"] for package, tests in packages.items()]
    parts_of = [
        [package, "-run", f"^{test}$/^({'|'.join(re.escape(name) for name in _distinct(names))})$"]
        for (package, test), names in subtests.items()
        if names
    ]
    return [*whole, *parts_of], left_out


def _go_package(group: str, exists: Exists) -> str:
    """Return the packages of a class: an import path, a folder, or all folders of its name where only that is known."""
    if group and exists(group):
        return f"./{group}"
    if not group or "/" in group or "." in group:
        return group or "./..."
    return f"./.../{group}"


def _escaped(text: str) -> str:
    """Escape the text for a JavaScript regular expression."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", text)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


_JAVASCRIPT = ("jest", "vitest", "mocha")
RUNNERS: dict[str, Callable[[Sequence[FailureVerdict], Exists], _Starts]] = {
    "pytest": _pytest,
    "maven": _maven,
    "gradle": _gradle,
    "jest": _jest,
    "vitest": _vitest,
    "mocha": _mocha,
    "go": _go,
}
