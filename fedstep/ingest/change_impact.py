"""How near a change is to a test: the same class or module, its directory, a build file, or elsewhere."""

import os.path
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from fedstep.types import FileChange

_BUILD_FILES = r"""(^|/)(
        pom\.xml | [^/]*\.gradle(\.kts)? | gradle\.properties | build\.xml | Makefile | CMakeLists\.txt | [^/]*\.cmake
      | package(-lock)?\.json
      | yarn\.lock | pnpm-lock\.yaml | pyproject\.toml | setup\.(py|cfg) | tox\.ini | uv\.lock
      | poetry\.lock | [^/]*requirements[^/]*\.txt
      | conftest\.py | go\.(mod|sum) | Cargo\.(toml|lock) | Gemfile(\.lock)?
      | composer\.(json|lock) | Dockerfile[^/]* | [^/]*\.(csproj|props|sln) | BUILD(\.bazel)? | WORKSPACE | Jenkinsfile
      | \.gitlab-ci\.yml
    )$ | ^\.github/workflows/"""
_DECORATION = r"^(tests?|it|spec)[_.-]?|[_.-]?(tests?|spec|it|testcase)$"


@lru_cache(maxsize=10_000)
def is_build_file(path: str) -> bool:
    """Whether a path says how to build, test or what to depend on.

    >>> is_build_file("web/package-lock.json"), is_build_file("src/app.py")
    (True, False)
    """
    return bool(re.search(_BUILD_FILES, path, re.VERBOSE))


class ChangeImpact(NamedTuple):
    """What a change touches, ready to be asked about many tests."""

    stems: frozenset[str]  # bare names of the changed files
    places: frozenset[str]  # their directories, and every end of those: org/foo of src/main/java/org/foo
    build_file: bool
    anything: bool

    def relation(self, test: str) -> str:
        """The nearest relation of a test `class#name` to the change: itself, near, build-file, elsewhere or nothing.

        "itself" is a file named as the test's class or module, or as what it tests (`FooTest` and `Foo`); "near" is a
        file in the test's directory or package. The names are the options of the schema's `change` feature.
        """
        directory, stem = _place(group_of(test))
        if stem and stem in self.stems:
            return "itself"
        if directory and directory in self.places:
            return "near"
        if self.build_file:
            return "build-file"
        return "elsewhere" if self.anything else "nothing"


def analyze_change(files: Sequence[FileChange]) -> ChangeImpact:
    """What the changed files touch."""
    split = [_split(file.path) for file in files]
    return ChangeImpact(
        frozenset(stem for _, stem in split),
        frozenset(end for directory in {directory for directory, _ in split} for end in _ends(directory)),
        any(is_build_file(file.path) for file in files),
        bool(files),
    )


def relate_test(test: str, files: Sequence[FileChange]) -> str:
    """The nearest relation of a test `class#name` to changed files, as `ChangeImpact` tells it.

    >>> relate_test("org.foo.BarTest#works", [FileChange("src/main/java/org/foo/Bar.java")])
    'itself'
    """
    return analyze_change(files).relation(test)


def group_of(test: str) -> str:
    """The class, module or suite of a test id `class#name`.

    >>> group_of("org.foo.BarTest#works")
    'org.foo.BarTest'
    """
    return test.partition("#")[0]


def package_of(test: str) -> str:
    """The package or directory of a test's class, as a path; "" where its name tells none.

    >>> package_of("org.foo.BarTest#works")
    'org/foo'
    """
    return _place(group_of(test))[0]


def _ends(directory: str) -> Iterator[str]:
    """Every end of a directory that begins at a name.

    >>> list(_ends("a/b"))
    ['a/b', 'b']
    """
    yield directory
    while "/" in directory:
        directory = directory.partition("/")[2]
        yield directory


@lru_cache(maxsize=10_000)
def _split(path: str) -> tuple[str, str]:
    directory, name = os.path.split(path)
    return directory, _bare(name.partition(".")[0])


@lru_cache(maxsize=10_000)
def _place(group: str) -> tuple[str, str]:
    """Directory and bare stem of a test's class: org.foo.BarTest$Inner -> (org/foo, bar); a path as a path."""
    if "/" in group:
        return _split(group)
    parts = group.partition("$")[0].split(".")
    modules = [number for number, part in enumerate(parts) if part.startswith("test_") or part.endswith("_test")]
    if modules:
        del parts[modules[-1] + 1 :]  # pytest: tests.test_module.TestClass.TestInner
    return "/".join(parts[:-1]), _bare(parts[-1])


def _bare(stem: str) -> str:
    return re.sub(_DECORATION, "", stem, flags=re.IGNORECASE).lower()
