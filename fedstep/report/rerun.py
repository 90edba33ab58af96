"""Build the arguments that make a test runner rerun exactly some failed tests, for a shell or `xargs`."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fedstep.results import FailureVerdict

IsFile = Callable[[str], bool]

_JAVA_CLASS = re.compile(r"[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*")
_JAVA_PARAMETERS = re.compile(r"[(\[{].*", re.S)  # pays(int)[2], pays[2], pays{int}[2]
_GO_TEST = re.compile(r"(?:Test|Fuzz|Example)\w*")


class RerunSelection(NamedTuple):
    """The arguments as one line, "" for none, and the tests that this runner cannot select."""

    line: str
    left_out: tuple[str, ...] = ()


def selection(runner: str, failures: Sequence[FailureVerdict], is_file: IsFile) -> RerunSelection:
    """Return the arguments with which `runner`, one of RUNNERS, reruns exactly these failed tests.

    `is_file` says of a path from the current folder whether it is there: a report of pytest names modules, pytest wants
    files. Every word is quoted for a POSIX shell where it needs to be; `xargs` reads the same quotes.
    """
    unprintable = [failure for failure in failures if not failure.test.isprintable()]
    usable = [failure for failure in failures if failure.test.isprintable()]
    words, left_out = RUNNERS[runner](usable, is_file)
    return RerunSelection(shlex.join(words), tuple(failure.test for failure in (*unprintable, *left_out)))


_Words = tuple[list[str], list[FailureVerdict]]  # arguments, and the failures that they do not cover


def _pytest(failures: Sequence[FailureVerdict], is_file: IsFile) -> _Words:
    """Node ids. One that starts with "-" or "@" would be an option or a file of options."""
    found = [(failure, _node_id(failure, is_file)) for failure in failures]
    ids = (f"./{node}" if node[0] in "-@" else node for _, node in found if node)
    return _distinct(ids), [failure for failure, node in found if not node]


def _node_id(failure: FailureVerdict, is_file: IsFile) -> str:
    group, _, name = failure.test.partition("#")
    if not name or not group:
        return ""
    parts = group.split(".")
    for length in range(len(parts), 0, -1):
        path = f"{'/'.join(parts[:length])}.py"
        if is_file(path):
            return "::".join((path, *parts[length:], name))
    if not failure.file.endswith(".py") or not is_file(failure.file):
        return ""
    return "::".join((failure.file, *_classes(parts, failure.file), name))


def _classes(parts: Sequence[str], file: str) -> Sequence[str]:
    """Return the classes of a dotted name with a known file: the parts after the module's own name."""
    module = file.rpartition("/")[2].removesuffix(".py")
    return parts[len(parts) - parts[::-1].index(module) :] if module in parts else ()


def _maven(failures: Sequence[FailureVerdict], is_file: IsFile) -> _Words:  # noqa: ARG001
    """Surefire's `-Dtest=Class#method+method,Class#method`."""
    named, left_out = _methods(failures, "?")
    classes = ",".join(f"{group}#{'+'.join(methods)}" for group, methods in named.items())
    return [f"-Dtest={classes}"] if classes else [], left_out


def _gradle(failures: Sequence[FailureVerdict], is_file: IsFile) -> _Words:  # noqa: ARG001
    named, left_out = _methods(failures, "*")
    patterns = (f"{group}.{method}" for group, methods in named.items() for method in methods)
    return [word for pattern in patterns for word in ("--tests", pattern)], left_out


def _methods(failures: Iterable[FailureVerdict], wildcard: str) -> tuple[dict[str, list[str]], list[FailureVerdict]]:
    """Return methods by class. Characters outside Java names become wildcards; JUnit 4 parameters need one too."""
    named: dict[str, list[str]] = {}
    left_out = []
    for failure in failures:
        group, _, name = failure.test.partition("#")
        method = _JAVA_PARAMETERS.sub("", name).strip()
        if not method or not re.search(r"\w", method) or not _JAVA_CLASS.fullmatch(group):
            left_out.append(failure)
            continue
        pattern = re.sub(r"[^\w$]", wildcard, method) + "*" * (name[len(method) :].startswith("["))
        if pattern not in named.setdefault(group, []):
            named[group].append(pattern)
    return named, left_out


def _jest(failures: Sequence[FailureVerdict], is_file: IsFile) -> _Words:
    """Return one pattern of full names, and their files where all are known."""
    names = _distinct(name for failure in failures if (name := _title(failure)))
    if not names:
        return [], list(failures)
    files = _distinct(failure.file for failure in failures)
    known = all(file and is_file(file) for file in files)
    words = ["--runTestsByPath", *(f"./{file}" if file.startswith("-") else file for file in files)] if known else []
    return [*words, "-t", f"^({'|'.join(names)})$"], [failure for failure in failures if not _title(failure)]


def _title(failure: FailureVerdict) -> str:
    """Return a pattern for the words of every `describe` and the test, which reporters put into class, name or both."""
    group, _, name = failure.test.partition("#")
    if not name:
        return ""
    title = _escaped(name)
    return title if name.startswith(group) or "/" in group else f"({_escaped(group)} )?{title}"


def _go(failures: Sequence[FailureVerdict], is_file: IsFile) -> _Words:  # noqa: ARG001
    """Top-level tests: a subtest is run with its siblings."""
    found = [(failure, failure.test.partition("#")[2].partition("/")[0]) for failure in failures]
    names = _distinct(name for _, name in found if _GO_TEST.fullmatch(name))
    left_out = [failure for failure, name in found if not _GO_TEST.fullmatch(name)]
    return ["-run", f"^({'|'.join(names)})$"] if names else [], left_out


def _escaped(text: str) -> str:
    """Escape the text for a JavaScript regular expression."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", text)


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


RUNNERS: dict[str, Callable[[Sequence[FailureVerdict], IsFile], _Words]] = {
    "pytest": _pytest,
    "maven": _maven,
    "gradle": _gradle,
    "jest": _jest,
    "go": _go,
}
