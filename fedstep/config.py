"""Read options from `.fedstep.toml`, or from the table `[tool.fedstep]` of `pyproject.toml`, at the repository root."""

import os
from collections.abc import Callable, Collection, Mapping

from fedstep.errors import UsageError
from fedstep.files import read_bounded

LARGEST = 1 << 20  # bytes
KINDS = {
    list: "a list of strings",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
}
# Options that say where a secret goes, which program runs, or what is written or deleted: the command line and the
# environment alone set them, because anyone who can change the repository can change its file.
NOT_IN_FILES = frozenset(
    ("api", "backend", "html", "output", "pseudonym", "remote", "scheduler", "serve", "user", "yes"),
)
FILES: tuple[tuple[str, tuple[str, ...]], ...] = ((".fedstep.toml", ()), ("pyproject.toml", ("tool", "fedstep")))


def read_config(root: str, kinds: Callable[[Collection[str]], Mapping[str, type]]) -> Mapping[str, object]:
    """Return option values by name, as the command line spells them: `{"aggregator": "https://..."}`.

    `kinds` returns the types of these options; if one does not exist, the types of all options. It is called only if a
    file sets options.

    Raises:
        UsageError: The file is not TOML, a key is not an option or not one of a file, or a value has another type.
    """
    path, values = _read_table(root)
    if not values:
        return {}
    known = kinds(values)
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{path}: `{key}` is no option of fedstep", suggest(key, known))
        if key in NOT_IN_FILES:
            remedy = f"Give --{key} on the command line, or set FEDSTEP_{key.upper()}"
            raise UsageError(f"{path}: `{key}` is not set by a file of the repository", remedy)
        _check_type(path, key, value, known[key])
    return values


def suggest(name: str, known: Collection[str]) -> str:
    """Return the remedy for a name that does not exist: the nearest one, else all of them.

    >>> suggest("agregator", ["aggregator", "junit"])
    'Did you mean aggregator?'
    """
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1, 0.6)
    return f"Did you mean {near[0]}?" if near else f"The options are: {', '.join(sorted(known))}"


def read_setting(name: str, root: str, environment: Mapping[str, str]) -> str:
    """Return a text option from FEDSTEP_<NAME>, else from the configuration file at `root`, else "".

    Raises:
        UsageError: The file is not TOML, or the value is not a string.
    """
    variable = environment.get(f"FEDSTEP_{name.upper()}", "")
    if variable:
        return variable
    path, values = _read_table(root)
    value = values.get(name, "")
    _check_type(path, name, value, str)
    return str(value)


def _read_table(root: str) -> tuple[str, Mapping[str, object]]:
    """Return the path of the configuration file and its options; an empty table where there is none."""
    for name, table in FILES:
        path = os.path.join(root, name)
        content = _read(path)
        # tomllib costs 15 ms: it is loaded only for a file that sets options.
        if content and (not table or b"tool.fedstep" in content):
            values = _find_table(_parse(content, path), table, path)
            _check_confined(path, values.get("history", ""))
            return path, values
    return "", {}


def _read(path: str) -> bytes:
    if not os.path.exists(path):
        return b""
    try:
        return read_bounded(path, LARGEST)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", "Make it an ordinary file, or delete it"
        ) from error


def _parse(content: bytes, path: str) -> Mapping[str, object]:
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def _find_table(document: Mapping[str, object], table: tuple[str, ...], path: str) -> Mapping[str, object]:
    for key in table:
        inner = document.get(key, {})
        if not isinstance(inner, Mapping):
            raise UsageError(f"{path}: `{key}` is no table", f"Write [{'.'.join(table)}]")
        document = inner
    return document


def _check_confined(path: str, history: object) -> None:
    """Raise UsageError where a file of the repository names a history outside of it: `forget` would delete that."""
    folder = str(history).replace("\\", "/")
    if os.path.isabs(folder) or folder.startswith("~") or ".." in folder.split("/"):
        remedy = "Name a folder of the repository, or set FEDSTEP_HISTORY outside of it"
        raise UsageError(f"{path}: `history` leads out of the repository", remedy)


def _check_type(path: str, key: str, value: object, kind: type) -> None:
    if not _is_a(value, kind):
        raise UsageError(f"{path}: `{key}` is {value!r}", f"Give {KINDS[kind]}")


def _is_a(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind
