"""How near a change is to a test: the same class or module, its directory, a build file, or elsewhere."""

import os.path
import re
from collections.abc import Sequence
from functools import lru_cache

from fedstep.build.record import FileChange

__all__ = ["is_build_file", "relation"]

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


def relation(test: str, files: Sequence[FileChange]) -> str:
    """The nearest relation of a test `class#name` to changed files: itself, near, build-file, elsewhere or nothing.

    "itself" is a file named as the test's class or module, or as what it tests (`FooTest` and `Foo`); "near" is a file
    in the test's directory or package. The names are the options of the schema's `change` feature.

    >>> relation("org.foo.BarTest#works", [FileChange("src/main/java/org/foo/Bar.java")])
    'itself'
    """
    if not files:
        return "nothing"
    directory, stem = _place(test.partition("#")[0])
    found = {_nearness(file.path, directory, stem) for file in files}
    return next(name for name in ("itself", "near", "build-file", "elsewhere") if name in found)


def _nearness(path: str, directory: str, stem: str) -> str:
    changed_directory, changed_stem = _split(path)
    if stem and changed_stem == stem:
        return "itself"
    if directory and (f"/{changed_directory}/").endswith(f"/{directory}/"):
        return "near"
    return "build-file" if is_build_file(path) else "elsewhere"


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
