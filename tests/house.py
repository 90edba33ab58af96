"""Measure the structure of the package against its aims: `python -m tests.house [--flows]`.

Prints modules, lines, names that occur twice, imports between packages, cycles, local names that say nothing,
docstrings that begin with a verb, and with --flows the modules that a reader opens per flow. Exits 1 when a figure is
above its aim. Decision 0113 derives the aims for lines and flows; the first plan had others, which are missed and
printed beside them.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fedstep"
MOST_MODULES = 160  # without __init__.py
MOST_LINES = 48_500
MOST_CODE_LINES = 30_500  # without blank lines, docstrings, imports and comments
FIRST_PLAN_LINES = 29_000
LEAST_VERBS = 0.9  # share of function docstrings that begin with a verb
# They say that there is a value, not what it is. A column, a wire word or a field of a class may have such a name.
VAGUE_NAMES = frozenset(("found", "number", "one", "place", "told", "ours", "said", "shown", "gone"))

# The packages that each package may import, and the single modules at the top of fedstep/. `server.*` is one package.
ALLOWED_IMPORTS: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "types": frozenset(),
    "files": frozenset(),
    "config": frozenset({"errors", "files"}),
    "results": frozenset({"errors", "types"}),
    "schema": frozenset(),
    "ingest": frozenset({"errors", "types", "files"}),
    "history": frozenset({"errors", "types", "files", "schema", "ingest"}),
    "features": frozenset({"errors", "types", "schema", "ingest", "history"}),
    "model": frozenset({"errors", "types", "results", "schema", "ingest", "history", "features"}),
    "federation": frozenset({"errors", "types", "files", "schema", "history", "model"}),
    "report": frozenset({"types", "results", "ingest"}),
    "pipeline": frozenset(
        {"errors", "types", "results", "files", "schema", "ingest", "history", "features", "model", "federation"}
    ),
    "importers": frozenset(
        {"errors", "types", "schema", "ingest", "history", "features", "model", "federation", "pipeline"}
    ),
    "diagnostics": frozenset(
        {"errors", "types", "results", "files", "schema", "ingest", "history", "features", "model", "federation"}
        | {"report", "pipeline"}
    ),
    "project": frozenset(
        {"errors", "types", "results", "config", "ingest", "history", "federation", "pipeline", "diagnostics", "report"}
    ),
    "server": frozenset({"errors", "schema", "model", "federation"}),
    "evaluation": frozenset(
        {"errors", "types", "results", "schema", "ingest", "history", "features", "model", "federation"}
        | {"report", "pipeline", "importers", "diagnostics", "server"}
    ),
    "pytest_plugin": frozenset({"errors", "types", "results", "ingest", "report", "pipeline", "project"}),
    "cli": frozenset(
        {"errors", "types", "results", "config", "schema", "ingest", "history", "features", "model", "federation"}
        | {"files", "report", "pipeline", "importers", "diagnostics", "evaluation", "server", "project"}
    ),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure: its name, its value, its aim, and what exceeds the aim."""

    name: str
    value: str
    aim: str
    problems: tuple[str, ...] = ()
    first_plan: str = ""  # the aim before decision 0113, if it was another


@cache
def modules() -> Mapping[str, ast.Module]:
    """Return the syntax tree of every module by its path below fedstep/."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def package_of(path: str) -> str:
    """Return the package of a module, or the module's own name at the top of fedstep/."""
    return path.partition("/")[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full names that the import statements of a tree name: `from a import b` is `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_edges() -> Mapping[tuple[str, str], frozenset[str]]:
    """Return, for each pair of packages of which the first imports the second, the modules that do so."""
    names = {package_of(path) for path in modules()}
    edges: dict[tuple[str, str], set[str]] = {}
    for path, tree in modules().items():
        for name in imported(tree):
            target = name.split(".")[1] if name.startswith("fedstep.") else ""
            if target in names and target != package_of(path):
                edges.setdefault((package_of(path), target), set()).add(path)
    return {pair: frozenset(paths) for pair, paths in edges.items()}


def forbidden_edges() -> tuple[str, ...]:
    """Return the imports between packages that ALLOWED_IMPORTS does not name."""
    free = {"__init__", "__main__"}
    return tuple(
        f"{source} imports {target}: {', '.join(sorted(paths))}"
        for (source, target), paths in sorted(package_edges().items())
        if source not in free and target not in free and target not in ALLOWED_IMPORTS.get(source, frozenset())
    )


def cycles() -> tuple[str, ...]:
    """Return the cycles among the packages, as `a -> b -> a`."""
    targets: dict[str, set[str]] = {}
    for source, target in package_edges():
        if source not in ("__init__", "__main__") and target not in ("__init__", "__main__"):
            targets.setdefault(source, set()).add(target)
    found: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.add(" -> ".join((*path[path.index(name) :], name)))
            return
        for target in sorted(targets.get(name, ())):
            visit(target, (*path, name))

    for name in sorted(targets):
        visit(name, ())
    return tuple(sorted(found))


def repeated_file_names() -> tuple[str, ...]:
    """Return the file names that occur more than once, __init__.py aside."""
    return _repeated((path.rpartition("/")[2] for path in modules()), ignored={"__init__.py"})


def repeated_class_names() -> tuple[str, ...]:
    """Return the names of classes that occur more than once in the package."""
    return _repeated(
        node.name for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )


def _repeated(names: Iterable[str], ignored: Iterable[str] = ()) -> tuple[str, ...]:
    return tuple(sorted(name for name, count in Counter(names).items() if count > 1 and name not in set(ignored)))


def line_count() -> int:
    """Return the lines of all modules, blank lines and comments included."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py"))


@cache
def code_line_count() -> int:
    """Return the lines of all modules without blank lines, docstrings, imports and lines that are only a comment."""
    return sum(_code_lines(path) for path in PACKAGE.rglob("*.py"))


def _code_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    code = {n for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")}
    for node in ast.walk(ast.parse(text)):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (is_docstring or isinstance(node, ast.Import | ast.ImportFrom)):
            code.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


@cache
def docstring_verbs() -> tuple[int, int, tuple[str, ...]]:
    """Return how many function docstrings begin with a verb, how many there are, and the others as `path:line: text`.

    A verb is what pydocstyle's imperative mood check (D401) would not object to in spirit: the first word is no
    article, pronoun, preposition or participle, and does not end in `s` as a third person does.
    """
    others, total = [], 0
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not (text := ast.get_docstring(node)):
                continue
            total += 1
            if not _begins_with_verb(text):
                others.append(f"{path}:{node.lineno}: {text.splitlines()[0]}")
    return total - len(others), total, tuple(others)


_NO_VERBS = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "it", "its", "they", "their", "there", "some", "such"),
        *("what", "whether", "how", "where", "who", "when", "why", "one", "all", "any", "each", "every", "no", "not"),
        *("nothing", "as", "of", "for", "from", "in", "on", "by", "with", "if", "only", "also", "both"),
    )
)


def _begins_with_verb(text: str) -> bool:
    word = re.match(r"[A-Za-z]+", text)
    if not word:
        return False
    first = word.group().lower()
    return first not in _NO_VERBS and not re.search(r"(?:[^s]s|ed|ing)$", first)


@cache
def vague_local_names() -> tuple[str, ...]:
    """Return the parameters and variables of functions that are called as VAGUE_NAMES, as `path:line: name`."""
    return tuple(
        f"{path}:{line}: {name}"
        for path, tree in modules().items()
        for line, name in sorted(local_names(tree))
        if name in VAGUE_NAMES
    )


def local_names(tree: ast.AST) -> set[tuple[int, str]]:
    """Return the names that functions, comprehensions and modules bind, with their lines; not the fields of classes."""
    fields = {
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            names.add((node.lineno, node.arg))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            names.add((node.lineno, node.id))
    return names


def measure(most_lines: int = MOST_LINES, most_code_lines: int = MOST_CODE_LINES) -> tuple[Figure, ...]:
    """Return every figure of the structure beside its aim."""
    count = sum(not path.endswith("__init__.py") for path in modules())
    lines, code = line_count(), code_line_count()
    verbs, total, others = docstring_verbs()
    return (
        Figure("modules", str(count), f"at most {MOST_MODULES}", _over(count, MOST_MODULES)),
        Figure(
            "lines",
            f"{lines:,}",
            f"at most {most_lines:,}",
            _over(lines, most_lines),
            f"at most {FIRST_PLAN_LINES:,}, {describe_miss(lines, FIRST_PLAN_LINES)}",
        ),
        Figure("lines of code", f"{code:,}", f"at most {most_code_lines:,}", _over(code, most_code_lines)),
        _listed("file names that occur twice", repeated_file_names()),
        _listed("class names that occur twice", repeated_class_names()),
        _listed("imports between packages that are not allowed", forbidden_edges()),
        _listed("cycles between packages", cycles()),
        _listed("local names that say nothing", vague_local_names()),
        Figure(
            "function docstrings that begin with a verb",
            f"{verbs} of {total} ({verbs / total:.0%})",
            f"at least {LEAST_VERBS:.0%}",
            others[:5] if verbs < LEAST_VERBS * total else (),
        ),
    )


def describe_miss(value: int, most: int) -> str:
    """Return whether a figure meets an aim, and by how much it misses it."""
    return f"missed by {value - most:,}" if value > most else "met"


def _over(value: int, most: int) -> tuple[str, ...]:
    return (f"{value - most:,} too many",) if value > most else ()


def _listed(name: str, problems: tuple[str, ...]) -> Figure:
    return Figure(name, str(len(problems)), "0", problems)


def main(*, flows: bool) -> int:
    """Print the figures. Return 1 when one of them misses its aim."""
    failed = print_figures(measure())
    print("imports between packages:")
    for source in ALLOWED_IMPORTS:
        targets = sorted(target for first, target in package_edges() if first == source and target != "__init__")
        print(f"  {source} -> {', '.join(targets) or 'nothing'}")
    if flows:
        from tests.flows import main as print_flows

        failed = print_flows() or failed
    return failed


def print_figures(figures: Iterable[Figure], show: Callable[[str], None] = print) -> int:
    """Print each figure beside its aim, and what exceeds it. Return 1 when one does."""
    failed = 0
    for figure in figures:
        first = f"; first plan: {figure.first_plan}" if figure.first_plan else ""
        show(f"{figure.name}: {figure.value} (aim: {figure.aim}{first})")
        for problem in figure.problems:
            show(f"  {problem}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(flows="--flows" in sys.argv))
