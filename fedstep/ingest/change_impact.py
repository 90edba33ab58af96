"""How closely a change is related to a test: same class or module, same directory, a build file, or elsewhere."""

import os.path
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from fedstep.types import FileChange

_DECORATION = r"^(tests?|it|spec)[_.-]?|[_.-]?(tests?|spec|it|testcase)$"


def _split_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names and endings instead of patterns: to compile thirteen of them took a tenth of a prediction.
_BUILD_NAMES = _split_words(
    "pom.xml gradle.properties build.xml Makefile CMakeLists.txt package.json package-lock.json yarn.lock "
    "pnpm-lock.yaml pyproject.toml setup.py setup.cfg tox.ini uv.lock poetry.lock conftest.py go.mod go.sum Cargo.toml "
    "Cargo.lock Gemfile Gemfile.lock composer.json composer.lock BUILD BUILD.bazel WORKSPACE Jenkinsfile .gitlab-ci.yml"
)
_BUILD_ENDINGS = (".gradle", ".gradle.kts", ".cmake", ".csproj", ".props", ".sln")
_WORKFLOWS = ".github/workflows/"


@lru_cache(maxsize=10_000)
def is_build_file(path: str) -> bool:
    """Tell whether a file configures the build, the tests or the dependencies.

    >>> is_build_file("web/package-lock.json"), is_build_file("src/app.py")
    (True, False)
    """
    name = path.rpartition("/")[2]
    is_named = name in _BUILD_NAMES or name.endswith(_BUILD_ENDINGS) or name.startswith("Dockerfile")
    return is_named or _lists_requirements(name) or path.startswith(_WORKFLOWS)


_WORKFLOW_NAMES = _split_words(
    "Jenkinsfile .gitlab-ci.yml .travis.yml .drone.yml azure-pipelines.yml bitbucket-pipelines.yml"
)
_WORKFLOW_FOLDERS = (_WORKFLOWS, ".circleci/", ".buildkite/", ".woodpecker")
_DEPENDENCY_NAMES = _split_words(
    "package.json package-lock.json pnpm-lock.yaml go.mod go.sum Cargo.toml Gemfile composer.json libs.versions.toml"
)
_TEST_FOLDERS = _split_words("test tests spec specs __tests__ testing")
_DOCS_FOLDERS = _split_words("doc docs")
_TEST_ENDINGS = _split_words("java kt scala groovy cs php swift")  # of a class that ends with Test or Tests
_DOCS_ENDINGS = (".md", ".rst", ".adoc", ".asciidoc", ".txt", ".tex")
_KIND_BY_ENDING = {
    ending: kind
    for kind, endings in {
        "source-jvm": "java kt kts scala groovy clj",
        "source-python": "py pyx pyi ipynb",
        "source-web": "js mjs cjs jsx ts tsx vue svelte hbs htm html css scss less",
        "source-native": "c h cc cpp cxx hpp hh m mm s asm f90 f",
        "source-rust": "rs",
        "source-go": "go",
        "source-other": "cs fs vb rb php swift dart ex exs erl hs lua pl r jl sh bash ps1",
        "data": "json yaml yml toml xml csv tsv sql properties ini cfg conf env",
    }.items()
    for ending in endings.split()
}


@lru_cache(maxsize=10_000)
def file_kind(path: str) -> str:
    """Return the kind of a changed file, one of a closed list: workflow, container, dependency, build, test, docs, ...

    >>> file_kind(".github/workflows/ci.yml"), file_kind("src/app.py"), file_kind("pom.xml"), file_kind("logo.png")
    ('workflow', 'source-python', 'build', 'other')
    """
    *folders, name = path.split("/")
    if name in _WORKFLOW_NAMES or path.startswith(_WORKFLOW_FOLDERS):
        return "workflow"
    if _describes_container(name):
        return "container"
    if name in _DEPENDENCY_NAMES or name.endswith(".lock") or _lists_requirements(name):
        return "dependency"
    if is_build_file(path):
        return "build"
    if not _TEST_FOLDERS.isdisjoint(folders) or _is_named_test(name):
        return "test"
    if not _DOCS_FOLDERS.isdisjoint(folders) or _is_named_document(name):
        return "docs"
    return _KIND_BY_ENDING.get(name.rpartition(".")[2], "other") if "." in name else "other"


def _lists_requirements(name: str) -> bool:
    return name.endswith(".txt") and "requirements" in name


def _describes_container(name: str) -> bool:
    composes = name.startswith(("compose", "docker-compose")) and name.endswith((".yml", ".yaml"))
    return composes or name.startswith(("Dockerfile", "Containerfile")) or name.endswith(".dockerfile")


def _is_named_test(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    is_marked = bool(ending) and stem.endswith(("_test", "_spec", ".test", ".spec"))
    return is_marked or name.startswith("test_") or (ending in _TEST_ENDINGS and stem.endswith(("Test", "Tests")))


def _is_named_document(name: str) -> bool:
    return name.endswith(_DOCS_ENDINGS) or name.startswith(("README", "CHANGELOG", "LICENSE", "AUTHORS", "NOTICE"))


class ChangeImpact(NamedTuple):
    """What a change touches, in a form that answers quickly for many tests."""

    stems: frozenset[str]  # names of the changed files, without suffix and without "test"
    places: frozenset[str]  # their directories, and every tail of those: org/foo of src/main/java/org/foo
    folders: frozenset[str]  # their directories; "" for that of a Go package at the root of the repository
    build_file: bool  # one of them is a build file
    anything: bool  # there is a changed file

    def relation(self, test: str) -> str:
        """Return the closest relation of a test `class#name` to the change, an option of the schema's `change` feature.

        itself: a changed file is named as the test's class or module, or as what it tests (`FooTest` and `Foo`).
        near: one is in the test's directory or package. build-file: one is a build file. elsewhere: any other change.
        nothing: no file changed.
        """
        group, _, name = test.partition("#")
        places = (_place(group), _rust_place(name)) if "::" in name else (_place(group),)
        if any(stem and stem in self.stems for _, stem in places):
            return "itself"
        if any(directory and directory in self.places for directory, _ in places):
            return "near"
        if "/" in group and not self.folders.isdisjoint(_folders(group)):
            return "near"
        if self.build_file:
            return "build-file"
        return "elsewhere" if self.anything else "nothing"


def analyze_change(files: Sequence[FileChange]) -> ChangeImpact:
    """Return what the changed files touch.

    >>> analyze_change([FileChange("src/main/java/org/foo/Bar.java")]).relation("org.foo.BarTest#works")
    'itself'
    """
    split = [_split(file.path) for file in files]
    directories = {directory for directory, _ in split}
    return ChangeImpact(
        frozenset(stem for _, stem in split),
        frozenset(tail for directory in directories for tail in _tails(directory)),
        frozenset(_split(file.path)[0] for file in files if "/" in file.path or file.path.endswith(".go")),
        any(is_build_file(file.path) for file in files),
        bool(files),
    )


def split_node(node_id: str, prefix: str = "") -> tuple[str, str]:
    """Return class and name under which pytest's `--junit-xml`, with this prefix, reports the test of a node id.

    >>> split_node("shop/test_cart.py::TestCart::test_pay[a::b]")
    ('shop.test_cart.TestCart', 'test_pay[a::b]')
    """
    address, bracket, parameters = node_id.partition("[")
    path, *names = address.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    *classes, name = names or [""]
    return ".".join(filter(None, (prefix, module, *classes))), f"{name}{bracket}{parameters}"


def group_of(test: str) -> str:
    """Return the class, module or suite of a test id `class#name`.

    >>> group_of("org.foo.BarTest#works")
    'org.foo.BarTest'
    """
    return test.partition("#")[0]


NOT_STARTED = "<init>"  # the name of a test that stands for a suite or a run that failed as a whole
STAND_INS = (NOT_STARTED, "setUpClass", "setUpModule")
# Mocha's and Cypress' hooks, whose names follow those of their suites; a hook is a case only where it failed.
HOOKS = tuple(f'"{when} {what}" hook' for when in ("before", "after") for what in ("all", "each"))
_STAND_IN_ENDS = (*(f"#{name}" for name in STAND_INS), *HOOKS)


def unloaded_place(test: str) -> str:
    """Return the module, class or package that a failed test stands for, "" for a test of its own.

    >>> unloaded_place("shop/cart#<init>"), unloaded_place("tests.TestCart#setUpClass"), unloaded_place("cart#adds")
    ('shop/cart', 'tests.TestCart', '')
    """
    group, _, name = test.partition("#")
    return group if name in STAND_INS else ""


def is_stand_in(test: str) -> bool:
    """Return whether a failed test is none of its own: it stands for what could not be loaded, or for a hook.

    >>> is_stand_in("shop/cart#<init>"), is_stand_in('cart.js#cart "before all" hook'), is_stand_in("cart#adds")
    (True, True, False)
    """
    return test.endswith(_STAND_IN_ENDS)


def count_tests(tests: Collection[str]) -> int:
    """Return how many of these ids are tests of their own.

    >>> count_tests(["shop/cart#<init>", "cart#adds", "tests.TestCart#setUpClass"])
    1
    """
    return len(tests) - sum(map(is_stand_in, tests))


def file_of(test: str) -> str:
    """Return what stands for a test's file: the path of a module or script, or the class around inner ones.

    >>> file_of("tests.test_cart.TestCart#test_pay"), file_of("org.foo.BarTest$Inner#works"), file_of("src/a.test.ts#b")
    ('tests/test_cart', 'org/foo/BarTest', 'src/a.test.ts')
    """
    return _file_of_group(test.partition("#")[0])  # inline: called for each test


@lru_cache(maxsize=50_000)  # most tests share their class with others
def _file_of_group(group: str) -> str:
    return group if "/" in group else "/".join(_module_parts(group))


def own_files(files: Iterable[FileChange]) -> frozenset[str]:
    """Return the `file_of` of every test whose own file is one of the changed ones.

    >>> file_of("org.foo.BarTest#works") in own_files([FileChange("src/test/java/org/foo/BarTest.java")])
    True
    """
    paths = {path for file in files for path in (file.path, file.path.rpartition(".")[0])}
    return frozenset(tail for path in paths for tail in _tails(path))


def package_of(test: str) -> str:
    """Return the package or directory of a test's class as a path; "" where its name has none.

    >>> package_of("org.foo.BarTest#works")
    'org/foo'
    """
    return _place(group_of(test))[0]


def _tails(directory: str) -> Iterator[str]:
    """Yield every tail of a directory that begins at a name.

    >>> list(_tails("a/b"))
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
    """Return directory and bare stem of a test's class or path: org.foo.BarTest$Inner is (org/foo, bar)."""
    suite, separator, rest = group.rpartition("::")
    if separator:  # a file and its class, or a suite and its class
        group = suite if "/" in suite else rest
    if "/" in group:
        return _split(group)
    parts = _module_parts(group)
    return "/".join(parts[:-1]), _bare(parts[-1])


@lru_cache(maxsize=10_000)
def _folders(group: str) -> frozenset[str]:
    """Return the folders of a repository that a Go package may be, whose import path begins with its module's.

    >>> sorted(_folders("github.com/acme/shop/cart"))[:2], "" in _folders("github.com/acme/shop/v2")
    (['acme/shop/cart', 'cart'], True)
    """
    is_root = re.fullmatch(r"[\w-]+(?:\.[\w-]+)+(?:/[\w.~-]+){1,2}?(?:/v\d+)?", group)
    return frozenset((*_tails(group), *("",) * bool(is_root)))


@lru_cache(maxsize=10_000)
def _rust_place(name: str) -> tuple[str, str]:
    """Return directory and bare stem of the module that a Rust test is in; empty for a name that has no path.

    >>> _rust_place("arch::all::tests::finds"), _rust_place("Rack::Utils escapes")
    (('arch', 'all'), ('', ''))
    """
    path = name.split("::") if name.replace("::", "_").isidentifier() else ()
    modules = [part for part in path[:-1] if part not in ("test", "tests")]
    return ("/".join(modules[:-1]), _bare(modules[-1])) if modules else ("", "")


def _module_parts(group: str) -> list[str]:
    """Return the dotted parts of a class without inner classes, up to the module where pytest named it."""
    parts = group.partition("$")[0].split(".")
    if "test_" not in group and "_test" not in group:  # the usual name of a class
        return parts
    modules = [index for index, part in enumerate(parts) if part.startswith("test_") or part.endswith("_test")]
    if modules:
        del parts[modules[-1] + 1 :]  # pytest: tests.test_module.TestClass.TestInner
    return parts


def _bare(stem: str) -> str:
    """Return the stem without what marks a test, as often as there is some: "iterutils" begins with "it" itself.

    Words are not told apart: the test of Ruby's shopping_cart.rb is ShoppingCartTest.

    >>> _bare("test_iterutils") == _bare("iterutils"), _bare("CommitTest") == _bare("Commit")
    (True, True)
    >>> _bare("ShoppingCartTest") == _bare("shopping_cart") == _bare("shopping-cart.test")
    True
    """
    bare = re.sub(_DECORATION, "", stem, flags=re.IGNORECASE).lower()
    return bare.replace("_", "").replace("-", "") if bare == stem.lower() else _bare(bare)
