"""Options from files: `.fedstep.toml`, or the table `[tool.fedstep]` of `pyproject.toml`, at the repository root."""

import os
from collections.abc import Collection, Mapping

from fedstep.errors import UsageError

__all__ = ["read_config"]


def read_config(root: str, known: Collection[str]) -> Mapping[str, object]:
    """Option values by name, in the words of the command line: `{"aggregator": "https://..."}`.

    Raises UsageError for a file that is no TOML and for a key that is no option; it names the file and the key.
    """
    for name, table in ((".fedstep.toml", ()), ("pyproject.toml", ("tool", "fedstep"))):
        path = os.path.join(root, name)  # noqa: PTH118  predict's path
        content = _read(path)
        # tomllib costs 15 ms: it is loaded only for a file that has something to say.
        if content and (not table or b"tool.fedstep" in content):
            return _checked(_parse(content, path), table, path, known)
    return {}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
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
    values: Mapping[str, object], table: tuple[str, ...], path: str, known: Collection[str]
) -> Mapping[str, object]:
    for key in table:
        inner = values.get(key, {})
        values = inner if isinstance(inner, Mapping) else {}
    for key in values:
        if key not in known:
            near = ", ".join(sorted(known))
            raise UsageError(f"{path}: `{key}` is no option of fedstep", f"The options are: {near}")
    return values
