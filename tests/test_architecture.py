"""The house as DESIGN section 2 draws it: imports point down, heavy libraries stay in their rooms, rooms stay small."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fedstep"

# From the ground up. A module belongs to the floor of the longest name that it starts with. It may import what is on
# floors below, and what is on its own floor in its own package.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("build", "model.linear", "features.parts", "features.words", "features.schema"),
    ("ingest",),
    ("features.builds",),
    ("history",),
    ("features",),
    ("model",),
    ("federation", "report", "importers"),
    ("forecast", "server"),
    ("outlook",),
    ("steps",),
    ("training",),
    ("importers.backfill", "importers.lessons", "simulate", "workplace", "config", "prepush"),
    ("looking",),
    ("commands",),
    ("cli",),
    ("__main__",),
    ("session",),
    ("pytest_plugin",),
)
HEAVY = {"numpy", "scipy", "sklearn", "joblib"}
HEAVY_ROOMS = ("model.sgd", "federation.shares", "simulate", "server", "importers.parallel")
HTTP = {"requests", "urllib3", "httpx", "aiohttp"}
SERVER_MAY_SHARE = {"errors", "features.schema", "model.linear", "federation"}
SERVER_ONLY = {"starlette", "uvicorn", "sqlalchemy", "jwt", "prometheus_client", "jinja2"}
SERVER_COMMANDS = {f"commands.{name}" for name in ("serving", "guarding", "promising", "tokens", "archive")}
LIGHT = (
    *("cli", "config", "workplace", "commands.builds", "commands.hook", "pytest_plugin"),
    *("steps", "report.text", "report.as_json", "report.outputs"),
)
CODE_IN_DATA = re.compile(r"pickle|marshal|joblib\.load|\beval\(|\bexec\(")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


@cache
def modules() -> tuple[str, ...]:
    """Every module by its name below `fedstep`; the package itself is ""."""
    names = (path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py"))
    return tuple(
        sorted(name.removesuffix("__init__").removesuffix(".") if "__init__" in name else name for name in names)
    )


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The full names that import statements among these nodes bring in; `from a import b` is `a.b` and `a`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded_at_once(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes that run when a module is loaded: no function bodies, nothing for the type checker alone."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from loaded_at_once(ast.iter_child_nodes(node))


@cache
def ours(module: str, at_once: bool = False) -> frozenset[str]:
    """The modules of fedstep that this one imports, anywhere or as soon as it is loaded."""
    nodes = loaded_at_once(tree(module).body) if at_once else ast.walk(tree(module))
    names = (name.removeprefix("fedstep").removeprefix(".") for name in imports(nodes) if name.startswith("fedstep"))
    return frozenset(name for name in names if name and name in modules())


@cache
def theirs(module: str, at_once: bool = False) -> frozenset[str]:
    """The top-level names of what it imports from elsewhere."""
    nodes = loaded_at_once(tree(module).body) if at_once else ast.walk(tree(module))
    return frozenset(name.partition(".")[0] for name in imports(nodes)) - {"fedstep"}


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def floor_of(module: str) -> int:
    """The floor of the longest name that the module starts with; the package itself is on the ground."""
    homes = [(len(room), floor) for floor, rooms in enumerate(FLOORS) for room in rooms if inside(module, room)]
    return max(homes)[1] if module else 0


def test_every_module_has_a_floor():
    homeless = [module for module in modules() if module and not any(inside(module, r) for f in FLOORS for r in f)]
    assert homeless == []


def test_imports_point_down():
    wrong = []
    for module in modules():
        floor = floor_of(module)
        for other in ours(module):
            other_floor = floor_of(other)
            same_room = other_floor == floor and module.partition(".")[0] == other.partition(".")[0]
            if other_floor >= floor and not same_room and path_of(other).name != "__init__.py":
                wrong.append(f"{module} (floor {floor}) imports {other} (floor {other_floor})")
    assert wrong == []


def test_no_import_goes_in_circles():
    """Between modules, also inside a room."""
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for other in ours(module):
                if path_of(other).name != "__init__.py":
                    visit(other, (*above, module))
            done.add(module)

    for module in modules():
        visit(module, ())


def test_the_client_never_imports_the_server_only_its_commands_and_simulations_do():
    importers = {module for module in modules() for other in ours(module) if inside(other, "server")}
    outside = {module for module in importers if not inside(module, "server")}
    assert [module for module in outside if not inside(module, "commands") and not inside(module, "simulate")] == []
    early = {module for module in outside for other in ours(module, at_once=True) if inside(other, "server")}
    assert [module for module in early if not inside(module, "simulate")] == []
    users = {module for module in modules() if theirs(module) & SERVER_ONLY}
    assert [module for module in users if not inside(module, "server")] == []


def test_the_server_shares_only_the_wire_the_schema_and_the_linear_model():
    wrong = [
        f"{module} imports {other}"
        for module in modules()
        if inside(module, "server")
        for other in ours(module)
        if not any(inside(other, room) for room in SERVER_MAY_SHARE | {"server"})
        or (inside(other, "federation") and {"history", "model"} & {name.partition(".")[0] for name in reached(other)})
    ]
    assert wrong == []


def test_numpy_and_its_kin_stay_in_their_rooms():
    wrong = [
        f"{module} imports {', '.join(sorted(theirs(module) & HEAVY))}"
        for module in modules()
        if theirs(module) & HEAVY and not any(inside(module, room) for room in HEAVY_ROOMS)
    ]
    assert wrong == []


def test_scikit_learn_is_imported_by_one_client_module():
    client = [module for module in modules() if not inside(module, "simulate")]
    assert [module for module in client if "sklearn" in theirs(module)] == ["model.sgd"]


def test_an_http_library_is_imported_only_inside_functions_of_the_transport_and_of_the_importers_web():
    users = {module for module in modules() if theirs(module) & HTTP}
    assert users == {"federation.transport", "importers.web"}
    assert not any(theirs(module, at_once=True) & HTTP for module in users)


def reached(module: str) -> set[str]:
    """All modules of fedstep that loading this one loads, itself included."""
    found: set[str] = set()
    left = [module]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += ours(name, at_once=True)
    return found


@pytest.mark.parametrize("module", LIGHT)
def test_what_predict_triage_and_help_load_is_light(module):
    heavy = {name: theirs(name, at_once=True) & (HEAVY | HTTP | SERVER_ONLY) for name in reached(module)}
    assert {name: libraries for name, libraries in heavy.items() if libraries} == {}


def test_imports_are_absolute():
    relative = [
        f"{module}:{node.lineno}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_no_module_is_over_500_lines():
    sizes = {module: len(path_of(module).read_text(encoding="utf-8").splitlines()) for module in modules()}
    assert {module: lines for module, lines in sizes.items() if lines > 500} == {}


def test_no_function_is_over_50_lines():
    long = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 50
    }
    assert long == {}


def test_nothing_can_unpickle_or_evaluate_what_came_from_elsewhere():
    found = [
        f"{module}: {match.group()}"
        for module in modules()
        for match in CODE_IN_DATA.finditer(path_of(module).read_text(encoding="utf-8"))
    ]
    assert found == []


def test_nothing_depends_on_the_hash_of_this_process():
    """`hash` of a string is another in every process; names become numbers by blake2b or the schema's order."""
    calls = [
        f"{module}:{node.lineno}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash"
    ]
    assert calls == []


def test_every_module_says_what_it_is_for():
    assert [module for module in modules() if not ast.get_docstring(tree(module))] == []


def test_the_top_level_holds_no_other_folder():
    listed = {"fedstep", "actions", "jenkins", "tests", "docs"}
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    built = {"build", "dist", "__pycache__"}
    assert tracked - built <= listed | {name for name in tracked if name.endswith(".egg-info")}
