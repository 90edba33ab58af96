"""Options from files: `.fedstep.toml`, or the table `[tool.fedstep]` of `pyproject.toml`, at the repository root."""

import os
from collections.abc import Callable, Mapping

from fedstep.errors import UsageError

KINDS = {
    list: "a list of strings",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
}


def read_config(root: str, kinds: Callable[[], Mapping[str, type]]) -> Mapping[str, object]:
    """Option values by name, in the words of the command line: `{"aggregator": "https://..."}`.

    `kinds` gives the type of each option; it is asked only where a file has something to say. Raises UsageError for a
    file that is no TOML, for a key that is no option and for a value of another type; it names the file and the key.
    """
    for name, table in ((".fedstep.toml", ()), ("pyproject.toml", ("tool", "fedstep"))):
        path = os.path.join(root, name)
        content = _read(path)
        # tomllib costs 15 ms: it is loaded only for a file that has something to say.
        if content and (not table or b"tool.fedstep" in content):
            return _checked(_parse(content, path), table, path, kinds())
    return {}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _parse(content: bytes, path: str) -> Mapping[str, object]:
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def _checked(
    values: Mapping[str, object], table: tuple[str, ...], path: str, kinds: Mapping[str, type]
) -> Mapping[str, object]:
    for key in table:
        inner = values.get(key, {})
        if not isinstance(inner, Mapping):
            raise UsageError(f"{path}: `{key}` is no table", f"Write [{'.'.join(table)}]")
        values = inner
    for key, value in values.items():
        if key not in kinds:
            raise UsageError(f"{path}: `{key}` is no option of fedstep", f"The options are: {', '.join(sorted(kinds))}")
        if not _is_a(value, kinds[key]):
            raise UsageError(f"{path}: `{key}` is {value!r}", f"Give {KINDS[kinds[key]]}")
    return values


def _is_a(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind
